"""Between a command and the terminal: output that cannot be written, and signals that end a command."""

from __future__ import annotations

import errno
import os
import signal
import sys
from contextlib import suppress
from typing import Any, Final, NoReturn, TextIO

from fuser.errors import OutputError

STOPPING: Final = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


class Stopped(BaseException):
    """The command is to end, as by Ctrl-C: it clears up first. No `Exception`, so that nothing goes on."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_status = 128 + number


class Unread(OutputError):
    """Nobody reads what is printed. By then everything else is done."""


class Printed:
    """A stream for results, of which an error is no `OSError` that something may take for its own.

    What failed once fails always: it is not to be overlooked because somebody only tried.

    Raises:
        OutputError: it is full or closed.
        Unread: it is a pipe that nobody reads.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._error = _unprintable("it is closed") if stream is None else None

    def write(self, text: str) -> int:
        """Write a text."""
        return int(self._try("write", text))

    def flush(self) -> None:
        """Write what is left to write."""
        if self._stream is not None:  # what is closed holds nothing back
            self._try("flush")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream if self._stream is not None else sys.stderr, name)

    def _try(self, method: str, *arguments: str) -> Any:
        if self._error is not None:
            raise self._error
        try:
            return getattr(self._stream, method)(*arguments)
        except BrokenPipeError:
            self._error = Unread("nobody reads what is printed")
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            self._error = _unprintable("there is no space left" if full else error.strerror or str(error))
        self._drop()
        raise self._error

    def _drop(self) -> None:
        """Let what is still to be written vanish, or Python would try again when it ends."""
        assert self._stream is not None
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)


def _unprintable(reason: str) -> OutputError:
    return OutputError(
        f"the result cannot be printed: {reason[0].lower()}{reason[1:]}; everything else is done"
    )


def prepare() -> None:
    """Prepare the process for being a command."""
    # A file that is opened must not get the number of a stream that was closed: libraries print to these.
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123  # as long as the process
    # A name that the terminal cannot show is no reason to fail.
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a TextIOWrapper at the start
    sys.stdout = Printed(sys.stdout)
    for number in STOPPING:
        if signal.getsignal(number) == signal.SIG_DFL:  # not if we were told to go on, as by nohup
            signal.signal(number, _stop)


def _stop(number: int, _frame: object) -> NoReturn:
    # Once: what clears up must not be stopped.
    for other in STOPPING:
        signal.signal(other, signal.SIG_IGN)
    raise Stopped(number)


def complain(text: str) -> None:
    """A sentence on stderr, if that is there."""
    with suppress(OSError):
        sys.stderr.write(text)
        sys.stderr.flush()


def end(status: int) -> NoReturn:
    """End the process as a command whose output nobody reads ends, if it is that, or with an exit status."""
    sys.stdout = sys.__stdout__  # which Python flushes
    if hasattr(signal, "SIGPIPE") and status == 128 + signal.SIGPIPE:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGPIPE)
    sys.exit(status)

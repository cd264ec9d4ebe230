"""What is wrong with a file: found out by running the compiler on it, in a process of its own.

A fault may end the process, or never end; so there is a limit of time, and what is left behind goes with the
process.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import sys
import tempfile
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from fuser.errors import InputError

if TYPE_CHECKING:
    from fuser.judge.inputs import Shapes
    from fuser.judge.verification import Verification

Kind = Literal["crashes", "refuses", "differs", "unproven", "hangs"]

KINDS: Final[dict[Kind, str]] = {
    "crashes": "the compiler or the verification ends with a mistake of ours",
    "refuses": "a valid file is refused",
    "differs": "the result does not compute the same",
    "unproven": "the result cannot be proved to compute the same",
    "hangs": "there is no end within the limit of time",
}
"""What may be wrong with a file."""


@dataclass(frozen=True)
class Symptom:
    """What is wrong with a file: its kind, what tells it from others of that kind, and in words."""

    kind: Kind
    signs: frozenset[str]
    text: str
    proof: bool = True
    """Whether it is seen only when the result is verified, or may be."""

    def is_same(self, other: Symptom | None) -> bool:
        """Whether another file shows this one too."""
        return other is not None and self.kind == other.kind and not self.signs.isdisjoint(other.signs)

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


@dataclass(frozen=True)
class Run:
    """How the compiler is run on a file."""

    passes: tuple[str, ...]
    zero_below: float
    shapes: Shapes
    """Of inputs, by name."""
    valid: bool = False
    """Whether what is not valid counts for nothing."""
    verify: bool = True

    def observe(self, path: Path) -> Symptom | None:
        """What is wrong with a file: it is optimized and verified. None where nothing is."""
        from fuser.compiler import optimize_file
        from fuser.hosts.blame import InvalidModelError, blaming
        from fuser.hosts.pick import host_of
        from fuser.verifier import verify

        if self.valid and host_of(path).invalid(path) is not None:
            return None
        result = Path(tempfile.gettempdir()) / "result.onnx"
        optimized = False
        try:
            with blaming(path):
                optimize_file(path, result, passes=self.passes, zero_below=self.zero_below, verify=False)
                optimized = True
                return _judged(verify(path, result, shapes=self.shapes)) if self.verify else None
        except InvalidModelError:
            return None
        except InputError as error:
            return _raised("refuses", error, proof=optimized) if self.valid else None
        except Exception as error:  # noqa: BLE001  # what it may be is the question
            return _raised("crashes", error, proof=optimized)


def observe(run: Run, path: Path, limit: float) -> Symptom | None:
    """What is wrong with a file, found out in a process of its own, which may take `limit` seconds."""
    methods = multiprocessing.get_all_start_methods()
    context: Any = multiprocessing.get_context("fork" if "fork" in methods else "spawn")
    answer, question = context.Pipe(duplex=False)
    with tempfile.TemporaryDirectory(prefix="graph-fuser-") as folder:
        process = context.Process(target=_alone, args=(run, path, folder, question), daemon=True)
        process.start()
        question.close()
        try:
            if not answer.poll(limit):
                return Symptom("hangs", frozenset(["hangs"]), f"it does not end within {limit:.3g} seconds")
            found: Symptom | None
            found, imported = answer.recv()
        except EOFError:
            process.join()
            return _died(process.exitcode or 0)
        finally:
            process.kill()
            process.join()
            answer.close()
    _import(imported)
    return found


def _alone(run: Run, path: Path, folder: str, question: Connection) -> None:
    """What the process does: nothing is printed, and what is left behind goes with the folder."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    tempfile.tempdir = folder
    before = set(sys.modules)
    found = run.observe(path)
    question.send((found, [name for name in sys.modules if name not in before]))


def _import(names: Sequence[str]) -> None:
    """Import what a process has imported, or the next one would do so again."""
    for name in names:
        if name.partition(".")[0] in ("fuser", "passes", "numpy", "onnx", "onnx_ir", "onnxruntime"):
            import_module(name)


def _judged(verification: Verification) -> Symptom | None:
    if verification.verdict == "equal":
        return None
    if verification.verdict == "unproven":
        reasons = verification.unproven.values() or [verification.reason]
        return Symptom("unproven", frozenset(map(_kernel, reasons)), verification.reason)
    sign = "in numbers" if verification.rows else verification.reason.partition(":")[0]
    return Symptom("differs", frozenset([sign]), verification.reason)


def _kernel(reason: str) -> str:
    """The last clause of a sentence, without what it says of one model: names, numbers and shapes."""
    return re.sub(r"'[^']*'|\"[^\"]*\"|\[[^\]]*\]|\{[^}]*\}|\S*\d\S*", "*", re.split("; |: ", reason)[-1])


def _raised(kind: Kind, error: Exception, *, proof: bool) -> Symptom:
    """An exception is another one if its type is, or the place where it was raised, ours included."""
    frames = list(traceback.walk_tb(error.__traceback__))
    called = [(f.f_globals.get("__name__", ""), f.f_code.co_qualname, line) for f, line in frames]
    ours = [place for place in called if place[0].partition(".")[0] in ("fuser", "passes")]
    places = dict.fromkeys([called[-1], ours[-1]])
    name = type(error).__name__
    signs = [name, *(f"{module}.{function}" for module, function, _ in places)]
    where = ", called by ".join(f"line {line} of {module} in {function}" for module, function, line in places)
    return Symptom(
        kind, frozenset([" ".join(signs)]), f"{name}: {' '.join(str(error).split())} ({where})", proof
    )


def _died(status: int) -> Symptom:
    """A process that is gone: by a signal where the status is negative."""
    how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
    return Symptom("crashes", frozenset([how]), f"the process ends by {how}")

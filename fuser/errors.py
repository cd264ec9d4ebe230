"""Every exception of the compiler, with the exit status that it leads to on the command line."""

from typing import ClassVar


class FuserError(Exception):
    """Base of all errors that a user can cause. The message is one sentence, with both values."""

    exit_status: ClassVar[int] = 2


class InputError(FuserError):
    """The input cannot be read, is not a valid model, or the request makes no sense (exit status 2)."""


class OutputError(FuserError):
    """The output cannot be written (exit status 2). An existing file is left as it was."""


class VerificationError(FuserError):
    """The result does not compute what the original computes (exit status 1). Nothing is written."""

    exit_status: ClassVar[int] = 1


class ContradictionError(FuserError):
    """Our evaluation of a model is wrong: onnxruntime contradicts it (exit status 70). Nothing is written."""

    exit_status: ClassVar[int] = 70


class OracleUnavailable(Exception):
    """A model cannot be evaluated in float64. The message says which node and why."""


class Declined(Exception):
    """A rewrite does not apply here. The message is the reason, with both values: an event, no error."""


def require(condition: bool, reason: str) -> None:
    """Decline the rewrite at hand unless `condition` holds.

    Raises:
        Declined: with `reason`, which states both values: `stride differs: (2, 2) and (1, 1)`.
    """
    if not condition:
        raise Declined(reason)

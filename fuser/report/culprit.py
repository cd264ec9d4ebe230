"""What is done about a verdict; the pass to blame for a wrong one is that without which it is right."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING, Final

from fuser.errors import VerificationError

if TYPE_CHECKING:
    from fuser.judge.verification import Verification
    from fuser.report.report import Report

SUSPECTING: Final = 60.0
"""Seconds after which no more passes are tried for what made a result wrong."""


def require_right(report: Report, without: Callable[[str], Verification], *, strict: bool) -> None:
    """Let pass what is equal, and what could not be proved unless `strict`.

    `without` verifies what comes out without one pass.

    Raises:
        VerificationError: the result is wrong, with the pass that is to blame, or with `strict` not proved.
    """
    verification = report.verification
    assert verification is not None
    if verification.verdict == "differs":
        raise VerificationError(
            f"{report.source}: the result does not compute the same, and nothing was written: "
            f"{verification.reason}; {_suspect(report, without)}"
        )
    if strict and not verification.ok:
        raise VerificationError(
            f"{report.source}: the result could not be proved to compute the same, and nothing was written: "
            f"{verification.reason}"
        )


def _suspect(report: Report, without: Callable[[str], Verification]) -> str:
    """The pass without which the result is right: one after the other is left out, as time allows."""
    started = perf_counter()
    tried: list[str] = []
    for name in dict.fromkeys(event.rewrite for event in report.applied):
        if tried and perf_counter() - started > SUSPECTING:
            return f"it is so without {' and without '.join(tried)} too; more were not tried"
        if without(name).verdict != "differs":
            return f"suspect: {name}, without which it does"
        tried.append(name)
    return (
        f"no suspect: it is so without {' and without '.join(tried)} too"
        if tried
        else "nothing was rewritten"
    )

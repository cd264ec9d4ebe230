"""The original against the result: same inputs, each where it runs. The verdict: equal, differs, unproven.

The reference is the original itself, as its own runtime reads it and without optimisations. Our float64
evaluation of the original says how much of a difference its own types explain (`judge/compare.py` has the
rule, and its ceiling). Where that is needed, it first has to agree with the runtime node by node; where it
does not, the mistake is ours. What the end of a deep network does not decide is decided value by value. What
cannot run here is taken out of both models, and all before, around and behind it is compared. How each of
that is done is the host's, behind `Models`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from time import perf_counter
from typing import Any, Final, Literal, Protocol

from fuser.errors import InputError, OracleUnavailable
from fuser.judge.compare import Outputs, Row, judge
from fuser.judge.inputs import Feeds
from fuser.judge.runner import CannotRun, Runner, TakesTooLong

Verdict = Literal["equal", "differs", "unproven"]

UNSTEADY: Final = "the original gives different outputs each time"


@dataclass(frozen=True)
class Values:
    """The result judged value by value: `compared` values have a name that the original has too.

    `inner` of them are no outputs. `worst` is the first of them that is wrong, or else the least exact, and
    `error` its error relative to its scale. `ok` where none is `wrong` and every output was reached.
    """

    compared: int
    inner: int
    worst: str
    error: float
    ok: bool
    wrong: bool = False


@dataclass(frozen=True)
class Verification:
    """The verdict, why, the rows that it rests on, and the shapes that were fed, one mapping for each sample.

    "equal": every output was compared and is right. "differs": something was seen to differ. "unproven":
    nothing was, but not all could be compared here; `unproven` says of each such output why. Only what is
    equal is `ok`, and true.
    """

    verdict: Verdict
    reason: str = ""
    rows: tuple[Row, ...] = ()
    samples: tuple[dict[str, tuple[int, ...]], ...] = ()
    notes: tuple[str, ...] = ()
    values: Values | None = None
    unproven: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether the result was shown to compute the same."""
        return self.verdict == "equal"

    def __bool__(self) -> bool:
        return self.ok

    @property
    def worst(self) -> Row | None:
        """The row nearest to its tolerance, or furthest beyond it."""
        return max(self.rows, key=lambda row: (row.differs, row.excess), default=None)

    def to_dict(self) -> dict[str, Any]:
        """Everything; errors of what cannot be compared are infinite."""
        return {"ok": self.ok} | asdict(self)


class Models(Protocol):
    """The two models of a comparison: where they run, on what, and what is known of their insides."""

    @property
    def inputs(self) -> Any:
        """What the user gave, or None."""

    @property
    def notes(self) -> Sequence[str]:
        """What was not tried, once all is done."""

    def original(self, *, precise: bool) -> AbstractContextManager[Runner]:
        """The original, `precise` in float64; `CannotRun` where it cannot be had."""

    def result(self, *, precise: bool) -> AbstractContextManager[Runner]:
        """The result, in the same way. It is asked for after the original has run."""

    def samples(self, runner: Runner) -> Iterator[tuple[Feeds, Outputs]]:
        """Inputs, and what the original makes of them; `CannotRun` if it takes none."""

    def precisions(self) -> Mapping[str, str]:
        """Of each output the narrowest floating type that computes on the way to it."""

    def open(self, refusal: CannotRun) -> bool:
        """Take out of both models what the runtime refuses; whether there was something more to take out."""

    def closed(self) -> Mapping[str, str]:
        """The outputs that say nothing as they stand, since something was taken out on the way, and why."""

    def agree(self, feeds: Feeds) -> None:
        """Compare our float64 evaluation with the runtime, node by node.

        Raises:
            ContradictionError: it is wrong.
        """

    def values(self, feeds: Feeds) -> Values | None:
        """The result judged value by value, where values have names."""


def compare(models: Models) -> Verification:
    """The verdict on two models.

    Raises:
        InputError: one of them cannot be read.
        ContradictionError: our float64 evaluation is wrong where it is needed.
    """
    started = perf_counter()
    verdict = _Check(models).run()
    notes = (*verdict.notes, *models.notes)
    return replace(verdict, notes=notes, seconds=perf_counter() - started)


@dataclass
class _Check:
    """One verification. At any time at most one of the two models is loaded."""

    models: Models

    def __post_init__(self) -> None:
        self.float64_only = False
        self.notes: list[str] = []
        self.feeds: list[Feeds] = []
        self.expected: list[Outputs] = []
        self.values: Values | None = None

    def run(self) -> Verification:
        """The steps: original, result, float64, verdict."""
        try:
            face = self._original()
        except CannotRun as error:
            if self.models.inputs is not None:
                raise  # what a user gives has to fit
            return self._finished("unproven", f"nothing could be compared: {error}")
        try:
            with self.models.result(precise=self.float64_only) as runner:
                if difference := _difference(face, runner):
                    return self._finished("differs", difference)
                actual = [runner.run(feed) for feed in self.feeds]
        except TakesTooLong as error:
            return self._finished("unproven", f"nothing could be compared: {error}")
        except CannotRun as error:
            return self._finished("differs", f"the result does not run where the original does: {error}")
        more = [name for name in actual[0] if name not in self.expected[0]]
        if more and not self.float64_only:  # there it is only what could not be evaluated of the original
            return self._finished(
                "differs", f"the result has outputs that the original has not: {', '.join(more)}"
            )
        return self._verdict(self._settled(self._judged(face, actual)), self._silent(face))

    def _original(self) -> Runner:
        """Find inputs, keep what the original makes of them, and return what it looks like from outside."""
        while True:
            try:
                return self._sample()
            except CannotRun as error:
                refusal = error
            if not self.models.open(refusal):
                break
        # A type or an operator that the runtime lacks; the arithmetic can still be compared.
        self.float64_only = True
        try:
            runner = self._sample()
        except CannotRun as error:
            raise CannotRun(f"{refusal}; and {error}") from refusal
        self.notes.append(f"{refusal}; so both models were evaluated in float64 only")
        return runner

    def _sample(self) -> Runner:
        with self.models.original(precise=self.float64_only) as runner:
            pairs = list(self.models.samples(runner))
            self.feeds, self.expected = [feeds for feeds, _ in pairs], [outputs for _, outputs in pairs]
            return runner

    def _judged(self, face: Runner, actual: list[Outputs]) -> list[Row]:
        """The rows; float64 explains what the floor does not, and is measured once where there is no such."""

        def judged(ideal: Sequence[Outputs | None] | None) -> list[Row]:
            precisions = self.models.precisions()
            return judge(
                self.expected, actual, ideal, face.outputs, precisions=precisions, exact=self.float64_only
            )

        rows = judged(None)
        if self.float64_only:
            return rows
        near = all(row.comparable and row.error <= row.floor for row in rows)
        worst = max(rows, key=lambda row: row.excess, default=None)
        return judged(self._ideal([worst.sample] if near and worst else range(len(self.feeds))))

    def _ideal(self, samples: Sequence[int]) -> list[Outputs | None] | None:
        """The float64 evaluation of the original on some of the samples, where it can be had."""
        try:
            with self.models.original(precise=True) as runner:
                return [
                    runner.run(feed) if place in samples else None for place, feed in enumerate(self.feeds)
                ]
        except InputError as error:
            self.notes.append(
                f"compared with what the original itself computes, for there is no other reference: {error}"
            )
            return None

    def _settled(self, rows: list[Row]) -> list[Row]:
        """The rows, decided by what is inside of the models where the ends do not decide it."""
        if any(row.differs for row in rows) and (unsteady := self._unsteady()):
            rows = [row.without_proof(UNSTEADY) if row.output in unsteady else row for row in rows]
        if not self.float64_only and any(map(_open, rows)):
            if any(row.inconclusive and row.judged > row.floor for row in rows):
                self.models.agree(self.feeds[0])
            self.values = self._values()
        return [_decided(row, self.values) if _open(row) else row for row in rows]

    def _unsteady(self) -> set[str]:
        """The outputs in which the original differs from itself: random numbers inside."""
        with self.models.original(precise=self.float64_only) as runner:
            once, again = runner.run(self.feeds[0]), runner.run(self.feeds[0])
        return {name for name, array in once.items() if again[name].tobytes() != array.tobytes()}

    def _values(self) -> Values | None:
        try:
            return self.models.values(self.feeds[0])
        except (OracleUnavailable, InputError) as error:
            self.notes.append(f"not judged value by value: {error}")
            return None

    def _silent(self, face: Runner) -> dict[str, str]:
        """The outputs of which there is nothing: our own evaluation left them out, or they hold nothing."""
        found = {
            part for outputs in self.expected for name in outputs for part in (name, name.partition("[")[0])
        }
        why = "it can be evaluated neither there nor in float64" if self.float64_only else "it is empty"
        return dict.fromkeys(sorted(face.outputs.keys() - found), why)

    def _verdict(self, rows: Sequence[Row], silent: Mapping[str, str]) -> Verification:
        if wrong := [row for row in rows if row.differs]:
            return self._finished("differs", self._difference(wrong), rows)
        closed = {**silent, **self.models.closed()}
        seen = {row.output for row in rows if row.ok}
        closed |= {row.output: row.reason for row in rows if row.output not in seen}
        for name in dict.fromkeys(row.output for row in rows if row.ok and not row.compared):
            self.notes.append(f"output {name!r} is NaN, infinite or empty all over, in both alike")
        if not rows and not closed:
            return self._finished("unproven", "nothing was compared: the model has no outputs")
        if closed:
            listed = "; ".join(f"{name!r}: {why}" for name, why in closed.items())
            return self._finished("unproven", f"not proved here: {listed}", rows, closed)
        return self._finished("equal", "", rows)

    def _difference(self, wrong: Sequence[Row]) -> str:
        """What is wrong, in one sentence."""
        row = max(wrong, key=lambda row: row.excess)
        more = len({row.output for row in wrong}) - 1
        reason = f"output {row.output!r} {row.reason}" + (f" ({more} more outputs differ)" if more else "")
        if self.values is not None and self.values.wrong:
            values = self.values
            reason += (
                f"; the first value that differs is {values.worst!r}, by {values.error:.2g} of its scale"
            )
        return reason

    def _finished(
        self,
        verdict: Verdict,
        reason: str,
        rows: Sequence[Row] = (),
        unproven: Mapping[str, str] | None = None,
    ) -> Verification:
        shapes = tuple({name: array.shape for name, array in feed.items()} for feed in self.feeds)
        return Verification(
            verdict, reason, tuple(rows), shapes, tuple(self.notes), self.values, dict(unproven or {})
        )


def _open(row: Row) -> bool:
    """Whether the ends of the models leave it to the values inside to decide."""
    if row.unproven or not row.comparable:
        return False
    return row.differs or not row.compared or (row.inconclusive and row.judged > row.floor)


def _decided(row: Row, values: Values | None) -> Row:
    """A row that is open, decided by the values inside; where they say nothing, what it is without them."""
    empty = 0 in row.shape  # what is inside of the models says nothing of what nobody saw
    if not empty and values is not None and values.ok and values.inner:
        return row.by_values() if row.ok or row.explained else row
    if row.differs and not row.inconclusive:
        return row
    if values is not None and values.wrong and values.inner:
        reason = f"values inside differ in float64: {values.worst!r} by {values.error:.2g} of its scale"
        if not row.compared:
            return row.without_proof(f"nothing of it is finite, and {reason}")
        reason = f"is {row.own_error:.2g} of its scale off in float32 already, and {reason}"
        return replace(row, ok=False, proof="", reason=reason)
    if empty:
        return row.without_proof("it is empty")
    if row.own_error is not None and row.own_error > row.ceiling:
        return row.without_proof(
            f"the original itself is {row.own_error:.2g} of its scale off, which proves nothing"
        )
    return row


def _difference(original: Runner, result: Runner) -> str:
    """What callers would notice before they run anything."""
    before = {spec.name: spec.dtype for spec in original.inputs}
    after = {spec.name: spec.dtype for spec in result.inputs}
    for what, old, new in (("inputs", before, after), ("outputs", original.outputs, result.outputs)):
        if list(old.items()) != list(new.items()):
            return f"the {what} differ: {_listed(old)} and {_listed(new)}"
    return ""


def _listed(types: Mapping[str, str]) -> str:
    return ", ".join(f"{dtype} {name}" for name, dtype in types.items()) or "none"

"""Arrays against arrays: how far a result is from the original, and how far it may be.

One rule, without a jump: an error may be as large as `FLOOR` of the output's scale, or `OWN` times the error
that the original itself has in its own types, but never larger than `CEILING`. What lies beyond it can only
be decided value by value, inside of the models.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Outputs = dict[str, NDArray[Any]]

FLOOR: Final = {"float64": 1e-9, "float32": 1e-5, "float16": 8 * 2.0**-10, "bfloat16": 8 * 2.0**-7}
"""What is always allowed, relative to the output's scale, by the narrowest type that computes on the way to
it; integers and booleans must be equal."""

CEILING: Final = {"float64": 1e-7, "float32": 1e-3, "float16": 0.03, "bfloat16": 0.2}
"""What no error of the original's own makes allowed; of other types `CEILING_DISCRETE` of the elements."""

CEILING_DISCRETE: Final = 0.01

NORMAL: Final = {"float64": 2.0**-1022, "float32": 2.0**-126, "float16": 2.0**-14, "bfloat16": 2.0**-126}
"""The smallest scale that errors are relative to: what is smaller is rounded as if it were of that size."""

OWN: Final = 2
"""How many times the original's own error is allowed."""

OWN_EXPLAINED: Final = 10
"""How many times its own error explains a difference where every value was found right by itself."""

WITHOUT_ORACLE: Final = 10
"""How many times the floor is allowed where the original's own error is not known."""


@dataclass(frozen=True)
class Row:
    """One output for one sample.

    Errors are largest differences relative to `scale`, the output's largest value. For integers and booleans
    an error is the share of elements that differ.

    `error`: result against original; `own_error`: original against its float64 evaluation, in another sample
    where it was not looked at in this one; `float64_error`: result against that. The last is compared with
    `tolerance`, or `error` where there is no float64 evaluation. `compared` is the number of elements that
    are finite in both. `precision` is the narrowest type that computes on the way to the output, which may be
    narrower than its own. `reason` says what is wrong, or with `unproven` why nothing was seen; `proof` what
    shows that it is right: "run", "float64" or "values".
    """

    output: str
    sample: int
    shape: tuple[int, ...]
    dtype: str
    compared: int
    scale: float
    error: float
    own_error: float | None
    float64_error: float | None
    tolerance: float
    ok: bool
    reason: str = ""
    precision: str = ""
    proof: str = ""
    unproven: bool = False

    @property
    def differs(self) -> bool:
        """Whether it was seen to be wrong."""
        return not self.ok and not self.unproven

    @property
    def floor(self) -> float:
        """What is always allowed."""
        return floor(self.precision or self.dtype)

    @property
    def ceiling(self) -> float:
        """What is never exceeded."""
        return CEILING.get(self.precision or self.dtype, CEILING_DISCRETE)

    @property
    def judged(self) -> float:
        """The error that is compared with the tolerance."""
        return self.error if self.float64_error is None else self.float64_error

    @property
    def excess(self) -> float:
        """That error in units of the tolerance."""
        return 0.0 if self.judged == 0 else self.judged / self.tolerance if self.tolerance else math.inf

    @property
    def comparable(self) -> bool:
        """Whether both models have this output, in one shape and type, equally finite."""
        return self.compared > 0 or self.error == 0

    @property
    def inconclusive(self) -> bool:
        """Whether the original's own error is so large that an equal one of the result says little."""
        return self.own_error is not None and self.own_error > self.floor

    @property
    def explained(self) -> bool:
        """Whether the original's own error explains that of the result, if each value is right by itself."""
        return (
            self.comparable and self.own_error is not None and self.judged <= OWN_EXPLAINED * self.own_error
        )

    def without_proof(self, reason: str) -> Row:
        """The row, of which nothing was seen."""
        return replace(self, ok=False, unproven=True, proof="", reason=reason)

    def by_values(self) -> Row:
        """The row, right because each value is."""
        return replace(self, ok=True, unproven=False, proof="values", reason="")

    def settled(self, tolerance: float) -> Row:
        """The row judged by a tolerance; what was not comparable at all stays wrong."""
        if not self.comparable:
            return self
        if self.judged <= tolerance:
            return replace(self, tolerance=tolerance, ok=True, reason="", proof="run")
        if (self.precision or self.dtype) in FLOOR:
            reason = f"differs by {self.judged:.2g} of its scale, and {tolerance:.2g} is allowed"
        else:
            reason = (
                f"differs in {self.judged:.2%} of its elements, and {tolerance:.2%} are allowed (the index "
                "of the largest of nearly equal values may change by rounding alone)"
            )
        return replace(self, tolerance=tolerance, ok=False, reason=reason)


def floor(dtype: str) -> float:
    """The error that is always allowed in a value of this type."""
    return FLOOR.get(dtype, 0.0)


def judge(
    expected: Sequence[Outputs],
    actual: Sequence[Outputs],
    ideal: Sequence[Outputs | None] | None,
    dtypes: Mapping[str, str],
    *,
    precisions: Mapping[str, str] | None = None,
    exact: bool = False,
) -> list[Row]:
    """A row for each output of each sample; `ideal` is the original in float64, where that is known.

    `dtypes` are the declared types of the outputs, `precisions` the narrowest on the way to them.
    With `exact` both sides are evaluated in float64 themselves.
    """
    rows = [
        _measure(
            name,
            sample,
            before,
            after.get(name),
            (ideal[sample] or {}).get(name) if ideal else None,
            dtypes.get(name) or _kind(before, exact=exact),
            _named(name, precisions or {}) if before.dtype.kind in "fcV" else "",
        )
        for sample, (outputs, after) in enumerate(zip(expected, actual, strict=True))
        for name, before in outputs.items()
    ]
    # A small output may come out exact by luck; the samples together say better what float32 costs it.
    own: dict[str, float] = {}
    for row in rows:
        if row.own_error is not None:
            own[row.output] = max(own.get(row.output, 0.0), row.own_error)
    settled = [row.settled(_tolerance(row, own.get(row.output), exact=exact)) for row in rows]
    settled = [
        row if row.own_error is not None else replace(row, own_error=own.get(row.output)) for row in settled
    ]
    return [replace(row, proof="float64") if exact and row.ok else row for row in settled]


def _kind(array: NDArray[Any], *, exact: bool) -> str:
    """The type of an output that states none: evaluated in float64, it was float32 as a rule."""
    return "float32" if exact and array.dtype.kind == "f" else array.dtype.name


def _named(name: str, types: Mapping[str, str]) -> str:
    """The type of an output, or of the sequence or map that it is an element of."""
    return types.get(name) or types.get(name.partition("[")[0], "")


def _tolerance(row: Row, own: float | None, *, exact: bool) -> float:
    if own is None:
        return row.floor * (1 if exact else WITHOUT_ORACLE)
    if row.float64_error is None:
        return row.floor
    return min(max(row.floor, OWN * own), max(row.floor, row.ceiling))


def _measure(
    name: str,
    sample: int,
    original: NDArray[Any],
    result: NDArray[Any] | None,
    ideal: NDArray[Any] | None,
    dtype: str,
    precision: str,
) -> Row:
    """The errors of one output, not judged yet."""
    row = Row(
        name, sample, original.shape, dtype, 0, 0.0, 0.0, None, None, floor(dtype), ok=True,
        precision=precision, proof="run",
    )  # fmt: skip
    if problem := _incomparable(original, result):
        return replace(row, error=math.inf, ok=False, reason=problem)
    assert result is not None
    if ideal is not None and ideal.shape != original.shape:
        ideal = None  # the evaluation went wrong, not the result
    old, new = widen(original), widen(result)
    if old.dtype.kind not in "fc":
        return _measure_discrete(row, old, new, ideal)
    if unlike := _unlike(old, new):
        reason = f"is NaN or infinite in one model only at {unlike} of {old.size} elements"
        return replace(row, error=math.inf, ok=False, reason=reason)
    mask = np.isfinite(old) & (True if ideal is None else np.isfinite(ideal))
    old, new = old[mask], new[mask]
    best = old if ideal is None else ideal[mask]
    scale = largest(best) or largest(old)
    apart = partial(distance, scale=scale, dtype=precision or dtype)
    return replace(
        row,
        compared=int(old.size),
        scale=scale,
        error=apart(new, old),
        own_error=None if ideal is None else apart(old, best),
        float64_error=None if ideal is None else apart(new, best),
    )


def _incomparable(original: NDArray[Any], result: NDArray[Any] | None) -> str:
    if result is None:
        return "is missing"
    if original.dtype != result.dtype and not {original.dtype.kind, result.dtype.kind} <= set("USO"):
        return f"is {result.dtype.name} instead of {original.dtype.name}"
    if original.shape != result.shape:
        return f"has shape {list(result.shape)} instead of {list(original.shape)}"
    return ""


def _measure_discrete(row: Row, old: NDArray[Any], new: NDArray[Any], ideal: NDArray[Any] | None) -> Row:
    def share(a: NDArray[Any], b: NDArray[Any]) -> float:
        return float(np.mean(a != b)) if a.size else 0.0

    return replace(
        row,
        compared=int(old.size),
        scale=1.0,
        error=share(new, old),
        own_error=None if ideal is None else share(old, ideal),
        float64_error=None if ideal is None else share(new, ideal),
    )


def _unlike(old: NDArray[Any], new: NDArray[Any]) -> int:
    """The number of elements that are NaN or infinite differently."""
    odd = ~np.isfinite(old) | ~np.isfinite(new)
    return int(np.sum(odd & ~((old == new) | (np.isnan(old) & np.isnan(new)))))


def largest(array: NDArray[Any]) -> float:
    """The largest absolute value, 0 where there is none."""
    return float(np.abs(array).max(initial=0.0))


def distance(a: NDArray[Any], b: NDArray[Any], scale: float, dtype: str = "") -> float:
    """The largest difference relative to `scale`, or if that is less and not 0 to the least normal number."""
    difference = largest(a - b)
    scale = max(scale, NORMAL.get(dtype, 0.0)) if scale else 0.0
    return 0.0 if difference == 0 else difference / scale if scale else math.inf


def widen(array: NDArray[Any]) -> NDArray[Any]:
    """Floating values (bfloat16 too) as float64, others as they are."""
    floating = array.dtype.kind == "f" or "float" in array.dtype.name
    return array.astype(np.float64) if floating and array.dtype != np.float64 else array

"""What the elements of an input may be, from what becomes of them.

A `Need` holds candidates, numbers that an element could be, and a `Trace` is what they have become further
down the graph: casts, offsets and comparisons are applied to the candidates themselves. So a reader that says
what it takes (an index below the extent of its table) says it of the input, whatever lies between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fuser.judge.forms import Known, value
from fuser.judge.inputs import array_dtype

Bools = NDArray[np.bool_]
Array = NDArray[Any]

CEILING: Final = 16
"""Integers of which nothing is known stay below."""

SMALL: Final = 17
"""Numbers that become extents, trip counts or lengths stay below."""

HUGE: Final = 1e4
"""What is added to scores so that they count for nothing is at least so large."""

MOST_NUMBERS: Final = 1000
FEW_NUMBERS: Final = 24
WORDS: Final = ("the", "cat", "0", "1.5", "New York", "")


@dataclass(eq=False)
class Need:
    """What is asked of the elements of an input; masks are over the candidates.

    `bounds`: what a candidate has become must be at least the first extent and below the second. `wishes`:
    both kinds of candidates are wanted. `closed`: candidates that close a position of an attention or the
    like, which must not happen to all. `top`: the symbol of the largest element, where that is an extent.
    """

    candidates: Array
    allowed: Bools
    bounds: list[tuple[Array, Known, Known]] = field(default_factory=list)
    wishes: list[Bools] = field(default_factory=list)
    closed: Bools | None = None
    top: str | None = None

    @property
    def whole(self) -> bool:
        """Whether candidates are integers or truth values."""
        return self.candidates.dtype.kind in "biu"

    @property
    def asked(self) -> bool:
        """Whether anything is."""
        return bool(self.bounds or self.wishes or self.closed is not None or not self.allowed.all())

    def at(self, sizes: Mapping[str, int]) -> Bools:
        """The candidates that are allowed at these sizes; all where that would be none."""
        allowed = self.allowed.copy()
        for images, low, high in self.bounds:
            within = (images >= value(low, sizes)) & (images < max(value(high, sizes), value(low, sizes) + 1))
            if (allowed & within).any():
                allowed &= within
        return allowed if allowed.any() else np.ones_like(allowed)


@dataclass(frozen=True, eq=False)
class Trace:
    """Elements that were computed from elements of one input, one by one: what each candidate has become."""

    need: Need
    images: Array

    def through(self, function: Callable[[Array], Array]) -> Trace:
        """What the elements become in `function`; candidates that it takes to nothing finite are out."""
        with np.errstate(all="ignore"):
            images = np.asarray(function(self.images))
        if images.dtype.kind == "f" and self.images.dtype.kind in "fiu":
            lost = np.isnan(images) & ~np.isnan(self.images.astype(float))
            if not lost.all():
                self.need.allowed &= ~lost
        return replace(self, images=images)

    def of(self, candidate: int) -> Array:
        """What the candidate nearest to a number has become, as an array without axes."""
        listed = self.need.candidates
        if listed.dtype.kind == "O":
            return np.asarray(self.images[0])
        return np.asarray(self.images[np.argmin(np.abs(listed.astype(float) - candidate))])

    def within(self, low: Known, high: Known) -> None:
        """Ask for `low <= element < high`."""
        if self.images.dtype.kind in "iuf":
            self.need.bounds.append((self.images, low, high))

    def both(self) -> None:
        """Ask for elements that are true, and others that are not; of fractions chance brings both mostly."""
        true = self.images.astype(bool)
        if not true.any() or true.all():
            return
        if self.need.candidates.dtype.kind == "f":
            usual = true[np.abs(self.need.candidates) <= 1]
            if 4 < usual.sum() < usual.size - 4:
                return
        self.need.wishes.append(true)

    def opens(self, closed: Bools) -> None:
        """Say which candidates close a position: of 0 and 1 one must, or this is no mask."""
        zero, one = (closed[self.need.candidates == n] for n in (0, 1))
        if zero.size and one.size and bool(zero[0]) != bool(one[0]):
            self.need.closed = closed
            self.need.allowed &= np.isin(self.need.candidates, (0, 1))

    def leaves(self) -> None:
        """The elements go where they are not followed: what is large there is a mask, or too large."""
        if self.images.dtype.kind != "f" or self.images is self.need.candidates:
            return
        images = self.images.astype(float)
        is_zero, is_one = (self.need.candidates == n for n in (0, 1))
        if self.need.candidates.dtype.kind != "O" and is_zero.any() and is_one.any():
            ends = images[np.argmax(is_zero)], images[np.argmax(is_one)]
            if min(ends) <= 1 - HUGE and max(ends) in (0, 1):
                self.opens(images <= 1 - HUGE)
                return
        fine = np.isfinite(images) & (np.abs(images) <= HUGE)
        if (fine & self.need.allowed).any():
            self.need.allowed &= fine


def need(dtype: str, numbers: Iterable[float], words: Iterable[str]) -> Need | None:
    """What an element of that type could be; None for types that no element is drawn of.

    `numbers` and `words` are those that occur in the graph: a value that it treats in its own way is one of
    them.
    """
    if dtype == "string":
        listed: Array = np.array(list(dict.fromkeys((*words, *WORDS))), object)
        return Need(listed, np.ones(len(listed), bool))
    if dtype == "bool":
        return Need(np.array([False, True]), np.ones(2, bool))
    near = sorted(numbers, key=abs)[:MOST_NUMBERS]
    if dtype in ("float16", "float32", "float64", "bfloat16"):
        held = [n for n in near if abs(n) < HUGE]
        listed = np.unique(np.concatenate([np.linspace(-4, 4, 65), np.array(held, float)]))
        return Need(listed.astype("float64" if dtype == "float64" else "float32"), np.ones(len(listed), bool))
    kind = array_dtype(dtype)
    if kind is None or kind.kind not in "iu":
        return None
    limits = np.iinfo(kind)
    whole = {int(n) + step for n in near if abs(n) < 2**31 and n == int(n) for step in (-1, 0, 1)}
    # What is shifted by one number and compared with another lies about their sum.
    few = [int(n) for n in near if 1 < abs(n) < 2**30 and n == int(n)][:FEW_NUMBERS]
    whole |= {m + n + step for m in few for n in few for step in (-1, 0)}
    whole |= set(range(-2, 66)) | {2**k for k in range(7, 31)}
    listed = np.array(sorted(n for n in whole if limits.min <= n <= limits.max), kind)
    return Need(listed, np.ones(len(listed), bool))


def drawn(
    asked: Need,
    shape: tuple[int, ...],
    sizes: Mapping[str, int],
    generator: np.random.Generator,
    outcome: bool,
) -> Array:
    """Elements of an input that is asked for something. `outcome`: of one alone, the kind wished for."""
    allowed = asked.at(sizes)
    if asked.closed is not None and _both(allowed, asked.closed):
        return _mask(asked, allowed, shape, generator)
    result = _spread(asked, allowed, shape, generator)
    wishes = [wish for wish in asked.wishes if _both(allowed, wish)]
    if wishes and result.size == 1:
        wish = wishes[0] if outcome else ~wishes[0]
        others = wish & np.any(wishes[1:], axis=0) if len(wishes) > 1 else wish
        chosen = others if (others & allowed).any() else wish
        result = _spread(asked, allowed & chosen, shape, generator)
    elif wishes:
        # The rarer kind of each wish is mostly one number, which chance alone would miss.
        rare = [wish if (wish & allowed).sum() * 2 <= allowed.sum() else ~wish for wish in wishes]
        points = asked.candidates[allowed & np.any(rare, axis=0)]
        special = generator.random(shape) < 0.25
        result = np.where(special, generator.choice(points, shape), result)
    if asked.top is not None and asked.top in sizes and result.size:
        result = np.minimum(result, sizes[asked.top])
        result.reshape(-1)[0] = sizes[asked.top]
    return np.asarray(result).astype(asked.candidates.dtype)


def _both(allowed: Bools, wish: Bools) -> bool:
    return bool((allowed & wish).any() and (allowed & ~wish).any())


def _mask(asked: Need, allowed: Bools, shape: tuple[int, ...], generator: np.random.Generator) -> Array:
    """Open at three places of four, and where an axis begins: no row of any layout is closed as a whole."""
    assert asked.closed is not None
    closed = asked.candidates[allowed & asked.closed][0]
    opened = asked.candidates[allowed & ~asked.closed][0]
    free = np.asarray(generator.random(shape) < 0.75)
    for axis, extent in enumerate(shape):
        if extent > 1:
            free[(slice(None),) * axis + (0,)] = True
    if not shape or shape[-1] == 1:
        free[...] = True
    return np.asarray(np.where(free, opened, closed))


def _spread(asked: Need, allowed: Bools, shape: tuple[int, ...], generator: np.random.Generator) -> Array:
    """Evenly from the first run of candidates that holds a natural one, and all between them."""
    listed = asked.candidates
    if listed.dtype.kind in "Ob":
        return np.asarray(generator.choice(listed[allowed], shape))
    low, high = _run(listed, allowed)
    if listed.dtype.kind == "f":
        return np.asarray(generator.uniform(float(low), float(high), shape))
    if not asked.bounds or high == listed[-1]:
        high = min(high, low + CEILING - 1)
    return np.asarray(generator.integers(int(low), int(high), shape, endpoint=True))


def _run(listed: Array, allowed: Bools) -> tuple[Any, Any]:
    """The ends of the run of allowed candidates to draw from: the longest one, what is not negative first."""
    natural = allowed & (np.abs(listed) <= 4 if listed.dtype.kind == "f" else listed >= 0)
    chosen = natural if natural.any() else allowed
    ends = np.flatnonzero(np.diff(np.concatenate([[0], chosen.astype(np.int8), [0]])))
    runs = ends.reshape(-1, 2)
    first, last = runs[np.argmax(runs[:, 1] - runs[:, 0])]
    return listed[first], listed[last - 1]

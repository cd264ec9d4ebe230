"""A scale and a shift that know which axes they are about: how they go where a value's elements go.

An operator that only moves elements carries them from what it reads to what it makes, or back:
T(s * x + t) = T s * T x + T t. Both are arrays of as many axes as the value, with an extent of 1 on each axis
on which they do not depend; of those axes nothing has to be known.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TypeAlias

import numpy as np

from fuser.algebra.conv import Ints
from fuser.algebra.lazy import Array
from fuser.errors import Declined, require

Extent: TypeAlias = int | str | None
"""A number, a name for one that is the same wherever it has that name, or nothing known."""


@dataclass(frozen=True, eq=False)
class Pointwise:
    """x -> scale * x + shift for values with so many axes, broadcast as numpy does from the right.

    `scale` and `shift` have one shape: on each axis the extent of the value, or 1.
    """

    scale: Array
    shift: Array

    def __post_init__(self) -> None:
        assert self.scale.shape == self.shift.shape, f"{self.scale.shape} and {self.shift.shape}"

    @classmethod
    def of(cls, scale: Array, shift: Array, rank: int, axis: int) -> "Pointwise":
        """A number each for every channel, `[C]`, of values with `rank` axes and the channels on `axis`."""
        shape = [1] * rank
        shape[axis] = len(scale)
        return cls(np.reshape(scale, shape), np.reshape(shift, shape)).compressed()

    @property
    def rank(self) -> int:
        """Number of axes."""
        return self.scale.ndim

    @property
    def axes(self) -> Ints:
        """The axes on which it depends."""
        return tuple(axis for axis, n in enumerate(self.scale.shape) if n > 1)

    @property
    def neutral(self) -> bool:
        """Whether it changes nothing."""
        return bool((self.scale == 1).all() and not self.shift.any())

    def __call__(self, x: Array) -> Array:
        """Of one value, computed directly."""
        return np.asarray(self.scale * x + self.shift)

    def after(self, inner: "Pointwise") -> "Pointwise":
        """self(inner(x)): s2 * (s1 * x + t1) + t2 = (s2 * s1) * x + (s2 * t1 + t2)."""
        shift = self.scale * inner.shift + self.shift
        return Pointwise(np.broadcast_to(self.scale * inner.scale, shift.shape), shift).compressed()

    def compressed(self) -> "Pointwise":
        """The same with an extent of 1 where it does not depend on an axis after all."""
        scale, shift = self.scale, self.shift
        for axis in self.axes:
            first = np.take(scale, [0], axis), np.take(shift, [0], axis)
            if (scale == first[0]).all() and (shift == first[1]).all():
                scale, shift = first
        return Pointwise(scale, shift)

    def on(self, rank: int, axis: int, channels: int) -> tuple[Array, Array]:
        """Scale and shift of each channel, `[C]` both, of values with `rank` axes.

        Raises:
            Declined: it depends on another axis too.
        """
        axis %= rank
        others = [other for other in self.axes if other != axis]
        require(
            not others, f"the scale and shift differ along axis {others}, and not along axis {axis} alone"
        )
        shape = [1] * rank
        shape[axis] = channels
        scale, shift = (np.broadcast_to(a, shape).reshape(-1) for a in (self.scale, self.shift))
        return scale, shift

    def transposed(self, order: Sequence[int]) -> "Pointwise":
        """What is behind a transposition: axis i of its result is axis `order[i]` of what it reads."""
        return Pointwise(self.scale.transpose(order), self.shift.transpose(order))

    def reshaped(self, before: Sequence[Extent], after: Sequence[Extent]) -> "Pointwise":
        """What is behind a reshape from `before` to `after`: R(s * x + t) = R s * R x + R t.

        An axis that survives takes its numbers along; where axes are split or merged, numbers are regrouped.

        Raises:
            Declined: it depends on axes of which it is not known what becomes of them.
        """
        arrays, known = [self.scale, self.shift], list[int]()
        shape: list[int] = []
        for old, new in groups(before, after):
            inside = [before[axis] for axis in old]
            if all(self.scale.shape[axis] == 1 for axis in old):
                shape += [1] * len(new)
                known += [1] * len(old)
                continue
            extents = [n for n in (*inside, *(after[axis] for axis in new)) if isinstance(n, int)]
            if len(extents) < len(old) + len(new) and (len(old), len(new)) != (1, 1):
                raise Declined(
                    f"the scale and shift differ along axes {old} of {tuple(before)}, "
                    f"and what becomes of these in {tuple(after)} is not known"
                )
            if (len(old), len(new)) == (1, 1):
                shape.append(self.scale.shape[old[0]])
                known.append(self.scale.shape[old[0]])
            else:
                shape += [n for axis in new if isinstance(n := after[axis], int)]
                known += [n for n in inside if isinstance(n, int)]
        scale, shift = (np.broadcast_to(array, known).reshape(shape) for array in arrays)
        return Pointwise(scale, shift).compressed()

    def part(self, axis: int, first: int, size: int) -> "Pointwise":
        """Of `size` positions of an axis, from `first` on."""
        if self.scale.shape[axis] == 1:
            return self
        at = range(first, first + size)
        return Pointwise(np.take(self.scale, at, axis), np.take(self.shift, at, axis)).compressed()

    @classmethod
    def joined(cls, parts: Sequence["Pointwise"], axis: int, sizes: Sequence[int]) -> "Pointwise":
        """Of a concatenation along an axis, of whose parts each has a scale and shift of its own."""
        shape = np.broadcast_shapes(*(np.delete(part.scale.shape, axis) for part in parts))
        spread = [(*shape[:axis], size, *shape[axis:]) for size in sizes]
        scale, shift = (
            np.concatenate([np.broadcast_to(a, n) for a, n in zip(arrays, spread, strict=True)], axis)
            for arrays in ([part.scale for part in parts], [part.shift for part in parts])
        )
        return cls(scale, shift).compressed()


def groups(before: Sequence[Extent], after: Sequence[Extent]) -> list[tuple[Ints, Ints]]:
    """The axes of a reshape, in the least groups of which each holds the same elements before and behind it.

    Groups are found from both ends, as far as extents are known or have a name; what is between is one group.
    """
    front, i, j = _leading(before, after)
    back, k, m = _leading(before[i:][::-1], after[j:][::-1])
    rest = tuple(range(i, len(before) - k)), tuple(range(j, len(after) - m))
    mirrored = [
        (
            tuple(len(before) - 1 - axis for axis in reversed(old)),
            tuple(len(after) - 1 - axis for axis in reversed(new)),
        )
        for old, new in reversed(back)
    ]
    return [*front, *([rest] if any(rest) else []), *mirrored]


def _leading(before: Sequence[Extent], after: Sequence[Extent]) -> tuple[list[tuple[Ints, Ints]], int, int]:
    """The groups from the first axis on, and how many axes of each side they cover."""
    found: list[tuple[Ints, Ints]] = []
    i = j = 0
    while i < len(before) and j < len(after):
        a, b = i + 1, j + 1
        while (left := _size(before[i:a])) != (right := _size(after[j:b])) or left is None:
            if left is None or right is None:
                return found, i, j
            # The side that has fewer elements goes on, as far as that can be told.
            if a < len(before) and (left[0] <= right[0] or b == len(after)):
                a += 1
            elif b < len(after):
                b += 1
            else:
                return found, i, j
        found.append((tuple(range(i, a)), tuple(range(j, b))))
        i, j = a, b
    return found, i, j


def _size(extents: Sequence[Extent]) -> tuple[int, Counter[str]] | None:
    """How many elements there are: a number, and names to multiply it by; None where that is not known."""
    if None in extents:
        return None
    return prod(n for n in extents if isinstance(n, int)), Counter(n for n in extents if isinstance(n, str))

"""Symbolic extents made concrete: `(H + 1)//2` for a given H."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from math import gcd, prod
from typing import Final

from fuser.algebra.conv import Ints
from fuser.errors import Declined

Dim = int | str | None
"""A known extent, a named symbolic one, or nothing known."""

Shape = tuple[Dim, ...]

# Extents that are not known: those of one image of 224, and the middle of a network that began so where it is
# not even known how they follow from the image's.
NOMINAL_BATCH: Final = 1
NOMINAL_IMAGE: Final = 224
NOMINAL_EXTENT: Final = 28

# floor((factor * base + add) / divisor), as importers write it.
# Exporters leave the parentheses out where nothing is divided.
BASE: Final = r"(?:(?P<k>[1-9]\d*)\*)?(?P<base>[^\s()*/+-]+|\(.+\))"
SHIFT: Final = r" (?P<sign>[+-]) (?P<a>\d+)"
NAME: Final = re.compile(rf"^(?P<open>\()?{BASE}(?(open){SHIFT}\))(?://(?P<d>[1-9]\d*))?$")
PLAIN: Final = re.compile(rf"^{BASE}{SHIFT}(?P<d>\b)$")


@dataclass(frozen=True)
class Extent:
    """`floor((factor * base + add) / divisor)`."""

    base: str
    factor: int = 1
    add: int = 0
    divisor: int = 1

    def __str__(self) -> str:
        """The name that `parse` reads; equal extents have equal names."""
        base = self.base if self.base.replace(".", "_").isidentifier() else f"({self.base})"
        name = base if self.factor == 1 else f"{self.factor}*{base}"
        if self.add:
            name = f"({name} {'+' if self.add > 0 else '-'} {abs(self.add)})"
        name = name if self.divisor == 1 else f"{name}//{self.divisor}"
        return self.base if name == base else name

    @classmethod
    @cache
    def parse(cls, name: str) -> "Extent":
        """What a name says; a name in any other form is a base by itself."""
        match = NAME.match(name) or PLAIN.match(name)
        if match is None:
            return cls(name)
        factor, base, sign, add, divisor = (match[part] for part in ("k", "base", "sign", "a", "d"))
        base = base[1:-1] if base.startswith("(") else base  # as `__str__` writes what is no symbol
        offset = int(add or 0) * (-1 if sign == "-" else 1)
        return cls(base, int(factor or 1), offset, int(divisor or 1))

    def affine(self, add: int, divisor: int, factor: int) -> "Extent":
        """`floor((factor * self + add) / divisor)`; a floor of a floor is one floor."""
        inner = self
        if factor != 1 and self.divisor != 1:
            inner = Extent(str(self))
        k, a, d = inner.factor * factor, inner.add * factor + add * inner.divisor, inner.divisor * divisor
        common = gcd(k, a, d)
        return Extent(inner.base, k // common, a // common, d // common)

    def at(self, base: int) -> int:
        """The extent where the base has this extent."""
        return (self.factor * base + self.add) // self.divisor

    def solve(self, wanted: int) -> int:
        """The least extent of the base for which this one is `wanted` or more."""
        return max(1, -((self.add - wanted * self.divisor) // self.factor))


def affine(dim: Dim, add: int = 0, divisor: int = 1, factor: int = 1) -> Dim:
    """`floor((factor * dim + add) / divisor)`, by name where `dim` is one."""
    if dim is None:
        return None
    if factor == 0:
        return add // divisor
    if isinstance(dim, int):
        return (factor * dim + add) // divisor
    return str(Extent.parse(dim).affine(add, divisor, factor))


def window(dim: Dim, slack: int, stride: int) -> Dim:
    """The positions of a window: `floor((dim + slack - 1) / stride) + 1`."""
    size = affine(dim, slack - 1 + stride, stride)
    return max(0, size) if isinstance(size, int) else size


def positions(shape: tuple[Dim, ...] | None, axis: int) -> int:
    """Number of positions (all axes but the channels), unknown extents taken at their nominal size."""
    if shape is None:
        shape = (None, None, None, None) if axis == 1 else (None, None)
    extents = nominal(shape)
    if axis < len(extents):
        extents[axis] = 1
    return prod(extents)


def nominal(shape: tuple[Dim, ...]) -> list[int]:
    """The extents of a shape, those that are not known at their nominal size; the first axis is the batch."""
    return [
        dim if isinstance(dim, int) else _nominal(dim) if i else NOMINAL_BATCH for i, dim in enumerate(shape)
    ]


@cache
def _nominal(dim: str | None) -> int:
    """`(height + 3)//4` for a height of 224."""
    if dim is None:
        return NOMINAL_EXTENT
    extent = Extent.parse(dim)
    return max(1, extent.at(NOMINAL_IMAGE)) if extent.base.isidentifier() else NOMINAL_EXTENT


def bases(shape: Sequence[Dim]) -> dict[int, str]:
    """The symbols that the free axes of a shape are written in."""
    return {
        axis: Extent.parse(f"?{axis}" if dim is None else dim).base
        for axis, dim in enumerate(shape)
        if not isinstance(dim, int)
    }


@dataclass(frozen=True)
class Binding:
    """Extents for the symbols of one shape, `own`, and for what is written in the same symbols."""

    own: tuple[Dim, ...]
    bases: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, shape: Sequence[Dim]) -> "Binding":
        """The symbols of a shape; an axis of which nothing is known has one of its own."""
        return cls(tuple(f"?{axis}" if dim is None else dim for axis, dim in enumerate(shape)))

    def bound(self, wanted: Sequence[int], parity: int = 0) -> "Binding":
        """Choose the symbols so that the shape is `wanted` or a little more, where it is free to be.

        Of the choices that give the same extent after a division, `parity` says which.
        """
        bases: dict[str, int] = {}
        for dim, size in zip(self.own, wanted, strict=True):
            if isinstance(dim, str):
                extent = Extent.parse(dim)
                bases.setdefault(extent.base, extent.solve(size) + parity % extent.divisor)
        return Binding(self.own, bases)

    @classmethod
    def together(
        cls, shapes: Iterable[Sequence[Dim]], wanted: Mapping[int, int], *, apart: bool
    ) -> "Binding":
        """The symbols of several shapes, chosen so that each axis has the extent `wanted` there, or more.

        `apart`: of several symbols on one axis no two have the same extent.
        """
        bound: dict[str, int] = {}
        used: set[int] = set()
        for shape in shapes:
            for axis, dim in enumerate(shape):
                extent = None if isinstance(dim, int) else Extent.parse(f"?{axis}" if dim is None else dim)
                if extent is not None and extent.base not in bound:
                    size = extent.solve(wanted[axis])
                    while apart and size in used:
                        size += 1
                    used.add(size)
                    bound[extent.base] = size
        return cls(tuple(f"?{axis}" for axis in range(max(wanted, default=0) + 1)), bound)

    def covers(self, shape: Sequence[Dim] | None) -> bool:
        """Whether every extent of `shape` is known or written in these symbols."""
        known = {Extent.parse(dim).base for dim in self.own if isinstance(dim, str)}
        return shape is not None and all(
            isinstance(dim, int) or (isinstance(dim, str) and Extent.parse(dim).base in known)
            for dim in shape
        )

    def shape(self, shape: Sequence[Dim]) -> Ints:
        """The extents of `shape`.

        Raises:
            Declined: one is written in other symbols.
        """
        return tuple(
            dim if isinstance(dim, int) else self._extent(self.own[axis] if dim is None else dim)
            for axis, dim in enumerate(shape)
        )

    def _extent(self, dim: Dim) -> int:
        extent = Extent.parse(str(dim))
        if extent.base not in self.bases:
            raise Declined(f"the extent {dim} is not written in {', '.join(self.bases) or 'constants'}")
        return extent.at(self.bases[extent.base])

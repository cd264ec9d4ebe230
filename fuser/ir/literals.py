"""The numbers that an operator holds against positions and extents: `x[:, :, :4]` holds 4, on axis 2.

Where an axis has a symbol for its extent, what such an operator does changes at each of its numbers; so it
has to be tried on both sides of every one of them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from numpy.typing import NDArray

MANY: Final = 16
"""Of a longer list of numbers only its extremes and its length are taken for positions."""

ENDLESS: Final = 1 << 30
"""Integers from here on mean 'to the end'."""


class Numbers(Protocol):
    """What is known of the whole numbers in a constant (`ir/constant.py`)."""

    @property
    def numbers(self) -> tuple[int, ...]:
        """Those that may be positions or extents."""


@dataclass(frozen=True)
class Literals:
    """The numbers, and `axes` of the data on which they may act; None: on any.

    A `rigid` operator is written for the extents that its data have in the source, as a reshape is.
    """

    numbers: tuple[int, ...] = ()
    axes: tuple[int, ...] | None = ()
    rigid: bool = False

    def on(self, axis: int, rank: int) -> bool:
        """Whether the numbers may act on an axis of data with so many axes."""
        return self.axes is None or any(a % max(rank, 1) == axis for a in self.axes)


def acting(held: Iterable[tuple[Literals, int]], axis: int) -> tuple[set[int], int]:
    """The numbers of several operators that may act on an axis, and how far all of them reach together.

    Each comes with the number of axes of its data. Where one moves elements between axes, all may act there.
    """
    listed = list(held)
    moved = any(literals.axes is None for literals, _ in listed)
    found = [literals.numbers for literals, rank in listed if moved or literals.on(axis, rank)]
    reach = sum(max(map(abs, numbers), default=0) for numbers in found)
    return set().union(*found), reach


UNIFORM: Final = Literals()
"""It acts alike at every position: convolutions, pools, norms, and whatever is elementwise."""

RIGID: Final = Literals((), None, rigid=True)
"""Elements move between axes: so may the numbers of others."""


def anywhere(constants: Sequence[Numbers | None]) -> Literals:
    """Of an operator of which nothing else is known: all whole numbers that it reads, on any axis."""
    return Literals(read(constants), None, rigid=True)


def read(constants: Sequence[Numbers | None]) -> tuple[int, ...]:
    """All whole numbers among constants, but for those that mean 'to the end'."""
    return tuple(n for c in constants if c is not None for n in c.numbers if abs(n) < ENDLESS)


def extremes(values: NDArray[Any]) -> tuple[int, ...]:
    """A list of whole numbers, or what stands for a long one."""
    if values.size <= MANY:
        return tuple(map(int, values))
    return (int(values.min()), int(values.max()), values.size)

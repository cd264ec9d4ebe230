"""Arrays that are computed when somebody looks at them, and not before.

A large model holds gigabytes of weights that no rewrite touches, and a rewrite chain computes kernels that
the next rewrite replaces. So the algebra works on `Lazy` arrays: the shape is known, the values are computed
on demand and not kept. What is looked at twice is computed twice; that is cheap beside keeping every
intermediate kernel in float64. Kernels that stay are looked at again soon, so as many as fit on a `Shelf` are
kept, rounded.
"""

from collections.abc import Callable
from typing import Any, Final
from weakref import ref

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# An array that takes more computations than this is computed at once and kept, so that a chain of ten
# thousand layers neither recurses ten thousand levels deep nor computes its first kernel ten thousand times,
# and a chain in which each array is used twice does not double the work at each step.
MAX_WORK: Final = 64

SHELF: Final = 1 << 28
"""Bytes of kernels that are kept: all of most models, and little beside a file of gigabytes."""


class Lazy:
    """A float64 array of known shape whose values are computed by `compute` each time they are asked for.

    `work` counts the computations that this takes, those of the arrays that it is made of included. `held`
    gives the values as they lie in memory or in a file, where they do: in their own dtype and without a copy.
    """

    __slots__ = ("__weakref__", "_compute", "_held", "shape", "work")

    def __init__(
        self,
        shape: tuple[int, ...],
        compute: Callable[[], Array],
        work: int = 0,
        held: Callable[[], NDArray[Any]] | None = None,
    ) -> None:
        self.shape = shape
        self.work = work
        self._compute = compute
        self._held = held

    def __call__(self) -> Array:
        """The values, computed now."""
        array = self._compute()
        assert array.shape == self.shape, f"computed shape {array.shape}, promised {self.shape}"
        return array

    @property
    def at_hand(self) -> bool:
        """Whether the values can be looked at without computing them."""
        return self._held is not None

    def peek(self) -> NDArray[Any]:
        """The values in the dtype in which they are held, for a look at a few; else computed."""
        return self() if self._held is None else self._held()

    def holding(self, array: NDArray[Any], shelf: "Shelf | None" = None) -> "Lazy":
        """The same array with its values, rounded as in `array`, at hand as long as the shelf has room."""
        kept, dtype = Kept(), array.dtype
        shelf = KERNELS if shelf is None else shelf
        shelf.put(kept, array)

        def held() -> NDArray[Any]:
            if kept.array is None:
                found = self().astype(dtype, copy=False)
                shelf.put(kept, found)
                return found
            return kept.array

        return Lazy(self.shape, self._compute, self.work, held)

    def __repr__(self) -> str:
        return f"Lazy{self.shape}"


class Kept:
    """An array for as long as its shelf has room."""

    __slots__ = ("__weakref__", "array")

    def __init__(self) -> None:
        self.array: NDArray[Any] | None = None


class Shelf:
    """Arrays that are kept, up to so many bytes: those that were put there first make room for others.

    A shelf does not own them. What nobody can ask for any more is gone.
    """

    def __init__(self, room: int) -> None:
        self.room = room
        self._sizes: dict[ref[Kept], int] = {}

    def put(self, kept: Kept, array: NDArray[Any]) -> None:
        """Keep an array in `kept`, which has none, until there is no room left."""
        kept.array = array
        self._sizes[ref(kept, self._clear)] = array.nbytes
        self.room -= array.nbytes
        while self.room < 0:
            self._clear(next(iter(self._sizes)))

    def _clear(self, place: "ref[Kept]") -> None:
        self.room += self._sizes.pop(place, 0)
        if (kept := place()) is not None:
            kept.array = None


KERNELS: Final = Shelf(SHELF)


def known(array: Array) -> Lazy:
    """The lazy form of an array that is there already."""
    array = np.asarray(array, dtype=np.float64)
    return Lazy(array.shape, lambda: array, held=lambda: array)


def defer(shape: tuple[int, ...], compute: Callable[..., Array], *sources: Lazy) -> Lazy:
    """The array `compute(*sources)`, computed on demand."""
    work = 1 + sum(source.work for source in sources)
    lazy = Lazy(shape, lambda: compute(*(source() for source in sources)), work)
    return known(lazy()) if work > MAX_WORK else lazy


def arrange(shape: tuple[int, ...], order: Callable[[NDArray[Any]], NDArray[Any]], source: Lazy) -> Lazy:
    """Elements of `source`, as `order` puts them; at hand where those of `source` are."""
    lazy = defer(shape, order, source)
    if not source.at_hand or lazy.at_hand:
        return lazy
    return Lazy(shape, lazy, lazy.work, lambda: order(source.peek()))

"""Arrays that are computed when somebody looks at them, and not before.

A large model holds gigabytes of weights that no rewrite touches, and a rewrite chain computes kernels that
the next rewrite replaces. So the algebra works on `Lazy` arrays: the shape is known, the values are computed
on demand and not kept. What is looked at twice is computed twice; that is cheap beside keeping every
intermediate kernel in float64.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# An array that takes more computations than this is computed at once and kept, so that a chain of ten
# thousand layers neither recurses ten thousand levels deep nor computes its first kernel ten thousand times,
# and a chain in which each array is used twice does not double the work at each step.
MAX_WORK: Final = 64


class Lazy:
    """A float64 array of known shape whose values are computed by `compute` each time they are asked for.

    `work` counts the computations that this takes, those of the arrays that it is made of included.
    """

    __slots__ = ("_compute", "shape", "work")

    def __init__(self, shape: tuple[int, ...], compute: Callable[[], Array], work: int = 0) -> None:
        self.shape = shape
        self.work = work
        self._compute = compute

    def __call__(self) -> Array:
        """The values, computed now."""
        array = self._compute()
        assert array.shape == self.shape, f"computed shape {array.shape}, promised {self.shape}"
        return array

    def __repr__(self) -> str:
        return f"Lazy{self.shape}"


def known(array: Array) -> Lazy:
    """The lazy form of an array that is there already."""
    array = np.asarray(array, dtype=np.float64)
    return Lazy(array.shape, lambda: array)


def defer(shape: tuple[int, ...], compute: Callable[..., Array], *sources: Lazy) -> Lazy:
    """The array `compute(*sources)`, computed on demand."""
    work = 1 + sum(source.work for source in sources)
    lazy = Lazy(shape, lambda: compute(*(source() for source in sources)), work)
    return known(lazy()) if work > MAX_WORK else lazy

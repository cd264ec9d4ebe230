"""Tensors that are known at compile time."""

from collections.abc import Callable
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fuser.algebra.lazy import Lazy
from fuser.ir.literals import extremes

FLOATS: Final = frozenset({"float64", "float32", "float16", "bfloat16"})


class Constant:
    """A tensor that is known at compile time. Its values stay where they are until `array()` is called."""

    def __init__(self, shape: tuple[int, ...], dtype: str, array: Callable[[], NDArray[Any]]) -> None:
        self.shape = shape
        self.dtype = dtype
        self.array = array

    @classmethod
    def of(cls, array: NDArray[Any]) -> "Constant":
        """A constant whose values are at hand."""
        return cls(array.shape, array.dtype.name, lambda: array)

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))

    @cached_property
    def lazy(self) -> Lazy:
        """The values in float64, computed at each access."""
        return Lazy(self.shape, lambda: np.asarray(self.array(), dtype=np.float64), held=self.array)

    @cached_property
    def numbers(self) -> tuple[int, ...]:
        """Whole numbers that may be positions or extents: of a long list its extremes and its length."""
        if not self.dtype.startswith(("int", "uint")):
            return ()
        return extremes(np.asarray(self.array()).reshape(-1))

    def wide(self) -> NDArray[Any]:
        """The values, floating ones in float64."""
        array = np.asarray(self.array())
        return array.astype(np.float64) if self.dtype in FLOATS else array

    def __repr__(self) -> str:
        return f"Constant({self.dtype}{list(self.shape)})"

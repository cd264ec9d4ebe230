"""The source and what a rewrite made of it, side by side in float64, at extents that are chosen."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fuser.algebra.lazy import Array
from fuser.errors import Declined
from fuser.ir.constant import FLOATS
from fuser.ir.interpret import Edge, Frame, Part, evaluate
from fuser.ir.node import Value
from fuser.ir.ops import Op, operation

NOTHING: Final = "nothing is left of the extents"

SHORT: Final = 16
"""A list of no more whole numbers may say how far, how often or how wide, of each axis of a value."""


@dataclass
class Trial:
    """One choice of extents: the shape of each value from outside. `needed`: the source must not fail."""

    shapes: Mapping[Value, tuple[int, ...]]
    needed: bool
    fed: dict[Value, NDArray[Any]] = field(default_factory=dict)
    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def feed(self, value: Value, like: tuple[int, ...] = ()) -> NDArray[Any]:
        """Random data for a value from outside, the same at each look; of shape `like` if none is known."""
        if value not in self.fed:
            self.fed[value] = _drawn(self.random, value.dtype, self.shapes.get(value, like))
        return self.fed[value]

    def outline(self, value: Value) -> Array:
        """Something with the shape of a value of which only that is looked at."""
        return np.broadcast_to(np.zeros(1), self.shapes.get(value, ()))


def _drawn(random: np.random.Generator, dtype: str | None, shape: tuple[int, ...]) -> NDArray[Any]:
    """Elements of a type, numbers in float64."""
    if dtype == "bool":
        return random.random(shape) < 0.5
    if dtype is not None and dtype.startswith(("int", "uint")):
        return random.integers(0, 8 if len(shape) < 2 and prod(shape) <= SHORT else 100, shape, dtype)
    return np.asarray(random.standard_normal(shape))


class Source(Frame):
    """The source at one trial; `leaves` are fed, whatever makes them.

    `failed` says why it cannot be evaluated at these extents; then it makes nothing there that a rewrite
    would have to make too.
    """

    def __init__(self, trial: Trial, leaves: Collection[Value]) -> None:
        super().__init__()
        self.trial = trial
        self.leaves = leaves
        self.failed = ""

    @property
    def stopped(self) -> bool:
        """Whether it failed."""
        return bool(self.failed)

    def knows(self, edge: Edge) -> bool:
        """Whether the source made it, and it is not fed."""
        return edge in self.values and edge not in self.leaves

    def outside(self, edge: Edge, part: Part, like: tuple[int, ...]) -> NDArray[Any]:
        """Random data; where only the shape is looked at, that."""
        assert isinstance(edge, Value), "the source reads values"
        by_shape = operation(part.op).of_shape and edge not in self.leaves
        return self.trial.outline(edge) if by_shape else self.trial.feed(edge, like)

    def compute(self, part: Part, op: Op, inputs: Sequence[Array | None]) -> tuple[Array, ...]:
        """The outputs; another floating type is none here."""
        (output, *_) = part.outputs
        if operation(op).retypes and isinstance(output, Value) and output.dtype in FLOATS:
            results: tuple[Array, ...] = (np.asarray(inputs[0], dtype=np.float64),)
        else:
            results = evaluate(op, inputs)
        if any(not array.size for array in results):
            raise Declined(NOTHING)
        return results

    def fail(self, part: Part, error: Exception) -> None:
        """Nothing more is evaluated."""
        self.failed = f"{part.op}: {error}"


class Rewritten(Frame):
    """What a rewrite made, at the same trial, of what is fed or, if `linked`, of what the source made.

    `refused` says why it cannot be evaluated.
    """

    def __init__(self, source: Source, *, linked: bool) -> None:
        super().__init__()
        self.source = source
        self.linked = linked
        self.refused = ""

    @property
    def stopped(self) -> bool:
        """Whether it failed, or the source on which it depends."""
        return bool(self.refused) or (self.linked and self.source.stopped)

    def outside(self, edge: Edge, part: Part, like: tuple[int, ...]) -> NDArray[Any]:
        """What the source made, or random data."""
        del part
        assert isinstance(edge, Value), "an application is evaluated behind those that it reads"
        trial = self.source.trial
        if self.linked and edge in self.source.values and edge not in trial.fed:
            return self.source.values[edge]
        return trial.feed(edge, like)

    def fail(self, part: Part, error: Exception) -> None:
        """Nothing more is evaluated."""
        del part
        self.refused = f"the rewrite cannot be evaluated: {error}"

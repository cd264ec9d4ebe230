"""What an operator costs: multiply-adds, bytes moved and kernels launched, as one estimated time.

A roofline: arithmetic and memory traffic overlap, the launch does not. The figures are orders of magnitude of
one CPU core pair; a rewrite is judged by the difference over the region that it removes, where only their
ratios matter.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import Final

from fuser.algebra.conv import Conv
from fuser.ir.extents import Extent, window
from fuser.ir.graph import Dim, Op, Reshape, Select, Sum, Value

MULTIPLY_ADDS_PER_SECOND: Final = 50e9
BYTES_PER_SECOND: Final = 10e9
SECONDS_PER_KERNEL: Final = 5e-6

# Extents that are not known: those of one image of 224, and the middle of a network that began so where it is
# not even known how they follow from the image's.
NOMINAL_BATCH: Final = 1
NOMINAL_IMAGE: Final = 224
NOMINAL_EXTENT: Final = 28
ELEMENT_BYTES: Final = 4


@dataclass(frozen=True)
class Cost:
    """An amount of work; costs add up."""

    multiply_adds: float = 0.0
    bytes: float = 0.0
    kernels: int = 0
    seconds: float = 0.0

    @classmethod
    def of(cls, multiply_adds: float, moved: float, kernels: int) -> "Cost":
        """What one operator costs, and the time that it is estimated to take."""
        roof = max(multiply_adds / MULTIPLY_ADDS_PER_SECOND, moved / BYTES_PER_SECOND)
        return cls(multiply_adds, moved, kernels, roof + kernels * SECONDS_PER_KERNEL)

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.multiply_adds + other.multiply_adds,
            self.bytes + other.bytes,
            self.kernels + other.kernels,
            self.seconds + other.seconds,
        )


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


def result_shape(conv: Conv, shape: tuple[Dim, ...]) -> tuple[Dim, ...]:
    """The shape that `conv` makes of `shape`; an extent that is not known stays so, or stays the same."""
    if conv.axis == -1:
        return (*shape[:-1], conv.outputs)
    if conv.transposed:
        known = [dim if isinstance(dim, int) else None for dim in shape[2:]]
        extents = conv.extent(tuple(n or 1 for n in known))
        made: Iterable[Dim] = (m if n is not None else None for n, m in zip(known, extents, strict=True))
    else:
        made = map(window, shape[2:], conv.slack, conv.stride)
    return (shape[0], conv.outputs, *made)


def operator_cost(op: Op, output: Value, kernels: int) -> Cost:
    """The cost of `op` where it makes `output`, in `kernels` operators of the host: in none for a view."""
    if kernels == 0:
        return Cost()
    if isinstance(op, Conv):
        at = positions(output.shape, op.axis)
        reads = at * prod(op.stride) if not op.transposed else at / prod(op.stride)
        weights = prod(op.kernel.shape)
        moved = ELEMENT_BYTES * (at * op.outputs + reads * op.inputs + weights)
        cost = Cost.of(at * weights, moved, 1)
        for _ in range(kernels - 1):
            # Each further kernel is as dear as the scale or shift that it is.
            cost += Cost.of(at * op.outputs, ELEMENT_BYTES * (2 * at + 1) * op.outputs, 1)
        return cost
    if isinstance(op, Reshape):
        return Cost.of(0, 0, kernels)  # its elements stay where they are
    if isinstance(op, Select):
        part = operator_cost(Sum((1.0,)), output, kernels)
        return Cost.of(0, part.bytes * sum(size for _, size in op.ranges) / op.ranges[0][1], kernels)
    elements = prod(nominal(output.shape or ()))
    moved = len(op.coefficients) + 1 if isinstance(op, Sum) and kernels == 1 else 2 * kernels
    return Cost.of(0, ELEMENT_BYTES * elements * moved, kernels)

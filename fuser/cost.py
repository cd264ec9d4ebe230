"""What an operator costs: multiply-adds, bytes moved and kernels launched, as one estimated time.

A roofline: arithmetic and memory traffic overlap, the launch does not. The figures are orders of magnitude of
one CPU core pair; a rewrite is judged by the difference over the region that it removes, where only their
ratios matter.
"""

from dataclasses import dataclass
from math import prod
from typing import Final

from fuser.conv import Conv
from fuser.ir import Dim, Op, Select, Sum, Value

MULTIPLY_ADDS_PER_SECOND: Final = 50e9
BYTES_PER_SECOND: Final = 10e9
SECONDS_PER_KERNEL: Final = 5e-6

# Extents that are not known: one image, and the middle of a network that began at 224.
NOMINAL_BATCH: Final = 1
NOMINAL_EXTENT: Final = 28
ELEMENT_BYTES: Final = 4


@dataclass(frozen=True)
class Cost:
    """An amount of work; costs add up."""

    multiply_adds: float = 0.0
    bytes: float = 0.0
    kernels: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.multiply_adds + other.multiply_adds, self.bytes + other.bytes, self.kernels + other.kernels
        )

    @property
    def seconds(self) -> float:
        """Estimated time of one operator of this cost."""
        return (
            max(self.multiply_adds / MULTIPLY_ADDS_PER_SECOND, self.bytes / BYTES_PER_SECOND)
            + self.kernels * SECONDS_PER_KERNEL
        )


def positions(shape: tuple[Dim, ...] | None, axis: int) -> int:
    """Number of positions (all axes but the channels), unknown extents taken at their nominal size."""
    if shape is None:
        shape = (None, None, None, None) if axis == 1 else (None, None)
    extents = [
        dim if isinstance(dim, int) else NOMINAL_EXTENT if i else NOMINAL_BATCH for i, dim in enumerate(shape)
    ]
    if axis < len(extents):
        extents[axis] = 1
    return prod(extents)


def result_shape(conv: Conv, shape: tuple[Dim, ...]) -> tuple[Dim, ...]:
    """The shape that `conv` makes of `shape`; an extent that is not known stays so, or stays the same."""
    if conv.axis == -1:
        return (*shape[:-1], conv.outputs)
    extents = conv.extent(tuple(dim if isinstance(dim, int) else 1 for dim in shape[2:]))
    axes = zip(shape[2:], extents, conv.stride, conv.slack, strict=True)
    made = (n if isinstance(dim, int) else dim if s == 1 and not slack else None for dim, n, s, slack in axes)
    return (shape[0], conv.outputs, *made)


def operator_cost(op: Op, output: Value, kernels: int) -> Cost:
    """The cost of `op` where it makes `output`, expressed in `kernels` operators of the host."""
    if isinstance(op, Conv):
        at = positions(output.shape, op.axis)
        reads = at * prod(op.stride) if not op.transposed else at / prod(op.stride)
        weights = prod(op.kernel.shape)
        moved = ELEMENT_BYTES * (at * op.outputs + reads * op.inputs + weights)
        if kernels > 1:
            # Each further kernel reads and writes the result once more.
            moved += ELEMENT_BYTES * 2 * (kernels - 1) * at * op.outputs
        return Cost(at * weights, moved, kernels)
    if isinstance(op, Select):
        part = operator_cost(Sum((1.0,)), output, kernels)
        return Cost(0, part.bytes * sum(size for _, size in op.ranges) / op.ranges[0][1], kernels)
    elements = prod(
        dim if isinstance(dim, int) else NOMINAL_EXTENT if i else NOMINAL_BATCH
        for i, dim in enumerate(output.shape or ())
    )
    moved = len(op.coefficients) + 1 if isinstance(op, Sum) and kernels == 1 else 2 * kernels
    return Cost(0, ELEMENT_BYTES * elements * moved, kernels)

"""What an operator costs: multiply-adds, bytes moved and kernels launched, as one estimated time.

A roofline: arithmetic and memory traffic overlap, the launch does not. The figures are orders of magnitude of
one CPU core pair; a rewrite is judged by the difference over the region that it removes, where only their
ratios matter.
"""

from dataclasses import dataclass
from math import prod
from typing import Final

from fuser.ir.extents import Shape, nominal
from fuser.ir.node import Node, Value, carry_of
from fuser.ir.ops import Op, operation

MULTIPLY_ADDS_PER_SECOND: Final = 50e9
BYTES_PER_SECOND: Final = 10e9
SECONDS_PER_KERNEL: Final = 5e-6

ELEMENT_BYTES: Final = 4

NEAR: Final = 8
"""Operators between rows and what they are made of, at most."""


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


def operator_cost(op: Op, output: Value, kernels: int) -> Cost:
    """The cost of `op` where it makes `output`, in `kernels` operators of the host: in none for a view."""
    if kernels == 0:
        return Cost()
    parts = operation(op).work(_sized(output), kernels)
    return sum(
        (Cost.of(part.multiply_adds, ELEMENT_BYTES * part.elements, part.kernels) for part in parts),
        start=Cost(),
    )


def _sized(value: Value) -> Shape | None:
    """The shape of a value; of rows that axes were merged to there are as many as these had."""
    shape = value.shape
    if not shape or isinstance(shape[0], int) or not all(isinstance(n, int) for n in shape[1:]):
        return shape
    source = value
    for _ in range(NEAR):
        maker = source.producer
        if maker is None or not maker.inputs or maker.inputs[0] is None or not _as_many(maker):
            break
        source = maker.inputs[0]
        if source.shape is not None and len(source.shape) > len(shape):
            row = prod(n for n in shape[1:] if isinstance(n, int))
            return max(1, prod(nominal(source.shape)) // max(1, row)), *shape[1:]
    return shape


def _as_many(node: Node) -> bool:
    """Whether what a node makes has as many elements as what it reads."""
    carry = carry_of(node)
    return operation(node.op).elementwise or (carry is not None and carry.moves)

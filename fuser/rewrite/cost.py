"""What an operator costs: multiply-adds, bytes moved and kernels launched, as one estimated time.

A roofline: arithmetic and memory traffic overlap, the launch does not. The figures are orders of magnitude of
one CPU core pair; a rewrite is judged by the difference over the region that it removes, where only their
ratios matter.
"""

from dataclasses import dataclass
from typing import Final

from fuser.ir.node import Value
from fuser.ir.ops import Op, operation

MULTIPLY_ADDS_PER_SECOND: Final = 50e9
BYTES_PER_SECOND: Final = 10e9
SECONDS_PER_KERNEL: Final = 5e-6

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


def operator_cost(op: Op, output: Value, kernels: int) -> Cost:
    """The cost of `op` where it makes `output`, in `kernels` operators of the host: in none for a view."""
    if kernels == 0:
        return Cost()
    parts = operation(op).work(output.shape, kernels)
    return sum(
        (Cost.of(part.multiply_adds, ELEMENT_BYTES * part.elements, part.kernels) for part in parts),
        start=Cost(),
    )

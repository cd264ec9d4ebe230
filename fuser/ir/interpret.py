"""One interpreter for all that is made of operators: nodes, statements, applications of rewrites.

An operator is evaluated in all frames before the next one, so that its constants are widened once, and only
for as long as they are used.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from fuser.algebra.lazy import Array
from fuser.errors import Declined
from fuser.ir.constant import Constant
from fuser.ir.node import Apply, Value
from fuser.ir.ops import Op, operation

FAILURES: Final = (ValueError, IndexError, KeyError, TypeError, ZeroDivisionError, MemoryError, Declined)
"""What operators raise for operands that they cannot take."""

Edge = Value | Apply
"""What an operator reads or makes."""


class Part(Protocol):
    """One operator with what it reads and makes."""

    @property
    def op(self) -> Op:
        """The operator."""

    @property
    def inputs(self) -> Sequence[Edge | None]:
        """What it reads; None for an absent optional input."""

    @property
    def outputs(self) -> Sequence[Edge]:
        """What it makes."""


class Frame:
    """One of the evaluations that go side by side: what is known in it, and where the rest comes from."""

    def __init__(self, values: Mapping[Any, NDArray[Any]] | None = None) -> None:
        self.values: dict[Edge, NDArray[Any]] = dict(values or {})

    @property
    def stopped(self) -> bool:
        """Whether nothing more is to be evaluated."""
        return False

    def knows(self, edge: Edge) -> bool:
        """Whether an operand was made here."""
        return edge in self.values

    def outside(self, edge: Edge, part: Part, like: tuple[int, ...]) -> NDArray[Any]:
        """An operand that nothing made; `like` is the shape of the first one that something did.

        Raises:
            Declined: there is none.
        """
        del part, like
        raise Declined(f"nothing makes {edge!r}")

    def compute(self, part: Part, op: Op, inputs: Sequence[Array | None]) -> tuple[Array, ...]:
        """The outputs of a part; `op` is its operator with its kernel at hand."""
        del part
        return evaluate(op, inputs)

    def fail(self, part: Part, error: Exception) -> None:
        """A part cannot be evaluated."""
        del part
        raise error


def evaluate(op: Op, inputs: Sequence[Array | None]) -> tuple[Array, ...]:
    """The outputs of any operator, computed directly.

    Raises:
        Declined: it cannot be evaluated.
    """
    if op.evaluate is None:
        raise Declined(f"{op} cannot be evaluated")
    result = op.evaluate(*inputs)  # type: ignore[arg-type]  # only an Opaque has absent inputs
    return result if isinstance(result, tuple) else (result,)


def interpret(
    parts: Iterable[Part],
    frames: Sequence[Frame],
    keep: Collection[Edge],
    widen: Callable[[Constant], NDArray[Any]] = Constant.wide,
) -> None:
    """Evaluate the parts in order in each frame; what is not to be kept is dropped at its last use."""
    listed = list(parts)
    last = {edge: part for part in listed for edge in part.inputs}
    for part in listed:
        held = (edge for edge in part.inputs if isinstance(edge, Value))
        constants: dict[Edge, NDArray[Any]]
        constants = {value: widen(value.constant) for value in held if value.constant is not None}
        op = operation(part.op).at_hand()
        for frame in frames:
            if not frame.stopped:
                try:
                    with np.errstate(all="ignore"):
                        made = frame.compute(part, op, _operands(part, constants, frame))
                except FAILURES as error:
                    frame.fail(part, error)
                else:
                    frame.values.update(zip(part.outputs, made, strict=False))
        for edge in part.inputs:
            if edge is not None and last[edge] is part and edge not in keep:
                for frame in frames:
                    frame.values.pop(edge, None)


def _operands(part: Part, constants: Mapping[Edge, NDArray[Any]], frame: Frame) -> list[NDArray[Any] | None]:
    known = dict(constants)
    made = [edge for edge in part.inputs if edge is not None and edge not in known and frame.knows(edge)]
    known.update((edge, frame.values[edge]) for edge in made)
    like = next((known[edge].shape for edge in made), ())
    return [
        None if edge is None else known[edge] if edge in known else frame.outside(edge, part, like)
        for edge in part.inputs
    ]

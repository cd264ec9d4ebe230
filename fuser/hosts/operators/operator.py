"""What a record says of one operator, and what is made of it for one call."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fuser.algebra.conv import Ints
from fuser.errors import Declined, require
from fuser.hosts.operators.call import Call, Held, dtype, operand
from fuser.hosts.operators.extents import Extents, Shape, Shapes
from fuser.ir.carry import Carry
from fuser.ir.constant import FLOATS, Constant
from fuser.ir.literals import ENDLESS, Literals, read
from fuser.ir.node import Apply, Node

Arrays = Sequence[NDArray[Any]]
Constants = Sequence[Constant | None]
Inputs = tuple[frozenset[int], ...]

LiftRule = Callable[[Call, Node], Apply | Constant | None]
ShapeRule = Callable[[Call, Node, Extents], Shapes]
TypeRule = Callable[[Call, Node], Sequence[str | None]]
ElementRule = Callable[[Call, Node, Extents], Shape | None]
CarryRule = Callable[[Call, Node], Carry]
AxesRule = Callable[[Call, Constants], Ints | None]

FIRST: Final[Inputs] = (frozenset({0}),)
PAIR: Final[Inputs] = (frozenset({0, 1}),)
EITHER: Final[Inputs] = (frozenset({0}), frozenset({1}))


@contextmanager
def fitting() -> Iterator[None]:
    """Decline lists that do not fit together and axes that there are not: a file may hold any numbers."""
    try:
        yield
    except (ValueError, IndexError) as misfit:
        raise Declined(f"its numbers do not fit together: {misfit}") from misfit


def no_inputs(call: Call, count: int) -> Inputs:
    """It is affine in nothing, or nothing is known of that."""
    return ()


def all_inputs(call: Call, count: int) -> Inputs:
    """It is affine in all inputs together."""
    return (frozenset(range(count)),)


def in_inputs(inputs: Inputs) -> Callable[[Call, int], Inputs]:
    """It is affine in these, however it is called."""
    return lambda _, __: inputs


def of_input(index: int) -> TypeRule:
    """Every output has the element type of this input."""

    def rule(call: Call, node: Node) -> Sequence[str | None]:
        value = operand(node, index)
        return [None if value is None else value.dtype] * len(node.outputs)

    return rule


of_first: Final = of_input(0)


def first_type_alone(call: Call, node: Node) -> Sequence[str | None]:
    """The first output has the element type of the first input; of the others nothing is known."""
    return of_first(call, node)[:1]


def and_then(second: str) -> TypeRule:
    """The first output has the element type of the first input, the second one this."""
    return lambda call, node: [of_first(call, node)[0], second]


def always(name: str) -> TypeRule:
    """Every output has this element type."""
    return lambda _, node: [name] * len(node.outputs)


def no_more(arrays: Arrays) -> float:
    """It makes no more elements than it reads."""
    return 0


def broadcasting(arrays: Arrays) -> float:
    """As many as the inputs broadcast to."""
    return float(np.prod(np.broadcast_shapes(*(array.shape for array in arrays)), dtype=np.float64))


@dataclass(frozen=True)
class Operator:
    """All that the compiler knows of a standard operator; what it computes is said elsewhere, to judge this.

    Attributes:
        kind: its name in the newest operator set of ONNX, or one of ours where the standard has none.
        lift: its affine form for one node, None where it has none there; declines where a condition fails.
        shape: the shapes of its outputs; None where nothing is known of them.
        types: the element types of its outputs.
        elements: what is known of the elements of a short integer output.
        linear: the sets of inputs in which it is affine, each taken together, all others being held fixed.
        literals: the numbers that it holds against positions and extents: fixed, or the axes of its data on
            which those that it is given act; None where they may act on any.
        makes: how many elements it makes of constants, at most, where shapes, axes and indices are computed
            by it.
        floating: its lift is for floating numbers alone.
        homogeneous: f(s * x) = s * f(x) for s > 0, channel by channel, in the first input.
        elementwise: every element from those at the same position; inputs broadcast.
        of_shape: it looks at the shapes of its inputs alone.
        retypes: it gives its first input another element type and does no more.
        repeats: it makes more of its first input by repeating it.
        foldable: not where what it makes of constants must stay computed.
        asks: the shapes that its inputs must have, as far as its other inputs say.
        carries: how it carries a scale and a shift of its first input to its output, and back.
    """

    kind: str
    lift: LiftRule | None = None
    shape: ShapeRule | None = None
    types: TypeRule = of_first
    elements: ElementRule | None = None
    linear: Callable[[Call, int], Inputs] = no_inputs
    literals: Literals | AxesRule | None = None
    makes: Callable[[Arrays], float] | None = None
    floating: bool = False
    homogeneous: bool = False
    elementwise: bool = False
    of_shape: bool = False
    retypes: bool = False
    repeats: bool = False
    foldable: bool = True
    carries: CarryRule | None = None
    asks: Callable[[Call, Node], Sequence[Shape | None]] | None = None

    def carrying(self, call: Call) -> Callable[[Node], Carry] | None:
        """The same for the nodes of one call."""
        rule = self.carries
        if rule is None:
            return None

        def carry(node: Node) -> Carry:
            with fitting():
                return rule(call, node)

        return carry


@dataclass(frozen=True, eq=False)
class Lifter:
    """Lifts the nodes of one call."""

    operator: Operator
    call: Call

    def __call__(self, node: Node) -> Apply | Constant | None:
        """The affine form of `node`, None if it has none.

        Raises:
            Declined: it is affine in principle, but a condition fails.
        """
        rule = self.operator.lift
        if rule is None or all_known(node):
            return None
        require(not self.call.refusal, self.call.refusal)
        if self.operator.floating:
            name = dtype(node)
            require(name is not None, f"the element type of {node.outputs[0].name!r} is not known")
            if name not in FLOATS:
                return None
        with fitting():
            return rule(self.call, node)


def all_known(node: Node) -> bool:
    """Whether all inputs are constants, so that there is nothing to lift."""
    return bool(node.inputs) and all(value is None or value.constant is not None for value in node.inputs)


@dataclass(frozen=True, eq=False)
class Finder:
    """Finds the numbers that a call holds, once its constant inputs are known."""

    operator: Operator | None
    call: Call

    def __call__(self, constants: Constants) -> Literals:
        """The numbers in attributes and in inputs that are constants."""
        rule = None if self.operator is None else self.operator.literals
        if isinstance(rule, Literals):
            return rule
        held = [n for value in self.call.attributes.values() for n in whole(value) if abs(n) < ENDLESS]
        axes = None if rule is None else rule(self.call, constants)
        return Literals((*held, *read(constants)), axes, rigid=True)


def whole(value: Any) -> Sequence[int]:
    """The whole numbers that an attribute is or lists."""
    listed = value if isinstance(value, list | tuple) else (value,)
    return [n for n in listed if isinstance(n, int) and not isinstance(n, bool)]


def held_ints(call: Call, constants: Constants, name: str, default: Ints | None) -> Ints | None:
    """Integers that are an input or an attribute; `default` where absent, None where the graph computes them.

    For literals, which are asked for with the constants of a node, and without its inputs.
    """
    value = call.attributes.get(name)
    if isinstance(value, Held):
        held = constants[value.index] if value.index < len(constants) else None
        return None if held is None else tuple(int(n) for n in held.array().reshape(-1))
    if value is None:
        return default
    return tuple(value) if isinstance(value, list | tuple) else (value,)

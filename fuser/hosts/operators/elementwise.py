"""One tensor, element by element: activations, and what returns what it is given."""

from typing import Any, Final

import numpy as np

from fuser.errors import require
from fuser.hosts.operators.call import Call, attribute, data, nothing, number
from fuser.hosts.operators.extents import Extents, Shape, like_first
from fuser.hosts.operators.operator import (
    FIRST,
    LiftRule,
    Operator,
    always,
    and_then,
    in_inputs,
    no_more,
    of_input,
)
from fuser.ir.constant import Constant
from fuser.ir.literals import UNIFORM
from fuser.ir.node import Apply, Node


def lift_identity(call: Call, node: Node) -> Apply | None:
    """Identity(x)  ->  x, where x is a tensor."""
    return nothing(data(node)) if data(node).dtype is not None else None


def lift_dropout(call: Call, node: Node) -> Apply:
    """Dropout(x)  ->  x outside training."""
    require(not number(call, node, "training_mode", 0.0), "training_mode is true")
    for mask in node.outputs[1:]:
        require(not mask.users and not mask.is_output, f"the mask {mask.name!r} is read")
    return nothing(data(node))


def lift_cast(call: Call, node: Node) -> Apply | None:
    """Cast(x)  ->  x, where x has that type already."""
    before, after = data(node).dtype, node.outputs[0].dtype
    return nothing(data(node)) if before is not None and before == after else None


def lift_cast_like(call: Call, node: Node) -> Apply | Constant | None:
    """CastLike(x, y)  ->  x, where both have one type, or the constant x in the type of y."""
    x, like = data(node), data(node, 1)
    require(like.dtype is not None, f"the element type of {like.name!r} is not known")
    if x.constant is not None and x.constant.size <= SMALL and like.dtype in NUMBERS:
        return Constant.of(np.asarray(x.constant.array()).astype(like.dtype))
    return nothing(x) if x.dtype == like.dtype else None


def lift_leaky_relu(call: Call, node: Node) -> Apply | None:
    """LeakyRelu with slope 1  ->  x."""
    return nothing(data(node)) if attribute(call, "alpha", 0.01) == 1.0 else None


def lift_prelu(call: Call, node: Node) -> Apply | None:
    """PRelu with slopes that are all 1  ->  x."""
    slope = data(node, 1).constant
    ones = slope is not None and bool((np.asarray(slope.array()) == 1).all())
    return nothing(data(node)) if ones else None


def lift_clip(call: Call, node: Node) -> Apply | None:
    """Clip without bounds  ->  x."""
    bounds = [attribute(call, name) for name in ("min", "max")]
    return nothing(data(node)) if bounds == [None, None] else None


def same_elements(call: Call, node: Node, extents: Extents) -> Shape | None:
    """Those of the first input."""
    return extents.elements(data(node))


def _activation(kind: str, lift: LiftRule | None = None, **facts: Any) -> Operator:
    return Operator(kind, lift, like_first, literals=UNIFORM, elementwise=True, **facts)


SMALL: Final = 4096
"""Constants of at most so many elements are given another type when the graph is read."""
NUMBERS: Final = ("float16", "float32", "float64", "int32", "int64")

# fmt: off
ACTIVATIONS: Final = (
    "Abs", "Celu", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "Log", "Mish", "Reciprocal",
    "Selu", "Sigmoid", "Sign", "Softplus", "Softsign", "Sqrt", "Swish", "Tanh", "ThresholdedRelu",
)
FUNCTIONS: Final = (
    "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "BitwiseNot", "Cos", "Cosh", "Shrink", "Sin", "Sinh",
    "Tan",
)
# fmt: on

OPERATORS: Final = (
    *map(_activation, ACTIVATIONS),
    _activation("Relu", homogeneous=True),
    _activation("LeakyRelu", lift_leaky_relu, homogeneous=True),
    _activation("PRelu", lift_prelu, homogeneous=True),
    _activation("Clip", lift_clip),
    _activation("Identity", lift_identity, elements=same_elements, linear=in_inputs(FIRST)),
    Operator("Dropout", lift_dropout, like_first, and_then("bool"), literals=UNIFORM),
    Operator(
        "Cast",
        lift_cast,
        like_first,
        lambda call, _: [attribute(call, "to")],
        same_elements,
        literals=UNIFORM,
        makes=no_more,
        retypes=True,
    ),
    Operator("CastLike", lift_cast_like, like_first, of_input(1), same_elements, literals=UNIFORM),
    *(Operator(kind, shape=like_first, literals=UNIFORM) for kind in ("Ceil", "Floor", "Round")),
    *(Operator(kind, shape=like_first) for kind in FUNCTIONS),
    *(Operator(kind, shape=like_first, types=always("bool")) for kind in ("IsInf", "IsNaN", "Not")),
    Operator("QuantizeLinear", shape=like_first, types=of_input(2)),
    # A kernel that was quantised on purpose stays quantised.
    Operator("DequantizeLinear", shape=like_first, types=of_input(1), foldable=False),
)

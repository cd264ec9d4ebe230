"""What makes one number of many along axes."""

from typing import Final

from fuser.hosts.operators.call import Call, attribute, data, ints
from fuser.hosts.operators.extents import Extents, Shapes, like_first, shape_of
from fuser.hosts.operators.operator import Operator, always
from fuser.ir.node import Node


def reduced_shape(call: Call, node: Node, extents: Extents) -> Shapes:
    """Axes that become 1 or vanish."""
    x = shape_of(data(node))
    axes = ints(call, node, "axes")
    if not axes and attribute(call, "noop_with_empty_axes", 0):
        return [x]
    gone = {axis % len(x) for axis in axes} if axes else set(range(len(x)))
    if attribute(call, "keepdims", 1):
        return [tuple(1 if i in gone else n for i, n in enumerate(x))]
    return [tuple(n for i, n in enumerate(x) if i not in gone)]


def extremum_shape(call: Call, node: Node, extents: Extents) -> Shapes:
    """One axis that becomes 1 or vanishes."""
    x = shape_of(data(node))
    axis = attribute(call, "axis", 0) % len(x)
    kept = (1,) if attribute(call, "keepdims", 1) else ()
    return [(*x[:axis], *kept, *x[axis + 1 :])]


# fmt: off
REDUCTIONS: Final = (
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin",
    "ReduceProd", "ReduceSum", "ReduceSumSquare",
)
# fmt: on

OPERATORS: Final = (
    *(Operator(kind, shape=reduced_shape) for kind in REDUCTIONS),
    Operator("ArgMax", shape=extremum_shape, types=always("int64")),
    Operator("ArgMin", shape=extremum_shape, types=always("int64")),
    Operator("CumSum", shape=like_first),
    Operator("Trilu", shape=like_first),
)

"""What makes one number of many along axes."""

from typing import Final

from fuser.algebra.pointwise import Pointwise
from fuser.errors import require
from fuser.hosts.operators.call import Call, attribute, data, ints, rank_of
from fuser.hosts.operators.extents import Extents, Shape, Shapes, like_first, shape_of
from fuser.hosts.operators.operator import Operator, always
from fuser.ir.carry import Carry
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


def reduced(call: Call, node: Node) -> Carry:
    """A mean carries any that do not depend on its axes; a maximum or minimum only a positive scale."""
    rank = rank_of(data(node))
    axes = ints(call, node, "axes")
    if not axes and attribute(call, "noop_with_empty_axes", 0):
        return Carry()
    gone = sorted({axis % rank for axis in axes} if axes else range(rank))
    kept = bool(attribute(call, "keepdims", 1))

    def onward(m: Pointwise, read: Shape, made: Shape) -> Pointwise:
        touched = [axis for axis in gone if axis in m.axes]
        require(not touched, f"the scale and shift differ along axis {touched}, which is reduced")
        shape = tuple(n for axis, n in enumerate(m.scale.shape) if kept or axis not in gone)
        return Pointwise(m.scale.reshape(shape), m.shift.reshape(shape))

    def back(m: Pointwise, read: Shape, made: Shape) -> Pointwise:
        shape = iter(m.scale.shape)
        wide = m.scale.shape if kept else tuple(1 if axis in gone else next(shape) for axis in range(rank))
        return Pointwise(m.scale.reshape(wide), m.shift.reshape(wide))

    return Carry(onward, back, positive=call.kind != "ReduceMean")


# fmt: off
REDUCTIONS: Final = (
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin",
    "ReduceProd", "ReduceSum", "ReduceSumSquare",
)
# fmt: on

CARRYING: Final = ("ReduceMax", "ReduceMean", "ReduceMin")

OPERATORS: Final = (
    *(
        Operator(kind, shape=reduced_shape, carries=reduced if kind in CARRYING else None)
        for kind in REDUCTIONS
    ),
    Operator("ArgMax", shape=extremum_shape, types=always("int64")),
    Operator("ArgMin", shape=extremum_shape, types=always("int64")),
    Operator("CumSum", shape=like_first),
    Operator("Trilu", shape=like_first),
)

"""The same elements on other axes, in another order, or repeated."""

import math
from functools import partial
from typing import Final

import numpy as np

from fuser.algebra.conv import Ints
from fuser.algebra.pointwise import Pointwise
from fuser.errors import Declined, require
from fuser.hosts.operators.call import Call, attribute, computed, data, ints, nothing, rank_of, same_shape
from fuser.hosts.operators.elementwise import same_elements
from fuser.hosts.operators.extents import Extents, Shape, Shapes, broadcast, shape_of
from fuser.hosts.operators.operator import (
    FIRST,
    Arrays,
    Constants,
    LiftRule,
    Operator,
    ShapeRule,
    in_inputs,
    no_more,
)
from fuser.ir.carry import RESHAPE, Carry, transposition
from fuser.ir.constant import FLOATS
from fuser.ir.extents import Dim, affine
from fuser.ir.literals import RIGID
from fuser.ir.node import Apply, Node
from fuser.ir.ops import Reshape
from fuser.recognise.region import among_images


def lift_reshape(call: Call, node: Node) -> Apply | None:
    """Reshape(x, shape of x)  ->  x; to another shape  ->  a reshape."""
    return _unchanged(call, node) or reshape(node)


def _unchanged(call: Call, node: Node) -> Apply | None:
    """x, where that has the shape that is asked for, known or not."""
    x = data(node)
    if same_shape(x.shape, node.outputs[0].shape):
        return nothing(x)
    if computed(call, node, "shape") or "shape" not in call.attributes or x.shape is None:
        return None
    wanted = ints(call, node, "shape") or ()
    if attribute(call, "allowzero", 0) and 0 in wanted:
        return None
    kept = [n in (0, dim) for n, dim in zip(wanted, x.shape, strict=False)]
    unknown = [n for n, same in zip(wanted, kept, strict=False) if not same]
    return nothing(x) if len(wanted) == len(x.shape) and unknown in ([], [-1]) else None


def lift_same_shape(call: Call, node: Node) -> Apply | None:
    """Expand or Tile to the shape that x has  ->  x."""
    x = data(node)
    return nothing(x) if same_shape(x.shape, node.outputs[0].shape) else None


def lift_axes(call: Call, node: Node) -> Apply | None:
    """Flatten, Squeeze or Unsqueeze  ->  the same elements in another shape, or x."""
    return lift_same_shape(call, node) or reshape(node)


def reshape(node: Node) -> Apply | None:
    """The first input in another shape  ->  a reshape, where all extents behind the first ones are known.

    Raises:
        Declined: one of a tensor that a convolution makes or reads is not known.
    """
    x, output = node.inputs[0], node.outputs[0]
    if x is None or x.dtype not in FLOATS or x.dtype != output.dtype:
        return None
    if x.shape is None or output.shape is None or min(len(x.shape), len(output.shape)) < 2:
        return None
    extents = tuple(dim for dim in (*x.shape[1:], *output.shape[1:]) if isinstance(dim, int) and dim > 0)
    known = len(extents) == len(x.shape) + len(output.shape) - 2
    require(
        known or not among_images(node),
        f"the extents of the reshape from {x.shape} to {output.shape} are not all known",
    )
    return Apply(Reshape(extents[len(x.shape) - 1 :]), (x,), "reshape") if known else None


def lift_transpose(call: Call, node: Node) -> Apply | None:
    """Transpose that leaves every axis in its place  ->  x."""
    x, order = data(node), ints(call, node, "perm")
    if order is None:
        return nothing(x) if x.rank in (0, 1) else None
    return nothing(x) if order == tuple(range(len(order))) else None


def flatten_shape(call: Call, node: Node, extents: Extents) -> Shapes:
    """A matrix."""
    x = shape_of(data(node))
    axis = attribute(call, "axis", 1)
    axis = axis + len(x) if axis < 0 else axis
    return [(extents.product(x[:axis]), extents.product(x[axis:]))]


def reshape_shape(call: Call, node: Node, extents: Extents) -> Shapes:
    """What is asked for: 0 keeps an axis, -1 is what remains."""
    x = shape_of(data(node))
    target = extents.held(call, node, "shape")
    if target is None:
        raise Declined("the target is not known")
    zeros = bool(attribute(call, "allowzero", 0))
    if any(n == 0 and not zeros and i >= len(x) for i, n in enumerate(target)):
        raise Declined("a kept axis does not exist")
    result: list[Dim] = [x[i] if n == 0 and not zeros else n for i, n in enumerate(target)]
    if -1 in target:
        result[target.index(-1)] = _remainder(x, [dim for dim in result if dim != -1], extents)
    return [tuple(result)]


def _remainder(x: Shape, taken: list[Dim], extents: Extents) -> Dim:
    """The extent that is left of `x` when all others are `taken`."""
    left, divisor = list(x), 1
    for dim in taken:
        if isinstance(dim, int):
            divisor *= dim
        elif dim is not None and dim in left:
            left.remove(dim)
        else:
            return None
    return extents.product(left, divisor)


def transpose_shape(call: Call, node: Node, extents: Extents) -> Shapes:
    """Axes in another order."""
    x = shape_of(data(node))
    order = ints(call, node, "perm") or tuple(reversed(range(len(x))))
    return [tuple(x[axis] for axis in order)]


def squeeze_shape(call: Call, node: Node, extents: Extents) -> Shapes:
    """Axes of extent 1 removed."""
    x = shape_of(data(node))
    axes = ints(call, node, "axes")
    if axes is None:
        if not all(isinstance(n, int) for n in x):
            raise Declined("an extent is not known")
        return [tuple(n for n in x if n != 1)]
    gone = {axis % len(x) for axis in axes}
    return [tuple(n for i, n in enumerate(x) if i not in gone)]


def unsqueeze_shape(call: Call, node: Node, extents: Extents) -> Shapes:
    """Axes of extent 1 inserted."""
    x = shape_of(data(node))
    axes = ints(call, node, "axes") or ()
    rank = len(x) + len(axes)
    new, rest = {axis % rank for axis in axes}, iter(x)
    return [tuple(1 if i in new else next(rest) for i in range(rank))]


def expand_shape(call: Call, node: Node, extents: Extents) -> Shapes:
    """Broadcasting with a shape."""
    x, target = shape_of(data(node)), extents.held(call, node, "shape")
    if target is None:
        raise Declined("the target is not known")
    rank = max(len(x), len(target))
    pair = zip((1,) * (rank - len(x)) + x, (1,) * (rank - len(target)) + target, strict=True)
    return [tuple(broadcast(dims) for dims in pair)]


def tile_shape(call: Call, node: Node, extents: Extents) -> Shapes:
    """Each extent times a constant."""
    x, repeats = shape_of(data(node)), ints(call, node, "repeats") or ()
    require(len(repeats) == len(x), f"{len(repeats)} repeats for {len(x)} axes")
    return [tuple(affine(n, factor=r) for n, r in zip(x, repeats, strict=True))]


def _expanded(arrays: Arrays) -> float:
    """An element for each of the data and of the shape, at most."""
    return arrays[0].size * math.prod(abs(int(n)) for n in arrays[1].flat)


def image(call: Call, constants: Constants) -> Ints:
    """Channels and the two axes of an image."""
    return 1, 2, 3


def regrouped(call: Call, node: Node) -> Carry:
    """Axes are split, merged, put in or taken out."""
    return RESHAPE


def transposed(call: Call, node: Node) -> Carry:
    """Axes change places."""
    order = ints(call, node, "perm") or tuple(reversed(range(rank_of(data(node)))))
    return transposition(order)


def to_space(call: Call, node: Node) -> Carry:
    """Channels `[block, block, C]`, or in mode CRD `[C, block, block]`, become `[C]` and positions."""
    block = int(attribute(call, "blocksize", 1))
    last = attribute(call, "mode", "DCR") == "CRD"
    return Carry(
        onward=partial(_gathered, block=block, last=last), back=partial(_spread, block=block, last=last)
    )


def to_depth(call: Call, node: Node) -> Carry:
    """Positions become channels `[block, block, C]`."""
    block = int(attribute(call, "blocksize", 1))
    return Carry(
        onward=partial(_spread, block=block, last=False), back=partial(_gathered, block=block, last=False)
    )


def _gathered(m: Pointwise, *_: Shape, block: int, last: bool) -> Pointwise:
    """Of channels that are as many positions each, which have to have the same numbers."""
    m = _of_channels(m)
    if not m.axes:
        return m
    channels = m.scale.shape[1] // block**2
    before = (1, m.scale.shape[1], 1, 1)
    blocks = (1, channels, block**2, 1) if last else (1, block**2, channels, 1)
    split = m.reshaped(before, blocks)
    require((2 if last else 1) not in split.axes, "the scale and shift differ within a block of positions")
    return Pointwise.of(*split.on(4, 1 if last else 2, channels), 4, 1)


def _spread(m: Pointwise, *_: Shape, block: int, last: bool) -> Pointwise:
    """Of channels each of which was so many."""
    m = _of_channels(m)
    scale, shift = (
        np.repeat(values, block**2) if last else np.tile(values, block**2)
        for values in m.on(4, 1, m.scale.shape[1])
    )
    return Pointwise.of(scale, shift, 4, 1)


def _of_channels(m: Pointwise) -> Pointwise:
    require(m.rank == 4, f"{m.rank} axes, and not those of images")
    others = [axis for axis in m.axes if axis != 1]
    require(not others, f"the scale and shift differ along axis {others}, which is mixed with the channels")
    return m


_MOVES: Final = in_inputs(FIRST)


def _axes(kind: str, lift: LiftRule, shape: ShapeRule) -> Operator:
    """Axes that come, go or are regrouped; of integers that are extents too."""
    return Operator(
        kind,
        lift,
        shape,
        elements=same_elements,
        linear=_MOVES,
        literals=RIGID,
        makes=no_more,
        carries=regrouped,
    )


OPERATORS: Final = (
    _axes("Reshape", lift_reshape, reshape_shape),
    _axes("Squeeze", lift_axes, squeeze_shape),
    _axes("Unsqueeze", lift_axes, unsqueeze_shape),
    Operator("Flatten", lift_axes, flatten_shape, linear=_MOVES, literals=RIGID, carries=regrouped),
    Operator(
        "Transpose",
        lift_transpose,
        transpose_shape,
        linear=_MOVES,
        literals=RIGID,
        makes=no_more,
        carries=transposed,
    ),
    Operator("Expand", lift_same_shape, expand_shape, linear=_MOVES, makes=_expanded, repeats=True),
    Operator("Tile", lift_same_shape, tile_shape, linear=_MOVES, repeats=True),
    Operator("DepthToSpace", linear=_MOVES, literals=image, carries=to_space),
    Operator("SpaceToDepth", linear=_MOVES, literals=image, carries=to_depth),
)

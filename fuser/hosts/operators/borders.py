"""More positions, or fewer: what is put around an image, and images of another size."""

import math
from typing import Final

import numpy as np

from fuser.algebra.conv import Ints, pad
from fuser.errors import Declined, require
from fuser.hosts.operators.call import (
    Call,
    Held,
    attribute,
    channels_of,
    constant,
    data,
    dtype,
    ints,
    nothing,
    number,
    rank_of,
)
from fuser.hosts.operators.extents import Extents, Shape, Shapes, shape_of
from fuser.hosts.operators.operator import FIRST, Constants, Operator, held_ints, in_inputs
from fuser.ir.carry import Carry, apart_from
from fuser.ir.constant import FLOATS
from fuser.ir.extents import Dim, affine
from fuser.ir.node import Apply, Node


def lift_pad(call: Call, node: Node) -> Apply | None:
    """Pad of spatial axes with a constant  ->  a delta kernel that reads outside; negative pads crop."""
    x = data(node)
    rank = rank_of(x)
    begin, end = _pads(call, node, rank)
    if not any(begin + end):
        return nothing(x)
    if dtype(node) not in FLOATS:
        return None
    mode = attribute(call, "mode", "constant")
    require(mode == "constant", f"mode is {mode!r}, not 'constant'")
    require(rank >= 3, f"{x.name!r} has {rank} axes, and none of them is spatial")
    require(not any(begin[:2] + end[:2]), f"pads the batch or channel axis: {begin + end}")
    channels = channels_of(x)
    for axis, n in enumerate((x.shape or ())[2:], start=2):
        crop = min(begin[axis], 0) + min(end[axis], 0)
        require(not isinstance(n, int) or n + crop >= 0, f"crops {-crop} of {n} positions on axis {axis}")
    value = number(call, node, "value", 0.0)
    return Apply(pad(channels, begin[2:], end[2:], value), (x,), "pad")


def _pads(call: Call, node: Node, rank: int) -> tuple[Ints, Ints]:
    """The pads at the begin of every axis, and at the end of every axis.

    Raises:
        Declined: they are absent, computed, or do not fit.
    """
    given, axes = ints(call, node, "pads"), ints(call, node, "axes")
    if given is None:
        raise Declined("pads are absent")
    axes = tuple(range(rank)) if axes is None else axes
    require(len(given) == 2 * len(axes), f"{len(given)} pads for {len(axes)} axes")
    require(all(-rank <= axis < rank for axis in axes), f"the axes {axes} are not among {rank}")
    begin, end = [0] * rank, [0] * rank
    for axis, before, behind in zip(axes, given, given[len(axes) :], strict=False):
        begin[axis], end[axis] = before, behind
    return tuple(begin), tuple(end)


def pad_shape(call: Call, node: Node, extents: Extents) -> Shapes:
    """Extents enlarged by constants."""
    x = shape_of(data(node))
    begin, end = _pads(call, node, len(x))
    return [tuple(affine(n, before + behind) for n, before, behind in zip(x, begin, end, strict=True))]


def padded_axes(call: Call, constants: Constants) -> Ints | None:
    """The axes that are padded or cropped."""
    pads = held_ints(call, constants, "pads", None)
    if pads is None:
        return None
    half = len(pads) // 2
    axes = held_ints(call, constants, "axes", tuple(range(half)))
    if axes is None:
        return None
    return tuple(a for a, b, e in zip(axes, pads[:half], pads[half:], strict=True) if b or e)


def resize_shape(call: Call, node: Node, extents: Extents) -> Shapes:
    """Scales that are known, or sizes."""
    x = shape_of(data(node))
    plain = attribute(call, "keep_aspect_ratio_policy", "stretch") == "stretch"
    require(plain and attribute(call, "axes") is None, "a rare form")
    if "sizes" in call.attributes:
        return [extents.held(call, node, "sizes")]
    listed = attribute(call, "scales")
    if isinstance(listed, Held):
        listed = np.asarray(constant(call, node, listed.index, "scales").array()).tolist()
    if not listed:
        raise Declined("neither scales nor sizes")
    return [tuple(_scaled(n, float(scale)) for n, scale in zip(x, listed, strict=True))]


def _scaled(n: Dim, scale: float) -> Dim:
    require(math.isfinite(scale), f"an extent is scaled by {scale}")
    if isinstance(n, int):
        return int(np.floor(n * scale))
    return affine(n, factor=int(scale)) if scale == int(scale) else None


def _resized(read: Shape, made: Shape) -> Ints:
    """The axes whose extent changes, or may."""
    pairs = enumerate(zip(read, made, strict=True))
    return tuple(axis for axis, (n, m) in pairs if n != m or not isinstance(n, int))


def resized(call: Call, node: Node) -> Carry:
    """Any of the channels: the weights of each position sum to one."""
    mode = attribute(call, "coordinate_transformation_mode", "half_pixel")
    require(mode != "tf_crop_and_resize", "what lies outside of a crop has a value of its own")
    move = apart_from(_resized, "resized")
    return Carry(move, move, alike=True)


def padded(call: Call, node: Node) -> Carry:
    """Any along axes that are not padded, where padding repeats what is there; a scale where it is zero."""
    mode = attribute(call, "mode", "constant")
    begin, end = _pads(call, node, rank_of(data(node)))
    axes = tuple(axis for axis, pads in enumerate(zip(begin, end, strict=True)) if any(pads))
    move = apart_from(lambda *_: axes, "padded")
    if mode == "constant":
        require(number(call, node, "value", 0.0) == 0, "it is padded with a value that is not zero")
    return Carry(move, move, shifts=mode != "constant")


OPERATORS: Final = (
    Operator("Pad", lift_pad, pad_shape, linear=in_inputs(FIRST), literals=padded_axes, carries=padded),
    Operator("Resize", shape=resize_shape, carries=resized),
    Operator("Upsample", shape=resize_shape, carries=resized),
)

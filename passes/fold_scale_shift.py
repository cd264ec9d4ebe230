"""Constant factors and offsets join a neighbouring convolution: the law of fold_batch_norm.

Where only the shift stands in the way, s * x + t = s * (x + t / s) lets the scale go forward alone.
"""

from collections.abc import Iterator

import numpy as np

from fuser.algebra import laws
from fuser.algebra.conv import Conv, scale_shift
from fuser.errors import Declined, require
from fuser.ir.node import Apply, Node
from fuser.ir.ops import Sum
from fuser.rewrite.pattern import FOLD, Candidate, describe_fully, rewrite
from passes._branch import Branch, readers, unary
from passes._fold import both_ways


@rewrite(Conv, Sum, stage=FOLD)
def fold_scale_shift(node: Node) -> Iterator[Candidate]:
    """s * conv(x) + t  ->  conv'(x), and conv(s * x + t)  ->  conv'(x) or conv'(x + t / s).

    Mul, Div, Add and Sub by a constant on either side, of any shape that broadcasts per channel.

    Given:
        x: float32 [1, 4, 8, 8]
        a = scale (x)
        b = 3x3 conv, 4 -> 8, pads (1, 1, 1, 1) (a)
        y = 2 b + 0.5
        return y
    Result:
        x: float32 [1, 4, 8, 8]
        y = 3x3 conv, 4 -> 8, pads (1, 1, 1, 1), bias (x)
        return y

    Given:
        x: float32 [1, 4, 8, 8]
        a = 0.5 x
        b = a + 2
        y = 3x3 conv, 4 -> 8, pads (1, 1, 1, 1) (b)
        return y
    Result:
        x: float32 [1, 4, 8, 8]
        y_0 = x + 4
        y = 3x3 conv, 4 -> 8, pads (1, 1, 1, 1) (y_0)
        return y

    Declined:
        x: float32 [1, 4, 8, 8]
        a = scale (x)
        y = Relu (a)
        return y
        # y (Relu) reads it and is no convolution
    """
    if unary(node) or (isinstance(node.op, Conv) and node.op.pointwise and node.label != "batch_norm"):
        try:
            yield from both_ways(node)
        except Declined:
            yield from scale_forward(node)
            raise


def scale_forward(node: Node) -> Iterator[Candidate]:
    """conv(s * x + t)  ->  conv'(x + t / s): the scale passes any border, the shift stays behind."""
    value, source = node.outputs[0], node.inputs[0]
    assert source is not None
    assert isinstance(node.op, Conv | Sum)
    for user in readers(value):
        require(isinstance(user.op, Conv), f"{describe_fully(user)} reads it and is no convolution")
    # Mul and Add are often two nodes: only with what is upstream does the scale come into sight.
    for branch in Branch(node.op, source).upstream():
        if len(value.users) == 1 and (isinstance(branch.op, Sum) or branch.op.pointwise):
            (user,) = value.users
            assert isinstance(user.op, Conv)
            yield {user.outputs[0]: split(branch, user.op)}


def split(branch: Branch, reader: Conv) -> Apply:
    """reader(s * x + t)  ->  reader'(x + t / s)."""
    scale, shift = parts(branch.op, reader)
    require(bool(np.all(scale != 0)), "a scale of 0 has no inverse")
    require(bool(shift.any()), "there is no shift to split off")
    outer = laws.compose(reader, scale_shift(scale, np.zeros_like(scale), reader.rank, reader.axis))
    kept = Apply(rest(branch.op, scale, shift, reader), (branch.source,), label="scale_shift")
    return Apply(outer, (kept,))


def parts(op: object, reader: Conv) -> tuple[np.ndarray, np.ndarray]:
    """Scale and shift per channel of the input of `reader`."""
    if isinstance(op, Conv):
        return op.weight.reshape(-1), op.bias
    assert isinstance(op, Sum)
    return np.full(reader.inputs, op.coefficients[0]), np.full(reader.inputs, op.offset)


def rest(op: object, scale: np.ndarray, shift: np.ndarray, reader: Conv) -> Conv | Sum:
    """x + t / s, as a scalar where it was one."""
    if isinstance(op, Sum):
        return Sum((1.0,), op.offset / op.coefficients[0])
    return scale_shift(np.ones_like(scale), shift / scale, reader.rank, reader.axis)

"""Constant factors and offsets, per channel or scalar, join a neighbouring convolution: the law of fold_batch_norm.

Where only the shift stands in the way, s * x + t = s * (x + t / s) lets the scale go forward alone.
"""

from collections.abc import Iterator

import numpy as np

from fuser import algebra
from fuser.conv import Conv, scale_shift
from fuser.errors import Declined, require
from fuser.ir import Apply, Node, Sum, Value
from fuser.rewrite import FOLD, Candidate, describe, rewrite
from passes._branch import unary
from passes._fold import both_ways


@rewrite(Conv, Sum, stage=FOLD)
def fold_scale_shift(node: Node) -> Iterator[Candidate]:
    """s * conv(x) + t  ->  conv'(x), and conv(s * x + t)  ->  conv'(x) or conv'(x + t / s).

    Mul, Div, Add and Sub by a constant on either side, of any shape that broadcasts per channel.
    """
    if unary(node) or (isinstance(node.op, Conv) and node.op.pointwise and node.label != "batch_norm"):
        try:
            yield from both_ways(node)
        except Declined:
            yield from scale_forward(node)
            raise


def scale_forward(node: Node) -> Iterator[Candidate]:
    """conv(s * x + t)  ->  conv'(x + t / s): the scale passes any border, the shift stays behind."""
    targets: dict[Value, Apply] = {}
    source = node.inputs[0]
    assert source is not None
    for user in node.outputs[0].users:
        require(isinstance(user.op, Conv), f"{describe(user)} ({user.op}) reads it and is no convolution")
        assert isinstance(user.op, Conv)
        scale, shift = parts(node.op, user.op)
        require(bool(np.all(scale != 0)), "a scale of 0 has no inverse")
        require(bool(shift.any()), "there is no shift to split off")
        outer = algebra.compose(user.op, scale_shift(scale, np.zeros_like(scale), user.op.rank, user.op.axis))
        kept = Apply(rest(node.op, scale, shift, user.op), (source,), label="scale_shift")
        targets[user.outputs[0]] = Apply(outer, (kept,))
    if len(targets) == 1:
        yield targets


def parts(op: object, reader: Conv) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    """Scale and shift per channel of the input of `reader`."""
    if isinstance(op, Conv):
        return op.weight.reshape(-1), op.bias
    assert isinstance(op, Sum)
    return np.full(reader.inputs, op.coefficients[0]), np.full(reader.inputs, op.offset)


def rest(op: object, scale: np.ndarray, shift: np.ndarray, reader: Conv) -> Conv | Sum:  # type: ignore[type-arg]
    """x + t / s, as a scalar where it was one."""
    if isinstance(op, Sum):
        return Sum((1.0,), op.offset / op.coefficients[0])
    return scale_shift(np.ones_like(scale), shift / scale, reader.rank, reader.axis)

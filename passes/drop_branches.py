"""A branch of a sum whose kernel is zero is its bias: k*x + (0*y + b) = k*x + b.

A residual block whose last BatchNorm has a scale of zero (Goyal et al., "Accurate, Large Minibatch SGD",
2017), and what pruning leaves behind.
"""

from collections.abc import Iterator

import numpy as np

from fuser.algebra.conv import Conv, scale_shift
from fuser.algebra.narrowing import zero_rows
from fuser.errors import require
from fuser.ir.node import Apply, Node, Value
from fuser.ir.ops import Sum
from fuser.rewrite.pattern import NARROW, Candidate, rewrite


@rewrite(Sum, stage=NARROW)
def drop_branches(node: Node) -> Iterator[Candidate]:
    """a * x + c * conv(y, 0)  ->  a * x + c * b, b being the bias of the convolution.

    Given:
        x: float32 [1, 4, 8, 8]
        a = Relu (x)
        b = 3x3 conv, 4 -> 4, pads (1, 1, 1, 1), bias, zero (a)
        y = x + b
        return y
    Result:
        x: float32 [1, 4, 8, 8]
        y = shift (x)
        return y

    Declined:
        x: float32 [1, 4, 8, 8]
        a = 3x3 conv, 4 -> 4, pads (1, 1, 1, 1), bias, zero (x)
        b = 1x1 conv, 4 -> 4, zero (x)
        y = a + b
        return y
        # all 2 branches are constant
    """
    assert isinstance(node.op, Sum)
    terms = list(zip(node.op.coefficients, node.inputs, strict=True))
    found = {
        value: conv for _, value in terms if value is not None and (conv := dead_conv(value)) is not None
    }
    if not found:
        return
    like = next(iter(found.values()))
    # Each position has the same bias along one axis: what is along another is a branch of its own.
    dead = {value: conv for value, conv in found.items() if (conv.axis, conv.rank) == (like.axis, like.rank)}
    rest = [(c, value) for c, value in terms if value is not None and value not in dead]
    require(bool(rest), f"all {len(terms)} branches are constant")
    shift = sum((c * dead[value].bias for c, value in terms if value in dead), start=np.zeros(like.outputs))
    kept: Value | Apply = rest[0][1]
    if rest[0][0] != 1.0 or len(rest) > 1:
        kept = Apply(Sum(tuple(c for c, _ in rest)), tuple(value for _, value in rest))
    shift = shift + node.op.offset
    if shift.any():
        yield Apply(scale_shift(np.ones(like.outputs), shift, like.rank, like.axis), (kept,), "scale_shift")
    else:
        yield kept


def dead_conv(value: Value) -> Conv | None:
    """The convolution that makes the value, if its kernel is zero."""
    maker = value.producer
    if maker is None or not isinstance(maker.op, Conv):
        return None
    return maker.op if zero_rows(maker.op).all() else None

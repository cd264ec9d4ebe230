"""A scale and a shift pass a reshape: R (s * x + t) = (R s) * (R x) + R t.

The BatchNorm before the flattened embedding of face recognition (Deng et al., "ArcFace", CVPR 2019).
"""

from collections.abc import Iterator
from math import lcm, prod

import numpy as np

from fuser.algebra import laws
from fuser.algebra.conv import Conv, Ints, scale_shift
from fuser.algebra.lazy import Array
from fuser.errors import require
from fuser.ir.node import Apply, Node
from fuser.ir.ops import Reshape, Sum
from fuser.rewrite.pattern import FOLD, Candidate, rewrite
from passes._branch import affine, scalar
from passes._reshape import read_by, sample


@rewrite(Conv, stage=FOLD)
def fold_through_reshape(node: Node) -> Iterator[Candidate]:
    """conv(reshape(s * x + t))  ->  conv'(reshape(x)), for convolutions and linear layers.

    Given:
        x: float32 [2, 3, 4, 5]
        a = batch_norm (x)
        b = reshape to (-1, 60) (a)
        y = linear, 60 -> 7 (b)
        return y
    Result:
        x: float32 [2, 3, 4, 5]
        y_0 = reshape to (-1, 60) (x)
        y = linear, 60 -> 7, bias (y_0)
        return y

    Declined:
        x: float32 [2, 4, 4, 5]
        a = batch_norm (x)
        b = reshape to (-1, 2, 40) (a)
        y = 1 conv, 2 -> 7 (b)
        return y
        # the scale and shift of (4, 4, 5) differ within the channels of (2, 40)
    """
    conv, reshape = node.op, read_by(node).producer
    assert isinstance(conv, Conv)
    if reshape is None or not isinstance(reshape.op, Reshape):
        return
    value = read_by(reshape)
    maker = value.producer
    if maker is None or not affine(maker) or (isinstance(maker.op, Conv) and not maker.op.pointwise):
        return
    if isinstance(maker.op, Conv):
        inner = reshaped(maker.op, sample(value), reshape.op.shape, conv)
    else:
        assert isinstance(maker.op, Sum)
        inner = scalar(maker.op, conv.inputs, conv.rank, conv.axis)
    yield Apply(laws.compose(conv, inner), (Apply(reshape.op, (read_by(maker),)),))


def reshaped(norm: Conv, before: Ints, after: Ints, reader: Conv) -> Conv:
    """A scale and shift of samples of shape `before` as one of the channels that `reader` sees.

    Raises:
        Declined: elements that share a channel there do not share a scale and a shift.
    """
    scale, shift = (
        regrouped(values, norm.axis, before, reader.axis, after)
        for values in (norm.weight.reshape(-1), norm.bias)
    )
    return scale_shift(scale, shift, reader.rank, reader.axis)


def regrouped(values: Array, axis: int, before: Ints, behind: int, after: Ints) -> Array:
    """A value for each channel on `axis` of `before`, for each channel on axis `behind` of `after`."""
    column = values.reshape(-1, *(1,) * (len(before) - 1)) if axis == 1 else values
    row = np.broadcast_to(column, before).reshape(-1)
    count = lcm(row.size, prod(after)) // row.size
    seen = np.moveaxis(np.tile(row, count).reshape(-1, *after), behind, 0)
    seen = seen.reshape(len(seen), -1)
    require(
        bool((seen == seen[:, :1]).all()),
        f"the scale and shift of {before} differ within the channels of {after}",
    )
    return np.asarray(seen[:, 0])

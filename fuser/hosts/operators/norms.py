"""What is normalised: by numbers of each channel, or by statistics of the data itself."""

from typing import Final

import numpy as np

from fuser.algebra.conv import Conv, scale_shift
from fuser.algebra.lazy import Array
from fuser.errors import Declined, require
from fuser.hosts.operators.call import (
    Call,
    attribute,
    data,
    number,
    numbers,
    operand,
    rank_of,
    require_channels,
)
from fuser.hosts.operators.extents import first_alone, like_first
from fuser.hosts.operators.operator import Operator, first_type_alone
from fuser.ir.literals import UNIFORM
from fuser.ir.node import Apply, Node


def lift_batch_normalization(call: Call, node: Node) -> Apply:
    """(x - mean) / sqrt(var + eps) * scale + shift  ->  a scale and a shift of each channel."""
    x = data(node)
    require(
        not attribute(call, "training_mode", 0), "training_mode is 1: the statistics are those of the batch"
    )
    require(
        attribute(call, "spatial", 1) == 1, "spatial is 0: the statistics differ from position to position"
    )
    # The standard has both of these; torch may have neither.
    scale, shift = (
        numbers(call, node, index, role) if operand(node, index) is not None else None
        for index, role in ((1, "scale"), (2, "shift"))
    )
    mean, variance = (numbers(call, node, index, role) for index, role in ((3, "mean"), (4, "variance")))
    scale = np.ones_like(mean) if scale is None else scale
    shift = np.zeros_like(mean) if shift is None else shift
    epsilon = number(call, node, "epsilon", 1e-5)
    rank = rank_of(x)
    require(rank >= 2, f"{x.name!r} has {rank} axis, and no channel axis")
    spatial, axis = (rank - 2, 1) if rank > 2 else (0, -1)
    norm = batch_norm(mean, variance, scale, shift, epsilon, spatial, axis)
    require_channels(x, norm.inputs)
    return Apply(norm, (x,), "batch_norm")


def batch_norm(
    mean: Array, variance: Array, scale: Array, shift: Array, epsilon: float, rank: int, axis: int = 1
) -> Conv:
    """(x - mean) / sqrt(variance + epsilon) * scale + shift, all `[C]`, as a depthwise operator with one tap.

    Raises:
        Declined: a variance is not positive, or not each channel has one number of each kind.
    """
    shapes = [parameter.shape for parameter in (scale, shift, mean, variance)]
    require(
        len(set(shapes)) == 1 and mean.ndim == 1,
        f"scale, shift, mean and variance have shapes {shapes}, and not one number for each channel",
    )
    spread = variance + epsilon
    if not (spread > 0).all():
        channel = int(np.flatnonzero(~(spread > 0))[0])
        raise Declined(
            f"variance + epsilon is not positive: {variance[channel]:.6g} + {epsilon:.6g} (channel {channel})"
        )
    factor = scale / np.sqrt(spread)
    return scale_shift(factor, shift - mean * factor, rank, axis)


OPERATORS: Final = (
    Operator(
        "BatchNormalization",
        lift_batch_normalization,
        first_alone,
        first_type_alone,
        literals=UNIFORM,
        floating=True,
    ),
    Operator("LayerNormalization", None, first_alone, first_type_alone),
    Operator("RMSNormalization", None, first_alone, first_type_alone),
    Operator("GroupNormalization", None, like_first),
    Operator("InstanceNormalization", None, like_first),
    Operator("LRN", None, like_first),
    Operator("LpNormalization", None, like_first),
    Operator("MeanVarianceNormalization", None, like_first),
    Operator("Softmax", None, like_first, literals=UNIFORM),
    Operator("LogSoftmax", None, like_first, literals=UNIFORM),
    Operator("Hardmax", None, like_first),
)

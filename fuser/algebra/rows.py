"""Maps of samples written out as rows: what a convolution is at one extent, and what a reshape leaves of it.

The row of a sample `[I, *n]` is its elements in order, `[I * prod(n)]`. A reshape of all axes but the first
makes rows, or images of rows.
"""

from dataclasses import replace
from math import prod

import numpy as np

from fuser.algebra.conv import Conv, Ints, scale_shift
from fuser.algebra.lazy import Array, arrange, defer
from fuser.errors import require


def as_matrix(conv: Conv, extent: Ints) -> Conv:
    """row(conv(x))  ->  matrix(row(x)) for images of one extent: a convolution without spatial axes.

    Its kernel `[O * prod(m), I/groups * prod(n)]` holds weight `[o, i, j]` at output position t and input
    position p wherever tap j of t reads p. A tap that reads padding adds its value to the bias of the row.
    The groups stay; a scale of each channel becomes one of each element.

    Raises:
        Declined: the extent has other axes, or nothing is left of it.
    """
    require(conv.axis == 1, f"the channel axis is {conv.axis}, not 1")
    require(len(extent) == conv.rank, f"an extent of {extent} for {conv.rank} spatial axes")
    result = conv.extent(extent)
    require(min(result, default=1) > 0, f"nothing is left of an extent of {extent}: {result}")
    if conv.local and prod(extent) == 1:
        return on_axes(conv, 0)
    if conv.pointwise:
        scale, shift = (_each(values, result) for values in (conv.weight.reshape(-1), conv.bias))
        return scale_shift(scale, shift, 0)
    outputs, inputs = conv.outputs * prod(result), conv.kernel.shape[1] * prod(extent)
    reads = [_reads(conv, axis, n, m) for axis, (n, m) in enumerate(zip(extent, result, strict=True))]

    def place(weight: Array) -> Array:
        for read in reads:
            weight = np.tensordot(weight, read, axes=(2, 0))
        positions = range(2, weight.ndim)
        order = (0, *positions[::2], 1, *positions[1::2])
        return weight.transpose(order).reshape(outputs, inputs)

    if conv.pad_value.any():
        bias = conv.evaluate(np.zeros((1, conv.inputs, *extent))).reshape(-1)
    else:
        bias = _each(conv.bias, result)
    return Conv(defer((outputs, inputs), place, conv.kernel), bias, groups=conv.groups)


def _each(values: Array, extent: Ints) -> Array:
    """A value for each channel, for each element of the row."""
    return np.repeat(values, prod(extent))


def _reads(conv: Conv, axis: int, extent: int, result: int) -> Array:
    """`[taps, result, extent]`, 1 where a tap of an output position reads an input position."""
    tap, out, read = np.ogrid[: conv.size[axis], :result, :extent]
    far, near = (read, out) if conv.transposed else (out, read)
    at = conv.stride[axis] * far + conv.dilation[axis] * tap - conv.begin[axis]
    return np.asarray(at == near, dtype=np.float64)


def on_axes(conv: Conv, rank: int, axis: int = 1) -> Conv:
    """The same map of channels on tensors with `rank` spatial axes, or with the channels last (`axis` -1).

    Raises:
        Declined: it does more than to map the channels of each position.
    """
    require(conv.local, f"{conv} is no map of the channels alone")
    if (conv.rank, conv.axis) == (rank, axis):
        return conv
    shape = (*conv.kernel.shape[:2], *(1,) * rank)
    kernel = arrange(shape, lambda weight: weight.reshape(shape), conv.kernel)
    return replace(conv, kernel=kernel, stride=(), dilation=(), begin=(), end=(), axis=axis)

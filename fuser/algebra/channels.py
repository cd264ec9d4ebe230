"""The laws of channels: rows and columns of a kernel side by side, taken out, or put among others.

What `algebra` says of one convolution after or beside another, for Concat and Split of their channels.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fuser.algebra.conv import Conv, Ints, regroup
from fuser.algebra.laws import add
from fuser.algebra.lazy import Array, defer
from fuser.errors import require


def stack(parts: Sequence[Conv], extent: Ints | None = None) -> Conv:
    """concat(a(x), b(x), ...)  ->  one convolution: the kernels one behind the other on the output axis.

    `extent` is the spatial extent of `x` where it is known. Groups are given up: each part reads all
    channels.

    Raises:
        Declined: stride, output extent, pad value or input channels differ.
    """
    first = parts[0]
    require(not any(part.transposed for part in parts), "transposed convolutions do not stack")
    require(
        len({part.inputs for part in parts}) == 1, f"input channels differ: {[part.inputs for part in parts]}"
    )
    total = sum(part.outputs for part in parts)
    begin = 0
    rows: list[Conv] = []
    for part in parts:
        rows.append(_place_outputs(regroup(part, 1), begin, total))
        begin += part.outputs
    # With zeros in the other rows, stacking is a sum; its conditions are those of `add`.
    merged = first
    for index, row in enumerate(rows):
        merged = row if index == 0 else add(merged, row, extent)
    return merged


def _place_outputs(conv: Conv, first: int, total: int) -> Conv:
    """The same rows as `first, first + 1, ...` of `total` rows, the others zero."""
    shape = (total, *conv.kernel.shape[1:])

    def place(weight: Array) -> Array:
        result = np.zeros(shape)
        result[first : first + conv.outputs] = weight
        return result

    bias = np.zeros(total)
    bias[first : first + conv.outputs] = conv.bias
    return replace(conv, kernel=defer(shape, place, conv.kernel), bias=bias)


def block_diagonal(parts: Sequence[Conv]) -> Conv:
    """concat(a(x[:i]), b(x[i:]), ...)  ->  one grouped convolution: the parts' groups side by side.

    Raises:
        Declined: the parts differ in anything but their numbers.
    """
    first = parts[0]
    for part in parts[1:]:
        same = part.geometry[2:] == first.geometry[2:] and part.kernel.shape[1:] == first.kernel.shape[1:]
        rows = part.outputs // part.groups, first.outputs // first.groups
        require(same and rows[0] == rows[1], f"the parts differ: {first} and {part}")
    shape = (sum(part.outputs for part in parts), *first.kernel.shape[1:])
    return replace(
        first,
        kernel=defer(shape, lambda *weights: np.concatenate(weights), *(part.kernel for part in parts)),
        bias=np.concatenate([part.bias for part in parts]),
        groups=sum(part.groups for part in parts),
        pad_value=np.concatenate([part.pad_value for part in parts]),
    )


def select(conv: Conv, first: int, size: int) -> Conv:
    """conv(x)[first : first + size]  ->  a smaller convolution: these rows of the kernel, groups given up."""
    dense = regroup(conv, 1)
    rows = slice(first, first + size)
    shape = (size, *dense.kernel.shape[1:])
    return replace(
        dense, kernel=defer(shape, lambda weight: weight[rows], dense.kernel), bias=dense.bias[rows]
    )


def take(conv: Conv, first: int, size: int) -> Conv:
    """conv(concat(0, x, 0)) - conv(0)  ->  the part of `conv` that reads the `size` channels x alone.

    conv(concat(a, b)) is the sum of such parts and the bias. Groups are given up.
    """
    dense = regroup(conv, 1)
    columns = slice(first, first + size)
    shape = (conv.outputs, size, *conv.size)
    return replace(
        dense,
        kernel=defer(shape, lambda weight: weight[:, columns], dense.kernel),
        bias=np.zeros(conv.outputs),
        pad_value=dense.pad_value[columns],
    )


def widen(conv: Conv, first: int, channels: int) -> Conv:
    """conv(x[first : first + I])  ->  a convolution of all `channels` of x: zero columns for the rest.

    Raises:
        Declined: the pad value is not zero, which the other channels would have to share.
    """
    require(not conv.pad_value.any(), f"the pad value is not zero: {float(np.abs(conv.pad_value).max()):.6g}")
    dense = regroup(conv, 1)
    shape = (conv.outputs, channels, *conv.size)

    def place(weight: Array) -> Array:
        result = np.zeros(shape)
        result[:, first : first + conv.inputs] = weight
        return result

    return replace(dense, kernel=defer(shape, place, dense.kernel), pad_value=np.zeros(channels))

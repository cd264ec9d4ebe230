"""The laws of weight values: what a kernel's zeros, constants and rank prove unnecessary.

Each function states its equation and is exact. Only values that are zero count as zero, never values close to it.
Most kernels have nothing to spare, so every question looks at a few elements first, in the dtype in which they lie
there; one that is not zero settles most of them.
"""

from dataclasses import replace
from math import gcd
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fuser.conv import Conv, diagonal, regroup
from fuser.errors import require
from fuser.lazy import Array, arrange


def narrow(conv: Conv) -> Conv:
    """The same map without the taps at the rim that are zero for all channels, and with a larger step between
    the taps where all others are zero. Pads follow; they do not become negative.

    A 3x3 kernel with pads of 1 that has only a centre is a 1x1 without pads; a 5x5 that is zero at every other
    row and column is a 3x3 with dilation 2. Returns `conv` itself where there is nothing to trim.

    Raises:
        Declined: there is, but the pads are too small to follow.
    """
    weight = conv.kernel.peek()
    kept = [_kept(conv, weight, axis) for axis in range(conv.rank)]
    if all(taps == range(size) for taps, size in zip(kept, conv.size, strict=True)):
        for axis in range(conv.rank):
            _require_no_rim(conv, weight, axis)
        return conv
    index = (slice(None), slice(None), *(slice(taps[0], taps[-1] + 1, taps.step) for taps in kept))
    shape = (*conv.kernel.shape[:2], *map(len, kept))
    axes = list(zip(kept, conv.begin, conv.end, conv.dilation, conv.size, strict=True))
    return replace(
        conv,
        kernel=arrange(shape, lambda values: values[index], conv.kernel),
        dilation=tuple(step * taps.step for taps, _, _, step, _ in axes),
        begin=tuple(begin - step * taps[0] for taps, begin, _, step, _ in axes),
        end=tuple(end - step * (size - 1 - taps[-1]) for taps, _, end, step, size in axes),
    )


def _kept(conv: Conv, weight: NDArray[Any], axis: int) -> range:
    """The taps along one axis that must stay, as far as the pads allow others to go."""
    step, size = conv.dilation[axis], conv.size[axis]
    low, high = 0, size - 1
    while low < high and (low + 1) * step <= conv.begin[axis] and _is_zero(weight, axis, low):
        low += 1
    while low < high and (size - high) * step <= conv.end[axis] and _is_zero(weight, axis, high):
        high -= 1
    length = high - low
    # No multiple of a step lies next to the first tap, so that one decides most cases.
    if length < 2 or not _is_zero(weight, axis, low + 1):
        return range(low, high + 1)
    used = [tap for tap in range(length + 1) if not _is_zero(weight, axis, low + tap)]
    widest = gcd(length, *used)
    return range(low, high + 1, widest)


def _require_no_rim(conv: Conv, weight: NDArray[Any], axis: int) -> None:
    """Decline, with the reason, where a rim is zero and stays."""
    if conv.size[axis] > 1:
        for side, tap, pad in (("begin", 0, conv.begin[axis]), ("end", -1, conv.end[axis])):
            require(
                not _is_zero(weight, axis, tap),
                f"the taps at the {side} of axis {axis} are zero, but without them the pad of {pad} would be "
                f"{pad - conv.dilation[axis]}",
            )


def _is_zero(weight: NDArray[Any], axis: int, tap: int) -> bool:
    """Whether all weights at one position along a spatial axis are zero."""
    plane = weight[(slice(None),) * (2 + axis) + (tap,)]
    return _zero(plane[(0,) * plane.ndim]) and _zero(plane)


def _zero(values: NDArray[Any]) -> bool:
    return not np.any(values != 0)


def block_groups(conv: Conv) -> int:
    """The largest number of groups in which everything outside the blocks of the diagonal is zero."""
    weight = conv.kernel.peek()
    common = gcd(conv.inputs, conv.outputs)
    # The first output and the last input of a group are not in one block of any finer grouping.
    if common == conv.groups or not _zero(weight[0, -1]):
        return conv.groups
    outputs, inputs = np.nonzero((weight != 0).any(axis=tuple(range(2, weight.ndim))))
    inputs = inputs + outputs // (conv.outputs // conv.groups) * weight.shape[1]
    for groups in range(common, conv.groups, -1):
        if common % groups == 0:
            blocks = outputs * groups // conv.outputs, inputs * groups // conv.inputs
            if np.array_equal(*blocks):
                return groups
    return conv.groups


def split_groups(conv: Conv, groups: int) -> Conv:
    """The same map in `groups` groups: the blocks of the diagonal, all else being zero.

    Raises:
        Declined: a weight outside the blocks is not zero, or the channels do not divide.
    """
    require(
        conv.inputs % groups == conv.outputs % groups == 0,
        f"{conv.inputs} -> {conv.outputs} channels do not divide into {groups} groups",
    )
    coarse = regroup(conv, gcd(groups, conv.groups))
    shape = (conv.outputs, conv.inputs // groups, *conv.size)

    def blocks(values: NDArray[Any]) -> NDArray[Any]:
        return diagonal(values, coarse.groups, groups).reshape(shape)

    values = coarse.kernel.peek()
    outside = np.count_nonzero(values) - np.count_nonzero(blocks(values))
    require(outside == 0, f"{outside} weights outside of {groups} groups are not zero")
    return replace(conv, kernel=arrange(shape, blocks, coarse.kernel), groups=groups)


def zero_rows(conv: Conv) -> NDArray[np.bool_]:
    """Which output channels `[O]` read nothing: each is its bias."""
    weight = conv.kernel.peek()
    zero: NDArray[np.bool_] = np.asarray(weight[(slice(None),) + (0,) * (weight.ndim - 1)] == 0)
    candidates = np.flatnonzero(zero)
    if candidates.size:
        zero[candidates] = ~(weight[candidates] != 0).any(axis=tuple(range(1, weight.ndim)))
    return zero


def zero_columns(conv: Conv) -> NDArray[np.bool_]:
    """Which input channels `[I]` nothing reads."""
    weight = conv.kernel.peek()
    rows, channels = conv.outputs // conv.groups, weight.shape[1]
    zero: NDArray[np.bool_] = np.asarray(weight[(slice(None, None, rows), slice(None), *(0,) * conv.rank)] == 0)
    for group, channel in np.argwhere(zero):
        zero[group, channel] = _zero(weight[group * rows : (group + 1) * rows, channel])
    return zero.reshape(conv.groups * channels)


def take_outputs(conv: Conv, channels: NDArray[np.intp]) -> Conv:
    """conv(x)[channels], in their order. A depthwise operator then reads these channels of `x` alone.

    Raises:
        Declined: the operator is grouped and not depthwise.
    """
    depthwise = conv.depthwise and conv.groups > 1
    require(depthwise or conv.groups == 1, f"{conv.groups} groups do not lose channels one by one")
    shape = (len(channels), *conv.kernel.shape[1:])
    return replace(
        conv,
        kernel=arrange(shape, lambda values: values[channels], conv.kernel),
        bias=conv.bias[channels],
        groups=len(channels) if depthwise else 1,
        pad_value=conv.pad_value[channels] if depthwise else conv.pad_value,
    )


def fix_inputs(conv: Conv, constants: Array) -> Conv:
    """conv(x), x being `constants [I]` in some channels, everywhere  ->  conv'(the other channels of x).

    `constants` is NaN for the channels that stay. What the constant ones contribute joins the bias.

    Raises:
        Declined: a constant channel has another value at the border.
    """
    fixed = ~np.isnan(constants)
    require(conv.groups == 1, f"{conv.groups} groups do not lose channels one by one")
    require(not fixed.all(), f"all {conv.inputs} channels are constant")
    values = np.where(fixed, constants, 0.0)
    if conv.reads_outside:
        require_border(conv, values, fixed)
    require(
        not conv.transposed or not values.any(),
        "a shift does not pass through a transposed convolution",
    )
    channels = np.flatnonzero(~fixed)
    shape = (conv.outputs, len(channels), *conv.size)
    return replace(
        conv,
        kernel=arrange(shape, lambda values: values[:, channels], conv.kernel),
        bias=conv.bias + conv.respond(values),
        pad_value=conv.pad_value[channels],
    )


def require_border(conv: Conv, constants: Array, fixed: NDArray[np.bool_]) -> None:
    """Decline where a constant input channel continues past the border with another value."""
    wrong = np.flatnonzero(fixed & (constants != conv.pad_value))
    if wrong.size:
        at = int(wrong[0])
        require(
            False,
            f"the border differs: channel {at} is constantly {constants[at]:.6g}, and is padded with "
            f"{conv.pad_value[at]:.6g}",
        )

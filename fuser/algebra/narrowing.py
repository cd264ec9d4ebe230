"""The laws of weight values: what a kernel's zeros, constants and rank prove unnecessary.

Each function states its equation and is exact. Only values that are zero count as zero, never values close
to it. Most kernels have nothing to spare, and a large model has many: so all questions begin with one glimpse
of a few elements, in the dtype in which they lie there. One that is not zero settles most of them.
"""

from dataclasses import dataclass, replace
from math import gcd
from typing import Any, Final
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from fuser.algebra.conv import Conv, diagonal, regroup
from fuser.algebra.lazy import Array, Lazy, arrange
from fuser.errors import require

# Larger ranks are not looked for: to rule them out would take longer than the rest of the compiler does.
LARGEST_RANK: Final = 32

RANDOM: Final = np.random.default_rng(0).standard_normal(LARGEST_RANK + 1)

# A sample is singular if it enlarges a random vector this much more than its inverse should; a full one of
# this size stays far below, one that is low rank up to the rounding of float32 far above.
SINGULAR: Final = 1e5


@dataclass(frozen=True)
class Glimpse:
    """What a few elements of a kernel tell: which of its parts may be zero, and a least rank.

    The rank is that of the kernel as a matrix with the taps on whichever side.
    """

    taps: bool
    rows: bool
    columns: bool
    blocks: bool
    rank: int


_GLIMPSES: Final[WeakKeyDictionary[Lazy, tuple[int, Glimpse]]] = WeakKeyDictionary()


def glimpse(conv: Conv) -> Glimpse:
    """A look at the first elements along each axis; once for each kernel, for it may lie in a file."""
    known = _GLIMPSES.get(conv.kernel)
    if known is not None and known[0] == conv.groups:
        return known[1]
    weight = conv.kernel.peek()
    first = weight[0, 0]
    edges = [(0,) * axis + (tap,) for axis, n in enumerate(conv.size) if n > 1 for tap in (0, 1, n - 1)]
    found = Glimpse(
        taps=any(first[edge + (0,) * (conv.rank - len(edge))] == 0 for edge in edges),
        rows=bool((weight[_heads(conv, slice(None), 0)] == 0).any()),
        columns=bool((weight[_heads(conv, slice(None, None, _rows(conv)), slice(None))] == 0).any()),
        blocks=gcd(conv.inputs, conv.outputs) > conv.groups and _zero(weight[0, -1]),
        rank=_least_rank(weight) if conv.groups == 1 else 0,
    )
    _GLIMPSES[conv.kernel] = conv.groups, found
    return found


def _least_rank(weight: NDArray[Any]) -> int:
    """The size of a corner of the centre tap if its rows are independent, else 0."""
    size = min(*weight.shape[:2], LARGEST_RANK + 1)
    sample = weight[(slice(size), slice(size), *(n // 2 for n in weight.shape[2:]))]
    return 0 if is_singular(np.asarray(sample, dtype=np.float64)) else size


def is_singular(sample: Array) -> bool:
    """Whether a square matrix has dependent rows, up to the rounding of float32."""
    image = RANDOM[: len(sample)]
    try:
        found = np.linalg.solve(sample, image)
    except np.linalg.LinAlgError:
        return True
    grown = float(np.linalg.norm(found) * np.linalg.norm(sample))
    return not grown < SINGULAR * float(np.linalg.norm(image))


def _rows(conv: Conv) -> int:
    """Output channels in a group."""
    return conv.outputs // conv.groups


def _heads(conv: Conv, rows: slice, columns: slice | int) -> Any:
    """The index of the first tap of some outputs and inputs."""
    return (rows, columns, *(0,) * conv.rank)


def narrow(conv: Conv) -> Conv:
    """conv(x) without the taps that are zero for all channels: at the rim, and regularly between the others.

    Pads follow; they do not become negative.
    A 3x3 kernel with pads of 1 that has only a centre is a 1x1 without pads; a 5x5 that is zero at every
    other row and column is a 3x3 with dilation 2. Returns `conv` itself where there is nothing to trim.

    Raises:
        Declined: there is, but the pads are too small to follow.
    """
    if not glimpse(conv).taps:
        return conv
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
    # The first output and the last input of a group are not in one block of any finer grouping.
    if not glimpse(conv).blocks:
        return conv.groups
    weight, common = conv.kernel.peek(), gcd(conv.inputs, conv.outputs)
    outputs, inputs = np.nonzero((weight != 0).any(axis=tuple(range(2, weight.ndim))))
    inputs = inputs + outputs // _rows(conv) * weight.shape[1]
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
    if not glimpse(conv).rows:
        return np.zeros(conv.outputs, dtype=bool)
    weight = conv.kernel.peek()
    zero: NDArray[np.bool_] = np.asarray(weight[_heads(conv, slice(None), 0)] == 0)
    candidates = np.flatnonzero(zero)
    zero[candidates] = ~(weight[candidates] != 0).any(axis=tuple(range(1, weight.ndim)))
    return zero


def zero_columns(conv: Conv) -> NDArray[np.bool_]:
    """Which input channels `[I]` nothing reads."""
    if not glimpse(conv).columns:
        return np.zeros(conv.inputs, dtype=bool)
    weight, rows = conv.kernel.peek(), _rows(conv)
    zero: NDArray[np.bool_] = np.asarray(weight[_heads(conv, slice(None, None, rows), slice(None))] == 0)
    for group, channel in np.argwhere(zero):
        zero[group, channel] = _zero(weight[group * rows : (group + 1) * rows, channel])
    return zero.reshape(conv.inputs)


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

"""The laws: what may be done with convolutions, exactly, and when.

Each function states its equation, checks its conditions through `require`, and returns the one `Conv` that computes the
same function, borders included. Kernels stay lazy; only a condition that depends on values looks at them. Arrays only:
nothing here knows a graph.
"""

from dataclasses import replace
from math import gcd

import numpy as np

from fuser.conv import Conv, Ints, Window, regroup, taps
from fuser.errors import require
from fuser.lazy import Array, defer


def compose(outer: Conv, inner: Conv, extent: Ints | None = None) -> Conv:
    """outer(inner(x))  ->  one convolution: strides multiply, kernels convolve.

    `extent` is the spatial extent of `x` where it is known; with it more is exact at the end border.
    With outer (k2, s2, d2, p2) on inner (k1, s1, d1, p1): stride `s1*s2`, a tap at `d1*i + s1*d2*j` for every pair of
    taps, pads `p1 + s1*p2`, bias `b2 + sum(W2) b1`, and the pad value of `inner`.

    Raises:
        Declined: channels, axes or the border do not allow it.
    """
    require(outer.axis == inner.axis, f"channel axis differs: {outer.axis} and {inner.axis}")
    require(outer.rank == inner.rank, f"spatial axes differ: {outer.rank} and {inner.rank}")
    require(outer.inputs == inner.outputs, f"channels differ: {outer.inputs} and {inner.outputs}")
    if outer.transposed or inner.transposed:
        return _compose_transposed(outer, inner)
    _require_border(outer, inner, extent)
    offsets = [s * d for s, d in zip(inner.stride, outer.dilation, strict=True)]
    windows = [
        Window(
            first=a.first + s * b.first,
            last=a.last + s * b.last,
            step=a.step if b.first == b.last else s * b.step if a.first == a.last else gcd(a.step, s * b.step),
        )
        for a, b, s in zip(inner.windows, outer.windows, inner.stride, strict=True)
    ]
    slack = [a + s * b for a, b, s in zip(inner.slack, outer.slack, inner.stride, strict=True)]
    return _product(outer, inner, windows, slack, offsets)


def _product(outer: Conv, inner: Conv, windows: list[Window], slack: list[int], offsets: list[int]) -> Conv:
    """The composed operator, its geometry given: kernels multiplied over channels, convolved over taps."""
    size = tuple((w.last - w.first) // w.step + 1 for w in windows)
    step = tuple(w.step for w in windows)
    outer_stride = tuple(offset // w.step for offset, w in zip(offsets, windows, strict=True))
    inner_stride = tuple(d // w.step if k > 1 else 1 for d, w, k in zip(inner.dilation, windows, inner.size, strict=True))
    left, right, groups, channels = _aligned(outer, inner)
    shape = (outer.outputs, channels, *size)

    def convolve(w2: Array, w1: Array) -> Array:
        result = np.zeros(shape)
        # Each tap of the outer kernel adds a copy of the inner one, shifted; a strided slice spreads it on the grid.
        for tap in taps(outer.size):
            target = tuple(
                slice(j * a, j * a + (k - 1) * b + 1, b)
                for j, a, b, k in zip(tap, outer_stride, inner_stride, inner.size, strict=True)
            )
            result[(slice(None), slice(None), *target)] += _multiply(left, right, w2[(..., *tap)], w1)
        return result

    bias = outer.bias + outer.respond(inner.bias)
    return replace(
        inner,
        kernel=defer(shape, convolve, left.kernel, right.kernel),
        bias=bias,
        groups=groups,
        stride=tuple(a * b for a, b in zip(outer.stride, inner.stride, strict=True)),
        dilation=step,
        begin=tuple(-w.first for w in windows),
        end=tuple(e + w.last for e, w in zip(slack, windows, strict=True)),
        transposed=outer.transposed or inner.transposed,
    )


def _aligned(outer: Conv, inner: Conv) -> tuple[Conv, Conv, int, int]:
    """Both operators on a grouping in which their product is block-wise; that grouping and its input channels each.

    A depthwise side scales the rows or columns of the other and keeps the other's groups; otherwise the groups meet in
    their greatest common divisor.
    """
    if inner.depthwise:
        return outer, inner, outer.groups, outer.kernel.shape[1]
    if outer.groups == outer.inputs:
        return outer, inner, inner.groups, inner.kernel.shape[1]
    groups = gcd(outer.groups, inner.groups)
    return regroup(outer, groups), regroup(inner, groups), groups, inner.inputs // groups


def _multiply(outer: Conv, inner: Conv, tap: Array, kernel: Array) -> Array:
    """One tap `[O, M/g2]` of `outer` times the whole kernel `[M, I/g1, *k1]` of `inner`: `[O, I/g, *k1]`."""
    size = kernel.shape[2:]
    if inner.depthwise:
        blocks = tap.reshape(outer.groups, -1, tap.shape[1], *(1,) * len(size))
        columns = kernel.reshape(outer.groups, 1, tap.shape[1], *size)
        return (blocks * columns).reshape(outer.outputs, tap.shape[1], *size)
    if outer.groups == outer.inputs:
        rows = kernel if outer.depthwise else np.repeat(kernel, outer.outputs // outer.inputs, axis=0)
        return rows * tap.reshape(-1, 1, *(1,) * len(size))
    left = tap.reshape(outer.groups, -1, tap.shape[1])
    right = kernel.reshape(outer.groups, tap.shape[1], -1)
    return np.matmul(left, right).reshape(outer.outputs, kernel.shape[1], *size)


def _require_border(outer: Conv, inner: Conv, extent: Ints | None) -> None:
    """Where `outer` reads outside, `inner` extended past its border must equal what `outer` puts there."""
    if not outer.reads_outside:
        return
    reached = inner.extent(extent) if extent else None
    for axis in range(outer.rank):
        reach = (inner.size[axis] - 1) * inner.dilation[axis]
        stride, begin, end = inner.stride[axis], inner.begin[axis], inner.end[axis]
        if outer.begin[axis] > 0:
            require(
                stride + begin > reach,
                f"the border mixes input and padding on axis {axis}: the outer pad is {outer.begin[axis]}, and the "
                f"inner kernel reaches {reach} past stride + pad {stride + begin}",
            )
        if outer.end[axis] > 0:
            beyond = reached is not None and extent is not None and reached[axis] * stride - begin >= extent[axis]
            require(
                end >= reach or beyond,
                f"the border mixes input and padding on axis {axis}: the outer pad is {outer.end[axis]}, and the "
                f"inner kernel reaches {reach} past its end pad {end}",
            )
    border = inner.bias + inner.respond(inner.pad_value)
    if not np.array_equal(border, outer.pad_value):
        channel = int(np.flatnonzero(border != outer.pad_value)[0])
        require(
            False,
            f"the border differs: the inner operator continues with {border[channel]:.6g}, the outer one pads with "
            f"{outer.pad_value[channel]:.6g} (channel {channel})",
        )


def _compose_transposed(outer: Conv, inner: Conv) -> Conv:
    """A per-channel scale and shift before or after a transposed convolution: scale its input or output channels."""
    if outer.pointwise:
        other = inner
    else:
        require(inner.pointwise, f"a transposed convolution composes with a per-channel scale only: {inner}")
        # A position of the output sums a number of taps that varies with the position, so a shift does not pass.
        require(not inner.bias.any(), "a shift does not pass through a transposed convolution")
        other = outer
    product = _product(outer, inner, list(other.windows), list(other.slack), list(outer.dilation))
    return replace(product, stride=other.stride, begin=other.begin, end=other.end, dilation=other.dilation)


def add(a: Conv, b: Conv, extent: Ints | None = None) -> Conv:
    """a(x) + b(x)  ->  one convolution: both kernels on the union of their windows, added.

    `extent` is the spatial extent of `x` where it is known.

    Raises:
        Declined: stride, output extent, pad value or channels differ.
    """
    require(a.axis == b.axis, f"channel axis differs: {a.axis} and {b.axis}")
    require(a.transposed == b.transposed, f"transposed differs: {a.transposed} and {b.transposed}")
    require(a.rank == b.rank, f"spatial axes differ: {a.rank} and {b.rank}")
    channels = (a.inputs, a.outputs), (b.inputs, b.outputs)
    require(channels[0] == channels[1], f"channels differ: {channels[0]} and {channels[1]}")
    require(a.stride == b.stride, f"stride differs: {a.stride} and {b.stride}")
    slack = _common_slack(a, b, extent)
    windows = tuple(u | v for u, v in zip(a.windows, b.windows, strict=True))
    groups = gcd(a.groups, b.groups)
    left, right = (embed(regroup(side, groups), windows) for side in (a, b))
    return replace(
        left,
        kernel=defer(left.kernel.shape, np.add, left.kernel, right.kernel),
        bias=a.bias + b.bias,
        begin=tuple(-w.first for w in windows),
        end=tuple(e + w.last for e, w in zip(slack, windows, strict=True)),
        pad_value=_common_pad_value(a, b),
    )


def _common_slack(a: Conv, b: Conv, extent: Ints | None) -> Ints:
    if a.slack == b.slack:
        return a.slack
    if extent is None:
        require(False, f"output extent differs: slack {a.slack} and {b.slack}")
        raise AssertionError
    require(
        a.extent(extent) == b.extent(extent),
        f"output extent differs: {a.extent(extent)} and {b.extent(extent)} for an input of {extent}",
    )
    return tuple(map(max, a.slack, b.slack))


def _common_pad_value(a: Conv, b: Conv) -> Array:
    """The value that both read outside; an operator that reads nothing outside agrees with any."""
    if not (a.reads_outside and b.reads_outside):
        return a.pad_value if a.reads_outside else b.pad_value
    if not np.array_equal(a.pad_value, b.pad_value):
        channel = int(np.flatnonzero(a.pad_value != b.pad_value)[0])
        require(
            False,
            f"pad value differs: {a.pad_value[channel]:.6g} and {b.pad_value[channel]:.6g} (channel {channel})",
        )
    return a.pad_value


def embed(conv: Conv, windows: tuple[Window, ...]) -> Conv:
    """The same kernel on larger windows, zeros at the taps that it does not have. Pads follow the caller's windows."""
    size = tuple((w.last - w.first) // w.step + 1 for w in windows)
    step = tuple(w.step for w in windows)
    target = tuple(
        slice((own.first - w.first) // w.step, (own.last - w.first) // w.step + 1, max(1, own.step // w.step))
        for own, w in zip(conv.windows, windows, strict=True)
    )
    shape = (*conv.kernel.shape[:2], *size)
    if conv.size == size and conv.dilation == step:
        return conv

    def spread(weight: Array) -> Array:
        result = np.zeros(shape)
        result[(slice(None), slice(None), *target)] = weight
        return result

    return replace(conv, kernel=defer(shape, spread, conv.kernel), dilation=step)


def scale(conv: Conv, factor: float) -> Conv:
    """factor * conv(x)  ->  one convolution: kernel and bias times the factor."""
    if factor == 1.0:
        return conv
    kernel = defer(conv.kernel.shape, lambda weight: weight * factor, conv.kernel)
    return replace(conv, kernel=kernel, bias=conv.bias * factor)


def shift(conv: Conv, offset: float) -> Conv:
    """conv(x) + offset  ->  one convolution: the offset joins the bias."""
    return replace(conv, bias=conv.bias + offset) if offset else conv

"""The laws: what may be done with convolutions, exactly, and when.

Each function states its equation, checks its conditions through `require`, and returns the one `Conv` that
computes the same function, borders included. Kernels stay lazy; only a condition that depends on values looks
at them. Arrays only: nothing here knows a graph.
"""

from dataclasses import replace
from math import gcd

import numpy as np

from fuser.algebra.conv import Conv, Ints, Window, diagonal, regroup, spatial, taps
from fuser.algebra.lazy import Array, defer, known
from fuser.errors import require


def compose(outer: Conv, inner: Conv, extent: Ints | None = None) -> Conv:
    """outer(inner(x))  ->  one convolution: strides multiply, kernels convolve.

    `extent` is the spatial extent of `x` where it is known; with it more is exact at the end border.
    With outer (k2, s2, d2, p2) on inner (k1, s1, d1, p1): stride `s1*s2`, a tap at `d1*i + s1*d2*j` for every
    pair of taps, pads `p1 + s1*p2`, bias `b2 + sum(W2) b1`, and the pad value of `inner`.

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
            step=_common_step(a, replace(b, first=s * b.first, last=s * b.last, step=s * b.step)),
        )
        for a, b, s in zip(inner.windows, outer.windows, inner.stride, strict=True)
    ]
    slack = [a + s * b for a, b, s in zip(inner.slack, outer.slack, inner.stride, strict=True)]
    return _product(outer, inner, windows, slack, offsets)


def _common_step(a: Window, b: Window) -> int:
    """The widest grid that holds the taps of one window after the other's; one tap is on any grid."""
    return gcd(*(window.step for window in (a, b) if window.first != window.last)) or 1


def _product(outer: Conv, inner: Conv, windows: list[Window], slack: list[int], offsets: list[int]) -> Conv:
    """The composed operator, its geometry given: kernels multiplied over channels, convolved over taps."""
    size = tuple((w.last - w.first) // w.step + 1 for w in windows)
    step = tuple(w.step for w in windows)
    outer_stride = tuple(offset // w.step for offset, w in zip(offsets, windows, strict=True))
    inner_stride = tuple(
        d // w.step if k > 1 else 1 for d, w, k in zip(inner.dilation, windows, inner.size, strict=True)
    )
    left, right, groups, channels = _aligned(outer, inner)
    shape = (outer.outputs, channels, *size)

    def convolve(w2: Array, w1: Array) -> Array:
        if all(n == 1 for n in outer.size) or all(n == 1 for n in inner.size):
            return _multiply(left, right, w2, w1).reshape(shape)
        result = np.zeros(shape)
        # Each tap of the outer kernel adds a copy of the inner one, shifted; a strided slice spreads it on
        # the grid.
        for tap in taps(outer.size):
            target = tuple(
                slice(j * a, j * a + (k - 1) * b + 1, b)
                for j, a, b, k in zip(tap, outer_stride, inner_stride, inner.size, strict=True)
            )
            part = _multiply(left, right, w2[spatial(tap)], w1)
            result[spatial(target)] += part.reshape(*shape[:2], *inner.size)
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
    """Both operators in groups in which their product is block-wise, how many, and the inputs of each.

    A depthwise side scales the rows or columns of the other and keeps the other's groups; otherwise the
    groups meet in their greatest common divisor.
    """
    if inner.depthwise:
        return outer, inner, outer.groups, outer.kernel.shape[1]
    if outer.groups == outer.inputs:
        return outer, inner, inner.groups, inner.kernel.shape[1]
    groups = gcd(outer.groups, inner.groups)
    return regroup(outer, groups), regroup(inner, groups), groups, inner.inputs // groups


def _multiply(outer: Conv, inner: Conv, w2: Array, w1: Array) -> Array:
    """Taps `[O, M/g2, *k2]` of `outer` times `[M, I/g1, *k1]` of `inner`, one of the two having one tap.

    Returns `[O, I/g, taps]`, the taps being those of the side that has several.
    """
    outputs, channels = w2.shape[0], w1.shape[1]
    if inner.depthwise:
        if w1.size == inner.inputs:
            # One row as long as that of the left side: numpy is slow where the last axis is short.
            w1 = np.repeat(w1, w2[0, 0].size)
        blocks = w2.reshape(outer.groups, outputs // outer.groups, w2.shape[1], -1)
        return (blocks * w1.reshape(outer.groups, 1, w2.shape[1], -1)).reshape(outputs, w2.shape[1], -1)
    if outer.groups == outer.inputs:
        rows = w1.reshape(outer.inputs, 1, channels, -1)
        columns = w2.reshape(outer.inputs, outputs // outer.inputs, 1, -1)
        return (columns * rows).reshape(outputs, channels, -1)
    # Several taps of `outer` are so many more rows of the left matrix, several taps of `inner` columns of the
    # right one.
    left = w2.reshape(outputs, w2.shape[1], -1).swapaxes(1, 2).reshape(outer.groups, -1, w2.shape[1])
    product = np.matmul(left, w1.reshape(outer.groups, w2.shape[1], -1))
    result: Array = product.reshape(outputs, -1, channels, w1[0, 0].size).swapaxes(1, 2)
    return result.reshape(outputs, channels, -1)


def _require_border(outer: Conv, inner: Conv, extent: Ints | None) -> None:
    """Where `outer` reads outside, `inner` extended past its border must equal what `outer` puts there."""
    if not outer.reads_outside:
        return
    outside = False
    for axis in range(outer.rank):
        reach = (inner.size[axis] - 1) * inner.dilation[axis]
        stride, begin, end = inner.stride[axis], inner.begin[axis], inner.end[axis]
        # Of the positions outside, the nearest one sees most of the input.
        reached = inner.extent(extent)[axis] if extent else None
        before, past = _nearest(outer, axis, reached)
        outside = outside or before > 0 or past > 0
        require(
            before == 0 or before * stride + begin > reach,
            f"the border mixes input and padding on axis {axis}: the outer pad is {outer.begin[axis]}, and "
            f"the inner kernel reaches {reach} past stride + pad {before * stride + begin}",
        )
        first = (reached - 1 + past) * stride - begin if reached is not None else None
        beyond = first is not None and extent is not None and first >= extent[axis]
        require(
            past == 0 or end >= reach or beyond,
            f"the border mixes input and padding on axis {axis}: the outer pad is {outer.end[axis]}, and "
            f"the inner kernel reaches {reach} past its end pad {end}",
        )
    if not outside:
        return
    border = inner.bias + inner.respond(inner.pad_value)
    if not np.array_equal(border, outer.pad_value):
        at = _first_unequal(border, outer.pad_value)
        require(
            False,
            f"the border differs: the inner operator continues with {border[at]:.6g}, the outer one pads "
            f"with {outer.pad_value[at]:.6g} (channel {at})",
        )


def _first_unequal(a: Array, b: Array) -> int:
    return int(np.flatnonzero(a != b)[0])


def _nearest(outer: Conv, axis: int, extent: int | None) -> tuple[int, int]:
    """How far before the start and past the end of its input `outer` reads at the nearest, 0 if it does not.

    `extent` is that of its input. Where it is not known, the worst one counts.
    """
    stride, begin, end = outer.stride[axis], outer.begin[axis], outer.end[axis]
    # What each tap reads first; it reads on in steps of the stride.
    firsts = [outer.dilation[axis] * tap - begin for tap in range(outer.size[axis])]
    if extent is None:
        return min(((-first - 1) % stride + 1 for first in firsts if first < 0), default=0), int(end > 0)
    final = (extent + outer.slack[axis] - 1) // stride
    if final < 0:
        return 0, 0
    before = [first + stride * min((-first - 1) // stride, final) for first in firsts if first < 0]
    past = [first + stride * max(-((first - extent) // stride), 0) for first in firsts]
    latest = [first + stride * final for first in firsts]
    return (
        -max(before, default=0),
        min((at - extent + 1 for at, limit in zip(past, latest, strict=True) if at <= limit), default=0),
    )


def swap(outer: Conv, inner: Conv) -> tuple[Conv, Conv]:
    """outer(inner(x))  ->  (last, first) with last(first(x)) the same: mix channels after working on each.

    `outer` has one kernel k for all channels, as an average pool does, and `inner` W mixes them at each
    position: k * (W x + b) + c = W (k * x) + (b sum(k) + c).

    Raises:
        Declined: `outer` is not of that kind, or `inner` is not; or the border differs.
    """
    places = (outer.axis, outer.rank), (inner.axis, inner.rank)
    require(places[0] == places[1], f"channel axis and spatial axes differ: {places[0]} and {places[1]}")
    require(inner.local, f"{inner} does more than to mix channels")
    require(outer.depthwise and not outer.transposed, f"{outer} mixes channels")
    weight = outer.weight
    require(bool((weight == weight[:1]).all()), f"the kernel of {outer} differs between channels")
    if outer.reads_outside:
        _require_border(outer, inner, None)
    shape = (inner.inputs, *weight.shape[1:])
    first = replace(
        outer,
        kernel=known(np.broadcast_to(weight[:1], shape).copy()),
        bias=np.zeros(inner.inputs),
        groups=inner.inputs,
        pad_value=inner.pad_value,
    )
    return replace(inner, bias=inner.bias * weight[0].sum() + outer.bias), first


def _compose_transposed(outer: Conv, inner: Conv) -> Conv:
    """A 1x1 before or after a transposed convolution mixes its input or output channels."""
    if outer.local:
        other = inner
    else:
        require(
            inner.local,
            f"a transposed convolution composes with a 1x1 of stride 1 without pads only: "
            f"({outer}) after ({inner})",
        )
        # A position of the output sums a number of taps that varies with it, so a shift does not pass.
        if inner.bias.any():
            at = _first_unequal(inner.bias, np.zeros(1))
            require(
                False,
                f"a shift does not pass through a transposed convolution: "
                f"{inner.bias[at]:.6g} (channel {at})",
            )
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
    shape = (a.outputs, a.inputs // groups, *_size(windows))

    def total(u: Array, v: Array) -> Array:
        if u.shape == v.shape == shape:
            return u + v
        whole = u if u.shape == shape else v if v.shape == shape else None
        result = np.zeros(shape) if whole is None else whole.copy()
        for side, weight in ((a, u), (b, v)):
            if weight is not whole:
                blocks = diagonal(result, groups, side.groups)[spatial(_slots(side, windows), 4)]
                blocks += weight.reshape(blocks.shape)
        return result

    return replace(
        a,
        kernel=defer(shape, total, a.kernel, b.kernel),
        bias=a.bias + b.bias,
        groups=groups,
        dilation=tuple(w.step for w in windows),
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
        at = _first_unequal(a.pad_value, b.pad_value)
        require(False, f"pad value differs: {a.pad_value[at]:.6g} and {b.pad_value[at]:.6g} (channel {at})")
    return a.pad_value


def embed(conv: Conv, windows: tuple[Window, ...]) -> Conv:
    """The same kernel on larger windows, zeros where it has no taps. Pads are left to the caller."""
    step = tuple(w.step for w in windows)
    shape = (*conv.kernel.shape[:2], *_size(windows))
    if conv.kernel.shape == shape and conv.dilation == step:
        return conv

    def spread(weight: Array) -> Array:
        result = np.zeros(shape)
        result[spatial(_slots(conv, windows))] = weight
        return result

    return replace(conv, kernel=defer(shape, spread, conv.kernel), dilation=step)


def _size(windows: tuple[Window, ...]) -> Ints:
    return tuple((w.last - w.first) // w.step + 1 for w in windows)


def _slots(conv: Conv, windows: tuple[Window, ...]) -> tuple[slice, ...]:
    """Where the taps of `conv` lie among those of larger windows."""
    return tuple(
        slice((own.first - w.first) // w.step, (own.last - w.first) // w.step + 1, max(1, own.step // w.step))
        for own, w in zip(conv.windows, windows, strict=True)
    )


def scale(conv: Conv, factor: float) -> Conv:
    """factor * conv(x)  ->  one convolution: kernel and bias times the factor."""
    if factor == 1.0:
        return conv
    kernel = defer(conv.kernel.shape, lambda weight: weight * factor, conv.kernel)
    return replace(conv, kernel=kernel, bias=conv.bias * factor)


def shift(conv: Conv, offset: float) -> Conv:
    """conv(x) + offset  ->  one convolution: the offset joins the bias."""
    return replace(conv, bias=conv.bias + offset) if offset else conv

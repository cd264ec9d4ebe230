"""Extents of operators that add up products or windows, and of what is broadcast.

The rules of `onnx/demands/shapes.py` for convolutions, pools, matrix products and recurrences.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from fuser.hosts.onnx.demands.tensors import Call, Dims, Shapes, Unknown
from fuser.judge.forms import Extent, minus, over, plus, times


def together(call: Call, shapes: Sequence[Dims]) -> Dims:
    """What shapes are broadcast to."""
    result = shapes[0]
    for dims in shapes[1:]:
        if dims is result or dims == result:
            continue
        rank = max(len(dims), len(result))
        left, right = ((1,) * (rank - len(part)) + part for part in (result, dims))
        result = tuple(call.demands.alike(a, b) for a, b in zip(left, right, strict=True))
    return result


def affine(call: Call) -> Shapes:
    """A normalisation: as the first input, whose channels fit the scale."""
    x = call.dims(0)
    scale = call.input(1).dims
    if call.kind in ("BatchNormalization", "InstanceNormalization") and scale and len(x) > 1:
        call.demands.equal(x[1], scale[0])
    elif scale is not None and call.kind != "GroupNormalization":
        together(call, [x, scale])
    return [x]


def conv(call: Call) -> Shapes:
    """Convolution, quantized or not: the weight is the second tensor that is not a scale or zero point."""
    quantized = call.kind == "QLinearConv"
    x, w = call.dims(0), call.dims(3 if quantized else 1)
    call.demands.equal(x[1], times(w[1], call.attribute("group", 1)))
    return [(x[0], w[0], *_windows(call, x[2:], w[2:]))]


def pool(call: Call) -> Shapes:
    """Pooling."""
    x = call.dims(0)
    return [(*x[:2], *_windows(call, x[2:], tuple(call.attribute("kernel_shape"))))] * call.outputs


def _windows(call: Call, extents: Dims, size: Dims) -> Dims:
    """How often a window fits; it has to fit once."""
    stride, dilation = (call.attribute(name, [1] * len(size)) for name in ("strides", "dilations"))
    automatic = call.text("auto_pad", "NOTSET")
    if automatic.startswith("SAME"):
        return tuple(over(plus(n, s - 1), s) for n, s in zip(extents, stride, strict=True))
    pads = call.attribute("pads", [0] * 2 * len(size)) if automatic == "NOTSET" else [0] * 2 * len(size)
    result: list[Extent] = []
    for axis, (n, k, s, d) in enumerate(zip(extents, size, stride, dilation, strict=True)):
        padding = pads[axis] + pads[axis + len(size)]
        room, count = _window(n, padding, k, s, d, bool(call.attribute("ceil_mode", 0)))
        call.demands.fits(0, room)
        result.append(count)
    return tuple(result)


@lru_cache(4096)
def _window(n: Extent, padding: int, k: Extent, s: int, d: int, up: bool) -> tuple[Extent, Extent]:
    """How far a window can be moved, and how many places it has."""
    room = minus(plus(n, padding, -1), times(minus(k, 1), d))
    return room, plus(over(plus(room, s - 1 if up else 0), s), 1)


def conv_transpose(call: Call) -> Shapes:
    """Transposed convolution."""
    x, w = call.dims(0), call.dims(1)
    rank = len(x) - 2
    call.demands.equal(x[1], w[0])
    channels = times(w[1], call.attribute("group", 1))
    if (wanted := call.attribute("output_shape")) is not None:
        return [(x[0], channels, *wanted[-rank:])]
    stride, dilation, extra = (
        call.attribute(name, [default] * rank)
        for name, default in (("strides", 1), ("dilations", 1), ("output_padding", 0))
    )
    automatic = call.text("auto_pad", "NOTSET")
    if automatic.startswith("SAME"):
        return [(x[0], channels, *(times(n, s) for n, s in zip(x[2:], stride, strict=True)))]
    pads = call.attribute("pads", [0] * 2 * rank) if automatic == "NOTSET" else [0] * 2 * rank
    made = [
        plus(times(minus(n, 1), s), times(minus(k, 1), d), 1, o, -pads[i], -pads[i + rank])
        for i, (n, k, s, d, o) in enumerate(zip(x[2:], w[2:], stride, dilation, extra, strict=True))
    ]
    return [(x[0], channels, *made)]


def global_pool(call: Call) -> Shapes:
    """Every spatial axis becomes 1."""
    x = call.dims(0)
    return [(*x[:2], *(1,) * (len(x) - 2))]


def gemm(call: Call) -> Shapes:
    """Rows of A, columns of B, a bias that is broadcast."""
    a, b = call.dims(0), call.dims(1)
    rows, inner = a[::-1] if call.attribute("transA", 0) else a
    depth, columns = b[::-1] if call.attribute("transB", 0) else b
    call.demands.equal(inner, depth)
    if call.given(2) and call.input(2).dims is not None:
        together(call, [(rows, columns), call.dims(2)])
    return [(rows, columns)]


def matmul(call: Call) -> Shapes:
    """Matrix product of the last two axes, broadcasting of the others."""
    a, b = call.dims(0), call.dims(1)
    call.demands.equal(a[-1], b[-2] if len(b) > 1 else b[-1])
    rows, columns = a[-2:-1], b[-1:] if len(b) > 1 else ()
    return [(*together(call, [a[:-2], b[:-2]]), *rows, *columns)]


def einsum(call: Call) -> Shapes:
    """Axes of one letter agree."""
    text = call.text("equation", "").replace(" ", "")
    if "->" not in text or "." in text:
        raise Unknown
    read, made = text.split("->")
    extents: dict[str, Extent] = {}
    for index, letters in enumerate(read.split(",")):
        for letter, extent in zip(letters, call.dims(index), strict=True):
            extents[letter] = call.demands.alike(extents[letter], extent) if letter in extents else extent
    return [tuple(extents[letter] for letter in made)]


def recurrent(call: Call) -> Shapes:
    """LSTM, GRU, RNN: input, lengths and states are of one batch."""
    x, w = call.dims(0), call.dims(1)
    hidden = call.attribute("hidden_size")
    time, batch = (x[1], x[0]) if call.attribute("layout", 0) else (x[0], x[1])
    call.demands.equal(x[2], w[2])
    if (lengths := call.input(4).dims) is not None:
        call.demands.equal(lengths[0], batch)
    state = (batch, w[0], hidden) if call.attribute("layout", 0) else (w[0], batch, hidden)
    for index in (5, 6):
        for own, other in zip(call.input(index).dims or (), state, strict=False):
            call.demands.equal(own, other)
    whole = (batch, time, w[0], hidden) if call.attribute("layout", 0) else (time, w[0], batch, hidden)
    return [whole, state, state]


def grid_sample(call: Call) -> Shapes:
    """One image for each grid."""
    x, grid = call.dims(0), call.dims(1)
    call.demands.equal(x[0], grid[0])
    return [(*x[:2], *grid[1:-1])]

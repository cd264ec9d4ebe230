"""Kernels of operators that slide a window, and BatchNormalization, from the text of the ONNX standard.

They judge what the compiler makes of these operators, so they share nothing with it: attributes are read from
the node here, and the arithmetic is a sum over taps, each a strided view of the image times a slice of the
weight. A form that is not covered returns NotImplemented, and the reference implementation takes over. On
[1, 32, 28, 28] that takes 31 ms to 0.9 for a depthwise 5x5, 41 ms to 0.06 for MaxPool, 428 ms to 0.2 for
ConvTranspose, 486 ms to 0.1 for AveragePool, and half as long for a dense 3x3 (onnx 1.23).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fuser.errors import require
from fuser.hosts.onnx.standard.kernel import Kernel

Array = NDArray[Any]
Extents = tuple[int, ...]

COLUMNS: Final = 64 << 20
"""Bytes of image that are laid out beside each other for one matrix product; one tap is the least."""

EPSILON: Final = float(np.float32(1e-5))
"""The standard states a float attribute, so its default is the float32 number."""


@dataclass(frozen=True)
class Window:
    """Taps of a window over `image` extents, and where they fall; everything per spatial axis.

    `before` and `after` are the pads, `made` the extents that come out of it (of a transposed convolution:
    those that go in).
    """

    size: Extents
    stride: Extents
    dilation: Extents
    before: Extents
    after: Extents
    made: Extents

    def taps(self) -> Iterator[tuple[Extents, tuple[slice, ...]]]:
        """Each tap with what it sees of the padded image."""
        for tap in np.ndindex(*self.size):
            yield tap, tuple(map(_progression, tap, self.dilation, self.made, self.stride))

    @property
    def padded(self) -> Extents:
        """How far the padded image has to reach."""
        spans = zip(self.made, self.stride, self.size, self.dilation, strict=True)
        return tuple((m - 1) * s + (k - 1) * d + 1 for m, s, k, d in spans)


def _progression(tap: int, dilation: int, count: int, stride: int) -> slice:
    return slice(tap * dilation, tap * dilation + (count - 1) * stride + 1, stride)


def _window(node: Kernel, image: Extents, size: Extents) -> Window | None:
    """The window of a Conv or a pool; None where not one of them fits into the image."""
    rank = len(image)
    stride = tuple(node.attribute("strides") or [1] * rank)
    dilation = tuple(node.attribute("dilations") or [1] * rank)
    reach = [(k - 1) * d + 1 for k, d in zip(size, dilation, strict=True)]
    automatic = node.attribute("auto_pad", "NOTSET")
    pads = list(node.attribute("pads") or [0] * (2 * rank)) if automatic == "NOTSET" else [0] * (2 * rank)
    if automatic.startswith("SAME"):
        made = [-(-n // s) for n, s in zip(image, stride, strict=True)]
        lacking = [max(0, (m - 1) * s + r - n) for m, s, r, n in zip(made, stride, reach, image, strict=True)]
        pads = _shared(lacking, automatic)
    before, after = pads[:rank], pads[rank:]
    room = [n + b + e - r for n, b, e, r in zip(image, before, after, reach, strict=True)]
    if min(room, default=0) < 0:
        return None
    made = [n // s + 1 for n, s in zip(room, stride, strict=True)]
    if node.attribute("ceil_mode", 0):
        made = [-(-n // s) + 1 for n, s in zip(room, stride, strict=True)]
        # A window that begins behind the image and its front pad sees nothing of it, and is not made.
        late = [(m - 1) * s >= n + b for m, s, n, b in zip(made, stride, image, before, strict=True)]
        made = [m - too_late for m, too_late in zip(made, late, strict=True)]
    return Window(size, stride, dilation, tuple(before), tuple(after), tuple(made))


def _shared(total: list[int], automatic: str) -> list[int]:
    """Pads in front and behind: SAME_UPPER has the odd one behind, all else in front."""
    small = [p // 2 for p in total]
    large = [p - q for p, q in zip(total, small, strict=True)]
    return small + large if automatic == "SAME_UPPER" else large + small


def _laid_out(x: Array, window: Window, fill: float = 0.0) -> Array:
    """`x [N, C, *image]` as far as the window looks, padded with `fill` (or cropped) to that."""
    ends = [p - b - n for p, b, n in zip(window.padded, window.before, x.shape[2:], strict=True)]
    crop = tuple(
        slice(max(0, -b), n - max(0, -e)) for n, b, e in zip(x.shape[2:], window.before, ends, strict=True)
    )
    widths = [(0, 0), (0, 0), *((max(0, b), max(0, e)) for b, e in zip(window.before, ends, strict=True))]
    x = x[(slice(None), slice(None), *crop)]
    return np.pad(x, widths, constant_values=fill) if np.any(widths) else x


def _precise(*arrays: Array) -> np.dtype[Any]:
    """The type to sum in: that of the arrays, but at least float32."""
    return np.result_type(np.float32, *(a.dtype if a.dtype.kind == "f" else np.float32 for a in arrays))


def conv(node: Kernel, x: Array, w: Array, b: Array | None = None) -> Any:
    """y[n, m, p] = b[m] + sum_ct w[m, c, t] x[n, c, p stride + t dilation]: channels of the group, and taps.

    `x [N, C, *image]`, `w [M, C / group, *taps]`, `b [M]`.
    """
    group, given = node.attribute("group", 1), x.dtype
    window = _window(node, x.shape[2:], w.shape[2:])
    if window is None or x.ndim < 3 or x.shape[1] != w.shape[1] * group or x.dtype.kind == "V":
        return NotImplemented
    kind = _precise(x, w)
    x, weight = _laid_out(x.astype(kind, copy=False), window), w.astype(kind, copy=False)
    y = (_depthwise if w.shape[1] == 1 else _grouped)(x, weight, window, group)
    if b is not None:
        y += b.astype(kind).reshape(-1, *[1] * (x.ndim - 2))
    return y.astype(given, copy=False)


def _grouped(x: Array, w: Array, window: Window, group: int) -> Array:
    """As many taps at once as fit beside each other, each a part of the inner axis of a matrix product."""
    n, channels, outputs, places = len(x), w.shape[1], len(w) // group, prod(window.made)
    x = x.reshape(n, group, channels, *x.shape[2:])
    kernels = np.moveaxis(w.reshape(group, outputs, channels, -1), 3, 2)
    views = [(slice(None), slice(None), slice(None), *view) for _, view in window.taps()]
    many = min(len(views), max(1, COLUMNS // max(1, n * group * channels * places * x.itemsize)))
    beside = np.empty((n, group, many, channels, *window.made) if many > 1 else 0, x.dtype)
    y: Array | None = None
    for first in range(0, len(views), many):
        part = views[first : first + many]
        for index, view in enumerate(part if many > 1 else ()):
            beside[:, :, index] = x[view]
        seen = beside[:, :, : len(part)] if many > 1 else x[part[0]]
        rows = kernels[:, :, first : first + many].reshape(group, outputs, len(part) * channels)
        product = np.matmul(rows, seen.reshape(n, group, len(part) * channels, places))
        y = product if y is None else np.add(y, product, out=y)
    assert y is not None, "a window has taps"
    return y.reshape(n, group * outputs, *window.made)


def _depthwise(x: Array, w: Array, window: Window, group: int) -> Array:
    """One channel a group: products, not matrices; in blocks of channels that stay in the cache."""
    n, times = len(x), len(w) // group
    y = np.zeros((n, group, times, *window.made), x.dtype)
    kernels: Any = w.reshape(group, times, *w.shape[2:])
    block = max(1, (1 << 18) // max(1, n * times * prod(window.made)))
    for first in range(0, group, block):
        part = slice(first, first + block)
        total = y[:, part]
        product = np.empty_like(total)
        for tap, view in window.taps():
            factor = kernels[(part, slice(None), *tap)].reshape(-1, times, *[1] * len(tap))
            np.multiply(x[(slice(None), part, None, *view)], factor, out=product)
            total += product
    return y.reshape(n, group * times, *window.made)


def conv_transpose(node: Kernel, x: Array, w: Array, b: Array | None = None) -> Any:
    """y[n, m, p stride + t dilation - before] += w[c, m, t] x[n, c, p], and b[m].

    `x [N, C, *image]`, `w [C, M / group, *taps]`, `b [M]`.
    """
    group, given, image = node.attribute("group", 1), x.dtype, x.shape[2:]
    if x.ndim < 3 or x.shape[1] != len(w) or x.dtype.kind == "V":
        return NotImplemented
    window, made = _transposed(node, image, w.shape[2:])
    kind = _precise(x, w)
    n, inputs, outputs = len(x), len(w) // group, w.shape[1]
    reach = tuple(max(p, b + m) for p, b, m in zip(window.padded, window.before, made, strict=True))
    y = np.zeros((n, group * outputs, *reach), kind)
    columns = x.astype(kind, copy=False).reshape(n, group, inputs, prod(image))
    kernels: Any = w.astype(kind, copy=False).reshape(group, inputs, outputs, *w.shape[2:])
    for tap, view in window.taps():
        kernel = np.swapaxes(kernels[(slice(None), slice(None), slice(None), *tap)], 1, 2)
        part = kernel * columns if inputs == 1 else np.matmul(kernel, columns)
        y[(slice(None), slice(None), *view)] += part.reshape(n, group * outputs, *image)
    places = tuple(slice(b, b + m) for b, m in zip(window.before, made, strict=True))
    y = y[(slice(None), slice(None), *places)]
    if b is not None:
        y = y + b.astype(kind).reshape(-1, *[1] * len(image))
    return y.astype(given, copy=False)


def _transposed(node: Kernel, image: Extents, size: Extents) -> tuple[Window, Extents]:
    """Where the taps of a transposed convolution go, and the extents that come out."""
    rank = len(image)
    stride = tuple(node.attribute("strides") or [1] * rank)
    dilation = tuple(node.attribute("dilations") or [1] * rank)
    more = node.attribute("output_padding") or [0] * rank
    whole = [
        s * (n - 1) + a + (k - 1) * d + 1
        for s, n, a, k, d in zip(stride, image, more, size, dilation, strict=True)
    ]
    wanted, automatic = node.attribute("output_shape"), node.attribute("auto_pad", "NOTSET")
    pads = (node.attribute("pads") if automatic == "NOTSET" else None) or [0] * (2 * rank)
    made = [w - b - e for w, b, e in zip(whole, pads[:rank], pads[rank:], strict=True)]
    if wanted is not None or automatic.startswith("SAME"):
        aim = [n * s for n, s in zip(image, stride, strict=True)] if wanted is None else list(wanted)[-rank:]
        total = [max(0, w - a) for w, a in zip(whole, aim, strict=True)]
        pads = _shared(total, automatic)
        # With fewer taps than strides SAME makes what there is; a stated shape is filled with zeros.
        made = aim if wanted is not None else [w - p for w, p in zip(whole, total, strict=True)]
    window = Window(size, stride, dilation, tuple(pads[:rank]), tuple(pads[rank:]), image)
    return window, tuple(made)


def pool(node: Kernel, x: Array) -> Any:
    """The largest, or the mean, of each window of `x [N, C, *image]`; without indices.

    The mean is over what lies in the image, or with `count_include_pad` in the image and its pads; what a
    last window of `ceil_mode` sees behind them never counts.
    """
    size = tuple(node.attribute("kernel_shape"))
    _require_agreed(node, size)
    window = _window(node, x.shape[2:], size)
    if window is None or len(node.node.outputs) > 1 or x.dtype.kind != "f":
        return NotImplemented
    if node.node.op_type == "MaxPool":
        return _slide(_laid_out(x, window, -np.inf), window, np.maximum)
    kind = _precise(x)
    total = _slide(_laid_out(x.astype(kind, copy=False), window), window, np.add)
    ones = np.ones((1, 1, *x.shape[2:]), kind)
    if node.attribute("count_include_pad", 0):
        ones = np.pad(
            ones, [(0, 0), (0, 0), *zip(window.before, window.after, strict=True)], constant_values=1
        )
        window = replace(window, before=(0,) * len(size))
    return (total / _slide(_laid_out(ones, window), window, np.add)).astype(x.dtype)


def _require_agreed(node: Kernel, size: Extents) -> None:
    """Decline forms of SAME that onnxruntime pads in a way that is not the standard's.

    It takes a dilation for 1, and crops where strides are longer than windows.
    """
    if node.attribute("auto_pad", "NOTSET").startswith("SAME"):
        dilation, stride = (node.attribute(name) or [1] for name in ("dilations", "strides"))
        require(max(dilation) == 1, f"SAME pads of a pool with dilations {dilation} mean different things")
        fits = all(s <= k + 1 for s, k in zip(stride, size, strict=False))
        require(fits, f"SAME pads of a pool of {size} with strides {stride} mean different things")


def _slide(x: Array, window: Window, function: Callable[..., Array]) -> Array:
    """`function` over the taps of each window of `x [N, C, *extent]`, one axis after the other."""
    for axis, (size, stride, dilation, made) in enumerate(
        zip(window.size, window.stride, window.dilation, window.made, strict=True), start=2
    ):
        front = (slice(None),) * axis
        result = x[(*front, _progression(0, dilation, made, stride))].copy()
        for tap in range(1, size):
            function(result, x[(*front, _progression(tap, dilation, made, stride))], out=result)
        x = result
    return x


def batch_norm(node: Kernel, x: Array, scale: Array, bias: Array, mean: Array, variance: Array) -> Any:
    """scale (x - mean) / sqrt(variance + epsilon) + bias, for each channel of `x [N, C, ...]`.

    Before opset 9 the statistics may be of each element instead (`spatial` 0).
    """
    training = node.attribute("training_mode", 0) or (node.opset < 7 and not node.attribute("is_test", 0))
    if training or sum(bool(value.name) for value in node.node.outputs) > 1 or x.dtype.kind != "f":
        return NotImplemented
    each = mean.shape[1:] if node.attribute("spatial", 1) == 0 else (1,) * (x.ndim - 2)
    kind = _precise(x)
    scale, bias, mean, variance = (
        part.astype(kind).reshape((-1, *each)) for part in (scale, bias, mean, variance)
    )
    epsilon = node.attribute("epsilon", EPSILON)
    return (scale * ((x - mean) / np.sqrt(variance + kind.type(epsilon))) + bias).astype(x.dtype)

"""What designs are made of: branches of one value, each some layers in a row, that are summed or joined."""

from typing import Any

from tests.fuzz.layers import constant, image, norm
from tests.fuzz.net import Net, Value


def block(net: Net, x: Value) -> None:
    """Branches that keep the extents of an image, and their sum or concatenation."""
    channels = x.fixed(1) if image(x) else None
    if channels is None:
        return
    outputs = net.pick((channels, channels, 2, 4))
    sizes = [net.pick((1, 1, 2, 3)) for _ in range(net.pick((1, 2, 2, 3)))]
    ends = [_row(net, x, outputs, length) for length in sizes]
    if outputs == channels and net.chance(0.3):
        ends.append(x)
    if len(ends) == 1:
        return
    if net.chance(0.6):
        net.add("Sum", ends, ends[0].shapes)
        return
    joined = [(shape[0], len(ends) * outputs, *shape[2:]) for shape in x.shapes]
    if net.fits(joined):
        net.add("Concat", ends, joined, axis=1)


def _row(net: Net, x: Value, outputs: int, length: int) -> Value:
    """Layers in a row, of which the last convolution makes the channels that are asked for."""
    for _ in range(length - 1):
        layer = net.pick((norm, constant, _conv, _pool))
        if layer is _conv:
            x = _conv(net, x, net.pick((x.fixed(1), outputs)))
            continue
        before = len(net.values)
        layer(net, x)
        # A constant of a shape of its own may have made nothing; what it made has the shape of x.
        x = net.values[-1] if len(net.values) > before and net.values[-1].like(x) else x
    return _conv(net, x, outputs)


def _conv(net: Net, x: Value, outputs: int) -> Value:
    """A convolution that keeps the extents: by its own pads, or by a Pad before it."""
    space, channels = x.rank - 2, x.shapes[0][1]
    size = net.pick((1, 1, 3))
    around = [0, 0, *[size // 2] * space] * 2
    groups = channels if outputs == channels and net.chance(0.3) else 1
    shapes = [(shape[0], outputs, *shape[2:]) for shape in x.shapes]
    weight = net.weight(x, outputs, channels // groups, *[size] * space)
    inputs: list[Value | str] = [x, weight, *[net.weight(x, outputs)] * net.pick((0, 1))]
    geometry: dict[str, Any] = {"group": groups}
    if x.dtype == "float32" and net.chance(0.2):
        padded = [tuple(n + 2 * p for n, p in zip(shape, around, strict=False)) for shape in x.shapes]
        inputs[0] = net.add("Pad", [x, net.whole(*around)], padded)
    else:
        geometry["pads"] = [size // 2] * 2 * space
    return net.add("Conv", inputs, shapes, **geometry)


def _pool(net: Net, x: Value) -> None:
    """A mean over 3 in each direction, that keeps the extents."""
    space = x.rank - 2
    window: dict[str, Any] = {"kernel_shape": [3] * space, "pads": [1] * 2 * space}
    net.add("AveragePool", [x], x.shapes, count_include_pad=net.pick((0, 1)), **window)

"""Layers: what networks compute with, over channels on axis 1 or the last one."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tests.fuzz.net import FLOATS, TYPES, Net, Shape, Value


def image(x: Value) -> bool:
    """Whether convolutions take it: channels of a known number, and one or two spatial axes."""
    return x.dtype in ("float32", "float16") and x.rank in (3, 4) and x.fixed(1) is not None


def conv(net: Net, x: Value) -> None:
    """A convolution, dense or grouped, of any pads."""
    channels = x.fixed(1) if image(x) else None
    if channels is None:
        return
    space = x.rank - 2
    size, stride, dilation = net.pick((1, 1, 2, 3)), net.pick((1, 1, 1, 2)), net.pick((1, 1, 1, 2))
    pads = [net.pick((0, 1)) for _ in range(2 * space)] if net.chance(0.3) else [net.pick((0, 1))] * 2 * space
    span = (size - 1) * dilation + 1
    groups = net.pick((1, 1, channels))
    outputs = channels if groups > 1 else int(net.random.integers(1, 6))
    shapes = [
        (
            shape[0],
            outputs,
            *((n + pads[i] + pads[i + space] - span) // stride + 1 for i, n in enumerate(shape[2:])),
        )
        for shape in x.shapes
    ]
    geometry: dict[str, Any] = {"strides": [stride] * space, "dilations": [dilation] * space, "group": groups}
    if net.chance(0.1) and dilation == 1:
        geometry["auto_pad"] = net.pick(("SAME_UPPER", "SAME_LOWER"))
        shapes = [(shape[0], outputs, *(-(-n // stride) for n in shape[2:])) for shape in x.shapes]
    else:
        geometry["pads"] = pads
    if not net.fits(shapes):
        return
    inputs: list[Value | str] = [x, net.weight(x, outputs, channels // groups, *[size] * space)]
    inputs += [net.weight(x, outputs)] * net.pick((0, 1))
    net.add("Conv", inputs, shapes, **geometry)


def conv_transpose(net: Net, x: Value) -> None:
    """A transposed convolution."""
    channels = x.fixed(1) if image(x) else None
    if channels is None or x.dtype == "float16":
        return
    size, stride, outputs = net.pick((2, 3)), net.pick((1, 2)), net.pick((1, 2, 4))
    shapes = [(shape[0], outputs, *((n - 1) * stride + size for n in shape[2:])) for shape in x.shapes]
    if net.fits(shapes):
        weight = net.weight(x, channels, outputs, *[size] * (x.rank - 2))
        net.add("ConvTranspose", [x, weight], shapes, strides=[stride] * (x.rank - 2))


def norm(net: Net, x: Value) -> None:
    """A BatchNormalization, of the default epsilon or of one of its own."""
    channels = x.fixed(1) if x.rank > 1 and x.dtype in FLOATS else None
    if channels is None:
        return
    scale, shift, mean = (net.weight(x, channels) for _ in range(3))
    variance = net.constant(net.random.uniform(0.5, 2, channels).astype(x.dtype))
    epsilon = net.pick(({}, {}, {"epsilon": 0.01}))
    net.add("BatchNormalization", [x, scale, shift, mean, variance], x.shapes, **epsilon)


def constant(net: Net, x: Value) -> None:
    """Arithmetic with a constant: one number, per channel, per column, or for everything."""
    if x.dtype not in FLOATS:
        return
    sizes: list[Shape] = [(), ()]
    if x.rank > 1 and (channels := x.fixed(1)) is not None:
        sizes += [(channels, *(1,) * (x.rank - 2))] * 2
    if x.rank and (columns := x.fixed(-1)) is not None:
        sizes.append((columns,))
    operands: list[Value | str] = [x, net.weight(x, *net.pick(sizes))]
    kind = net.pick(("Mul", "Add", "Sub", "Mul", "Add", "Div"))
    if kind == "Sub" and net.chance(0.5):
        operands.reverse()
    if kind == "Div":
        operands[1] = net.scalar(net.pick((2.0, -0.5, 3.0)), x.dtype)
    net.add(kind, operands, x.shapes, x.dtype)


def together(net: Net, x: Value) -> None:
    """A sum, a difference, a product or a concatenation with a value that fits."""
    if x.dtype not in FLOATS or not x.rank:
        return
    other = net.pick([value for value in net.values if value.like(x)])
    kind = net.pick(("Add", "Add", "Sub", "Sum", "Mean", "Mul", "Max", "Concat", "Concat"))
    if kind == "Concat":
        axis = net.pick((1, 1, -1, 0)) if x.rank > 1 else 0
        shapes = [_with(shape, axis, 2 * shape[axis]) for shape in x.shapes]
        if net.fits(shapes):
            net.add(kind, [x, other], shapes, axis=axis)
    elif kind == "Mean" and x.dtype == "float64":
        return
    elif kind in {"Sum", "Mean"}:
        net.add(kind, [x, other, net.pick((x, other))], x.shapes)
    else:
        net.add(kind, [x, other], x.shapes)


def broadcast(net: Net, x: Value) -> None:
    """Arithmetic with a value of another shape that broadcasts against it."""
    others = [v for v in net.values if v.dtype == x.dtype and not v.wrapped and v.shapes != x.shapes]
    if x.dtype not in FLOATS or not others:
        return
    other = net.pick(others)
    try:
        shapes = [np.broadcast_shapes(a, b) for a, b in zip(x.shapes, other.shapes, strict=True)]
    except ValueError:
        return
    if net.fits(shapes):
        net.add(net.pick(("Add", "Mul", "Sub")), [x, other], shapes)


def pool(net: Net, x: Value) -> None:
    """The mean or the largest of a window, padding counted or not; or of everything."""
    if not image(x):
        return
    space = x.rank - 2
    if net.chance(0.2):
        whole = [(*shape[:2], *(1,) * space) for shape in x.shapes]
        net.add(net.pick(("GlobalAveragePool", "GlobalMaxPool")), [x], whole)
        return
    size, stride, pad = net.pick((2, 3)), net.pick((1, 2)), net.pick((0, 1))
    shapes = [(*shape[:2], *((n + 2 * pad - size) // stride + 1 for n in shape[2:])) for shape in x.shapes]
    if not net.fits(shapes):
        return
    window: dict[str, Any] = {
        "kernel_shape": [size] * space,
        "strides": [stride] * space,
        "pads": [pad] * 2 * space,
    }
    if net.chance(0.6):
        net.add("AveragePool", [x], shapes, count_include_pad=net.pick((0, 1)), **window)
    else:
        net.add("MaxPool", [x], shapes, **window)


def linear(net: Net, x: Value) -> None:
    """A matrix on the last axis."""
    columns = x.fixed(-1) if x.dtype in FLOATS and x.rank > 1 else None
    if columns is None or columns > 256:
        return
    made = int(net.random.integers(1, 7))
    shapes = [(*shape[:-1], made) for shape in x.shapes]
    if x.rank == 2 and net.chance(0.5):
        scale = net.pick(({}, {"alpha": 0.5, "beta": 2.0}))
        bias = net.weight(x, *net.pick(((made,), (1, made), ())))
        net.add("Gemm", [x, net.weight(x, made, columns), bias], shapes, transB=1, **scale)
    else:
        net.add("MatMul", [x, net.weight(x, columns, made)], shapes)


def part(net: Net, x: Value) -> None:
    """Some of the channels, by Slice or by Split."""
    channels = x.fixed(1) if x.rank > 1 and x.dtype in FLOATS else None
    if channels is None or channels < 2:
        return
    first = int(net.random.integers(1, channels))
    upper = [_with(shape, 1, channels - first) for shape in x.shapes]
    if net.chance(0.5):
        net.add("Slice", [x, *(net.whole(n) for n in (first, channels, 1))], upper)
        return
    lower = [_with(shape, 1, first) for shape in x.shapes]
    sizes = [first, channels - first]
    if net.model.opset >= 13:
        net.node("Split", [x, net.whole(*sizes)], [(None, lower), (None, upper)], axis=1)
    else:
        net.node("Split", [x], [(None, lower), (None, upper)], axis=1, split=sizes)


def nothing(net: Net, x: Value) -> None:
    """What leaves everything as it is."""
    kind = net.pick(("Identity", "Identity", "Dropout", "Mul", "Cast"))
    if kind in {"Dropout", "Mul"} and x.dtype not in FLOATS:
        return
    if kind == "Mul":
        net.add(kind, [x, net.scalar(1.0, x.dtype)], x.shapes)
    elif kind == "Cast":
        cast(net, x, x.dtype)
    else:
        net.add(kind, [x], x.shapes)


def retype(net: Net, x: Value) -> None:
    """Into another floating type, or back."""
    if x.dtype in FLOATS:
        cast(net, x, net.pick(FLOATS) if x.dtype == "float32" else "float32")


def cast(net: Net, x: Value, dtype: str) -> None:
    """Into a type."""
    if x.dtype != "string":
        net.add("Cast", [x], x.shapes, dtype, to=TYPES[dtype])


def bend(net: Net, x: Value) -> None:
    """Something that is not linear."""
    if x.dtype not in FLOATS:
        return
    kind = net.pick(("Relu", "Relu", "LeakyRelu", "Sigmoid", "Clip", "HardSwish", "PRelu", "Tanh", "Softmax"))
    if kind == "Clip" and (x.dtype != "float64" or net.model.opset > 11):
        bounds = [net.scalar(n, x.dtype) for n in net.pick(((0.0, 6.0), (-1.0, 1.0)))]
        net.add(kind, [x, *bounds], x.shapes)
    elif kind == "PRelu" and x.rank > 1 and (channels := x.fixed(1)) is not None and x.dtype == "float32":
        net.add(kind, [x, net.weight(x, channels, *(1,) * (x.rank - 2))], x.shapes)
    elif kind == "Softmax" and x.rank:
        net.add(kind, [x], x.shapes, axis=x.rank - 1)
    elif kind == "LeakyRelu" and x.dtype != "float64":
        net.add(kind, [x], x.shapes, **net.pick(({}, {"alpha": 0.2}, {"alpha": 1.0})))
    elif kind == "HardSwish" and net.model.opset >= 14 and x.dtype != "float64":
        net.add(kind, [x], x.shapes)
    else:
        net.add("Relu", [x], x.shapes)


def mean(net: Net, x: Value) -> None:
    """The mean over some axes."""
    if x.dtype not in FLOATS or x.rank < 2:
        return
    kept, axes = net.pick((0, 1)), sorted({net.pick(range(x.rank)) for _ in range(net.pick((1, 2)))})
    shapes = [
        tuple(1 if i in axes else n for i, n in enumerate(shape) if kept or i not in axes)
        for shape in x.shapes
    ]
    if net.model.opset >= 18:
        net.add("ReduceMean", [x, net.whole(*axes)], shapes, keepdims=kept)
    else:
        net.add("ReduceMean", [x], shapes, axes=axes, keepdims=kept)


def _with(shape: Sequence[int], axis: int, extent: int) -> Shape:
    """A shape with another extent on one axis."""
    changed = list(shape)
    changed[axis] = extent
    return tuple(changed)


LAYERS: tuple[Callable[[Net, Value], None], ...] = (
    conv, conv, conv, conv, norm, norm, constant, constant, together, together, pool, linear, linear, part,
    nothing, bend, bend, mean, broadcast, retype, conv_transpose,
)  # fmt: skip

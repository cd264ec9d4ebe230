"""One rule per operator: the shapes of its outputs from those of its inputs, extents kept symbolic."""

# Every rule has the signature of the table.
# ruff: noqa: ARG001

import math
from collections.abc import Callable
from typing import Final

import numpy as np

from fuser.algebra.conv import Ints
from fuser.errors import Declined, require
from fuser.hosts.onnx.node import (
    DTYPES,
    INT_MAX,
    attribute,
    data,
    integers,
    ints,
    list_of,
    operand,
    resolve_pads,
    source,
)
from fuser.hosts.onnx.shapes.extents import Extents, Shape
from fuser.ir.extents import Dim, affine, window
from fuser.ir.node import Node, Value

Shapes = list[Shape | None]
Rule = Callable[[Node, int, Extents], Shapes]


def shape_of(value: Value | None) -> Shape:
    """The shape of a value.

    Raises:
        Declined: it is not known.
    """
    if value is None or value.shape is None:
        raise Declined("a shape is not known")
    return value.shape


def same(node: Node, opset: int, extents: Extents) -> Shapes:
    """Every output as the first input."""
    return [data(node).shape] * len(node.outputs)


def same_first(node: Node, opset: int, extents: Extents) -> Shapes:
    """The first output as the first input; the others are not known."""
    return [data(node).shape]


def broadcast(node: Node, opset: int, extents: Extents) -> Shapes:
    """Numpy broadcasting."""
    shapes = [shape_of(value) for value in node.inputs]
    if len(shapes) == 2 and shapes[0] == shapes[1]:
        return [shapes[0]]
    rank = max(map(len, shapes))
    aligned = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    return [tuple(_broadcast(dims) for dims in zip(*aligned, strict=True))]


def _broadcast(dims: tuple[Dim, ...]) -> Dim:
    candidates = set(dims) - {1}
    if len(candidates) <= 1:
        return candidates.pop() if candidates else 1
    # A symbolic extent beside a known one can only be that one, or 1.
    known = [dim for dim in candidates if isinstance(dim, int)]
    return known[0] if len(known) == 1 else None


def conv(node: Node, opset: int, extents: Extents) -> Shapes:
    """Convolution: batch, output channels, positions of the window."""
    x, weight = shape_of(data(node)), shape_of(data(node, 1))
    size = tuple(n for n in weight[2:] if isinstance(n, int))
    if len(size) != len(x) - 2:
        raise Declined("the kernel is not known")
    return [(x[0], weight[0], *_windows(node, x[2:], size, extents))]


def pool(node: Node, opset: int, extents: Extents) -> Shapes:
    """Pooling: batch, channels, positions of the window; the indices of MaxPool have the same shape."""
    x = shape_of(data(node))
    size = ints(node, "kernel_shape") or ()
    if len(size) != len(x) - 2:
        raise Declined("the kernel does not fit the input")
    if set(ints(node, "dilations") or (1,)) != {1} and "SAME" in attribute(node, "auto_pad", "NOTSET"):
        # Runtimes differ on what the same extent is.
        return [(*x[:2], *(None,) * len(size))] * len(node.outputs)
    return [(*x[:2], *_windows(node, x[2:], size, extents))] * len(node.outputs)


def _windows(node: Node, extent: Shape, size: Ints, extents: Extents) -> list[Dim]:
    stride, dilation = ints(node, "strides") or (1,) * len(size), ints(node, "dilations") or (1,) * len(size)
    if attribute(node, "auto_pad", "NOTSET") in ("SAME_UPPER", "SAME_LOWER"):
        return [affine(n, s - 1, s) for n, s in zip(extent, stride, strict=True)]
    begin, end = resolve_pads(node, size, stride, dilation, extent)
    slack = [b + e - (k - 1) * d for b, e, k, d in zip(begin, end, size, dilation, strict=True)]
    result = [window(n, t, s) for n, t, s in zip(extent, slack, stride, strict=True)]
    if attribute(node, "ceil_mode", 0):
        # Runtimes differ on a last window that begins in the padding; what divides evenly has none.
        fits = [
            isinstance(n, int) and (n + t - 1) % s == 0 for n, t, s in zip(extent, slack, stride, strict=True)
        ]
        return [dim if ok or s == 1 else None for dim, ok, s in zip(result, fits, stride, strict=True)]
    return result


def conv_transpose(node: Node, opset: int, extents: Extents) -> Shapes:
    """Transposed convolution."""
    x, weight = shape_of(data(node)), shape_of(data(node, 1))
    size = tuple(n for n in weight[2:] if isinstance(n, int))
    if len(size) != len(x) - 2:
        raise Declined("the kernel is not known")
    rank, channels = len(size), extents.product([weight[1], attribute(node, "group", 1)])
    stride, dilation = ints(node, "strides") or (1,) * rank, ints(node, "dilations") or (1,) * rank
    wanted = ints(node, "output_shape")
    if wanted is not None:
        return [(x[0], channels, *wanted[-rank:])]
    if attribute(node, "auto_pad", "NOTSET") in ("SAME_UPPER", "SAME_LOWER"):
        return [(x[0], channels, *(affine(n, factor=s) for n, s in zip(x[2:], stride, strict=True)))]
    begin, end = resolve_pads(node, size, stride, dilation, x[2:])
    extra = ints(node, "output_padding") or (0,) * rank
    more = [
        (k - 1) * d + 1 - s - b - e + o
        for k, d, s, b, e, o in zip(size, dilation, stride, begin, end, extra, strict=True)
    ]
    return [(x[0], channels, *(affine(n, m, 1, s) for n, m, s in zip(x[2:], more, stride, strict=True)))]


def global_pool(node: Node, opset: int, extents: Extents) -> Shapes:
    """Every spatial axis becomes 1."""
    x = shape_of(data(node))
    return [(*x[:2], *(1,) * (len(x) - 2))]


def gemm(node: Node, opset: int, extents: Extents) -> Shapes:
    """Rows of A, columns of B."""
    a, b = shape_of(data(node)), shape_of(data(node, 1))
    return [(a[1 if attribute(node, "transA", 0) else 0], b[0 if attribute(node, "transB", 0) else 1])]


def matmul(node: Node, opset: int, extents: Extents) -> Shapes:
    """Matrix product of the last two axes, broadcasting of the others."""
    a, b = shape_of(data(node)), shape_of(data(node, 1))
    if len(a) < 2 or len(b) < 2:
        return [(*a[:-1], *b[:-2], *b[len(b) :])] if len(a) >= 2 else [(*b[:-2], *b[-1:] * (len(b) > 1))]
    rank = max(len(a), len(b)) - 2
    lead = [(1,) * (rank - len(s) + 2) + s[:-2] for s in (a, b)]
    return [(*(_broadcast(dims) for dims in zip(*lead, strict=True)), a[-2], b[-1])]


def concat(node: Node, opset: int, extents: Extents) -> Shapes:
    """Extents of one axis added."""
    shapes = [shape_of(value) for value in node.inputs]
    axis = attribute(node, "axis", 1) % len(shapes[0])
    known = [shape[axis] for shape in shapes]
    numbers = [n for n in known if isinstance(n, int)]
    symbols = [n for n in known if not isinstance(n, int)]
    total = sum(numbers) if not symbols else affine(symbols[0], sum(numbers)) if len(symbols) == 1 else None
    rest = [next((n for n in dims if isinstance(n, int)), dims[0]) for dims in zip(*shapes, strict=True)]
    return [(*rest[:axis], total, *rest[axis + 1 :])]


def split(node: Node, opset: int, extents: Extents) -> Shapes:
    """One axis in parts."""
    x = shape_of(data(node))
    axis = attribute(node, "axis", 0) % len(x)
    sizes: tuple[Dim, ...] | None = list_of(node, "split", 1, opset, 13)
    if sizes is None:
        count, n = len(node.outputs), x[axis]
        if not isinstance(n, int):
            return [(*x[:axis], None, *x[axis + 1 :])] * count
        size = -(-n // count)
        sizes = (*(size,) * (count - 1), n - size * (count - 1))
    return [(*x[:axis], size, *x[axis + 1 :]) for size in sizes]


def flatten(node: Node, opset: int, extents: Extents) -> Shapes:
    """A matrix."""
    x = shape_of(data(node))
    axis = attribute(node, "axis", 1)
    axis = axis + len(x) if axis < 0 else axis
    return [(extents.product(x[:axis]), extents.product(x[axis:]))]


def reshape(node: Node, opset: int, extents: Extents) -> Shapes:
    """A constant target: 0 keeps an axis, -1 is what remains."""
    x = shape_of(data(node))
    target = extents.elements(data(node, 1))
    if target is None:
        raise Declined("the target is not known")
    zeros = bool(attribute(node, "allowzero", 0)) and opset >= 14
    if any(n == 0 and not zeros and i >= len(x) for i, n in enumerate(target)):
        raise Declined("a kept axis does not exist")
    result: list[Dim] = [x[i] if n == 0 and not zeros else n for i, n in enumerate(target)]
    if -1 in target:
        result[target.index(-1)] = _remainder(x, [dim for dim in result if dim != -1], extents)
    return [tuple(result)]


def _remainder(x: Shape, taken: list[Dim], extents: Extents) -> Dim:
    """The extent that is left of `x` when all others are `taken`."""
    left, divisor = list(x), 1
    for dim in taken:
        if isinstance(dim, int):
            divisor *= dim
        elif dim is not None and dim in left:
            left.remove(dim)
        else:
            return None
    return extents.product(left, divisor)


def transpose(node: Node, opset: int, extents: Extents) -> Shapes:
    """Axes in another order."""
    x = shape_of(data(node))
    order = ints(node, "perm") or tuple(reversed(range(len(x))))
    return [tuple(x[axis] for axis in order)]


def squeeze(node: Node, opset: int, extents: Extents) -> Shapes:
    """Axes of extent 1 removed."""
    x = shape_of(data(node))
    axes = list_of(node, "axes", 1, opset, 13)
    if axes is None:
        if not all(isinstance(n, int) for n in x):
            raise Declined("an extent is not known")
        return [tuple(n for n in x if n != 1)]
    gone = {axis % len(x) for axis in axes}
    return [tuple(n for i, n in enumerate(x) if i not in gone)]


def unsqueeze(node: Node, opset: int, extents: Extents) -> Shapes:
    """Axes of extent 1 inserted."""
    x = shape_of(data(node))
    axes = list_of(node, "axes", 1, opset, 13) or ()
    rank = len(x) + len(axes)
    new, rest = {axis % rank for axis in axes}, iter(x)
    return [tuple(1 if i in new else next(rest) for i in range(rank))]


def reduce_(node: Node, opset: int, extents: Extents) -> Shapes:
    """Axes that become 1 or vanish."""
    x = shape_of(data(node))
    since = 13 if source(node).op_type == "ReduceSum" else 18
    axes = list_of(node, "axes", 1, opset, since)
    if not axes and attribute(node, "noop_with_empty_axes", 0):
        return [x]
    gone = {axis % len(x) for axis in axes} if axes else set(range(len(x)))
    if attribute(node, "keepdims", 1):
        return [tuple(1 if i in gone else n for i, n in enumerate(x))]
    return [tuple(n for i, n in enumerate(x) if i not in gone)]


def arg_extremum(node: Node, opset: int, extents: Extents) -> Shapes:
    """One axis that becomes 1 or vanishes."""
    x = shape_of(data(node))
    axis = attribute(node, "axis", 0) % len(x)
    kept = (1,) if attribute(node, "keepdims", 1) else ()
    return [(*x[:axis], *kept, *x[axis + 1 :])]


def gather(node: Node, opset: int, extents: Extents) -> Shapes:
    """The indices in place of an axis."""
    x, indices = shape_of(data(node)), shape_of(data(node, 1))
    axis = attribute(node, "axis", 0) % len(x)
    return [(*x[:axis], *indices, *x[axis + 1 :])]


def slice_(node: Node, opset: int, extents: Extents) -> Shapes:
    """A range of each axis."""
    x = shape_of(data(node))
    starts, ends, axes = (
        list_of(node, name, i, opset, 10) for i, name in ((1, "starts"), (2, "ends"), (3, "axes"))
    )
    if starts is None or ends is None:
        raise Declined("the range is absent")
    axes = tuple(range(len(starts))) if axes is None else axes
    steps = (integers(node, 4, "steps") if opset >= 10 else None) or (1,) * len(starts)
    result = list(x)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        result[axis] = _range(x[axis], start, end, step, extents)
    return [tuple(result)]


def _range(n: Dim, start: int, end: int, step: int, extents: Extents) -> Dim:
    if isinstance(n, int):
        stop = None if step < 0 and end < -n else end
        return len(range(*slice(start if step > 0 or start < n else None, stop, step).indices(n)))
    if step < 1 or start < 0:
        return None
    if end >= INT_MAX:
        # What is cut off must be there; an empty result is no network's intent.
        return affine(n, step - 1 - start, step)
    return affine(n, end - start + step - 1, step) if end < 0 else None


def pad(node: Node, opset: int, extents: Extents) -> Shapes:
    """Extents enlarged by constants."""
    x = shape_of(data(node))
    given = ints(node, "pads") if opset < 11 else integers(node, 1, "pads")
    axes = (integers(node, 3, "axes") if opset >= 18 else None) or tuple(range(len(x)))
    if given is None or len(given) != 2 * len(axes):
        raise Declined("pads do not fit")
    result = list(x)
    for i, axis in enumerate(axes):
        result[axis] = affine(x[axis], given[i] + given[len(axes) + i])
    return [tuple(result)]


def expand(node: Node, opset: int, extents: Extents) -> Shapes:
    """Broadcasting with a constant shape."""
    x, target = shape_of(data(node)), extents.elements(data(node, 1))
    if target is None:
        raise Declined("the target is not known")
    rank = max(len(x), len(target))
    pair = zip((1,) * (rank - len(x)) + x, (1,) * (rank - len(target)) + target, strict=True)
    return [tuple(_broadcast(dims) for dims in pair)]


def tile(node: Node, opset: int, extents: Extents) -> Shapes:
    """Each extent times a constant."""
    x, repeats = shape_of(data(node)), integers(node, 1, "repeats") or ()
    return [tuple(affine(n, factor=r) for n, r in zip(x, repeats, strict=True))]


def resize(node: Node, opset: int, extents: Extents) -> Shapes:
    """Constant scales, or constant sizes."""
    x = shape_of(data(node))
    if (
        attribute(node, "axes") is not None
        or attribute(node, "keep_aspect_ratio_policy", "stretch") != "stretch"
    ):
        raise Declined("a rare form")
    if opset >= 11 and operand(node, 3) is not None:
        return [extents.elements(operand(node, 3))]
    scales = operand(node, 1 if opset < 11 else 2)
    listed = attribute(node, "scales")
    if scales is not None:
        if scales.constant is None:
            raise Declined("the scales are computed")
        listed = np.asarray(scales.constant.array()).tolist()
    if not listed:
        raise Declined("neither scales nor sizes")
    return [tuple(_scaled(n, float(scale), extents) for n, scale in zip(x, listed, strict=True))]


def _scaled(n: Dim, scale: float, extents: Extents) -> Dim:
    require(math.isfinite(scale), f"an extent is scaled by {scale}")
    if isinstance(n, int):
        return int(np.floor(n * scale))
    return affine(n, factor=int(scale)) if scale == int(scale) else None


def shape(node: Node, opset: int, extents: Extents) -> Shapes:
    """As many numbers as the input has axes."""
    x = shape_of(data(node))
    return [(len(x[attribute(node, "start", 0) : attribute(node, "end")]),)]


def constant(node: Node, opset: int, extents: Extents) -> Shapes:
    """What the node holds."""
    held = node.outputs[0].constant
    return [held.shape] if held is not None else []


def constant_of_shape(node: Node, opset: int, extents: Extents) -> Shapes:
    """A constant shape."""
    return [extents.elements(data(node))]


def scalar(node: Node, opset: int, extents: Extents) -> Shapes:
    """One number."""
    return [()]


# fmt: off
_UNARY: Final = (
    "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "BitwiseNot", "Cast", "Ceil", "Celu",
    "Clip", "Cos", "Cosh", "CumSum", "DequantizeLinear", "Dropout", "Elu", "Erf", "Exp", "Floor",
    "Gelu", "GroupNormalization", "HardSigmoid", "HardSwish", "Hardmax", "Identity",
    "InstanceNormalization", "IsInf", "IsNaN", "LRN", "LeakyRelu", "Log", "LogSoftmax",
    "LpNormalization", "MeanVarianceNormalization", "Mish", "Neg", "Not", "PRelu", "QuantizeLinear",
    "Reciprocal", "Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Softmax",
    "Softplus", "Softsign", "Sqrt", "Swish", "Tan", "Tanh", "ThresholdedRelu", "Trilu", "ScatterND",
    "ScatterElements",
)
_FIRST: Final = (
    "BatchNormalization", "LayerNormalization", "RMSNormalization",
)
_COMPARISONS: Final = (
    "And", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Or", "Xor",
)
_ELEMENTWISE: Final = (
    "Add", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Div", "Max", "Mean", "Min", "Mod", "Mul", "Pow",
    "Sub", "Sum",
)
_REDUCTIONS: Final = (
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin",
    "ReduceProd", "ReduceSum", "ReduceSumSquare",
)
# fmt: on

SHAPE_RULES: Final[dict[str, Rule]] = {
    **dict.fromkeys(_UNARY, same),
    **dict.fromkeys(_FIRST, same_first),
    **dict.fromkeys([*_COMPARISONS, *_ELEMENTWISE, "Where"], broadcast),
    **dict.fromkeys(_REDUCTIONS, reduce_),
    "ArgMax": arg_extremum,
    "ArgMin": arg_extremum,
    "AveragePool": pool,
    "Concat": concat,
    "Constant": constant,
    "ConstantOfShape": constant_of_shape,
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "Expand": expand,
    "Flatten": flatten,
    "Gather": gather,
    "Gemm": gemm,
    "GlobalAveragePool": global_pool,
    "GlobalMaxPool": global_pool,
    "MatMul": matmul,
    "MaxPool": pool,
    "Pad": pad,
    "Reshape": reshape,
    "Resize": resize,
    "Shape": shape,
    "Size": scalar,
    "Slice": slice_,
    "Split": split,
    "Squeeze": squeeze,
    "Tile": tile,
    "Transpose": transpose,
    "Unsqueeze": unsqueeze,
    "Upsample": resize,
}


TypeRule = Callable[[Node], list[str | None]]


def _of_input(index: int) -> TypeRule:
    def rule(node: Node) -> list[str | None]:
        value = operand(node, index)
        return [None if value is None else value.dtype] * len(node.outputs)

    return rule


def _constant_type(node: Node) -> list[str | None]:
    held = node.outputs[0].constant
    return [None if held is None else held.dtype or None]


def _filled_type(node: Node) -> list[str | None]:
    value = attribute(node, "value")
    return ["float32" if value is None else DTYPES.get(value.dtype)]


_FIRST_INPUT: Final = _of_input(0)


def _always(dtype: str) -> TypeRule:
    return lambda node: [dtype] * len(node.outputs)


DTYPE_RULES: Final[dict[str, TypeRule]] = {
    **dict.fromkeys(SHAPE_RULES, _FIRST_INPUT),
    **dict.fromkeys([*_COMPARISONS, "Not", "IsInf", "IsNaN"], _always("bool")),
    **dict.fromkeys(["ArgMax", "ArgMin", "Shape", "Size"], _always("int64")),
    "BatchNormalization": lambda node: [_FIRST_INPUT(node)[0]],
    "Cast": lambda node: [DTYPES.get(attribute(node, "to"))],
    "Constant": _constant_type,
    "ConstantOfShape": _filled_type,
    "DequantizeLinear": _of_input(1),
    "Dropout": lambda node: [_FIRST_INPUT(node)[0], "bool"],
    "LayerNormalization": lambda node: [_FIRST_INPUT(node)[0]],
    "MaxPool": lambda node: [_FIRST_INPUT(node)[0], "int64"],
    "QuantizeLinear": lambda node: [value.dtype if (value := operand(node, 2)) is not None else None],
    "RMSNormalization": lambda node: [_FIRST_INPUT(node)[0]],
    "Where": _of_input(1),
}

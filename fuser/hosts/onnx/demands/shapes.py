"""One rule per operator: the extents of its outputs, and what it demands of those of its inputs.

A rule raises `Unknown` where it has nothing to go by; an output whose shape is not known is None.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from math import prod
from typing import Final

from fuser.hosts.onnx.demands import sums
from fuser.hosts.onnx.demands.sums import together
from fuser.hosts.onnx.demands.tensors import Call, Shapes, Unknown, known
from fuser.judge.forms import Extent, Known, added, least, minus, most, negative, over, plus, times

Rule = Callable[[Call], Shapes]

FAR: Final = 2**31 - 1
"""A bound of a Slice from here on is the end of the axis."""


def same(call: Call) -> Shapes:
    """Every output as the first input."""
    return [call.dims(0)] * call.outputs


def first(call: Call) -> Shapes:
    """The first output as the first input, others scalar."""
    return [call.dims(0), *[()] * (call.outputs - 1)]


def broadcast(call: Call) -> Shapes:
    """Numpy broadcasting of all inputs."""
    return [together(call, [call.dims(i) for i in range(len(call.inputs)) if call.given(i)])]


def concat(call: Call) -> Shapes:
    """Extents of one axis added, the others equal."""
    shapes = [call.dims(i) for i in range(len(call.inputs))]
    axis = call.attribute("axis", 1) % len(shapes[0])
    result = list(shapes[0])
    for dims in shapes[1:]:
        for i, extent in enumerate(dims):
            if i != axis:
                call.demands.equal(result[i], extent)
                if result[i] is None or isinstance(extent, int):
                    result[i] = extent
    result[axis] = plus(*(dims[axis] for dims in shapes))
    return [tuple(result)]


def split(call: Call) -> Shapes:
    """One axis in parts that add up to it."""
    x = call.dims(0)
    axis = call.attribute("axis", 0) % len(x)
    sizes = call.listed("split", 1)
    if sizes is None:
        each = over(plus(x[axis], call.outputs - 1), call.outputs)
        sizes = (*[each] * (call.outputs - 1), minus(x[axis], times(each, call.outputs - 1)))
    call.demands.equal(x[axis], plus(*sizes))
    return [(*x[:axis], size, *x[axis + 1 :]) for size in sizes]


def flatten(call: Call) -> Shapes:
    """A matrix."""
    x, axis = call.dims(0), call.attribute("axis", 1)
    axis += len(x) if axis < 0 else 0
    return [(times(*x[:axis]), times(*x[axis:]))]


def reshape(call: Call) -> Shapes:
    """As many elements as before: -1 is what remains, and has to be whole."""
    x = call.dims(0)
    target = known(call.listed("shape", 1), tuple)
    kept = not call.attribute("allowzero", 0)
    result = [x[i] if n == 0 and kept and i < len(x) else n for i, n in enumerate(target)]
    left, taken = _uncommon(list(x), [n for n in result if n != -1])
    whole, part = times(*left), times(*taken)
    if -1 in result:
        result[result.index(-1)] = over(whole, part)
        call.demands.parts(whole, part)
    else:
        call.demands.equal(whole, part)
        if isinstance(part, int):
            for extent in left:
                call.demands.kink(extent, part)
    return [tuple(result)]


def _uncommon(left: list[Extent], right: list[Extent]) -> tuple[list[Extent], list[Extent]]:
    """Two products without the extents that both have."""
    for extent in list(right):
        if extent is not None and extent in left:
            left.remove(extent)
            right.remove(extent)
    whole, part = (prod(n for n in side if isinstance(n, int)) for side in (left, right))
    if whole and part and whole % part == 0:
        left = [whole // part, *(n for n in left if not isinstance(n, int))]
        right = [n for n in right if not isinstance(n, int)]
    return left, right


def transpose(call: Call) -> Shapes:
    """Axes in another order."""
    x = call.dims(0)
    return [tuple(x[axis] for axis in call.attribute("perm", range(len(x))[::-1]))]


def squeeze(call: Call) -> Shapes:
    """Axes of extent 1 removed."""
    x, axes = call.dims(0), call.listed("axes", 1)
    if axes is None:
        return [tuple(n for n in x if n != 1)]
    gone = {axis % len(x) for axis in axes if isinstance(axis, int)}
    for axis in gone:
        call.demands.equal(x[axis], 1)
    return [tuple(n for i, n in enumerate(x) if i not in gone)]


def unsqueeze(call: Call) -> Shapes:
    """Axes of extent 1 inserted."""
    x, axes = call.dims(0), call.listed("axes", 1) or ()
    rank, rest = len(x) + len(axes), iter(x)
    new = {axis % rank for axis in axes if isinstance(axis, int)}
    return [tuple(1 if i in new else next(rest) for i in range(rank))]


def reduction(call: Call) -> Shapes:
    """Axes that become 1 or vanish."""
    x = call.dims(0)
    alone = call.attribute("axis", 0) if call.kind.startswith("Arg") else None
    axes = (alone,) if alone is not None else call.listed("axes", 1)
    if not axes and call.attribute("noop_with_empty_axes", 0):
        return [x]
    gone = {axis % len(x) for axis in axes if isinstance(axis, int)} if axes else set(range(len(x)))
    if call.attribute("keepdims", 1):
        return [tuple(1 if i in gone else n for i, n in enumerate(x))]
    return [tuple(n for i, n in enumerate(x) if i not in gone)]


def gather(call: Call) -> Shapes:
    """The indices in place of an axis."""
    x, indices = call.dims(0), call.dims(1)
    axis = call.attribute("axis", 0) % len(x)
    return [(*x[:axis], *indices, *x[axis + 1 :])]


def gather_elements(call: Call) -> Shapes:
    """As the indices."""
    return [call.dims(1)]


def gather_nd(call: Call) -> Shapes:
    """The last axis of the indices in place of the axes that it indexes."""
    x, indices, batch = call.dims(0), call.dims(1), call.attribute("batch_dims", 0)
    return [(*indices[:-1], *x[batch + known(indices[-1], int) :])]


def slice_(call: Call) -> Shapes:
    """A range of each axis."""
    x = call.dims(0)
    starts, ends, axes, steps = (
        call.listed(name, i) for i, name in enumerate(("starts", "ends", "axes", "steps"), start=1)
    )
    starts, ends = starts or (), ends or ()
    result = list(x)
    for i, axis in enumerate(axes if axes is not None else range(len(starts))):
        place = known(axis, int)
        result[place] = cut(call, x[place], starts[i], ends[i], steps[i] if steps else 1)
    return [tuple(result)]


def cut(call: Call, n: Extent, start: Extent, end: Extent, step: Extent) -> Extent:
    """How much of an axis a range has; it must have something, and be tried on both sides of its ends."""
    for bound in (start, end):
        call.demands.kink(n, bound if bound is not None and bound != 0 else None)
    if not isinstance(step, int) or n is None or start is None or end is None:
        return None
    if step < 0:
        return n if step == -1 and start == -1 and isinstance(end, int) and end <= -FAR else None
    # Something is left, so the start lies inside.
    low = most(added(n, start), 0) if negative(start) else start
    extent = minus(_end(n, end), low)
    call.demands.fits(1, extent)
    return over(plus(extent, step - 1), step)


def _end(n: Known, bound: Known) -> Extent:
    """Where a range ends, counted from the front."""
    if isinstance(bound, int) and bound >= FAR:
        return n
    return plus(n, bound) if negative(bound) else least(n, bound)


def pad(call: Call) -> Shapes:
    """Extents enlarged, or cut where pads are negative."""
    x = call.dims(0)
    amounts = known(call.listed("pads", 1), tuple)
    axes = (call.listed("axes", 3) if "pads" not in call.attributes else None) or tuple(range(len(x)))
    result = list(x)
    for i, axis in enumerate(axes):
        if isinstance(axis, int):
            result[axis] = plus(x[axis], amounts[i], amounts[i + len(axes)])
            call.demands.fits(1, result[axis])
            reflected = call.text("mode", "constant") == "reflect"
            for amount in (amounts[i], amounts[i + len(axes)]):
                call.demands.kink(x[axis], amount)
                call.demands.fits(plus(amount, 1) if reflected else 0, x[axis])
    return [tuple(result)]


def expand(call: Call) -> Shapes:
    """Broadcasting with a shape."""
    return [together(call, [call.dims(0), known(call.input(1).elements, tuple)])]


def tile(call: Call) -> Shapes:
    """Each extent so many times."""
    x, repeats = call.dims(0), known(call.input(1).elements, tuple)
    return [tuple(times(n, r) for n, r in zip(x, repeats, strict=True))]


def resize(call: Call) -> Shapes:
    """Scales, or sizes."""
    x = call.dims(0)
    place = 1 if call.kind == "Upsample" or call.opset < 11 else 2
    if "axes" in call.attributes:
        raise Unknown
    if place == 2 and call.given(3) and call.input(3).dims != (0,):
        return [call.input(3).elements]
    held = call.input(place).array
    listed = call.attribute("scales", None if held is None else held.tolist())
    if not listed or len(listed) != len(x):
        raise Unknown
    ratios = [Fraction(scale).limit_denominator(64) for scale in listed]
    return [tuple(over(times(n, r.numerator), r.denominator) for n, r in zip(x, ratios, strict=True))]


def shape(call: Call) -> Shapes:
    """As many numbers as the input has axes, between start and end."""
    return [(len(call.dims(0)[call.attribute("start", 0) : call.attribute("end")]),)]


def from_elements(call: Call) -> Shapes:
    """A shape that is an input."""
    return [call.input(0).elements]


def range_(call: Call) -> Shapes:
    """Start to limit, by a step."""
    ends = [call.input(i).elements for i in range(3)]
    if any(end is None or len(end) != 1 for end in ends):
        return [(None,)]
    (start, limit, step) = (end[0] for end in ends if end is not None)
    length = minus(limit, start)
    call.demands.fits(1, length)
    return [(over(length, step) if isinstance(step, int) and step > 0 else None,)]


def one_hot(call: Call) -> Shapes:
    """A new axis as deep as is said."""
    x, depth = call.dims(0), call.input(1).elements
    axis = call.attribute("axis", -1) % (len(x) + 1)
    return [(*x[:axis], depth[0] if depth else None, *x[axis:])]


def top_k(call: Call) -> Shapes:
    """So many of an axis, which has to have them."""
    x, count = call.dims(0), call.input(1).elements
    axis, k = call.attribute("axis", -1) % len(x), count[0] if count else call.attribute("k")
    call.demands.fits(k, x[axis])
    call.demands.kink(x[axis], k)
    return [(*x[:axis], k, *x[axis + 1 :])] * 2


def space(call: Call) -> Shapes:
    """DepthToSpace and SpaceToDepth."""
    (n, c, *spatial), b = call.dims(0), call.attribute("blocksize")
    if call.kind == "DepthToSpace":
        call.demands.parts(c, b * b)
        return [(n, over(c, b * b), *(times(m, b) for m in spatial))]
    for extent in spatial:
        call.demands.parts(extent, b)
    return [(n, times(c, b * b), *(over(m, b) for m in spatial))]


def non_zero(call: Call) -> Shapes:
    """As many columns as there are."""
    return [(len(call.dims(0)), None)]


def scalar(call: Call) -> Shapes:
    """One number."""
    return [()] * call.outputs


# fmt: off
_UNARY: Final = (
    "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "BitwiseNot", "Cast", "CastLike", "Ceil",
    "Celu", "Clip", "Cos", "Cosh", "CumSum", "DequantizeLinear", "Dropout", "Elu", "Erf", "Exp", "Floor",
    "Gelu", "HardSigmoid", "HardSwish", "Hardmax", "Identity", "IsInf", "IsNaN", "LRN", "LeakyRelu", "Log",
    "LogSoftmax", "LpNormalization", "MeanVarianceNormalization", "Mish", "Neg", "Not", "QuantizeLinear",
    "Reciprocal", "Relu", "ReverseSequence", "Round", "ScatterElements", "ScatterND", "Selu", "Shrink",
    "Sigmoid", "Sign", "Sin", "Sinh", "Softmax", "Softplus", "Softsign", "Sqrt", "Swish", "Tan", "Tanh",
    "ThresholdedRelu", "Trilu", "EyeLike", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Scatter",
)
_ELEMENTWISE: Final = (
    "Add", "And", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Div", "Equal", "Greater",
    "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Mean", "Min", "Mod", "Mul", "Or", "PRelu", "Pow", "Sub",
    "Sum", "Where", "Xor",
)
_REDUCTIONS: Final = (
    "ArgMax", "ArgMin", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean",
    "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare",
)
# fmt: on

SHAPES: Final[dict[str, Rule]] = {
    **dict.fromkeys(_UNARY, same),
    **dict.fromkeys(_ELEMENTWISE, broadcast),
    **dict.fromkeys(_REDUCTIONS, reduction),
    **dict.fromkeys(["Conv", "ConvInteger", "QLinearConv"], sums.conv),
    **dict.fromkeys(["AveragePool", "LpPool", "MaxPool"], sums.pool),
    **dict.fromkeys(["GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool"], sums.global_pool),
    **dict.fromkeys(["GRU", "LSTM", "RNN"], sums.recurrent),
    **dict.fromkeys(
        [
            "BatchNormalization",
            "GroupNormalization",
            "InstanceNormalization",
            "LayerNormalization",
            "RMSNormalization",
        ],
        sums.affine,
    ),
    **dict.fromkeys(["MatMul", "MatMulInteger"], sums.matmul),
    **dict.fromkeys(["Resize", "Upsample"], resize),
    **dict.fromkeys(["DepthToSpace", "SpaceToDepth"], space),
    "Concat": concat,
    "ConstantOfShape": from_elements,
    "ConvTranspose": sums.conv_transpose,
    "DynamicQuantizeLinear": first,
    "Einsum": sums.einsum,
    "Expand": expand,
    "Flatten": flatten,
    "Gather": gather,
    "GatherElements": gather_elements,
    "GatherND": gather_nd,
    "Gemm": sums.gemm,
    "GridSample": sums.grid_sample,
    "NonZero": non_zero,
    "OneHot": one_hot,
    "Pad": pad,
    "Range": range_,
    "Reshape": reshape,
    "Shape": shape,
    "Size": scalar,
    "Slice": slice_,
    "Split": split,
    "Squeeze": squeeze,
    "Tile": tile,
    "TopK": top_k,
    "Transpose": transpose,
    "Unsqueeze": unsqueeze,
}

"""The table of numpy kernels behind `evaluate.py`: one function per operator, `(node, *inputs) -> outputs`.

A kernel that meets a case that it does not cover returns NotImplemented, and the reference implementation
takes over. It takes 0.07 to 0.13 ms for any operator, 8 to 35 times as long as these do for Add, Relu,
Concat, Split, Reshape, Slice and Transpose of [1, 32, 28, 28] (onnx 1.23), and models are evaluated node by
node, many times over.
"""

# Every kernel has the signature of the table.
# ruff: noqa: ARG001, ARG005

from collections.abc import Callable
from math import prod
from typing import Any, Final

import numpy as np
import onnx_ir
from numpy.typing import NDArray

from fuser.hosts.onnx.standard.kernel import Kernel
from fuser.hosts.onnx.standard.special import erf, gather_elements, gelu, resize, scatter_elements
from fuser.hosts.onnx.standard.windows import batch_norm, conv, conv_transpose, pool

Array = NDArray[Any]
Result = Any
Compute = Callable[..., Result]


def _unary(function: Callable[[Array], Array]) -> Compute:
    return lambda node, x: function(x)


def _fold(function: Callable[[Array, Array], Array]) -> Compute:
    """An operator on any number of tensors, two at a time."""

    def compute(node: Kernel, first: Array, *rest: Array) -> Result:
        for other in rest:
            first = function(first, other)
        return first

    return compute


def sigmoid(node: Kernel, x: Array) -> Result:
    """1 / (1 + exp(-x)), without overflow."""
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + small), small / (1 + small)).astype(x.dtype)


def hard_sigmoid(node: Kernel, x: Array) -> Result:
    """max(0, min(1, alpha * x + beta))."""
    return np.clip(x * node.attribute("alpha", 0.2) + node.attribute("beta", 0.5), 0, 1).astype(x.dtype)


def hard_swish(node: Kernel, x: Array) -> Result:
    """x * max(0, min(1, x / 6 + 1 / 2))."""
    return (x * np.clip(x / 6 + 0.5, 0, 1)).astype(x.dtype)


def leaky_relu(node: Kernel, x: Array) -> Result:
    """x where positive, alpha * x elsewhere."""
    return np.where(x >= 0, x, x * node.attribute("alpha", 0.01)).astype(x.dtype)


def elu(node: Kernel, x: Array) -> Result:
    """x where positive, alpha * (exp(x) - 1) elsewhere."""
    return np.where(x > 0, x, node.attribute("alpha", 1.0) * np.expm1(np.minimum(x, 0))).astype(x.dtype)


def clip(node: Kernel, x: Array, low: Array | None = None, high: Array | None = None) -> Result:
    """x between two bounds, each of which may be absent."""
    low = node.attribute("min") if low is None else low
    high = node.attribute("max") if high is None else high
    if low is not None:
        x = np.maximum(x, np.asarray(low, dtype=x.dtype))
    return x if high is None else np.minimum(x, np.asarray(high, dtype=x.dtype))


def divide(node: Kernel, x: Array, y: Array) -> Result:
    """x / y; for integers rounded towards zero."""
    if np.issubdtype(x.dtype, np.integer):
        if not y.all():
            return NotImplemented
        quotient = np.abs(x) // np.abs(y)
        return (quotient * np.sign(x) * np.sign(y)).astype(x.dtype)
    return x / y


def power(node: Kernel, x: Array, y: Array) -> Result:
    """x to the power of y, in the type of x."""
    return np.power(x, y).astype(x.dtype)


def mean(node: Kernel, *terms: Array) -> Result:
    """The mean of tensors."""
    return (sum(terms[1:], start=terms[0]) / len(terms)).astype(terms[0].dtype)


def softmax(node: Kernel, x: Array) -> Result:
    """exp(x) / sum(exp(x)) along an axis; before opset 13 over all axes from it on."""
    axis = node.attribute("axis", -1 if node.opset >= 13 else 1)
    axes = (axis,) if node.opset >= 13 else tuple(range(axis % x.ndim, x.ndim))
    shifted = np.exp(x - x.max(axis=axes, keepdims=True))
    return shifted / shifted.sum(axis=axes, keepdims=True)


def cast(node: Kernel, x: Array) -> Result:
    """x in another type."""
    target = onnx_ir.DataType(node.attribute("to"))
    # What numpy has no such type for, and what overflows, is left to the reference.
    if target.name not in _PLAIN or x.dtype.kind not in "fiub":
        return NotImplemented
    if target.is_integer() and x.dtype.kind == "f" and not np.isfinite(x).all():
        return NotImplemented
    return x.astype(target.numpy())


_PLAIN: Final = frozenset(
    {
        "FLOAT",
        "DOUBLE",
        "FLOAT16",
        "INT8",
        "INT16",
        "INT32",
        "INT64",
        "UINT8",
        "UINT16",
        "UINT32",
        "UINT64",
        "BOOL",
    }
)


# Shapes and moving data about.


def constant(node: Kernel) -> Result:
    """What the node holds."""
    for name, entry in node.node.attributes.items():
        if name == "value":
            return entry.value.numpy()
        if name in ("value_float", "value_floats"):
            return np.asarray(entry.value, dtype=np.float32)
        if name in ("value_int", "value_ints"):
            return np.asarray(entry.value, dtype=np.int64)
    return NotImplemented


def shape(node: Kernel, x: Array) -> Result:
    """The extents of x."""
    return np.array(x.shape[node.attribute("start", 0) : node.attribute("end")], dtype=np.int64)


def reshape(node: Kernel, x: Array, target: Array | None = None) -> Result:
    """x in another shape: 0 keeps an axis, -1 is what remains."""
    wanted = node.list_of("shape", target) or []
    if not node.attribute("allowzero", 0):
        wanted = [x.shape[i] if n == 0 else n for i, n in enumerate(wanted)]
    return x.reshape(wanted)


def flatten(node: Kernel, x: Array) -> Result:
    """x as a matrix, split at an axis."""
    axis = node.attribute("axis", 1)
    axis = axis + x.ndim if axis < 0 else axis
    return x.reshape(prod(x.shape[:axis]), prod(x.shape[axis:]))


def squeeze(node: Kernel, x: Array, axes: Array | None = None) -> Result:
    """x without axes of extent 1."""
    listed = node.list_of("axes", axes)
    return np.squeeze(x) if listed is None else np.squeeze(x, axis=tuple(listed))


def unsqueeze(node: Kernel, x: Array, axes: Array | None = None) -> Result:
    """x with new axes of extent 1."""
    return np.expand_dims(x, tuple(node.list_of("axes", axes) or ()))


def concat(node: Kernel, *parts: Array) -> Result:
    """Tensors one behind the other."""
    return np.concatenate(parts, axis=node.attribute("axis", 1))


def split(node: Kernel, x: Array, sizes: Array | None = None) -> Result:
    """x in parts."""
    axis, count = node.attribute("axis", 0), len(node.node.outputs)
    listed = node.list_of("split", sizes)
    if listed is None:
        size = -(-x.shape[axis] // count)
        listed = [size] * count
    return np.split(x, np.cumsum(listed)[:-1], axis=axis)


def slice_(
    node: Kernel,
    x: Array,
    starts: Array | None = None,
    ends: Array | None = None,
    axes: Array | None = None,
    steps: Array | None = None,
) -> Result:
    """A range of each axis."""
    first, last = node.list_of("starts", starts) or [], node.list_of("ends", ends) or []
    along = node.list_of("axes", axes) or list(range(len(first)))
    by = [1] * len(first) if steps is None else steps.reshape(-1).tolist()
    index = [slice(None)] * x.ndim
    for a, start, end, step in zip(along, first, last, by, strict=True):
        n = x.shape[a]
        # An end before the first element, which a backward slice may have, is None in Python.
        stop = None if step < 0 and end < -n else end
        index[a] = slice(start if step > 0 or start < n else None, stop, step)
    return x[tuple(index)]


def gather(node: Kernel, x: Array, indices: Array) -> Result:
    """Elements of an axis by their index."""
    return np.take(x, indices, axis=node.attribute("axis", 0))


def transpose(node: Kernel, x: Array) -> Result:
    """x with its axes in another order."""
    return np.transpose(x, node.attribute("perm"))


def expand(node: Kernel, x: Array, target: Array) -> Result:
    """x repeated along axes of extent 1."""
    return np.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(target.tolist())))


def constant_of_shape(node: Kernel, extents: Array) -> Result:
    """A tensor of one value."""
    entry = node.node.attributes.get("value")
    value = np.zeros(1, np.float32) if entry is None else entry.value.numpy()
    return np.full(tuple(extents.tolist()), value.reshape(-1)[0], dtype=value.dtype)


def pad(
    node: Kernel, x: Array, pads: Array | None = None, value: Array | None = None, axes: Array | None = None
) -> Result:
    """x extended by a constant; negative pads crop."""
    if node.attribute("mode", "constant") != "constant":
        return NotImplemented
    given = node.list_of("pads", pads) or []
    along = list(range(x.ndim)) if axes is None else [a % x.ndim for a in axes.reshape(-1).tolist()]
    before, after = [0] * x.ndim, [0] * x.ndim
    for i, axis in enumerate(along):
        before[axis], after[axis] = given[i], given[len(along) + i]
    fill = node.attribute("value", 0.0) if value is None else value.reshape(())
    crop = tuple(slice(max(0, -b), n - max(0, -e)) for n, b, e in zip(x.shape, before, after, strict=True))
    widths = [(max(0, b), max(0, e)) for b, e in zip(before, after, strict=True)]
    return np.pad(x[crop], widths, constant_values=np.asarray(fill, dtype=x.dtype))


def range_(node: Kernel, start: Array, limit: Array, step: Array) -> Result:
    """Numbers from one to another in steps."""
    return np.arange(start.item(), limit.item(), step.item(), dtype=start.dtype)


def gather_nd(node: Kernel, x: Array, indices: Array) -> Result:
    """Elements or slices by a list of indices each."""
    if node.attribute("batch_dims", 0):
        return NotImplemented
    return x[tuple(np.moveaxis(indices, -1, 0))]


def scatter_nd(node: Kernel, x: Array, indices: Array, updates: Array) -> Result:
    """x with elements or slices replaced, each found by a list of indices."""
    if (
        node.attribute("reduction", "none") != "none"
        or updates.shape != indices.shape[:-1] + x.shape[indices.shape[-1] :]
    ):
        return NotImplemented
    result = np.array(x, dtype=np.result_type(x, updates))
    result[tuple(np.moveaxis(indices, -1, 0))] = updates
    return result


# Reductions, matrices, windows.


def _reduce(function: Callable[..., Array]) -> Compute:
    def compute(node: Kernel, x: Array, axes: Array | None = None) -> Result:
        listed = node.list_of("axes", axes)
        if not listed and node.attribute("noop_with_empty_axes", 0):
            return NotImplemented
        along = tuple(listed) if listed else None
        return function(x, axis=along, keepdims=bool(node.attribute("keepdims", 1))).astype(x.dtype)

    return compute


def _global(function: Callable[..., Array]) -> Compute:
    return lambda node, x: function(x, axis=tuple(range(2, x.ndim)), keepdims=True)


def matmul(node: Kernel, a: Array, b: Array) -> Result:
    """Matrix product. For the short floating-point types numpy would answer in a longer one."""
    return np.matmul(a, b).astype(np.result_type(a, b))


def gemm(node: Kernel, a: Array, b: Array, c: Array | None = None) -> Result:
    """alpha * A B + beta * C."""
    a = a.T if node.attribute("transA", 0) else a
    b = b.T if node.attribute("transB", 0) else b
    product = node.attribute("alpha", 1.0) * (a @ b)
    total = product if c is None else product + node.attribute("beta", 1.0) * c
    return total.astype(np.result_type(a, b))


KERNELS: Final[dict[str, Compute]] = {
    "Abs": _unary(np.abs),
    "Add": _fold(np.add),
    "And": _fold(np.logical_and),
    "AveragePool": pool,
    "BatchNormalization": batch_norm,
    "Cast": cast,
    "Clip": clip,
    "Concat": concat,
    "Constant": constant,
    "ConstantOfShape": constant_of_shape,
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "Div": divide,
    "Elu": elu,
    "Equal": _fold(np.equal),
    "Erf": erf,
    "Exp": _unary(np.exp),
    "Expand": expand,
    "Flatten": flatten,
    "Gather": gather,
    "GatherElements": gather_elements,
    "GatherND": gather_nd,
    "Gelu": gelu,
    "Gemm": gemm,
    "GlobalAveragePool": _global(np.mean),
    "GlobalMaxPool": _global(np.max),
    "Greater": _fold(np.greater),
    "HardSigmoid": hard_sigmoid,
    "HardSwish": hard_swish,
    "Identity": _unary(lambda x: x),
    "LeakyRelu": leaky_relu,
    "Less": _fold(np.less),
    "Log": _unary(np.log),
    "MatMul": matmul,
    "Max": _fold(np.maximum),
    "MaxPool": pool,
    "Mean": mean,
    "Min": _fold(np.minimum),
    "Mul": _fold(np.multiply),
    "Neg": _unary(np.negative),
    "Not": _unary(np.logical_not),
    "Or": _fold(np.logical_or),
    "PRelu": lambda node, x, slope: np.where(x >= 0, x, x * slope),
    "Pad": pad,
    "Pow": power,
    "Range": range_,
    "Reciprocal": _unary(np.reciprocal),
    "ReduceMax": _reduce(np.max),
    "ReduceMean": _reduce(np.mean),
    "ReduceMin": _reduce(np.min),
    "ReduceProd": _reduce(np.prod),
    "ReduceSum": _reduce(np.sum),
    "Relu": _unary(lambda x: np.maximum(x, x.dtype.type(0))),
    "Reshape": reshape,
    "Resize": resize,
    "ScatterElements": scatter_elements,
    "ScatterND": scatter_nd,
    "Shape": shape,
    "Sigmoid": sigmoid,
    "Slice": slice_,
    "Softmax": softmax,
    "Split": split,
    "Sqrt": _unary(np.sqrt),
    "Squeeze": squeeze,
    "Sub": _fold(np.subtract),
    "Sum": _fold(np.add),
    "Tanh": _unary(np.tanh),
    "Transpose": transpose,
    "Unsqueeze": unsqueeze,
    "Where": lambda node, condition, x, y: np.where(condition, x, y),
}

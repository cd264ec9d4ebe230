"""What torch has beside the operators of the standard, or has otherwise: records by kind.

Kinds in small letters are torch's own, and so are Linear and the adaptive pools, which the standard has not
either. Of the others these records stand in place of the catalogue's, where torch's operator takes more:
numbers beside tensors, a matrix that is repeated for each image, a shape that is asked for elsewhere in the
graph.
"""

from dataclasses import replace
from functools import partial
from typing import Any, Final

import numpy as np
import torch
from torch import fx

from fuser.algebra.conv import Conv
from fuser.errors import Declined, require
from fuser.hosts.operators import catalogue, channels, convolutions
from fuser.hosts.operators.call import (
    Call,
    attribute,
    bias_of,
    constant,
    data,
    ints,
    nothing,
    rank_of,
    require_channels,
    same_shape,
)
from fuser.hosts.operators.extents import Extents, Shape, Shapes, like_first, shape_of
from fuser.hosts.operators.layout import lift_axes, lift_same_shape, reshape
from fuser.hosts.operators.linear import linear
from fuser.hosts.operators.operator import FIRST, PAIR, Constants, Operator, all_inputs, in_inputs
from fuser.hosts.torch.describe import described
from fuser.ir.constant import Constant
from fuser.ir.extents import Dim, affine, window
from fuser.ir.literals import RIGID, UNIFORM
from fuser.ir.node import Apply, Node, Value
from fuser.ir.ops import Opaque, Sum

# Copies, and what is the same elements.


def lift_identity(call: Call, node: Node) -> Apply:
    """Identity(x)  ->  x, which is a tensor, whatever its type."""
    del call
    return nothing(data(node))


def lift_slice(call: Call, node: Node) -> Apply | None:
    """A slice of a tensor, which is what has a shape: anything may be indexed in Python."""
    return None if data(node).shape is None else channels.lift_slice(call, node)


def lift_copy(call: Call, node: Node) -> Apply | None:
    """clone(x), contiguous(x)  ->  x, where its readers make tensors of their own, laid out as before.

    Decompositions leave a copy for a dropout that drops nothing. What works element by element hands the
    layout of x on; a product of matrices has a layout of its own.
    """
    del call
    assert isinstance(node.source, fx.Node), "a copy is a node of the source"
    (source,) = node.source.all_input_nodes
    layouts = [_layout(described(n)) for n in (source, node.source)]
    kept = layouts[0] is not None and layouts[0] == layouts[1]
    readers = node.outputs[0].users
    products = all(isinstance(user.op, Conv) and user.label == "linear" for user in readers)
    return nothing(data(node)) if (kept or products) and is_only_computed_with(node) else None


def is_only_computed_with(node: Node) -> bool:
    """Whether a copy is read only by what makes a tensor of its own: nobody gets hold of the copy."""
    readers = node.outputs[0].users
    return bool(readers) and all(map(_makes_its_own, readers))


def _makes_its_own(node: Node) -> bool:
    """Whether the result is certain to be a tensor of its own, and no view of what is read."""
    op = node.op
    if isinstance(op, Sum):
        return not op.neutral
    return isinstance(op, Conv) or (isinstance(op, Opaque) and op.kind in FRESH)


def _layout(value: Any) -> tuple[str, ...] | None:
    """The strides of a described tensor, symbolic ones by name."""
    return tuple(map(str, value.stride())) if isinstance(value, torch.Tensor) else None


def lift_reshape(call: Call, node: Node) -> Apply | None:
    """The same elements in another shape: x, a linear layer of more axes, or a reshape."""
    del call
    x, output = data(node), node.outputs[0]
    if same_shape(x.shape, output.shape) and x.dtype == output.dtype:
        return nothing(x)
    return _rows(x, output) or reshape(node)


def _rows(x: Value, output: Value) -> Apply | None:
    """unflatten(linear(flatten(x)))  ->  linear(x).

    So decompositions write a linear layer of more than two axes, and networks a BatchNorm of the last axis.
    """
    layer = x.producer
    if layer is None or not isinstance(layer.op, Conv) or layer.op.axis != -1 or layer.inputs[0] is None:
        return None
    rows = layer.inputs[0].producer
    if rows is None or not isinstance(rows.op, Opaque) or rows.op.kind not in RESHAPES:
        return None
    source = data(rows)
    if source.shape is None or output.shape is None or source.rank == 2:
        return None
    same = same_shape(source.shape[:-1], output.shape[:-1])
    widths = (source.shape[-1], output.shape[-1]) == (layer.op.inputs, layer.op.outputs)
    return Apply(layer.op, (source,), layer.label) if same and widths else None


RESHAPES: Final = frozenset({"Reshape", "reshape_as", "flatten"})


# Products.


def lift_linear(call: Call, node: Node) -> Apply:
    """x W^T + b on the last axis, kernel `[O, I]`."""
    x, weight = data(node), constant(call, node, 1, "weight")
    require(len(weight.shape) == 2, f"the weight has shape {weight.shape}, and not two axes")
    require(x.rank != 1, f"{x.name!r} has one axis, and a linear layer needs two")
    require_channels(x, weight.shape[1], -1)
    bias = bias_of(call, node, 2, weight.shape[0])
    return Apply(linear(weight, bias, transposed=True), (x,), "linear")


def linear_shape(call: Call, node: Node, extents: Extents) -> Shapes:
    """Other channels on the last axis."""
    del call, extents
    x, weight = shape_of(data(node)), shape_of(data(node, 1))
    return [(*x[:-1], weight[0])]


def lift_matmul(call: Call, node: Node) -> Apply | None:
    """x W  ->  a linear layer on the last axis of x; W may be repeated for each x of a batch."""
    del call
    left, right = data(node), data(node, 1)
    weight = _matrix(right)
    if weight is None:
        require(
            left.constant is None,
            f"the constant {left.name!r} is on the left: a map of the last axis but one",
        )
        require(right.constant is None, f"{right.name!r}, of {right.shape}, has matrices that differ")
        return None
    require(rank_of(left) >= 2, f"{left.name!r} has one axis, and a linear layer needs two")
    output = node.outputs[0]
    require(
        right.rank == 2 or same_shape(left.shape and left.shape[:-1], output.shape and output.shape[:-1]),
        f"{left.name!r}, of {left.shape}, is repeated to {output.shape}",
    )
    return Apply(linear(weight, None, transposed=False), (left,), "linear")


def _matrix(value: Value) -> Constant | None:
    """The constant matrix that a tensor is, or that it repeats."""
    maker = value.producer
    while maker is not None and isinstance(maker.op, Opaque) and maker.op.kind == "expand":
        source = data(maker)
        if source.shape is None or value.shape is None or source.shape[-2:] != value.shape[-2:]:
            return None
        value, maker = source, source.producer
    weight = value.constant
    if weight is None or len(weight.shape) == 2:
        return weight
    matrices = np.asarray(weight.array()).reshape(-1, *weight.shape[-2:])
    if not len(matrices) or not bool((matrices == matrices[0]).all()):
        return None
    return Constant(weight.shape[-2:], weight.dtype, lambda: weight.array().reshape(matrices.shape)[0])


# Shapes.


def pool_shape(call: Call, node: Node, extents: Extents) -> Shapes:
    """Positions of the window, rounded up where that is asked for.

    One more where one begins inside; one that begins in the padding behind does not count.
    """
    if not attribute(call, "ceil_mode"):
        return convolutions.pool_shape(call, node, extents)
    x = shape_of(data(node))
    size, stride, pads = (ints(call, node, name) or () for name in ("kernel_shape", "strides", "pads"))
    dilation = ints(call, node, "dilations", (1,) * len(size)) or ()
    require(len(size) == len(x) - 2, f"the kernel of {size} does not fit {x}")
    dims: list[Dim] = []
    for n, s, k, p, d in zip(x[2:], stride, size, pads[: len(size)], dilation, strict=True):
        reach = d * (k - 1)
        dims.append(window(n, 2 * p - reach + s - 1, s) if s == 1 or p + s <= reach + 1 else None)
    return [(*x[:2], *dims)]


def adaptive_shape(call: Call, node: Node, extents: Extents) -> Shapes:
    """The extents that are asked for, None those of the data."""
    del extents
    x, sizes = shape_of(data(node)), call.attributes["output_size"]
    require(len(sizes) == len(x) - 2, f"{sizes} does not fit {x}")
    return [(*x[:2], *(n if size is None else size for n, size in zip(x[2:], sizes, strict=True)))]


def flatten_shape(call: Call, node: Node, extents: Extents) -> Shapes:
    """Some axes become one."""
    x = shape_of(data(node))
    start, end = (call.attributes[name] % len(x) for name in ("start", "end"))
    return [(*x[:start], extents.product(x[start : end + 1]), *x[end + 1 :])]


def transpose_shape(call: Call, node: Node, extents: Extents) -> Shapes:
    """Two axes change places."""
    del extents
    shape = list(shape_of(data(node)))
    a, b = call.attributes["axes"]
    shape[a], shape[b] = shape[b], shape[a]
    return [tuple(shape)]


def second_shape(call: Call, node: Node, extents: Extents) -> Shapes:
    """As another tensor."""
    del call, extents
    return [data(node, 1).shape]


def resized_shape(call: Call, node: Node, extents: Extents) -> Shapes:
    """The extents that are asked for."""
    x, sizes = shape_of(data(node)), extents.held(call, node, "size")
    if sizes is None or len(sizes) not in {1, len(x) - 2}:
        raise Declined("the size is not known")
    return [(*x[:2], *(sizes if len(sizes) == len(x) - 2 else sizes * (len(x) - 2)))]


def indexed_shape(call: Call, node: Node, extents: Extents) -> Shapes:
    """Indexing by slices and None."""
    del extents
    x, index = shape_of(data(node)), call.attributes["index"]
    entries = list(index) if isinstance(index, tuple) else [index]
    count = sum(entry is not None and entry is not Ellipsis for entry in entries)
    if Ellipsis in entries:
        at = entries.index(Ellipsis)
        entries[at : at + 1] = [slice(None)] * (len(x) - count)
    dims, result = list(x), list[Dim]()
    for entry in entries:
        if entry is not None and entry != slice(None):
            raise Declined(f"indexing by {entry}")
        result.append(1 if entry is None else dims.pop(0))
    return [(*result, *dims)]


# Extents that a trace asks for, `x.shape[2]` or `x.size(0)`, and what is computed of them.


def extent_elements(call: Call, node: Node, extents: Extents) -> Shape | None:
    """All extents, or that of one axis."""
    del extents
    x, axis = data(node).shape, call.attributes.get("axis")
    if x is None or axis is None:
        return x
    return (x[axis],) if -len(x) <= axis < len(x) else None


def item_elements(call: Call, node: Node, extents: Extents) -> Shape | None:
    """One of several extents."""
    listed, index = extents.elements(data(node)), call.attributes["index"]
    known = listed is not None and isinstance(index, int) and -len(listed) <= index < len(listed)
    return (listed[index],) if known and listed is not None else None


def product_elements(call: Call, node: Node, extents: Extents) -> Shape | None:
    """H * W."""
    del call
    pair = [extents.elements(value) for value in node.inputs]
    dims = [dims[0] for dims in pair if dims is not None and len(dims) == 1]
    return (extents.product(dims),) if len(dims) == 2 else None


def quotient_elements(call: Call, node: Node, extents: Extents) -> Shape | None:
    """H // 2."""
    del call
    pair = [extents.elements(value) or () for value in node.inputs]
    if [len(dims) for dims in pair] != [1, 1]:
        return None
    (n,), (divisor,) = pair
    return (affine(n, divisor=divisor),) if isinstance(divisor, int) and divisor > 0 else None


# Which numbers are held on which axes.


def along(call: Call, constants: Constants) -> tuple[int, ...] | None:
    """The axis that is named, unless the graph computes it."""
    del constants
    axis = call.attributes.get("axis")
    return None if axis is None else (axis,)


def _as_first(kind: str, **facts: Any) -> Operator:
    return Operator(kind, shape=like_first, **facts)


def _moves(kind: str, **facts: Any) -> Operator:
    return Operator(kind, linear=in_inputs(FIRST), **facts)


_elementwise = partial(_as_first, literals=UNIFORM, elementwise=True)
_standard = catalogue.OPERATORS

# fmt: off
ELEMENTWISE: Final = (
    "celu", "clamp_max", "clamp_min", "cos", "elu", "gelu", "hardsigmoid", "hardtanh", "pow", "relu6",
    "rsqrt", "sin", "softplus", "square",
)
LIKE_FIRST: Final = ("group_norm", "layer_norm", "log_softmax", "logsigmoid", "round", "threshold")
MOVES: Final = (
    "diagonal", "flip", "gather", "index", "pixel_shuffle", "pixel_unshuffle", "repeat", "roll", "tile",
    "unfold",
)
# fmt: on

OWN: Final = (
    replace(_standard["Identity"], lift=lift_identity),
    replace(_standard["Reshape"], lift=lift_reshape),
    replace(_standard["Slice"], lift=lift_slice),
    replace(_standard["MatMul"], lift=lift_matmul),
    replace(_standard["AveragePool"], shape=pool_shape),
    replace(_standard["MaxPool"], shape=pool_shape),
    replace(_standard["Mul"], elements=product_elements),
    Operator("Linear", lift_linear, linear_shape, literals=UNIFORM, floating=True),
    Operator("AdaptiveAveragePool", shape=adaptive_shape, homogeneous=True),
    Operator("AdaptiveMaxPool", shape=adaptive_shape, homogeneous=True),
    *map(_elementwise, ELEMENTWISE),
    *map(_as_first, LIKE_FIRST),
    _as_first("prelu", literals=UNIFORM, homogeneous=True),
    _as_first("softmax", literals=UNIFORM),
    *map(_moves, MOVES),
    _moves("clone", lift=lift_copy, literals=UNIFORM),
    _moves("contiguous", lift=lift_copy, literals=UNIFORM),
    _moves("expand", lift=lift_same_shape),
    _moves("flatten", lift=lift_axes, shape=flatten_shape, literals=RIGID),
    _moves("getitem", shape=indexed_shape, elements=item_elements),
    _moves("index_select", literals=along),
    _moves("narrow", literals=along),
    _moves("reshape_as", lift=lift_reshape, shape=second_shape, literals=RIGID),
    _moves("select", literals=along),
    _moves("squeeze", lift=lift_axes, literals=RIGID),
    _moves("t", literals=RIGID),
    _moves("transpose", shape=transpose_shape, literals=RIGID),
    _moves("unflatten", lift=lift_axes, literals=RIGID),
    Operator("copy", linear=in_inputs(PAIR), literals=UNIFORM),
    Operator("detach", literals=UNIFORM),
    *(
        Operator(kind, linear=in_inputs(PAIR))
        for kind in ("diagonal_scatter", "select_scatter", "slice_scatter")
    ),
    *(Operator(kind, linear=lambda _, n: (frozenset({0, n - 1}),)) for kind in ("index_put", "scatter")),
    Operator("stack", linear=all_inputs),
    Operator("where", linear=in_inputs((frozenset({1, 2}),)), literals=UNIFORM),
    Operator("movedim", literals=RIGID),
    Operator("interpolate", shape=resized_shape),
    Operator("to", literals=UNIFORM, retypes=True),
    *(Operator(kind, retypes=True) for kind in ("bfloat16", "double", "float", "half", "type_as")),
    *(
        Operator(kind, of_shape=True)
        for kind in ("new_zeros", "ones_like", "sym_numel", "sym_size", "zeros_like")
    ),
    Operator("size", elements=extent_elements),
    Operator("floordiv", elements=quotient_elements),
)

OPERATORS: Final = _standard | {operator.kind: operator for operator in OWN}

FRESH: Final = frozenset(
    {"AdaptiveAveragePool", "AdaptiveMaxPool", "AveragePool", "BatchNormalization", "Ceil", "Concat", "Conv"}
    | {"ConvTranspose", "Floor", "Gemm", "Linear", "MatMul", "MaxPool", "ReduceMean"}
    | {"clone", "dim", "interpolate", "lift_fresh_copy", "numel", "prelu", "size", "softmax", "sum"}
    | {kind for kind, record in OPERATORS.items() if record.elementwise and kind != "Identity"}
).union(LIKE_FIRST)
"""The result is a tensor of its own. What is not listed may return its operand or a view of it."""

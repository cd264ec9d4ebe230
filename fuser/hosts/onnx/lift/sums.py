"""Lifting of sums, scales, shifts, and of operators that change nothing."""

# Every rule has the signature of the table.
# ruff: noqa: ARG001

from collections.abc import Callable
from typing import Final

import numpy as np

from fuser.algebra.lazy import Array
from fuser.errors import require
from fuser.hosts.lifting import NOTHING, require_fits, require_same_shape, same_shape, with_constant
from fuser.hosts.onnx.idioms import require_no_closing
from fuser.hosts.onnx.node import (
    INT_MAX,
    attribute,
    bounds,
    constant,
    data,
    integers,
    numbers,
    operand,
    source,
)
from fuser.ir.constant import Constant
from fuser.ir.node import Apply, Node, Value
from fuser.ir.ops import Sum

Rule = Callable[[Node, int], Apply | Constant | None]


def nothing(node: Node) -> Apply:
    """The node returns its first input."""
    return Apply(NOTHING, (data(node),))


# Sums, scales and shifts.


def lift_add(node: Node, opset: int) -> Apply:
    """x + c  ->  a shift of each channel; x + y  ->  a sum."""
    return _binary(node, lambda c: (np.ones_like(c), c), (1.0, 1.0))


def lift_sub(node: Node, opset: int) -> Apply:
    """x - c, c - x  ->  a shift of each channel (and a sign); x - y  ->  a sum."""
    if data(node).constant is not None:
        return _binary(node, lambda c: (-np.ones_like(c), c), (1.0, -1.0))
    return _binary(node, lambda c: (np.ones_like(c), -c), (1.0, -1.0))


def lift_mul(node: Node, opset: int) -> Apply | None:
    """x * c, c * x  ->  a scale of each channel."""
    if data(node).constant is None and data(node, 1).constant is None:
        return None
    return _scale(node, lambda c: (c, np.zeros_like(c)))


def lift_div(node: Node, opset: int) -> Apply | None:
    """x / c  ->  a scale of each channel."""
    if data(node, 1).constant is None:
        return None

    def invert(c: Array) -> tuple[Array, Array]:
        require(bool(c.all()), f"{data(node, 1).name!r} holds 0, which cannot divide")
        return 1.0 / c, np.zeros_like(c)

    return _scale(node, invert)


def _scale(node: Node, affine: Callable[[Array], tuple[Array, Array]]) -> Apply | None:
    """A scale, unless it closes an activation."""
    lifted = _binary(node, affine, None)
    if lifted is not None:
        require_no_closing(node, lifted.op)
    return lifted


def lift_neg(node: Node, opset: int) -> Apply | None:
    """-x  ->  a sum of one term."""
    return Apply(Sum((-1.0,)), (data(node),), "sum")


def lift_sum(node: Node, opset: int) -> Apply:
    """Sum of any number of tensors of one shape; terms that are uniform constants become the offset."""
    return _nary(node, 1.0)


def lift_mean(node: Node, opset: int) -> Apply:
    """Mean of any number of tensors of one shape."""
    return _nary(node, 1.0 / len(node.inputs))


def lift_extremum(node: Node, opset: int) -> Apply | None:
    """Max or Min of one tensor  ->  that tensor."""
    return nothing(node) if len(node.inputs) == 1 else None


def _binary(
    node: Node, affine: Callable[[Array], tuple[Array, Array]], signs: tuple[float, float] | None
) -> Apply:
    """Two operands: `affine` gives scale and shift of one where the other is constant; `signs` their sum."""
    left, right = data(node), data(node, 1)
    index = 0 if left.constant is not None else 1
    x, c = (right, left) if index == 0 else (left, right)
    if c.constant is None:
        assert signs is not None, "a product of two tensors is not affine"
        require_same_shape((left, right))
        return Apply(Sum(signs), (left, right), "sum")
    # Before its values are read, which may be many.
    require_fits(c.constant.shape, x)
    return with_constant(x, numbers(node, index, "constant"), affine)


def _nary(node: Node, factor: float) -> Apply:
    """Sum or Mean: uniform constants into the offset, the rest added."""
    terms: list[Value] = []
    offset = 0.0
    for index in range(len(node.inputs)):
        value = data(node, index)
        if value.constant is None:
            terms.append(value)
            continue
        values = numbers(node, index, "constant").reshape(-1)
        require(
            values.size > 0 and bool((values == values[0]).all()),
            f"the term {value.name!r} of {len(node.inputs)} is a constant that is not uniform",
        )
        offset += float(values[0])
    require_same_shape(terms)
    for index in range(len(node.inputs)):
        held = data(node, index).constant
        if held is not None:
            require_fits(held.shape, terms[0])
    return Apply(Sum((factor,) * len(terms), offset * factor), tuple(terms), "sum")


def lift_identity(node: Node, opset: int) -> Apply | None:
    """Identity(x)  ->  x, where x is a tensor."""
    return nothing(node) if data(node).dtype is not None else None


def lift_dropout(node: Node, opset: int) -> Apply:
    """Dropout(x)  ->  x outside training."""
    if opset >= 12 and operand(node, 2) is not None:
        training = bool(np.asarray(constant(node, 2, "training mode").array()).reshape(-1).any())
        require(not training, "training_mode is true")
    if len(node.outputs) > 1:
        mask = node.outputs[1]
        used = bool(mask.users) or source(node).outputs[1].is_graph_output()
        require(not used, f"the mask {mask.name!r} is read")
    return nothing(node)


def lift_cast(node: Node, opset: int) -> Apply | None:
    """Cast(x)  ->  x, where x has that type already."""
    before, after = data(node).dtype, node.outputs[0].dtype
    return nothing(node) if before is not None and before == after else None


def lift_reshape(node: Node, opset: int) -> Apply | None:
    """Reshape(x, shape of x)  ->  x."""
    x = data(node)
    if same_shape(x.shape, node.outputs[0].shape):
        return nothing(node)
    target = operand(node, 1)
    if target is None or target.constant is None or x.shape is None:
        return None
    wanted = integers(node, 1, "shape") or ()
    if opset >= 14 and attribute(node, "allowzero", 0) and 0 in wanted:
        return None
    kept = [n in (0, dim) for n, dim in zip(wanted, x.shape, strict=False)]
    unknown = [n for n, same in zip(wanted, kept, strict=False) if not same]
    return nothing(node) if len(wanted) == len(x.shape) and unknown in ([], [-1]) else None


def lift_same_shape(node: Node, opset: int) -> Apply | None:
    """Flatten, Squeeze, Unsqueeze, Expand or Tile to the shape that x has  ->  x."""
    return nothing(node) if same_shape(data(node).shape, node.outputs[0].shape) else None


def lift_slice(node: Node, opset: int) -> Apply | None:
    """Slice of everything  ->  x."""
    x, found = data(node), bounds(node, opset)
    if found is None:
        return None
    if same_shape(x.shape, node.outputs[0].shape):
        return nothing(node)
    starts, ends, axes = found
    if any(start != 0 for start in starts):
        return None
    dims = [
        x.shape[axis] if x.shape is not None and -len(x.shape) <= axis < len(x.shape) else None
        for axis in axes
    ]
    whole = all(
        end >= INT_MAX or (isinstance(dim, int) and end >= dim) for end, dim in zip(ends, dims, strict=True)
    )
    return nothing(node) if whole else None


def lift_transpose(node: Node, opset: int) -> Apply | None:
    """Transpose that leaves every axis in its place  ->  x."""
    order = attribute(node, "perm")
    if order is None:
        return nothing(node) if data(node).rank in (0, 1) else None
    return nothing(node) if list(order) == list(range(len(order))) else None


def lift_single(node: Node, opset: int) -> Apply | None:
    """Concat of one tensor, Split into one part  ->  x."""
    if source(node).op_type == "Split":
        return nothing(node) if len(node.outputs) == 1 else None
    return nothing(node) if len(node.inputs) == 1 else None


def lift_leaky_relu(node: Node, opset: int) -> Apply | None:
    """LeakyRelu with slope 1  ->  x."""
    return nothing(node) if attribute(node, "alpha", 0.01) == 1.0 else None


def lift_prelu(node: Node, opset: int) -> Apply | None:
    """PRelu with slopes that are all 1  ->  x."""
    slope = data(node, 1).constant
    return nothing(node) if slope is not None and bool((np.asarray(slope.array()) == 1).all()) else None


def lift_clip(node: Node, opset: int) -> Apply | None:
    """Clip without bounds  ->  x."""
    if opset < 11:
        bounded = attribute(node, "min") is not None or attribute(node, "max") is not None
    else:
        bounded = operand(node, 1) is not None or operand(node, 2) is not None
    return None if bounded else nothing(node)


SUMS: Final[dict[str, Rule]] = {
    "Add": lift_add,
    "Cast": lift_cast,
    "Clip": lift_clip,
    "Concat": lift_single,
    "Div": lift_div,
    "Dropout": lift_dropout,
    "Expand": lift_same_shape,
    "Flatten": lift_same_shape,
    "Identity": lift_identity,
    "LeakyRelu": lift_leaky_relu,
    "Max": lift_extremum,
    "Mean": lift_mean,
    "Min": lift_extremum,
    "Mul": lift_mul,
    "Neg": lift_neg,
    "PRelu": lift_prelu,
    "Reshape": lift_reshape,
    "Slice": lift_slice,
    "Split": lift_single,
    "Squeeze": lift_same_shape,
    "Sub": lift_sub,
    "Sum": lift_sum,
    "Tile": lift_same_shape,
    "Transpose": lift_transpose,
    "Unsqueeze": lift_same_shape,
}

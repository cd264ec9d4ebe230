"""Lifting of what changes nothing, for some of its attributes, shapes and readers."""

from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from torch import fx

from fuser.algebra.conv import Conv
from fuser.errors import require
from fuser.hosts.lifting import nothing, reshape, same_shape
from fuser.hosts.torch.call import Call
from fuser.hosts.torch.describe import described
from fuser.hosts.torch.effects import FRESH
from fuser.hosts.torch.lift.channels import lift_cat, lift_split, select
from fuser.hosts.torch.operands import data
from fuser.hosts.torch.tensor import dtype_name
from fuser.ir.node import Apply, Node, Value
from fuser.ir.ops import Opaque, Sum

Rule = Callable[[Call, Node], Apply | None]


def lift_identity(call: Call, node: Node) -> Apply:
    """Identity(x)  ->  x."""
    del call
    return nothing(data(node))


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


COPIES: Final = frozenset({"clone", "contiguous"})


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


def lift_dropout(call: Call, node: Node) -> Apply:
    """Dropout(x)  ->  x outside training."""
    require(not call.attributes["training"] or call.attributes["p"] == 0, "training is True")
    return nothing(data(node))


def lift_to(call: Call, node: Node) -> Apply | None:
    """x.to(dtype)  ->  x, where x has that type already."""
    target = call.attributes.get("target")
    if not isinstance(target, torch.dtype):
        return None
    name = dtype_name(target)
    return nothing(data(node)) if data(node).dtype == node.outputs[0].dtype == name else None


def lift_same_shape(call: Call, node: Node) -> Apply | None:
    """Flatten, reshape and the like to the shape that x has  ->  x."""
    x, output = data(node), node.outputs[0]
    if same_shape(x.shape, output.shape) and x.dtype == output.dtype:
        return nothing(x)
    return _rows(x, output) if call.kind == "reshape" else None


def lift_reshape(call: Call, node: Node) -> Apply | None:
    """Reshape, flatten, squeeze or unsqueeze  ->  the same elements in another shape."""
    return lift_same_shape(call, node) or reshape(node)


FLATTEN: Final = frozenset({"reshape", "flatten"})


def _rows(x: Value, output: Value) -> Apply | None:
    """unflatten(linear(flatten(x)))  ->  linear(x).

    So decompositions write a linear layer of more than two axes, and networks a BatchNorm of the last axis.
    """
    layer = x.producer
    if layer is None or not isinstance(layer.op, Conv) or layer.op.axis != -1 or layer.inputs[0] is None:
        return None
    rows = layer.inputs[0].producer
    if (
        rows is None
        or not isinstance(rows.op, Opaque)
        or rows.op.kind not in FLATTEN
        or rows.inputs[0] is None
    ):
        return None
    source = rows.inputs[0]
    if source.shape is None or output.shape is None or source.rank == 2:
        return None
    same = same_shape(source.shape[:-1], output.shape[:-1])
    widths = (source.shape[-1], output.shape[-1]) == (layer.op.inputs, layer.op.outputs)
    return Apply(layer.op, (source,), layer.label) if same and widths else None


def lift_slice(call: Call, node: Node) -> Apply | None:
    """x[:, :all]  ->  x."""
    index = call.attributes.get("index", ())
    entries = index if isinstance(index, tuple) else (index,)
    steps = [entry.step if isinstance(entry, slice) else 0 for entry in entries] + [
        call.attributes.get("step", 1)
    ]
    x = data(node)
    if not all(step in {None, 1} for step in steps):
        return None
    if same_shape(x.shape, node.outputs[0].shape):
        return nothing(x)
    return select(call, node)


def lift_leaky_relu(call: Call, node: Node) -> Apply | None:
    """LeakyRelu with slope 1  ->  x."""
    return nothing(data(node)) if call.attributes.get("negative_slope") == 1 else None


def lift_clamp(call: Call, node: Node) -> Apply | None:
    """Clamp without bounds  ->  x."""
    bounds: Sequence[object] = (call.attributes.get("min", 0), call.attributes.get("max", 0))
    return nothing(data(node)) if bounds == (None, None) else None


SAME: Final[dict[str, Rule]] = {
    "cat": lift_cat,
    "chunk": lift_split,
    "clamp": lift_clamp,
    "clone": lift_copy,
    "contiguous": lift_copy,
    "dropout": lift_dropout,
    "expand": lift_same_shape,
    "flatten": lift_reshape,
    "getitem": lift_slice,
    "identity": lift_identity,
    "leaky_relu": lift_leaky_relu,
    "reshape": lift_reshape,
    "narrow": lift_slice,
    "slice": lift_slice,
    "split": lift_split,
    "squeeze": lift_reshape,
    "to": lift_to,
    "unflatten": lift_reshape,
    "unsqueeze": lift_reshape,
}

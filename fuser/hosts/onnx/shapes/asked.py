"""What a value must be for the sake of those that read it: its type, its axes, its channels.

Of what an operator makes that nobody here knows, nothing is stated as a rule; but a convolution reads only
what has the type of its kernel, as many axes and as many channels.
"""

from collections.abc import Iterator, Sequence
from functools import cache

import onnx

from fuser.hosts.operators.call import Call
from fuser.hosts.operators.catalogue import OPERATORS
from fuser.hosts.operators.extents import Shape
from fuser.ir.node import Node, Value


def asked(node: Node, call: Call, opset: int) -> Iterator[tuple[Value, Shape]]:
    """The inputs of unknown shape with what a node says of it; their types are set."""
    _share_types(node, call.kind, opset)
    operator = OPERATORS.get(call.kind)
    if operator is None:
        return
    shapes: Sequence[Shape | None] = () if operator.asks is None else operator.asks(call, node)
    if operator.elementwise and len(node.inputs) == 1:
        shapes = [node.outputs[0].shape]
    for value, shape in zip(node.inputs, shapes, strict=False):
        if value is not None and value.shape is None and shape is not None:
            yield value, shape


def _share_types(node: Node, kind: str, opset: int) -> None:
    """Give values the type that the standard wants to be that of another input or output."""
    inputs, outputs = _variables(kind, opset)
    values = [*zip(node.inputs, _spread(inputs, len(node.inputs)), strict=True)]
    values += zip(node.outputs, _spread(outputs, len(node.outputs)), strict=True)
    known = {name: value.dtype for value, name in values if value is not None and value.dtype is not None}
    for value, name in values:
        if value is not None and value.dtype is None and name:
            value.dtype = known.get(name)


def _spread(names: tuple[str, ...], count: int) -> list[str]:
    """The last one stands for all that follow."""
    return [names[min(i, len(names) - 1)] if names else "" for i in range(count)]


@cache
def _variables(kind: str, opset: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The type variables of the inputs and outputs of a standard operator; empty where one is fixed."""
    try:
        schema = onnx.defs.get_schema(kind, opset, "")
    except onnx.defs.SchemaError:
        return (), ()
    free = {constraint.type_param_str for constraint in schema.type_constraints}
    homogeneous = {part.name for part in (*schema.inputs, *schema.outputs) if part.is_homogeneous}

    def names(parts: Sequence[onnx.defs.OpSchema.FormalParameter]) -> tuple[str, ...]:
        return tuple(p.type_str if p.type_str in free and p.name in homogeneous else "" for p in parts)

    return names(schema.inputs), names(schema.outputs)

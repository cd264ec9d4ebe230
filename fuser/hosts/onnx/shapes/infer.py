"""The shape inference of the onnx package, for what our own rules do not know. No weight is copied for it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import onnx
import onnx_ir

from fuser.hosts.onnx.file import walk as onnx_walk
from fuser.hosts.onnx.node import DTYPES, source
from fuser.ir.extents import Dim
from fuser.ir.graph import Graph
from fuser.ir.node import Node, Value

SMALL: Final = 64
"""Constants of at most so many elements are handed over: they may be shapes, axes or indices."""

_ELEMENT_TYPES: Final = {name: int(member) for member, name in DTYPES.items() if member is not None}


@dataclass(frozen=True)
class Body:
    """A control-flow body; `captured`: what it reads from around it, its own value to the outer one."""

    graph: Graph
    captured: Mapping[Value, Value]


def fill_in(model: onnx_ir.Model, graph: Graph, bodies: Mapping[Node, Sequence[Body]]) -> bool:
    """Set missing shapes and types in the main graph and its bodies; True if there were any to set."""
    proto, nodes = _skeleton(model, graph)
    try:
        inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError):
        # An operator that onnx does not know, or a model that it finds wrong: they stay unknown.
        return False
    return _apply(nodes, inferred.graph, bodies)


def _skeleton(model: onnx_ir.Model, graph: Graph) -> tuple[onnx.ModelProto, list[Node]]:
    """The main graph without its weights, and the nodes that it holds, in order."""
    nodes = [node for node in graph.nodes if node.outputs[0].constant is None]
    proto = onnx.ModelProto(ir_version=max(model.ir_version or 0, 8))
    for domain, version in model.opset_imports.items():
        proto.opset_import.add(domain=domain, version=version)
    proto.functions.extend(
        onnx_ir.serde.serialize_function(function) for function in model.functions.values()
    )
    proto.graph.name = graph.name
    proto.graph.node.extend(onnx_ir.serde.serialize_node(source(node)) for node in nodes)
    proto.graph.output.extend(_info(value) for value in graph.outputs)
    given = dict.fromkeys([*graph.inputs, *_outside(nodes)])
    for value in given:
        held = value.constant
        if held is None or held.size > SMALL or held.dtype not in _NUMBERS:
            proto.graph.input.append(_info(value))
        else:
            proto.graph.initializer.append(onnx.numpy_helper.from_array(held.array(), value.name))
    made = (value for node in nodes for value in node.outputs if value.name)
    proto.graph.value_info.extend(_info(value) for value in made if value.shape is not None and value.dtype)
    return proto, nodes


_NUMBERS: Final = frozenset({"float16", "float32", "float64", "int32", "int64", "bool", "uint8", "int8"})


def _outside(nodes: Sequence[Node]) -> Iterator[Value]:
    """What the nodes read and none of them makes."""
    for node in nodes:
        for value in node.inputs:
            if value is not None and (value.producer is None or value.constant is not None):
                yield value


def _info(value: Value) -> onnx.ValueInfoProto:
    info = onnx.ValueInfoProto(name=value.name)
    if value.dtype is not None:
        info.type.tensor_type.elem_type = _ELEMENT_TYPES.get(value.dtype, 0)
        if value.shape is not None:
            info.type.tensor_type.shape.SetInParent()
            for dim in value.shape:
                entry = info.type.tensor_type.shape.dim.add()
                if isinstance(dim, int):
                    entry.dim_value = dim
                elif dim is not None:
                    entry.dim_param = dim
    return info


def _apply(nodes: Sequence[Node], proto: onnx.GraphProto, bodies: Mapping[Node, Sequence[Body]]) -> bool:
    """Take over what was inferred for values of which nothing is known."""
    infos = {info.name: info for info in (*proto.value_info, *proto.output)}
    changed = False
    for node, inferred in zip(nodes, proto.node, strict=True):
        for value in node.outputs:
            info = infos.get(value.name)
            if info is not None and info.type.HasField("tensor_type"):
                changed |= _set(value, info.type.tensor_type)
        for body, inner in zip(bodies.get(node, ()), onnx_walk.bodies(inferred.attribute), strict=False):
            for value, info in zip(body.graph.inputs, inner.input, strict=False):
                changed |= _set(value, info.type.tensor_type)
            changed |= _apply(list(body.graph.nodes), inner, bodies)
    return changed


def _set(value: Value, kind: onnx.TypeProto.Tensor) -> bool:
    """Fill in what is missing in `value`."""
    before = value.shape, value.dtype
    if value.dtype is None and kind.elem_type:
        value.dtype = DTYPES.get(onnx_ir.DataType(kind.elem_type))
    if value.shape is None and kind.HasField("shape"):
        value.shape = tuple(_dim(entry) for entry in kind.shape.dim)
    return before != (value.shape, value.dtype)


def _dim(entry: onnx.TensorShapeProto.Dimension) -> Dim:
    if entry.HasField("dim_value"):
        return int(entry.dim_value)
    return entry.dim_param or None

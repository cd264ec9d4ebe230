"""What a source said, word for word, kept beside the model that onnx-ir makes of it.

onnx-ir does not read everything that a valid model may hold (maps, sparse tensors, fields of later versions),
nor keep all that it reads as it was written. So each graph and each node carries its message along, and
`onnx_message` says the same again of all that is still what it was. What onnx-ir cannot read is hidden from
it while it reads.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import onnx
import onnx_ir as ir

from fuser.hosts.onnx.file.walk import bodies

_SAID: Final = "graph_fuser_said"

Kind: Final = onnx.AttributeProto
_PLAIN: Final = frozenset({Kind.FLOAT, Kind.INT, Kind.FLOATS, Kind.INTS})
_BODIES: Final = frozenset({Kind.GRAPH, Kind.GRAPHS})
_TENSORS: Final = frozenset({Kind.TENSOR, Kind.TENSORS})
_ELEMENTS: Final = frozenset(int(member) for member in ir.DataType)

GraphMessage = onnx.GraphProto | onnx.FunctionProto


@dataclass(frozen=True)
class SaidNode:
    """A node as it was read.

    `about`: what onnx-ir made of its notes, to see whether they are still that. `hidden`: the attributes that
    onnx-ir has not. `whole`: no attribute has parts that may have changed or that are elsewhere.
    """

    proto: onnx.NodeProto
    identifier: ir.OperatorIdentifier
    about: tuple[Any, ...]
    attributes: tuple[ir.Attr, ...]
    hidden: frozenset[str]
    whole: bool


@dataclass(frozen=True)
class SaidGraph:
    """A graph, or a local function, as it was read; `values`: what onnx-ir made of each value, by name."""

    proto: GraphMessage
    about: tuple[Any, ...]
    values: dict[str, tuple[Any, ...]]


@dataclass(frozen=True)
class SaidModel:
    """A model as it was read."""

    proto: onnx.ModelProto
    about: tuple[Any, ...]


def said_node(node: ir.Node) -> SaidNode | None:
    """What the source said of a node, if it is of a source."""
    found: SaidNode | None = node.meta.get(_SAID)
    return found


def said_graph(graph: ir.Graph) -> SaidGraph | None:
    """What the source said of a graph; that of a function is with the graph in it."""
    found: SaidGraph | None = graph.meta.get(_SAID)
    return found


def said_model(model: ir.Model) -> SaidModel | None:
    """What the source said of a model."""
    found: SaidModel | None = model.meta.get(_SAID)
    return found


def said_tensor(tensor: Any) -> onnx.TensorProto | None:
    """What the source said of a tensor."""
    if isinstance(tensor, ir.serde.TensorProtoTensor):
        return tensor.raw
    found: onnx.TensorProto | None = tensor.meta.get(_SAID)
    return found


def remember_tensor(tensor: Any, proto: onnx.TensorProto) -> None:
    """Keep what the source said of a tensor."""
    if not isinstance(tensor, ir.serde.TensorProtoTensor):
        tensor.meta[_SAID] = proto


def remember(model: ir.Model, proto: onnx.ModelProto) -> None:
    """Keep what `proto` says of each part of the model that onnx-ir made of it."""
    model.meta[_SAID] = SaidModel(proto, about_model(model))
    _graph(model.graph, proto.graph)
    for function, said in zip(model.functions.values(), proto.functions, strict=True):
        _graph(function.graph, said)


def _graph(graph: ir.Graph, proto: GraphMessage) -> None:
    del graph.inputs[len(proto.input) :]  # the sparse initializers
    values = [*graph.inputs, *graph.initializers.values(), *graph.outputs]
    for node, said in zip(graph, proto.node, strict=True):
        values += node.outputs
        _node(node, said)
    known = {value.name or "": about_value(value) for value in values}
    graph.meta[_SAID] = SaidGraph(proto, about_graph(graph), known)


def _node(node: ir.Node, proto: onnx.NodeProto) -> None:
    whole, hidden = True, frozenset[str]()
    if proto.attribute:
        whole = not any(entry.type in _BODIES or entry.type in _TENSORS for entry in proto.attribute)
        if len(node.attributes) != len(proto.attribute):
            hidden = frozenset(entry.name for entry in proto.attribute if entry.name not in node.attributes)
    node.meta[_SAID] = SaidNode(
        proto, node.op_identifier(), about_node(node), tuple(node.attributes.values()), hidden, whole
    )
    if not whole:
        for entry in proto.attribute:
            _bodies(node, entry)


def _bodies(node: ir.Node, entry: onnx.AttributeProto) -> None:
    if entry.name not in node.attributes or entry.ref_attr_name or entry.type not in _BODIES:
        return
    value = node.attributes[entry.name].value
    single = entry.type == Kind.GRAPH
    for body, proto in zip([value] if single else value, [entry.g] if single else entry.graphs, strict=True):
        _graph(body, proto)


# What onnx-ir made of it, to see later whether it is still that.


def about_value(value: ir.Value) -> tuple[Any, ...]:
    """Type, shape and notes of a value."""
    shape = None if value.shape is None else value.shape.dims
    return value.type, shape, value.doc_string, dict(value.metadata_props)


def about_node(node: ir.Node) -> tuple[Any, ...]:
    """The notes of a node, and where it runs."""
    return node.doc_string, dict(node.metadata_props), node.device_configurations


def about_graph(graph: ir.Graph) -> tuple[Any, ...]:
    """Name and notes of a graph."""
    return graph.name, graph.doc_string, dict(graph.metadata_props)


def about_model(model: ir.Model) -> tuple[Any, ...]:
    """What a model says of itself, without the opsets."""
    return (
        model.ir_version,
        model.producer_name,
        model.producer_version,
        model.domain,
        model.model_version,
        model.doc_string,
        dict(model.metadata_props),
        model.device_configurations,
    )


# What onnx-ir cannot read.

Undo = list[Callable[[], object]]


@contextmanager
def readable(proto: onnx.ModelProto) -> Iterator[None]:
    """Hide from a message, for the time of the block, what onnx-ir cannot read.

    A sparse initializer is an input meanwhile, without a type, so that what reads it finds it.
    """
    hidden: Undo = []
    try:
        _hide_in_graph(proto.graph, hidden)
        for function in proto.functions:
            _hide_attributes(function, "attribute_proto", hidden)
            _hide_types(function.value_info, hidden)
            for body in bodies(function.attribute_proto):
                _hide_in_graph(body, hidden)
            _hide_in_nodes(function.node, hidden)
        yield
    finally:
        for show in reversed(hidden):
            show()


def _hide_in_graph(graph: onnx.GraphProto, hidden: Undo) -> None:
    for infos in (graph.input, graph.output, graph.value_info):
        _hide_types(infos, hidden)
    if graph.sparse_initializer:
        stated = {info.name for info in graph.input}
        for tensor in graph.sparse_initializer:
            if tensor.values.name not in stated:
                graph.input.add(name=tensor.values.name)
                hidden.append(graph.input.pop)
    _hide_in_nodes(graph.node, hidden)


def _hide_in_nodes(nodes: Iterable[onnx.NodeProto], hidden: Undo) -> None:
    for node in nodes:
        if node.attribute:
            _hide_attributes(node, "attribute", hidden)
            for body in bodies(node.attribute):
                _hide_in_graph(body, hidden)


def _hide_types(infos: Iterable[onnx.ValueInfoProto], hidden: Undo) -> None:
    for info in infos:
        if info.HasField("type") and not _readable_type(info.type):
            said = onnx.ValueInfoProto()
            said.CopyFrom(info)
            info.ClearField("type")
            hidden.append(partial(info.CopyFrom, said))


def _hide_attributes(holder: Any, name: str, hidden: Undo) -> None:
    """Hide attributes of a node, or defaults of a function.

    This comes before anything else in it is hidden, because all of it is put back.
    """
    staying = [_readable_attribute(entry) for entry in getattr(holder, name)]
    if all(staying):
        return
    said = type(holder)()
    said.CopyFrom(holder)
    for index in reversed(range(len(staying))):
        if not staying[index]:
            del getattr(holder, name)[index]
    hidden.append(partial(holder.CopyFrom, said))


def _readable_attribute(entry: onnx.AttributeProto) -> bool:
    kind = entry.type
    if kind in _PLAIN or kind in _BODIES or kind in _TENSORS or entry.ref_attr_name:
        return True
    if kind in (Kind.STRING, Kind.STRINGS):
        return all(map(_is_text, entry.strings if kind == Kind.STRINGS else [entry.s]))
    return all(map(_readable_type, entry.type_protos if kind == Kind.TYPE_PROTOS else [entry.tp])) and (
        kind in (Kind.TYPE_PROTO, Kind.TYPE_PROTOS)
    )


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _readable_type(kind: onnx.TypeProto) -> bool:
    """Whether onnx-ir has a class for a type. Of most it has, so they are not asked for."""
    if kind.HasField("tensor_type") and kind.tensor_type.elem_type in _ELEMENTS:
        return True
    try:
        ir.serde.deserialize_type_proto_for_shape(kind)
        return ir.serde.deserialize_type_proto_for_type(kind) is not None
    except ir.serde.SerdeError:
        return False

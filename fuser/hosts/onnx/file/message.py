"""A model as a message: word for word what the source said, of all that no rewrite touched."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import onnx
import onnx_ir as ir

from fuser.hosts.onnx.file.said import (
    SaidGraph,
    SaidNode,
    about_graph,
    about_model,
    about_node,
    about_value,
    said_graph,
    said_model,
    said_node,
    said_tensor,
)

Fill = Callable[[onnx.TensorProto, ir.TensorProtocol, bool], None]
"""Puts the data of a tensor into its message; True for an initializer."""

FUNCTION_TYPES: Final = 10
"""The version of the format since which local functions state types."""

_ANNOTATION: Final = "quant_parameter_tensor_names"


def inline(proto: onnx.TensorProto, tensor: ir.TensorProtocol, initializer: bool) -> None:  # noqa: ARG001  # as Fill
    """Put data into the message itself."""
    not_elsewhere(proto)
    if not isinstance(tensor, ir.serde.TensorProtoTensor):  # which has them in its own message
        proto.raw_data = tensor.tobytes()


def not_elsewhere(proto: onnx.TensorProto) -> None:
    """Let a tensor not say that its data are elsewhere."""
    if proto.data_location == onnx.TensorProto.EXTERNAL:
        proto.ClearField("data_location")
        proto.ClearField("external_data")


def serialised(model: ir.Model, fill: Fill = inline) -> onnx.ModelProto:
    """The message of a model."""
    return _Message(model, fill).model()


class _Message:
    def __init__(self, source: ir.Model, fill: Fill) -> None:
        self.source = source
        self.fill = fill

    def model(self) -> onnx.ModelProto:
        said = said_model(self.source)
        if said is not None and said.about == about_model(self.source):
            proto: onnx.ModelProto = _without(said.proto, "graph", "functions")
            _say_opsets(proto.opset_import, self.source.opset_imports)
        else:
            proto = ir.to_proto(_bare_model(self.source))
            proto.ClearField("graph")
        self.graph(self.source.graph, proto.graph)
        for function in self.source.functions.values():
            self.function(function, proto.functions.add())
        return proto

    def graph(self, graph: ir.Graph, out: onnx.GraphProto) -> None:
        said = said_graph(graph)
        if said is not None and said.about == about_graph(graph):
            out.MergeFrom(_without(said.proto, *_PARTS))
        else:
            out.MergeFrom(ir.to_proto(_bare_graph(graph)))
        for value in graph.initializers.values():
            if value.const_value is not None:
                self.tensor(out.initializer.add(), value.const_value, value)
        for node in graph:
            self.node(node, out.node.add())
        known = {} if said is None else said.values
        for values, infos, field in (
            (graph.inputs, out.input, "input"),
            (graph.outputs, out.output, "output"),
        ):
            stated: dict[str, list[onnx.ValueInfoProto]] = {}
            for info in [] if said is None else reversed(getattr(said.proto, field)):
                stated.setdefault(info.name, []).append(info)
            for value in values:
                told = stated.get(value.name or "", [None])
                # An output may be listed more than once, in different words.
                _info(infos.add(), value, told.pop() if len(told) > 1 else told[0], known)
        _say_types(out.value_info, graph, said, new=True)
        _say_annotations(out, graph, said)

    def function(self, function: ir.Function, out: onnx.FunctionProto) -> None:
        said = said_graph(function.graph)
        if said is not None and said.about == about_graph(function.graph):
            out.MergeFrom(_without(said.proto, "node", "value_info", "input", "output"))
        else:
            out.MergeFrom(_bare_function(function))
        out.input.extend(value.name or "" for value in function.inputs)
        out.output.extend(value.name or "" for value in function.outputs)
        for node in function:
            self.node(node, out.node.add())
        new = (self.source.ir_version or 0) >= FUNCTION_TYPES
        _say_types(out.value_info, function.graph, said, new=new)

    def node(self, node: ir.Node, out: onnx.NodeProto) -> None:
        said = said_node(node)
        if said is not None and said.identifier != node.op_identifier():
            said = None
        attributes = tuple(node.attributes.values())
        if said is None:
            out.op_type = node.op_type
            for field in ("domain", "overload"):
                if getattr(node, field):
                    setattr(out, field, getattr(node, field))
        else:
            out.CopyFrom(said.proto)
        _say_about(out, node, said)
        _say_names(out.input, ["" if value is None else value.name or "" for value in node.inputs])
        _say_names(out.output, [value.name or "" for value in node.outputs])
        if said is not None:
            if said.whole and _same(attributes, said.attributes):
                return
            out.ClearField("attribute")
        self.attributes(attributes, out, said)

    def attributes(self, attributes: Sequence[ir.Attr], out: onnx.NodeProto, said: SaidNode | None) -> None:
        """Attributes in the order of the source, then others."""
        left = {attribute.name: attribute for attribute in attributes}
        known = {} if said is None else {attribute.name: attribute for attribute in said.attributes}
        for entry in () if said is None else said.proto.attribute:
            attribute = left.pop(entry.name, None)
            if attribute is not None:
                told = entry if attribute is known.get(entry.name) else None
                self.attribute(attribute, out.attribute.add(), told)
            elif said is not None and entry.name in said.hidden:
                out.attribute.add().CopyFrom(entry)
        for attribute in left.values():
            self.attribute(attribute, out.attribute.add(), None)

    def attribute(
        self, attribute: ir.Attr, out: onnx.AttributeProto, said: onnx.AttributeProto | None
    ) -> None:
        if attribute.is_ref() or attribute.type not in _PARTED:
            _say_attribute(out, attribute, said)
            return
        if said is not None:
            out.MergeFrom(_without(said, *_PARTED.values()))
        else:
            out.name, out.type = attribute.name, attribute.type.value  # type: ignore[assignment]  # an int for an enum
            if attribute.doc_string:
                out.doc_string = attribute.doc_string
        match attribute.type:
            case ir.AttributeType.TENSOR:
                self.tensor(out.t, attribute.value)
            case ir.AttributeType.TENSORS:
                for tensor in attribute.value:
                    self.tensor(out.tensors.add(), tensor)
            case ir.AttributeType.GRAPH:
                self.graph(attribute.value, out.g)
            case _:
                for body in attribute.value:
                    self.graph(body, out.graphs.add())

    def tensor(self, out: onnx.TensorProto, tensor: ir.TensorProtocol, value: ir.Value | None = None) -> None:
        """A tensor; `value`: the initializer that it belongs to."""
        said = said_tensor(tensor)
        if said is not None:
            out.CopyFrom(said)
        elif tensor.dtype == ir.DataType.STRING:
            ir.serde.serialize_tensor_into(out, tensor)
        else:
            out.data_type = tensor.dtype.value
            out.dims.extend(tensor.shape.numpy())
            if tensor.name:
                out.name = tensor.name
            if tensor.doc_string:
                out.doc_string = tensor.doc_string
            _say_entries(out.metadata_props, tensor.metadata_props)
        if value is not None and out.name != value.name:
            out.name = value.name or ""
        if tensor.dtype != ir.DataType.STRING:
            self.fill(out, tensor, value is not None)


_PARTS: Final = (
    "node",
    "initializer",
    "input",
    "output",
    "value_info",
    "quantization_annotation",
)
_PARTED: Final = {
    ir.AttributeType.TENSOR: "t",
    ir.AttributeType.TENSORS: "tensors",
    ir.AttributeType.GRAPH: "g",
    ir.AttributeType.GRAPHS: "graphs",
}


def _say_attribute(out: onnx.AttributeProto, attribute: ir.Attr, said: onnx.AttributeProto | None) -> None:
    """An attribute of which no part may have changed, or be elsewhere."""
    if said is not None:
        out.CopyFrom(said)
    elif attribute.is_ref():
        ir.serde.serialize_reference_attribute_into(out, attribute)
    else:
        ir.serde.serialize_attribute_into(out, attribute)


def _same(a: Sequence[ir.Attr], b: Sequence[ir.Attr]) -> bool:
    return len(a) == len(b) and all(one is other for one, other in zip(a, b, strict=True))


def _without(proto: Any, *fields: str) -> Any:
    """A message without some of its fields, and with what this version of the format does not know."""
    rest = type(proto)()
    rest.CopyFrom(proto)
    for name in fields:
        rest.ClearField(name)
    return rest


def _info(
    out: onnx.ValueInfoProto,
    value: ir.Value,
    said: onnx.ValueInfoProto | None,
    known: Mapping[str, tuple[Any, ...]],
) -> None:
    """What is known of a value: what the source said, if that is still so."""
    if said is not None and known.get(value.name or "") == about_value(value):
        out.CopyFrom(said)
        return
    ir.serde.serialize_value_into(out, value)
    if value.type is None and said is not None and said.HasField("type"):
        out.type.CopyFrom(said.type)  # of a kind that onnx-ir has not


def _say_types(infos: Any, graph: ir.Graph, said: SaidGraph | None, *, new: bool) -> None:
    """Types of values inside a graph in the order of the source, then those of `new` values."""
    there = _values(graph)
    known = {} if said is None else said.values
    listed: set[str] = set()
    for info in () if said is None else said.proto.value_info:
        value = there.get(info.name)
        if value is not None:
            _info(infos.add(), value, info, known)
            listed.add(info.name)
        elif info.name not in known:  # nothing that onnx-ir knows of has that name
            infos.add().CopyFrom(info)
    for value in (output for node in graph for output in node.outputs) if new else ():
        if (
            not value.name
            or value.name in listed
            or value.is_graph_output()
            or (value.type is None and value.shape is None)
        ):
            continue
        if known.get(value.name or "") != about_value(value):
            ir.serde.serialize_value_into(infos.add(), value)


def _say_annotations(out: onnx.GraphProto, graph: ir.Graph, said: SaidGraph | None) -> None:
    """Quantisation annotations in the order of the source, then those of values with other names."""
    there = _values(graph)
    listed = set()
    if said is not None:
        for told in said.proto.quantization_annotation:
            if told.tensor_name in there or told.tensor_name not in said.values:
                out.quantization_annotation.add().CopyFrom(told)
                listed.add(told.tensor_name)
    for name, value in there.items():
        if name not in listed and value.meta.get(_ANNOTATION):
            made_up = out.quantization_annotation.add(tensor_name=name)
            _say_entries(made_up.quant_parameter_tensor_names, value.meta[_ANNOTATION])


def _values(graph: ir.Graph) -> dict[str, ir.Value]:
    """The values of a graph by name."""
    made = (value for node in graph for value in node.outputs)
    there = (*graph.inputs, *graph.initializers.values(), *made, *graph.outputs)
    return {value.name: value for value in there if value.name}


def _say_names(out: Any, names: list[str]) -> None:
    if list(out) != names:
        del out[:]
        out.extend(names)


def _say_entries(out: Any, entries: Mapping[str, str]) -> None:
    for key, value in entries.items():
        out.add(key=key, value=value)


def _say_opsets(out: Any, opsets: Mapping[str, int]) -> None:
    """State the versions of the operators as the source did, where it did."""
    left = dict(opsets)
    for entry in out:
        version = left.pop(entry.domain, entry.version)
        if version != entry.version:
            entry.version = version
    for domain, version in left.items():
        out.add(domain=domain, version=version)


def _say_about(out: onnx.NodeProto, node: ir.Node, said: SaidNode | None) -> None:
    """Name and notes of a node, where they are not what the source said."""
    if (node.name or "") != out.name:
        out.name = node.name or ""
    about = about_node(node)
    if said is not None and about == said.about:
        return
    doc_string, metadata, configurations = about
    if (doc_string or "") != out.doc_string:
        out.doc_string = doc_string or ""
    if metadata != {entry.key: entry.value for entry in out.metadata_props}:
        out.ClearField("metadata_props")
        _say_entries(out.metadata_props, metadata)
    if said is None or configurations != said.about[2]:
        out.ClearField("device_configurations")
        made = map(ir.serde.serialize_node_device_configuration, configurations)
        out.device_configurations.extend(made)


def _bare_graph(graph: ir.Graph) -> ir.Graph:
    return ir.Graph(
        (),
        (),
        nodes=(),
        name=graph.name,
        doc_string=graph.doc_string,
        opset_imports=dict(graph.opset_imports),
        metadata_props=dict(graph.metadata_props),
    )


def _bare_function(function: ir.Function) -> onnx.FunctionProto:
    return ir.serde.serialize_function(
        ir.Function(
            function.domain,
            function.name,
            function.overload,
            graph=_bare_graph(function.graph),
            attributes=tuple(function.attributes.values()),
        )
    )


def _bare_model(model: ir.Model) -> ir.Model:
    return ir.Model(
        _bare_graph(model.graph),
        ir_version=model.ir_version,
        producer_name=model.producer_name,
        producer_version=model.producer_version,
        domain=model.domain,
        model_version=model.model_version,
        doc_string=model.doc_string,
        metadata_props=dict(model.metadata_props),
        device_configurations=model.device_configurations,
    )

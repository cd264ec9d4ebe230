"""The bodies of nodes and every tensor of a model, as messages and in onnx-ir, in the order of the file."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Final, NamedTuple

import onnx
import onnx_ir as ir

Kind: Final = onnx.AttributeProto


def bodies(attributes: Iterable[onnx.AttributeProto]) -> Iterator[onnx.GraphProto]:
    """The graphs in attributes."""
    for attribute in attributes:
        if attribute.ref_attr_name:
            continue
        if attribute.type == Kind.GRAPH:
            yield attribute.g
        elif attribute.type == Kind.GRAPHS:
            yield from attribute.graphs


def tensor_protos(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor of initializers and of attributes, in bodies and functions as well."""
    yield from _of_graph(model.graph)
    for function in model.functions:
        yield from _of_nodes(function.node)


def _of_graph(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from _of_nodes(graph.node)
    yield from graph.initializer


def _of_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.ref_attr_name:
                continue
            match attribute.type:
                case Kind.TENSOR:
                    yield attribute.t
                case Kind.TENSORS:
                    yield from attribute.tensors
                case Kind.GRAPH:
                    yield from _of_graph(attribute.g)
                case Kind.GRAPHS:
                    for body in attribute.graphs:
                        yield from _of_graph(body)


def graphs_in(attribute: ir.Attr) -> Iterator[ir.Graph]:
    """The graphs in an attribute of onnx-ir."""
    if attribute.is_ref():
        return
    if attribute.type == ir.AttributeType.GRAPH:
        yield attribute.as_graph()
    elif attribute.type == ir.AttributeType.GRAPHS:
        yield from attribute.as_graphs()


class Held(NamedTuple):
    """A tensor, how to put another in its place, and the initializer that it belongs to, if any."""

    tensor: ir.TensorProtocol
    put: Callable[[ir.TensorProtocol], None]
    value: ir.Value | None


def tensors(model: ir.Model) -> Iterator[Held]:
    """The same of a model of onnx-ir."""
    for graph in (model.graph, *(function.graph for function in model.functions.values())):
        yield from _held(graph)


def _held(graph: ir.Graph) -> Iterator[Held]:
    for node in graph:
        for attribute in list(node.attributes.values()):
            if attribute.type in _PARTED and not attribute.is_ref():
                yield from _of_attribute(node, attribute)
    for value in list(graph.initializers.values()):
        if value.const_value is not None:
            yield Held(value.const_value, partial(setattr, value, "const_value"), value)


_PARTED: Final = frozenset(
    {ir.AttributeType.TENSOR, ir.AttributeType.TENSORS, ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS}
)


def _of_attribute(node: ir.Node, attribute: ir.Attr) -> Iterator[Held]:
    match attribute.type:
        case ir.AttributeType.TENSOR:
            yield Held(attribute.value, partial(_replace, node, attribute), None)
        case ir.AttributeType.TENSORS:
            yield from _listed(node, attribute)
        case _:
            for body in graphs_in(attribute):
                yield from _held(body)


def _listed(node: ir.Node, attribute: ir.Attr) -> Iterator[Held]:
    """The tensors of a list."""
    values: list[Any] = list(attribute.value)

    def put(index: int, tensor: ir.TensorProtocol) -> None:
        values[index] = tensor
        _replace(node, attribute, tuple(values))

    for index, tensor in enumerate(list(values)):
        yield Held(tensor, partial(put, index), None)


def _replace(node: ir.Node, old: ir.Attr, value: Any) -> None:
    node.attributes[old.name] = ir.Attr(old.name, old.type, value, doc_string=old.doc_string)

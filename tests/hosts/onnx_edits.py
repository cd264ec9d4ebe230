"""Edits of imported graphs as the driver makes them, and what the exporter makes of those."""

from collections.abc import Callable
from typing import Any

import onnx
from numpy.typing import NDArray

from fuser.hosts.onnx.exporter import export_graph
from fuser.hosts.onnx.file import files as onnx_io
from fuser.hosts.onnx.importer import import_model
from fuser.ir.constant import Constant
from fuser.ir.graph import Graph
from fuser.ir.node import Node, Value
from fuser.ir.ops import Op

Edit = Callable[[Graph], object]


def edited(model: onnx.ModelProto, *edits: Edit) -> onnx.ModelProto:
    """The model after each of its graphs went through the edit for it."""
    copy = onnx_io.from_any(model)
    graphs = import_model(copy)
    for graph, edit in zip(graphs, edits, strict=False):
        edit(graph)
    for graph in graphs:
        export_graph(graph)
    result: onnx.ModelProto = onnx_io.to_same(copy, model)
    onnx.checker.check_model(result, full_check=True)
    return result


def find(graph: Graph, name: str) -> Node:
    return next(node for node in graph.nodes if node.name == name)


def put(graph: Graph, gone: list[str], op: Op, *inputs: Value) -> Node:
    """Let `op` make what the last of the nodes called `gone` made; all of them vanish."""
    nodes = [find(graph, name) for name in gone]
    for node in reversed(nodes):
        graph.remove(node)
    root = nodes[-1]
    return graph.add(Node(op, inputs, root.outputs, name=root.name, position=root.position))


def skip(graph: Graph, name: str) -> None:
    """Eliminate a no-op as the driver does."""
    node = find(graph, name)
    (old,), (new,) = node.outputs, node.inputs[:1]
    assert new is not None
    graph.remove(node)
    for user in list(old.users):
        graph.connect(user, [new if value is old else value for value in user.inputs])
    graph.provenance.successors[old] = new


def store(graph: Graph, name: str, array: NDArray[Any]) -> None:
    """Let a constant be what a node made."""
    node = find(graph, name)
    graph.remove(node)
    node.outputs[0].constant = Constant.of(array)


def kinds(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]

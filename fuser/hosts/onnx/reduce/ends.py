"""What is left of a model made a model again: values that nothing makes are inputs, unread ones outputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TypeProto

from fuser.hosts.onnx.judge.source import all_nodes, bodies, copied, needed_nodes, reads

SMALL: Final = 1024
"""Bytes of a tensor that may hold extents, which shape inference looks at."""

NUMBER: Final = onnx.helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, [])


def graphs(model: ModelProto) -> Iterator[GraphProto]:
    """The main graph and the bodies in it, outer ones first."""
    yield model.graph
    for node in all_nodes(model.graph.node):
        yield from bodies(node)


def every_node(model: ModelProto) -> list[NodeProto]:
    """All nodes, those of bodies and of functions included, always in the same order."""
    holders = (model.graph, *model.functions)
    return [node for holder in holders for node in all_nodes(holder.node)]


@dataclass
class Ends:
    """What a model says of its values before it is cut: their types, and which of them are read."""

    model: ModelProto
    types: dict[str, TypeProto] = field(init=False)
    read: set[str] = field(init=False)

    def __post_init__(self) -> None:
        inferred = _inferred(self.model)
        self.types = {
            value.name: value.type
            for graph in graphs(inferred)
            for value in (*graph.value_info, *graph.output, *graph.input)
            if value.type.WhichOneof("value")
        }
        self.types |= {
            tensor.name: onnx.helper.make_tensor_type_proto(tensor.data_type, tensor.dims)
            for graph in graphs(inferred)
            for tensor in graph.initializer
        }
        for node in every_node(inferred):
            like = [self.type(name) for name in node.input if name]
            self.types |= {name: _settled(self.types.get(name, TypeProto()), like) for name in node.output}
        self.read = {name for node in self.model.graph.node for name in reads(node)}

    def type(self, name: str) -> TypeProto:
        """The type of a value; what the model does not tell of it is as in an input of its node."""
        return self.types.get(name, NUMBER)

    def unread(self, model: ModelProto) -> set[str]:
        """The values of the main graph that nobody reads any more."""
        return self.read - {name for node in model.graph.node for name in reads(node)}

    def abandoned(self, model: ModelProto) -> set[str]:
        """The values of the main graph that have fewer readers than before."""
        before, after = (
            Counter(name for node in m.graph.node for name in reads(node)) for m in (self.model, model)
        )
        return set(before - after)

    def close(self, model: ModelProto, shown: Collection[str] = ()) -> ModelProto | None:
        """Give what is left of the main graph inputs and outputs, in place; None if nothing is left.

        Outputs are those that are still made, and what is to be `shown`; where that is nothing, what nobody
        reads. What nobody needs goes: inputs, weights, functions.
        """
        graph = model.graph
        made = dict.fromkeys(name for node in graph.node for name in node.output if name)
        read = dict.fromkeys(name for node in graph.node for name in sorted(reads(node)))
        held = _held(graph)
        graph.input.extend(
            onnx.ValueInfoProto(name=name, type=self.type(name))
            for name in read
            if name not in made and name not in held
        )
        outputs = [value for value in graph.output if value.name in made]
        already = {value.name for value in outputs}
        more = [name for name in made if name in shown and name not in already]
        if not outputs and not more:
            more = [name for name in made if name not in read]
        outputs.extend(onnx.ValueInfoProto(name=name, type=self.type(name)) for name in more)
        replace(graph.output, outputs)
        _forget(model, {*read, *made})
        return model if outputs else None


def pruned(model: ModelProto) -> ModelProto:
    """The model without nodes that no output needs, in place."""
    for graph in graphs(model):
        replace(graph.node, needed_nodes(graph, {value.name for value in graph.output}))
    for function in model.functions:
        replace(function.node, needed_nodes(function, set(function.output)))
    return model


def replace(field: Any, parts: list[Any]) -> None:
    """Give a repeated field these parts."""
    del field[:]
    field.extend(parts)


def _settled(known: TypeProto, like: list[TypeProto]) -> TypeProto:
    """A type whose rank is known: that of the first of these which is of the same element type."""
    if known.WhichOneof("value") not in (None, "tensor_type") or known.tensor_type.HasField("shape"):
        return known
    element = known.tensor_type.elem_type
    result = TypeProto()
    result.CopyFrom(next((t for t in like if element in (0, t.tensor_type.elem_type)), NUMBER))
    result.MergeFrom(known)
    return result


def _held(graph: GraphProto) -> set[str]:
    """What a graph has before any node runs."""
    own = {part.name for part in (*graph.input, *graph.initializer)}
    return own | {sparse.values.name for sparse in graph.sparse_initializer}


def _forget(model: ModelProto, known: set[str]) -> None:
    """Drop what says something of values that are not there, and functions that nobody calls."""
    graph = model.graph
    for held in (graph.input, graph.initializer, graph.value_info):
        replace(held, [part for part in held if part.name in known])
    replace(graph.sparse_initializer, [s for s in graph.sparse_initializer if s.values.name in known])
    functions = {(f.domain, f.name): f for f in model.functions}
    called: set[tuple[str, str]] = set()
    waiting = list(all_nodes(graph.node))
    while waiting:
        node = waiting.pop()
        kind = node.domain, node.op_type
        if kind in functions and kind not in called:
            called.add(kind)
            waiting.extend(all_nodes(functions[kind].node))
    replace(model.functions, [f for kind, f in functions.items() if kind in called])


def _inferred(model: ModelProto) -> ModelProto:
    """The model as shape inference leaves it, its large weights emptied; as it is where that fails."""
    light = copied(model)
    for graph in graphs(light):
        for tensor in graph.initializer:
            if len(tensor.raw_data) > SMALL:
                tensor.ClearField("raw_data")
    try:
        return onnx.shape_inference.infer_shapes(light, data_prop=True)
    except Exception:  # noqa: BLE001  # what is not inferred is not known
        return light

"""Ways to fewer nodes: cut away, passed by, put in the place of what holds or calls them, computed."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import count
from typing import Any, Final

import numpy as np
import onnx
import onnx.inliner
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from fuser.hosts.onnx.judge.source import all_nodes, bodies, copied
from fuser.hosts.onnx.reduce.ends import Ends, every_node, graphs, pruned, replace

OUTSIDE: Final = ".outside"
"""How a value is called that a body is given in the place of what it made."""


class Cut:
    """Nodes are taken out: what they made is fed, and what only they read is seen."""

    called = "nodes cut off"

    def __init__(self, model: ModelProto) -> None:
        self.model = model
        self.ends = Ends(model)
        fed = {value.name for value in model.graph.input}
        ends = {value.name for graph in list(graphs(model))[1:] for value in graph.output}
        self.parts: Sequence[int] = [
            place
            for place, node in enumerate(all_nodes(model.graph.node))
            if node.op_type != "Identity" or node.input[0] not in fed or node.output[0] not in ends
        ]

    def without(self, parts: Collection[int]) -> ModelProto | None:
        """The model without these nodes; an output of a body that they made is taken from outside."""
        model = copied(self.model)
        self._drop(model.graph, frozenset(parts), count())
        return self.ends.close(model, self._shown(model))

    def _shown(self, model: ModelProto) -> set[str]:
        return self.ends.unread(model)

    def _drop(
        self, graph: GraphProto, parts: frozenset[int], places: Iterator[int], *, body: bool = False
    ) -> None:
        kept = []
        for node in graph.node:
            if next(places) not in parts:
                kept.append(node)
            for inner in bodies(node):
                self._drop(inner, parts, places, body=True)
        lost = {name for node in graph.node for name in node.output} - {n for k in kept for n in k.output}
        for value in graph.output if body else ():
            if value.name in lost:
                outside = f"{value.name}{OUTSIDE}"
                self.ends.types[outside] = self.ends.type(value.name)
                kept.append(onnx.helper.make_node("Identity", [outside], [value.name]))
        replace(graph.node, kept)


class End(Cut):
    """The same, but all that they read is seen, whoever else reads it."""

    called = "nodes taken for outputs"

    def _shown(self, model: ModelProto) -> set[str]:
        return self.ends.abandoned(model)


class Outputs:
    """Outputs are not asked for any more, and what they alone need goes."""

    called = "outputs dropped"

    def __init__(self, model: ModelProto) -> None:
        self.model = model
        self.ends = Ends(model)
        self.parts: Sequence[int] = range(len(model.graph.output))

    def without(self, parts: Collection[int]) -> ModelProto | None:
        """The model without these outputs."""
        model = copied(self.model)
        outputs = model.graph.output
        replace(outputs, [value for place, value in enumerate(outputs) if place not in parts])
        return self.ends.close(pruned(model))


class PassBy:
    """Who reads what a node makes reads one of its inputs, and the node goes."""

    called = "nodes passed by"

    def __init__(self, model: ModelProto) -> None:
        self.model = model
        self.ends = Ends(model)
        ends = {value.name for graph in list(graphs(model))[1:] for value in graph.output}
        ends |= {name for function in model.functions for name in function.output}
        weights = {tensor.name for graph in graphs(model) for tensor in graph.initializer}
        self.parts: Sequence[tuple[int, int]] = [
            (place, index)
            for place, node in enumerate(every_node(model))
            for index, name in enumerate(node.input)
            if name and name not in weights and node.output and node.output[0] not in ends
            if self._alike(name, node.output[0])
        ]

    def _alike(self, a: str, b: str) -> bool:
        """Whether two values may be of one type; that their shapes fit is seen when the result runs."""
        types = [self.ends.types.get(name) for name in (a, b)]
        return None in types or len({t.tensor_type.elem_type for t in types if t is not None}) == 1

    def without(self, parts: Collection[tuple[int, int]]) -> ModelProto | None:
        """The model in which these nodes, by their number and that of the input, are passed by."""
        model = copied(self.model)
        nodes = every_node(model)
        instead: dict[str, str] = {}
        for place, index in sorted(parts):
            node = nodes[place]
            instead.setdefault(node.output[0], _last(instead, node.input[index]))
        gone = {id(nodes[place]) for place, _ in parts}
        for holder in (*graphs(model), *model.functions):
            replace(holder.node, [node for node in holder.node if id(node) not in gone])
        return self._renamed(model, {name: _last(instead, other) for name, other in instead.items()})

    def _renamed(self, model: ModelProto, instead: Mapping[str, str]) -> ModelProto | None:
        for node in every_node(model):
            replace(node.input, [instead.get(name, name) for name in node.input])
        names = dict.fromkeys(instead.get(value.name, value.name) for value in model.graph.output)
        known = {value.name: value for value in model.graph.output}
        outputs = [known.get(n, onnx.ValueInfoProto(name=n, type=self.ends.type(n))) for n in names]
        made = {name for node in model.graph.node for name in node.output}
        replace(model.graph.output, [value for value in outputs if value.name in made])
        return self.ends.close(pruned(model))


class Unwrap:
    """A body in the place of the node that holds it; its inputs, which that would give it, are fed."""

    called = "bodies in the place of their nodes"

    def __init__(self, model: ModelProto) -> None:
        self.model = model
        self.ends = Ends(model)
        self.parts: Sequence[tuple[int, int]] = [
            (place, number)
            for place, node in enumerate(model.graph.node)
            for number, _ in enumerate(bodies(node))
        ]

    def without(self, parts: Collection[tuple[int, int]]) -> ModelProto | None:
        """The model with these bodies, by the number of the node and their own, in place of the nodes."""
        model = copied(self.model)
        chosen = dict(parts)
        kept: list[NodeProto] = []
        for place, node in enumerate(model.graph.node):
            if place not in chosen:
                kept.append(node)
                continue
            body = list(bodies(node))[chosen[place]]
            if node.op_type == "If":
                _rename(body, dict(zip([v.name for v in body.output], node.output, strict=False)))
            model.graph.initializer.extend(body.initializer)
            model.graph.sparse_initializer.extend(body.sparse_initializer)
            kept.extend(body.node)
        replace(model.graph.node, kept)
        return self.ends.close(model)


class Inline:
    """Functions put in the place of their calls."""

    called = "functions inlined"

    def __init__(self, model: ModelProto) -> None:
        self.model = model
        self.parts: Sequence[tuple[str, str]] = [(f.domain, f.name) for f in model.functions]

    def without(self, parts: Collection[tuple[str, str]]) -> ModelProto | None:
        """The model without these functions; None where onnx cannot inline them."""
        try:
            return onnx.inliner.inline_selected_functions(self.model, list(parts))
        except Exception:  # noqa: BLE001  # it raises many kinds
            return None


class Hold:
    """Constant nodes become weights."""

    called = "constants made weights"

    def __init__(self, model: ModelProto) -> None:
        self.model = model
        nodes = enumerate(all_nodes(model.graph.node))
        self.parts: Sequence[int] = [place for place, node in nodes if _held_by(node) is not None]

    def without(self, parts: Collection[int]) -> ModelProto | None:
        """The model with the tensors of these nodes beside its weights."""
        model = copied(self.model)
        nodes = list(all_nodes(model.graph.node))
        gone = {id(nodes[place]) for place in parts}
        for graph in graphs(model):
            for node in graph.node:
                if id(node) in gone and (tensor := _held_by(node)) is not None:
                    graph.initializer.add().CopyFrom(tensor)
                    graph.initializer[-1].name = node.output[0]
            replace(graph.node, [node for node in graph.node if id(node) not in gone])
        return model


class Compute:
    """What weights alone decide is computed, by onnx's own reference, and becomes a weight."""

    called = "constants computed"

    def __init__(self, model: ModelProto) -> None:
        self.model = model
        self.ends = Ends(model)
        self.opsets = {entry.domain: entry.version for entry in model.opset_import}
        fed = {value.name for value in model.graph.input}
        self.weights = {tensor.name: tensor for tensor in model.graph.initializer if tensor.name not in fed}
        known = set(self.weights)
        self.parts: list[int] = []
        for place, node in enumerate(model.graph.node):
            if node.input and not any(bodies(node)) and known.issuperset(filter(None, node.input)):
                known.update(node.output)
                self.parts.append(place)

    def without(self, parts: Collection[int]) -> ModelProto | None:
        """The model with what these nodes make as weights; None where the reference cannot run them."""
        model = copied(self.model)
        graph = model.graph
        made: dict[str, Any] = {}
        for place in sorted(parts):
            node = graph.node[place]
            try:
                feeds = {name: self._value(name, made) for name in node.input if name}
                results = ReferenceEvaluator(node, opsets=self.opsets).run(None, feeds)
                made |= {name: np.asarray(a) for name, a in zip(node.output, results, strict=False) if name}
            except Exception:  # noqa: BLE001  # it raises many kinds
                return None
        graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in made.items())
        replace(graph.node, [node for place, node in enumerate(graph.node) if place not in parts])
        return self.ends.close(model)

    def _value(self, name: str, made: dict[str, Any]) -> Any:
        return made[name] if name in made else numpy_helper.to_array(self.weights[name])


def _last(instead: Mapping[str, str], name: str) -> str:
    """The value that stands for another in the end."""
    while name in instead:
        name = instead[name]
    return name


def _rename(body: GraphProto, names: Mapping[str, str]) -> None:
    """Give values that a body makes other names, in place."""
    made = {name for node in body.node for name in node.output}
    names = {old: new for old, new in names.items() if old in made}
    for node in all_nodes(body.node):
        replace(node.input, [names.get(name, name) for name in node.input])
        replace(node.output, [names.get(name, name) for name in node.output])


def _held_by(node: NodeProto) -> TensorProto | None:
    """The tensor of a Constant node; None for other nodes, and for text and sparse tensors."""
    if node.op_type != "Constant" or node.domain or not node.attribute:
        return None
    value = node.attribute[0]
    tensor: TensorProto = value.t
    if value.name == "value":
        return tensor
    dtype = {"value_float": np.float32, "value_floats": np.float32}.get(value.name, np.int64)
    if value.name not in ("value_float", "value_floats", "value_int", "value_ints"):
        return None
    return numpy_helper.from_array(np.array(onnx.helper.get_attribute_value(value), dtype))

"""A model cut open: values that are not seen made outputs, and nodes that cannot be run taken out.

Where a node is taken out, what it makes becomes an input and what it reads an output, so that all before,
around and behind it can still be compared. Models are copies; weights outside of the file stay there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import onnx
from onnx import AttributeProto

from fuser.hosts.onnx.judge.source import (
    all_nodes,
    bodies,
    copied,
    declared,
    needed_nodes,
    reads,
    spec,
    type_name,
)
from fuser.judge.inputs import Spec, numpy_dtype

RANDOM: Final = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)

Kind = tuple[str, str]
"""The domain and the type of an operator."""

WIDTHS: Final = {"bfloat16": 8, "float16": 11, "float32": 24, "float64": 53}
"""Bits of the significand."""


@dataclass(frozen=True)
class Hole:
    """A node that was taken out: what it was, what it read and what it made.

    `captured` is what its bodies read from outside, which a rewrite in them may change.
    """

    kind: Kind
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    captured: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "::".join(filter(None, self.kind))

    @property
    def random(self) -> bool:
        """Whether the runtime can run it, but never twice alike."""
        return self.kind[0] == "" and self.kind[1] in RANDOM


def exposed(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with every value that a node of the main graph makes, and an output needs, as an output."""
    result = copied(model)
    graph = result.graph
    known = {value.name for value in graph.output}
    nodes = needed_nodes(graph, known)
    names = [name for node in nodes for name in node.output if name and name not in known]
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return result


def holes(model: onnx.ModelProto, kinds: Collection[Kind]) -> list[Hole]:
    """The nodes of the main graph that are of these kinds, or hold one that is; in order."""
    calling = set(kinds)
    functions = {(f.domain, f.name): f for f in model.functions}
    grown = True
    while grown:  # a function that calls such a function is one too
        more = {
            kind
            for kind, function in functions.items()
            if kind not in calling and any(_kind(node) in calling for node in all_nodes(function.node))
        }
        grown = bool(more)
        calling |= more
    needed = needed_nodes(model.graph, {value.name for value in model.graph.output})
    return [_hole(node) for node in needed if any(_kind(part) in calling for part in all_nodes([node]))]


def unfed(graph: onnx.GraphProto) -> set[str]:
    """The inputs that are no tensors: sequences, maps and optional values, which nobody makes up."""
    return {
        value.name for value in graph.input if value.type.WhichOneof("value") not in (None, "tensor_type")
    }


def readers(graph: onnx.GraphProto, names: set[str]) -> set[Kind]:
    """The kinds of the nodes of the main graph that read one of these values."""
    return {_kind(node) for node in graph.node if not names.isdisjoint(reads(node))}


def _hole(node: onnx.NodeProto) -> Hole:
    given = dict.fromkeys(filter(None, node.input))
    captured = sorted(reads(node) - given.keys())
    return Hole(_kind(node), tuple(given), tuple(filter(None, node.output)), tuple(captured))


def _kind(node: onnx.NodeProto) -> Kind:
    return node.domain, node.op_type


def cut(model: onnx.ModelProto, taken: Iterable[Hole], types: Mapping[str, Spec]) -> onnx.ModelProto:
    """The model without these nodes, whose outputs, of the given types, are fed and whose inputs are seen.

    Outputs that such a node makes itself are none any more. An input of a node is called as in `seen`. Inputs
    of the model that are no tensors go with the nodes that read them.
    """
    result = copied(model)
    graph = result.graph
    out = {name for hole in taken for name in hole.outputs}
    kept = [node for node in graph.node if out.isdisjoint(node.output)]
    outputs = [value for value in graph.output if value.name not in out]
    apart = unfed(graph)
    own = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    shown = {value.name for value in outputs}
    for hole in taken:
        places = {seen(hole, str(place)): name for place, name in enumerate(hole.inputs)}
        places |= {seen(hole, name): name for name in hole.captured}
        for place, name in places.items():
            if name not in out | apart and place not in shown:
                kept.append(onnx.helper.make_node("Identity", [name], [place]))
                outputs.append(onnx.ValueInfoProto(name=place))
    del graph.node[:], graph.output[:]
    graph.node.extend(kept)
    graph.output.extend(outputs)
    needed = needed_nodes(graph, {value.name for value in outputs})
    read = {name for node in needed for name in reads(node)} | {value.name for value in outputs}
    fed = read & out
    inputs = [value for value in graph.input if value.name in read or value.name not in apart]
    del graph.node[:], graph.input[:]
    graph.node.extend(needed)
    graph.input.extend(inputs)
    for name in sorted(fed - own):
        dtype = types[name].dtype if name in types else "float32"
        kind = onnx.helper.np_dtype_to_tensor_dtype(numpy_dtype(dtype))
        graph.input.append(onnx.helper.make_tensor_value_info(name, kind, None))
    return result


def seen(hole: Hole, place: str) -> str:
    """What an input of a node that was taken out, or what its bodies read, is called as an output."""
    return f"input {place} of {hole} {hole.outputs[0]}"


def only(model: onnx.ModelProto, names: Collection[str]) -> onnx.ModelProto:
    """The model with these values as its only outputs, and the nodes that they need."""
    result = copied(model)
    graph = result.graph
    nodes = needed_nodes(graph, set(names))
    del graph.node[:], graph.output[:]
    graph.node.extend(nodes)
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return result


def narrowest(model: onnx.ModelProto) -> dict[str, str]:
    """Of each output the narrowest floating type that computes on the way to it; its own if there is none.

    Types come in with inputs, weights and casts. A value that is made of whole numbers brings none.
    """
    graph = model.graph
    brought: dict[str, str] = {value.name: declared(value) for value in graph.input}
    brought |= {tensor.name: type_name(tensor.data_type) for tensor in graph.initializer}
    brought |= {s.values.name: type_name(s.values.data_type) for s in graph.sparse_initializer}
    functions = {(f.domain, f.name): f for f in model.functions}
    for node in graph.node:
        types = [brought.get(name, "") for name in reads(node)]
        for part in _inside(node, functions):
            types.extend(_stated(part))
        if node.op_type in ("Shape", "Size"):
            types = []
        made = min((t for t in types if t in WIDTHS), key=WIDTHS.__getitem__, default="")
        brought.update(dict.fromkeys(node.output, made))
    ends = {value.name: [declared(value), brought.get(value.name, "")] for value in graph.output}
    return {
        name: min((t for t in types if t in WIDTHS), key=WIDTHS.__getitem__, default=types[0])
        for name, types in ends.items()
    }


def _inside(node: onnx.NodeProto, functions: dict[Kind, onnx.FunctionProto]) -> list[onnx.NodeProto]:
    """A node, those in its bodies and those of the functions that it calls."""
    parts, called = list(all_nodes([node])), set()
    for part in parts:
        if _kind(part) in functions and _kind(part) not in called:
            called.add(_kind(part))
            parts.extend(all_nodes(functions[_kind(part)].node))
    return parts


def _stated(node: onnx.NodeProto) -> list[str]:
    """The types that a node brings in by itself: of a cast, of its constants and of those in its bodies."""
    found = []
    for entry in node.attribute:
        if entry.name in ("to", "dtype") and entry.type == AttributeProto.INT and entry.i:
            found.append(type_name(entry.i))
        elif entry.type == AttributeProto.TENSOR:
            found.append(type_name(entry.t.data_type))
    for body in bodies(node):
        found.extend(type_name(tensor.data_type) for tensor in body.initializer)
    return found


def value_types(model: onnx.ModelProto) -> dict[str, Spec]:
    """Type and shape of values, as far as the file or shape inference says."""
    try:
        inferred = onnx.shape_inference.infer_shapes(model)
    except Exception:  # noqa: BLE001  # what is not inferred is not known
        inferred = model
    graph = inferred.graph
    return {v.name: spec(v) for v in (*graph.value_info, *graph.output, *graph.input) if declared(v)}


def aligned(model: onnx.ModelProto, own: Iterable[Hole], other: Iterable[Hole]) -> onnx.ModelProto:
    """The model in which what its holes make is called as what the `other` model's make.

    A value that nothing changes on its way to an output may take the output's name.
    """
    pairs = [pair for a, b in zip(own, other, strict=True) for pair in zip(a.outputs, b.outputs, strict=True)]
    names = {new: old for new, old in pairs if new != old}
    if not names:
        return model
    result = copied(model)
    shown = {value.name for value in model.graph.output}
    for node in result.graph.node:
        _rename(node, names)
    result.graph.node.extend(
        onnx.helper.make_node("Identity", [old], [new]) for new, old in names.items() if new in shown
    )
    return result


def _rename(node: onnx.NodeProto, names: Mapping[str, str]) -> None:
    """Call values otherwise, in bodies too, which define none of these names themselves."""
    for listed in (node.input, node.output):
        for place, name in enumerate(listed):
            listed[place] = names.get(name, name)
    for body in bodies(node):
        for inner in body.node:
            _rename(inner, names)
        for value in body.output:
            value.name = names.get(value.name, value.name)

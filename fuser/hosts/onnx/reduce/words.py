"""Ways to a plainer model of the same nodes: fewer arguments, plain weights, small extents, no words."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import count
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray
from onnx import AttributeProto, ModelProto, TensorProto, ValueInfoProto, numpy_helper

from fuser.hosts.onnx.judge.source import all_nodes, copied
from fuser.hosts.onnx.reduce.ends import Ends, every_node, graphs, pruned, replace

FLOATS: Final = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)

LISTED: Final = 16
"""So many integers at most are taken for extents, as a Reshape or a Split has them."""

COUNTS: Final = ("group", "num_groups", "hidden_size", "num_heads", "kernel_shape", "split", "shape")
"""The attributes in which extents stand."""

SAID_OF_MODELS: Final = ("producer_name", "producer_version", "domain", "model_version")

SHORT: Final = re.compile(r"|[a-z]+\d*")
"""A name that is short enough, or none."""


class Attributes:
    """Attributes left to their defaults."""

    called = "attributes left out"

    def __init__(self, model: ModelProto) -> None:
        self.model = model
        self.parts: Sequence[tuple[int, str]] = [
            (place, entry.name)
            for place, node in enumerate(every_node(model))
            for entry in node.attribute
            if entry.type not in (AttributeProto.GRAPH, AttributeProto.GRAPHS)
        ]

    def without(self, parts: Collection[tuple[int, str]]) -> ModelProto | None:
        """The model without these attributes, by the number of the node and their name."""
        model = copied(self.model)
        for place, node in enumerate(every_node(model)):
            replace(node.attribute, [entry for entry in node.attribute if (place, entry.name) not in parts])
        return model


class Inputs:
    """Nodes read fewer values: those behind move up."""

    called = "inputs of nodes left out"

    def __init__(self, model: ModelProto) -> None:
        self.model = model
        self.ends = Ends(model)
        self.parts: Sequence[tuple[int, int]] = [
            (place, index)
            for place, node in enumerate(every_node(model))
            for index, name in enumerate(node.input)
            if index and name
        ]

    def without(self, parts: Collection[tuple[int, int]]) -> ModelProto | None:
        """The model without these inputs, by the number of the node and their own."""
        model = copied(self.model)
        for place, node in enumerate(every_node(model)):
            gone = {index for index, _ in enumerate(node.input) if (place, index) in parts}
            replace(node.input, self._left(list(node.input), gone))
        return self.ends.close(pruned(model))

    def _left(self, names: list[str], gone: set[int]) -> list[str]:
        return [name for index, name in enumerate(names) if index not in gone]


class Optional(Inputs):
    """The same where those behind keep their places."""

    def _left(self, names: list[str], gone: set[int]) -> list[str]:
        names = ["" if index in gone else name for index, name in enumerate(names)]
        while names and not names[-1]:
            names.pop()
        return names


class Join:
    """One input for all that are of one type."""

    called = "inputs joined"

    def __init__(self, model: ModelProto) -> None:
        self.model = model
        self.ends = Ends(model)
        first: dict[bytes, str] = {}
        self.instead: dict[str, str] = {}
        for value in model.graph.input:
            one = first.setdefault(value.type.SerializeToString(deterministic=True), value.name)
            if one != value.name:
                self.instead[value.name] = one
        self.parts: Sequence[str] = list(self.instead)

    def without(self, parts: Collection[str]) -> ModelProto | None:
        """The model without these inputs."""
        model = copied(self.model)
        names = {name: self.instead[name] for name in parts}
        for node in every_node(model):
            replace(node.input, [names.get(name, name) for name in node.input])
        return self.ends.close(model)


class Words:
    """Nothing is said that need not be: descriptions, metadata, names of nodes, types of inner values."""

    called = "words left out"

    def __init__(self, model: ModelProto) -> None:
        self.model = model
        fields = ("value_info", "doc_string", "metadata_props", *SAID_OF_MODELS, "name")
        self.parts: Sequence[str] = [field for field in fields if any(_saying(model, field))]

    def without(self, parts: Collection[str]) -> ModelProto | None:
        """The model without these fields, wherever they are; graphs and functions keep their names."""
        model = copied(self.model)
        for field in parts:
            for holder in _saying(model, field):
                holder.ClearField(field)
        return model


def _saying(model: ModelProto, field: str) -> Iterator[Any]:
    """What has something in a field that it need not have."""
    nodes = every_node(model)
    for holder in nodes if field == "name" else (model, *graphs(model), *model.functions, *nodes):
        if field in holder.DESCRIPTOR.fields_by_name and getattr(holder, field):
            yield holder


class Names:
    """Values have short names, but for those of functions."""

    called = "names made short"

    def __init__(self, model: ModelProto) -> None:
        self.model = model
        names = dict.fromkeys(part.name for part in _named(model))
        names |= dict.fromkeys(name for node in all_nodes(model.graph.node) for name in node.output)
        short = (name for name in map("v{}".format, count()) if name not in names)
        self.short = {name: next(short) for name in names if not SHORT.fullmatch(name)}
        self.parts: Sequence[str] = list(self.short)

    def without(self, parts: Collection[str]) -> ModelProto | None:
        """The model with short names in the place of these."""
        model = copied(self.model)
        names = {name: self.short[name] for name in parts}
        for part in _named(model):
            part.name = names.get(part.name, part.name)
        for node in all_nodes(model.graph.node):
            replace(node.input, [names.get(name, name) for name in node.input])
            replace(node.output, [names.get(name, name) for name in node.output])
        return model


def _named(model: ModelProto) -> Iterator[Any]:
    """What is said of values by name, and weights."""
    for graph in graphs(model):
        yield from (*graph.input, *graph.initializer, *graph.output, *graph.value_info)
        yield from (sparse.values for sparse in graph.sparse_initializer)


class Ones:
    """Weights of which nothing but the type and the shape matters: all are one."""

    called = "weights made plain"
    plain: ClassVar[tuple[Callable[[int], NDArray[Any]], ...]] = (np.ones,)
    """What is plain enough; the last of it is what weights are made."""

    def __init__(self, model: ModelProto) -> None:
        self.model = model
        self.parts: Sequence[int] = [
            place
            for place, tensor in enumerate(_weights(model))
            if tensor.data_type in FLOATS and not self._is_plain(_array(tensor))
        ]

    def _is_plain(self, array: NDArray[Any]) -> bool:
        return any(np.array_equal(array.reshape(-1), plain(array.size)) for plain in self.plain)

    def without(self, parts: Collection[int]) -> ModelProto | None:
        """The model with these weights plain."""
        model = copied(self.model)
        for place, tensor in enumerate(_weights(model)):
            if place in parts:
                array = _array(tensor)
                plain = self.plain[-1](array.size).reshape(array.shape).astype(array.dtype)
                tensor.CopyFrom(numpy_helper.from_array(plain, tensor.name))
        return model


class Counted(Ones):
    """The same where it matters that not all are alike: they are one, two and three in turn."""

    plain = (np.ones, lambda size: np.arange(size) % 3 + 1)


class Extents:
    """An extent that occurs in inputs and weights is a smaller one, wherever it occurs."""

    called = "extents made small"

    def __init__(self, model: ModelProto, to: int) -> None:
        self.model = model
        self.to = to
        found = {extent for tensor in _weights(model) for extent in tensor.dims}
        found |= {dim.dim_value for v in model.graph.input for dim in v.type.tensor_type.shape.dim}
        self.parts: Sequence[int] = sorted((extent for extent in found if extent > to), reverse=True)

    def without(self, parts: Collection[int]) -> ModelProto | None:
        """The model with these extents small; what it says of the shapes of other values is left out."""
        model = copied(self.model)
        for tensor in _weights(model):
            array = _array(tensor)
            if array.ndim <= 1 and array.dtype == np.int64 and array.size <= LISTED:
                array = np.where(np.isin(array, list(parts)), self.to, array)
            array = array[tuple(slice(self.to if extent in parts else extent) for extent in array.shape)]
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
        for node in every_node(model):
            for entry in node.attribute:
                if entry.name in COUNTS and entry.type == AttributeProto.INT:
                    entry.i = self._small(entry.i, parts)
                elif entry.name in COUNTS:
                    replace(entry.ints, [self._small(extent, parts) for extent in entry.ints])
        self._restate(model, parts)
        return model

    def _restate(self, model: ModelProto, parts: Collection[int]) -> None:
        for value in _fed(model):
            for dim in value.type.tensor_type.shape.dim:
                if dim.HasField("dim_value"):
                    dim.dim_value = self._small(dim.dim_value, parts)
        for graph in graphs(model):
            del graph.value_info[:]
            for value in graph.output:
                for dim in value.type.tensor_type.shape.dim:
                    dim.Clear()

    def _small(self, extent: int, parts: Collection[int]) -> int:
        return self.to if extent in parts else extent


def _fed(model: ModelProto) -> Iterator[ValueInfoProto]:
    return (value for graph in graphs(model) for value in graph.input)


def _weights(model: ModelProto) -> Iterator[TensorProto]:
    return (tensor for graph in graphs(model) for tensor in graph.initializer)


def _array(tensor: TensorProto) -> NDArray[Any]:
    return numpy_helper.to_array(tensor)

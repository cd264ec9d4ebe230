"""Ways to a plainer model of the same nodes: fewer arguments, plain weights, small extents, no words."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray
from onnx import AttributeProto, ModelProto, TensorProto, ValueInfoProto, numpy_helper

from fuser.hosts.onnx.judge.source import copied
from fuser.hosts.onnx.reduce.ends import Ends, every_node, graphs, pruned, replace

FLOATS: Final = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)

LISTED: Final = 16
"""So many integers at most are taken for extents, as a Reshape or a Split has them."""

COUNTS: Final = ("group", "num_groups", "hidden_size", "num_heads", "kernel_shape", "split", "shape")
"""The attributes in which extents stand."""


class Arguments:
    """Attributes and optional inputs left to their defaults."""

    called = "arguments left out"

    def __init__(self, model: ModelProto) -> None:
        self.model = model
        self.ends = Ends(model)
        self.parts: Sequence[tuple[int, str | int]] = list(_arguments(model))

    def without(self, parts: Collection[tuple[int, str | int]]) -> ModelProto | None:
        """The model without these attributes, by the number of the node and name, and inputs, by number."""
        model = copied(self.model)
        for place, node in enumerate(every_node(model)):
            replace(node.attribute, [entry for entry in node.attribute if (place, entry.name) not in parts])
            inputs = ["" if (place, index) in parts else name for index, name in enumerate(node.input)]
            while inputs and not inputs[-1]:
                inputs.pop()
            replace(node.input, inputs)
        return self.ends.close(pruned(model))


def _arguments(model: ModelProto) -> Iterator[tuple[int, str | int]]:
    for place, node in enumerate(every_node(model)):
        for entry in node.attribute:
            if entry.type not in (AttributeProto.GRAPH, AttributeProto.GRAPHS):
                yield place, entry.name
        yield from ((place, index) for index, name in enumerate(node.input) if index and name)


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
        self.parts: Sequence[str] = ["value_info", "name", "doc_string", "metadata_props"]

    def without(self, parts: Collection[str]) -> ModelProto | None:
        """The model without these fields, wherever they are."""
        model = copied(self.model)
        nodes = every_node(model)
        named = {"name": nodes, "value_info": [*graphs(model), *model.functions]}
        anything = [model, *graphs(model), *model.functions, *nodes]
        for field in parts:
            for holder in named.get(field, anything):
                holder.ClearField(field)
        return model


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
                if entry.name in COUNTS:
                    entry.i = self._small(entry.i, parts)
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

"""A model to be judged, as protobuf has it: nothing of the compiler's own reading is involved."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from fuser.errors import InputError
from fuser.judge.inputs import Spec

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx_ir
    from numpy.typing import NDArray

    Model = str | os.PathLike[str] | onnx.ModelProto | onnx_ir.Model


@dataclass(frozen=True)
class Source:
    """A model by its file, or as an object; `name` is what errors call an object."""

    model: Model
    called: str

    @property
    def name(self) -> str:
        """The file, or what the object is called."""
        return os.fspath(self.model) if isinstance(self.model, str | os.PathLike) else self.called

    @cached_property
    def folder(self) -> Path:
        """Where external data lies."""
        if isinstance(self.model, str | os.PathLike):
            return Path(self.model).parent
        if isinstance(self.model, onnx.ModelProto):
            return Path()
        import onnx_ir

        tensors = (v.const_value for graph in self.model.graphs() for v in graph.initializers.values())
        folders = (Path(t.base_dir) for t in tensors if isinstance(t, onnx_ir.ExternalTensor))
        return next(folders, Path())

    def proto(self) -> onnx.ModelProto:
        """The model as protobuf has it, external data left where it is; not to be changed.

        Raises:
            InputError: there is no such file, or it is no model.
        """
        if isinstance(self.model, onnx.ModelProto):
            return self.model
        if not isinstance(self.model, str | os.PathLike):
            import onnx_ir

            return onnx_ir.to_proto(self.model)
        path = Path(self.model)
        if not path.is_file():
            raise InputError(f"{path}: {'not a file' if path.exists() else 'no such file'}")
        try:
            return onnx.load(path, load_external_data=False)
        except Exception as error:
            raise InputError(f"{path}: not an ONNX model, or damaged: {error}") from error


def copied(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that may be changed."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    return result


def array_of(tensor: TensorProto, folder: Path) -> NDArray[Any]:
    """The values of a tensor; external ones are read now, and not kept."""
    if tensor.data_location == TensorProto.EXTERNAL:
        own = TensorProto()
        own.CopyFrom(tensor)
        tensor = own
    return numpy_helper.to_array(tensor, str(folder))


def dense(sparse: onnx.SparseTensorProto, folder: Path) -> NDArray[Any]:
    """A sparse tensor with its zeros; the indices are of the flat tensor, or one per axis."""
    values, places = array_of(sparse.values, folder), array_of(sparse.indices, folder)
    result = np.zeros(tuple(sparse.dims), values.dtype)
    flat = places if places.ndim == 1 else np.ravel_multi_index(tuple(places.T), result.shape)
    result.reshape(-1)[flat] = values
    return result


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """The attributes of a node by name, bodies excepted."""
    return {
        entry.name: onnx.helper.get_attribute_value(entry)
        for entry in node.attribute
        if entry.type not in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
    }


def bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs that a node holds."""
    for entry in node.attribute:
        if entry.type == onnx.AttributeProto.GRAPH:
            yield entry.g
        yield from entry.graphs


def reads(node: onnx.NodeProto) -> set[str]:
    """The values that a node needs, those included that its bodies take from outside."""
    found = {name for name in node.input if name}
    for body in bodies(node):
        own = {value.name for value in (*body.input, *body.initializer)}
        own.update(sparse.values.name for sparse in body.sparse_initializer)
        needed = {value.name for value in body.output}
        for inner in body.node:
            needed |= reads(inner)
            own.update(inner.output)
        found |= needed - own
    return found


def all_nodes(nodes: Any) -> Iterator[onnx.NodeProto]:
    """Nodes, and those in their bodies."""
    for node in nodes:
        yield node
        for body in bodies(node):
            yield from all_nodes(body.node)


def needed_nodes(graph: onnx.GraphProto, outputs: set[str]) -> list[onnx.NodeProto]:
    """The nodes that `outputs` depend on, in order."""
    wanted, found = set(outputs), []
    for node in reversed(graph.node):
        if not wanted.isdisjoint(node.output):
            found.append(node)
            wanted |= reads(node)
    return found[::-1]


def type_name(kind: int) -> str:
    """numpy's name of an element type: `float32`, `bfloat16`; `string`, or `undefined` if it has none."""
    if kind == TensorProto.STRING:
        return "string"
    try:
        return str(onnx.helper.tensor_dtype_to_np_dtype(kind).name)
    except KeyError:
        return "undefined"


def declared(value: onnx.ValueInfoProto) -> str:
    """The type of a graph input or output; empty where it is not stated, or is no tensor's."""
    tensor = value.type.tensor_type
    return type_name(tensor.elem_type) if value.type.HasField("tensor_type") and tensor.elem_type else ""


def specs(graph: onnx.GraphProto) -> list[Spec]:
    """The inputs that a caller must feed."""
    own = {tensor.name for tensor in graph.initializer}
    return [spec(value) for value in graph.input if value.name not in own]


def spec(value: onnx.ValueInfoProto) -> Spec:
    """Type and shape of a value, as they are stated."""
    return Spec(value.name, declared(value) or str(value.type.WhichOneof("value")), _dims(value))


def _dims(value: onnx.ValueInfoProto) -> tuple[int | str | None, ...] | None:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return tuple(
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None for dim in tensor.shape.dim
    )


def named(node: onnx.NodeProto) -> str:
    """A node as reasons call it."""
    kind = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
    first = next(iter(node.output), "")
    return f"node {node.name!r} ({kind})" if node.name else f"the node of {first!r} ({kind})"

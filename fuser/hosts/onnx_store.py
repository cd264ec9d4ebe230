"""A model as a message and as bytes on disk, with one weight in memory at a time.

Whatever onnx-ir does not keep of a model is carried along and put back, so that what no rewrite touched comes
out as it went in.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Final, NamedTuple

import numpy as np
import onnx
import onnx_ir as ir

from fuser.hosts.onnx_wire import LARGE, MARK, expanded, stub

LARGEST_FILE: Final = 2**31 - 1
"""A protobuf message cannot be larger; beyond it weights are external data."""

SMALLEST_EXTERNAL: Final = 1024
"""Tensors of fewer bytes stay in the model file even where the others are external data."""

ALIGNMENT: Final = 64
"""External tensors begin at a multiple of this, a cache line."""

DATA_SUFFIX: Final = ".data"
"""The file of external data is called as the model is, and this."""

_KEPT: Final = "graph_fuser_kept"


@dataclass
class Kept:
    """What onnx-ir does not carry along with a model.

    `value_info` are the names that the main graph lists, `declared` those of all graphs. `external`: the
    source came with external data.
    """

    value_info: list[str] = field(default_factory=list)
    declared: set[str] = field(default_factory=set)
    opsets: list[onnx.OperatorSetIdProto] = field(default_factory=list)
    sparse: list[onnx.SparseTensorProto] = field(default_factory=list)
    training: list[onnx.TrainingInfoProto] = field(default_factory=list)
    external: bool = False

    @classmethod
    def of(cls, proto: onnx.ModelProto, declared: set[str]) -> "Kept":
        """What to keep of a message."""
        names = [info.name for info in proto.graph.value_info]
        return cls(
            names,
            declared,
            list(proto.opset_import),
            list(proto.graph.sparse_initializer),
            list(proto.training_info),
        )


def kept(model: ir.Model) -> Kept:
    """What is carried along with a model."""
    found: Kept = model.meta.get(_KEPT, Kept())
    return found


def keep(model: ir.Model, what: Kept) -> None:
    """Carry `what` along with a model."""
    model.meta[_KEPT] = what


class Held(NamedTuple):
    """A tensor, how to put another in its place, and the initializer that it belongs to, if any."""

    tensor: ir.TensorProtocol
    put: Callable[[ir.TensorProtocol], None]
    value: ir.Value | None


def tensors(model: ir.Model) -> list[Held]:
    """Every tensor of initializers and of attributes, in functions and bodies as well."""
    roots = (model.graph, *(function.graph for function in model.functions.values()))
    return [held for graph in roots for held in _tensors(graph)]


def _tensors(graph: ir.Graph) -> Iterator[Held]:
    for value in graph.initializers.values():
        if value.const_value is not None:
            yield Held(value.const_value, partial(setattr, value, "const_value"), value)
    for node in graph:
        for attribute in node.attributes.values():
            kind = attribute.type
            if attribute.is_ref():
                continue
            if kind == ir.AttributeType.TENSOR:
                yield Held(attribute.value, partial(_put_attribute, node, attribute), None)
            elif kind == ir.AttributeType.GRAPH:
                yield from _tensors(attribute.value)
            elif kind == ir.AttributeType.GRAPHS:
                for body in attribute.value:
                    yield from _tensors(body)


def _put_attribute(node: ir.Node, old: ir.Attr, tensor: ir.TensorProtocol) -> None:
    node.attributes[old.name] = ir.AttrTensor(old.name, tensor, doc_string=old.doc_string)


def serialised(model: ir.Model) -> onnx.ModelProto:
    """The message of a model, with what onnx-ir does not keep and without what it adds."""
    with _undeclared(kept(model).declared, tensors(model)):
        proto = ir.to_proto(model)
    rest = kept(model)
    proto.graph.sparse_initializer.extend(rest.sparse)
    proto.training_info.extend(rest.training)
    if {opset.domain: opset.version for opset in rest.opsets} == model.opset_imports:
        # Some write the domain of the standard operators as an empty string, some not at all.
        proto.ClearField("opset_import")
        proto.opset_import.extend(rest.opsets)
    # The types of intermediate values come in the order of the source, then those of new values.
    found = {info.name: info for info in proto.graph.value_info}
    names = dict.fromkeys([*(name for name in rest.value_info if name in found), *found])
    if list(names) != list(found):
        ordered = onnx.GraphProto(value_info=[found[name] for name in names])
        proto.graph.ClearField("value_info")
        proto.graph.MergeFrom(ordered)
    return proto


@contextmanager
def _undeclared(declared: set[str], held: list[Held]) -> Iterator[None]:
    """Hide types of initializers for the time of the block: onnx-ir would list them, the source did not."""
    values = [value for _, _, value in held if value is not None and value.name not in declared]
    hidden = [(v, v.type, v.shape) for v in values if not v.is_graph_input() and not v.is_graph_output()]
    try:
        for value, _, _ in hidden:
            value.type = value.shape = None
        yield
    finally:
        for value, type_, shape in hidden:
            value.type, value.shape = type_, shape


def write(model: ir.Model, path: Path) -> None:
    """Write a model file; where weights are too large, or the source's were so, external data beside it.

    Raises:
        OSError: no permission, no space.
    """
    held = tensors(model)
    stored = [tensor for tensor, _, value in held if value is not None]
    external = kept(model).external or any(isinstance(tensor, ir.ExternalTensor) for tensor in stored)
    if not external and sum(map(_size, stored)) <= LARGEST_FILE:
        with _stubs(held) as streamed:
            pieces, length = expanded(serialised(model).SerializeToString(), streamed)
        if length <= LARGEST_FILE:
            with path.open("wb") as file:
                _stream(file, pieces)
            return
    data = path.with_name(path.name + DATA_SUFFIX)
    with data.open("wb") as weights, _stubs(held, weights, data.name) as streamed:
        pieces, _ = expanded(serialised(model).SerializeToString(), streamed)
    with path.open("wb") as file:
        _stream(file, pieces)


def _size(tensor: ir.TensorProtocol) -> int:
    """Bytes, where that is a matter of the shape."""
    return 0 if isinstance(tensor, ir.StringTensor) else tensor.nbytes


def _stream(file: IO[bytes], pieces: list[bytes | ir.TensorProtocol]) -> None:
    for piece in pieces:
        if isinstance(piece, bytes):
            file.write(piece)
        else:
            _write_tensor(file, piece)


def _write_tensor(file: IO[bytes], tensor: ir.TensorProtocol) -> None:
    if tensor.dtype.bitwidth < 8:
        file.write(tensor.tobytes())
    else:
        file.write(np.ascontiguousarray(tensor.numpy()).reshape(-1).view(np.uint8).data)


@contextmanager
def _stubs(
    held: list[Held], weights: IO[bytes] | None = None, location: str = ""
) -> Iterator[dict[str, ir.TensorProtocol]]:
    """Put stubs in the place of large tensors for the time of the block; yields what they stand for.

    Initializers go to the file `weights`, if there is one, and their stubs refer to it as `location`.
    """
    streamed: dict[str, ir.TensorProtocol] = {}
    try:
        for tensor, put, value in held:
            if weights is not None and value is not None and _goes_out(tensor):
                weights.write(bytes(-weights.tell() % ALIGNMENT))
                replacement = stub(tensor, location, weights.tell(), tensor.nbytes)
                _write_tensor(weights, tensor)
                put(replacement)
            elif _size(tensor) >= LARGE and not isinstance(
                tensor, ir.ExternalTensor | ir.serde.TensorProtoTensor
            ):
                name = f"{MARK}{len(streamed)}"
                streamed[name] = tensor
                put(stub(tensor, name))
        yield streamed
    finally:
        for tensor, put, _ in held:
            put(tensor)


def _goes_out(tensor: ir.TensorProtocol) -> bool:
    """Whether a tensor belongs into a file of external data, if there is one."""
    return isinstance(tensor, ir.ExternalTensor) or _size(tensor) >= SMALLEST_EXTERNAL

"""A model as a message and as bytes on disk, with one weight in memory at a time.

Whatever onnx-ir does not keep of a model is carried along and put back, so that what no rewrite touched comes
out as it went in.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Final

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

Put = Callable[[ir.TensorProtocol], None]
"""Puts a tensor where another one was found."""


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


def graphs(model: ir.Model) -> Iterator[ir.Graph]:
    """The main graph, those of functions, and every body in them."""
    for graph in (model.graph, *(function.graph for function in model.functions.values())):
        yield graph
        yield from graph.subgraphs()


def initializers(model: ir.Model) -> Iterator[tuple[ir.TensorProtocol, Put]]:
    """Every tensor of an initializer, with a way to put another in its place."""
    for graph in graphs(model):
        for value in graph.initializers.values():
            if value.const_value is not None:
                yield value.const_value, partial(setattr, value, "const_value")


def attributes(model: ir.Model) -> Iterator[tuple[ir.TensorProtocol, Put]]:
    """Every tensor of an attribute, with a way to put another in its place."""
    for graph in graphs(model):
        for node in graph:
            for attribute in node.attributes.values():
                if attribute.type == ir.AttributeType.TENSOR and not attribute.is_ref():
                    yield attribute.as_tensor(), partial(_put_attribute, node, attribute)


def _put_attribute(node: ir.Node, old: ir.Attr, tensor: ir.TensorProtocol) -> None:
    node.attributes[old.name] = ir.AttrTensor(old.name, tensor, doc_string=old.doc_string)


def serialised(model: ir.Model) -> onnx.ModelProto:
    """The message of a model, with what onnx-ir does not keep and without what it adds."""
    with _undeclared(model):
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
def _undeclared(model: ir.Model) -> Iterator[None]:
    """Hide types of initializers for the time of the block: onnx-ir would list them, the source did not."""
    declared = kept(model).declared
    hidden = [
        (value, value.type, value.shape)
        for graph in graphs(model)
        for value in graph.initializers.values()
        if value.name not in declared and not value.is_graph_input() and not value.is_graph_output()
    ]
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
    size = sum(tensor.nbytes for tensor, _ in initializers(model))
    if not (kept(model).external or size > LARGEST_FILE):
        with _stubs(model) as tensors:
            pieces, length = expanded(serialised(model).SerializeToString(), tensors)
        if length <= LARGEST_FILE:
            with path.open("wb") as file:
                _stream(file, pieces)
            return
    data = path.with_name(path.name + DATA_SUFFIX)
    with data.open("wb") as weights, _stubs(model, weights, data.name) as tensors:
        pieces, _ = expanded(serialised(model).SerializeToString(), tensors)
    with path.open("wb") as file:
        _stream(file, pieces)


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
    model: ir.Model, weights: IO[bytes] | None = None, location: str = ""
) -> Iterator[dict[str, ir.TensorProtocol]]:
    """Put stubs in the place of large tensors for the time of the block; yields what they stand for.

    Initializers go to the file `weights`, if there is one, and their stubs refer to it as `location`.
    """
    tensors: dict[str, ir.TensorProtocol] = {}
    puts: list[tuple[Put, ir.TensorProtocol]] = []
    external = [] if weights is None else [t for t in initializers(model) if _external(t[0])]
    try:
        for tensor, put in external:
            assert weights is not None
            weights.write(bytes(-weights.tell() % ALIGNMENT))
            replacement = stub(tensor, location, weights.tell(), tensor.nbytes)
            _write_tensor(weights, tensor)
            puts.append((put, tensor))
            put(replacement)
        for tensor, put in [*initializers(model), *attributes(model)]:
            if tensor.nbytes >= LARGE and not isinstance(
                tensor, ir.ExternalTensor | ir.StringTensor | ir.serde.TensorProtoTensor
            ):
                name = f"{MARK}{len(tensors)}"
                tensors[name] = tensor
                puts.append((put, tensor))
                put(stub(tensor, name))
        yield tensors
    finally:
        for put, tensor in puts:
            put(tensor)


def _external(tensor: ir.TensorProtocol) -> bool:
    return tensor.nbytes >= SMALLEST_EXTERNAL and not isinstance(tensor, ir.StringTensor)

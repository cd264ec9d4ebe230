"""ONNX models in and out: what is read is checked, what is written is complete before it gets its name."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from fuser.errors import InputError
from fuser.hosts import output
from fuser.hosts.kind import foreign
from fuser.hosts.onnx.file.checker import check
from fuser.hosts.onnx.file.data import Files, Place, Source, external_path, marked, separate, separate_given
from fuser.hosts.onnx.file.message import serialised
from fuser.hosts.onnx.file.said import readable, remember, remember_tensor
from fuser.hosts.onnx.file.store import write
from fuser.hosts.onnx.file.walk import tensor_protos, tensors
from fuser.hosts.output import LARGEST_FILE

ZIP: Final = b"PK\x03\x04"

_READ: Final = "graph_fuser_read"


def load(path: str | os.PathLike[str]) -> ir.Model:
    """The model in a file, its large tensors left there.

    Raises:
        InputError: the file cannot be read, is no ONNX model, is cut off, or holds an invalid graph; or its
            external data is missing, cut off, or outside the folder of the model.
    """
    where = os.fspath(path)
    source = Source(where)
    if source.read(len(ZIP)) == ZIP:
        raise InputError(f"{where}: the file is a zip archive, as torch.save writes, not an ONNX model")
    if source.size > LARGEST_FILE:
        raise InputError(
            f"{where}: not an ONNX model: the file has {source.size} bytes, and a protobuf message at most "
            f"{LARGEST_FILE}"
        )
    content = source.read()
    proto, places = separate(_parsed(content, where), content)
    del content
    return _understood(proto, places, Files(where, source, places))


def from_any(model: Any) -> ir.Model:
    """A model that may be edited, made from an `onnx.ModelProto` or an `onnx_ir.Model`, which stays as it is.

    Raises:
        InputError: the model is of another type, or invalid.
    """
    if isinstance(model, ir.Model):
        return model.clone()
    if isinstance(model, onnx.ModelProto):
        copy, places, given = separate_given(model)
        # External data of a message is looked for in the current folder: there is no other.
        return _understood(copy, places, Files("the model", given, places))
    raise foreign(model)


def to_same(model: ir.Model, like: Any) -> Any:
    """`model` as the type of `like`: an `onnx.ModelProto` or an `onnx_ir.Model`."""
    return serialised(model) if isinstance(like, onnx.ModelProto) else model


def save(model: ir.Model, path: str | os.PathLike[str]) -> None:
    """Write a model; until it is complete, what was at `path` stays.

    Weights beyond 2 GB, and those of a model that came with external data, go to a file beside it, which is
    named after what it holds.

    Raises:
        OutputError: the folder does not exist, there is no permission or no space, or the model's own weights
            are there.
    """
    with staged(model, path):
        pass


@contextmanager
def staged(model: ir.Model, path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a model beside `path`, yield where, and move it to `path` if the block ends without an exception.

    Raises:
        OutputError: as for `save`.
    """
    where = os.fspath(path)
    reads = model.meta.get(_READ, ())
    with output.staged(path, reads) as written:
        with output.reported(where):
            write(model, written, apart=bool(reads))
        del model
        yield written


def files(path: str | os.PathLike[str]) -> list[Path]:
    """The files that reading a model reads: itself, and those of its external data.

    Raises:
        InputError: it cannot be read, or its external data is outside its folder.
    """
    where = os.fspath(path)
    proto = _parsed(Source(where).read(), where)
    found = {}
    for tensor in tensor_protos(proto):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            info = onnx.external_data_helper.ExternalDataInfo(tensor)
            if info.location not in found:
                found[info.location] = external_path(where, tensor.name, info.location)
    return [Path(where), *found.values()]


def _parsed(content: bytes, where: str) -> onnx.ModelProto:
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(content)
    except DecodeError:
        # Every exporter begins with the IR version.
        wrong = "is cut off or damaged" if content[0] == 0x08 else "is not an ONNX model"
        raise InputError(
            f"{where}: the file {wrong}: its {len(content)} bytes are no protobuf message"
        ) from None
    return proto


def _understood(proto: onnx.ModelProto, places: Sequence[Place | None], files: Files) -> ir.Model:
    """The model that a message holds, checked; the message is kept."""
    where = files.where
    if not proto.HasField("graph"):
        raise InputError(f"{where}: not an ONNX model: it holds no graph")
    if not proto.opset_import:
        raise InputError(f"{where}: not an ONNX model, or cut off: it names no opset")
    in_order = check(proto, where)
    with readable(proto):
        said = list(tensor_protos(proto))
        files.require_types(said)
        with marked(said, places):
            model = _read(proto, where)
        for (tensor, put, _), told in zip(tensors(model), said, strict=True):
            if isinstance(tensor, ir.ExternalTensor):
                resolved = files.resolve(tensor)
                put(resolved)
                remember_tensor(resolved, told)
            else:
                files.require_data(tensor, told)
                remember_tensor(tensor, told)
    remember(model, proto)
    if not in_order:
        model.graph.sort()
        for function in model.functions.values():
            function.sort()
    model.meta[_READ] = tuple(files.paths.values())
    return model


def _read(proto: onnx.ModelProto, where: str) -> ir.Model:
    try:
        return ir.from_proto(proto)
    except Exception as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise InputError(
            f"{where}: onnx-ir cannot read the model: {str(cause).partition(chr(10))[0]}"
        ) from error

"""ONNX files and models in and out: what is read is checked, what is written is complete before it gets its name.

Large tensors are never read into memory as a whole (see `onnx_wire`). Whatever onnx-ir does not keep is carried along and
put back, so that what no rewrite touched comes out as it went in.
"""

import errno
import mmap
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from fuser.errors import InputError, OutputError
from fuser.hosts.onnx_check import is_sorted
from fuser.hosts.onnx_wire import LARGE, MARK, Damaged, FileTensor, expanded, skeleton, stub

_KEPT: Final = "graph_fuser_kept"

LARGEST_FILE: Final = 2**31 - 1
"""A protobuf message cannot be larger; beyond it weights are external data."""

SMALLEST_EXTERNAL: Final = 1024
"""Tensors of fewer bytes stay in the model file even if the others are external."""


@dataclass
class _Kept:
    """What onnx-ir does not carry from a model to its result."""

    value_info: list[str] = field(default_factory=list)
    sparse: list[onnx.SparseTensorProto] = field(default_factory=list)
    training: list[onnx.TrainingInfoProto] = field(default_factory=list)
    external: bool = False


def load(path: str | os.PathLike[str]) -> ir.Model:
    """The model in a file, its large tensors left there.

    Raises:
        InputError: the file cannot be read, is no ONNX model, is cut off, or holds an invalid graph; or its external
            data is missing, cut off, or outside the folder of the model.
    """
    where = os.fspath(path)
    mapped = _mapped(where)
    try:
        reduced, places = skeleton(mapped)
    except Damaged as error:
        # Every exporter begins with the IR version.
        wrong = "is cut off or damaged" if mapped[0] == 0x08 else "is not an ONNX model"
        raise InputError(f"{where}: the file {wrong}: {error}, the file has {len(mapped)} bytes") from None
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(reduced)
    except DecodeError:
        raise InputError(f"{where}: the file is not an ONNX model, or is damaged") from None
    model = _understood(proto, where)
    _attach(model, _Files(where, mapped, places))
    return model


def from_any(model: Any) -> ir.Model:
    """A model that may be edited, made from an `onnx.ModelProto` or an `onnx_ir.Model`, which stays as it is.

    Raises:
        InputError: the model is of another type, or invalid.
    """
    if isinstance(model, ir.Model):
        clone = model.clone()
        clone.meta[_KEPT] = model.meta.get(_KEPT, _Kept())
        return clone
    if isinstance(model, onnx.ModelProto):
        copy = _understood(model, "the model")
        # External data of a message is looked for in the current folder: there is no other.
        _attach(copy, _Files("the model"))
        return copy
    raise InputError(
        f"a model is an onnx.ModelProto or an onnx_ir.Model, not a {type(model).__module__}.{type(model).__qualname__}"
    )


def to_same(model: ir.Model, like: Any) -> Any:
    """`model` as the type of `like`: an `onnx.ModelProto` or an `onnx_ir.Model`."""
    return _serialised(model) if isinstance(like, onnx.ModelProto) else model


def save(model: ir.Model, path: str | os.PathLike[str]) -> None:
    """Write a model; until it is complete, what was at `path` stays.

    Weights beyond 2 GB, and those of a model that came with external data, go to `path` + ".data".

    Raises:
        OutputError: the folder does not exist, or there is no permission or no space.
    """
    with staged(model, path):
        pass


@contextmanager
def staged(model: ir.Model, path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a model beside `path`, yield where, and move it to `path` when the block ends without an exception.

    Raises:
        OutputError: as for `save`.
    """
    where = os.fspath(path)
    # The file that a link leads to is replaced, not the link.
    target = Path(os.path.realpath(where))
    if target.exists() and not target.is_file():
        raise OutputError(f"{where}: cannot write there: it is {'a folder' if target.is_dir() else 'not a file'}")
    if not target.parent.is_dir():
        raise OutputError(f"{where}: cannot write there: the folder {target.parent} does not exist")
    with _reported(where):
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        with _reported(where):
            _write(model, folder / target.name)
        yield folder / target.name
        with _reported(where):
            _move(folder, target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _reported(where: str) -> Iterator[None]:
    """Turn an error of the operating system into a sentence."""
    try:
        yield
    except OSError as error:
        reason = "there is no space left" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror or str(error)
        raise OutputError(f"{where}: cannot write there: {reason[0].lower()}{reason[1:]}") from error


def _move(folder: Path, target: Path) -> None:
    """Give the finished files their names, the weights first. An old file of weights comes back if the model cannot follow."""
    data = target.with_name(target.name + ".data")
    made = folder / data.name
    for finished, old in ((made, data), (folder / target.name, target)):
        if finished.exists() and old.exists():
            shutil.copymode(old, finished)
            # What is replaced must not be lost if the machine stops now.
            with finished.open("rb") as file:
                os.fsync(file.fileno())
    backup = folder / "old.data"
    if made.exists():
        if data.exists():
            data.rename(backup)
        made.rename(data)
    try:
        (folder / target.name).replace(target)
    except OSError:
        if backup.exists():
            backup.replace(data)
        raise


def _mapped(where: str) -> mmap.mmap:
    """The bytes of a file."""
    try:
        with open(where, "rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise InputError(f"{where}: the file is empty")
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise InputError(f"{where}: there is no such file") from None
    except IsADirectoryError:
        raise InputError(f"{where}: this is a folder, not a file") from None
    except OSError as error:
        raise InputError(f"{where}: the file cannot be read: {error.strerror or error}") from None


def _attach(model: ir.Model, files: "_Files") -> None:
    """Give every tensor that is elsewhere its bytes, and check that the others have as many as their shapes say."""
    for tensor, put in _tensors(model):
        if isinstance(tensor, ir.ExternalTensor):
            put(files.resolve(tensor))
            model.meta[_KEPT].external |= not str(tensor.location).startswith(MARK)
        elif isinstance(tensor, ir.serde.TensorProtoTensor) and tensor.raw.HasField("raw_data"):
            files.require_size(tensor, len(tensor.raw.raw_data))


def _understood(proto: onnx.ModelProto, where: str) -> ir.Model:
    """The model that a message holds, checked."""
    if not proto.HasField("graph"):
        raise InputError(f"{where}: not an ONNX model: it holds no graph")
    if not proto.opset_import:
        raise InputError(f"{where}: not an ONNX model, or cut off: it names no opset")
    ordered = is_sorted(proto, where)
    kept = _Kept(
        [info.name for info in proto.graph.value_info],
        list(proto.graph.sparse_initializer),
        list(proto.training_info),
    )
    try:
        model = ir.from_proto(proto)
    except Exception as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise InputError(f"{where}: onnx-ir cannot read the model: {str(cause).partition(chr(10))[0]}") from error
    if not ordered:
        model.graph.sort()
        for function in model.functions.values():
            function.sort()
    model.meta[_KEPT] = kept
    return model


class _Files:
    """The memory maps behind the tensors of one model: its own file, and those of its external data."""

    def __init__(self, where: str, mapped: mmap.mmap | None = None, places: Sequence[tuple[int, int]] = ()) -> None:
        self.where = where
        self.places = places
        self.own = mapped
        self.maps: dict[str, mmap.mmap] = {}

    def resolve(self, tensor: ir.ExternalTensor) -> ir.TensorProtocol:
        """The tensor behind a stub, or behind a reference to external data."""
        location = str(tensor.location)
        if location.startswith(MARK) and self.own is not None:
            begin, end = self.places[int(location.removeprefix(MARK))]
            self.require_size(tensor, end - begin)
            return FileTensor(tensor, self.own, begin)
        mapped, begin = self._external(tensor.name, location), tensor.offset or 0
        if tensor.length is not None:
            self.require_size(tensor, tensor.length)
        if begin + tensor.nbytes > len(mapped):
            raise InputError(
                f"{self.where}: the external data of {tensor.name!r} is cut off: it ends at byte "
                f"{begin + tensor.nbytes} of {location!r}, which has {len(mapped)} bytes"
            )
        return FileTensor(tensor, mapped, begin)

    def require_size(self, tensor: ir.TensorProtocol, found: int) -> None:
        """Refuse a tensor that has not as many bytes as its shape says."""
        if found != tensor.nbytes:
            raise InputError(
                f"{self.where}: the model is invalid: {tensor.name!r} has {found} bytes of data, and its shape "
                f"{list(tensor.shape)} of {tensor.dtype} takes {tensor.nbytes}"
            )

    def _external(self, name: str | None, location: str) -> mmap.mmap:
        """The bytes of a file of external data, which must be in the folder of the model.

        Model hubs and package managers lay both files out as links, so the folder that the model's own link leads to
        counts as well.
        """
        if location in self.maps:
            return self.maps[location]
        what = f"{self.where}: the external data of {name!r} at {location!r}"
        folder = Path(self.where).absolute().parent
        if os.path.isabs(location) or not _inside(Path(os.path.normpath(folder / location)), folder):
            raise InputError(f"{what} is outside the folder of the model, {str(folder)!r}")
        real = Path(os.path.realpath(folder / location))
        allowed = {Path(os.path.realpath(folder)), Path(os.path.realpath(self.where)).parent}
        if not any(_inside(real, root) for root in allowed):
            raise InputError(f"{what} is a link to {str(real)!r}, outside the folder of the model, {str(folder)!r}")
        if not real.is_file():
            raise InputError(f"{what} is missing: there is no file {str(folder / location)!r}")
        self.maps[location] = _mapped(str(real))
        return self.maps[location]


def _inside(path: Path, folder: Path) -> bool:
    return folder in path.parents


Put = Callable[[ir.TensorProtocol], None]


def _tensors(model: ir.Model) -> Iterator[tuple[ir.TensorProtocol, Put]]:
    """Every tensor that a model holds, in initializers and attributes, with a way to put another in its place."""
    for graph in (model.graph, *(function.graph for function in model.functions.values())):
        for part in (graph, *graph.subgraphs()):
            for value in part.initializers.values():
                if value.const_value is not None:
                    yield value.const_value, partial(setattr, value, "const_value")
            for node in part:
                for attribute in node.attributes.values():
                    if attribute.type == ir.AttributeType.TENSOR and not attribute.is_ref():
                        yield attribute.as_tensor(), partial(_put_attribute, node, attribute)


def _put_attribute(node: ir.Node, old: ir.Attr, tensor: ir.TensorProtocol) -> None:
    node.attributes[old.name] = ir.AttrTensor(old.name, tensor, doc_string=old.doc_string)


def _serialised(model: ir.Model) -> onnx.ModelProto:
    """The message of a model, with what onnx-ir does not keep."""
    proto = ir.to_proto(model)
    kept: _Kept = model.meta.get(_KEPT, _Kept())
    proto.graph.sparse_initializer.extend(kept.sparse)
    proto.training_info.extend(kept.training)
    # onnx-ir adds one for each initializer, and sorts them; the source's own come in its order, then those of new nodes.
    found = {info.name: info for info in proto.graph.value_info}
    stored = {tensor.name for tensor in proto.graph.initializer}
    names = [name for name in kept.value_info if name in found]
    names += [name for name in found.keys() - set(names) if name not in stored]
    if names != list(found):
        ordered = [found[name] for name in names]
        rest = onnx.GraphProto(value_info=ordered)
        proto.graph.ClearField("value_info")
        proto.graph.value_info.MergeFrom(rest.value_info)
    return proto


def _write(model: ir.Model, path: Path) -> None:
    """Write a model file and, where it must be or was so, a file of external data beside it."""
    kept: _Kept = model.meta.get(_KEPT, _Kept())
    large = {id(tensor): tensor for tensor, _ in _tensors(model) if _streamable(tensor)}
    total = sum(tensor.nbytes for tensor in large.values())
    if kept.external or total > LARGEST_FILE:
        _write_external(model, path)
        return
    with _stubs(model) as tensors:
        data = _serialised(model).SerializeToString()
    pieces, length = expanded(data, tensors)
    if length > LARGEST_FILE:
        _write_external(model, path)
        return
    with path.open("wb") as file:
        _stream(file, pieces)


def _write_external(model: ir.Model, path: Path) -> None:
    ...


@contextmanager
def _stubs(model: ir.Model) -> Iterator[dict[str, ir.TensorProtocol]]:
    """Put stubs in the place of large tensors for the time of the block; yields the tensors."""
    tensors: dict[str, ir.TensorProtocol] = {}
    puts: list[tuple[Put, ir.TensorProtocol]] = []
    try:
        for tensor, put in list(_tensors(model)):
            if _streamable(tensor):
                location = f"{MARK}{len(tensors)}"
                tensors[location] = tensor
                puts.append((put, tensor))
                put(stub(tensor, location))
        yield tensors
    finally:
        for put, tensor in puts:
            put(tensor)

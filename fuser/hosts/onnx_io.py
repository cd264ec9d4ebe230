"""ONNX models in and out: what is read is checked, what is written is complete before it gets its name."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from fuser.errors import InputError
from fuser.hosts.onnx_check import check
from fuser.hosts.onnx_store import DATA_SUFFIX, Kept, keep, kept, serialised, tensors, write
from fuser.hosts.onnx_wire import MARK, Damaged, Source, in_file, skeleton
from fuser.hosts.output import reported, target_of

ZIP: Final = b"PK\x03\x04"


def load(path: str | os.PathLike[str]) -> ir.Model:
    """The model in a file, its large tensors left there.

    Raises:
        InputError: the file cannot be read, is no ONNX model, is cut off, or holds an invalid graph; or its
            external data is missing, cut off, or outside the folder of the model.
    """
    where = os.fspath(path)
    source = _source(where)
    data = source.view(0, source.size).data
    if bytes(data[:4]) == ZIP:
        raise InputError(f"{where}: the file is a zip archive, as torch.save writes, not an ONNX model")
    try:
        reduced, places = skeleton(data)
    except Damaged as error:
        # Every exporter begins with the IR version.
        wrong = "is cut off or damaged" if data[0] == 0x08 else "is not an ONNX model"
        raise InputError(f"{where}: the file {wrong}: {error}, the file has {len(data)} bytes") from None
    del data
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(reduced)
    except DecodeError:
        raise InputError(f"{where}: the file is not an ONNX model, or is damaged") from None
    model = _understood(proto, where)
    _attach(model, _Files(where, source, places))
    return model


def from_any(model: Any) -> ir.Model:
    """A model that may be edited, made from an `onnx.ModelProto` or an `onnx_ir.Model`, which stays as it is.

    Raises:
        InputError: the model is of another type, or invalid.
    """
    if isinstance(model, ir.Model):
        clone = model.clone()
        keep(clone, kept(model))
        return clone
    if isinstance(model, onnx.ModelProto):
        copy = _understood(model, "the model")
        # External data of a message is looked for in the current folder: there is no other.
        _attach(copy, _Files("the model"))
        return copy
    raise foreign(model)


def foreign(model: Any) -> InputError:
    """The error for what is no model."""
    found = f"{type(model).__module__}.{type(model).__qualname__}"
    return InputError(f"a model is an onnx.ModelProto or an onnx_ir.Model, not a {found}")


def to_same(model: ir.Model, like: Any) -> Any:
    """`model` as the type of `like`: an `onnx.ModelProto` or an `onnx_ir.Model`."""
    return serialised(model) if isinstance(like, onnx.ModelProto) else model


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
    """Write a model beside `path`, yield where, and move it to `path` if the block ends without an exception.

    Raises:
        OutputError: as for `save`.
    """
    where = os.fspath(path)
    target = target_of(path)
    with reported(where):
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        with reported(where):
            write(model, folder / target.name)
        yield folder / target.name
        with reported(where):
            _move(folder, target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _move(folder: Path, target: Path) -> None:
    """Give the finished files their names, weights first; old ones come back if the model cannot follow."""
    data = target.with_name(target.name + DATA_SUFFIX)
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


def _source(where: str) -> Source:
    """An open file."""
    if Path(where).is_dir():
        raise InputError(f"{where}: this is a folder, not a file")
    try:
        source = Source(where)
    except FileNotFoundError:
        raise InputError(f"{where}: there is no such file") from None
    except OSError as error:
        raise InputError(f"{where}: the file cannot be read: {error.strerror or error}") from None
    if source.size == 0:
        raise InputError(f"{where}: the file is empty")
    return source


def _attach(model: ir.Model, files: "_Files") -> None:
    """Give every tensor that is elsewhere its bytes; check that each has as many as its shape says."""
    for tensor, put, _ in tensors(model):
        if isinstance(tensor, ir.ExternalTensor):
            put(files.resolve(tensor))
            kept(model).external |= not str(tensor.location).startswith(MARK)
        elif isinstance(tensor, ir.serde.TensorProtoTensor) and tensor.raw.HasField("raw_data"):
            files.require_size(tensor, len(tensor.raw.raw_data))


def _understood(proto: onnx.ModelProto, where: str) -> ir.Model:
    """The model that a message holds, checked."""
    if not proto.HasField("graph"):
        raise InputError(f"{where}: not an ONNX model: it holds no graph")
    if not proto.opset_import:
        raise InputError(f"{where}: not an ONNX model, or cut off: it names no opset")
    found = check(proto, where)
    try:
        model = ir.from_proto(proto)
    except Exception as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise InputError(
            f"{where}: onnx-ir cannot read the model: {str(cause).partition(chr(10))[0]}"
        ) from error
    if not found.sorted:
        model.graph.sort()
        for function in model.functions.values():
            function.sort()
    keep(model, Kept.of(proto, found.declared))
    return model


class _Files:
    """The files behind the tensors of one model: its own, and those of its external data."""

    def __init__(self, where: str, own: Source | None = None, places: Sequence[tuple[int, int]] = ()) -> None:
        self.where = where
        self.places = places
        self.own = own
        self.external: dict[str, Source] = {}

    def resolve(self, tensor: ir.ExternalTensor) -> ir.TensorProtocol:
        """The tensor behind a stub, or behind a reference to external data."""
        location = str(tensor.location)
        if location.startswith(MARK) and self.own is not None:
            begin, end = self.places[int(location.removeprefix(MARK))]
            self.require_size(tensor, end - begin)
            return in_file(tensor, self.own, begin)
        source, begin = self._external(tensor.name, location), tensor.offset or 0
        if tensor.length is not None:
            self.require_size(tensor, tensor.length)
        if begin + tensor.nbytes > source.size:
            raise InputError(
                f"{self.where}: the external data of {tensor.name!r} is cut off: it ends at byte "
                f"{begin + tensor.nbytes} of {location!r}, which has {source.size} bytes"
            )
        return in_file(tensor, source, begin)

    def require_size(self, tensor: ir.TensorProtocol, found: int) -> None:
        """Refuse a tensor that has not as many bytes as its shape says."""
        if found != tensor.nbytes:
            raise InputError(
                f"{self.where}: the model is invalid: {tensor.name!r} has {found} bytes of data, and "
                f"{tensor.dtype}{list(tensor.shape)} takes {tensor.nbytes}"
            )

    def _external(self, name: str | None, location: str) -> Source:
        """A file of external data, which must be in the folder of the model.

        Model hubs and package managers lay both files out as links, so where the link of the model leads
        counts as its folder too.
        """
        if location in self.external:
            return self.external[location]
        what = f"{self.where}: the external data of {name!r} at {location!r}"
        folder = Path(self.where).absolute().parent
        if Path(location).is_absolute() or not _inside(Path(os.path.normpath(folder / location)), folder):
            raise InputError(f"{what} is outside the folder of the model, {str(folder)!r}")
        real = Path(os.path.realpath(folder / location))
        allowed = {Path(os.path.realpath(folder)), Path(os.path.realpath(self.where)).parent}
        if not any(_inside(real, root) for root in allowed):
            raise InputError(
                f"{what} is a link to {str(real)!r}, outside the folder of the model, {str(folder)!r}"
            )
        if not real.is_file():
            raise InputError(f"{what} is missing: there is no file {str(folder / location)!r}")
        self.external[location] = _source(str(real))
        return self.external[location]


def _inside(path: Path, folder: Path) -> bool:
    return folder in path.parents

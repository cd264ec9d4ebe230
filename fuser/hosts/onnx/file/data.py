"""The bytes of tensors where they lie: in the file of the model, or in files of external data beside it.

They are mapped when somebody looks, and are memory of the process only as long as the array lives.
"""

import mmap
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from fuser.errors import InputError
from fuser.hosts.onnx.file.walk import tensor_protos

LARGE: Final = 4096
"""Tensors of at least this many bytes stay in the file."""

OWN: Final = "\0"
"""How a location begins that stands for the model file itself. No file can be called that."""

Place = tuple[int, int]
"""Where bytes begin, and how many there are."""

_PARTS: Final[dict[int, int]] = {onnx.TensorProto.COMPLEX64: 2, onnx.TensorProto.COMPLEX128: 2}
"""Numbers of an element, where it is not one."""

_PACKED: Final = frozenset(
    onnx.TensorProto.DataType.Value(name) for name in ("INT4", "UINT4", "FLOAT4E2M1", "INT2", "UINT2")
)
"""Types of which the elements of a byte are one number."""

_TYPES: Final = frozenset(map(int, ir.DataType)) - {onnx.TensorProto.UNDEFINED}

TRIES: Final = 64
"""So often the first bytes of a tensor may occur in the file before the tensor does."""


class Source:
    """A file that stays open, and so stays what it was if another one gets its name.

    Raises:
        InputError: it is a folder, empty, or cannot be opened.
    """

    def __init__(self, where: str) -> None:
        if Path(where).is_dir():
            raise InputError(f"{where}: this is a folder, not a file")
        try:
            self._handle = os.open(where, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except FileNotFoundError:
            raise InputError(f"{where}: there is no such file") from None
        except OSError as error:
            raise InputError(f"{where}: the file cannot be read: {error.strerror or error}") from None
        self.size = os.fstat(self._handle).st_size
        if self.size == 0:
            raise InputError(f"{where}: the file is empty")

    def read(self, length: int | None = None) -> bytes:
        """The first bytes, or all."""
        with os.fdopen(os.dup(self._handle), "rb", buffering=0) as file:
            file.seek(0)
            return file.read(-1 if length is None else length)

    def view(self, start: int, length: int) -> NDArray[np.uint8]:
        """Bytes as a read-only array."""
        if length == 0:
            return np.zeros(0, np.uint8)
        skipped = start % mmap.ALLOCATIONGRANULARITY
        mapped = mmap.mmap(self._handle, length + skipped, access=mmap.ACCESS_READ, offset=start - skipped)
        return np.frombuffer(mapped, np.uint8, length, skipped)

    def __del__(self) -> None:
        if hasattr(self, "_handle"):
            os.close(self._handle)


class Given:
    """A message in memory in the part of a file: the place of a tensor is its number."""

    def __init__(self, tensors: Sequence[onnx.TensorProto]) -> None:
        self.tensors = tensors

    def view(self, start: int, length: int) -> NDArray[np.uint8]:
        """The bytes of tensor number `start`."""
        data = np.frombuffer(self.tensors[start].raw_data, np.uint8)
        assert len(data) == length, f"tensor {start} had {length} bytes and has {len(data)}"
        return data


def separate_given(given: onnx.ModelProto) -> tuple[onnx.ModelProto, list[Place | None], Given]:
    """A copy of a message without its large data, where each tensor's are, and in what."""
    tensors = list(tensor_protos(given))
    proto = onnx.ModelProto()
    proto.CopyFrom(given)
    places: list[Place | None] = []
    for index, tensor in enumerate(tensor_protos(proto)):
        length = len(tensor.raw_data)
        places.append((index, length) if length >= LARGE else None)
        if places[-1] is not None:
            tensor.ClearField("raw_data")
    return _rid(proto, places), places, Given(tensors)


def separate(proto: onnx.ModelProto, content: bytes) -> tuple[onnx.ModelProto, list[Place | None]]:
    """The message `proto`, read from `content`, without its large data; and where each tensor's begin there.

    What the bytes of a tensor are, protobuf alone says. `content` is only asked where it has the same ones; a
    tensor that is not found keeps its own.
    """
    places: list[Place | None] = []
    end = 0
    for tensor in tensor_protos(proto):
        data = tensor.raw_data
        begin = _find(content, data, end) if len(data) >= LARGE else None
        places.append(None if begin is None else (begin, len(data)))
        if begin is not None:
            end = begin + len(data)
            tensor.ClearField("raw_data")
    return _rid(proto, places), places


def _rid(proto: onnx.ModelProto, places: Sequence[Place | None]) -> onnx.ModelProto:
    """A message rid of what was cleared: it gives memory back only as a whole."""
    if all(place is None for place in places):
        return proto
    rest = onnx.ModelProto()
    rest.CopyFrom(proto)
    return rest


def _find(content: bytes, data: bytes, start: int) -> int | None:
    """Where `content` has the bytes `data`, from `start` on."""
    for _ in range(TRIES):
        start = content.find(data[:64], start)
        if start < 0 or content.startswith(data, start):
            break
        start += 1
    else:
        return None
    return None if start < 0 else start


def _location(place: Place) -> str:
    return f"{OWN}{place[0]} {place[1]}"


@contextmanager
def marked(tensors: Sequence[onnx.TensorProto], places: Sequence[Place | None]) -> Iterator[None]:
    """Let tensors whose data were separated say for the time of the block that these are elsewhere."""
    said = []
    for tensor, place in zip(tensors, places, strict=True):
        if place is not None:
            told = onnx.TensorProto()
            told.CopyFrom(tensor)
            said.append((tensor, told))
            tensor.ClearField("external_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value=_location(place))
    try:
        yield
    finally:
        for tensor, told in said:
            tensor.CopyFrom(told)


class Files:
    """The files behind the tensors of one model: its own, and those of its external data by location."""

    def __init__(
        self, where: str, own: Source | Given | None = None, places: Iterable[Place | None] = ()
    ) -> None:
        self.where = where
        self.own = own
        self.places = {_location(place): place for place in places if place is not None}
        self.external: dict[str, Source] = {}
        self.paths: dict[str, Path] = {}

    def resolve(self, tensor: ir.ExternalTensor) -> ir.LazyTensor:
        """The tensor behind a reference to the file itself, or to external data.

        Raises:
            InputError: it is missing, cut off, of another size, or outside the folder of the model.
        """
        location = str(tensor.location)
        if self.own is not None and location in self.places:
            begin, length = self.places[location]
            self.require_size(tensor, length)
            return _in_file(tensor, self.own, begin)
        source, begin = self._external(tensor.name, location), tensor.offset or 0
        if tensor.length is not None:
            self.require_size(tensor, tensor.length)
        if begin < 0 or begin + tensor.nbytes > source.size:
            raise InputError(
                f"{self.where}: the external data of {tensor.name!r} is cut off: it ends at byte "
                f"{begin + tensor.nbytes} of {location!r}, which has {source.size} bytes"
            )
        return _in_file(tensor, source, begin)

    def require_types(self, tensors: Iterable[onnx.TensorProto]) -> None:
        """Refuse a tensor of a type that is not known: of some onnx-ir looks too late."""
        for told in tensors:
            if told.data_type not in _TYPES:
                raise InputError(
                    f"{self.where}: onnx-ir cannot read the model: {told.name!r} is of the type "
                    f"{told.data_type}, which it does not know"
                )

    def require_size(self, tensor: ir.TensorProtocol, found: int) -> None:
        """Refuse a tensor that has not as many bytes as its shape says."""
        self._require(found, tensor.nbytes, "bytes of data", tensor)

    def require_data(self, tensor: ir.TensorProtocol, told: onnx.TensorProto) -> None:
        """Refuse a tensor that holds more or less than its shape says, in bytes or in numbers."""
        if told.HasField("raw_data"):
            self.require_size(tensor, len(told.raw_data))
            return
        field = onnx.helper.tensor_dtype_to_field(told.data_type)
        wanted = tensor.size * _PARTS.get(told.data_type, 1)
        if told.data_type in _PACKED:
            wanted = tensor.nbytes
        self._require(len(getattr(told, field)), wanted, f"numbers in {field}", tensor)

    def _require(self, found: int, wanted: int, what: str, tensor: ir.TensorProtocol) -> None:
        if found != wanted:
            raise InputError(
                f"{self.where}: the model is invalid: {tensor.name!r} has {found} {what}, and "
                f"{tensor.dtype}{list(tensor.shape)} takes {wanted}"
            )

    def _external(self, name: str | None, location: str) -> Source:
        """A file of external data, which must be in the folder of the model."""
        if location in self.external:
            return self.external[location]
        real = external_path(self.where, name, location)
        if not real.is_file():
            there = Path(self.where).absolute().parent / location
            raise InputError(
                f"{self.where}: the external data of {name!r} at {location!r} is missing: "
                f"there is no file {str(there)!r}"
            )
        self.external[location] = Source(str(real))
        self.paths[location] = real
        return self.external[location]


def external_path(where: str, name: str | None, location: str) -> Path:
    """Where the external data of the tensor `name` lie, links followed.

    Model hubs and package managers lay both files out as links, so where the link of the model leads counts
    as its folder too.

    Raises:
        InputError: outside the folder of the model.
    """
    what = f"{where}: the external data of {name!r} at {location!r}"
    folder = Path(where).absolute().parent
    # Of the location alone: the path of the model may itself go up, through links even.
    inside = Path(os.path.normpath(location)).parts[:1] not in ((), ("..",))
    if Path(location).is_absolute() or "\0" in location or not inside:
        raise InputError(f"{what} is outside the folder of the model, {str(folder)!r}")
    real = Path(os.path.realpath(folder / location))
    allowed = {Path(os.path.realpath(folder)), Path(os.path.realpath(where)).parent}
    if not any(_inside(real, root) for root in allowed):
        raise InputError(
            f"{what} is a link to {str(real)!r}, outside the folder of the model, {str(folder)!r}"
        )
    return real


def _inside(path: Path, folder: Path) -> bool:
    return folder in path.parents


def _in_file(reference: ir.ExternalTensor, source: Source | Given, start: int) -> ir.LazyTensor:
    """The tensor that `reference` stands for, its bytes mapped anew each time that it is looked at."""
    dtype, shape, length = reference.dtype, reference.shape, reference.nbytes

    def look() -> ir.TensorProtocol:
        data = source.view(start, length)
        if dtype.bitwidth < 8:
            return ir.PackedTensor(data, dtype, shape=shape)
        return ir.Tensor(
            data.view(dtype.numpy().newbyteorder("<")).reshape(shape.numpy()), dtype, shape=shape
        )

    return ir.LazyTensor(
        look,
        dtype,
        shape,
        name=reference.name,
        doc_string=reference.doc_string,
        metadata_props=dict(reference.metadata_props),
    )

"""ONNX files at the level of protobuf bytes: large tensors stay in their file until somebody looks at them.

A parsed ModelProto holds every weight, and writing one needs a second and a third copy. So a file is read as
its skeleton, in which each large tensor is a stub that names a place in the file, and written as the bytes of
the skeleton with tensors streamed in where the stubs are. That takes the memory of one tensor.
"""

import mmap
import os
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

LARGE: Final = 4096
"""Tensors of at least this many bytes stay in the file."""

MARK: Final = "\0graph-fuser\0"
"""How the location of a stub begins. No file can be called that."""

# The messages on the way to a tensor: field number -> message, for each message.
_CHILDREN: Final[dict[str, dict[int, str]]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph"},
    "tensor": {},
}
_RAW_DATA: Final = 9


class Damaged(ValueError):
    """The bytes are not protobuf: a field ends behind the end of what holds it, or is of no known kind."""


class Source:
    """A file that stays open, and so stays what it was if another one gets its name."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        self.size = os.fstat(self._handle).st_size

    def view(self, start: int, length: int) -> NDArray[np.uint8]:
        """Bytes as a read-only array. They count as memory of the process only while the array lives."""
        if length == 0:
            return np.zeros(0, np.uint8)
        skipped = start % mmap.ALLOCATIONGRANULARITY
        mapped = mmap.mmap(self._handle, length + skipped, access=mmap.ACCESS_READ, offset=start - skipped)
        return np.frombuffer(mapped, np.uint8, length, skipped)

    def __del__(self) -> None:
        if hasattr(self, "_handle"):
            os.close(self._handle)


def in_file(reference: ir.ExternalTensor, source: Source, start: int) -> ir.LazyTensor:
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


def stub(
    tensor: ir.TensorProtocol, location: str, offset: int | None = None, length: int | None = None
) -> ir.ExternalTensor:
    """A tensor of the same kind whose values are said to be elsewhere."""
    return ir.ExternalTensor(
        location,
        offset,
        length,
        tensor.dtype,
        shape=tensor.shape,  # type: ignore[arg-type]  # a Shape, the protocol is wider
        name=tensor.name or "",
        doc_string=tensor.doc_string,
        metadata_props=dict(tensor.metadata_props),
    )


def _varint(data: bytes | memoryview, at: int) -> tuple[int, int]:
    """The number that begins at `at`, and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise Damaged(f"a number of more than 64 bits ends at byte {at}")


def _encoded(value: int) -> bytes:
    """The bytes of a number."""
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def _fields(data: bytes | memoryview, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Each field of a message: its number, where it begins, where its payload begins, and where that ends."""
    at = start
    while at < end:
        begin = at
        try:
            key, at = _varint(data, at)
            wire = key & 7
            if wire == 2:
                length, at = _varint(data, at)
                payload, at = at, at + length
            elif wire == 0:
                payload, (_, at) = at, _varint(data, at)
            elif wire in (1, 5):
                payload, at = at, at + (8 if wire == 1 else 4)
            else:
                raise Damaged(f"a field of unknown kind {wire} begins at byte {begin}")
        except IndexError:
            raise Damaged(f"the field at byte {begin} does not end before byte {end}") from None
        if at > end:
            raise Damaged(f"the field at byte {begin} ends at byte {at}, what holds it at byte {end}")
        yield key >> 3, begin, payload, at


def skeleton(data: bytes | memoryview) -> tuple[bytes, list[tuple[int, int]]]:
    """The bytes of a model without its large tensors, and begin and end of each: stub `i` is `MARK` and `i`.

    Raises:
        Damaged: the bytes are no protobuf message.
    """
    places: list[tuple[int, int]] = []
    return _reduced(data, 0, len(data), "model", places), places


def _reduced(
    data: bytes | memoryview, start: int, end: int, kind: str, places: list[tuple[int, int]]
) -> bytes:
    parts: list[bytes | memoryview] = []
    kept = start
    for number, begin, payload, stop in _fields(data, start, end):
        if stop - payload < LARGE:
            continue
        if kind == "tensor" and number == _RAW_DATA:
            tensor = onnx.TensorProto(data_location=onnx.TensorProto.EXTERNAL)
            tensor.external_data.add(key="location", value=f"{MARK}{len(places)}")
            places.append((payload, stop))
            parts += [data[kept:begin], tensor.SerializeToString()]
            kept = stop
        elif number in _CHILDREN[kind]:
            inner = _reduced(data, payload, stop, _CHILDREN[kind][number], places)
            if len(inner) != stop - payload:
                parts += [data[kept:begin], _encoded(number << 3 | 2), _encoded(len(inner)), inner]
                kept = stop
    parts.append(data[kept:end])
    return b"".join(parts)


Piece = bytes | ir.TensorProtocol


def expanded(data: bytes, tensors: Mapping[str, ir.TensorProtocol]) -> tuple[list[Piece], int]:
    """What to write for a skeleton, bytes and the tensors that stand for the stubs; and how long it is."""
    marks = []
    at = data.find(MARK.encode())
    while at >= 0:
        marks.append(at)
        at = data.find(MARK.encode(), at + 1)
    return _expanded(data, 0, len(data), "model", tensors, marks)


def _expanded(
    data: bytes,
    start: int,
    end: int,
    kind: str,
    tensors: Mapping[str, ir.TensorProtocol],
    marks: Sequence[int],
) -> tuple[list[Piece], int]:
    pieces: list[Piece] = []
    length = 0
    kept = start
    for number, begin, payload, stop in _fields(data, start, end):
        child = _CHILDREN[kind].get(number)
        first = bisect_left(marks, payload)
        if child is None or first == len(marks) or marks[first] >= stop:
            continue
        if child == "tensor":
            inner, size = _filled(data[payload:stop], tensors)
        else:
            inner, size = _expanded(data, payload, stop, child, tensors, marks)
        head = data[kept:begin] + _encoded(number << 3 | 2) + _encoded(size)
        pieces += [head, *inner]
        length += len(head) + size
        kept = stop
    pieces.append(data[kept:end])
    return pieces, length + end - kept


def _filled(data: bytes, tensors: Mapping[str, ir.TensorProtocol]) -> tuple[list[Piece], int]:
    """The message of a stub with its tensor as `raw_data`, fields in the order of their numbers."""
    proto = onnx.TensorProto.FromString(data)
    tensor = tensors.get(proto.external_data[0].value) if proto.external_data else None
    if tensor is None:
        return [data], len(data)
    proto.ClearField("external_data")
    proto.ClearField("data_location")
    proto.raw_data = b""
    rest = proto.SerializeToString()
    _, begin, _, stop = next(field for field in _fields(rest, 0, len(rest)) if field[0] == _RAW_DATA)
    head = rest[:begin] + _encoded(_RAW_DATA << 3 | 2) + _encoded(tensor.nbytes)
    return [head, tensor, rest[stop:]], len(head) + tensor.nbytes + len(rest) - stop

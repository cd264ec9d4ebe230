"""A message as bytes in pieces, with the data of large tensors left to be written when their turn comes.

`SerializeToString` has the message, its encoding and the bytes in memory at once, three times the weights of
a model. So the messages on the way to a large tensor are put together here: protobuf encodes what they hold,
and only the tag and the length in front of each part are written by hand. `tests/encodings.py` compares that
with `SerializeToString` on as many random models as one likes.
"""

from collections.abc import Iterator
from typing import IO, Any, Final

import numpy as np
import onnx
import onnx_ir as ir

LARGE: Final = 4096
"""Tensors of at least this many bytes are pieces of their own."""

# The fields that lead to a tensor.
_WAY: Final = frozenset(
    {"graph", "functions", "node", "initializer", "attribute", "t", "tensors", "g", "graphs"}
)
_PARTED: Final = frozenset(
    {onnx.AttributeProto.TENSOR, onnx.AttributeProto.TENSORS}
    | {onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS}
)
_RAW_DATA: Final = onnx.TensorProto.DESCRIPTOR.fields_by_name["raw_data"]

Piece = bytes | ir.TensorProtocol


class Held:
    """The data that are left out of a message: `fill` leaves them out, `pieces` puts them in."""

    def __init__(self) -> None:
        # The message of each tensor is kept, so that it is the same object when it is come across again.
        self._tensors: dict[int, tuple[onnx.TensorProto, ir.TensorProtocol]] = {}

    def leave_out(self, proto: onnx.TensorProto, tensor: ir.TensorProtocol) -> None:
        """Let the data of `proto` be those of `tensor`."""
        self._tensors[id(proto)] = (proto, tensor)

    def pieces(self, message: onnx.ModelProto) -> tuple[list[Piece], int]:
        """What to write for a message, and how many bytes that is."""
        if not self._tensors:
            content = message.SerializeToString()
            return [content], len(content)
        found = list(self._of(message) or [])
        left_out = sum(not isinstance(piece, bytes) for piece in found)
        assert left_out == len(self._tensors), f"{len(self._tensors)} tensors were left out, {left_out} found"
        return found, _length(found)

    def _of(self, message: Any) -> list[Piece] | None:
        """The pieces of a message; None if nothing was left out of it."""
        if isinstance(message, onnx.TensorProto):
            return list(self._of_tensor(message)) if id(message) in self._tensors else None
        if isinstance(message, onnx.NodeProto) and not any(a.type in _PARTED for a in message.attribute):
            return None
        done: list[Piece] = []
        rest = type(message)()
        for field, value in message.ListFields():  # in the order of their numbers
            if field.name not in _WAY or field.message_type is None:
                _copy(field, value, rest)
                continue
            for part in value if field.is_repeated else [value]:
                inner = self._of(part)
                if inner is None:
                    _copy(field, [part] if field.is_repeated else part, rest)
                else:
                    done += [rest.SerializeToString(), _head(field, _length(inner)), *inner]
                    rest = type(message)()
        if not done:
            return None
        rest.MergeFrom(_unknown(message))
        return [*done, rest.SerializeToString()]

    def _of_tensor(self, message: onnx.TensorProto) -> Iterator[Piece]:
        _, tensor = self._tensors[id(message)]
        before, after = onnx.TensorProto(), _unknown(message)
        for field, value in message.ListFields():
            _copy(field, value, before if field.number < _RAW_DATA.number else after)
        yield before.SerializeToString()
        yield _head(_RAW_DATA, tensor.nbytes)
        yield tensor
        yield after.SerializeToString()


def _copy(field: Any, value: Any, into: Any) -> None:
    """Put a field into another message of the same type."""
    if field.is_repeated:
        getattr(into, field.name).extend(value)
    elif field.message_type is not None:
        getattr(into, field.name).CopyFrom(value)
    else:
        setattr(into, field.name, value)


def _unknown(message: Any) -> Any:
    """What a message holds that is of a later version of the format."""
    rest = type(message)()
    rest.CopyFrom(message)
    for field, _ in message.ListFields():
        rest.ClearField(field.name)
    return rest


def _head(field: Any, length: int) -> bytes:
    """What stands before a part of so many bytes: its number and its kind, and the length."""
    head = bytearray()
    for number in (field.number << 3 | 2, length):
        left = number
        while left > 0x7F:
            head.append(left & 0x7F | 0x80)
            left >>= 7
        head.append(left)
    return bytes(head)


def _length(pieces: list[Piece]) -> int:
    return sum(len(piece) if isinstance(piece, bytes) else piece.nbytes for piece in pieces)


def data(tensor: ir.TensorProtocol) -> bytes | memoryview:
    """The bytes of a tensor, not copied if that can be avoided."""
    if tensor.dtype.bitwidth < 8:
        return tensor.tobytes()
    array = np.ascontiguousarray(tensor.numpy())
    return array.astype(array.dtype.newbyteorder("<"), copy=False).reshape(-1).view(np.uint8).data


def stream(file: IO[bytes], pieces: list[Piece]) -> None:
    """Write pieces, one tensor in memory at a time."""
    for piece in pieces:
        file.write(piece if isinstance(piece, bytes) else data(piece))

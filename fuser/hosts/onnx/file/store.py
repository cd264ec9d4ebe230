"""A model as a file: one, or where its weights are too large or came so, two.

The second is called `model.onnx.0123456789abcdef.data`, after what it holds: the same weights have the same
name, and other weights another one, so that no file of weights is ever written twice.
"""

from hashlib import blake2b
from pathlib import Path
from typing import IO, Final

import onnx
import onnx_ir as ir

from fuser.errors import OutputError
from fuser.hosts.onnx.file.message import inline, not_elsewhere, serialised
from fuser.hosts.onnx.file.pieces import LARGE, Held, Piece, data, stream
from fuser.hosts.onnx.file.said import said_tensor
from fuser.hosts.onnx.file.walk import tensors
from fuser.hosts.output import LARGEST_FILE

SMALLEST_EXTERNAL: Final = 1024
"""Tensors of fewer bytes stay in the model file even where the others are external data."""

ALIGNMENT: Final = 64
"""External tensors begin at a multiple of this, a cache line."""

_DATA: Final = (
    *("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data", "external_data"),
)

DIGEST: Final = 8
"""Bytes of the digest in the name of external data."""


def write(model: ir.Model, path: Path, *, apart: bool = False) -> None:
    """Write a model file; where weights are too large, or `apart` in the source, external data beside it.

    Raises:
        OutputError: even without its weights the model is larger than a protobuf message can be.
        OSError: no permission, no space.
    """
    held = [tensor for tensor, _, _ in tensors(model)]
    came_so = apart or any(map(_is_external, held))
    too_large = sum(map(_size, held)) > LARGEST_FILE
    if too_large and not came_so:
        pieces, length = _divided(model, path, everything=True)
    elif came_so:
        pieces, length = _divided(model, path, everything=False)
    else:
        inside = _Inside()
        pieces, length = inside.pieces(serialised(model, inside.fill))
    if length > LARGEST_FILE and not too_large:
        pieces, length = _divided(model, path, everything=True)
    if length > LARGEST_FILE:
        raise OutputError(
            f"{path.name}: without its weights the model takes {length} bytes, and a protobuf message at "
            f"most {LARGEST_FILE}"
        )
    with path.open("wb") as file:
        stream(file, pieces)


class _Inside(Held):
    """What is left out of a message for later, and written into the same file."""

    def fill(self, proto: onnx.TensorProto, tensor: ir.TensorProtocol, initializer: bool) -> None:
        """Put in the data of a tensor, or leave them out for later."""
        if isinstance(tensor, ir.serde.TensorProtoTensor) or tensor.nbytes < LARGE:
            inline(proto, tensor, initializer)
        else:
            not_elsewhere(proto)
            self.leave_out(proto, tensor)


class _Outside(_Inside):
    """The same, with weights in a file of external data."""

    def __init__(self, file: IO[bytes], *, everything: bool) -> None:
        super().__init__()
        self.file = file
        self.everything = everything
        self.digest = blake2b(digest_size=DIGEST)
        self.locations: list[onnx.StringStringEntryProto] = []

    def fill(self, proto: onnx.TensorProto, tensor: ir.TensorProtocol, initializer: bool) -> None:
        """Write the data of a tensor, if it is one of those, and let `proto` say where."""
        if not self._goes_out(tensor, initializer=initializer):
            super().fill(proto, tensor, initializer)
            return
        self._write(bytes(-self.file.tell() % ALIGNMENT))
        begin = self.file.tell()
        self._write(data(tensor))
        for name in _DATA:
            proto.ClearField(name)
        proto.data_location = onnx.TensorProto.EXTERNAL
        self.locations.append(proto.external_data.add(key="location"))
        proto.external_data.add(key="offset", value=str(begin))
        proto.external_data.add(key="length", value=str(self.file.tell() - begin))

    def _write(self, part: bytes | memoryview) -> None:
        self.digest.update(part)
        self.file.write(part)

    def _goes_out(self, tensor: ir.TensorProtocol, *, initializer: bool) -> bool:
        if _is_external(tensor):
            return True
        ours = said_tensor(tensor) is None
        return initializer and (ours or self.everything) and tensor.nbytes >= SMALLEST_EXTERNAL


def _divided(model: ir.Model, path: Path, *, everything: bool) -> tuple[list[Piece], int]:
    """What to write for a model whose weights go to a file beside `path`.

    With `everything`, those as well that are in the model file of the source.
    """
    unnamed = path.with_name(path.name + ".data")
    with unnamed.open("wb") as file:
        outside = _Outside(file, everything=everything)
        proto = serialised(model, outside.fill)
    name = f"{path.name}.{outside.digest.hexdigest()}.data"
    for entry in outside.locations:
        entry.value = name
    unnamed.rename(path.with_name(name))
    return outside.pieces(proto)


def _is_external(tensor: ir.TensorProtocol) -> bool:
    """Whether the source had a tensor in a file of its own."""
    if isinstance(tensor, ir.ExternalTensor):
        return True
    said = said_tensor(tensor)
    return said is not None and said.data_location == onnx.TensorProto.EXTERNAL


def _size(tensor: ir.TensorProtocol) -> int:
    """Bytes, where that is a matter of the shape."""
    return 0 if tensor.dtype == ir.DataType.STRING else tensor.nbytes

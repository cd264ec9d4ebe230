"""What is put together by hand, compared with protobuf: ``python -m tests.encodings [COUNT] [--start N]``.

Each number is a random model with everything that a file may hold, and a random part of its tensors left out
and written as pieces of their own. All pieces together must be what `SerializeToString` gives, byte by byte.
"""

import argparse
import random
import sys

import onnx
import onnx_ir as ir

from fuser.hosts.onnx.file.pieces import Held, data
from fuser.hosts.onnx.file.walk import tensor_protos
from tests.hosts.onnx_anything import Anything


def differs(seed: int) -> str | None:
    """What is wrong with the pieces of a model; None if nothing is."""
    proto = Anything(seed).model()
    expected = proto.SerializeToString()
    held = Held()
    chosen = random.Random(seed)
    for tensor in tensor_protos(proto):
        if (
            tensor.data_type != onnx.TensorProto.STRING
            and tensor.HasField("raw_data")
            and chosen.random() < 0.5
        ):
            whole = onnx.TensorProto()
            whole.CopyFrom(tensor)
            tensor.ClearField("raw_data")
            held.leave_out(tensor, ir.serde.deserialize_tensor(whole))
    pieces, length = held.pieces(proto)
    content = b"".join(piece if isinstance(piece, bytes) else bytes(data(piece)) for piece in pieces)
    if length != len(content):
        return f"model {seed}: {length} bytes were announced, {len(content)} came"
    return None if content == expected else f"model {seed}: other bytes than those of protobuf"


def main(arguments: list[str]) -> int:
    """Run it; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.encodings", description=__doc__)
    parser.add_argument("count", nargs="?", type=int, default=20000)
    parser.add_argument("--start", type=int, default=0, help="the number of the first model")
    options = parser.parse_args(arguments)
    numbers = range(options.start, options.start + options.count)
    wrong = list(filter(None, map(differs, numbers)))
    print(*wrong, f"{options.count} models, {len(wrong)} wrong", sep="\n")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

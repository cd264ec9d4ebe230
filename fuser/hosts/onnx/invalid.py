"""What is wrong with an ONNX model: what `onnx.checker` refuses, and a string that is not UTF-8."""

from collections.abc import Iterator
from typing import Any

import onnx
import onnx_ir


def invalid(model: Any) -> str | None:
    """What is wrong with a model, shape inference included, in one sentence; None for nothing."""
    try:
        if isinstance(model, onnx_ir.Model):
            model = onnx_ir.to_proto(model)
        _check(model)
        if not isinstance(model, onnx.ModelProto):
            model = onnx.load(model, load_external_data=False)
    except Exception as error:  # noqa: BLE001  # it raises many kinds, and each is what it has against the model
        lines = (line.strip() for line in str(error).splitlines())
        return next(filter(None, lines), type(error).__name__).removesuffix(".")
    return next(_no_text(model), None)


def _check(model: Any) -> None:
    """Let the checker look at the model, a file or an object.

    The standard wants every output to have a shape; runtimes do not, and files with foreign operators have
    none where nobody knows any. So it looks at the rest then.
    """
    try:
        onnx.checker.check_model(model, full_check=True)
    except onnx.checker.ValidationError as error:
        if "Field 'shape' of 'type' is required" not in str(error):
            raise
        rest = onnx.ModelProto()
        rest.CopyFrom(
            model if isinstance(model, onnx.ModelProto) else onnx.load(model, load_external_data=False)
        )
        shaped = [v for v in rest.graph.output if v.type.tensor_type.HasField("shape")]
        del rest.graph.output[:]
        rest.graph.output.extend(shaped)
        stored = (tensor.data_location for tensor in rest.graph.initializer)
        if onnx.TensorProto.EXTERNAL not in stored:
            onnx.checker.check_model(rest, full_check=True)


def _no_text(message: Any) -> Iterator[str]:
    """What the checker overlooks: strings that are not UTF-8, which protobuf hands out as bytes."""
    for field, value in message.ListFields():
        values = value if field.is_repeated else [value]
        if field.type == field.TYPE_MESSAGE:
            for part in values:
                yield from _no_text(part)
        elif field.type == field.TYPE_STRING:
            yield from (
                f"{field.full_name} is not UTF-8: {text!r}" for text in values if isinstance(text, bytes)
            )

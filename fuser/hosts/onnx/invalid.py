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
        onnx.checker.check_model(model, full_check=True)
        if not isinstance(model, onnx.ModelProto):
            model = onnx.load(model, load_external_data=False)
    except Exception as error:  # noqa: BLE001  # it raises many kinds, and each is what it has against the model
        lines = (line.strip() for line in str(error).splitlines())
        return next(filter(None, lines), type(error).__name__).removesuffix(".")
    return next(_no_text(model), None)


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

"""The ways in which an ONNX file is made smaller, in the order in which they are tried."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import onnx
from onnx import ModelProto

from fuser.errors import InputError
from fuser.hosts.onnx.judge.runtime import LARGEST_MESSAGE
from fuser.hosts.onnx.judge.source import Source, copied
from fuser.hosts.onnx.reduce.ends import every_node, graphs
from fuser.hosts.onnx.reduce.nodes import Compute, Cut, End, Hold, Inline, Outputs, PassBy, Unwrap
from fuser.hosts.onnx.reduce.words import (
    Attributes,
    Counted,
    Extents,
    Inputs,
    Join,
    Names,
    Ones,
    Optional,
    Words,
)

Ways = tuple[Callable[[ModelProto], Any], ...]
"""What is made of a model has `parts` that may go, and is the model `without` some of them."""

FIRST: Final[Ways] = (Hold, Cut)

WAYS: Final[Ways] = (
    *FIRST,
    Unwrap,
    Inline,
    Compute,
    Outputs,
    PassBy,
    End,
    Join,
    Words,
    Names,
    Attributes,
    Inputs,
    Optional,
    Ones,
    Counted,
    *(partial(Extents, to=extent) for extent in (2, 4, 8)),
)

SHOWN: Final = 64
"""Bytes of a weight whose values are printed."""


class OnnxSmaller:
    """What the search asks of ONNX; models are messages, with their weights."""

    ways = WAYS
    first = FIRST

    def read(self, path: Path) -> ModelProto:
        """The model in a file, its external data with it.

        Raises:
            InputError: it cannot be read, or has more than a message can hold.
        """
        model = copied(Source(path, "the model").proto())
        try:
            onnx.load_external_data_for_model(model, str(path.parent))
        except Exception as error:
            raise InputError(f"{path}: its external data cannot be read: {error}") from error
        size = sum(len(tensor.raw_data) for graph in graphs(model) for tensor in graph.initializer)
        if size > LARGEST_MESSAGE:
            raise InputError(
                f"{path}: has weights of {size} bytes; what is reduced may have {LARGEST_MESSAGE}"
            )
        return model

    def content(self, model: ModelProto) -> bytes:
        """The message."""
        return bytes(model.SerializeToString(deterministic=True))

    def nodes(self, model: ModelProto) -> int:
        """Those of bodies and functions too."""
        return len(every_node(model))

    def inputs(self, model: ModelProto) -> set[str]:
        """Those of the main graph."""
        return {value.name for value in model.graph.input}

    def text(self, model: ModelProto) -> str:
        """As onnx prints it, which `onnx.parser` reads."""
        short = copied(model)
        for graph in graphs(short):
            for tensor in graph.initializer:
                if len(tensor.raw_data) > SHOWN:
                    tensor.ClearField("raw_data")
        return onnx.printer.to_text(short)


SMALLER: Final = OnnxSmaller()

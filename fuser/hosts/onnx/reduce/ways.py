"""The ways in which an ONNX file is made smaller, in the order in which they are tried."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

import onnx
import onnx_ir
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


class Way(Protocol):
    """One kind of thing that a model may do without."""

    called: str
    """What is done, in the past tense."""

    @property
    def parts(self) -> Sequence[Any]:
        """What may go, from the model's beginning to its end."""

    def without(self, parts: Collection[Any]) -> ModelProto | None:
        """The model without these; None where there is none. It need not be a valid one."""


FIRST: Final[tuple[Callable[[ModelProto], Way], ...]] = (Hold, Cut)
"""What makes most of a model go."""

WAYS: Final[tuple[Callable[[ModelProto], Way], ...]] = (
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


def read(path: str | os.PathLike[str]) -> ModelProto:
    """The model in a file, its external data with it.

    Raises:
        InputError: it cannot be read.
    """
    model = copied(Source(path, "the model").proto())
    try:
        onnx.load_external_data_for_model(model, str(Path(path).parent))
    except Exception as error:
        raise InputError(f"{os.fspath(path)}: its external data cannot be read: {error}") from error
    return model


def write(model: ModelProto, path: Path) -> None:
    """Write a model; weights that are too many for one message go to a file beside it."""
    if sum(len(tensor.raw_data) for graph in graphs(model) for tensor in graph.initializer) < LARGEST_MESSAGE:
        path.write_bytes(model.SerializeToString(deterministic=True))
    else:
        onnx_ir.save(onnx_ir.from_proto(model), path, external_data=f"{path.name}.data")


def nodes(model: ModelProto) -> int:
    """How many nodes a model has, in bodies and functions too."""
    return len(every_node(model))


def inputs(path: Path) -> set[str]:
    """The names of the inputs of the model in a file."""
    return {value.name for value in Source(path, "the model").proto().graph.input}


SHOWN: Final = 64
"""Bytes of a weight whose values are printed."""


def text(model: ModelProto) -> str:
    """The model in onnx's own text form, without the values of large weights."""
    short = copied(model)
    for graph in graphs(short):
        for tensor in graph.initializer:
            if len(tensor.raw_data) > SHOWN:
                tensor.ClearField("raw_data")
    return onnx.printer.to_text(short)

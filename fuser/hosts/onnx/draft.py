"""An ONNX model while it is rewritten: imported, and edited in place by what was done to its graphs."""

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import onnx_ir

from fuser.hosts.onnx.exporter import export_graph
from fuser.hosts.onnx.file import files
from fuser.hosts.onnx.importer import import_model
from fuser.hosts.onnx.summary import shapes_of, summarise
from fuser.hosts.summary import Shapes, Summary
from fuser.ir.graph import Graph
from fuser.judge.inputs import Given


class OnnxDraft:
    """A model that may be edited; `like` is the one that it was made from, if that was no file.

    `shapes` of inputs are those that multiply-adds are counted for.
    """

    rounds = 8
    """What pays is judged by what the file holds, so the last look is at what it will hold.

    A body sees only then what has become of the values around it, and a rewrite the operators that others
    became.
    """

    examples = None

    def __init__(self, model: onnx_ir.Model, shapes: Shapes | None = None, like: Any = None) -> None:
        self.model = model
        self._shapes = shapes
        self._like = like

    @classmethod
    def of(cls, model: Any) -> "OnnxDraft":
        """A copy of a model in memory."""
        return cls(files.from_any(model), like=model)

    @classmethod
    def load(cls, path: str | os.PathLike[str], inputs: Given | None, shapes: Shapes | None) -> "OnnxDraft":
        """The model in a file."""
        model = files.load(path)
        return cls(model, shapes_of(model, inputs, shapes))

    def summary(self) -> Summary:
        """What it amounts to."""
        return summarise(self.model, self._shapes)

    def graphs(self) -> list[Graph]:
        """A graph for each graph, body and function."""
        return import_model(self.model)

    def apply(self, graphs: Sequence[Graph]) -> None:
        """Export the difference."""
        for graph in graphs:
            export_graph(graph)

    def result(self) -> Any:
        """The model."""
        return files.to_same(self.model, self._like)

    def staged(self, path: str | os.PathLike[str]) -> AbstractContextManager[Path]:
        """Written beside `path`, external data with it."""
        return files.staged(self.model, path)

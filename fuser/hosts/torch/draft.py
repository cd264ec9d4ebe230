"""A model of torch while it is rewritten: its graph is imported from a copy, and exported into another."""

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import fx, nn
from torch.export import ExportedProgram

from fuser.hosts.summary import Summary
from fuser.hosts.torch import files
from fuser.hosts.torch.graph_module import Tensors
from fuser.hosts.torch.summary import summarise
from fuser.ir.graph import Graph


@dataclass(frozen=True, eq=False)
class Imported:
    """An fx graph that may be edited, what its nodes for parameters stand for, and its graph of passes."""

    source: fx.Graph
    tensors: Tensors
    graph: Graph


class TorchDraft(ABC):
    """What a user gave, and what has its graph: the same, or what was captured of it."""

    rounds = 1

    def __init__(
        self,
        given: nn.Module | ExportedProgram,
        captured: fx.GraphModule | ExportedProgram,
        examples: Any = None,
    ) -> None:
        self.examples = examples
        self._model: nn.Module | ExportedProgram = given
        self._graph = captured

    @abstractmethod
    def read(self) -> Imported:
        """The model imported."""

    @abstractmethod
    def write(self, done: Imported) -> fx.GraphModule | ExportedProgram:
        """The model with what was done to the graph."""

    def graphs(self) -> list[Graph]:
        """The one graph, anew."""
        self._done = self.read()
        return [self._done.graph]

    def apply(self, graphs: Sequence[Graph]) -> None:
        """Export the difference."""
        assert [*graphs] == [self._done.graph], "the graph is the latest that was imported"
        self._model = self._graph = self.write(self._done)

    def summary(self) -> Summary:
        """The weights of the model, the calls of its graph."""
        return summarise(self._model, self._graph)

    def result(self) -> nn.Module | ExportedProgram:
        """The model."""
        return self._model

    def staged(self, path: str | os.PathLike[str]) -> AbstractContextManager[Path]:
        """Written beside `path`."""
        assert isinstance(self._model, ExportedProgram), "what is read from a file is a program"
        return files.staged(self._model, path)

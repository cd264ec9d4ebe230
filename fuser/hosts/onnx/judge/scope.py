"""Values while a graph is evaluated, and what walks bodies may ask of whoever evaluates."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import onnx

from fuser.errors import OracleUnavailable
from fuser.judge.compare import widen

Data = Any
"""A tensor, or a list of what a sequence holds."""


@dataclass
class Scope:
    """Values while a graph is evaluated: computed ones, constants that are read when needed, and outside."""

    known: dict[str, Data]
    constants: dict[str, Callable[[], Data]]
    outer: Scope | None = None

    def read(self, name: str) -> Data:
        """A value by name.

        Raises:
            OracleUnavailable: there is none.
        """
        if name in self.known:
            return self.known[name]
        if name in self.constants:
            return widened(self.constants[name]())
        if self.outer is not None:
            return self.outer.read(name)
        raise OracleUnavailable(f"there is no array for {name!r}")


def widened(data: Data) -> Data:
    """Floating values in float64; of a list every part."""
    return [widened(part) for part in data] if isinstance(data, list) else widen(np.asarray(data))


class Evaluation(Protocol):
    """The float64 evaluation of a model: see `oracle.Oracle`."""

    refused: dict[str, str]
    steps_left: int
    opsets: dict[str, int]

    def scope(self, graph: onnx.GraphProto, known: dict[str, Data], outer: Scope | None) -> Scope:
        """The constants of a graph, behind what is fed."""

    def steps(
        self, nodes: Sequence[onnx.NodeProto], scope: Scope, known: Mapping[str, Data], keep: set[str]
    ) -> Iterator[tuple[str, Data]]:
        """Evaluate nodes in order."""

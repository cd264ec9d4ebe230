"""What a model amounts to, in any host: nodes by operator, parameters, bytes, multiply-adds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Summary:
    """What a model holds and what running it costs, bodies of control flow and local functions included.

    `operators`: number of nodes by operator, in alphabetical order, without Constant, which does no work.
    `parameters`: elements of all weights, each tensor once; `weight_bytes`: what they take in memory.
    `nominal`: the shape of each input that `multiply_adds` is stated for.
    """

    operators: dict[str, int]
    parameters: int
    weight_bytes: int
    nominal: Shapes
    count: Callable[[], int | None] = field(default=lambda: None, repr=False, compare=False)
    """What counts multiply-adds, when somebody asks."""

    @property
    def nodes(self) -> int:
        """Number of nodes that do work."""
        return sum(self.operators.values())

    @cached_property
    def multiply_adds(self) -> int | None:
        """Multiply-adds of convolutions and matrix products at nominal size; None if a shape is unknown.

        A body of control flow counts once.
        """
        return self.count()

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON can hold it."""
        return {
            "nodes": self.nodes,
            "operators": dict(self.operators),
            "parameters": self.parameters,
            "weight_bytes": self.weight_bytes,
            "multiply_adds": self.multiply_adds,
            "nominal_inputs": {name: list(shape) for name, shape in self.nominal.items()},
        }

"""What is left of a model that shows a fault, as JSON and as text."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from fuser.report.report import say

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Reduction:
    """What was found, what it needs, and what is left.

    `passes` are those without which the fault is not there. `tried` says of each way how many models were
    tried, and how many of them showed the fault. `model` is what is left as text.
    """

    source: str
    kind: str
    fault: str
    passes: tuple[str, ...]
    nodes_before: int
    nodes: int
    bytes_before: int
    bytes: int
    tried: dict[str, tuple[int, int]]
    model: str
    versions: dict[str, str]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON can hold it."""
        return asdict(self)


def print_reduction(reduction: Reduction, console: Console) -> None:
    """What is wrong, what was tried, and what is left as text: all that a report of a bug needs."""
    needs = ", ".join(reduction.passes)
    tried = ", ".join(f"{way} {hits} of {number}" for way, (number, hits) in reduction.tried.items())
    say(
        console,
        f"fault     {reduction.kind}: {reduction.fault}",
        f"nodes     {reduction.nodes_before} -> {reduction.nodes}",
        f"bytes     {reduction.bytes_before} -> {reduction.bytes}",
        f"passes    {f'{needs}; the others can be left out' if needs else 'none is needed for it'}",
        f"tried     {sum(number for number, _ in reduction.tried.values())}: {tried}",
        f"took      {reduction.seconds:.1f} s",
        f"versions  {', '.join(f'{name} {version}' for name, version in reduction.versions.items())}",
        "",
        reduction.model.strip(),
    )

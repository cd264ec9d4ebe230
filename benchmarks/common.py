"""What the benchmark scripts share: tables, quartiles, the machine, and the counts of a graph."""

from __future__ import annotations

import collections
import datetime as dt
import json
import os
import platform
import statistics
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Aligned columns in Markdown, so that output can be pasted into a README as it is."""
    cells = [list(header), *([str(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in cells]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """First quartile, median, third quartile; all the same for a single value."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def machine() -> str:
    """What a figure must be quoted with: cores, processor, system and the date."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{usable} cores, {_processor()}, {platform.system()}, Python {platform.python_version()}, " + (
        dt.datetime.now().astimezone().date().isoformat()
    )


def _processor() -> str:
    """The processor's name; Linux keeps it in a file, other systems in ``platform``."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def versions(packages: Iterable[str]) -> str:
    """``name version`` of each distribution, or ``name missing``."""

    def version(package: str) -> str:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            return "missing"

    return ", ".join(f"{package} {version(package)}" for package in packages)


def operators(path: Path) -> collections.Counter[str]:
    """Nodes of each operator in a file's main graph; Constant does no work, so it is left out."""
    import onnx

    graph = onnx.load(str(path), load_external_data=False).graph
    return collections.Counter(node.op_type for node in graph.node if node.op_type != "Constant")


def write_json(path: Path | None, result: dict[str, Any]) -> None:
    """Keep the raw measurements, if a file was asked for."""
    if path:
        path.write_text(json.dumps({"machine": machine(), **result}, indent=1) + "\n")

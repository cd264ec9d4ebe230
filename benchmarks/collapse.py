"""What is left of each graph: Conv, BatchNorm and all nodes, before -> after, beside what should be left.

``python -m benchmarks.collapse [NAME ...] [--exporter E ...] [--verify] [--json FILE]``

Exit status 1 if a count is missed. Counts only: that the numbers are right is the tests' business, or that of
``--verify``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import models
from benchmarks.common import machine, operators, table, versions, write_json

# Conv and BatchNorm that should be left, whatever the exporter. The re-parameterised families come down to
# the authors' own deploy form; for the others only a BatchNorm right behind a Conv can go. Of a model that is
# not listed no more may be left than of its deploy form.
EXPECTED = {
    "repvgg_a0": (22, 0),
    "repvgg_b1g4": (28, 0),
    "repvgg_d2se": (144, 0),  # 48 blocks of one 3x3, each with the two 1x1 of its squeeze-and-excitation
    "mobileone_s0": (43, 0),
    "mobileone_s1": (43, 0),
    "mobileone_s4": (67, 0),  # 43 and the two 1x1 of 12 squeeze-and-excitations
    "resnet50": (53, 0),
    "densenet121": (120, 62),  # these BatchNorms follow a Concat or a pooling whose result has other readers
    "mobilenetv3_large_100": (63, 0),
}


def collapse(name: str, exporter: str, verify: bool) -> dict[str, Any]:
    """Optimise one file; operator counts before and after, and what went wrong, if anything."""
    source = models.path(name, exporter)
    result: dict[str, Any] = {
        "file": source.name,
        "before": dict(operators(source)),
        "after": {},
        "error": "",
    }
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / source.name
        start = time.perf_counter()
        try:
            import fuser

            fuser.optimize_file(str(source), str(target), verify=verify)
            result["after"] = dict(operators(target))
        except Exception as error:  # noqa: BLE001  # one file's failure must not hide the other rows
            result["error"] = f"{type(error).__name__}: {error}"
        result["seconds"] = time.perf_counter() - start
    return result


def counts(graph: dict[str, int]) -> tuple[int, int, int]:
    """Conv, BatchNorm, all nodes."""
    return graph.get("Conv", 0), graph.get("BatchNormalization", 0), Counter(graph).total()


def verdict(result: dict[str, Any], expected: tuple[int, int], listed: bool) -> str:
    """``ok``, ``MISSED`` or ``failed``."""
    if result["error"]:
        return "failed"
    left = counts(result["after"])[:2]
    fits = left == expected if listed else left[0] <= expected[0] and left[1] <= expected[1]
    return "ok" if fits else "MISSED"


def row(result: dict[str, Any], name: str, deploy: dict[str, int]) -> list[object]:
    """One line of the table."""
    expected = EXPECTED.get(name, counts(deploy)[:2])
    before, after = counts(result["before"]), counts(result["after"])
    changes = [f"{b} -> {'?' if result['error'] else a}" for b, a in zip(before, after, strict=True)]
    wanted = "/".join(map(str, expected))
    outcome = verdict(result, expected, name in EXPECTED)
    return [result["file"], *changes, wanted, counts(deploy)[2], f"{result['seconds']:.1f}", outcome]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; exit status 1 if a count is missed or a file fails."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.collapse", description=__doc__.splitlines()[0]
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="timm models (default: the core ones)")
    parser.add_argument("--exporter", nargs="+", choices=models.EXPORTERS, default=list(models.EXPORTERS))
    parser.add_argument(
        "--verify", action="store_true", help="also compare outputs, as the product does by default"
    )
    parser.add_argument("--json", type=Path, help="write the counts of every operator there")
    options = parser.parse_args(arguments)
    print(machine())
    print(versions(["graph-fuser", "onnx", "torch", "timm"]), flush=True)
    results, rows = [], []
    for name in options.names or models.CORE:
        deploy = dict(operators(models.path(name, "deploy")))
        for exporter in options.exporter:
            results.append(collapse(name, exporter, options.verify))
            rows.append(row(results[-1], name, deploy))
    print(table(["file", "Conv", "BatchNorm", "nodes", "expected", "deploy nodes", "seconds", ""], rows))
    for result in results:
        if result["error"]:
            print(f"{result['file']}: {result['error']}")
    write_json(options.json, {"files": results})
    return 1 if any(line[-1] in ("MISSED", "failed") for line in rows) else 0


if __name__ == "__main__":
    sys.exit(main())

"""Compile time against size: a chain of 10 to 10,000 small RepVGG blocks, without verification.

python -m benchmarks.scaling [--most 10000] [--json FILE]
"""

import argparse
import math
import tempfile
from pathlib import Path
from statistics import median
from time import process_time

import onnx

import fuser
from benchmarks.common import machine, table, write_json
from fuser.demo import build_repvgg

CHANNELS = 4
RUNS = 3


def measure(blocks: int) -> tuple[int, float]:
    """Nodes of a model of so many blocks, and the median CPU seconds that it takes to optimize its file."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "model.onnx"
        model = build_repvgg(((CHANNELS, blocks),), classes=2)
        onnx.save(model, source)
        seconds = []
        for _ in range(RUNS):
            started = process_time()
            fuser.optimize_file(source, Path(folder) / "result.onnx", verify=False)
            seconds.append(process_time() - started)
    return len(model.graph.node), median(seconds)


def main() -> None:
    """Print blocks, nodes, seconds, and the exponent from one size to the next."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--most", type=int, default=10_000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    measure(10)  # imports, and the files that they read
    rows: list[dict[str, float]] = []
    blocks = 10
    while blocks <= arguments.most:
        nodes, seconds = measure(blocks)
        exponent = math.log(seconds / rows[-1]["seconds"], nodes / rows[-1]["nodes"]) if rows else math.nan
        rows.append({"blocks": blocks, "nodes": nodes, "seconds": seconds, "exponent": exponent})
        blocks *= 10
    print(machine())
    lines = [[r["blocks"], r["nodes"], f"{r['seconds']:.3f}", f"{r['exponent']:.2f}"] for r in rows]
    print(table(["blocks", "nodes", "CPU seconds", "exponent"], lines))
    write_json(arguments.json, {"machine": machine(), "rows": rows})


if __name__ == "__main__":
    main()

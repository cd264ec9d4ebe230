"""Compile time against size: a chain of 10 to 10,000 small RepVGG blocks, without verification.

python -m benchmarks.scaling [--most 10000] [--json FILE]
python -m benchmarks.scaling --cases

The cases are large graphs of one kind, in memory: what is quadratic shows in them.
"""

import argparse
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import process_time

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import fuser
from benchmarks.common import machine, table, write_json
from fuser.demo import build_repvgg

CHANNELS = 4
RUNS = 3
FEATURES = 4


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


def chain(kind: str, length: int, *, constants: bool = False) -> onnx.ModelProto:
    """`x -> kind(x) -> ...`; a binary operator with `x` itself, or with a constant for each feature."""
    names = ["x", *(f"v{i}" for i in range(length))]
    held = [
        numpy_helper.from_array(np.arange(FEATURES, dtype=np.float32) + i % 7, f"c{i}")
        for i in range(length if constants else 0)
    ]
    second = [f"c{i}" if constants else "x" for i in range(length)]
    nodes = [
        helper.make_node(kind, [names[i], second[i]] if kind == "Add" else [names[i]], [names[i + 1]])
        for i in range(length)
    ]
    return graph(nodes, ["N", FEATURES], ["N", FEATURES], held)


def convs_into_a_sum(count: int) -> onnx.ModelProto:
    """So many convolutions of one image, added up by one operator."""
    random = np.random.default_rng(0)
    weights = random.standard_normal((count, CHANNELS, 3, 3, 3)).astype(np.float32)
    held = [numpy_helper.from_array(weight, f"w{i}") for i, weight in enumerate(weights)]
    nodes = [helper.make_node("Conv", ["x", f"w{i}"], [f"v{i}"], pads=[1] * 4) for i in range(count)]
    nodes.append(helper.make_node("Sum", [f"v{i}" for i in range(count)], ["y"]))
    return graph(nodes, ["N", 3, "H", "W"], ["N", CHANNELS, "H", "W"], held)


def rows_into_a_layer(rows: int, width: int = 768) -> onnx.ModelProto:
    """So many tokens through two linear layers that become one."""
    random = np.random.default_rng(0)
    held = [
        numpy_helper.from_array(random.standard_normal((width, width)).astype(np.float32), f"w{i}")
        for i in range(2)
    ]
    nodes = [helper.make_node("MatMul", ["x", "w0"], ["a"]), helper.make_node("MatMul", ["a", "w1"], ["y"])]
    return graph(nodes, [1, rows, width], [1, rows, width], held)


def graph(
    nodes: list[onnx.NodeProto],
    given: list[int | str],
    made: list[int | str],
    held: list[onnx.TensorProto],
) -> onnx.ModelProto:
    """The model of float32 nodes; what the last one makes is its output."""
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", given), (nodes[-1].output[0], made))
    ]
    body = helper.make_graph(nodes, "scaling", ends[:1], ends[1:], held)
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


CASES: dict[str, Callable[[], onnx.ModelProto]] = {
    "100,000 Relu": lambda: chain("Relu", 100_000),
    "20,000 chained Add": lambda: chain("Add", 20_000),
    "20,000 chained Add of constants": lambda: chain("Add", 20_000, constants=True),
    "20,000 Identity": lambda: chain("Identity", 20_000),
    "5,000 Conv into one Sum": lambda: convs_into_a_sum(5_000),
    "4,105 rows through two layers": lambda: rows_into_a_layer(4_105),
}


def run_cases(path: Path | None) -> None:
    """Print nodes before and after, and the seconds that `fuser.optimize` takes, for each case."""
    rows = []
    for name, build in CASES.items():
        model = build()
        started = process_time()
        result = fuser.optimize(model)
        rows.append([name, len(model.graph.node), len(result.graph.node), process_time() - started])
    print(machine())
    print(table(["case", "nodes", "after", "CPU seconds"], [[*row[:3], f"{row[3]:.2f}"] for row in rows]))
    write_json(path, {"machine": machine(), "rows": rows})


def main() -> None:
    """Print blocks, nodes, seconds, and the exponent from one size to the next."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--most", type=int, default=10_000)
    parser.add_argument("--cases", action="store_true", help="large graphs of one kind")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.cases:
        run_cases(arguments.json)
        return
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

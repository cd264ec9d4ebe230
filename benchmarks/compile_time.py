"""How long the optimisers take, and how much memory: ours and its peers on the same files.

``python -m benchmarks.compile_time [NAME|FILE ...] [--exporter E] [--tools T ...] [--repeats N]``

Each measurement is a fresh process: one tool, one file. ``call`` is load + optimise + save without imports;
``process`` is everything from start to exit, what a user of the command line waits for. Some tools import
themselves only when called, so each optimises a graph of one node before the clock of ``call`` starts. Tools
alternate within a repeat, so that a slow spell of the machine meets all of them.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import models
from benchmarks.common import machine, operators, table, versions, write_json


class Sample(NamedTuple):
    """One process: seconds and MiB."""

    call_wall: float
    call_cpu: float
    process_wall: float
    process_cpu: float
    peak: float
    imports: float  # peak of the interpreter after its imports, before the file is read


def _ours(source: str, target: str) -> None:
    """Without the numerical check of the result, like the peers."""
    import fuser

    fuser.optimize_file(source, target, verify=False)


def _ours_verified(source: str, target: str) -> None:
    """With it: the default."""
    import fuser

    fuser.optimize_file(source, target, verify=True)


def _onnxsim(source: str, target: str) -> None:
    """By path, its fast way; one file whatever the size, as for the others."""
    onnxsim: Any = importlib.import_module("onnxsim")  # no types
    onnxsim.simplify(source, output_path=target, external_data_threshold="1900MB")


def _onnxslim(source: str, target: str) -> None:
    """As its command line does."""
    onnxslim: Any = importlib.import_module("onnxslim")  # no types
    onnxslim.slim(source, target)


def _onnxscript(source: str, target: str) -> None:
    """Through onnx-ir at both ends, which is quicker than through protobuf objects."""
    import onnx_ir
    import onnxscript.optimizer

    onnx_ir.save(onnxscript.optimizer.optimize(onnx_ir.load(source)), target)


TOOLS: dict[str, tuple[str, Callable[[str, str], None]]] = {
    "graph-fuser": ("fuser", _ours),
    "graph-fuser+verify": ("fuser", _ours_verified),
    "onnxsim": ("onnxsim", _onnxsim),
    "onnxslim": ("onnxslim", _onnxslim),
    "onnxscript": ("onnxscript.optimizer", _onnxscript),
}


def peak_rss() -> float:
    """Peak resident memory of this process in MiB.

    Linux carries ``ru_maxrss`` over from the parent through exec, so its own high-water mark is read there.
    """
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    import resource

    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return usage / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def write_tiny(path: Path) -> None:
    """A graph of one node, the smallest thing that makes a tool import all that it needs."""
    from onnx import TensorProto, helper, save

    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "tiny", ends[:1], ends[1:])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))


def worker(tool: str, tiny: str, source: str, target: str) -> int:
    """Inside the measured process: import, mark, optimise, and print the figures as the last line."""
    _, call = TOOLS[tool]
    call(tiny, target)
    imports, wall, cpu = peak_rss(), time.perf_counter(), time.process_time()
    call(source, target)
    figures = (time.perf_counter() - wall, time.process_time() - cpu, peak_rss(), imports)
    print("\n" + json.dumps(figures))
    return 0


def measure(tool: str, tiny: Path, source: Path, target: Path) -> Sample:
    """Start a process for one tool and one file; ``RuntimeError`` with its last words if it fails."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.compile_time",
        "--worker",
        tool,
        *map(str, (tiny, source, target)),
    ]
    before, start = os.times(), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wall, after = time.perf_counter() - start, os.times()
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1])
    call_wall, call_cpu, peak, imports = json.loads(done.stdout.splitlines()[-1])
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return Sample(call_wall, call_cpu, wall, cpu, peak, imports)


def importable(module: str) -> str | None:
    """Why a tool can not be measured, or None; asked in another process, to keep this one small."""
    done = subprocess.run(
        [sys.executable, "-c", f"import {module}"], capture_output=True, text=True, check=False
    )
    return (done.stderr.strip().splitlines() or ["import failed"])[-1] if done.returncode else None


def compare(source: Path, tools: Sequence[str], repeats: int) -> dict[str, Any]:
    """All tools on one file: samples, failures, and the operator counts that each leaves."""
    samples: dict[str, list[Sample]] = {tool: [] for tool in tools}
    failed: dict[str, str] = {}
    counts = {"original": dict(operators(source))}  # also brings the file into the page cache
    order = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        tiny = Path(folder) / "tiny.onnx"
        write_tiny(tiny)
        for _ in range(repeats):
            for tool in order.sample(list(tools), len(tools)):
                if tool in failed:
                    continue
                target = Path(folder) / f"{tool}.onnx"
                try:
                    samples[tool].append(measure(tool, tiny, source, target))
                    if tool not in counts:
                        counts[tool] = dict(operators(target))
                except (RuntimeError, OSError) as error:
                    failed[tool] = str(error)
                target.unlink(missing_ok=True)
    return {
        "file": source.name,
        "MB": source.stat().st_size / 1e6,
        "samples": {tool: [sample._asdict() for sample in taken] for tool, taken in samples.items()},
        "failed": failed,
        "operators": counts,
    }


def report(result: dict[str, Any]) -> str:
    """One file's table: medians, and who is the fastest."""
    median = {
        tool: Sample(*(statistics.median(sample[field] for sample in samples) for field in Sample._fields))
        for tool, samples in result["samples"].items()
        if samples and tool not in result["failed"]
    }
    rows: list[list[object]] = []
    for tool, m in median.items():
        counts = result["operators"][tool]
        rows.append(
            [
                tool,
                f"{m.call_wall:.2f}",
                f"{m.call_cpu:.2f}",
                f"{1000 * m.call_wall / result['MB']:.1f}",
                f"{m.process_wall:.2f}",
                f"{m.process_cpu:.2f}",
                f"{m.peak:.0f}",
                f"{m.imports:.0f}",
                f"{(m.peak - m.imports) * 1.048576 / result['MB']:.1f}",
                f"{counts.get('Conv', 0)}/{counts.get('BatchNormalization', 0)}/{sum(counts.values())}",
            ]
        )
    header = [
        "tool",
        "call s",
        "CPU s",
        "ms/MB",
        "process s",
        "CPU s",
        "peak MiB",
        "imports MiB",
        "grown x file",
    ]
    lines = [f"## {result['file']}, {result['MB']:.1f} MB", table([*header, "Conv/BN/nodes"], rows)]
    lines += [f"failed: {tool}: {reason}" for tool, reason in result["failed"].items()]
    if median:
        call = min(median, key=lambda tool: median[tool].call_wall)
        process = min(median, key=lambda tool: median[tool].process_wall)
        memory = min(median, key=lambda tool: median[tool].peak)
        lines.append(f"fastest call: {call}; fastest process: {process}; least memory: {memory}")
    return "\n".join(lines)


def resolve(name: str, exporter: str) -> Path:
    """A file as given, or a model's, made by another process so that torch is not loaded into this one."""
    if name.endswith(".onnx"):
        return Path(name)
    file = models.cache() / f"{name}.{exporter}.onnx"
    if not file.exists():
        subprocess.run([sys.executable, "-m", "benchmarks.models", name, "--exporter", exporter], check=True)
    return file


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; exit status 1 if a tool failed on a file."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["--worker"]:
        return worker(*arguments[1:])
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compile_time", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME|FILE", help="models or .onnx files (default: the core ones)"
    )
    parser.add_argument("--exporter", choices=models.EXPORTERS, default="legacy")
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=list(TOOLS))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write every sample there")
    options = parser.parse_args(arguments)
    missing = {tool: reason for tool in options.tools if (reason := importable(TOOLS[tool][0]))}
    for tool, reason in missing.items():
        print(f"missing: {tool} ({reason})")
    tools = [tool for tool in options.tools if tool not in missing]
    print(f"{machine()}; median of {options.repeats}")
    print(versions(["graph-fuser", "onnx", "onnx-ir", "onnxsim", "onnxslim", "onnxscript"]), flush=True)
    results = []
    for name in options.names or models.CORE:
        results.append(compare(resolve(name, options.exporter), tools, options.repeats))
        print("\n" + report(results[-1]), flush=True)
    write_json(options.json, {"repeats": options.repeats, "missing": missing, "files": results})
    return 1 if any(result["failed"] for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())

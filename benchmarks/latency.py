"""What fusion gains when the model runs: original, ours, and the authors' own deploy form, on onnxruntime.

``python -m benchmarks.latency [NAME|FILE ...] [--exporter E] [--size PX] [--threads N] [--rounds N]``

All forms are loaded at once and run in turn, in a fresh random order each round, so that a slow spell of the
machine meets all of them. A speed-up is the median of the rounds' own ratios, with their quartiles as spread.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import models
from benchmarks.common import machine, quartiles, table, versions, write_json


def forms(name: str, exporter: str, folder: Path) -> dict[str, Path]:
    """The files to run: ``original``, ``ours`` if it can be made, ``deploy`` if the authors have one."""
    original = Path(name) if name.endswith(".onnx") else models.path(name, exporter)
    files = {"original": original}
    ours = folder / f"{original.stem}.ours.onnx"
    try:
        import fuser

        fuser.optimize_file(str(original), str(ours), verify=False)  # outputs are compared below
        files["ours"] = ours
    except Exception as error:  # noqa: BLE001  # the other forms are worth timing; the exit status says so
        print(f"missing: ours ({type(error).__name__}: {error})")
    if not name.endswith(".onnx"):
        files["deploy"] = models.path(name, "deploy")
    return files


def load(path: Path, threads: int) -> Any:
    """An onnxruntime session with all its optimisations on.

    Spinning threads of the sessions that wait would take the cores of the one that runs: it is off.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def feeds(session: Any, batch: int, size: int) -> dict[str, Any]:
    """Random images: an input's free dimensions are the batch, then ``size``; fixed ones stay."""
    generator = np.random.default_rng(0)
    result = {}
    for value in session.get_inputs():
        shape = [
            d if isinstance(d, int) and d > 0 else (batch if axis == 0 else size)
            for axis, d in enumerate(value.shape)
        ]
        result[value.name] = generator.standard_normal(shape).astype(np.float32)
    return result


def compare(files: dict[str, Path], options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of each form in each round, and how far each one's outputs are from the original's."""
    sessions = {form: load(path, options.threads) for form, path in files.items()}
    inputs = {form: feeds(session, options.batch, options.size) for form, session in sessions.items()}
    outputs = {form: session.run(None, inputs[form]) for form, session in sessions.items()}
    for _ in range(2):
        for form, session in sessions.items():
            session.run(None, inputs[form])
    seconds: dict[str, list[float]] = {form: [] for form in sessions}
    order = random.Random(0)
    deadline = time.perf_counter() + options.seconds
    for done in range(options.rounds):
        if done >= 5 and time.perf_counter() > deadline:
            break
        for form in order.sample(list(sessions), len(sessions)):
            start = time.perf_counter()
            sessions[form].run(None, inputs[form])
            seconds[form].append(time.perf_counter() - start)
    return {
        "file": files["original"].name,
        "shapes": {name: list(value.shape) for name, value in inputs["original"].items()},
        "MB": {form: path.stat().st_size / 1e6 for form, path in files.items()},
        "seconds": seconds,
        "difference": {form: difference(outputs["original"], outputs[form]) for form in sessions},
    }


def difference(expected: Sequence[Any], found: Sequence[Any]) -> float:
    """The largest difference over all outputs, relative to the largest magnitude of that output."""
    return max(
        float(np.abs(a.astype(np.float64) - b).max() / max(float(np.abs(a).max()), 1e-30))
        for a, b in zip(expected, found, strict=True)
    )


def row(result: dict[str, Any], form: str) -> list[object]:
    """One line of the table."""
    original, seconds = result["seconds"]["original"], result["seconds"][form]
    low, median, high = (1000 * value for value in quartiles(seconds))
    slow, gain, fast = quartiles([a / b for a, b in zip(original, seconds, strict=True)])
    return [
        result["file"],
        form,
        f"{result['MB'][form]:.1f}",
        f"{median:.1f}",
        f"{low:.1f} - {high:.1f}",
        f"{gain:.2f}",
        f"{slow:.2f} - {fast:.2f}",
        f"{result['difference'][form]:.1e}",
        len(seconds),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; exit status 1 if our form of a file could not be made."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.latency", description=__doc__.splitlines()[0])
    parser.add_argument(
        "names", nargs="*", metavar="NAME|FILE", help="models or .onnx files (default: the core ones)"
    )
    parser.add_argument("--exporter", choices=models.EXPORTERS, default="legacy")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument(
        "--size", type=int, default=224, help="height and width where the file leaves them free"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument(
        "--seconds", type=float, default=60, help="start no new round after this long, if 5 are done"
    )
    parser.add_argument("--json", type=Path, help="write the time of every run there")
    options = parser.parse_args(arguments)
    print(f"{machine()}; {options.threads} threads, batch {options.batch}, {options.size} px")
    print(versions(["graph-fuser", "onnxruntime"]), flush=True)
    results, rows = [], []
    for name in options.names or models.CORE:
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            results.append(compare(forms(name, options.exporter, folder), options))
        rows += [row(results[-1], form) for form in results[-1]["seconds"]]
    header = [
        "file",
        "form",
        "MB",
        "median ms",
        "quartiles",
        "speed-up",
        "quartiles",
        "rel. difference",
        "runs",
    ]
    print(table(header, rows))
    write_json(options.json, {"threads": options.threads, "batch": options.batch, "files": results})
    return 0 if all("ours" in result["seconds"] for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())

"""Commands killed at any moment: ``python -m tests.kill [COUNT] [--start N]``.

Each number is a folder with a small model, inside one file or with external data, to be optimized into the
same or another file, which may be there already, and a process that gets SIGKILL or SIGTERM: just before a
file is made, renamed, locked or removed, or at any time. Then what was there is there, old or new and whole,
as `onnx` itself reads it; and after one more run nothing is left but what a run leaves that nobody disturbs.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import rich.console  # noqa: F401  # as a command does
from onnx import helper, numpy_helper

import fuser
import fuser.report.report
from fuser import cli, terminal

MOMENTS = frozenset(
    {"open", "os.mkdir", "os.rename", "os.chmod", "os.remove", "os.rmdir", "shutil.rmtree", "fcntl.flock"}
)
"""What Python says before it does something to a file."""


@dataclass(frozen=True)
class Scene:
    """`external`: the source has external data; `onto`: `itself`, `new`, or the `old` file of an earlier run.

    With `report`, there is a report as JSON as well.
    """

    external: bool
    onto: str
    report: bool

    def build(self, folder: Path) -> None:
        """Make the files that are there before."""
        self.save(folder / "in.onnx", 1.0)
        if self.onto == "old":
            self.save(folder / "other.onnx", 2.0)
            assert (
                command(
                    ["optimize", str(folder / "other.onnx"), "-o", str(folder / "out.onnx"), "--no-verify"]
                )
                == 0
            )
        if self.report:
            (folder / "report.json").write_text("old")

    def save(self, path: Path, scale: float) -> None:
        """Write a model, its external data where a careless run would put its own."""
        location = "out.onnx.data" if path.name == "in.onnx" else f"{path.name}.data"
        onnx.save(
            model(scale), path, save_as_external_data=self.external, location=location, size_threshold=0
        )

    def arguments(self, folder: Path) -> list[str]:
        """The command."""
        report = ["--json", str(folder / "report.json")] if self.report else []
        return ["optimize", str(folder / "in.onnx"), "-o", str(self.target(folder)), "--no-verify", *report]

    def target(self, folder: Path) -> Path:
        """What is written."""
        return folder / ("in.onnx" if self.onto == "itself" else "out.onnx")


SCENES = tuple(
    Scene(external, onto, report)
    for external in (False, True)
    for onto in ("itself", "new", "old")
    for report in (False, True)
)


def model(scale: float) -> onnx.ModelProto:
    """A convolution and a norm, which become one; another one for each scale."""
    generator = np.random.default_rng(0)
    kernel = scale * generator.standard_normal((32, 8, 3, 3)).astype(np.float32)
    norm = {name: generator.random(32).astype(np.float32) + 0.5 for name in "sbmv"}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node("BatchNormalization", ["a", *norm], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "main",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 8, 9, 9])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 32, 7, 7])],
        [numpy_helper.from_array(array, name) for name, array in {"w": kernel, **norm}.items()],
    )
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


def command(arguments: Sequence[str], at: tuple[int, int] | None = None) -> int:
    """Run a command in a process of its own, and wait; `at`: the number of a moment, and a signal."""
    return wait(start(arguments, at))


def start(arguments: Sequence[str], at: tuple[int, int] | None = None) -> int:
    """Start a command in a copy of this process, where everything is imported."""
    child = os.fork()
    if child:
        return child
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    try:
        terminal.prepare()
        if at is not None:
            disturb(*at)
        terminal.end(cli.run(arguments))
    except SystemExit as done:
        os._exit(int(done.code or 0))
    finally:
        os._exit(99)


def disturb(moment: int, number: int) -> None:
    """Get a signal at a moment; without one, leave how many moments there were as the exit status."""
    seen = 0

    def hook(event: str, about: tuple[object, ...]) -> None:
        nonlocal seen
        # Of files that are opened only those in the folder.
        if event in MOMENTS and (event != "open" or tempfile.gettempdir() in str(about[0])):
            seen += 1
            if seen == moment:
                os.kill(os.getpid(), number)

    sys.addaudithook(hook)
    if number == 0:
        cli.run = lambda arguments, run=cli.run: (run(arguments), seen)[1]  # type: ignore[misc]  # of a process that ends


def wait(child: int) -> int:
    """The exit status of a child, a signal as a negative number."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def content(path: Path) -> bytes | None:
    """What a model is, as the onnx package reads it, external data included; None if there is none."""
    return onnx.load(path).SerializeToString(deterministic=True) if path.exists() else None


def names(folder: Path) -> set[str]:
    """What is in a folder."""
    return {path.name for path in folder.iterdir()}


class Undisturbed:
    """What a scene is before and after a run that nobody disturbs."""

    def __init__(self, scene: Scene, place: Path) -> None:
        folder = Path(tempfile.mkdtemp(dir=place))
        scene.build(folder)
        self.before = content(scene.target(folder))
        self.moments = command(scene.arguments(folder), (0, 0))
        self.after = content(scene.target(folder))
        self.names = names(folder)
        self.report = (folder / "report.json").read_text() if scene.report else None


def attempt(number: int, place: Path, known: dict[Scene, Undisturbed]) -> tuple[str | None, bool]:
    """Kill one command; returns what is wrong then, and whether anything was left until the next run."""
    chosen = random.Random(number)
    scene = SCENES[number % len(SCENES)]
    expected = known.setdefault(scene, known.get(scene) or Undisturbed(scene, place))
    kind = chosen.choice([signal.SIGKILL, signal.SIGTERM])
    folder = Path(tempfile.mkdtemp(dir=place))
    scene.build(folder)
    kept = {
        name: (folder / name).read_bytes() for name in names(folder) if name not in ("in.onnx", "report.json")
    }
    kept |= {} if scene.onto == "itself" else {"in.onnx": (folder / "in.onnx").read_bytes()}
    theirs = {
        name: data
        for name, data in kept.items()
        if not name.startswith("out.onnx") or name == "out.onnx.data"
    }
    if chosen.random() < 0.7:
        moment = chosen.randrange(1, expected.moments + 1)
        status = command(scene.arguments(folder), (moment, kind))
        what = f"{number}: {scene}, {kind.name} at moment {moment} of {expected.moments}"
    else:
        child = start(scene.arguments(folder))
        time.sleep(chosen.random() * 0.1)
        os.kill(child, kind)
        status = wait(child)
        what = f"{number}: {scene}, {kind.name} at any time"
    found = content(scene.target(folder))
    if found not in (expected.before, expected.after):
        return f"{what}: neither old nor new", False
    if status not in (0, -kind, 128 + kind):
        return f"{what}: exit status {status}", False
    if scene.report and (folder / "report.json").read_text()[:1] not in ("o", "{"):
        return f"{what}: half a report", False
    left = bool(names(folder) - expected.names - set(kept))
    if command(scene.arguments(folder)) != 0:
        return f"{what}: the next run fails", left
    if any((folder / name).read_bytes() != data for name, data in theirs.items()):
        return f"{what}: a file of the source was written", left
    if names(folder) != expected.names:
        return f"{what}: left are {sorted(names(folder) ^ expected.names)}", left
    return (None if content(scene.target(folder)) == expected.after else f"{what}: not what it was"), left


def main(arguments: Sequence[str]) -> int:
    """Run it; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.kill", description=__doc__)
    parser.add_argument("count", nargs="?", type=int, default=400)
    parser.add_argument("--start", type=int, default=0, help="the number of the first command")
    options = parser.parse_args(arguments)
    known: dict[Scene, Undisturbed] = {}
    fuser.optimize(model(1.0))  # all that a command imports is imported here, once
    with tempfile.TemporaryDirectory() as place:
        numbers = range(options.start, options.start + options.count)
        results = [attempt(number, Path(place), known) for number in numbers]
    wrong = [text for text, _ in results if text is not None]
    left = sum(left for _, left in results)
    print(
        *wrong,
        f"{len(results)} killed, {len(wrong)} wrong; {left} left something until the next run",
        sep="\n",
    )
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

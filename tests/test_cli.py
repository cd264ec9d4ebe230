"""The commands, run as a user runs them."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import numpy_helper

from fuser import cli
from fuser.demo import build_repvgg


@pytest.fixture(scope="module")
def training_form(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three RepVGG blocks, one of them with an identity: 6 convolutions and 7 BatchNorms."""
    file = tmp_path_factory.mktemp("models") / "repvgg.onnx"
    onnx.save(build_repvgg(((4, 1), (8, 2)), classes=5), file)
    return file


@pytest.fixture(scope="module")
def other_weights(training_form: Path) -> Path:
    file = training_form.with_name("other.onnx")
    onnx.save(build_repvgg(((4, 1), (8, 2)), classes=5, seed=1), file)
    return file


Result = subprocess.CompletedProcess[str]


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> "Command":
    return Command(capfd)


class Command:
    """Runs a command in this process."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self.capture = capture

    def __call__(self, *arguments: object) -> Result:
        self.capture.readouterr()
        status = cli.run([str(argument) for argument in arguments])
        return subprocess.CompletedProcess([str(a) for a in arguments], status, *self.capture.readouterr())


def process(*arguments: object) -> Result:
    """Run a command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "fuser", *map(str, arguments)], capture_output=True, text=True, check=False
    )


def contents(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def operators(file: Path) -> dict[str, int]:
    kinds = [node.op_type for node in onnx.load(file).graph.node]
    return {kind: kinds.count(kind) for kind in sorted(set(kinds))}


# --- optimize ---


def test_optimize(command: Command, training_form: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.onnx"
    result = command("optimize", training_form, "-o", output)
    assert (result.returncode, result.stderr) == (0, "")
    assert operators(output) == {"Conv": 3, "Flatten": 1, "Gemm": 1, "GlobalAveragePool": 1, "Relu": 3}
    onnx.checker.check_model(onnx.load(output), full_check=True)
    rows = {line.split()[0]: line.split()[1:] for line in result.stdout.splitlines() if line.strip()}
    assert rows["Conv"] == ["6", "3", "-50.0%"]
    assert rows["BatchNormalization"][:2] == ["7", "0"]
    assert "fold_batch_norm" in result.stdout
    assert "merge_branches 3" in result.stdout
    assert "the original's own float32 error" in result.stdout


def test_optimize_in_place(command: Command, training_form: Path, tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(training_form.read_bytes())
    assert command("optimize", file, "-o", file).returncode == 0
    assert operators(file)["Conv"] == 3
    assert contents(tmp_path) == ["model.onnx"]


def test_optimize_twice_changes_nothing(command: Command, training_form: Path, tmp_path: Path) -> None:
    once, twice = tmp_path / "1.onnx", tmp_path / "2.onnx"
    assert command("optimize", training_form, "-o", once, "--no-verify").returncode == 0
    result = command("optimize", once, "-o", twice, "--no-verify")
    assert "applied   nothing" in result.stdout
    assert once.read_bytes() == twice.read_bytes()


def test_optimize_without_verification_and_with_timing(
    command: Command, training_form: Path, tmp_path: Path
) -> None:
    result = command("optimize", training_form, "-o", tmp_path / "out.onnx", "--no-verify", "--bench")
    assert result.returncode == 0
    assert "verified" not in result.stdout
    assert " x as fast (" in result.stdout


def test_optimize_json(command: Command, training_form: Path, tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    assert command("optimize", training_form, "-o", tmp_path / "out.onnx", "--json", file).returncode == 0
    report = json.loads(file.read_text())
    assert report["source"] == str(training_form)
    assert report["after"]["operators"]["Conv"] == 3
    assert report["verification"]["ok"] is True
    assert {event["rewrite"] for event in report["applied"]} == {"fold_batch_norm", "merge_branches"}


def test_json_on_stdout_is_all_there_is_on_it(command: Command, training_form: Path, tmp_path: Path) -> None:
    result = command("optimize", training_form, "-o", tmp_path / "out.onnx", "--json", "-", "--no-verify")
    assert json.loads(result.stdout)["verification"] is None


@pytest.mark.parametrize(
    ("option", "value", "convolutions"),
    [("--passes", "merge_branches", 3), ("--exclude", "merge_branches", 6)],
)
def test_selected_passes(
    command: Command, training_form: Path, tmp_path: Path, option: str, value: str, convolutions: int
) -> None:
    output = tmp_path / "out.onnx"
    assert command("optimize", training_form, "-o", output, option, value).returncode == 0
    assert operators(output)["Conv"] == convolutions


@pytest.mark.parametrize("option", ["--passes", "--exclude"])
def test_an_unknown_pass_is_named_with_the_known_ones(
    command: Command, training_form: Path, tmp_path: Path, option: str
) -> None:
    output = tmp_path / "out.onnx"
    result = command("optimize", training_form, "-o", output, option, "fold_batch_norm, merge_brunches")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("graph-fuser: no pass is called 'merge_brunches'; there are ")
    assert "merge_branches" in result.stderr
    assert result.stderr.count("\n") == 1
    assert not output.exists()


def test_a_report_does_not_overwrite_a_model(command: Command, training_form: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.onnx"
    for path in (training_form, output):
        result = command("optimize", training_form, "-o", output, "--json", path)
        assert (result.returncode, result.stderr) == (
            2,
            f"graph-fuser: --json {path} is also the path of a model\n",
        )
    assert not output.exists()


def test_a_failed_verification_writes_nothing(
    command: Command, training_form: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written is not what was meant, which nothing but a broken compiler can make."""
    from fuser.hosts.onnx.file import files as onnx_io

    staged = onnx_io.staged

    def broken(model: onnx_ir.Model, path: Path) -> AbstractContextManager[Path]:
        bias = model.graph.initializers["head.bias"]
        bias.const_value = onnx_ir.tensor(np.ones(5, np.float32), name="head.bias")
        return staged(model, path)

    monkeypatch.setattr(onnx_io, "staged", broken)
    output = tmp_path / "out.onnx"
    output.write_text("as it was")
    result = command("optimize", training_form, "-o", output)
    assert (result.returncode, result.stdout) == (1, "")
    assert "merge_branches" in result.stderr
    assert result.stderr.count("\n") == 1
    assert output.read_text() == "as it was"
    assert contents(tmp_path) == ["out.onnx"]


# --- the other commands ---


def test_inspect(
    command: Command, training_form: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = command("inspect", training_form, "--exclude", "fold_batch_norm")
    assert result.returncode == 0
    assert "merge_branches applies (3)" in result.stdout
    assert contents(tmp_path) == []


def test_inspect_says_why_not(command: Command, tmp_path: Path) -> None:
    """What a BatchNorm reads is an output too, so that the convolution in front of it must stay."""
    model = build_repvgg(((4, 1),), classes=5)
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    tap = onnx.helper.make_tensor_value_info(conv.output[0], onnx.TensorProto.FLOAT, ["batch", 4, None, None])
    model.graph.output.append(tap)
    file = tmp_path / "tapped.onnx"
    onnx.save(model, file)
    result = command("inspect", file)
    assert result.returncode == 0
    assert "fold_batch_norm declined (1): " in result.stdout
    assert "graph output" in result.stdout
    declined = json.loads(command("inspect", file, "--json", "-").stdout)["declined"]
    assert {"fold_batch_norm"} <= {event["rewrite"] for event in declined}
    assert all(event["reason"] and event["node"] for event in declined)


def test_verify(command: Command, training_form: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.onnx"
    command("optimize", training_form, "-o", output, "--no-verify")
    result = command("verify", training_form, output)
    assert (result.returncode, result.stderr) == (0, "")
    assert "logits" in result.stdout
    images = tmp_path / "images.npy"
    np.save(images, np.random.default_rng(0).normal(size=(1, 3, 32, 40)).astype(np.float32))
    result = command("verify", training_form, output, "--inputs", images, "--json", "-")
    assert json.loads(result.stdout)["samples"] == [{"image": [1, 3, 32, 40]}]


def test_verify_tells_different_models_apart(
    command: Command, training_form: Path, other_weights: Path
) -> None:
    result = command("verify", training_form, other_weights)
    assert result.returncode == 1
    assert "DIFFERS" in result.stdout
    start = f"graph-fuser: {other_weights} does not compute what {training_form} computes: "
    assert result.stderr.startswith(start)
    assert result.stderr.count("\n") == 1


def test_bench(command: Command, training_form: Path, other_weights: Path) -> None:
    result = command("bench", training_form, other_weights, "--threads", 1, "--json", "-")
    assert result.returncode == 0
    benchmark = json.loads(result.stdout)
    assert benchmark["threads"] == 1
    assert benchmark["speedup"]["median"] > 0


def test_passes(command: Command) -> None:
    result = command("passes")
    names = [line.split()[0] for line in result.stdout.splitlines()]
    assert {"fold_batch_norm", "merge_branches"} <= set(names)
    assert [entry["name"] for entry in json.loads(command("passes", "--json", "-").stdout)] == names


# --- what goes wrong ---


@pytest.mark.parametrize(
    "arguments",
    [
        ["optimize", "missing.onnx", "-o", "out.onnx"],
        ["inspect", "missing.onnx"],
        ["verify", "missing.onnx", "missing.onnx"],
        ["bench", "missing.onnx", "missing.onnx"],
    ],
)
def test_a_missing_file_is_one_sentence(
    command: Command, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = command(*arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("graph-fuser: ")
    assert "missing.onnx" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["optimize"],
        ["optimize", "in.onnx"],
        ["fuse", "in.onnx"],
        ["inspect", "in.onnx", "--fast"],
        ["bench", "a"],
    ],
)
def test_wrong_usage(command: Command, arguments: list[str]) -> None:
    result = command(*arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert "Usage: graph-fuser" in result.stderr


def test_an_unwritable_report(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "nowhere" / "report.json"
    result = command("passes", "--json", file)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == f"graph-fuser: {file}: cannot write the report: No such file or directory\n"


def test_a_mistake_of_ours_is_no_failed_verification(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fuser

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(fuser, "inspect_file", broken, raising=False)
    result = command("inspect", "in.onnx")
    assert (result.returncode, result.stdout) == (cli.BUG, "")
    assert "ZeroDivisionError" in result.stderr


def test_interrupted(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    import fuser

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fuser, "inspect_file", interrupted, raising=False)
    result = command("inspect", "in.onnx")
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "")


# --- as a process ---


def test_help_is_quick() -> None:
    """User and system time of the whole process; nothing heavy is imported."""
    before = os.times()
    result = process("--help")
    after = os.times()
    assert result.returncode == 0
    for name in ("optimize", "inspect", "verify", "bench", "reduce", "passes", "demo"):
        assert f"  {name}  " in result.stdout
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    assert spent < 0.4


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, fuser.cli; fuser.cli.run(['--help']); print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(result.stdout.splitlines()[-1].split())
    assert not loaded & {"numpy", "onnx", "onnx_ir", "onnxruntime", "networkx", "torch"}


@pytest.mark.skipif(not hasattr(signal, "SIGPIPE"), reason="no such signal here")
def test_a_broken_pipe_is_quiet() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        result = subprocess.run(
            [sys.executable, "-m", "fuser", "passes"],
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    finally:
        os.close(writer)
    assert result.stderr == ""
    assert result.returncode == -signal.SIGPIPE


def test_a_name_that_the_terminal_cannot_show(tmp_path: Path) -> None:
    model = build_repvgg(((4, 1),), classes=5)
    for node in model.graph.node:
        node.name = f"块[{node.name}]"
    file = tmp_path / "模型.onnx"
    onnx.save(model, file)
    result = subprocess.run(
        [sys.executable, "-m", "fuser", "inspect", str(file)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert r"\u5757[" in result.stdout


def test_the_weights_of_the_output_are_those_of_the_model(
    command: Command, training_form: Path, tmp_path: Path
) -> None:
    """What no rewrite touches comes out bit by bit."""
    output = tmp_path / "out.onnx"
    command("optimize", training_form, "-o", output, "--no-verify")
    before, after = (
        {w.name: w for w in onnx.load(file).graph.initializer} for file in (training_form, output)
    )
    np.testing.assert_array_equal(
        numpy_helper.to_array(before["head.weight"]), numpy_helper.to_array(after["head.weight"])
    )


# --- inputs and shapes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["optimize", "inspect", "verify", "bench"])
def test_inputs_and_shapes_are_taken_by_all_commands(
    command: Command, training_form: Path, tmp_path: Path, name: str
) -> None:
    np.savez(tmp_path / "x.npz", image=np.zeros((1, 3, 40, 56), np.float32))
    rest = {"optimize": ["-o", tmp_path / "o.onnx", "--bench"], "inspect": []}.get(name, [training_form])
    for options in (["--inputs", tmp_path / "x.npz"], ["--shape", "image=1,3,40,56"]):
        done = command(name, training_form, *rest, *options, "--json", "-")
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)
        found = list(_shapes_in(report))
        assert found
        assert all(shape == {"image": [1, 3, 40, 56]} for shape in found)


def _shapes_in(report: dict[str, Any]) -> Iterator[object]:
    """What was fed and counted, in the report of any command."""
    for side in (report[name] for name in ("before", "after") if name in report):
        yield side["nominal_inputs"]
    for verdict in (report, report.get("verification") or {}):
        yield from verdict.get("samples", ())
    for timing in (report, report.get("benchmark") or {}):
        yield from [timing["inputs"]] if "inputs" in timing else []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--shape", "input"], "--shape input: not of the form NAME=1,3,224,224"),
        (["--shape", "input=1,x"], "--shape input=1,x: not of the form NAME=1,3,224,224"),
        (["--shape", "input=1,-3"], "--shape input=1,-3: not of the form"),
        (["--shape", "a=1", "--shape", "a=2"], "--shape a=2: a has shape [1] already"),
        (["--shape", "z=1"], "a shape for 'z', which is no input of the model; its inputs are ['image']"),
        (["--shape", f"image=1,3,8,{10**20}"], "elements at most"),
        (["--shape", "image=1,3,8"], "input 'image' cannot have shape [1, 3, 8], the model takes"),
        (["--shape", f"image={10**20},3,8,8"], f"cannot have shape [{10**20}, 3, 8, 8], an array has"),
        (["--shape", f"image=0,3,{10**20},8"], f"cannot have shape [0, 3, {10**20}, 8], an array has"),
        (["--shape", f"image={10**8},3,{10**8},{10**8}"], "elements at most"),
        (["--shape", "image=" + "9" * 5000], "not of the form"),
        (["--inputs", "none.npz"], "none.npz: no such file"),
    ],
)
@pytest.mark.parametrize("name", ["optimize", "inspect", "verify", "bench"])
def test_inputs_and_shapes_that_make_no_sense_are_refused_in_one_sentence(
    command: Command, training_form: Path, tmp_path: Path, name: str, options: list[str], message: str
) -> None:
    rest = {"optimize": ["-o", tmp_path / "o.onnx"], "inspect": []}.get(name, [training_form])
    done = command(name, training_form, *rest, *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "o.onnx").exists()


def test_a_scalar_has_an_empty_shape() -> None:
    assert cli.shapes(["sr=", "x:0=1, 2", "a=b=3"]) == {"sr": (), "x:0": (1, 2), "a=b": (3,)}

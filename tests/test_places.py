"""No output of a command goes to the place of another one, or of what it reads: all pairs of them."""

import os
import re
from pathlib import Path

import onnx
import pytest

import fuser
from fuser import cli
from fuser.demo import build_repvgg
from fuser.errors import OutputError

WRITES = {
    "optimize": ("-o", "--json", "--certificate"),
    "inspect": ("--json",),
    "verify": ("--json",),
    "bench": ("--json",),
}
READS = {
    "optimize": ("a.onnx", "a.weights", "--inputs"),
    "inspect": ("a.onnx", "a.weights", "--inputs"),
    "verify": ("a.onnx", "a.weights", "b.onnx", "b.weights", "--inputs", "--certificate"),
    "bench": ("a.onnx", "a.weights", "b.onnx", "b.weights", "--inputs"),
}
PAIRS = [
    (command, written, other)
    for command, writes in WRITES.items()
    for place, written in enumerate(writes)
    for other in (*READS[command], *writes[:place])
    if (written, other) != ("-o", "a.onnx")  # OUT may be IN
]
ALIASES = ("same", "dotted", "absolute", "link", "hard")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two models with external data, and what may be an input or a certificate."""
    for name in "ab":
        model = build_repvgg(((4, 1),), classes=5)
        weights = f"{name}.weights"
        onnx.save(
            model, tmp_path / f"{name}.onnx", save_as_external_data=True, location=weights, size_threshold=0
        )
    for name in ("inputs", "certificate"):
        (tmp_path / name).write_text(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def alias(path: str, how: str) -> str:
    """Another path of a file, which may not be there yet."""
    if how in ("link", "hard"):
        link = Path("link")
        link.symlink_to(path) if how == "link" else link.hardlink_to(path)
        return str(link)
    return {"same": path, "dotted": f"./{path}", "absolute": str(Path(path).absolute())}[how]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("how", ALIASES)
@pytest.mark.parametrize(("command", "written", "other"), PAIRS)
def test_no_output_in_the_place_of_anything_else(
    folder: Path, command: str, written: str, other: str, how: str, capfd: pytest.CaptureFixture[str]
) -> None:
    options = {"-o": "out.onnx"} if command == "optimize" else {}
    if other.startswith("-"):
        options[other] = {"-o": "out.onnx"}.get(other, other.strip("-"))
        if other in WRITES[command]:
            Path(options[other]).write_text("old")
    options[written] = alias(options.get(other, other), how)
    before = contents(folder)
    models = [name for name in READS[command] if name.endswith(".onnx")]
    assert cli.run([command, *models, *(part for pair in options.items() for part in pair)]) == 2
    said = capfd.readouterr().err
    assert "is also the path of" in said or (written == "-o" and f"{other} is read" in said)
    assert str(Path(options[written])) in said
    assert contents(folder) == before


def test_outputs_that_are_not_there_yet(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = contents(folder)
    for json, certificate in (("c", "./c"), ("out.onnx", "c"), ("c", "../" + folder.name + "/out.onnx")):
        options = ["-o", "out.onnx", "--json", json, "--certificate", certificate]
        assert cli.run(["optimize", "a.onnx", *options]) == 2
        assert "is also the path of" in capfd.readouterr().err
    assert contents(folder) == before


@pytest.mark.parametrize("option", ["--json", "--certificate"])
def test_no_output_is_called_as_weights_of_the_result(
    folder: Path, option: str, capfd: pytest.CaptureFixture[str]
) -> None:
    name = "out.onnx.0123456789abcdef.data"
    assert cli.run(["optimize", "a.onnx", "-o", "out.onnx", option, name]) == 2
    assert (
        capfd.readouterr().err == f"graph-fuser: {option} {name} is called as the weights of out.onnx are\n"
    )
    assert not (folder / "out.onnx").exists()


@pytest.mark.parametrize("written", WRITES["optimize"])
@pytest.mark.parametrize(
    ("place", "reason"), [("nowhere/file", "the folder .* does not exist"), (".", "it is a folder")]
)
def test_an_output_without_a_place_is_refused_before_another_is_written(
    folder: Path, written: str, place: str, reason: str, capfd: pytest.CaptureFixture[str]
) -> None:
    before = contents(folder)
    options = {"-o": "out.onnx", "--json": "json", "--certificate": "proof"} | {written: place}
    assert cli.run(["optimize", "a.onnx", *(part for pair in options.items() for part in pair)]) == 2
    assert re.fullmatch(f"graph-fuser: {place}: cannot write there: {reason}\n", capfd.readouterr().err)
    assert contents(folder) == before


def test_a_device_takes_any_number_of_outputs(folder: Path) -> None:
    options = ["--json", os.devnull, "--certificate", os.devnull]
    assert cli.run(["optimize", "a.onnx", "-o", "out.onnx", *options]) == 0
    assert (folder / "out.onnx").exists()


@pytest.mark.usefixtures("folder")
def test_the_functions_refuse_it_too() -> None:
    with pytest.raises(OutputError, match=r"^the certificate inputs is also the path of the inputs$"):
        fuser.optimize_file("a.onnx", "out.onnx", inputs="inputs", certificate="inputs")
    with pytest.raises(OutputError, match=r"^the result inputs is also the path of the inputs$"):
        fuser.optimize_file("a.onnx", "inputs", inputs="inputs")

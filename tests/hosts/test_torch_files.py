"""Exported programs as files."""

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from fuser.errors import InputError, OutputError  # noqa: E402
from fuser.hosts.torch.files import load, staged  # noqa: E402
from tests.hosts.fx_models import call, error, generic, optimize, repvgg  # noqa: E402


class Malicious:
    """Runs code where it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.trace),)


def save(program: Any, path: Path) -> None:
    with staged(program, path) as written:
        assert written.is_file()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save(torch.export.export(generic(repvgg()), (torch.randn(2, 6, 9, 8),)), tmp_path / "model.pt2")
    return tmp_path / "model.pt2"


def replaced(path: Path, name: str, content: bytes) -> None:
    """Put something else, or more, into an archive."""
    with zipfile.ZipFile(path) as archive:
        members = {member: archive.read(member) for member in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in (members | {name: content}).items():
            archive.writestr(member, data)


def test_a_program_comes_back(path: Path) -> None:
    program = load(path)
    x = torch.randn(2, 6, 9, 8)
    result = optimize(program).result
    save(result, path)
    assert error(call(load(path).module(), x), call(program.module(), x)) < 1e-6
    assert [entry.name for entry in path.parent.iterdir()] == ["model.pt2"]


def test_code_in_the_inputs_is_not_run(path: Path, tmp_path: Path) -> None:
    torch.save(((Malicious(tmp_path / "trace"),), {}), tmp_path / "inputs")
    replaced(path, "model/data/sample_inputs/model.pt", (tmp_path / "inputs").read_bytes())
    with pytest.raises(InputError, match="holds more than tensors, and reading it could run anything"):
        load(path)
    assert not (tmp_path / "trace").exists()


def test_code_in_a_weight_is_not_run(path: Path, tmp_path: Path) -> None:
    torch.save(Malicious(tmp_path / "trace"), tmp_path / "weight")
    name = "model/data/weights/model_weights_config.json"
    config = json.loads(zipfile.ZipFile(path).read(name))
    next(iter(config["config"].values())).update(use_pickle=True, path_name="weight_evil")
    replaced(path, "model/data/weights/weight_evil", (tmp_path / "weight").read_bytes())
    replaced(path, name, json.dumps(config).encode())
    with pytest.raises(InputError, match="weight_evil holds more than tensors"):
        load(path)
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("name", ["constants/custom_obj_0", "constants/opaque_obj_0", "aotinductor/model.so"])
def test_objects_and_libraries_are_refused(path: Path, name: str) -> None:
    replaced(path, f"model/data/{name}", b"")
    with pytest.raises(InputError, match="is code or a Python object"):
        load(path)


def test_a_weight_that_is_missing_is_named(path: Path) -> None:
    name = "model/data/weights/model_weights_config.json"
    config = json.loads(zipfile.ZipFile(path).read(name))
    next(iter(config["config"].values())).update(use_pickle=True, path_name="weight_lost")
    replaced(path, name, json.dumps(config).encode())
    with pytest.raises(InputError, match=r"model/data/weights/weight_lost is missing"):
        load(path)


def test_a_program_that_torch_cannot_read_is_told_in_one_line(path: Path) -> None:
    replaced(path, "model/models/model.json", b"{}")
    with pytest.raises(InputError, match="not an exported program, or of another version of torch") as error:
        load(path)
    assert "\n" not in str(error.value)


def test_what_is_no_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    with pytest.raises(InputError, match=r"model\.pt2: no such file"):
        load(path)
    path.write_bytes(b"not an archive")
    with pytest.raises(InputError, match=r"model\.pt2: not an exported program, or damaged"):
        load(path)


def test_other_files_of_torch_are_told_in_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path, module = tmp_path / "model.pt2", generic(repvgg())
    torch.save(module.state_dict(), path)
    with pytest.raises(InputError, match=r"model\.pt2: not a file of torch\.export, but of torch\.save or"):
        load(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme", b"")
    with pytest.raises(InputError, match=r"model\.pt2: not a file of torch\.export$"):
        load(path)
    assert capfd.readouterr().err == ""


def test_an_unwritable_target_is_said(path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write there"):
        save(load(path), path / "inside.pt2")
    with pytest.raises(
        OutputError, match=r"no.such.m\.pt2: cannot write there: the folder .*such does not exist"
    ):
        save(load(path), path.parent / "no" / "such" / "m.pt2")

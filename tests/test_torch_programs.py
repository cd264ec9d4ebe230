"""Files of torch.export, through the function that the command line calls."""

import json
import zipfile
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import fuser  # noqa: E402  # only where torch is there
from fuser import cli  # noqa: E402
from fuser.errors import InputError, VerificationError  # noqa: E402


@pytest.fixture
def program(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU()).eval()
    path = tmp_path / "model.pt2"
    torch.export.save(torch.export.export(model, (torch.randn(1, 3, 8, 8),)), path)
    return path


def test_a_program_in_a_program_out(program: Path, tmp_path: Path) -> None:
    report = fuser.optimize_file(program, tmp_path / "out.pt2")
    assert "batch_norm" not in report.after.operators
    x = torch.randn(1, 3, 8, 8)
    before, after = (torch.export.load(p).module()(x) for p in (program, tmp_path / "out.pt2"))
    torch.testing.assert_close(after, before)
    assert fuser.inspect_file(tmp_path / "out.pt2").applied == []


def test_a_program_does_not_become_onnx(program: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"becomes another \.pt2 file, which .*out\.onnx is not"):
        fuser.optimize_file(program, tmp_path / "out.onnx")


def test_the_result_is_verified_and_timed(program: Path, tmp_path: Path) -> None:
    report = fuser.optimize_file(program, tmp_path / "out.pt2", bench=True)
    assert report.verification is not None
    assert report.verification.ok
    assert report.verification.worst is not None
    assert report.verification.worst.own_error is not None
    assert report.benchmark is not None
    assert report.benchmark.provider == "eager"
    assert report.source == str(program)
    assert fuser.optimize_file(program, tmp_path / "out.pt2", verify=False).verification is None


def test_a_wrong_result_is_not_written(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written is not what was meant, which nothing but a broken compiler can make."""
    from fuser.hosts import torch_files

    staged = torch_files.staged

    def broken(result: Any, path: Path) -> AbstractContextManager[Path]:
        with torch.no_grad():
            next(iter(result.state_dict.values())).add_(1)
        return staged(result, path)

    monkeypatch.setattr(torch_files, "staged", broken)
    with pytest.raises(VerificationError, match=r"nothing was written: .*suspect: fold_batch_norm"):
        fuser.optimize_file(program, tmp_path / "out.pt2")
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt2"]


# --- the commands ---


def command(capfd: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    capfd.readouterr()
    status = cli.run([str(argument) for argument in arguments])
    return status, *capfd.readouterr()


def test_optimize(program: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    status, text, complaints = command(capfd, "optimize", program, "-o", tmp_path / "out.pt2", "--bench")
    assert (status, complaints) == (0, "")
    assert "verified  error" in text
    assert "the original's own float32 error" in text
    assert "eager, float32 on cpu" in text


def test_verify_and_bench(program: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out.pt2"
    fuser.optimize_file(program, output, verify=False)
    status, text, complaints = command(capfd, "verify", program, output, "--json", "-")
    assert (status, complaints) == (0, "")
    assert json.loads(text)["samples"] == [{"input": [1, 3, 8, 8]}] * 3
    status, text, complaints = command(capfd, "bench", program, output, "--threads", 1, "--json", "-")
    assert (status, complaints) == (0, "")
    assert json.loads(text)["speedup"]["median"] > 0


def test_verify_tells_different_programs_apart(
    program: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    other = torch.export.load(program)
    with torch.no_grad():
        next(iter(other.state_dict.values())).add_(1e-3)
    torch.export.save(other, tmp_path / "other.pt2")
    status, text, complaints = command(capfd, "verify", program, tmp_path / "other.pt2")
    assert status == 1
    assert "DIFFERS" in text
    assert f"does not compute what {program} computes" in complaints


@pytest.mark.parametrize(
    "arguments", [["--backend", "abacus"], ["--device", "abacus"], ["--threads", "1", "--device", "cuda"]]
)
def test_bench_refuses_in_one_sentence(
    program: Path, arguments: list[str], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    status, text, complaints = command(capfd, "bench", program, program, *arguments)
    assert (status, text) == (2, "")
    assert complaints.startswith("graph-fuser: ")
    assert complaints.count("\n") == 1


@pytest.mark.parametrize("name", ["verify", "bench"])
def test_code_in_a_program_is_not_run(
    name: str, program: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with zipfile.ZipFile(program, "a") as archive:
        archive.writestr("model/data/constants/custom_obj_0", b"")
    for pair in ((program, program), (tmp_path / "sound.pt2", program)):
        torch.export.save(torch.export.export(torch.nn.ReLU(), (torch.ones(2),)), tmp_path / "sound.pt2")
        status, _, complaints = command(capfd, name, *pair)
        assert status == 2
        assert "is code or a Python object, and reading it could run anything" in complaints

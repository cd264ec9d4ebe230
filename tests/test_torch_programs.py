"""Files of torch.export, through the function that the command line calls."""

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

import fuser  # noqa: E402  # only where torch is there
from fuser.errors import InputError  # noqa: E402


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


def test_programs_are_not_timed(program: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="only ONNX files can be timed"):
        fuser.optimize_file(program, tmp_path / "out.pt2", bench=True)

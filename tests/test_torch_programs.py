"""Files of torch.export, through the function that the command line calls."""

import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

import fuser  # noqa: E402  # only where torch is there
from fuser import cli  # noqa: E402
from fuser.errors import InputError, VerificationError  # noqa: E402


@pytest.fixture
def program(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval()
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
    with pytest.raises(
        InputError, match=r"becomes another \.pt2 file, which .*out\.onnx is not: \.onnx gives"
    ):
        fuser.optimize_file(program, tmp_path / "out.onnx")


def test_onnx_does_not_become_a_program(tmp_path: Path) -> None:
    # Said before anything is read: there is no such file.
    with pytest.raises(InputError, match=r"in\.onnx becomes another ONNX file, which .*out\.pt2 is not"):
        fuser.optimize_file(tmp_path / "in.onnx", tmp_path / "out.pt2")


def test_files_of_the_wrong_host_are_named(program: Path) -> None:
    with pytest.raises(
        InputError, match=r"which m\.onnx is not: give the torch model, or the \.pt2 file, first"
    ):
        fuser.verify("m.onnx", program)
    for pair in ((program, "m.onnx"), ("m.onnx", program)):
        with pytest.raises(InputError, match=r"no torch module, ExportedProgram or \.pt2 file, but m\.onnx$"):
            fuser.benchmark(*pair)


@pytest.mark.parametrize(
    "call", ["inspect_file('m.pt2')", "optimize_file('m.pt2', 'n.pt2')", "export(0, 0, 'm')"]
)
def test_torch_that_is_not_installed_is_said(call: str) -> None:
    code = f"import sys; sys.modules['torch'] = None; import fuser; fuser.{call}"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.stderr.splitlines()[-1].startswith("fuser.errors.InputError: ")
    assert result.stderr.endswith("needs torch: pip install 'graph-fuser[torch]'\n")


@pytest.mark.parametrize(
    ("call", "what"),
    [
        (lambda: fuser.inspect_file("m.pt2"), "a .pt2 file"),
        (lambda: fuser.optimize_file("m.pt2", "n.pt2"), "a .pt2 file"),
        (lambda: fuser.export(0, 0, "m"), "fuser.export"),
    ],
)
def test_what_needs_torch_is_said(
    call: Callable[[], Any], what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(InputError, match=rf"{what} needs torch: pip install 'graph-fuser\[torch\]'"):
        call()


@pytest.mark.parametrize("name", ["inspect", "verify", "bench"])
def test_torch_that_is_not_installed_is_bad_input(
    name: str, program: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    status, _, complaints = command(capfd, name, *[program] * (1 if name == "inspect" else 2))
    assert status == 2
    assert complaints == "graph-fuser: a .pt2 file needs torch: pip install 'graph-fuser[torch]'\n"


# --- modules ---


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.MaxPool2d(2), nn.Identity())

    def forward(self, x: Tensor, *, scale: Tensor) -> Tensor:
        return self.layers(x) * scale


@pytest.mark.parametrize("captured", [False, True])
def test_arguments_by_name(captured: bool) -> None:
    inputs = {"x": torch.randn(2, 3, 8, 8), "scale": torch.tensor(2.0)}
    model = Scaled().eval()
    source = torch.export.export(model, (), inputs).module() if captured else model
    result = fuser.optimize(source, inputs)
    torch.testing.assert_close(result(**inputs), model(**inputs))
    assert fuser.verify(model, result, inputs=inputs)


def test_one_tensor_given_twice_is_two_arguments() -> None:
    class Difference(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return x - 2 * y

    x, y = torch.randn(2, 3), torch.randn(2, 3)
    result = fuser.optimize(Difference().eval(), (x, x))
    torch.testing.assert_close(result(x, y), x - 2 * y)


@pytest.mark.parametrize("given", [True, False])
def test_both_sides_are_counted_alike(given: bool) -> None:
    model, x = Scaled().layers.eval(), torch.randn(2, 3, 8, 8)
    _, report = fuser.optimize(model, x if given else None, return_report=True)
    _, again = fuser.optimize(torch.export.export(model, (x,)), return_report=True)
    identity = {} if given else {"identity": 1}
    assert report.before.operators == {"batch_norm": 1, "conv": 1, "max_pool2d": 1} | identity
    assert report.after.operators == again.after.operators == {"conv": 1, "max_pool2d": 1}
    assert report.before.parameters == sum(
        t.numel() for t in model.state_dict().values() if t.is_floating_point()
    )


def test_a_module_is_not_compared_with_nothing() -> None:
    x = torch.randn(2, 3, 8, 8)
    with pytest.raises(InputError, match=r"not a builtins\.NoneType$"):
        fuser.verify(Scaled().layers.eval(), None, inputs=x)


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
    from fuser.hosts.torch import files as torch_files

    staged = torch_files.staged

    def broken(result: Any, path: Path) -> AbstractContextManager[Path]:
        with torch.no_grad():
            next(iter(result.state_dict.values())).add_(1)
        return staged(result, path)

    monkeypatch.setattr(torch_files, "staged", broken)
    with pytest.raises(
        VerificationError, match=r"nothing was written: .*no suspect: it is so without fold_batch_norm too"
    ):
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
        torch.export.save(torch.export.export(nn.ReLU(), (torch.ones(2),)), tmp_path / "sound.pt2")
        status, _, complaints = command(capfd, name, *pair)
        assert status == 2
        assert "is code or a Python object, and reading it could run anything" in complaints


# --- inputs and shapes -------------------------------------------------------------------------------------


@pytest.fixture
def dynamic(tmp_path: Path) -> Path:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval()
    free = {0: torch.export.Dim("n"), 2: torch.export.Dim("h", min=4), 3: torch.export.Dim("w", min=4)}
    path = tmp_path / "dynamic.pt2"
    torch.export.save(torch.export.export(model, (torch.randn(2, 3, 8, 9),), dynamic_shapes=(free,)), path)
    return path


def test_shapes_are_those_that_a_program_is_fed(dynamic: Path, tmp_path: Path) -> None:
    shapes = {"input": (5, 3, 10, 12)}
    report = fuser.optimize_file(dynamic, tmp_path / "out.pt2", shapes=shapes, bench=True)
    assert report.verification is not None
    assert report.benchmark is not None
    assert all(sample == shapes for sample in report.verification.samples)
    assert report.benchmark.inputs == shapes
    with pytest.raises(InputError, match=r"cannot have shape \[5, 4, 10, 12\], the model takes"):
        fuser.verify(dynamic, dynamic, shapes={"input": (5, 4, 10, 12)})


def test_a_fixed_program_takes_its_own_shape_only(program: Path) -> None:
    assert fuser.verify(program, program, shapes={"input": (1, 3, 8, 8)}).ok
    with pytest.raises(InputError, match=r"cannot have shape \[2, 3, 8, 8\], the model takes \[1, 3, 8, 8\]"):
        fuser.verify(program, program, shapes={"input": (2, 3, 8, 8)})


def test_inputs_have_the_shapes_that_are_stated(dynamic: Path, tmp_path: Path) -> None:
    given = tmp_path / "x.npy"
    np.save(given, np.zeros((5, 3, 10, 12), np.float32))
    assert fuser.verify(dynamic, dynamic, inputs=given, shapes={"input": (5, 3, 10, 12)}).ok
    with pytest.raises(InputError, match=r"given in shape \[5, 3, 10, 12\], but .* to be \[2, 3, 10, 12\]"):
        fuser.verify(dynamic, dynamic, inputs=given, shapes={"input": (2, 3, 10, 12)})


def test_arguments_have_their_shapes(program: Path) -> None:
    module = torch.export.load(program).module()
    with pytest.raises(InputError, match="the inputs have shapes already"):
        fuser.verify(module, module, inputs=torch.randn(1, 3, 8, 8), shapes={"input": (1, 3, 8, 8)})


def test_an_inspection_of_a_program_does_not_depend_on_shapes(program: Path) -> None:
    with pytest.raises(InputError, match=r"the report on a \.pt2 file does not state"):
        fuser.inspect_file(program, shapes={"input": (1, 3, 8, 8)})


def test_a_program_gets_no_certificate(program: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no ONNX file, and only those have a certificate"):
        fuser.optimize_file(program, tmp_path / "out.pt2", certificate=tmp_path / "out.json")
    assert not (tmp_path / "out.pt2").exists()

"""From a module to a proven ONNX file in one call."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

import onnx  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.export import Dim  # noqa: E402

from fuser.compiler import rewrite  # noqa: E402
from fuser.converter import export  # noqa: E402
from fuser.errors import InputError, VerificationError  # noqa: E402
from fuser.hosts.onnx.judge.runtime import opened  # noqa: E402
from fuser.hosts.torch.front import first_line  # noqa: E402
from tests.hosts.fx_models import Net, generic, repvgg  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:onnxscript")


def network() -> nn.Module:
    return generic(nn.Sequential(repvgg(), nn.Conv2d(6, 4, 1), nn.BatchNorm2d(4)))


def test_fused_exported_and_proven(tmp_path: Path) -> None:
    module, path = network(), tmp_path / "model.onnx"
    shapes = ({0: Dim("batch"), 2: Dim("height"), 3: Dim("width")},)
    report = export(module, torch.randn(2, 6, 9, 8), path, dynamic_shapes=shapes)
    assert report.after.operators == {"Conv": 2, "Relu": 1}
    assert report.verification is not None
    assert report.verification.ok
    assert all(row.own_error is not None for row in report.verification.rows)
    (dims,) = (value.type.tensor_type.shape.dim for value in onnx.load(path).graph.input)
    assert [dim.dim_param for dim in dims] == ["batch", "", "height", "width"]
    fed = [sample["input"] for sample in report.verification.samples]
    assert fed[0] == (2, 6, 9, 8)
    assert len(set(fed)) == 3
    x = torch.randn(3, 6, 11, 12)
    with opened(path, "the file", optimise=False) as session, torch.no_grad():
        (found,) = session.run({session.inputs[0].name: x.numpy()}).values()
        np.testing.assert_allclose(found, module(x).numpy(), rtol=1e-4, atol=1e-5)


def test_what_cannot_be_proved_is_written_and_said(tmp_path: Path) -> None:
    drawn = generic(Net(lambda m, x: m.norm(m.conv(x)) + torch.rand_like(x), conv=nn.Conv2d(6, 6, 1),
                        norm=nn.BatchNorm2d(6)))  # fmt: skip
    report = export(drawn, torch.randn(2, 6, 9, 8), tmp_path / "m.onnx")
    assert report.verification is not None
    assert report.verification.verdict == "unproven"
    assert "the original gives different outputs each time" in report.verification.reason
    assert report.after.operators["Conv"] == 1
    onnx.checker.check_model(tmp_path / "m.onnx")


def test_arguments_by_name_and_integers(tmp_path: Path) -> None:
    class Embedded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.linear = nn.Embedding(10, 6), nn.Linear(6, 4)
            self.norm = nn.BatchNorm1d(4)

        def forward(self, x: Tensor, *, index: Tensor) -> dict[str, Tensor]:
            return {"out": self.norm(self.linear(x + self.table(index)))}

    index = torch.randint(10, (5,))
    report = export(generic(Embedded()), (torch.randn(5, 6),), tmp_path / "m.onnx", kwargs={"index": index})
    assert report.after.operators["Gemm"] == 1
    assert report.verification is not None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_types_that_the_runtime_lacks_are_compared_in_float64(dtype: Any, tmp_path: Path) -> None:
    module = network().to(dtype)
    report = export(module, torch.randn(2, 6, 9, 8, dtype=dtype), tmp_path / "model.onnx")
    assert report.verification is not None
    assert "so both models were evaluated in float64 only" in report.verification.notes[0]
    assert {row.dtype for row in report.verification.rows} == {str(dtype).removeprefix("torch.")}
    assert all(row.error > 0 for row in report.verification.rows)


def test_an_opset_that_torch_does_not_reach_is_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    module, x = nn.LayerNorm(6).eval(), torch.randn(2, 6)
    with pytest.raises(
        InputError, match=r"^LayerNorm cannot be written in opset 11: torch.* gives opset 1\d$"
    ):
        export(module, x, tmp_path / "model.onnx", opset_version=11)
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr().err == ""
    export(module, x, tmp_path / "model.onnx", opset_version=20)
    assert [entry.version for entry in onnx.load(tmp_path / "model.onnx").opset_import] == [20]


@pytest.mark.parametrize("free", [False, True])
def test_a_program_is_exported_as_it_is(free: bool, tmp_path: Path) -> None:
    x = torch.randn(2, 6, 9, 8)
    shapes = ({0: Dim("batch")},) if free else None
    program = torch.export.export(network(), (x,), dynamic_shapes=shapes)
    report = export(program, (x,), tmp_path / "model.onnx")
    assert report.after.operators == {"Conv": 2, "Relu": 1}
    assert report.verification
    assert len({sample["input"] for sample in report.verification.samples}) == (3 if free else 1)
    with pytest.raises(InputError, match="has dynamic shapes of its own"):
        export(program, (x,), tmp_path / "model.onnx", dynamic_shapes=({0: Dim("n")},))


def test_what_is_no_module_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"an ExportedProgram, not a builtins\.str$"):
        export("model.pt2", torch.randn(1), tmp_path / "model.onnx")


def test_a_mapping_gives_arguments_by_name(tmp_path: Path) -> None:
    report = export(network(), {"input": torch.randn(2, 6, 9, 8)}, tmp_path / "model.onnx")
    assert report.verification
    assert report.verification.samples[0] == {"input": (2, 6, 9, 8)}


def test_arguments_by_name_in_any_order(tmp_path: Path) -> None:
    class Weighted(nn.Module):
        def forward(self, x: Tensor, *, plus: Tensor, minus: Tensor) -> Tensor:
            return x + plus - 2 * minus

    x = torch.randn(2, 6)
    given = {"minus": torch.randn(2, 6), "plus": torch.randn(2, 6)}
    assert export(Weighted().eval(), (x,), tmp_path / "model.onnx", kwargs=given).verification


def test_an_extent_of_the_example_is_not_the_only_one(tmp_path: Path) -> None:
    report = export(
        network(), torch.randn(2, 6, 9, 8), tmp_path / "m.onnx", dynamic_shapes=({0: Dim("n", min=2, max=3)},)
    )
    assert report.verification
    assert {sample["input"][0] for sample in report.verification.samples} == {2, 3}


def test_an_extent_that_the_file_fixes_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written is for the extents of the example only."""
    from fuser.hosts.torch import export as torch_export

    to_onnx, x = torch_export.to_onnx, torch.randn(2, 6, 9, 8)

    def fixed(module: nn.Module, program: Any, *rest: Any) -> Any:
        del program
        return to_onnx(module, torch.export.export(module, (x,)), *rest)

    monkeypatch.setattr(torch_export, "to_onnx", fixed)
    with pytest.raises(VerificationError, match="the result does not run where the original does"):
        export(network(), x, tmp_path / "model.onnx", dynamic_shapes=({2: Dim("height", min=4)},))
    assert not list(tmp_path.iterdir())


def test_a_wrong_file_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = network()

    def wrong(*arguments: Any) -> Any:
        with torch.no_grad():
            module[1].bias.add_(1)
        try:
            return rewrite(*arguments)
        finally:
            with torch.no_grad():
                module[1].bias.sub_(1)

    monkeypatch.setattr("fuser.converter.rewrite", wrong)
    with pytest.raises(VerificationError, match="the file does not compute what Sequential computes"):
        export(module, torch.randn(2, 6, 9, 8), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_training_mode_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Sequential is in training mode.*call `\.eval\(\)` first"):
        export(network().train(), torch.randn(2, 6, 9, 8), tmp_path / "model.onnx")


def test_what_torch_suggests_is_passed_on(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Constraints violated \(h\); torch suggests h = Dim\('h', min=3\)"):
        export(
            nn.Conv2d(6, 4, 3).eval(),
            torch.randn(2, 6, 9, 8),
            tmp_path / "m.onnx",
            dynamic_shapes=({2: Dim("h")},),
        )


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("Broken.\n\nMore of it.", "Broken"),
        ("These are wrong:\n\n  - the first:\n    x.\nMore.", "These are wrong: - the first: x"),
        ("Nothing follows:\n", "Nothing follows:"),
        ("", "ValueError"),
    ],
)
def test_a_line_that_announces_another_is_not_the_whole_message(message: str, said: str) -> None:
    assert first_line(ValueError(message)) == said


def test_what_cannot_be_captured_says_why(tmp_path: Path) -> None:
    module = Net(lambda m, x: m.conv(x) if x.sum() > 0 else x, conv=nn.Conv2d(6, 6, 1)).eval()
    with pytest.raises(InputError, match=r"Net cannot be captured by torch\.export"):
        export(module, torch.randn(2, 6, 9, 8), tmp_path / "model.onnx")


def test_what_onnx_has_no_operator_for_is_told_in_one_line(tmp_path: Path) -> None:
    module = generic(Net(lambda m, x: m.linear(torch.linalg.eigvalsh(x)), linear=nn.Linear(3, 3)))
    path = tmp_path / "m.onnx"
    with pytest.raises(InputError, match=r"Net cannot be exported by torch\.onnx: ") as error:
        export(module, torch.eye(3), path)
    assert "\n" not in str(error.value)
    assert not path.exists()

"""Models of torch against one another: what passes, what fails, what is refused."""

import itertools
import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402
from torch.export import Dim, ExportedProgram  # noqa: E402

import fuser  # noqa: E402
from fuser.errors import InputError  # noqa: E402
from fuser.hosts.torch.callables import Arguments, Program, opened  # noqa: E402
from fuser.judge.compare import floor  # noqa: E402
from fuser.judge.inputs import SMALL  # noqa: E402
from fuser.report.report import to_json  # noqa: E402
from tests.hosts.fx_models import Net, generic, repvgg  # noqa: E402
from tests.small_models import convnet  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:onnxscript")

X = torch.randn(2, 6, 9, 8, generator=torch.Generator().manual_seed(0))


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return generic(nn.Sequential(repvgg(), nn.Conv2d(6, 4, 1), nn.BatchNorm2d(4)), seed)


def exported(module: nn.Module, *args: Any, **shapes: Any) -> ExportedProgram:
    return torch.export.export(module, args, **shapes)


def saved(program: ExportedProgram, path: Path) -> Path:
    torch.export.save(program, path)
    return path


def changed(module: nn.Module, amount: float) -> nn.Module:
    """The network with another weight in its last convolution."""
    with torch.no_grad():
        module[1].weight.view(-1)[0] += amount
    return module


# --- what passes ---


def test_every_kind_against_every_kind(tmp_path: Path) -> None:
    module = network()
    program = exported(module, X)
    fused = fuser.optimize(program)
    originals = [module, torch.fx.symbolic_trace(module), program, saved(program, tmp_path / "a.pt2")]
    results = [
        fused,
        saved(fused, tmp_path / "b.pt2"),
        fuser.optimize(module, (X,)),
        fuser.optimize(originals[1]),
    ]
    for original, result in itertools.chain(
        zip(originals, results, strict=True), zip(originals, reversed(results), strict=True)
    ):
        verdict = fuser.verify(original, result, inputs=X)
        assert verdict.ok, verdict.reason
        (row,) = verdict.rows
        assert (row.output, row.compared) == ("output", 2 * 4 * 9 * 8)
        assert row.own_error is not None
        assert 0 < row.judged < 1e-6
        assert verdict.notes == ()


def test_a_module_that_cannot_be_copied_is_bad_input() -> None:
    module = network()
    module.rest = (n for n in range(3))
    with pytest.raises(InputError, match=r"cannot be copied: cannot pickle 'generator' object$"):
        fuser.verify(module, module, inputs=X)


def test_a_program_says_what_it_takes(tmp_path: Path) -> None:
    program = exported(network(), X)
    verdict = fuser.verify(program, saved(program, tmp_path / "a.pt2"))
    assert verdict.samples == ({"input": (2, 6, 9, 8)},) * 3
    assert len({row.scale for row in verdict.rows}) == 3
    assert '"ok": true' in to_json(verdict.to_dict())


def test_free_extents_take_several_values_within_what_the_program_says() -> None:
    batch, half, wide = Dim("batch", max=4), Dim("half"), Dim("wide", min=70)
    program = exported(
        network(), torch.randn(3, 6, 8, 72), dynamic_shapes=({0: batch, 2: 2 * half, 3: wide},)
    )
    verdict = fuser.verify(program, fuser.optimize(program))
    assert verdict.ok, verdict.reason
    assert [sample["input"] for sample in verdict.samples] == [
        (1, 6, 64, 70),
        (2, 6, 64, 96),
        (1, 6, 74, 101),
    ]
    (spec,) = Program(program).specs
    assert spec.shape is not None
    assert str(spec.shape[2]).startswith("2*")


def test_sizes_can_be_given() -> None:
    program = exported(network(), X, dynamic_shapes=({2: Dim("height")},))
    (spec,) = Program(program).specs
    assert spec.shape is not None
    verdict = fuser.verify(program, program, sizes={str(spec.shape[2]): 21})
    assert {sample["input"] for sample in verdict.samples} == {(2, 6, 21, 8)}


def test_an_extent_in_several_inputs_is_one() -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return x + y

    free = {0: Dim("n")}
    program = exported(Two(), torch.randn(3, 2), torch.randn(3, 2), dynamic_shapes=(free, free))
    tried = [shapes for shapes, _ in Program(program).attempts(None, SMALL)]
    assert all(shapes["x"] == shapes["y"] for shapes in tried)
    assert len(tried) > 1


def test_indices_are_those_of_the_example() -> None:
    module = nn.Sequential(nn.Embedding(3, 4), nn.Linear(4, 2))
    program = exported(module, torch.tensor([[0, 2, 1, 2]]), dynamic_shapes=({1: Dim("length")},))
    verdict = fuser.verify(program, fuser.optimize(program))
    assert verdict.ok, verdict.reason
    assert len({sample["input"] for sample in verdict.samples}) == 3


def test_arguments_by_name_and_nested_ones_and_several_outputs() -> None:
    class Many(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6)

        def forward(self, x: Tensor, pair: tuple[Tensor, Tensor], *, scale: Tensor, times: int = 2) -> Any:
            y = self.norm(self.conv(x)) * scale * times
            return {"sum": y + pair[0], "rest": (y, [pair[1] * 2])}

    module = generic(Many())
    pair, scale = (torch.randn(1), torch.randn(1)), torch.randn(1)
    program = torch.export.export(module, (X, pair), {"scale": scale})
    given = {"x": X, "pair": pair, "scale": scale}
    for original, result in ((module, program), (program, module), (program, fuser.optimize(program))):
        verdict = fuser.verify(original, result, inputs=given)
        assert verdict.ok, verdict.reason
        assert list(verdict.samples[0]) == ["x", "pair_0", "pair_1", "scale"]
        names = ["output['sum']", "output['rest'][0]", "output['rest'][1][0]"]
        assert [row.output for row in verdict.rows] == names
    assert fuser.verify(program, program).ok


def test_arrays_and_files(tmp_path: Path) -> None:
    program = exported(network(), X)
    assert fuser.verify(program, program, inputs=X.numpy()).ok
    np.savez(tmp_path / "x.npz", input=X.numpy())
    verdict = fuser.verify(program, program, inputs=tmp_path / "x.npz")
    assert verdict.samples == ({"input": (2, 6, 9, 8)},)
    np.savez(tmp_path / "y.npz", y=X.numpy())
    with pytest.raises(InputError, match="no array for input 'input'; it holds"):
        fuser.verify(program, program, inputs=tmp_path / "y.npz")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("channels_last", [False, True])
def test_types_and_layouts(dtype: Any, channels_last: bool) -> None:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    module = network().to(dtype).to(memory_format=layout)
    x = X.to(dtype).to(memory_format=layout)
    verdict = fuser.verify(module, fuser.optimize(module, (x,)), inputs=x)
    assert verdict.ok, verdict.reason
    (row,) = verdict.rows
    assert row.dtype == str(dtype).removeprefix("torch.")
    assert row.own_error is not None
    assert (row.own_error > 0) == (dtype != torch.float64)
    wrong = fuser.verify(module, changed(deepcopy(module), 3), inputs=x)
    assert not wrong.ok


def test_tensors_keep_the_order_of_their_axes_in_memory() -> None:
    class Seen(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            strides.append(x.stride())
            return x + 1

    strides: list[tuple[int, ...]] = []
    for x in (X, X.to(memory_format=torch.channels_last), X.transpose(0, 3)):
        strides.clear()
        assert fuser.verify(Seen().eval(), Seen().eval(), inputs=x).ok
        assert set(strides) == {x.stride()}
        arguments = Arguments.of(Seen(), (x,), {})
        (found,), _ = arguments.filled(arguments.feeds, None)
        assert torch.equal(found, x)


def test_mixed_types_have_a_reference_in_float64() -> None:
    """What bfloat16 inside costs the original is known, and bfloat16 is what the result is judged by."""
    module = generic(Net(lambda m, x: m.conv(x.bfloat16()).float(), conv=nn.Conv2d(6, 4, 3).bfloat16()))
    for original in (module, exported(module, X)):
        verdict = fuser.verify(original, module, inputs=X)
        assert verdict.ok, verdict.reason
        (row,) = verdict.rows
        assert row.dtype == "float32"
        assert row.own_error is not None
        assert 1e-4 < row.own_error < 1e-2
        assert row.precision == "bfloat16"
        assert row.tolerance == floor("bfloat16")


def test_what_is_optimized_may_be_verified_against_the_module() -> None:
    module = generic(nn.Sequential(nn.Conv2d(6, 4, 3), nn.BatchNorm2d(4)))
    _, report = fuser.optimize(module, X, verify=True, return_report=True)
    assert report.verification is not None
    assert report.verification.ok
    assert report.applied


def test_without_a_float64_reference_the_original_itself_is_it() -> None:
    module = Net(lambda _, x: x * (x.view(torch.int32) > 0)).eval()
    verdict = fuser.verify(module, module, inputs=X)
    assert verdict.ok
    assert verdict.rows[0].own_error is None
    assert "there is no other reference: the original: torch fails in float64" in verdict.notes[0]


def test_a_module_that_cannot_be_copied() -> None:
    with pytest.warns(FutureWarning, match="weight_norm"):
        module = nn.utils.weight_norm(nn.Conv2d(6, 4, 1)).eval()
    verdict = fuser.verify(module, module, inputs=X)
    assert verdict.ok, verdict.reason
    assert verdict.rows[0].own_error is not None


def test_neither_model_is_modified() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(6, 6, 1)
            self.register_buffer("count", torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            self.count.add_(1)
            return x.mul_(2) * self.count + self.conv(x)

    module, x = generic(Counting()), X.clone()
    before = deepcopy(module.state_dict())
    assert fuser.verify(module, deepcopy(module), inputs=x).ok
    assert torch.equal(x, X)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert {value.dtype for value in module.state_dict().values()} == {torch.float32}


def test_an_output_that_is_a_buffer() -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("last", torch.zeros(2))

        def forward(self, x: Tensor) -> Tensor:
            return self.last.copy_(x)

    program = exported(nn.Sequential(nn.Tanh()), torch.randn(2))
    first = torch.export.export(Last(), (torch.randn(2),))
    verdict = fuser.verify(first, Last().eval())
    assert verdict.ok, verdict.reason
    assert len({row.scale for row in verdict.rows}) == 3
    assert not fuser.verify(first, program).ok


def test_an_onnx_file_of_a_torch_original(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    path = tmp_path / "a.onnx"
    fuser.export(network(), X, path, verify=False)
    verdict = fuser.verify(network(), path, inputs=X)
    assert verdict.ok, verdict.reason
    assert verdict.rows[0].output == "output"
    assert verdict.rows[0].own_error is not None
    other = fuser.verify(network(1), path, inputs=X)
    assert "output 'output' differs by" in other.reason
    two = Net(lambda m, x: m.net(x[0] + x[1]), net=network()).eval()
    assert "it takes 1 inputs, and the original 2" in fuser.verify(two, path, inputs=([X, X],)).reason


# --- what fails ---


@pytest.mark.parametrize("captured", [False, True])
def test_a_weight_that_is_off_by_a_thousandth_fails(captured: bool) -> None:
    original, result = network(), changed(network(), 1e-3)
    if captured:
        original, result = exported(original, X), exported(result, X)
    verdict = fuser.verify(original, result, inputs=X)
    assert not verdict.ok
    assert "output 'output' differs by" in verdict.reason


def test_a_wrong_border_fails() -> None:
    padded = generic(nn.Conv2d(6, 4, 3, padding=1, bias=False))
    reflected = nn.Conv2d(6, 4, 3, padding=1, bias=False, padding_mode="reflect").eval()
    reflected.load_state_dict(padded.state_dict())
    assert not fuser.verify(padded, reflected, inputs=X).ok


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (lambda x: (x,), r"output 'output' is missing|has outputs that the original has not: output\[0\]"),
        (lambda x: x[:, :3], r"has shape \[2, 3, 9, 8\] instead of \[2, 6, 9, 8\]"),
        (lambda x: x.half(), "is float16 instead of float32"),
        (lambda x: x.view(3), "the result does not run where the original does: the result: torch fails"),
        (lambda x: x / 0, "is NaN or infinite in one model only at 864 of 864 elements"),
    ],
)
def test_another_shape_type_or_structure_fails(result: Any, reason: str) -> None:
    verdict = fuser.verify(Net(lambda _, x: x).eval(), Net(lambda _, x: result(x)).eval(), inputs=X)
    assert not verdict.ok
    assert re.search(reason, verdict.reason), verdict.reason


def test_a_missing_output_fails() -> None:
    verdict = fuser.verify(Net(lambda _, x: (x, x)).eval(), Net(lambda _, x: (x,)).eval(), inputs=X)
    assert "output 'output[1]' is missing" in verdict.reason


def test_a_model_with_random_numbers_is_said_to_be_one() -> None:
    module = Net(lambda _, x: x + torch.rand(8)).eval()
    assert "gives different outputs each time" in fuser.verify(module, module, inputs=X).reason


# --- what is refused ---


def test_training_mode_is_refused_on_either_side() -> None:
    module = network()
    trained = exported(network().train(), X)
    for models in ((network().train(), module), (module, network().train()), (module, trained)):
        with pytest.raises(InputError, match="is in training mode"):
            fuser.verify(*models, inputs=X)


def test_a_module_needs_inputs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Sequential does not say what it takes: give inputs"):
        fuser.verify(network(), network())
    with pytest.raises(InputError, match="Sequential does not say what it takes: give inputs"):
        fuser.verify(network(), network(), inputs=tmp_path / "x.npz")


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        (3, "inputs for torch are a tensor, a tuple of arguments or a mapping, not a int"),
        ((3, None), "there is no tensor among the inputs"),
        (X[:, :5], "the original: torch fails: .*expected input.* to have 6 channels"),
    ],
)
def test_inputs_that_do_not_fit(inputs: Any, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        fuser.verify(network(), network(), inputs=inputs)


def test_onnx_is_no_original_of_torch_and_an_object_no_model() -> None:
    with pytest.raises(InputError, match="compared with an original of torch, which this one is not: give"):
        fuser.verify(convnet(), network(), inputs=X)
    with pytest.raises(InputError, match=r"missing\.pt2: no such file"):
        fuser.verify("missing.pt2", "missing.pt2")


def test_a_program_that_does_not_say_how_it_is_called_needs_inputs() -> None:
    program = exported(network(), X)
    program._example_inputs = None
    with pytest.raises(InputError, match="the program has no example inputs, which say how it is called"):
        fuser.verify(program, program)
    assert fuser.verify(program, program, inputs=X).ok


def test_what_is_no_model_of_torch_is_not_opened() -> None:
    with pytest.raises(InputError, match=r"the result is no torch module, .* or \.pt2 file, but m\.onnx$"):
        opened("m.onnx", "the result")

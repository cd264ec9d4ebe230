"""Timing of torch models: what is called, in which settings, and what is refused."""

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

from fuser.bench.benchmark import benchmark  # noqa: E402
from fuser.errors import InputError  # noqa: E402
from fuser.hosts.torch import bench as torch_bench  # noqa: E402
from fuser.hosts.torch.bench import BACKENDS, clock, inference, module_on, prepared, require_device  # noqa: E402
from tests.hosts.fx_models import generic, repvgg  # noqa: E402
from tests.small_models import convnet  # noqa: E402

X = torch.randn(2, 6, 9, 8, generator=torch.Generator().manual_seed(0))


class Slow(nn.Module):
    """So many layers, none of which can be left out."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.layers):
            x = x.tanh()
        return x


def test_a_result_that_does_less_is_faster() -> None:
    result = benchmark(Slow(100).eval(), Slow(2).eval(), inputs=X, runs=6, threads=1)
    assert result.speedup.low > 2
    assert result.original_ms.median > result.result_ms.median > 0
    assert (result.runs, result.threads, result.provider) == (6, 1, "eager")
    assert result.inputs == {"x": (2, 6, 9, 8)}
    assert result.runtime == f"torch {torch.__version__} eager, float32 on cpu"
    assert result.to_dict()["speedup"]["median"] == result.speedup.median


def test_type_and_layout_are_those_of_model_and_inputs() -> None:
    seen: list[Any] = []

    class Seen(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append((x.dtype, x.stride(), torch.is_grad_enabled(), torch.get_num_threads()))
            return x

    x = X.to(torch.bfloat16).to(memory_format=torch.channels_last)
    before = torch.get_num_threads()
    result = benchmark(Seen().eval(), Seen().eval(), inputs=x, runs=1, warmup=0, threads=before + 1)
    assert result.runtime.endswith("eager, bfloat16 channels last on cpu")
    # The first call finds the inputs.
    assert set(seen[1:]) == {(torch.bfloat16, x.stride(), False, before + 1)}
    assert torch.get_num_threads() == before
    assert torch.is_grad_enabled()


def test_programs_and_their_files_say_what_they_take(tmp_path: Path) -> None:
    free = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    program = torch.export.export(generic(nn.Conv2d(6, 1, 1)), (X,), dynamic_shapes=(free,))
    torch.export.save(program, tmp_path / "a.pt2")
    result = benchmark(program, tmp_path / "a.pt2", runs=1, warmup=0)
    assert result.inputs["input"][1:] == (6, 224, 224)
    moved = benchmark(program, program, runs=1, warmup=0, device="cpu", inputs=X)
    assert moved.inputs == {"input": (2, 6, 9, 8)}


@pytest.mark.parametrize("backend", BACKENDS[1:])
def test_inductor_is_asked_for_what_the_backend_says(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a compiler: what torch.compile is given, and its settings when the model is first called."""
    from torch._inductor import config

    seen: list[Any] = []

    def compiled(module: nn.Module, **options: Any) -> Any:
        def run(*args: Any) -> Any:
            seen.append((config.freezing, options["options"]["freezing"], options["dynamic"]))
            return module(*args)

        return run

    monkeypatch.setattr(torch, "compile", compiled)
    call = prepared(generic(repvgg()), ((X,), {}), backend, "the module")
    freezes = backend == "inductor-freezing"
    assert seen == [(freezes, freezes, False)]
    assert isinstance(call(), Tensor)
    assert seen[1][0] is False


def test_a_captured_graph_is_moved_with_what_it_creates() -> None:
    class Creating(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(6, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x) + torch.ones(8, device="cpu") + torch.arange(8).to("cpu")

    program = torch.export.export(generic(Creating()), (X,))
    moved = module_on(program, "meta")
    assert moved(X.to("meta")).device.type == "meta"
    assert {tensor.device.type for tensor in program.state_dict.values()} == {"cpu"}
    with pytest.warns(FutureWarning, match="weight_norm"):
        computed = nn.utils.weight_norm(nn.Conv2d(6, 4, 1)).eval()
    assert module_on(computed, "meta")(X.to("meta")).device.type == "meta"
    assert {tensor.device.type for tensor in computed.parameters()} == {"cpu"}


def test_the_clock_of_the_processor_counts_seconds() -> None:
    assert 0 < clock(torch.device("cpu"))(X.tanh) < 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_the_clock_of_a_gpu_counts_what_it_computes() -> None:
    x = torch.randn(2000, 2000, device="cuda")
    taken = clock(x.device)
    taken(lambda: x @ x)
    assert taken(lambda: [x @ x for _ in range(50)]) > 5 * taken(lambda: x @ x) > 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_a_model_is_moved_to_the_gpu() -> None:
    module = generic(repvgg())
    result = benchmark(module, module, inputs=X, device="cuda", runs=2)
    assert result.runtime.endswith(f"on {torch.cuda.get_device_name()}")
    assert next(module.parameters()).device.type == "cpu"


def test_a_gpu_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=r"there is no GPU to run on: torch .* finds no CUDA device here"):
        benchmark(generic(repvgg()), generic(repvgg()), inputs=X, device="cuda")
    with pytest.raises(InputError, match="no device 'abacus': timings are taken on cpu or cuda"):
        require_device("abacus")


def test_a_model_that_lies_on_another_device_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_bench, "device_of", lambda _: torch.device("meta"))
    with pytest.raises(InputError, match="no device 'meta': timings are taken on cpu or cuda"):
        benchmark(generic(repvgg()), generic(repvgg()), inputs=X)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "abacus"}, "no backend 'abacus': there are eager, inductor, inductor-freezing"),
        ({"threads": 0}, "threads must be at least 1, not 0"),
        ({"inputs": None}, "Net does not say what it takes: give inputs"),
        ({"inputs": X[:, :5]}, "the original: torch fails"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        benchmark(generic(repvgg()), generic(repvgg()), **{"inputs": X} | options)


def test_a_result_that_does_not_run_or_is_of_another_host_is_refused() -> None:
    with pytest.raises(InputError, match=r"the result: torch fails in eager: .*to have 5 channels"):
        benchmark(generic(repvgg()), generic(nn.Conv2d(5, 5, 1)), inputs=X)
    with pytest.raises(InputError, match=r"the result is no torch module, ExportedProgram or \.pt2 file"):
        benchmark(generic(repvgg()), convnet(), inputs=X)
    with pytest.raises(InputError, match="a backend and a device are for torch models"):
        benchmark(convnet(), convnet(), backend="eager")


def test_threads_come_back_after_an_error() -> None:
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError), inference(before + 1):
        raise ZeroDivisionError
    assert torch.get_num_threads() == before
    assert torch_bench.DEVICES[0] == "cpu"

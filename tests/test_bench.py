"""Timing: order and pairing with calls that are not models, and one real run."""

import gc
import time
from pathlib import Path

import numpy as np
import onnx
import pytest

from fuser.bench.benchmark import Quartiles, benchmark, interleave, processors
from fuser.errors import InputError
from tests.small_models import convnet, normal, parsed


def test_the_two_alternate_and_so_does_the_first() -> None:
    calls: list[str] = []
    pairs = interleave(lambda: calls.append("a"), lambda: calls.append("b"), runs=4, warmup=1)
    assert len(pairs) == 4
    assert "".join(calls) == "ab" + "ab" + "abbaabba"


def test_each_time_belongs_to_its_own_model() -> None:
    pairs = interleave(lambda: time.sleep(0.01), lambda: None, runs=5, warmup=0)
    assert all(a > 0.009 > b for a, b in pairs)


def test_the_number_of_runs_follows_the_time_that_one_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fuser.bench.benchmark.SECONDS", 0.2)
    assert 10 <= len(interleave(lambda: time.sleep(0.01), lambda: None, runs=None, warmup=0)) <= 20
    assert len(interleave(lambda: None, lambda: None, runs=None, warmup=0)) == 200


def test_the_collector_is_off_while_timing_and_on_again_after() -> None:
    states: list[bool] = []

    def fail() -> None:
        states.append(gc.isenabled())
        raise RuntimeError

    with pytest.raises(RuntimeError):
        interleave(fail, fail, runs=1, warmup=0)
    assert states == [False]
    assert gc.isenabled()


def test_quartiles() -> None:
    assert Quartiles.of([4.0, 1.0, 2.0, 3.0, 5.0]) == Quartiles(2.0, 3.0, 4.0)
    assert Quartiles.of([2.5]) == Quartiles(2.5, 2.5, 2.5)


def test_a_model_against_itself() -> None:
    model = convnet()
    result = benchmark(model, model, runs=6, warmup=1, threads=1, sizes={"H": 16, "W": 16})
    assert (result.runs, result.warmup, result.threads) == (6, 1, 1)
    assert result.inputs == {"x": (1, 3, 16, 16)}
    assert result.original_ms.low <= result.original_ms.median <= result.original_ms.high
    assert result.original_ms.median > 0
    assert result.provider == "CPUExecutionProvider"
    assert result.runtime.startswith("onnxruntime ")
    found = result.to_dict()
    assert found["speedup"]["median"] == result.speedup.median
    assert found["result_ms"].keys() == {"low", "median", "high"}


def test_a_result_that_does_less_is_faster() -> None:
    image = "1,3,64,64"
    body = "".join(f"t{i + 1} = Tanh (t{i}) " for i in range(60))
    slow = parsed(f"g (float[{image}] t0) => (float[{image}] t60) {{ {body} }}")
    fast = parsed(f"g (float[{image}] t0) => (float[{image}] t60) {{ t60 = Tanh (t0) }}")
    result = benchmark(slow, fast, runs=10, threads=1)
    assert result.speedup.low > 2
    assert result.original_ms.median > result.result_ms.median


def test_without_a_number_all_processors_are_used() -> None:
    model = convnet(image="1,3,8,8")
    assert benchmark(model, model, runs=1, warmup=0).threads == processors() >= 1


def test_the_nominal_size_comes_first_and_what_fits_after_it() -> None:
    model = convnet()
    assert benchmark(model, model, runs=1, warmup=0).inputs == {"x": (1, 3, 224, 224)}
    text = "g (float[N,1,H,W] x) => (float[N,2] y) { f = Flatten (x) y = MatMul (f, w) }"
    picky = parsed(text, w=normal(32 * 32, 2))
    assert benchmark(picky, picky, runs=1, warmup=0).inputs == {"x": (1, 1, 32, 32)}


def test_files_and_given_inputs(tmp_path: Path) -> None:
    onnx.save(convnet(), tmp_path / "a.onnx")
    np.save(tmp_path / "x.npy", normal(2, 3, 10, 12))
    file = tmp_path / "a.onnx"
    assert benchmark(file, file, runs=1, inputs=tmp_path / "x.npy").inputs == {"x": (2, 3, 10, 12)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threads": 0}, "threads must be at least 1, not 0"),
        ({"runs": 0}, "runs must be at least 1, not 0"),
        ({"provider": "Abacus"}, "no provider 'Abacus': this onnxruntime has"),
        ({"inputs": {}}, "no array for input 'x'"),
    ],
)
def test_bad_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        benchmark(convnet(), convnet(), **options)  # type: ignore[arg-type]  # one wrong at a time


def test_a_result_with_other_inputs_is_refused() -> None:
    other = parsed("g (float[2] z) => (float[2] y) { y = Neg (z) }")
    with pytest.raises(InputError, match="the result: onnxruntime fails"):
        benchmark(convnet(), other, sizes={"H": 16, "W": 16})

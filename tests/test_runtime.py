"""Sessions from files and from memory, and what is said when onnxruntime refuses."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import pytest

from fuser.errors import InputError
from fuser.hosts.onnx.judge.oracle import Float64
from fuser.hosts.onnx.judge.runtime import explain, opened
from fuser.judge.inputs import Feeds, Spec
from fuser.judge.runner import CannotRun, Runner, accepted
from fuser.verifier import verify
from tests.small_models import convnet, normal, parsed


def test_a_session_says_what_it_takes_and_gives() -> None:
    with opened(convnet(), "model", optimise=False) as session:
        assert session.inputs == [Spec("x", "float32", ("N", 3, "H", "W"))]
        assert session.outputs == {"y": "float32"}
        assert session.run({"x": normal(1, 3, 8, 8).astype(np.float32)})["y"].shape == (1, 5, 4, 4)


def test_an_output_that_is_listed_twice_is_two() -> None:
    text = "g (float[N,6] x) => (float[N,6] y, float[N,6] z, float[N,6] y) { y = Neg (x) z = Abs (x) }"
    x = normal(2, 6).astype(np.float32)
    with opened(parsed(text), "model", optimise=False) as session:
        runners: list[Runner] = [session, Float64(parsed(text), "model")]
        for runner in runners:
            found = runner.run({"x": x})
            assert [*runner.outputs] == [*found] == ["y", "z", "y[again 1]"]
            assert np.array_equal(found["y[again 1]"], -x)
            assert np.array_equal(found["z"], abs(x))
    once = parsed("g (float[N,6] x) => (float[N,6] y, float[N,6] z) { y = Neg (x) z = Abs (x) }")
    assert verify(parsed(text), parsed(text)).verdict == "equal"
    assert verify(parsed(text), once).verdict == "differs"
    assert verify(once, parsed(text)).verdict == "differs"


def test_models_too_large_for_one_message_go_through_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = convnet(), {"x": normal(1, 3, 8, 8).astype(np.float32)}
    with opened(model, "model", optimise=False) as session:
        expected = session.run(x)["y"]
    before = model.SerializeToString()
    monkeypatch.setattr("fuser.hosts.onnx.judge.runtime.LARGEST_MESSAGE", 0)
    for form in (model, onnx_ir.from_proto(model)):
        with opened(form, "model", optimise=False) as session:
            assert np.array_equal(session.run(x)["y"], expected)
    assert model.SerializeToString() == before


def test_errors_name_the_file_or_the_model(tmp_path: Path) -> None:
    model = parsed("g (float[1,6] x) => (float[1,6] y) { y = Neg (nobody) }")
    onnx.save(model, tmp_path / "bad.onnx")
    with pytest.raises(CannotRun, match=r"bad\.onnx: onnxruntime cannot load it: .*nobody"):
        opened(tmp_path / "bad.onnx", "other", optimise=False).__enter__()
    with pytest.raises(CannotRun, match=r"^this one: onnxruntime cannot load it: [^\n]*nobody[^\n]*$"):
        opened(model, "this one", optimise=False).__enter__()


def test_a_path_without_a_file_is_bad_input(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "none.onnx", "no such file"), (tmp_path, "not a file")):
        with pytest.raises(InputError, match=rf"^{path}: {reason}$"):
            opened(path, "other", optimise=False).__enter__()


def test_nothing_is_printed_when_a_run_fails(capfd: pytest.CaptureFixture[str]) -> None:
    text = "g (float[N,M] x) => (float[N,2] y) { y = MatMul (x, w) }"
    with (
        opened(parsed(text, w=normal(7, 2)), "model", optimise=False) as session,
        pytest.raises(CannotRun, match=r"^model: onnxruntime fails: MatMul node"),
    ):
        session.run({"x": np.zeros((2, 3), np.float32)})
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        ("[ONNXRuntimeError] : 1 : FAIL : Load model from a b.onnx failed:No graph.\nmore", "No graph"),
        (
            "[ONNXRuntimeError] : 1 : FAIL : Node (n) Op (MatMul) [ShapeInferenceError] Bad",
            "Node (n) Op (MatMul) ",
        ),
        (
            "Non-zero status code returned while running Add node. Name:'a' Status Message: /x/y.cc:9 f()",
            "Add node 'a'",
        ),
        ("", "ValueError"),
    ],
)
def test_messages_become_the_end_of_a_sentence(message: str, sentence: str) -> None:
    found = explain(ValueError(message))
    assert found.startswith(sentence)
    assert "ONNXRuntimeError" not in found
    assert "\n" not in found


def test_an_unknown_provider_is_refused() -> None:
    with (
        pytest.raises(InputError, match="no provider 'Abacus'"),
        opened(convnet(), "m", optimise=False, provider="Abacus"),
    ):
        pass


class Picky:
    """Takes only what `test` says."""

    def __init__(self, *taken: tuple[int, ...], dtype: str = "float32") -> None:
        self.inputs = [Spec("x", dtype, (None, None))]
        self.outputs = {"y": dtype}
        self.taken = taken

    def run(self, feeds: Mapping[str, np.ndarray]) -> Feeds:
        if feeds["x"].shape not in self.taken or (feeds["x"].dtype.kind == "i" and feeds["x"].max() > 4):
            raise CannotRun(f"not {feeds['x'].shape}")
        return {"y": feeds["x"]}


def shapes(runner: Picky, tried: list[tuple[int, int]], samples: int = 3) -> list[tuple[int, ...]]:
    attempts = [({"x": shape}, shape[0] > 5) for shape in tried]
    return [feeds["x"].shape for feeds, _ in accepted(runner, attempts, samples=samples)]


def test_what_is_refused_is_passed_over_and_large_ones_are_left_out() -> None:
    runner = Picky((1, 2), (3, 2), (6, 2))
    assert shapes(runner, [(1, 2), (2, 2), (3, 2), (6, 2)]) == [(1, 2), (3, 2)]
    assert shapes(runner, [(2, 2), (6, 2), (6, 2)]) == [(6, 2), (6, 2)]
    assert shapes(runner, [(1, 2), (3, 2)], samples=1) == [(1, 2)]


def test_the_second_sample_of_one_shape_has_other_values() -> None:
    first, second = (feeds["x"] for feeds, _ in accepted(Picky((2, 2)), [({"x": (2, 2)}, False)], samples=3))
    assert not np.array_equal(first, second)


def test_lower_integers_are_tried_where_higher_ones_are_refused() -> None:
    (first, second) = accepted(Picky((9, 9), dtype="int64"), [({"x": (9, 9)}, False)], samples=2)
    assert first[0]["x"].max() == second[0]["x"].max() == 1


def test_the_first_refusal_is_reported() -> None:
    with pytest.raises(CannotRun, match=r"not \(1, 2\)"):
        shapes(Picky(), [(1, 2), (2, 2)])


def test_what_no_memory_holds_is_not_made_up() -> None:
    with pytest.raises(CannotRun, match=r"'x' of shape \[1099511627776, 2\] is too large to be made up"):
        shapes(Picky(), [(2**40, 2)])

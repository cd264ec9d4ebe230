"""The float64 evaluation of whole files against onnxruntime: bodies, functions, sequences, odd weights."""

import weakref
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import TensorProto, helper, numpy_helper

from fuser.errors import OracleUnavailable
from fuser.hosts.onnx.judge.oracle import Float64, Oracle
from fuser.hosts.onnx.judge.runtime import opened
from fuser.judge.runner import CannotRun
from tests.small_models import convnet, normal, parsed

# A graph each, with the inputs that it is fed.
X = normal(3, 4).astype(np.float32)
GRAPHS: dict[str, tuple[str, dict[str, Any]]] = {
    "if": (
        """g (float[3,4] x, bool flag) => (float[3,4] y) {
            k = Neg (x)
            y = If (flag) <then_branch = t () => (float[3,4] u) { u = Mul (x, k) },
                else_branch = e () => (float[3,4] v) { w = Abs (k) v = Sqrt (w) }>
        }""",
        {"x": X, "flag": np.array(False)},
    ),
    "loop": (
        """g (float[3,4] x, int64 n, bool go) => (float[3,4] y, float[k,3,4] z) {
            y, z = Loop (n, go, x) <body =
                b (int64 i, bool c, float[3,4] s) => (bool d, float[3,4] t, float[3,4] o) {
                h = Cast <to = 1> (i) p = Add (s, h) t = Mul (p, x) o = Neg (t)
                m = Constant <value = int64 {2}> () d = Less (i, m)
            }>
        }""",
        {"x": X, "n": np.array(9), "go": np.array(True)},
    ),
    "scan": (
        """g (float[3,4] x, float[3] s) => (float[3] y, float[a,b] z) {
            y, z = Scan <num_scan_inputs = 1, scan_input_axes = [1], scan_input_directions = [1],
                scan_output_axes = [1], body = b (float[3] i, float[3] e) => (float[3] o, float[3] p) {
                    o = Add (i, e) p = Mul (o, e)
                }> (s, x)
        }""",
        {"x": X, "s": X[:, 0]},
    ),
    "sequence": (
        """g (float[3,4] x) => (float[a,b] y, int64 n, float[c,d] z) {
            one = Constant <value = int64 {1}> () two = Constant <value = int64[2] {1,3}> ()
            s = SplitToSequence <axis = 1> (x, two) t = SequenceInsert (s, x, one)
            e = SequenceErase (t, one) y = ConcatFromSequence <axis = 1> (e)
            n = SequenceLength (t) z = SequenceAt (t, one)
        }""",
        {"x": X},
    ),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_as_the_runtime(name: str) -> None:
    text, feeds = GRAPHS[name]
    model = parsed(text)
    with opened(model, "model", optimise=False) as session:
        expected = session.run(feeds)
    found = Float64(model, "model").run(feeds)
    assert list(found) == list(expected)
    for key, array in expected.items():
        assert found[key].shape == array.shape
        assert found[key].dtype == (np.float64 if array.dtype.kind == "f" else array.dtype)
        np.testing.assert_allclose(found[key], array, rtol=1e-5)


def test_attributes_of_a_call_reach_the_nodes_of_the_function() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 9, opset_import: ["": 17, "own": 1]>
        g (float[3,4] x) => (float[3,4] y) { h = own.leak <slope = 0.5> (x) y = own.leak (h) }
        <domain: "own", opset_import: ["": 17]> leak <slope: float = 0.25> (a) => (b) {
            c = Neg (a) d = LeakyRelu <alpha: float = @slope> (c) b = Neg (d)
        }"""
    )
    found = Float64(model, "model").run({"x": X})["y"]
    once = np.where(X > 0, X * 0.5, X)
    np.testing.assert_allclose(found, np.where(once > 0, once * 0.25, once), rtol=1e-6)


def test_what_cannot_be_computed_leaves_the_rest() -> None:
    model = parsed("g (float[3,4] x) => (float[3,4] y, float[3,4] z) { r = RandomNormalLike (x) "
                   "y = Add (x, r) z = Neg (x) }")  # fmt: skip
    oracle = Oracle(model, Path())
    assert list(oracle.evaluate({"x": X})) == ["z"]
    assert set(oracle.refused) == {"r", "y"}
    alone = parsed("g (float[3,4] x) => (float[3,4] y) { y = RandomNormalLike (x) }")
    with pytest.raises(CannotRun, match=r"\(RandomNormalLike\) cannot be evaluated in float64"):
        Float64(alone, "model").run({"x": X})


def test_a_known_value_stands_in_for_the_computed_one() -> None:
    oracle = Oracle(parsed("g (float[2] x) => (float[2] y) { h = Add (x, x) y = Add (h, h) }"), Path())
    found = dict(oracle.trace({"x": np.ones(2)}, {"h": np.full(2, 10.0)}))
    assert found["h"].tolist() == [2, 2]
    assert found["y"].tolist() == [20, 20]


def test_weights_beside_the_file_are_read_and_not_kept(tmp_path: Path) -> None:
    file = tmp_path / "a.onnx"
    onnx.save(convnet(), file, save_as_external_data=True, location="a.data", size_threshold=0)
    runner = Float64(file, "model")
    x = normal(1, 3, 8, 8).astype(np.float32)
    np.testing.assert_allclose(runner.run({"x": x})["y"], Float64(convnet(), "model").run({"x": x})["y"])
    assert all(not tensor.raw_data for tensor in runner.oracle.model.graph.initializer)


@pytest.mark.parametrize("flat", [True, False])
def test_sparse_weights(flat: bool) -> None:
    values = numpy_helper.from_array(np.array([2.0, 3.0], np.float32), "w")
    places = np.array([1, 7]) if flat else np.array([[0, 1], [1, 3]])
    text = "g (float[3,4] x) => (float[3,4] y) { s = ReduceSum <keepdims = 0> (w, axis) y = Mul (x, s) }"
    model = parsed(text, axis=np.array([0]))
    indices = numpy_helper.from_array(places, "i")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [2, 4]))
    expected = X * np.array([0, 2, 0, 3])
    np.testing.assert_allclose(Float64(model, "model").run({"x": X})["y"], expected)


def test_a_loop_without_end_is_not_waited_for() -> None:
    text = """g (float x) => (float y) {
        t = Constant <value = bool {1}> () n = Constant <value = int64 {99999999999}> ()
        y = Loop (n, t, x) <body =
            b (int64 i, bool c, float s) => (bool d, float r) { d = Identity (c) r = Neg (s) }>
    }"""
    oracle = Oracle(parsed(text), Path(), steps_left=50)
    for _ in range(2):
        assert oracle.evaluate({"x": np.array(1.0)}) == {}
        assert "more steps than are waited for" in oracle.refused["y"]
    assert oracle.steps_left < 0


def test_casts_between_floating_types_change_nothing() -> None:
    text = "g (float[2] x) => (float[2] y) { h = Cast <to = 10> (x) y = Cast <to = 1> (h) }"
    x = np.array([1.0000001, 3.3333333])
    assert np.array_equal(Float64(parsed(text), "model").run({"x": x})["y"], x)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("g (float[2] x) => (float[2] x, float[2] y) { y = Neg (x) }", {"x": [1, -2], "y": [-1, 2]}),
        ("g (float[2] x) => (float[1] y) { y = Constant <value = float[1] {2}> () }", {"y": [2]}),
        (
            """g (float[2] x) => (int64[1] s, float[1] y) {
                k = Constant <value = int64[1] {1}> () s = Shape (x) y = Gather (x, k)
            }""",
            {"s": [2], "y": [-2]},
        ),
    ],
)
def test_an_output_may_be_an_input_a_constant_or_whole_numbers(text: str, expected: dict[str, Any]) -> None:
    found = Oracle(parsed(text), Path()).evaluate({"x": np.array([1.0, -2.0])})
    assert {name: array.tolist() for name, array in found.items()} == expected


def test_values_are_dropped_when_nobody_reads_them_any_more() -> None:
    text = "g (float[4] x) => (float[4] y) { a = Neg (x) b = Exp (a) c = Neg (b) y = Exp (c) }"
    alive: list[weakref.ref[Any]] = []
    for _, array in Oracle(parsed(text), Path()).trace({"x": normal(4)}):
        alive.append(weakref.ref(array))
        del array
    assert len(alive) == 4
    assert sum(ref() is not None for ref in alive) <= 1


def test_a_missing_feed_is_named() -> None:
    oracle = Oracle(parsed("g (float[2] x) => (float[2] y) { y = Neg (x) }"), Path())
    oracle.evaluate({})
    assert oracle.refused["y"] == "there is no array for 'x'"
    with pytest.raises(OracleUnavailable, match="no array for 'x'"):
        Oracle(parsed("g (float[2] x) => (float[2] x) { }"), Path()).evaluate({})


def test_numbers_in_bfloat16_are_read() -> None:
    model = parsed("g (float[2] x) => (float[2] y) { h = Cast <to = 1> (w) y = Mul (x, h) }")
    model.graph.initializer.append(helper.make_tensor("w", TensorProto.BFLOAT16, [2], [1.5, -2.0]))
    assert Float64(model, "model").run({"x": np.ones(2)})["y"].tolist() == [1.5, -2.0]


def test_a_loop_without_turns_says_nothing_of_what_it_would_stack() -> None:
    """The shape of a scanned output follows from a turn, and there is none."""
    text = """g (float[2] x) => (float[2] y, float[k,2] z) {
        n = Constant <value = int64 {0}> ()
        y, z = Loop (n, , x) <body =
            b (int64 i, bool c, float[2] s) => (bool d, float[2] r, float[2] o) {
                d = Identity (c) r = Neg (s) o = Abs (s) }>
    }"""
    oracle = Oracle(parsed(text), Path())
    assert oracle.evaluate({"x": X[0, :2]}) == {}
    assert "a Loop without turns" in oracle.refused["z"]


def test_a_scan_of_opset_8_is_batched() -> None:
    model = parsed(GRAPHS["scan"][0])
    model.opset_import[0].version = 8
    oracle = Oracle(model, Path())
    assert oracle.evaluate(GRAPHS["scan"][1]) == {}
    assert "opset 8 is batched" in oracle.refused["y"]


def test_what_a_body_cannot_compute_is_named() -> None:
    text = """g (float[2] x, bool flag) => (float[2] y) {
        y = If (flag) <then_branch = t () => (float[2] u) { r = RandomNormalLike (x) u = Abs (r) },
            else_branch = e () => (float[2] v) { v = Neg (x) }>
    }"""
    oracle = Oracle(parsed(text), Path())
    assert oracle.evaluate({"x": X[0, :2], "flag": np.array(True)}) == {}
    assert "(RandomNormalLike)" in oracle.refused["y"]
    assert list(oracle.evaluate({"x": X[0, :2], "flag": np.array(False)})) == ["y"]


def test_an_operator_that_nobody_knows_is_named_as_such() -> None:
    text = """<ir_version: 9, opset_import: ["": 17, "mine": 1]>
        g (float[2] x) => (float[2] y) { y = mine.Twist (x) }"""
    oracle = Oracle(onnx.parser.parse_model(text), Path())
    assert oracle.evaluate({"x": X[0, :2]}) == {}
    assert oracle.refused["y"].endswith("cannot be evaluated in float64: it is not known here")


@pytest.mark.parametrize(
    "text",
    [
        "g (float[2] x) => (float[2] y) { y = Neg (x) }",
        "g (float[2] x) => (float[2] x, float[2] y) { y = Neg (one) }",
    ],
)
def test_feeds_that_are_missing_make_a_run_impossible(text: str) -> None:
    with pytest.raises(CannotRun, match=r"model: .*no array for 'x'"):
        Float64(parsed(text, one=np.ones(2)), "model").run({})

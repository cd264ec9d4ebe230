"""The float64 evaluation: against direct arithmetic and against onnxruntime."""

from typing import Any

import numpy as np
import onnx
import onnx_ir
import pytest
from numpy.typing import NDArray

from fuser.conv import Conv, scale_shift
from fuser.errors import OracleUnavailable
from fuser.hosts.onnx_import import import_model
from fuser.ir import Graph, Node, Opaque, Select, Value
from fuser.runtime import opened
from tests.evaluation import evaluate, trace
from tests.graphs import Builder, relu
from tests.small_models import convnet, normal, parsed


def graph_of(model: onnx.ModelProto) -> Graph:
    return import_model(onnx_ir.from_proto(model))[0]


def only(arrays: dict[str, NDArray[Any]]) -> NDArray[Any]:
    (array,) = arrays.values()
    return array


def test_operators_of_the_algebra_are_evaluated_exactly() -> None:
    net = Builder(1, 2, 5, 5)
    kernel = np.arange(-17, 19).reshape(2, 2, 3, 3).astype(np.float64)
    conv = Conv.of(kernel, begin=(1, 1), end=(1, 1))
    net.graph.outputs = [
        net.add(scale_shift(np.array([2.0, 3.0]), np.array([1.0, -1.0]), 2), net.add(conv, net.x))
    ]
    x = np.arange(50.0).reshape(1, 2, 5, 5)
    expected = conv.evaluate(x) * np.array([2.0, 3.0]).reshape(1, 2, 1, 1) + np.array([1.0, -1.0]).reshape(
        1, 2, 1, 1
    )
    assert np.array_equal(only(evaluate(net.graph, {"x": x})), expected)


def test_an_imported_model_is_evaluated_as_the_runtime_does_but_in_float64() -> None:
    model = convnet()
    x = normal(2, 3, 9, 7).astype(np.float32)
    ours = evaluate(graph_of(model), {"x": x})["y"]
    with opened(model, "model", optimise=False) as session:
        theirs = session.run({"x": x})["y"]
    assert ours.dtype == np.float64
    assert ours.shape == theirs.shape
    assert 0 < np.abs(ours - theirs).max() < 1e-5


def test_float64_is_kept_through_casts_and_constants() -> None:
    text = """g (float[2] x) => (float[2] y) {
        h = Cast <to = 10> (x)
        s = Cast <to = 1> (h)
        t = Constant <value = float[1] {0.5}> ()
        y = Mul (s, t)
    }"""
    x = np.array([1.0000001, 3.3333333])  # not representable in float16
    assert np.array_equal(evaluate(graph_of(parsed(text)), {"x": x})["y"], 0.5 * x)


def test_integers_stay_integers() -> None:
    text = """g (float[N,3] x, int64[1] i) => (float[M,3] y, int64[2] s) {
        y = Gather <axis = 0> (x, i)
        s = Shape (x)
    }"""
    results = evaluate(graph_of(parsed(text)), {"x": normal(4, 3), "i": np.array([2])})
    assert results["s"].tolist() == [4, 3]
    assert results["s"].dtype == np.int64


def test_weights_computed_in_the_graph_are_evaluated() -> None:
    text = "g (float[1,2,4,4] x) => (float[a,b,c,d] y) { w = Mul (u, v) y = Conv (x, w) }"
    u, v = normal(3, 2, 1, 1), normal(3, 2, 1, 1, seed=1)
    x = normal(1, 2, 4, 4)
    weight = (u.astype(np.float32).astype(float) * v.astype(np.float32).astype(float))[:, :, 0, 0]
    result = evaluate(graph_of(parsed(text, u=u, v=v)), {"x": x})["y"]
    assert np.allclose(result, np.einsum("oi,nihw->nohw", weight, x), rtol=0, atol=1e-14)


def test_an_operator_may_have_several_outputs() -> None:
    net = Builder(1, 3)
    first, second = Value("a"), Value("b")
    net.graph.add(Node(Select(((0, 1), (1, 2)), channels=3, axis=1), [net.x], [first, second], position=(0,)))
    net.graph.outputs = [second, first]
    results = evaluate(net.graph, {"x": np.array([[1.0, 2.0, 3.0]])})
    assert {name: array.tolist() for name, array in results.items()} == {"a": [[1.0]], "b": [[2.0, 3.0]]}


def test_an_input_may_be_an_output() -> None:
    text = "g (float[2] x) => (float[2] x, float[2] y) { y = Neg (x) }"
    results = evaluate(graph_of(parsed(text)), {"x": np.array([1.0, -2.0])})
    assert results["x"].tolist() == [1.0, -2.0]


def test_a_constant_may_be_an_output() -> None:
    results = evaluate(
        graph_of(parsed("g () => (float[1] y) { y = Constant <value = float[1] {2}> () }")), {}
    )
    assert results["y"].tolist() == [2.0]


def test_what_no_output_needs_is_not_evaluated() -> None:
    net = Builder(1, 2)
    net.add(Opaque("Mystery"), net.x)
    net.graph.outputs = [net.add(relu, net.x)]
    assert only(evaluate(net.graph, {"x": np.array([[-1.0, 2.0]])})).tolist() == [[0.0, 2.0]]


def test_what_is_unknown_is_named() -> None:
    net = Builder(1, 2)
    net.graph.outputs = [net.add(Opaque("Mystery"), net.x)]
    with pytest.raises(OracleUnavailable, match=r"node 'n0' \(Mystery\) .* float64: Mystery is not known"):
        evaluate(net.graph, {"x": normal(1, 2)})


def test_what_fails_is_named_with_its_reason() -> None:
    def fail(_: object) -> tuple[NDArray[Any], ...]:
        raise ZeroDivisionError("no remainder\nand more")

    net = Builder(1, 2)
    net.graph.outputs = [net.add(Opaque("Mod", fail), net.x)]
    with pytest.raises(OracleUnavailable, match=r"node 'n0' \(Mod\) cannot be .*: no remainder$"):
        evaluate(net.graph, {"x": normal(1, 2)})


def test_a_missing_feed_is_named() -> None:
    net = Builder(1, 2)
    net.graph.outputs = [net.add(relu, net.x)]
    with pytest.raises(OracleUnavailable, match="there is no array for 'x'"):
        evaluate(net.graph, {})


def test_inner_values_are_kept_on_request() -> None:
    results = evaluate(graph_of(convnet()), {"x": normal(1, 3, 8, 8)}, keep=["r", "n", "nobody"])
    assert set(results) == {"r", "n", "y"}
    assert np.array_equal(results["r"], np.maximum(results["n"], 0))


def test_a_known_value_replaces_the_computed_one_for_later_nodes() -> None:
    net = Builder(1, 2)
    double = scale_shift(np.full(2, 2.0), np.zeros(2), 0)
    middle = net.add(double, net.x)
    net.graph.outputs = [net.add(double, middle)]
    known = {middle.name: np.array([[10.0, 20.0]])}
    seen = {
        value.name: array.tolist() for value, array in trace(net.graph, {"x": np.array([[1.0, 2.0]])}, known)
    }
    assert seen == {"v0": [[2.0, 4.0]], "v1": [[20.0, 40.0]]}


def test_values_are_dropped_when_nobody_reads_them_any_more() -> None:
    import weakref

    net = Builder(1, 4)
    value = net.x
    for _ in range(4):
        value = net.add(Opaque("Copy", lambda x: (x + 1,)), value)
    net.graph.outputs = [value]
    alive: list[weakref.ref[NDArray[Any]]] = []
    for _, array in trace(net.graph, {"x": normal(1, 4)}):
        alive.append(weakref.ref(array))
        del array
    assert sum(ref() is not None for ref in alive) <= 1

"""What closes an activation that is spelled out stays; any other factor is a scale."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import fuser
from fuser.report.report import Report


def activation(kind: str, factor: float) -> onnx.ModelProto:
    """x * g(x) * factor behind one convolution and before another."""
    rng = np.random.default_rng(0)
    gates: dict[str, list[Any]] = {
        "Erf": [("Div", ["c", "root"], "d"), ("Erf", ["d"], "e"), ("Add", ["e", "one"], "g")],
        "Tanh": [("Mul", ["c", "root"], "d"), ("Tanh", ["d"], "e"), ("Add", ["e", "one"], "g")],
        "Clip": [("Add", ["c", "three"], "d"), ("Clip", ["d", "low", "high"], "g")],
        "Sigmoid": [("Sigmoid", ["c"], "g")],
    }
    nodes = [helper.make_node("Conv", ["x", "w1", "b1"], ["c"])]
    nodes += [helper.make_node(op, inputs, [output]) for op, inputs, output in gates[kind]]
    nodes += [helper.make_node("Mul", ["c", "g"], ["p"]), helper.make_node("Mul", ["p", "factor"], ["s"])]
    nodes += [helper.make_node("Conv", ["s", "w2"], ["y"])]
    scalars = {"root": 2**0.5, "one": 1.0, "three": 3.0, "low": 0.0, "high": 6.0, "factor": factor}
    arrays: dict[str, Any] = {name: np.float32(value) for name, value in scalars.items()}
    for name, shape in {"w1": (6, 4, 1, 1), "b1": (6,), "w2": (5, 6, 1, 1)}.items():
        arrays[name] = rng.normal(size=shape).astype(np.float32)
    shapes: dict[str, list[int | str | None]] = {"x": ["n", 4, "h", "w"], "y": ["n", 5, "h", "w"]}
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in shapes.items()]
    weights = [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "g", infos[:1], infos[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=9)


def optimized(kind: str, factor: float) -> tuple[int, Report]:
    model = activation(kind, factor)
    result, report = fuser.optimize(model, return_report=True)
    assert fuser.verify(model, result).ok
    return sum(node.op_type == "Mul" for node in result.graph.node), report


@pytest.mark.parametrize(("kind", "factor"), [("Erf", 0.5), ("Tanh", 0.5)])
def test_what_closes_an_activation_stays(kind: str, factor: float) -> None:
    before = sum(node.op_type == "Mul" for node in activation(kind, factor).graph.node)
    left, report = optimized(kind, factor)
    assert left == before
    reason = f"the factor {factor:.6g} closes an activation by {kind}, which runtimes compute as one"
    assert reason in {event.reason for event in report.declined}


@pytest.mark.parametrize(("kind", "factor"), [("Erf", 0.7), ("Clip", 1 / 6), ("Sigmoid", 0.5)])
def test_any_other_factor_is_folded(kind: str, factor: float) -> None:
    left, _ = optimized(kind, factor)
    assert left == 1

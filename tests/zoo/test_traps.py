"""Traps that lie in the file, not in the design: forms that no exporter of the harness writes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto
from onnx.helper import make_node

import fuser
from tests.hosts.onnx_models import model_of, run
from tests.zoo.harness import error, operators

Array = NDArray[Any]
IMAGE = (2, 5, 8, 10)


def weights(**shapes: Sequence[int]) -> dict[str, Array]:
    """Generic float32 arrays by name; what is called `var...` is positive."""
    rng = np.random.default_rng(0)
    drawn = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    return {name: np.abs(a) + np.float32(0.5) if name.startswith("var") else a for name, a in drawn.items()}


def norm(name: str, channels: int) -> dict[str, Array]:
    """The parameters of a BatchNormalization as `name_scale`, `name_bias`, `name_mean`, `var_name`."""
    names = (f"{name}_scale", f"{name}_bias", f"{name}_mean", f"var_{name}")
    return weights(**dict.fromkeys(names, (channels,)))


def norm_node(name: str, source: str, target: str, **attributes: Any) -> onnx.NodeProto:
    inputs = [source, f"{name}_scale", f"{name}_bias", f"{name}_mean", f"var_{name}"]
    return make_node("BatchNormalization", inputs, [target], name=name, **attributes)


def conv(source: str, weight: str, target: str, **attributes: Any) -> onnx.NodeProto:
    return make_node("Conv", [source, weight], [target], name=f"conv_{target}", **attributes)


def check(
    nodes: Sequence[onnx.NodeProto],
    constants: dict[str, Array],
    after: dict[str, int],
    reason: str = "",
    *,
    opset: int = 17,
    shape: Sequence[int] = IMAGE,
    type_: int = TensorProto.FLOAT,
) -> None:
    """Optimise a model of input `x` and output `y`: the operators left, the reason reported, the numbers."""
    model = model_of(nodes, opset=opset, given={"x": shape}, constants=constants, type_=type_)
    result, report = fuser.optimize(model, return_report=True)
    assert operators(result) == dict(sorted(after.items()))
    reasons = [event.reason for event in report.declined]
    assert not reason or any(reason in r for r in reasons), reasons
    dtype = onnx.helper.tensor_dtype_to_np_dtype(type_)
    x = np.random.default_rng(1).standard_normal(shape).astype(dtype)
    found, wanted = run(result, {"x": x}), run(model, {"x": x})
    limit = 1e-2 if type_ == TensorProto.FLOAT16 else 1e-5
    assert error([a.astype(np.float64) for a in found], [b.astype(np.float64) for b in wanted]) <= limit


BRANCHES = weights(three=(7, 5, 3, 3), one=(7, 5, 1, 1))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER"])
def test_auto_pad(mode: str, stride: int) -> None:
    nodes = [
        conv("x", "three", "a", auto_pad=mode, strides=[stride] * 2),
        conv("x", "one", "b", auto_pad="VALID", strides=[stride] * 2),
        make_node("Add", ["a", "b"], ["y"]),
    ]
    check(nodes, BRANCHES, {"Conv": 1})


def test_pads_on_a_one_by_one() -> None:
    nodes = [
        conv("x", "three", "a", pads=[2, 2, 2, 2]),
        conv("x", "one", "b", pads=[1, 1, 1, 1]),
        make_node("Sum", ["b", "a"], ["y"]),
    ]
    check(nodes, BRANCHES, {"Conv": 1})


def test_norm_in_training_mode_stays() -> None:
    node = norm_node("n", "a", "y", training_mode=1)
    node.output.extend(["mean", "var"])
    nodes = [conv("x", "three", "a"), node]
    check(nodes, BRANCHES | norm("n", 7), {"Conv": 1, "BatchNormalization": 1}, "training")


def test_outputs_of_a_norm_that_have_no_name() -> None:
    """Before opset 14 a norm that names its further outputs trains; one that leaves them empty does not.

    onnxruntime crashes on the file, so the reference is the one without them.
    """
    bare, node = (norm_node("n", "a", "y", epsilon=0.1) for _ in range(2))
    node.output.extend([""] * 4)
    plain, model = (
        model_of([conv("x", "three", "a"), n], opset=9, given={"x": IMAGE}, constants=BRANCHES | norm("n", 7))
        for n in (bare, node)
    )
    result = fuser.optimize(model)
    assert operators(result) == {"Conv": 1}
    x = np.random.default_rng(1).standard_normal(IMAGE).astype(np.float32)
    assert error(run(result, {"x": x}), run(plain, {"x": x})) <= 1e-5


def test_parameters_in_disguise() -> None:
    """The norm's parameters behind Unsqueeze and Squeeze, then Mul, Add, with constants of many shapes."""
    constants = BRANCHES | norm("n", 7) | weights(s=(7, 1), t=(1, 7, 1, 1), u=(1,), v=())
    constants |= {"axes": np.array([1]), "last": np.array([-1])}
    nodes = [
        conv("x", "three", "a"),
        make_node("Unsqueeze", ["n_scale", "axes"], ["wide"]),
        make_node("Squeeze", ["wide", "axes"], ["narrow"]),
        make_node("BatchNormalization", ["a", "narrow", "n_bias", "n_mean", "var_n"], ["b"], epsilon=0.2),
        make_node("Unsqueeze", ["s", "last"], ["column"]),
        make_node("Mul", ["column", "b"], ["c"]),
        make_node("Add", ["t", "c"], ["d"]),
        make_node("Sub", ["u", "d"], ["e"]),
        make_node("Div", ["e", "v"], ["y"]),
    ]
    check(nodes, constants, {"Conv": 1})


def test_sum_of_any_arity_with_a_literal_zero() -> None:
    nodes = [
        conv("x", "three", "a", pads=[1, 1, 1, 1]),
        conv("x", "one", "b"),
        make_node("Neg", ["b"], ["c"]),
        make_node("Sum", ["zero", "a"], ["d"]),
        make_node("Sum", ["a", "c", "d"], ["e"]),
        make_node("Sub", ["e", "b"], ["y"]),
    ]
    check(nodes, BRANCHES | {"zero": np.zeros((), np.float32)}, {"Conv": 1})


def quantised(source: str, target: str, scale: str = "step") -> list[onnx.NodeProto]:
    return [
        make_node("QuantizeLinear", [source, scale, "zero"], [f"{source}_q"]),
        make_node("DequantizeLinear", [f"{source}_q", scale, "zero"], [target]),
    ]


STEPS: dict[str, Array] = {"step": np.array(0.05, np.float32), "zero": np.array(0, np.int8)}
QUANTISED = {"QuantizeLinear": 2, "DequantizeLinear": 2}


def test_quantised_branches_stay_apart() -> None:
    nodes = [conv("x", "three", "a", pads=[1, 1, 1, 1]), conv("x", "one", "b")]
    nodes += [*quantised("a", "c"), *quantised("b", "d"), make_node("Add", ["c", "d"], ["y"])]
    check(nodes, BRANCHES | STEPS, {"Conv": 2, **QUANTISED, "Add": 1})


@pytest.mark.parametrize("opset", [13, 21])
def test_quantised_weights_stay_quantised(opset: int) -> None:
    """The integers may be stored, but no convolution may be merged with what they stand for."""
    nodes = [*quantised("three", "three_dq"), *quantised("one", "one_dq")]
    nodes += [conv("x", "three_dq", "a", pads=[1, 1, 1, 1]), conv("x", "one_dq", "b")]
    nodes += [make_node("Add", ["a", "b"], ["y"])]
    check(nodes, BRANCHES | STEPS, {"Conv": 2, "DequantizeLinear": 2, "Add": 1}, opset=opset)


def test_a_cast_to_half_and_back_rounds() -> None:
    nodes = [
        conv("x", "one", "a"),
        make_node("Cast", ["a"], ["h"], to=TensorProto.FLOAT16),
        make_node("Cast", ["h"], ["f"], to=TensorProto.FLOAT),
        make_node("Mul", ["f", "s"], ["y"]),
    ]
    check(nodes, BRANCHES | weights(s=(7, 1, 1)), {"Conv": 1, "Cast": 2, "Mul": 1})


def test_half_precision_that_would_overflow() -> None:
    large = np.full((5, 5, 1, 1), 4e4, np.float16)
    nodes = [conv("s", "w", "a"), conv("s", "w", "b"), make_node("Add", ["a", "b"], ["y"])]
    small = make_node("Mul", ["x", "tiny"], ["s"])
    constants = {"w": large, "tiny": np.array(1e-3, np.float16)}
    # Twice 40000 is more than float16 holds; a scale of 0.001 in front could take it, which is exact as well.
    model = model_of([small, *nodes], given={"x": IMAGE}, constants=constants, type_=TensorProto.FLOAT16)
    result = fuser.optimize(model)
    for tensor in result.graph.initializer:
        assert np.isfinite(onnx.numpy_helper.to_array(tensor)).all(), tensor.name
    x = np.random.default_rng(1).standard_normal(IMAGE).astype(np.float16)
    found, wanted = (run(m, {"x": x})[0].astype(np.float64) for m in (result, model))
    assert error([found], [wanted]) <= 1e-2


def test_one_weight_in_two_convolutions() -> None:
    """Each norm folds into a copy of its own."""
    constants = BRANCHES | norm("n", 7) | norm("m", 7)
    nodes = [
        conv("x", "three", "a"),
        norm_node("n", "a", "b"),
        make_node("Relu", ["b"], ["r"]),
        conv("s", "three", "c"),
        norm_node("m", "c", "d", epsilon=0.3),
        make_node("Mul", ["r", "d"], ["y"]),
    ]
    first = make_node("Sigmoid", ["x"], ["s"])
    check([first, *nodes], constants, {"Sigmoid": 1, "Conv": 2, "Relu": 1, "Mul": 1})


def test_a_weight_that_callers_may_override() -> None:
    nodes = [conv("x", "three", "a"), norm_node("n", "a", "y")]
    model = model_of(nodes, given={"x": IMAGE, "three": (7, 5, 3, 3)}, constants=BRANCHES | norm("n", 7))
    result = fuser.optimize(model)
    assert operators(result) == {"BatchNormalization": 1, "Conv": 1}
    feeds = {"x": np.ones(IMAGE, np.float32), "three": np.ones((7, 5, 3, 3), np.float32)}
    assert error(run(result, feeds), run(model, feeds)) <= 1e-6


def test_a_constant_along_the_width_is_not_per_channel() -> None:
    nodes = [conv("x", "one", "a"), make_node("Mul", ["a", "row"], ["y"])]
    check(nodes, BRANCHES | weights(row=(7,)), {"Conv": 1, "Mul": 1}, shape=(2, 5, 6, 7))

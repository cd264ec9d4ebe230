"""What a node computes in numpy, against onnxruntime with nothing optimised."""

import math
from typing import Any

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from fuser.errors import Declined
from fuser.hosts.onnx.importer import import_model
from fuser.hosts.onnx.standard.kernel import Kernel
from fuser.hosts.onnx.standard.kernels import KERNELS
from fuser.hosts.onnx.standard.reference import Reference
from fuser.ir.ops import Opaque
from tests.hosts.onnx_models import Array, imported, integers, only, run, single

X, Y = integers(0, 2, 3, 6, 5) / np.float32(2), integers(1, 2, 3, 6, 5) / np.float32(2)
I = np.int64  # noqa: E741  # the type of every list of axes

# Operator, inputs, opset, attributes.
CASES: list[tuple[str, list[Any], int, dict[str, Any]]] = [
    *[(kind, [X], 17, {}) for kind in ("Abs", "Elu", "Exp", "HardSigmoid", "HardSwish")],
    *[(kind, [X], 17, {}) for kind in ("Identity", "LeakyRelu", "Neg", "Relu")],
    *[(kind, [X], 17, {}) for kind in ["Sigmoid", "Softmax", "Tanh", "Flatten", "Transpose", "Shape"]],
    *[(kind, [X], 17, {}) for kind in ("GlobalAveragePool", "GlobalMaxPool")],
    *[(kind, [np.abs(X) + 1], 17, {}) for kind in ("Log", "Reciprocal", "Sqrt")],
    *[(kind, [X, Y], 17, {}) for kind in ("Add", "Equal", "Greater", "Less", "Max")],
    *[(kind, [X, Y], 17, {}) for kind in ("Mean", "Min", "Mul", "Sub", "Sum")],
    *[(kind, [X, Y[:1, :, :1]], 17, {}) for kind in ("Add", "Max", "Mul", "PRelu")],
    *[(kind, [X > 0, Y > 0], 17, {}) for kind in ("And", "Or")],
    *[(kind, [X], 17, {"axes": [1, -1]}) for kind in ("ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd")],
    *[(kind, [X, np.array([1], I)], 18, {"keepdims": 0}) for kind in ("ReduceMax", "ReduceMean")],
    *[(kind, [X, np.array([1], I)], 18, {"keepdims": 0}) for kind in ("ReduceMin",)],
    ("ReduceSum", [X, np.array([1], I)], 13, {"keepdims": 0}),
    ("ReduceSum", [X], 13, {}),
    ("ReduceSum", [X, np.zeros(0, I)], 13, {"noop_with_empty_axes": 1}),
    ("Not", [X > 0], 17, {}),
    ("Where", [X > 0, X, Y], 17, {}),
    ("Mean", [X, Y, X], 17, {}),
    ("Div", [X, np.abs(Y) + 1], 17, {}),
    ("Div", [np.array([-7, 7, 7, -7], I), np.array([2, -2, 2, -2], I)], 17, {}),
    ("Pow", [np.abs(X) + 1, np.array(1.5, np.float32)], 17, {}),
    ("Pow", [np.array([2, 3], I), np.array(2, np.float32)], 17, {}),
    ("LeakyRelu", [X], 17, {"alpha": 0.3}),
    ("Elu", [X], 17, {"alpha": 0.3}),
    ("HardSigmoid", [X], 17, {"alpha": 0.3, "beta": 0.25}),
    ("Clip", [X, np.array(-1, np.float32), np.array(1, np.float32)], 13, {}),
    ("Clip", [X, None, np.array(1, np.float32)], 13, {}),
    ("Clip", [X], 7, {"min": -1.0, "max": 1.0}),
    ("Softmax", [X], 13, {"axis": 1}),
    ("Softmax", [X], 7, {"axis": 2}),
    ("Cast", [X], 17, {"to": TensorProto.INT64}),
    ("Cast", [X], 17, {"to": TensorProto.DOUBLE}),
    ("Cast", [X], 17, {"to": TensorProto.BOOL}),
    ("Cast", [X], 17, {"to": TensorProto.FLOAT16}),
    ("Shape", [X], 17, {"start": 1, "end": -1}),
    ("Constant", [], 17, {"value": numpy_helper.from_array(X)}),
    ("Constant", [], 17, {"value_floats": [1.0, 2.5]}),
    ("Constant", [], 17, {"value_int": 3}),
    ("ConstantOfShape", [np.array([2, 3], I)], 17, {"value": numpy_helper.from_array(np.array([7], I))}),
    ("ConstantOfShape", [np.array([2], I)], 17, {}),
    ("Reshape", [X, np.array([0, -1, 5], I)], 17, {}),
    ("Flatten", [X], 17, {"axis": -1}),
    ("Squeeze", [X[:, :1], np.array([1], I)], 13, {}),
    ("Squeeze", [X[:1, :1]], 11, {}),
    ("Unsqueeze", [X, np.array([0, -1], I)], 13, {}),
    ("Unsqueeze", [X], 11, {"axes": [1]}),
    ("Concat", [X, Y[:, :2]], 17, {"axis": 1}),
    ("Split", [X, np.array([1, 5], I)], 13, {"axis": 2}),
    ("Split", [X], 11, {"axis": 2}),
    ("Slice", [X, *(np.array(n, I) for n in ([1, -2], [2**62, -9], [1, 2], [1, -1]))], 13, {}),
    ("Slice", [X], 7, {"starts": [1, 0], "ends": [9, -1]}),
    ("Gather", [X, np.array([[0, 2], [-1, 1]], I)], 17, {"axis": 2}),
    ("Transpose", [X], 17, {"perm": [0, 2, 3, 1]}),
    ("Expand", [X[:, :1], np.array([4, 1, 1], I)], 17, {}),
    ("Pad", [X, np.array([0, 1, -1, 2, 0, 0, 3, -1], I), np.array(7, np.float32)], 13, {}),
    ("Pad", [X, np.array([1, 2, 0, 1], I), None, np.array([-1, 1], I)], 18, {}),
    ("Pad", [X, np.array([0, 0, 1, 2, 0, 0, 2, 1], I)], 13, {"mode": "reflect"}),
    ("Gemm", [X[0, 0], Y[0, 0]], 17, {"transB": 1, "alpha": 0.5}),
    ("Gemm", [X[0, 0], Y[0, 0], Y[0, 0, 0]], 17, {"transA": 1, "beta": 2.0}),
    ("MatMul", [X, Y.swapaxes(2, 3).copy()], 17, {}),
    ("GatherND", [X, np.array([[0, 1], [1, 0]], I)], 17, {}),
    ("Range", [np.array(2, I), np.array(9, I), np.array(3, I)], 17, {}),
    ("ScatterND", [X, np.array([[0, 1], [1, 0]], I), Y[:2, 0]], 17, {}),
    ("ScatterND", [X, np.array([[0], [0]], I), X[:2]], 18, {"reduction": "add"}),
    ("MaxPool", [X], 17, {"kernel_shape": [3, 2], "pads": [1, 0, 1, 1],
     "strides": [2, 1], "dilations": [1, 2]}),
    ("MaxPool", [X], 17, {"kernel_shape": [3, 2], "ceil_mode": 1, "strides": [2, 2]}),
    ("MaxPool", [X], 17, {"kernel_shape": [3, 3], "auto_pad": "SAME_LOWER"}),
    ("AveragePool", [X], 17, {"kernel_shape": [3, 2], "pads": [1, 0, 2, 1], "strides": [2, 1]}),
    ("AveragePool", [X], 17, {"kernel_shape": [3, 2], "pads": [1, 0, 2, 1], "count_include_pad": 1}),
    ("Resize", [X, None, np.array([1, 1, 2, 3], np.float32)], 13, {"mode": "nearest"}),
    ("Resize", [X, None, None, np.array([2, 3, 12, 5], I)], 13,
     {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}),
    ("Resize", [X, None, np.array([1, 1, 2, 1.5], np.float32)], 13, {"mode": "linear"}),
    *[("Resize", [X, None, np.array([1, 1, 2, 1.6], np.float32)], 13,
       {"mode": "linear", "coordinate_transformation_mode": transform})
      for transform in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")],
    ("Resize", [X, None, None, np.array([2, 3, 4, 9], I)], 18, {"mode": "linear"}),
    ("Erf", [np.linspace(-7, 7, 1001, dtype=np.float32).reshape(7, 11, 13, 1)], 13, {}),
    ("Gelu", [X], 20, {}),
    ("Gelu", [X], 20, {"approximate": "tanh"}),
    ("GatherElements", [X, np.array([[[[0, 1, 1]] * 2] * 2] * 2, I)], 13, {"axis": -1}),
    ("GatherElements", [X, np.array([[[[0, 1, -1]] * 2] * 2] * 2, I)], 13, {"axis": 1}),
    ("ScatterElements", [X, np.array([[[[0, 2, -1]] * 2] * 2], I), Y[:1, :2, :2, :3]], 16, {"axis": 3}),
    ("ScatterElements", [X, np.array([[[[0, 0]]]], I), Y[:1, :1, :1, :2]], 16, {"reduction": "add"}),
    ("LayerNormalization", [X, Y[0, 0, 0]], 17, {}),
    ("Conv", [X, integers(3, 2, 3, 2, 2)], 17, {}),
    ("ConvTranspose", [X, integers(3, 3, 2, 2, 2)], 17, {"strides": [2, 1]}),
    ("BatchNormalization", [X, *(Y[0, :, 0, 0] + k for k in range(3)), X[0, :, 0, 0] ** 2 + 1], 15, {}),
]  # fmt: skip


def model_for(kind: str, inputs: list[Any], opset: int, attributes: dict[str, Any]) -> onnx.ModelProto:
    names = ["" if array is None else f"i{k}" for k, array in enumerate(inputs)]
    outputs = ["y", "z"] if kind == "Split" else ["y"]
    model = single(kind, names, opset=opset, outputs=outputs, **attributes)
    for name, array in zip(names, inputs, strict=True):
        if array is not None:
            kind_ = helper.np_dtype_to_tensor_dtype(array.dtype)
            model.graph.input.append(helper.make_tensor_value_info(name, kind_, array.shape))
    return model


def evaluate(model: onnx.ModelProto, inputs: list[Any]) -> tuple[Array, ...]:
    op = only(imported(model)).op
    assert isinstance(op, Opaque)
    assert op.evaluate is not None
    return op.evaluate(*inputs)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_as_the_runtime(case: tuple[str, list[Any], int, dict[str, Any]]) -> None:
    model = model_for(*case)
    expected = run(model, {f"i{k}": array for k, array in enumerate(case[1]) if array is not None})
    results = evaluate(model, case[1])
    assert len(results) == len(expected)
    for value, result, wanted in zip(only(imported(model)).outputs, results, expected, strict=True):
        assert result.dtype == wanted.dtype
        np.testing.assert_allclose(result, wanted, rtol=1e-5, atol=1e-6)
        assert value.dtype == wanted.dtype.name
        # What only the values of an input tell is not known.
        shape = value.shape or (None,) * wanted.ndim
        assert shape == tuple(
            n if isinstance(d, int) else d for d, n in zip(shape, wanted.shape, strict=True)
        )


def test_every_kernel_has_a_case() -> None:
    assert set(KERNELS) - {case[0] for case in CASES} == set()


@pytest.mark.parametrize("case", [case for case in CASES if case[1]], ids=lambda case: case[0])
def test_float64_stays_float64(case: tuple[str, list[Any], int, dict[str, Any]]) -> None:
    """The oracle evaluates a float32 model in float64; no float32 may come in between."""
    kind, inputs, opset, attributes = case
    wide = [
        a.astype(np.float64) if a is not None and a.dtype == np.float32 and a.ndim == 4 else a for a in inputs
    ]
    model = model_for(kind, inputs, opset, attributes)
    before, after = evaluate(model, inputs), evaluate(model, wide)
    for narrow, result in zip(before, after, strict=True):
        moved = kind in ("Cast", "ConstantOfShape") or narrow.dtype != np.float32 or inputs[0].ndim != 4
        assert moved or result.dtype == np.float64
        np.testing.assert_allclose(result.astype(np.float64), narrow.astype(np.float64), rtol=1e-5, atol=1e-5)


def test_sigmoid_does_not_overflow() -> None:
    (y,) = evaluate(single("Sigmoid", ["x"], given={"x": (2,)}), [np.array([-1e4, 1e4])])
    np.testing.assert_array_equal(y, [0.0, 1.0])


def test_short_types_keep_their_type() -> None:
    x = integers(0, 2, 2).astype(onnx_ir.DataType.BFLOAT16.numpy())
    (y,) = evaluate(single("MatMul", ["a", "b"], given={"a": (2, 2), "b": (2, 2)}), [x, x])
    assert y.dtype == x.dtype


def test_a_rare_form_goes_to_the_reference() -> None:
    (y,) = evaluate(single("ReduceMax", ["x"], given={"x": (0, 2)}), [np.zeros((0, 2), np.float32)])
    assert y.tolist() == [[-np.inf]]


def test_a_failure_declines_with_the_operator() -> None:
    with pytest.raises(Declined, match="MatMul cannot be evaluated: "):
        evaluate(
            single("MatMul", ["a", "b"], given={"a": (2, 3), "b": (3, 2)}),
            [np.zeros((2, 3)), np.zeros((2, 3))],
        )


def test_an_output_without_a_name_keeps_its_place() -> None:
    generator = np.random.default_rng(0)
    arrays = [
        generator.standard_normal(shape).astype(np.float32) for shape in ((1, 1, 3), (1, 8, 3), (1, 8, 2))
    ]
    model = single("LSTM", ["x", "w", "r"], outputs=["", "h", "c"], hidden_size=2)
    model.graph.input.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, array.shape)
        for name, array in zip("xwr", arrays, strict=True)
    )
    results = evaluate(model, arrays)
    wanted = run(model, dict(zip("xwr", arrays, strict=True)))
    assert results[0].size == 0
    np.testing.assert_allclose(results[1], wanted[0], rtol=1e-5)


@pytest.mark.parametrize("kind", ["RandomNormalLike", "Bernoulli", "SequenceConstruct", "NoSuchOperator"])
def test_what_is_no_function_of_its_inputs(kind: str) -> None:
    op = only(imported(single(kind, ["x"], given={"x": (2,)}))).op
    assert isinstance(op, Opaque)
    assert op.evaluate is None


def test_an_unknown_domain_is_not_evaluated() -> None:
    op = only(imported(single("Relu", ["x"], given={"x": (2,)}, domain="com.example"))).op
    assert isinstance(op, Opaque)
    assert (op.kind, op.evaluate, op.lift) == ("com.example::Relu", None, None)


def function_model(body: list[onnx.NodeProto]) -> onnx.ModelProto:
    """A call of a local function."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    function = helper.make_function("local", "F", ["a"], ["b"], body, opsets)
    model = single("F", ["x"], given={"x": (2, 3)}, domain="local")
    model.opset_import.append(opsets[1])
    model.functions.append(function)
    return model


def test_a_local_function_is_evaluated() -> None:
    model = function_model([helper.make_node("Neg", ["a"], ["n"]), helper.make_node("Exp", ["n"], ["b"])])
    op = next(iter(import_model(onnx_ir.from_proto(model))[0].nodes)).op
    assert isinstance(op, Opaque)
    assert isinstance(op.evaluate, Reference)
    x = np.random.default_rng(0).standard_normal((2, 3))
    np.testing.assert_allclose(op.evaluate(x)[0], np.exp(-x))


def test_a_local_function_with_random_numbers_is_not() -> None:
    model = function_model([helper.make_node("RandomNormalLike", ["a"], ["b"])])
    op = next(iter(import_model(onnx_ir.from_proto(model))[0].nodes)).op
    assert isinstance(op, Opaque)
    assert op.evaluate is None


def test_frequent_operators_do_not_need_the_reference() -> None:
    op = only(imported(single("Relu", ["x"], given={"x": (2,)}))).op
    assert isinstance(op, Opaque)
    assert isinstance(op.evaluate, Kernel)


def test_erf_is_right_to_the_last_digit_and_quick() -> None:
    x = np.concatenate([np.linspace(-8, 8, 40_001), [0.0, -0.0, 1e-300, np.inf, -np.inf, 5.9999, 6.0]])
    (y,) = evaluate(single("Erf", ["x"], given={"x": x.shape}), [x])
    expected = np.array([math.erf(v) for v in x])
    assert np.abs(y - expected).max() <= 2.3e-16
    near = np.abs(x) < 1e-2
    np.testing.assert_allclose(y[near], expected[near], rtol=1e-15)
    (nothing,) = evaluate(single("Erf", ["x"], given={"x": (1,)}), [np.array([np.nan])])
    assert np.isnan(nothing)

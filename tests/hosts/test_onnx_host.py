"""What ONNX has for each operator: onnxruntime computes exactly what direct evaluation does; and refusals."""

from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from fuser.algebra.conv import Conv, average_pool, pad, scale_shift
from fuser.errors import Declined
from fuser.hosts.onnx.exporter import rounded
from fuser.hosts.onnx.host import plan
from fuser.ir.graph import Graph
from fuser.ir.node import Value
from fuser.ir.ops import Op, Permute, Reshape, Sum
from tests.hosts.onnx_edits import edited, kinds, put
from tests.hosts.onnx_models import model_of, run
from tests.strategies import convs, integers, seeds


def placeholder(
    shape: list[int], type_: int = TensorProto.FLOAT, *, count: int = 1, opset: int = 17
) -> onnx.ModelProto:
    """One node that reads all inputs, to be replaced."""
    names = [f"x{index}" for index in range(count)]
    node = helper.make_node("Sum", names, ["y"], name="block")
    given_ = dict.fromkeys(names, shape)
    model = model_of([node], opset=opset, given=given_, type_=type_)
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", type_, [None] * len(shape)))
    return model


def lowered(op: Op, *arrays: NDArray[Any], opset: int = 17) -> tuple[onnx.ModelProto, NDArray[Any]]:
    """The model that `op` becomes, and its result in onnxruntime."""
    type_ = helper.np_dtype_to_tensor_dtype(arrays[0].dtype)
    source = placeholder(list(arrays[0].shape), type_, count=len(arrays), opset=opset)
    source.graph.ClearField("value_info")

    def edit(graph: Graph) -> None:
        put(graph, ["block"], op, *graph.inputs)

    model = edited(source, edit)
    (result,) = run(model, {f"x{index}": array for index, array in enumerate(arrays)})
    return model, result


# --- numbers: each operator, computed by onnxruntime, equals its direct evaluation exactly


@pytest.mark.parametrize(
    ("pads", "shift", "kind"),
    [
        ((0, 0), 0.0, "AveragePool"),
        ((1, 3), 0.0, "AveragePool"),
        ((4, 0), 0.0, "Conv"),
        ((0, 1), 2.0, "Conv"),
    ],
)
def test_a_mean_of_windows_is_a_pool(pads: tuple[int, int], shift: float, kind: str) -> None:
    begin, end = ((n, 0) for n in pads)
    pool = average_pool(3, (4, 2), (2, 1), (1, 1), begin, end)
    x = integers(0, 2, 3, 9, 8)
    conv = replace(pool, bias=np.full(3, shift))
    model, result = lowered(conv, x.astype(np.float32))
    assert kinds(model) == [kind]
    assert np.array_equal(result, conv.evaluate(x))


@given(convs(transposed=None, taps=2), st.sampled_from([7, 10, 11, 17, 21]), seeds)
def test_convolutions_are_lowered_exactly_or_declined(conv: Conv, opset: int, seed: int) -> None:
    extent = tuple(max(5, -b - e + 5) for b, e in zip(conv.begin, conv.end, strict=True))
    x = integers(seed, 1, conv.inputs, *extent)
    value = Value("y", (None,) * x.ndim, "float32")
    if min(conv.extent(extent), default=1) < 1:
        return
    try:
        steps = plan(conv, value, opset).steps()
    except Declined as reason:
        assert str(reason)  # noqa: PT017  # which reason is for the tests below
        return
    model, result = lowered(conv, x.astype(np.float32), opset=opset)
    assert len(model.graph.node) == len(steps)
    np.testing.assert_array_equal(result, conv.evaluate(x))


@pytest.mark.parametrize("rank", [2, 3, 4])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("bias", [False, True])
def test_linear_layers(rank: int, groups: int, bias: bool) -> None:
    conv = Conv.of(integers(1, 6, 4 // groups), integers(2, 6) * bias, groups=groups, axis=-1)
    x = integers(3, *(2, 3, 5)[: rank - 1], 4)
    model, result = lowered(conv, x.astype(np.float32))
    np.testing.assert_array_equal(result, conv.evaluate(x))
    assert kinds(model) == (["Gemm"] if rank == 2 else ["MatMul", "Add"] if bias else ["MatMul"])


@pytest.mark.parametrize(
    ("scale", "shift", "expected"),
    [(2, 3, ["Mul", "Add"]), (2, 0, ["Mul"]), (1, 3, ["Add"]), (1, 0, ["Identity"])],
)
@pytest.mark.parametrize(
    ("axis", "shape"), [(1, (1, 3, 4, 5)), (1, (2, 3, 4)), (-1, (2, 3)), (-1, (2, 5, 3))]
)
def test_a_scale_and_shift_takes_only_what_is_not_neutral(
    scale: int, shift: int, expected: list[str], axis: int, shape: tuple[int, ...]
) -> None:
    spatial = len(shape) - 2 if axis == 1 else 0
    conv = scale_shift(np.full(3, float(scale)), np.full(3, float(shift)), spatial, axis)
    x = integers(1, *shape)
    model, result = lowered(conv, x.astype(np.float32))
    np.testing.assert_array_equal(result, conv.evaluate(x))
    assert kinds(model) == expected


@pytest.mark.parametrize(
    ("coefficients", "offset", "expected"),
    [
        ((1,), 0, ["Identity"]),
        ((-1,), 0, ["Neg"]),
        ((3,), 0, ["Mul"]),
        ((3,), 2, ["Mul", "Add"]),
        ((1, 1), 0, ["Add"]),
        ((1, -1), 0, ["Sub"]),
        ((-1, 1), 0, ["Sub"]),
        ((-1, -1), 0, ["Add", "Neg"]),
        ((1, 1, 1), 0, ["Sum"]),
        ((1, -1, 1, -1), 0, ["Add", "Sub", "Sub"]),
        ((0.5, 0.5), 0, ["Add", "Mul"]),
        ((0.5, -0.5), 4, ["Sub", "Mul", "Add"]),
        ((2, 1), 0, ["Mul", "Add"]),
        ((2, -3), 1, ["Mul", "Mul", "Add", "Add"]),
        ((0,), 5, ["Mul", "Add"]),
    ],
)
@pytest.mark.parametrize("opset", [7, 17])
def test_sums(coefficients: tuple[float, ...], offset: float, expected: list[str], opset: int) -> None:
    op = Sum(coefficients, offset)
    arrays = [integers(index, 2, 3) for index in range(len(coefficients))]
    model, result = lowered(op, *(array.astype(np.float32) for array in arrays), opset=opset)
    np.testing.assert_array_equal(result, op.evaluate(*arrays))
    assert kinds(model) == expected


def test_reshapes_leave_the_first_axis_open() -> None:
    model, result = lowered(Reshape((3,)), np.arange(12.0).reshape(2, 6))
    assert [node.op_type for node in model.graph.node] == ["Reshape"]
    np.testing.assert_array_equal(result, np.arange(12.0).reshape(4, 3))


@pytest.mark.parametrize("axes", [(0, 2, 1), (2, 0, 1)])
def test_axes_are_put_in_another_order(axes: tuple[int, ...]) -> None:
    x = integers(0, 2, 3, 4)
    model, result = lowered(Permute(axes), x.astype(np.float32))
    assert kinds(model) == ["Transpose"]
    np.testing.assert_array_equal(result, Permute(axes).evaluate(x))


@pytest.mark.parametrize("opset", [10, 17])
def test_a_border_of_a_constant_becomes_a_pad(opset: int) -> None:
    conv = Conv.of(integers(1, 2, 3, 3, 3), begin=(1, 2), end=(0, 1), pad_value=np.full(3, -4.0))
    x = integers(2, 1, 3, 5, 6)
    model, result = lowered(conv, x.astype(np.float32), opset=opset)
    np.testing.assert_array_equal(result, conv.evaluate(x))
    assert kinds(model) == ["Pad", "Conv"]


def test_what_only_pads_is_a_pad_and_may_crop() -> None:
    conv = pad(3, (1, -1), (2, 0))
    x = integers(1, 1, 3, 4, 5)
    model, result = lowered(conv, x.astype(np.float32))
    np.testing.assert_array_equal(result, conv.evaluate(x))
    assert kinds(model) == ["Pad"]


def test_output_padding_of_a_transposed_convolution() -> None:
    conv = Conv.of(
        integers(1, 4, 2, 3), integers(2, 4), groups=2, stride=(3,), begin=(1,), end=(-2,), transposed=True
    )
    x = integers(3, 1, 4, 5)
    model, result = lowered(conv, x.astype(np.float32))
    np.testing.assert_array_equal(result, conv.evaluate(x))
    assert kinds(model) == ["ConvTranspose"]


def test_weights_are_rounded_once_to_the_dtype_of_the_result() -> None:
    third = np.full((1, 1, 1), 1 / 3)
    for dtype in (np.float16, np.float64):
        source = placeholder([1, 1, 4], helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
        model = edited(
            source, lambda graph: put(graph, ["block"], Conv.of(third, stride=(2,)), *graph.inputs)
        )
        (weight,) = model.graph.initializer
        array = numpy_helper.to_array(weight)
        assert array.dtype == dtype
        np.testing.assert_array_equal(array, third.astype(dtype))


@given(st.floats(2.0**-100, 1e30))
def test_bfloat16_is_the_nearest_one(value: float) -> None:
    (result,) = rounded(np.array([value]), np.dtype(ml_dtypes.bfloat16))
    bits = int(np.array(result).view(np.uint16))
    # Both neighbours are farther away, or as far and have an odd last bit.
    for other in (bits - 1, bits + 1):
        neighbour = float(np.array(other, np.uint16).view(ml_dtypes.bfloat16))
        distances = abs(value - float(result)), abs(value - neighbour)
        assert distances[0] < distances[1] or (distances[0] == distances[1] and not bits & 1)


def test_bfloat16_sees_on_which_side_of_a_tie_a_value_is() -> None:
    values = np.array([1 + 2**-8 + 2**-40, 1 + 2**-8 - 2**-40, 1 + 2**-8, np.inf, np.nan])
    result = rounded(values, np.dtype(ml_dtypes.bfloat16)).astype(np.float64)
    np.testing.assert_array_equal(result, [1 + 2**-7, 1, 1, np.inf, np.nan])


# --- refusals


@pytest.mark.parametrize(
    ("op", "value", "reason"),
    [
        (Conv.of(np.ones((1, 1, 2)), begin=(-1,)), "float32", r"negative pads: \(-1, 0\)"),
        (
            Conv.of(np.ones((1, 1, 2)), begin=(-1,), transposed=True),
            "float32",
            r"negative pads at the begin: \(-1,\)",
        ),
        (
            Conv.of(np.ones((1, 1, 2)), end=(-1,), transposed=True),
            "float32",
            r"output_padding \(1,\) is not less than the stride \(1,\)",
        ),
        (
            Conv.of(np.ones((1, 2, 2)), begin=(1,), pad_value=np.array([1.0, 2.0])),
            "float32",
            "differs between channels: 1 and 2",
        ),
        (Conv.of(np.ones((1, 1, 2))), "int32", "the dtype of 'y' is int32, not a floating one"),
        (Conv.of(np.ones((1, 1, 2))), None, "the dtype of 'y' is None"),
        (Sum((1e5,)), "float16", "100000 overflows float16, whose largest number is 65504"),
        (Sum((2.0,)), "int32", "the dtype of 'y' is int32, not a floating one"),
        (Conv.of(np.ones((2, 3)), axis=1), "float32", "channels on axis 1 of a tensor with 3 axes"),
        (
            scale_shift(np.full(2, 2.0), np.zeros(2), 2),
            "float32",
            "the tensor has 3 axes, the kernel is for 4",
        ),
    ],
)
def test_what_onnx_cannot_say_is_declined(op: Op, value: str | None, reason: str) -> None:
    with pytest.raises(Declined, match=reason):
        plan(op, Value("y", (1, 2, 3), value), 17)


def test_opsets_without_broadcasting_are_declined() -> None:
    with pytest.raises(Declined, match="opset 6 is older than 7"):
        plan(Sum((1.0,)), Value("y", (1,), "float32"), 6)

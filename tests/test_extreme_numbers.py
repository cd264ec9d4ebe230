"""Weights that are zero, as small as numbers get, as large, infinite or not a number: nothing falls over."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import fuser
from tests.lift_models import models

SMALLEST = float(np.finfo(np.float32).smallest_subnormal)
EXTREMES = (np.inf, -np.inf, np.nan, 3.4e38, SMALLEST, 0.0)


def with_weights(model: onnx.ModelProto, index: int, value: float, *, whole: bool) -> onnx.ModelProto:
    """The model with one of its float tensors, or an element of it, replaced by `value`."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    floats = [tensor for tensor in result.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT]
    if floats:
        tensor = floats[index % len(floats)]
        array = numpy_helper.to_array(tensor).copy()
        array.reshape(-1)[slice(None) if whole else index % array.size] = value
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return result


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("value", EXTREMES)
def test_no_warning_and_no_exception(value: float, whole: bool) -> None:
    """What is not finite is declined by a condition; numpy's warnings, errors here, are not for users."""
    for index, model in enumerate(models()):
        given = with_weights(model, index, value, whole=whole)
        result = fuser.optimize(given)
        onnx.checker.check_model(result)
        held = [numpy_helper.to_array(tensor) for tensor in result.graph.initializer]
        floats = [array for array in held if array.dtype.kind == "f"]
        if np.isfinite(value):
            assert all(np.isfinite(array).all() for array in floats)


@pytest.mark.parametrize("value", [SMALLEST, 1e-38, 1e-30])
@pytest.mark.parametrize("start", range(4))
def test_numbers_below_the_normal_ones_are_rounded_as_those_are(value: float, start: int) -> None:
    """onnxruntime and our evaluation do not contradict each other, and no rounding is a difference."""
    for index, model in list(enumerate(models()))[start::12]:
        if all(node.op_type != "Div" for node in model.graph.node):  # the inverse would be huge
            given = with_weights(model, index // 12, value, whole=True)
            fuser.optimize(given, verify=True)

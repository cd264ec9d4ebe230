"""Lists that are there and empty: not what a list is that is absent, nor the other way round."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import onnx
import pytest

import fuser
from fuser.errors import InputError
from tests.fuzz.judge import differences, run
from tests.hosts.onnx_models import single

IMAGE = (2, 3, 1, 4)


@pytest.mark.parametrize(
    ("kind", "operands", "attributes"),
    [
        ("Squeeze", [], {"axes": []}),
        ("Squeeze", [[]], {}),
        ("Unsqueeze", [], {"axes": []}),
        ("Unsqueeze", [[]], {}),
        ("ReduceMean", [], {"axes": []}),
        ("ReduceMean", [[]], {}),
        ("ReduceSum", [], {"axes": []}),
        ("ReduceSum", [[]], {}),
        ("ReduceSum", [[]], {"noop_with_empty_axes": 1}),
        ("Slice", [], {"starts": [], "ends": [], "axes": []}),
        ("Slice", [[], []], {}),
        ("Slice", [[], [], [], []], {}),
        ("Pad", [[], np.float32(0), []], {}),
        ("Expand", [[]], {}),
        ("Gather", [[]], {"axis": 1}),
        ("Mul", [np.zeros((2, 3, 0, 4), np.float32)], {}),
    ],
)
def test_what_runs_computes_the_same(kind: str, operands: Sequence[Any], attributes: dict[str, Any]) -> None:
    x = np.linspace(-2, 2, 24, dtype=np.float32).reshape(IMAGE)
    arrays = [a if isinstance(a, np.ndarray | np.float32) else np.array(a, np.int64) for a in operands]
    constants = {f"c{k}": np.asarray(array) for k, array in enumerate(arrays)}
    feeds = [{"x": x}]
    tried = 0
    for opset in (7, 11, 13, 18):
        model = single(kind, ["x", *constants], opset=opset, given={"x": IMAGE}, constants=constants)
        model.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None))
        for name, value in attributes.items():
            attr_type = onnx.AttributeProto.INTS if isinstance(value, list) else None
            model.graph.node[0].attribute.append(onnx.helper.make_attribute(name, value, attr_type=attr_type))
        try:
            expected = run(model.SerializeToString(), feeds)
        except Exception:  # noqa: BLE001  # the runtime refuses the list at this opset: nobody relies on it
            continue
        actual = run(fuser.optimize(model).SerializeToString(), feeds)
        assert list(differences(model, feeds, expected, actual)) == []
        tried += 1
    assert tried


LISTS = {
    "AveragePool": ("kernel_shape", "strides", "pads", "dilations"),
    "Conv": ("strides", "pads", "dilations", "kernel_shape"),
    "ConvTranspose": ("strides", "pads", "dilations", "output_padding", "output_shape"),
    "DepthToSpace": (),
    "Expand": (1,),
    "Gather": (1,),
    "MaxPool": ("kernel_shape", "strides", "pads"),
    "Pad": (1,),
    "ReduceMean": ("axes",),
    "Reshape": (1,),
    "Resize": (3,),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Squeeze": (1,),
    "Tile": (1,),
    "Transpose": ("perm",),
    "Unsqueeze": (1,),
}
REST: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "AveragePool": ([], {"kernel_shape": [2, 2]}),
    "Conv": ([np.ones((3, 3, 2, 2), np.float32)], {}),
    "ConvTranspose": ([np.ones((3, 3, 2, 2), np.float32)], {}),
    "MaxPool": ([], {"kernel_shape": [2, 2]}),
    "Slice": ([[0], [9], [2], [1]], {}),
}


@pytest.mark.parametrize("numbers", [[], [1], [1, 2, 3], [9] * 7, [-9], [0, 0], [2**40] * 4])
@pytest.mark.parametrize(("kind", "place"), [(k, place) for k, places in LISTS.items() for place in places])
def test_lists_of_any_length_are_no_traceback(kind: str, place: Any, numbers: list[int]) -> None:
    operands, attributes = REST.get(kind, ([], {}))
    inputs, attributes = list(operands), dict(attributes)
    if isinstance(place, str):
        attributes[place] = numbers
    else:
        inputs += [[1]] * (place - len(inputs))
        inputs[place - 1] = numbers
    constants = {
        f"c{k}": a if isinstance(a, np.ndarray) else np.array(a, np.int64) for k, a in enumerate(inputs)
    }
    model = single(kind, ["x", *constants], opset=13, given={"x": (2, 3, 5, 6)}, constants=constants)
    model.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None))
    for name, value in attributes.items():
        entry = onnx.helper.make_attribute(name, value, attr_type=onnx.AttributeProto.INTS)
        model.graph.node[0].attribute.append(entry)
    model.graph.node.append(onnx.helper.make_node("BatchNormalization", ["y", *["n"] * 4], ["z"]))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(3, np.float32), "n"))
    model.graph.output[0].name = "z"
    with suppress(InputError):  # all else is a traceback
        fuser.optimize(model)

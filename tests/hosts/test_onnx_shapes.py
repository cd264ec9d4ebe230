"""Shapes are inferred where the file does not state them, extents symbolic, equal ones by equal names."""

from typing import Any

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import TensorProto, helper

import fuser
from fuser.errors import Declined
from fuser.hosts.onnx.calls import read_call
from fuser.hosts.onnx.importer import import_model
from fuser.hosts.onnx.node import source
from fuser.hosts.onnx.shapes import shapes as onnx_shapes
from fuser.hosts.operators.catalogue import OPERATORS
from fuser.hosts.operators.extents import Extents
from tests.hosts.onnx_models import imported, integers, model_of, only, single
from tests.small_models import parsed

I = np.int64  # noqa: E741  # the type of every list of axes


def shapes(model: onnx.ModelProto) -> dict[str, Any]:
    return {value.name: value.shape for node in imported(model).nodes for value in node.outputs}


def test_branches_of_an_image_of_unknown_size_are_of_one_shape() -> None:
    constants = {"w": integers(0, 4, 3, 3, 3), "v": integers(1, 4, 3, 1, 1)}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Conv", ["x", "v"], ["b"], strides=[2, 2]),
        helper.make_node("Add", ["a", "b"], ["y"]),
    ]
    found = shapes(model_of(nodes, given={"x": ("n", 3, "h", "w_")}, constants=constants))
    assert found["a"] == found["b"] == found["y"] == ("n", 4, "(h + 1)//2", "(w_ + 1)//2")


def test_flatten_by_the_batch_size() -> None:
    """x.view(x.size(0), -1), as the older exporter writes it."""
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"]),
        helper.make_node("Unsqueeze", ["n", "axes"], ["n1"]),
        helper.make_node("Concat", ["n1", "rest"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["y"]),
    ]
    constants = {"zero": np.array(0, I), "axes": np.array([0], I), "rest": np.array([-1], I)}
    assert shapes(model_of(nodes, given={"x": ("n", 512, 1, 1)}, constants=constants))["y"] == ("n", 512)


def test_arithmetic_on_shapes() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Slice", ["s", "two", "four", "zero"], ["hw"]),
        helper.make_node("Mul", ["hw", "twice"], ["hw2"]),
        helper.make_node("Slice", ["s", "zero", "two", "zero"], ["nc"]),
        helper.make_node("Concat", ["nc", "hw2"], ["sizes"], axis=0),
        helper.make_node("Resize", ["x", "", "", "sizes"], ["y"]),
    ]
    constants = {name: np.array([n], I) for name, n in (("zero", 0), ("two", 2), ("four", 4), ("twice", 2))}
    found = shapes(model_of(nodes, given={"x": ("n", 3, "h", 8)}, constants=constants))
    assert found["y"] == ("n", 3, "2*h", 16)


@pytest.mark.parametrize(
    ("kind", "operands", "expected"),
    [
        ("Add", ["h", 3], "(h + 3)"),
        ("Add", [3, "h"], "(h + 3)"),
        ("Sub", ["h", 1], "(h - 1)"),
        ("Sub", [9, "h"], "y.0"),
        ("Mul", [2, "h"], "2*h"),
        ("Mul", ["h", -1], "y.0"),
        ("Mul", ["h", "h"], "y.0"),
        ("Div", ["h", 2], "h//2"),
        ("Div", ["h", 0], "y.0"),
        ("Div", [8, "h"], "y.0"),
    ],
)
def test_extents_that_are_computed_from_extents(kind: str, operands: list[Any], expected: str) -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["h"], start=1),
        helper.make_node(kind, ["h" if n == "h" else "number" for n in operands], ["size"]),
        helper.make_node("ConstantOfShape", ["size"], ["y"]),
    ]
    numbers = [n for n in operands if n != "h"]
    found = shapes(
        model_of(nodes, given={"x": ("n", "h")}, constants={"number": np.array(numbers[:1] or [1], I)})
    )
    assert found["y"] == (expected,)


@pytest.mark.parametrize(
    ("kind", "attributes", "expected"),
    [
        ("ArgMax", {"axis": -1}, ("n", 3, 1)),
        ("ArgMin", {"axis": 1, "keepdims": 0}, ("n", "h")),
        ("ReduceMax", {"axes": [-1]}, ("n", 3, 1)),
        ("ReduceMean", {"axes": [0, 2], "keepdims": 0}, (3,)),
        ("ReduceL2", {"keepdims": 0}, ()),
        ("ReduceSum", {"noop_with_empty_axes": 1}, ("n", 3, "h")),
        ("Hardmax", {}, ("n", 3, "h")),
    ],
)
def test_what_reductions_leave(kind: str, attributes: Any, expected: tuple[Any, ...]) -> None:
    assert shapes(single(kind, ["x"], given={"x": ("n", 3, "h")}, **attributes))["y"] == expected


def test_unknown_extents_are_equal_to_themselves_only() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Relu", ["z"], ["u"])]
    found = shapes(model_of(nodes, given={"x": (None, 3), "z": (None, 3)}, outputs=("y", "u")))
    assert found == {"y": ("x.0", 3), "u": ("z.0", 3)}


@pytest.mark.parametrize("name", ["?", "None", "-1", -1])
def test_what_is_no_name_is_unknown(name: Any) -> None:
    assert shapes(single("Relu", ["x"], given={"x": (name, 3, name)}))["y"] == ("x.0", 3, "x.2")


def test_names_of_the_file_are_kept_for_what_is_not_inferred() -> None:
    model = single("NonZero", ["x"], given={"x": (3, 4)})
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.INT64, (2, "found")))
    assert shapes(model)["y"] == (2, "found")


def test_names_of_the_file_are_one_with_inferred_ones() -> None:
    nodes = [
        helper.make_node("MaxPool", ["x"], ["a"], kernel_shape=[2], strides=[2]),
        helper.make_node("Compress", ["a", "keep"], ["y"], axis=1),
    ]
    model = model_of(nodes, given={"x": (1, 3, "h")}, constants={"keep": np.array([True, False, True])})
    model.graph.value_info.append(helper.make_tensor_value_info("a", TensorProto.FLOAT, (1, 3, "half")))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 2, "half")))
    found = shapes(model)
    assert found == {"a": (1, 3, "h//2"), "y": (1, 2, "h//2")}


def test_stale_shapes_of_the_file_give_way() -> None:
    """A file whose inputs were made dynamic after export, its inner shapes left as they were."""
    nodes = [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Relu", ["a"], ["y"])]
    model = model_of(nodes, given={"x": ("n", 3)})
    model.graph.value_info.append(helper.make_tensor_value_info("a", TensorProto.FLOAT, (1, 3)))
    assert shapes(model) == {"a": ("n", 3), "y": ("n", 3)}


def test_operators_without_a_rule_are_asked_of_onnx() -> None:
    nodes = [
        helper.make_node("DepthToSpace", ["x"], ["a"], blocksize=2),
        helper.make_node("Relu", ["a"], ["y"]),
    ]
    assert shapes(model_of(nodes, given={"x": (1, 8, 3, 5)})) == {"a": (1, 2, 6, 10), "y": (1, 2, 6, 10)}


@pytest.mark.parametrize(
    ("target", "first"), [([-1, 2, 4], "2*n"), ([-1, 16], "n"), ([-1, 4, 4, 1], "n"), ([-1, 32], "n//2")]
)
def test_reshape_of_a_batch_that_is_a_multiple(target: list[int], first: str) -> None:
    """Eight elements to each of 2 n samples: what is left over is known where it comes out even."""
    constants = {"two": np.array([-1, 8]), "s": np.array(target)}
    nodes = [
        helper.make_node("Reshape", ["x", "two"], ["a"]),
        helper.make_node("Reshape", ["a", "s"], ["y"]),
    ]
    found = shapes(model_of(nodes, given={"x": ("n", 16)}, constants=constants))
    assert found["a"] == ("2*n", 8)
    assert (found["y"][0] == first) == (first != "n//2")


def test_onnx_is_not_asked_where_all_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_shapes, "fill_in", lambda *_: pytest.fail("asked"))
    constants = {"w": integers(0, 4, 3, 3, 3)}
    shapes(single("Conv", ["x", "w"], given={"x": ("n", 3, "h", "w_")}, constants=constants))
    # Behind an operator of an unknown domain there is nothing that onnx could know.
    nodes = [
        helper.make_node("Mystery", ["x"], ["a"], domain="com.example"),
        helper.make_node("Relu", ["a"], ["y"]),
    ]
    assert shapes(model_of(nodes, given={"x": (1, 2)})) == {"a": None, "y": None}


def test_inference_that_fails_is_not_fatal() -> None:
    nodes = [
        helper.make_node("DepthToSpace", ["x"], ["a"], blocksize=3),
        helper.make_node("NoSuchOperator", ["x"], ["y"]),
    ]
    assert shapes(model_of(nodes, given={"x": (1, 8, 3, 5)}))["y"] is None


def test_the_model_is_not_changed() -> None:
    constants = {"w": integers(0, 4, 3, 3, 3)}
    proto = single("Conv", ["x", "w"], given={"x": ("n", 3, "h", "w_")}, constants=constants)
    model = onnx_ir.from_proto(proto)
    before = onnx_ir.to_proto(model).SerializeToString(deterministic=True)
    import_model(model)
    assert onnx_ir.to_proto(model).SerializeToString(deterministic=True) == before


IMAGE, PADS = (1, 2, 8, 8), np.array([1, 1, 1], I)
F = np.float32


@pytest.mark.parametrize(
    ("reason", "kind", "inputs", "attributes"),
    [
        ("a shape is not known", "Conv", {"x": None, "w": None}, {}),
        (r"the kernel of \(3, 2, 'k', 3\) is not one for", "Conv", {"x": IMAGE, "w": (3, 2, "k", 3)}, {}),
        (r"the kernel of \(2, 3, 3\) is not one for", "ConvTranspose", {"x": IMAGE, "w": (2, 3, 3)}, {}),
        (r"the kernel of \(2,\) does not fit", "MaxPool", {"x": IMAGE}, {"kernel_shape": [2]}),
        ("the target is not known", "Reshape", {"x": IMAGE, "s": (3,)}, {}),
        ("a kept axis does not exist", "Reshape", {"x": (2, 3), "s": np.array([0, 0, 0], I)}, {}),
        ("an extent is not known", "Squeeze", {"x": ("n", 1)}, {}),
        ("the range is absent", "Slice", {"x": IMAGE}, {}),
        ("3 pads for 4 axes", "Pad", {"x": IMAGE, "p": PADS}, {}),
        ("the target is not known", "Expand", {"x": IMAGE, "s": (4,)}, {}),
        ("a rare form", "Resize", {"x": IMAGE}, {"axes": [2, 3]}),
        ("the scales 's' is not a constant", "Resize", {"x": IMAGE, "": (), "s": (4,)}, {}),
        ("neither scales nor sizes", "Resize", {"x": IMAGE}, {}),
        ("scaled by inf", "Resize", {"x": IMAGE, "": (), "s": np.array([1, 1, np.inf, 1], F)}, {}),
        ("scaled by nan", "Resize", {"x": ("n", 2, 8, 8), "": (), "s": np.array([np.nan, 1, 1, 1], F)}, {}),
    ],
)
def test_what_is_not_inferred(reason: str, kind: str, inputs: dict[str, Any], attributes: Any) -> None:
    """Files that no rule fits are asked of onnx, or stay without a shape; nothing fails."""
    constants = {name: value for name, value in inputs.items() if isinstance(value, np.ndarray)}
    given = {name: value for name, value in inputs.items() if name and name not in constants}
    model = single(kind, list(inputs), opset=18, given=given, constants=constants, **attributes)
    node, rule = only(imported(model)), OPERATORS[kind].shape
    assert rule is not None
    with pytest.raises(Declined, match=reason):
        rule(read_call(source(node), 18), node, Extents())


@pytest.mark.parametrize(
    ("cut", "weights"),
    [
        ("c = Pad (x, pads)", {"pads": np.array([0, 0, -3, 0, 0, 0, -3, 0])}),
        ("c = Pad (x, pads)", {"pads": np.array([-1, 0, 0, 0, -1, 0, 0, 0])}),
        ("c = Conv (x, k)", {"k": np.ones((3, 3, 9, 1), np.float32)}),
        ("c = AveragePool <kernel_shape = [1,9]> (x)", {}),
    ],
)
def test_no_extent_is_below_nothing(cut: str, weights: dict[str, Any]) -> None:
    """More is cut off than there is: such a model runs nowhere, and what is left is not known."""
    ends = "s = Slice (c, one, last, axis) y = Conv <pads = [1,1,1,1]> (s, w)"
    arrays = {"one": np.array([1]), "last": np.array([9]), "axis": np.array([2])}
    model = parsed(
        f"g (float[1,3,5,W] x) => (float[a,b,c,d] y) {{ {cut} {ends} }}",
        w=np.ones((3, 3, 3, 3), np.float32),
        **arrays,
        **weights,
    )
    found = [dim for shape in shapes(model).values() for dim in shape]
    assert all(isinstance(dim, str) or dim >= 0 for dim in found)
    fuser.optimize(model)

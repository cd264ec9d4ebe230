"""ONNX models become graphs: values, constants, bodies and functions, and no weight is read."""

import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import TensorProto, helper, numpy_helper

import fuser
from fuser.errors import Declined
from fuser.hosts.onnx.host import OnnxHost
from fuser.hosts.onnx.importer import import_model
from fuser.ir.graph import Graph
from fuser.ir.ops import Opaque
from tests.hosts.onnx_models import imported, integers, lift, model_of, only, single


def graphs_of(model: onnx.ModelProto) -> list[Graph]:
    return import_model(onnx_ir.from_proto(model))


def test_nodes_values_and_order() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["a"], name="first"), helper.make_node("Add", ["a", "x"], ["y"])]
    graph = imported(model_of(nodes, given={"x": ("n", 3)}))
    first, second = graph.ordered()
    assert (first.name, str(first.op), first.position) == ("first", "Relu", (0,))
    assert [value.name for value in (*graph.inputs, *graph.outputs)] == ["x", "y"]
    assert second.inputs == (first.outputs[0], graph.inputs[0])
    assert list(graph.inputs[0].users) == [first, second]
    assert graph.outputs[0].producer is second
    assert second.outputs[0].dtype == "float32"


def test_the_host_knows_its_own_values() -> None:
    model = onnx_ir.from_proto(single("Relu", ["x"], opset=15, given={"x": (2,)}))
    (graph,) = import_model(model)
    assert isinstance(graph.host, OnnxHost)
    assert graph.host.values[graph.inputs[0]] is model.graph.inputs[0]
    assert graph.host.values[graph.outputs[0]] is model.graph.outputs[0]
    assert graph.host.opset == 15
    assert only(graph).source is next(iter(model.graph))


def test_absent_inputs_are_none() -> None:
    node = only(imported(single("Clip", ["x", "", "h"], given={"x": (2,), "h": ()})))
    assert node.inputs[1] is None


@pytest.mark.parametrize(("kind", "retypes"), [("Cast", True), ("Relu", False)])
def test_a_cast_does_no_more_than_to_give_another_type(kind: str, retypes: bool) -> None:
    attributes: dict[str, Any] = {"to": TensorProto.FLOAT16} if retypes else {}
    op = only(imported(single(kind, ["x"], given={"x": (2, 3)}, **attributes))).op
    assert isinstance(op, Opaque)
    assert op.retypes is retypes


def test_homogeneous_operators() -> None:
    relu, sigmoid = (
        only(imported(single(kind, ["x"], given={"x": (2,)}))).op for kind in ("Relu", "Sigmoid")
    )
    assert isinstance(relu, Opaque)
    assert isinstance(sigmoid, Opaque)
    assert (relu.homogeneous, sigmoid.homogeneous) == (True, False)


@pytest.mark.parametrize(
    ("attributes", "array"),
    [
        (
            {"value": numpy_helper.from_array(np.array([1.5, 2.5], np.float16))},
            np.array([1.5, 2.5], np.float16),
        ),
        ({"value_float": 1.5}, np.array(1.5, np.float32)),
        ({"value_floats": [1.5]}, np.array([1.5], np.float32)),
        ({"value_int": 3}, np.array(3, np.int64)),
        ({"value_ints": [3, 4]}, np.array([3, 4], np.int64)),
    ],
)
def test_constant_nodes(attributes: dict[str, Any], array: Any) -> None:
    value = only(imported(single("Constant", [], **attributes))).outputs[0]
    assert value.constant is not None
    assert (value.constant.dtype, value.constant.shape) == (array.dtype.name, array.shape)
    assert (value.dtype, value.shape) == (array.dtype.name, array.shape)
    np.testing.assert_array_equal(value.constant.array(), array)


def test_constant_strings_are_no_constant() -> None:
    value = only(imported(single("Constant", [], value_strings=["a"]))).outputs[0]
    assert value.constant is None


def test_initializers_are_constants_unless_callers_may_override_them() -> None:
    constants = {"c": integers(0, 3), "d": integers(1, 3)}
    model = model_of(
        [helper.make_node("Sum", ["x", "c", "d"], ["y"])], given={"x": (3,), "d": (3,)}, constants=constants
    )
    graph = imported(model)
    x, c, d = only(graph).inputs
    assert x is not None
    assert c is not None
    assert d is not None
    assert [v.constant is not None for v in (x, c, d)] == [False, True, False]
    assert graph.inputs == [x, d]
    model.ir_version = 3
    assert all(v is not None and v.constant for v in only(imported(model)).inputs[1:])


def test_external_data_is_not_read(tmp_path: Path) -> None:
    model = single("Conv", ["x", "w"], given={"x": (1, 2, 9)}, constants={"w": integers(0, 300, 2, 5)})
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    loaded = onnx_ir.load(tmp_path / "m.onnx")
    (tmp_path / "m.data").unlink()
    (graph,) = import_model(loaded)
    application = lift(only(graph))
    assert application is not None
    with pytest.raises(FileNotFoundError):
        application.op.weight  # type: ignore[union-attr]  # noqa: B018  # a Conv, looked at


def body_model() -> onnx.ModelProto:
    """An If whose branches read `x`, a weight of the outer graph, and a value two levels out."""
    inner = helper.make_graph(
        [helper.make_node("Add", ["a", "w"], ["i"])], "inner", [], [helper.make_empty_tensor_value_info("i")]
    )
    then = helper.make_graph(
        [
            helper.make_node("If", ["c"], ["t"], then_branch=inner, else_branch=inner, name="second"),
        ],
        "then",
        [],
        [helper.make_empty_tensor_value_info("t")],
    )
    other = helper.make_graph(
        [helper.make_node("Mul", ["x", "k"], ["e"])],
        "other",
        [],
        [helper.make_empty_tensor_value_info("e")],
        [numpy_helper.from_array(integers(2, 3), "k")],
    )
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other, name="choice"),
    ]
    model = model_of(nodes, given={"x": ("n", 3)}, constants={"w": integers(0, 3)})
    model.graph.input.append(helper.make_tensor_value_info("c", TensorProto.BOOL, ()))
    return model


def test_bodies_are_graphs_that_capture() -> None:
    main, other, then, first, second = graphs_of(body_model())
    names = [graph.name for graph in (main, other, then, first, second)]
    assert names[1:] == [
        "choice/else_branch",
        "choice/then_branch",
        "second/else_branch",
        "second/then_branch",
    ]
    assert [value.name for value in first.captured] == ["a", "w"]
    assert [value.name for value in then.captured] == ["c", "a", "w"]
    assert [value.name for value in other.captured] == ["x"]
    assert all(value.producer is None for value in then.captured + first.captured)
    choice = main.ordered()[1]
    assert [value.name for value in choice.inputs if value] == ["c", "x", "a", "w"]
    assert choice in main.inputs[0].users
    assert isinstance(choice.op, Opaque)
    assert (choice.op.evaluate, choice.op.lift) == (None, None)
    assert second.captured[0] is not first.captured[0]


def test_captured_constants_are_shared_and_shapes_are_known() -> None:
    main, *_, first = graphs_of(body_model())
    outer = next(value for value in main.ordered()[1].inputs if value is not None and value.name == "w")
    a, w = first.captured
    assert w.constant is outer.constant is not None
    assert (a.shape, a.dtype) == (("n", 3), "float32")
    assert only(first).outputs[0].shape == ("n", 3)
    assert getattr(lift(only(first)), "label", "") == "scale_shift"


def test_functions_are_graphs_and_their_attributes_unknown() -> None:
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid("local", 1)]
    alpha = helper.make_node("LeakyRelu", ["p"], ["q"])
    alpha.attribute.append(
        onnx.AttributeProto(name="alpha", type=onnx.AttributeProto.FLOAT, ref_attr_name="slope")
    )
    nodes = [helper.make_node("Neg", ["p0"], ["p"]), alpha]
    function = helper.make_function("local", "F", ["p0"], ["q"], nodes, opsets, ["slope"])
    model = single("F", ["x"], given={"x": (2, 3)}, domain="local", slope=1.0)
    model.opset_import.append(opsets[1])
    model.functions.append(function)
    main, inside = graphs_of(model)
    assert isinstance(inside.host, OnnxHost)
    assert (inside.name, inside.host.opset) == ("F", 13)
    neg, leaky = inside.ordered()
    # Called once: what is known at the call is known inside.
    assert (neg.outputs[0].shape, neg.outputs[0].dtype) == ((2, 3), "float32")
    assert isinstance(leaky.op, Opaque)
    assert (leaky.op.lift, leaky.op.evaluate) == (None, None)
    assert str(only(main).op) == "local::F"


def test_a_function_that_is_called_twice_knows_nothing_of_its_inputs() -> None:
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid("local", 1)]
    neg = helper.make_node("Neg", ["p"], ["q"])
    function = helper.make_function("local", "F", ["p"], ["q"], [neg], opsets)
    calls = [helper.make_node("F", [name], [f"y{name}"], domain="local") for name in "ab"]
    model = model_of(calls, given={"a": (2, 3), "b": (4,)}, outputs=["ya", "yb"])
    model.opset_import.append(opsets[1])
    model.functions.append(function)
    _, inside = graphs_of(model)
    with pytest.raises(Declined, match="the element type of 'q' is not known"):
        lift(only(inside))


def chain(count: int) -> onnx_ir.Model:
    nodes = [helper.make_node("Conv", [f"v{i}", "w"], [f"v{i + 1}"], pads=[1, 1]) for i in range(count)]
    constants = {"w": integers(0, 4, 4, 3)}
    return onnx_ir.from_proto(
        model_of(nodes, given={"v0": ("n", 4, "t")}, constants=constants, outputs=[f"v{count}"])
    )


def test_time_is_linear_in_the_nodes() -> None:
    def seconds(model: onnx_ir.Model) -> float:
        best = float("inf")
        for _ in range(3):
            start = time.process_time()
            import_model(model)
            best = min(best, time.process_time() - start)
        return best

    short, long = chain(500), chain(5000)
    assert seconds(long) < 30 * seconds(short)


@pytest.mark.parametrize(
    ("kind", "constants"),
    [
        ("ConstantOfShape", [[2**40]]),
        ("ConstantOfShape", [[2**32, 2**32]]),
        ("ConstantOfShape", [[2**31, 2**31, 4]]),
        ("ConstantOfShape", [[-5]]),
        ("ConstantOfShape", [[4097]]),
        ("Range", [0, 2**40, 1]),
        ("Range", [-(2**40), 2**40, 1]),
        ("Range", [0, 8, 0]),
        ("Range", [0.0, 100.0, 1e-9]),
        ("Range", [0.0, 100.0, float("nan")]),
        ("Expand", [7, [2**20, 2**20]]),
        ("Expand", [[1, 2, 3], [2**40, 3]]),
        ("Add", [np.ones((4096, 1), np.int64), np.ones((1, 4096), np.int64)]),
        ("Add", [[1, 2], [1, 2, 3]]),
        ("Gather", [np.ones((1, 4096), np.int64), np.zeros(4096, np.int64)]),
        ("Gather", [[1, 2], [5]]),
        ("Div", [[1], [0]]),
        ("Mod", [[1], [0]]),
        ("Reshape", [[1, 2], [2**40]]),
    ],
)
def test_numbers_that_are_no_shape_take_neither_time_nor_memory(kind: str, constants: list[Any]) -> None:
    """Where they would be many, or cannot be computed, the node stays, and with it what reads it."""
    arrays = {f"c{k}": np.asarray(array) for k, array in enumerate(constants)}
    nodes = [helper.make_node(kind, list(arrays), ["v"]), helper.make_node("Neg", ["v"], ["y"])]
    model = model_of(nodes, constants=arrays)
    fuser.optimize(single("Relu", ["x"], given={"x": [2]}))
    tracemalloc.start()
    result = fuser.optimize(model)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**22
    assert [node.op_type for node in result.graph.node] == [kind, "Neg"]


def test_a_model_without_standard_operators_has_no_opset_of_theirs() -> None:
    model = single("Relu", ["x"], given={"x": [2]})
    model.opset_import[0].domain = "my.domain"
    assert _opset(imported(model)) == 0
    model.opset_import[0].domain = "ai.onnx"
    assert _opset(imported(model)) == 17


def _opset(graph: Graph) -> int:
    assert isinstance(graph.host, OnnxHost)
    return graph.host.opset


def test_a_body_has_the_opset_of_what_it_is_in() -> None:
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 17, "local": 1]>
        g (float[2] x, bool c) => (float[2] y) { y = local.f (x, c) }
        <domain: "local", opset_import: ["": 12]> f (x, c) => (y) {
            y = If (c) <
                then_branch = a () => (p) { p = Relu (x) }, else_branch = b () => (q) { q = Neg (x) }> }""")
    opsets = {graph.name: _opset(graph) for graph in graphs_of(model)}
    assert opsets == {"g": 17, "f": 12, "If/then_branch": 12, "If/else_branch": 12}

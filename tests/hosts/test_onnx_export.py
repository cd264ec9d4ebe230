"""What rewrites leave behind, applied to the model: a diff and no more, with the names that were there."""

from typing import Any

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import numpy_helper, parser

import fuser
from fuser.algebra.conv import Conv
from fuser.hosts.onnx.exporter import export_graph
from fuser.hosts.onnx.file import files as onnx_io
from fuser.hosts.onnx.importer import import_model
from fuser.ir.graph import Graph
from fuser.ir.node import Node, Value
from fuser.ir.ops import Sum
from tests.hosts.onnx_edits import edited, find, kinds, put, skip, store
from tests.hosts.onnx_models import run

CHAIN = """
<ir_version: 8, opset_import: ["": 17, "my.domain": 3], producer_name: "somebody",
 doc_string: "kept", model_version: 5, metadata_props: ["who": "me"]>
main (float[N,2,8] x) => (float[N,2,8] y)
<float[2,2,1] w = {1,2,3,4}, float[2] b = {5,6}, float[2,2,1] v = {1,1,1,0}, float two = {2}, float[N,2,8] a>
{
   [first] a = Conv(x, w, b)
   [double] d = Mul(a, two)
   [second] c = Conv(d, v)
   [last] y = Relu(c)
}
"""


def chain() -> onnx.ModelProto:
    model = parser.parse_model(CHAIN)
    model.graph.node[3].doc_string = "the last"
    model.graph.node[3].metadata_props.add(key="scope", value="head")
    model.graph.quantization_annotation.add(tensor_name="c").quant_parameter_tensor_names.add(
        key="SCALE_TENSOR", value="two"
    )
    for node in model.graph.node:
        node.ClearField("domain")
    return model


def test_without_an_edit_nothing_changes() -> None:
    model = chain()
    assert edited(model) == model


def test_a_rewrite_takes_place_and_name_of_what_it_replaced() -> None:
    def edit(graph: Graph) -> None:
        put(graph, ["first", "double", "second"], Conv.of(np.ones((2, 2, 1)), np.ones(2)), graph.inputs[0])

    model = chain()
    result = edited(model, edit)
    assert [(node.name, node.op_type, list(node.input), list(node.output)) for node in result.graph.node] == [
        ("second", "Conv", ["x", "second_fused_weight", "second_fused_bias"], ["c"]),
        ("last", "Relu", ["c"], ["y"]),
    ]
    # `two` is named by a quantisation annotation.
    assert [tensor.name for tensor in result.graph.initializer] == [
        "two",
        "second_fused_weight",
        "second_fused_bias",
    ]
    assert result.graph.node[1] == model.graph.node[3]
    for name in (
        "ir_version",
        "opset_import",
        "producer_name",
        "doc_string",
        "model_version",
        "metadata_props",
    ):
        assert getattr(result, name) == getattr(model, name)
    for name in ("name", "input", "output", "quantization_annotation"):
        assert getattr(result.graph, name) == getattr(model.graph, name)


def test_tensors_that_others_read_stay() -> None:
    model = chain()
    model.graph.node[2].input[1] = "w"

    def edit(graph: Graph) -> None:
        first = find(graph, "first")
        put(graph, ["first"], Conv.of(np.ones((2, 2, 1))), first.inputs[0] or graph.inputs[0])

    result = edited(model, edit)
    # `v` had no reader before, which is not for us to judge.
    assert [tensor.name for tensor in result.graph.initializer] == ["w", "v", "two", "first_fused_weight"]


def test_new_names_do_not_clash() -> None:
    model = chain()
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            if name == "two":
                node.input[index] = "second_fused_weight"
    model.graph.initializer[3].name = "second_fused_weight"
    del model.graph.quantization_annotation[:]

    def edit(graph: Graph) -> None:
        second = find(graph, "second")
        put(graph, ["second"], Conv.of(np.ones((2, 2, 1))), second.inputs[0] or graph.inputs[0])

    result = edited(model, edit)
    assert [tensor.name for tensor in result.graph.initializer] == [
        "w",
        "b",
        "second_fused_weight",
        "second_fused_weight_1",
    ]


def test_readers_of_an_eliminated_value_read_the_other_one() -> None:
    def edit(graph: Graph) -> None:
        skip(graph, "double")

    result = edited(chain(), edit)
    assert [list(node.input) for node in result.graph.node] == [["x", "w", "b"], ["a", "v"], ["c"]]


def test_a_graph_output_keeps_its_name_when_a_no_op_before_it_goes() -> None:
    def edit(graph: Graph) -> None:
        node, maker = find(graph, "last"), find(graph, "second")
        (value,), (other,) = node.outputs, maker.outputs
        graph.remove(node)
        maker.outputs, value.producer, other.producer = (value,), maker, None
        graph.provenance.successors[other] = value

    result = edited(chain(), edit)
    assert [list(node.output) for node in result.graph.node] == [["a"], ["d"], ["y"]]
    assert result.graph.node[2].name == "second"


def test_a_node_that_makes_another_value_keeps_the_rest() -> None:
    def edit(graph: Graph) -> None:
        # last(second(d)) with a scale moved behind the last: relu(c) = y becomes t = relu(c), y = 3 t.
        node = find(graph, "last")
        (value,), inputs = node.outputs, node.inputs
        graph.remove(node)
        between = Value("t", value.shape, value.dtype)
        moved = graph.add(Node(node.op, inputs, [between], name="last", position=(*node.position, 0)))
        moved.source = node.source
        graph.add(Node(Sum((3.0,)), [between], [value], name="last", position=(*node.position, 1)))

    model = chain()
    result = edited(model, edit)
    assert [(n.op_type, list(n.input), list(n.output)) for n in result.graph.node[3:]] == [
        ("Relu", ["c"], ["t"]),
        ("Mul", ["t", "last_fused_factor"], ["y"]),
    ]
    assert result.graph.node[3].metadata_props == model.graph.node[3].metadata_props


def test_one_reader_may_change_while_others_read_the_old_value() -> None:
    model = parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]> main (float[2] x) => (float[2] y, float[2] z)
        { [n] a = Neg(x)  [one] y = Relu(a)  [two] z = Relu(a) }"""
    )

    def edit(graph: Graph) -> None:
        node = find(graph, "one")
        graph.provenance.successors[find(graph, "n").outputs[0]] = graph.inputs[0]
        graph.connect(node, [graph.inputs[0]])

    result = edited(model, edit)
    assert [list(node.input) for node in result.graph.node] == [["x"], ["x"], ["a"]]


def test_a_stored_constant_becomes_an_initializer_under_its_name() -> None:
    def edit(graph: Graph) -> None:
        store(graph, "double", np.full((1, 2, 8), 7, np.float32))
        graph.remove(find(graph, "first"))

    result = edited(chain(), edit)
    assert [node.name for node in result.graph.node] == ["second", "last"]
    (stored,) = [tensor for tensor in result.graph.initializer if tensor.name == "d"]
    np.testing.assert_array_equal(numpy_helper.to_array(stored), np.full((1, 2, 8), 7, np.float32))


def test_steps_stand_where_the_node_stood() -> None:
    def edit(graph: Graph) -> None:
        node = find(graph, "double")
        conv = Conv.of(np.ones((2, 2, 3)), begin=(1,), end=(1,), pad_value=np.full(2, 2.0))
        put(graph, ["double"], conv, *(v for v in node.inputs[:1] if v))

    result = edited(chain(), edit)
    assert [node.name for node in result.graph.node] == ["first", "double_pad", "double", "second", "last"]
    assert list(result.graph.node[1].output) == ["d_pad"]


def test_before_ir_version_4_new_tensors_are_nodes() -> None:
    model = parser.parse_model(
        """<ir_version: 3, opset_import: ["": 8]>
        main (float[1,2,4] x) => (float[1,2,4] y) { [r] y = Relu(x) }"""
    )

    def edit(graph: Graph) -> None:
        put(graph, ["r"], Conv.of(np.ones((2, 2, 1))), graph.inputs[0])

    result = edited(model, edit)
    assert kinds(result) == ["Constant", "Conv"]
    assert [value.name for value in result.graph.input] == ["x"]


# --- bodies and functions

BRANCHES = """
<ir_version: 8, opset_import: ["": 17]>
main (bool c, float[2] x) => (float[2] y)
<float[2] k = {1, 2}, float[2] unused_after = {3, 4}>
{
   [noop] a = Identity(x)
   [sum] s = Add(a, unused_after)
   [branch] y = If (c) <
      then_branch = then () => (float[2] t) <float[2] k2 = {1, 1}> { [inner] t = Add(a, k) },
      else_branch = other () => (float[2] e) { [x_] x_1 = Neg(s)  [inner2] e = Neg(x_1) }
   >
}
"""


def test_captured_values_follow() -> None:
    def edit(graph: Graph) -> None:
        skip(graph, "noop")
        put(graph, ["sum"], Sum((2.0,)), graph.inputs[1])

    model = parser.parse_model(BRANCHES)
    result = edited(model, edit)
    then, other = (attribute.g for attribute in result.graph.node[-1].attribute)
    assert list(then.node[0].input) == ["x", "k"]
    assert list(other.node[0].input) == ["s"]
    assert [tensor.name for tensor in result.graph.initializer] == ["k", "sum_fused_factor"]
    x = np.array([1, 2], np.float32)
    for condition in (True, False):
        (got,) = run(result, {"c": np.array(condition), "x": x})
        np.testing.assert_array_equal(got, x + np.array([1, 2]) if condition else 2 * x)


def test_a_rewrite_in_a_body_reads_what_the_outer_graph_has_become() -> None:
    def outer(graph: Graph) -> None:
        put(graph, ["sum"], Sum((2.0,)), graph.inputs[1])

    def inner(graph: Graph) -> None:
        put(graph, ["x_", "inner2"], Sum((3.0,)), graph.captured[0])

    result = edited(parser.parse_model(BRANCHES), outer, lambda _: None, inner)
    other = result.graph.node[-1].attribute[1].g
    assert [(node.op_type, list(node.input)) for node in other.node] == [
        ("Mul", ["s", "inner2_fused_factor"])
    ]
    assert [tensor.name for tensor in other.initializer] == ["inner2_fused_factor"]


def test_what_only_a_body_read_goes_with_its_reader() -> None:
    def inner(graph: Graph) -> None:
        put(graph, ["inner"], Sum((3.0,)), graph.captured[0])

    result = edited(parser.parse_model(BRANCHES), lambda _: None, inner)
    assert [tensor.name for tensor in result.graph.initializer] == ["unused_after"]


def test_a_body_that_hides_a_name_is_given_another() -> None:
    model = parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]>
        main (bool c, float[2] x) => (float[2] y)
        {
           [noop] a = Identity(x)
           [branch] y = If (c) <
              then_branch = then () => (float[2] t) { [n] h = Neg(a)  [m] t = Add(h, a) },
              else_branch = other () => (float[2] e) { [o] e = Neg(a) }
           >
        }"""
    )
    body = model.graph.node[1].attribute[0].g
    body.node[0].output[0] = "x"
    body.node[1].input[0] = "x"
    copy = onnx_io.from_any(model)
    graphs = import_model(copy)
    skip(graphs[0], "noop")
    for graph in graphs:
        export_graph(graph)
    result = onnx_io.to_same(copy, model)
    then = result.graph.node[0].attribute[0].g
    assert [(list(node.input), list(node.output)) for node in then.node] == [
        (["x"], ["x_1"]),
        (["x_1", "x"], ["t"]),
    ]


FUNCTION = """
<ir_version: 9, opset_import: ["": 17, "local": 1]>
main (float[1,2,4] x) => (float[1,2,4] y) { [call] y = local.f(x) }
<domain: "local", opset_import: ["": 17]>
f (p) => (q) { [neg] n = Neg(p)  [relu] q = Relu(n) }
"""


def test_functions_hold_constants_as_nodes() -> None:
    def edit(graph: Graph) -> None:
        relu = find(graph, "relu")
        relu.outputs[0].dtype = "float32"
        put(graph, ["neg", "relu"], Sum((3.0,)), graph.inputs[0])

    model = parser.parse_model(FUNCTION)
    result = edited(model, lambda _: None, edit)
    (function,) = result.functions
    assert [node.op_type for node in function.node] == ["Constant", "Mul"]
    assert list(function.output) == ["q"]
    x = np.arange(8, dtype=np.float32).reshape(1, 2, 4)
    np.testing.assert_array_equal(run(result, {"x": x})[0], 3 * x)


def test_the_body_of_a_removed_node_is_left_alone() -> None:
    def outer(graph: Graph) -> None:
        put(graph, ["branch"], Sum((2.0,)), graph.inputs[1])
        graph.remove(find(graph, "sum"))
        graph.remove(find(graph, "noop"))

    result = edited(parser.parse_model(BRANCHES), outer)
    assert kinds(result) == ["Mul"]
    assert [tensor.name for tensor in result.graph.initializer] == ["branch_fused_factor"]


def test_a_graph_that_does_not_come_from_onnx_is_refused() -> None:
    with pytest.raises(AssertionError, match="other does not come from ONNX"):
        export_graph(Graph("other", object()))  # type: ignore[arg-type]  # no host at all


def test_a_lazy_tensor_of_the_result_has_values() -> None:
    copy = onnx_io.from_any(chain())
    (graph,) = import_model(copy)
    put(graph, ["second"], Conv.of(np.full((2, 2, 1), 0.1)), find(graph, "double").outputs[0])
    export_graph(graph)
    tensor = copy.graph.initializers["second_fused_weight"].const_value
    assert isinstance(tensor, onnx_ir.LazyTensor)
    np.testing.assert_array_equal(tensor.numpy(), np.full((2, 2, 1), 0.1, np.float32))


@pytest.mark.parametrize(
    ("stated", "dims"),
    [(None, ["N", 4, None, 3]), ((), []), (("A", "B", 3, 3), ["A", "B", 3, 3])],
    ids=["nothing", "a scalar", "anything"],
)
def test_of_an_output_that_states_no_shape_what_is_known_is_stated(
    stated: tuple[str | int, ...] | None, dims: list[str | int | None]
) -> None:
    """The standard wants one; what a file does state is left as it is."""
    w = numpy_helper.from_array(np.ones((4, 2, 3, 3), np.float32), "w")
    nodes = [onnx.helper.make_node("Conv", ["x", "w"], ["a"]), onnx.helper.make_node("Relu", ["a"], ["y"])]
    given = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 2, "H", 5])
    made = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, stated)
    graph = onnx.helper.make_graph(nodes, "g", [given], [made], [w])
    result = fuser.optimize(onnx.helper.make_model(graph, ir_version=9)).graph.output[0].type.tensor_type
    assert result.HasField("shape")
    assert [
        d.dim_param or (d.dim_value if d.HasField("dim_value") else None) for d in result.shape.dim
    ] == dims


def test_what_bodies_read_of_a_removed_pad_is_what_it_padded() -> None:
    """A resized image is mapped before it is resized; what others read of it, in a body too, is as it was."""
    text = """g (float[N,3,4,5] x, bool c) => (float[N,2,8,10] y, float[N,3,4,5] z) {
        p = Pad (x, none) u = Resize <mode = "nearest"> (p, , twice) y = Conv (u, w)
        z = If (c) <then_branch = t () => (float[N,3,4,5] a) { a = Neg (p) },
            else_branch = e () => (float[N,3,4,5] b) { b = Exp (p) }> }"""
    weight = np.random.default_rng(0).standard_normal((2, 3, 1, 1)).astype(np.float32)
    model = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["": 17]> {text}')
    constants: dict[str, np.ndarray[Any, Any]] = {
        "none": np.zeros(8, np.int64),
        "twice": np.array([1, 1, 2, 2], np.float32),
        "w": weight,
    }
    for name, array in constants.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    result = fuser.optimize(model, verify=True)
    assert [node.op_type for node in result.graph.node] == ["Conv", "Resize", "If"]

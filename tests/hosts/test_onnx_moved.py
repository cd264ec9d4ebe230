"""Nodes that make another value than in the source, and what is stated of graph inputs and outputs."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

import fuser
from tests.fuzz.judge import faults

HEAD = '<ir_version: 8, opset_import: ["": 17, "local": 1]>'
X = "float[N,3] x"

# Each makes `i` by a node with bodies that hold names, constants and values captured from around.
BODIES = {
    "if": """i = If (c) <
        then_branch = a () => (float[N,3] p) { k = Constant <value_float = 2.0> () p = Mul (x, k) },
        else_branch = b () => (float[N,3] q) { q = Neg (x) }>""",
    "nested": """i = If (c) <
        then_branch = a () => (float[N,3] p) {
            p = If (c) <
                then_branch = d () => (float[N,3] r) { r = Abs (x) },
                else_branch = e () => (float[N,3] s) { s = Exp (x) }> },
        else_branch = b () => (float[N,3] q) { q = Neg (x) }>""",
    "loop": """n = Constant <value_int = 3> ()
        t = Constant <value = bool {1}> ()
        i = Loop (n, t, x) <body = a (int64 at, bool go, float[N,3] was) => (bool on, float[N,3] p) {
            on = Identity (go) p = Add (was, x) }>""",
    "scan": """i = Scan (x) <num_scan_inputs = 1, body = a (float[3] row) => (float[3] p) {
            p = Softmax (row) }>""",
}
FEEDS = [
    {"x": np.arange(3.0 * n, dtype=np.float32).reshape(n, 3), "c": np.array(c)}
    for n in (1, 4)
    for c in (True, False)
]


@pytest.mark.parametrize("behind", ["y = Identity (i)", "j = Identity (i) y = Identity (j)"])
@pytest.mark.parametrize("maker", BODIES.values(), ids=BODIES)
def test_what_has_bodies_keeps_them_where_it_makes_another_value(maker: str, behind: str) -> None:
    text = f"{HEAD} g ({X}, bool c) => (float[N,3] y) {{ {maker} {behind} }}"
    model = parser.parse_model(text)
    result = fuser.optimize(model)
    assert [node.op_type for node in result.graph.node].count("Identity") == 0
    assert list(faults(model, result, FEEDS)) == []


def test_attributes_stay_for_constants_that_are_computed_when_the_file_is_written() -> None:
    """A Gather of the last axis, moved to the graph output, whose result is a weight too."""
    model = parser.parse_model(f"""{HEAD} g ({X}) => (float[N,3] y, float[3,3] z)
    <float[3,3,2] w = {{1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18}}, int64 one = {{1}}> {{
        k = Gather <axis = 2> (w, one)
        z = Identity (k)
        h = MatMul (x, k)
        y = MatMul (h, k) }}""")
    result = fuser.optimize(model)
    assert list(faults(model, result, [{"x": feed["x"]} for feed in FEEDS])) == []


def test_a_node_without_a_name_gets_none() -> None:
    model = parser.parse_model(f"{HEAD} g ({X}) => (float[N,3] y) {{ i = Softmax (x) y = Identity (i) }}")
    result = fuser.optimize(model)
    assert [(node.op_type, node.name) for node in result.graph.node] == [("Softmax", "")]


@pytest.mark.parametrize(
    ("inner", "stated"),
    [("", ""), ("[]", ""), ("", "[]"), ("[]", "[]"), ("[N,3]", ""), ("", "[N,3]"), ("[N,3]", "[N,3]")],
)
def test_graph_outputs_are_stated_as_they_were(inner: str, stated: str) -> None:
    """With a shape, or with the empty shape of a scalar; where there was none, with what is known."""
    scalar = "[]" in (inner, stated)
    made = "s = ReduceSum <keepdims = 0> (x)" if scalar else "s = Relu (x)"
    model = parser.parse_model(f"{HEAD} g ({X}) => (float y) {{ {made} y = Identity (s) }}")
    for info, shape in ((model.graph.output[0], stated), (model.graph.value_info.add(name="s"), inner)):
        info.type.tensor_type.elem_type = TensorProto.FLOAT
        info.type.tensor_type.ClearField("shape")
        if shape:
            info.CopyFrom(helper.make_tensor_value_info(info.name, 1, ["N", 3] if "N" in shape else []))
    result = fuser.optimize(model)
    assert len(result.graph.node) == 1
    if not stated:
        known: list[str | int | None] = [] if scalar else ["N", 3]
        model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", 1, known))
    assert result.graph.output[0] == model.graph.output[0]


def test_steps_that_are_fed_are_not_steps_of_one() -> None:
    """A Slice of a shape, whose result says how many columns there are."""
    model = parser.parse_model(f"""{HEAD} g (float[N,4,2,6] x, int64[1] by) => (float[a,b] y)
    <int64[1] none = {{0}}, int64[1] four = {{4}}, int64[1] rest = {{-1}}, int64[1] first = {{0}}> {{
        s = Shape (x)
        t = Slice (s, none, four, first, by)
        u = Gather (t, one)
        w = Concat <axis = 0> (rest, u)
        v = Reshape (x, w)
        y = Relu (v) }}""")
    model.graph.initializer.append(numpy_helper.from_array(np.array([1]), "one"))
    x = np.arange(96.0, dtype=np.float32).reshape(2, 4, 2, 6)
    feeds = [{"x": x, "by": np.array([step])} for step in (1, 2, 3)]
    assert list(faults(model, fuser.optimize(model), feeds)) == []


def test_a_judge_that_finds_nothing_can_find_something() -> None:
    model = parser.parse_model(
        f"{HEAD} g ({X}, bool c) => (float[N,3] y) {{ {BODIES['if']} y = Identity (i) }}"
    )
    worse = onnx.ModelProto()
    worse.CopyFrom(model)
    worse.graph.node[0].attribute[0].g.node[0].attribute[0].f = 2.001
    worse.graph.output[0].type.tensor_type.ClearField("shape")
    assert [fault.split(":")[0] for fault in faults(model, worse, FEEDS)] == [
        "invalid", "interface", "wrong", "wrong",
    ]  # fmt: skip

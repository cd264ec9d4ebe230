"""What is known of a value because of those that read it."""

from itertools import pairwise
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import fuser
from tests.small_models import normal

HEADER = '<ir_version: 9, opset_import: ["": 17, "com.microsoft": 1, "my": 1]>'
NORM: dict[str, Any] = {
    "s": normal(6),
    "b": normal(6, seed=1),
    "m": normal(6, seed=2),
    "v": np.abs(normal(6, seed=3)) + 0.5,
}


def model(
    graph: str, functions: str = "", kind: type = np.float32, **constants: np.ndarray
) -> onnx.ModelProto:
    made = onnx.parser.parse_model(f"{HEADER} {graph} {functions}")
    for name, array in constants.items():
        made.graph.initializer.append(numpy_helper.from_array(array.astype(kind), name))
    return made


@pytest.mark.parametrize("between", ["u = Relu (g)", "u = Identity (g)", "p = Sigmoid (g) u = Tanh (p)"])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_a_norm_behind_what_an_unknown_operator_leads_to(between: str, kind: Any) -> None:
    name = {np.float32: "float", np.float64: "double"}[kind]
    made = model(
        f"""g ({name}[N,4,H,W] x) => ({name}[a,b,c,d] y) {{ g = com.microsoft.Odd (x) {between}
            h = Conv <pads = [1,1,1,1]> (u, w) n = BatchNormalization (h, s, b, m, v) y = Relu (n) }}""",
        kind=kind, w=normal(6, 4, 3, 3), **NORM,
    )  # fmt: skip
    found = [node.op_type for node in fuser.optimize(made).graph.node]
    assert "BatchNormalization" not in found


def test_a_matrix_behind_an_unknown_operator() -> None:
    made = model(
        """g (float[N,4] x) => (float[a,b] y) { g = com.microsoft.Odd (x)
            h = Gemm (g, w) k = Mul (h, s) y = Relu (k) }""",
        w=normal(4, 6), s=NORM["s"],
    )  # fmt: skip
    assert [node.op_type for node in fuser.optimize(made).graph.node] == ["Odd", "Gemm", "Relu"]


@pytest.mark.parametrize("calls", [1, 2, 3])
def test_a_function_knows_its_input_by_its_own_weights(calls: int) -> None:
    names = ["x", *(f"t{i}" for i in range(calls - 1)), "y"]
    text = " ".join(f"{b} = my.block ({a})" for a, b in pairwise(names))
    made = model(f"g (float[N,6,9,9] x) => (float[a,b,c,d] y) {{ {text} }}")
    body = [
        *(
            helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array.astype(np.float32)))
            for name, array in {"w": normal(6, 6, 3, 3) / 5, **NORM}.items()
        ),
        helper.make_node("Conv", ["h", "w"], ["c"]),
        helper.make_node("BatchNormalization", ["c", "s", "b", "m", "v"], ["r"]),
    ]
    made.functions.append(
        helper.make_function("my", "block", ["h"], ["r"], body, [helper.make_opsetid("", 17)])
    )
    result = fuser.optimize(made, verify=True)
    assert [n.op_type for n in result.functions[0].node if n.op_type != "Constant"] == ["Conv"]


def test_types_are_shared_where_the_standard_says_so_alone() -> None:
    """A Cast and a Where may have types of their own."""
    made = model(
        """g (bool[N,4] q) => (float[a,b] y) { g = com.microsoft.Odd (q) c = Cast <to = 1> (g)
            h = Mul (c, t) k = Mul (h, t) y = Where (q, k, k) }""",
        t=np.array(2.0),
    )
    result = fuser.optimize(made)
    assert result.graph.input[0].type.tensor_type.elem_type == TensorProto.BOOL
    assert [node.op_type for node in result.graph.node].count("Mul") == 1


@pytest.mark.parametrize("kind", ["float", "double", "float16"])
def test_a_constant_in_the_type_of_another_value_is_a_constant(kind: str) -> None:
    """Exporters that optimise nothing give a convolution without a bias one of zeros, cast and expanded."""
    dtype = {"float": np.float32, "double": np.float64, "float16": np.float16}[kind]
    made = model(
        f"""g ({kind}[N,4,H,W] x) => ({kind}[a,b,c,d] y) {{
            z = Constant <value = float {{0.5}}> () c = CastLike (z, x) o = Shape <start = 0, end = 1> (w)
            e = Expand (c, o) h = Conv <pads = [1,1,1,1]> (x, w, e)
            n = BatchNormalization (h, s, b, m, v) l = CastLike (n, x) y = Relu (l) }}""",
        kind=dtype, w=normal(6, 4, 3, 3), **NORM,
    )  # fmt: skip
    assert [node.op_type for node in fuser.optimize(made, verify=True).graph.node] == ["Conv", "Relu"]

"""What carries a scale and a shift, and what does not: each operator in ONNX files, up and down."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import pytest

import fuser
from tests.small_models import normal, parsed

NORMS = {"Mul", "Add", "BatchNormalization", "Div", "Sub"}


@dataclass(frozen=True)
class Case:
    """An operator of `h`, 6 channels, which makes `r`; the shape that a number of each channel has there."""

    text: str
    numbers: tuple[int, ...]
    positive: bool = False
    shifts: bool = True
    image: str = "N,4,H,W"


CARRY = {
    "Reshape": Case("r = Reshape (h, sequence)", (1, 6, 1)),
    "Reshape that splits": Case("r = Reshape (h, halves)", (1, 2, 1, 1, 1)),
    "Flatten": Case("f = GlobalMaxPool (h) r = Flatten (f)", (1, 6), positive=True),
    "Transpose": Case("r = Transpose <perm = [0,2,3,1]> (h)", (6,)),
    "Transpose, axes merged": Case("p = Transpose <perm = [0,2,3,1]> (h) r = Reshape (p, rows)", (6,)),
    "Squeeze": Case("g = GlobalAveragePool (h) r = Squeeze (g, spatial)", (1, 6)),
    "Unsqueeze": Case("r = Unsqueeze (h, last)", (1, 6, 1, 1, 1)),
    "Resize nearest": Case('r = Resize <mode = "nearest"> (h, , twice)', (1, 6, 1, 1)),
    "Resize linear": Case('r = Resize <mode = "linear"> (h, , twice)', (1, 6, 1, 1)),
    "MaxPool": Case("r = MaxPool <kernel_shape = [3,3], pads = [1,1,1,1]> (h)", (1, 6, 1, 1), positive=True),
    "AveragePool": Case("r = AveragePool <kernel_shape = [3,3], pads = [1,1,1,1]> (h)", (1, 6, 1, 1)),
    "GlobalAveragePool": Case("r = GlobalAveragePool (h)", (1, 6, 1, 1)),
    "GlobalMaxPool": Case("r = GlobalMaxPool (h)", (1, 6, 1, 1), positive=True),
    "ReduceMean": Case("r = ReduceMean <axes = [2,3], keepdims = 0> (h)", (1, 6)),
    "ReduceMax": Case("r = ReduceMax <axes = [3], keepdims = 1> (h)", (1, 6, 1, 1), positive=True),
    "Pad edge": Case('r = Pad <mode = "edge"> (h, around)', (1, 6, 1, 1)),
    "Pad reflect": Case('r = Pad <mode = "reflect"> (h, around)', (1, 6, 1, 1)),
    "DepthToSpace": Case("g = Concat <axis = 1> (h, h) r = DepthToSpace <blocksize = 2> (g)", (1, 3, 1, 1)),
    "DepthToSpace CRD": Case(
        'g = Conv (h, twelve) r = DepthToSpace <blocksize = 2, mode = "CRD"> (g)', (1, 3, 1, 1)
    ),
    "Relu": Case("r = Relu (h)", (1, 6, 1, 1), positive=True, shifts=False),
    "LeakyRelu": Case("r = LeakyRelu (h)", (1, 6, 1, 1), positive=True, shifts=False),
    "Concat": Case("g = Conv <pads = [1,1,1,1]> (x, v) r = Concat <axis = 1> (h, g)", (1, 12, 1, 1)),
    "Add": Case("g = Conv <pads = [1,1,1,1]> (x, v) r = Add (h, g)", (1, 6, 1, 1)),
    "Sub of a pool": Case(
        "g = Conv <pads = [1,1,1,1]> (x, v) o = MaxPool <kernel_shape = [3,3], pads = [1,1,1,1]> (g) "
        "r = Sub (h, o)",
        (1, 6, 1, 1),
        positive=True,
    ),
    "two of them": Case(
        'p = Resize <mode = "nearest"> (h, , twice) r = Transpose <perm = [0,2,3,1]> (p)', (6,)
    ),
}

CONSTANTS = {
    "sequence": np.array([0, 6, -1]),
    "halves": np.array([0, 2, 3, 0, -1]),
    "rows": np.array([-1, 6]),
    "spatial": np.array([2, 3]),
    "last": np.array([-1]),
    "around": np.array([0, 0, 1, 2, 0, 0, 2, 1]),
    "twelve": normal(12, 6, 1, 1),
    "w": normal(6, 4, 3, 3),
    "v": normal(6, 4, 3, 3, seed=3),
}


def model(text: str, image: str, ends: tuple[str, ...] = ("y",), **constants: Any) -> onnx.ModelProto:
    made = parsed(f"g (float[{image}] x) => (float[] y) {{ {text} }}", **CONSTANTS, **constants)
    made.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "twice"))
    del made.graph.output[:]
    known = onnx.shape_inference.infer_shapes(made, data_prop=True).graph.value_info
    made.graph.output.extend(value for value in known if value.name in ends)
    used = {name for node in made.graph.node for name in node.input}
    kept = [tensor for tensor in made.graph.initializer if tensor.name in used]
    del made.graph.initializer[:]
    made.graph.initializer.extend(kept)
    return made


def left(made: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in made.graph.node if node.op_type in NORMS and "scale" in str(node.input)]


def behind(case: Case, *, sign: float = 1.0, shift: float = 1.0) -> onnx.ModelProto:
    """A convolution, the operator, a scale and a shift."""
    text = (
        f"h = Conv <pads = [1,1,1,1]> (x, w) {case.text} m = Mul (r, scale) n = Add (m, shift) y = Tanh (n)"
    )
    size = int(np.prod(case.numbers))
    return model(
        text,
        case.image,
        scale=(sign * np.linspace(0.3, 0.9, size)).reshape(case.numbers),
        shift=shift * np.linspace(-1, 1, size).reshape(case.numbers),
    )


@pytest.mark.parametrize("image", ["N,4,H,W", "2,4,6,8"])
@pytest.mark.parametrize("name", CARRY)
def test_a_convolution_takes_in_what_comes_behind(name: str, image: str) -> None:
    case = CARRY[name]
    source = behind(Case(case.text, case.numbers, image=image), shift=float(case.shifts))
    result = fuser.optimize(source, verify=True)
    found = [node.op_type for node in result.graph.node]
    assert "Mul" not in found, found
    before = [node.op_type for node in source.graph.node]
    assert found.count("Add") <= max(0, before.count("Add") - 1), found
    assert fuser.optimize(result) == result


@pytest.mark.parametrize("name", [name for name, case in CARRY.items() if case.positive])
def test_a_scale_that_is_not_positive_stays_where_a_maximum_is(name: str) -> None:
    result, report = fuser.optimize(
        behind(CARRY[name], sign=-1.0, shift=0.0), return_report=True, verify=True
    )
    assert "the scale is not positive everywhere" in " ".join(event.reason for event in report.events)
    assert {node.op_type for node in result.graph.node} & {"Mul", "BatchNormalization"}


@pytest.mark.parametrize("name", [name for name, case in CARRY.items() if not case.shifts])
def test_a_shift_stays_behind_what_is_only_homogeneous(name: str) -> None:
    result, report = fuser.optimize(behind(CARRY[name]), return_report=True, verify=True)
    assert "a shift does not pass" in " ".join(event.reason for event in report.events)
    assert {node.op_type for node in result.graph.node} & {"Add", "BatchNormalization"}


BEFORE = {
    "Resize": ('r = Resize <mode = "linear"> (n, , twice)', "Conv (r, w)"),
    "Transpose": ("r = Transpose <perm = [0,2,3,1]> (n)", "MatMul (r, square)"),
    "Reshape": ("r = Reshape (n, tokens)", "Conv (r, line)"),
    "Flatten": ("r = Flatten (n)", "Gemm (r, flat)"),
    "AveragePool": ("r = AveragePool <kernel_shape = [3,3], pads = [1,1,1,1]> (n)", "Conv (r, w)"),
    "Pad": ('r = Pad <mode = "reflect"> (n, around)', "Conv (r, w)"),
    "Concat": ("r = Concat <axis = 1> (n, x)", "Conv (r, wide)"),
    "two readers": ('r = Resize <mode = "nearest"> (n, , twice) q = Conv (r, w)', "Conv (r, w)"),
}


@pytest.mark.parametrize("name", BEFORE)
def test_a_convolution_takes_in_what_comes_before(name: str) -> None:
    between, reader = BEFORE[name]
    made = model(
        f"e = Exp (x) n = BatchNormalization (e, a, b, a, c) {between} z = {reader} y = Tanh (z)",
        "2,4,6,8" if name == "Flatten" else "N,4,H,W",
        ("y", "q"),
        a=np.linspace(0.5, 1.5, 4), b=np.linspace(-1, 1, 4), c=np.linspace(0.5, 1.5, 4),
        square=normal(4, 3), tokens=np.array([0, 4, -1]), line=normal(5, 4, 3), flat=normal(192, 3) / 9,
        wide=normal(5, 8, 3, 3) / 4,
    )  # fmt: skip
    result = fuser.optimize(made, verify=True)
    found = [node.op_type for node in result.graph.node]
    assert not NORMS & {*found} - {"Add"}, found
    assert found.count("Add") <= 1  # the bias of a MatMul


@pytest.mark.parametrize(
    ("text", "shape", "reason"),
    [
        ("r = Softmax (h)", (1, 6, 1, 1), "carries no scale"),
        ("r = ReduceMean <axes = [1], keepdims = 1> (h)", (1, 1, 1, 8), "differ along axis"),
        (
            "g = Concat <axis = 1> (h, h) r = DepthToSpace <blocksize = 2> (g) k = Exp (g)",
            (1, 3, 1, 1),
            "also read",
        ),
        ("r = Reshape (h, some)", (1, 12, 1), "differ"),
    ],
)
def test_what_does_not_carry_says_why(text: str, shape: tuple[int, ...], reason: str) -> None:
    size = int(np.prod(shape))
    made = model(
        f"h = Conv <pads = [1,1,1,1]> (x, w) {text} m = Mul (r, scale) y = Tanh (m)",
        "2,4,6,8",
        ("y", "k"),
        some=np.array([2, 12, 24]),
        scale=np.linspace(1, 2, size).reshape(shape),
    )
    _, report = fuser.optimize(made, return_report=True, verify=True)
    declined = [event.reason for event in report.events if event.rewrite == "carry_scale_shift"]
    assert any(reason in said for said in declined), declined

"""What mutated files and random networks found, each by the kind of model that it was."""

import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, parser

import fuser
from fuser.cli import run
from tests.fuzz.judge import faults
from tests.hosts.onnx_models import imported, single

HEAD = '<ir_version: 8, opset_import: ["": 17]>'
POOLED = """<ir_version: 8, opset_import: ["": 17]>
    g (double[N,2,8] x) => (double[N,2,4] y) <double[2] s = {2.0, 3.0}, double[2] b = {0.5, 0.0}> {
        p = Pad (x, pads)
        n = BatchNormalization (p, s, b, b, s)
        y = Slice (n, first, last, axis, step) }"""


def test_no_convolution_of_float64_is_made_where_the_source_has_none() -> None:
    """No runtime has it: a Pad and a norm, which are one depthwise convolution, stay what they are."""
    model = parser.parse_model(POOLED)
    for name, numbers in {
        "pads": [0, 0, 1, 0, 0, 0], "first": [0], "last": [8], "axis": [2], "step": [2],
    }.items():  # fmt: skip
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(numbers), name))
    result = fuser.optimize(model)
    assert not {node.op_type for node in result.graph.node} & {"Conv", "ConvTranspose", "AveragePool"}
    feeds = [{"x": np.linspace(-1, 1, 16 * n).reshape(n, 2, 8)} for n in (1, 3)]
    assert list(faults(model, result, feeds)) == []


def test_where_the_source_has_one_it_is_merged() -> None:
    """Whoever has such a file has a runtime for it."""
    weight = np.arange(1.0, 5.0).reshape(2, 2, 1)
    text = """g (double[N,2,8] x) => (double[N,2,8] y) <double[2] s = {2.0, 3.0}, double[2] b = {0.5, 0.0}> {
        c = Conv (x, w)
        y = BatchNormalization (c, s, b, b, s) }"""
    model = parser.parse_model(f"{HEAD} {text}")
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    assert [node.op_type for node in fuser.optimize(model).graph.node] == ["Conv"]


def test_a_quantisation_annotation_may_name_nothing() -> None:
    model = parser.parse_model(f"{HEAD} g (float[N] x) => (float[N] y) {{ i = Relu (x) y = Identity (i) }}")
    model.graph.quantization_annotation.add(tensor_name="i")
    result = fuser.optimize(model)
    assert [node.op_type for node in result.graph.node] == ["Relu"]


@pytest.mark.parametrize("name", ["a\nb", "a\r\n\tb", "a\u2028b"])
def test_a_complaint_is_one_line_whatever_names_are_like(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = single("Relu", ["x"], given={"x": [2]})
    model.graph.node[0].name, model.graph.node[0].input[0] = name, name
    onnx.save(model, tmp_path / "m.onnx")
    assert run(["optimize", str(tmp_path / "m.onnx"), "-o", str(tmp_path / "o.onnx")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_what_libraries_wonder_about_is_no_complaint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """onnx-ir warns of entries of external data that it does not know."""
    model = single("Add", ["x", "w"], given={"x": [300]}, constants={"w": np.ones(300, np.float32)})
    model.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("y", TensorProto.FLOAT, [300]))
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, size_threshold=0)
    model = onnx.load(tmp_path / "m.onnx", load_external_data=False)
    model.graph.initializer[0].external_data.add(key="colour", value="red")
    onnx.save(model, tmp_path / "m.onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run(["optimize", str(tmp_path / "m.onnx"), "-o", str(tmp_path / "o.onnx")]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("held", ["initializer", "node"])
def test_strings_are_moved_about_by_the_runtime_alone(held: str) -> None:
    """Labels that are picked by constant indices are not computed here, nor anything with them."""
    table = onnx.numpy_helper.from_array(np.array(["cat", "dog", "\u00e4"], dtype=object), "t")
    model = parser.parse_model(
        f"""{HEAD} g (float[N] x) => (string[2] z, bool[2] e, float[N] y) <int64[2] i = {{2,0}}> {{
            z = Gather (t, i) e = Equal (z, z) r = Relu (x) y = Identity (r) }}""".replace("17", "19")
    )
    if held == "initializer":
        model.graph.initializer.append(table)
    else:
        model.graph.node.insert(0, onnx.helper.make_node("Constant", [], ["t"], value=table))
    made = {
        value.name: value
        for node in imported(model).nodes
        for value in (*node.inputs, *node.outputs)
        if value
    }
    assert made["i"].constant is not None
    assert [name for name in "tze" if made[name].constant is not None] == []

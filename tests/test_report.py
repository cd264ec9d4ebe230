"""What a model amounts to, counted by hand, and how it is said."""

import io
import json
from collections.abc import Callable
from typing import NoReturn

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console

from fuser.hosts.onnx.summary import multiply_adds, summarise
from fuser.hosts.summary import Summary
from fuser.report.report import Report, comparison, print_inspection, print_report, short, to_json
from fuser.rewrite.pattern import Event


def weight(name: str, *shape: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.ones(shape, np.float32), name)


def model(
    nodes: list[onnx.NodeProto],
    weights: list[onnx.TensorProto],
    shape: list[int | str] | None = None,
    functions: list[onnx.FunctionProto] | None = None,
) -> onnx_ir.Model:
    """A model that makes `y` of `x`, which is two images of 8 x 10 with 4 channels unless given."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape or [2, 4, 8, 10])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "g", [x], [y], weights)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    return onnx_ir.from_proto(helper.make_model(graph, opset_imports=opsets, functions=functions or []))


def text(show: Callable[[Console], object]) -> str:
    file = io.StringIO()
    show(Console(file=file, markup=False, emoji=False, highlight=False, width=110))
    return file.getvalue()


CONV = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1], strides=[2, 2])


@pytest.mark.parametrize(
    ("nodes", "weights", "expected"),
    [
        # N * O * extent * I/g * taps
        ([CONV], [weight("w", 6, 4, 3, 3)], 2 * 6 * (4 * 5) * 4 * 9),
        (
            [helper.make_node("Conv", ["x", "w"], ["y"], group=2)],
            [weight("w", 6, 2, 1, 1)],
            2 * 6 * (8 * 10) * 2,
        ),
        # N * I * extent of the input * O/g * taps
        (
            [helper.make_node("ConvTranspose", ["x", "w"], ["y"])],
            [weight("w", 4, 5, 2, 2)],
            2 * 4 * 80 * 5 * 4,
        ),
        ([helper.make_node("MatMul", ["x", "w"], ["y"])], [weight("w", 10, 7)], 2 * 4 * 8 * 7 * 10),
        (
            [
                helper.make_node("Flatten", ["x"], ["f"], axis=1),
                helper.make_node("Gemm", ["f", "w"], ["y"], transB=1),
            ],
            [weight("w", 7, 320)],
            2 * 7 * 320,
        ),
        (
            [
                helper.make_node("Flatten", ["x"], ["f"], axis=1),
                helper.make_node("Gemm", ["f", "w"], ["y"], transA=1),
            ],
            [weight("w", 2, 7)],
            320 * 7 * 2,
        ),
        ([helper.make_node("Relu", ["x"], ["y"])], [], 0),
    ],
    ids=["conv", "grouped", "transposed", "matmul", "gemm", "gemm-transA", "none"],
)
def test_multiply_adds(nodes: list[onnx.NodeProto], weights: list[onnx.TensorProto], expected: int) -> None:
    assert summarise(model(nodes, weights)).multiply_adds == expected


def test_multiply_adds_follow_shapes_that_the_graph_computes() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"]),
        helper.make_node("Concat", ["n", "rest"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["y"]),
    ]
    constants = [numpy_helper.from_array(np.array([i]), name) for i, name in ((0, "zero"), (320, "rest"))]
    assert summarise(model(nodes, [*constants, weight("w", 320, 3)])).multiply_adds == 2 * 320 * 3


def test_symbolic_dimensions_have_a_nominal_size() -> None:
    summary = summarise(model([CONV], [weight("w", 6, 4, 3, 3)], ["batch", 4, "height", "width"]))
    assert summary.nominal == {"x": (1, 4, 224, 224)}
    assert summary.multiply_adds == 6 * 112 * 112 * 4 * 9


def test_multiply_adds_are_unknown_behind_a_foreign_operator() -> None:
    nodes = [
        helper.make_node("Blur", ["x"], ["b"], domain="local"),
        helper.make_node("Conv", ["b", "w"], ["y"]),
    ]
    summary = summarise(model(nodes, [weight("w", 6, 4, 3, 3)]))
    assert summary.multiply_adds is None
    assert summary.operators == {"Blur": 1, "Conv": 1}
    assert "unknown" in text(lambda console: console.print(comparison(summary, summary)))


def test_constants_count_as_weights_once_and_not_as_nodes() -> None:
    constant = helper.make_node("Constant", [], ["c"], value=weight("", 4, 1, 1))
    nodes = [
        constant,
        helper.make_node("Mul", ["x", "c"], ["m"]),
        helper.make_node("Mul", ["m", "w"], ["n"]),
        helper.make_node("Add", ["n", "w"], ["y"]),
    ]
    summary = summarise(model(nodes, [weight("w", 10)]))
    assert summary.operators == {"Add": 1, "Mul": 2}
    assert (summary.nodes, summary.parameters, summary.weight_bytes) == (3, 14, 56)


def test_bodies_and_functions_are_included() -> None:
    then = helper.make_graph([helper.make_node("Conv", ["x", "w"], ["t"])], "then", [], [_any("t")])
    other = helper.make_graph(
        [helper.make_node("Conv", ["x", "v"], ["e"])], "else", [], [_any("e")], [weight("v", 6, 4, 1, 1)]
    )
    call = helper.make_node("Twice", ["x"], ["x2"], domain="local")
    twice = helper.make_function(
        "local",
        "Twice",
        ["a"],
        ["b"],
        [helper.make_node("Add", ["a", "a"], ["b"])],
        [helper.make_opsetid("", 17)],
    )
    branch = helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other)
    condition = numpy_helper.from_array(np.array(True), "c")
    summary = summarise(model([call, branch], [condition, weight("w", 6, 4, 1, 1)], functions=[twice]))
    assert summary.operators == {"Add": 1, "Conv": 2, "If": 1, "Twice": 1}
    assert summary.parameters == 24 + 24 + 1


def _any(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, None)


def test_no_weight_is_read() -> None:
    def read() -> NoReturn:
        raise AssertionError("read")

    given = model([CONV], [weight("w", 6, 4, 3, 3)])
    lazy = onnx_ir.LazyTensor(read, dtype=onnx_ir.DataType.FLOAT, shape=onnx_ir.Shape((6, 4, 3, 3)), name="w")
    given.graph.initializers["w"].const_value = lazy
    summary = summarise(given)
    assert summary.parameters == 216
    assert summary.multiply_adds == 2 * 6 * 20 * 4 * 9


# --- the report ---


def summary(**operators: int) -> Summary:
    return Summary(operators, 1500, 6000, {"x": (1, 4, 8, 10)}, lambda: multiply_adds(onnx.ModelProto()))


def event(rewrite: str, node: str, reason: str = "") -> Event:
    return Event(rewrite, node, "declined" if reason else "applied", reason, () if reason else ("gone",), "g")


@pytest.fixture
def report() -> Report:
    events = [
        event("fold_batch_norm", "bn1"),
        event("fold_batch_norm", "bn2"),
        event("merge_branches", "add[0]"),
        event("fold_batch_norm", "bn3", "also read by 'tap'"),
        event("fold_batch_norm", "bn4", "also read by 'tap'"),
        event("merge_branches", "add1", "stride differs: (2, 2) and (1, 1)"),
    ]
    return Report(
        events, summary(Conv=3, BatchNormalization=4), summary(Conv=2, Relu=1), 0.25, source="in.onnx"
    )


def test_report_as_text(report: Report) -> None:
    lines = text(lambda console: print_report(report, console)).splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in lines if line.strip()}
    assert rows["BatchNormalization"] == ["4", "0", "-100.0%"]
    assert rows["Conv"] == ["3", "2", "-33.3%"]
    assert rows["Relu"] == ["0", "1", "new"]
    assert "applied   fold_batch_norm 2, merge_branches 1" in lines
    assert "declined  3; `graph-fuser inspect in.onnx` says what and why" in lines
    assert "took      0.25 s" in lines


def test_refusals_are_grouped_by_reason_with_the_nodes(report: Report) -> None:
    shown = text(lambda console: print_inspection(report, console))
    assert "fold_batch_norm applies (2)\n    bn1, bn2\n" in shown
    assert "merge_branches applies (1)\n    add[0]\n" in shown  # a name in brackets is not markup
    assert "fold_batch_norm declined (2): also read by 'tap'\n    bn3, bn4\n" in shown
    assert "merge_branches declined (1): stride differs: (2, 2) and (1, 1)\n    add1\n" in shown


def test_refusals_that_differ_in_values_only_stand_together(report: Report) -> None:
    report.events.append(event("merge_branches", "add2", "stride differs: (1, 1) and (2, 2)"))
    shown = text(lambda console: print_inspection(report, console))
    assert shown.endswith(
        "merge_branches declined (2): stride differs\n"
        "    (2, 2) and (1, 1)\n        add1\n"
        "    (1, 1) and (2, 2)\n        add2\n"
    )


def test_lines_are_not_wrapped_in_a_file(report: Report) -> None:
    names = [f"node{i}" for i in range(100)]
    report.events = [event("fold_batch_norm", name, "also read") for name in names]
    assert "    " + ", ".join(names) + "\n" in text(lambda console: print_inspection(report, console))


def test_report_as_json(report: Report) -> None:
    result = json.loads(report.to_json())
    assert result["source"] == "in.onnx"
    assert result["before"]["operators"] == {"Conv": 3, "BatchNormalization": 4}
    assert result["applied"][0] == {
        "rewrite": "fold_batch_norm",
        "graph": "g",
        "node": "bn1",
        "removed": ["gone"],
    }
    assert result["declined"][2]["reason"] == "stride differs: (2, 2) and (1, 1)"
    assert result["verification"] is None


def test_json_has_no_number_that_json_lacks() -> None:
    assert json.loads(to_json({"a": [float("inf"), (float("nan"), 1.5)]})) == {"a": ["inf", ["nan", 1.5]]}


@pytest.mark.parametrize(
    ("number", "expected"), [(0, "0 "), (999, "999 "), (1512581120, "1.51 G"), (9132616, "9.13 M")]
)
def test_short(number: int, expected: str) -> None:
    assert short(number) == expected

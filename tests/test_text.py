"""The text of a graph is the text of the graph that it says, whatever that holds; what is wrong is said."""

import re

import numpy as np
import onnx_ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fuser.ir.text
from fuser.algebra.conv import Conv, average_pool, identity, pad, scale_shift
from fuser.errors import InputError
from fuser.hosts.onnx.importer import import_model
from fuser.ir.constant import Constant
from fuser.ir.extents import Dim
from fuser.ir.graph import Graph
from fuser.ir.node import Node, Value
from fuser.ir.ops import Concat, Op, Opaque, Permute, Reshape, Select, Sum
from fuser.ir.text import read, write
from fuser.rewrite.driver import run
from fuser.rewrite.pattern import Log, select
from fuser.validate import check
from tests.graphs import PlainHost, evaluate, random_conv
from tests.small_models import convnet
from tests.strategies import convs, integers, seeds


def graph_of(
    op: Op,
    *inputs: Value | None,
    label: str = "",
    made: int = 1,
    shape: tuple[Dim, ...] | None = None,
    dtype: str | None = "float32",
    name: str = "y",
) -> Graph:
    """A graph of one node, its constants told by their values."""
    graph = Graph("one", PlainHost())
    graph.inputs = [value for value in dict.fromkeys(inputs) if value is not None and value.constant is None]
    outputs = [Value(f"{name}{index or ''}", shape, dtype) for index in range(made)]
    graph.add(Node(op, inputs, outputs, label=label, position=(0,)))
    graph.outputs = outputs
    return graph


def again(graph: Graph) -> str:
    """The text of a graph, which is also that of the graph that it says."""
    text = write(graph)
    assert write(read(text, PlainHost())) == text
    return text


def line(op: Op, *shape: Dim, label: str = "") -> str:
    """What the text says of an operator that reads a tensor of that shape."""
    text = again(graph_of(op, Value("x", shape, "float32"), label=label))
    found = re.search(r"^y(?:: float32 [^=]*)? = (.*) \(x\)$", text, re.MULTILINE)
    assert found, text
    return found[1]


def test_the_example_of_the_module_is_one() -> None:
    doc = fuser.ir.text.__doc__ or ""
    example = [row[4:] for row in doc.split("\n\n")[1].splitlines()]
    given_ = [re.split(r"  +", row)[0] for row in example]
    text = "\n".join([*given_, ""])
    assert write(read(text, PlainHost())) == text


@st.composite
def thinned(draw: st.DrawFn) -> Conv:
    """A convolution some of whose outputs, inputs or taps have no weights, or whose kernel has a low rank."""
    conv = draw(convs(transposed=None))
    weight = conv.weight
    for axis in draw(st.sets(st.integers(0, weight.ndim - 1))):
        at = draw(st.sets(st.integers(0, weight.shape[axis] - 1)))
        weight[(slice(None),) * axis + (list(at),)] = 0
    if conv.groups == 1 and draw(st.booleans()):
        rank = draw(st.integers(1, 2))
        rows, columns = integers(draw(seeds), conv.outputs, rank), integers(draw(seeds), rank, weight[0].size)
        weight = (rows @ columns).reshape(weight.shape)
    return Conv.of(
        weight,
        conv.bias,
        groups=conv.groups,
        stride=conv.stride,
        dilation=conv.dilation,
        begin=conv.begin,
        end=conv.end,
        pad_value=conv.pad_value,
        axis=conv.axis,
        transposed=conv.transposed,
    )


@given(thinned(), st.sampled_from(["", "batch_norm"]), st.booleans())
def test_every_convolution(conv: Conv, label: str, known: bool) -> None:
    shape = (2, conv.inputs, *(9,) * conv.rank) if conv.axis == 1 else (2, 3, conv.inputs)
    again(graph_of(conv, Value("x", shape if known else None, "float32"), label=label))


LETTERS = st.text(st.characters(codec="utf-8"), max_size=8) | st.sampled_from(
    [
        "return",
        "nan",
        "inf",
        "_",
        "2",
        "a b",
        "a: b",
        "/x/y_0",
        "onnx::Conv_1",
        "x'",
        "scale",
        "linear, 4 -> 4",
        "?",
    ]
)
TYPES = st.tuples(
    st.none() | st.lists(st.none() | st.integers(-1, 99) | LETTERS, max_size=4).map(tuple),
    st.none() | st.sampled_from(["float32", "int64", "string"]),
)


@given(st.lists(st.tuples(LETTERS, TYPES), min_size=1, max_size=4), LETTERS, LETTERS, TYPES, st.data())
def test_every_name_and_type(
    values: list[tuple[str, tuple[tuple[Dim, ...] | None, str | None]]],
    kind: str,
    name: str,
    made: tuple[tuple[Dim, ...] | None, str | None],
    data: st.DataObject,
) -> None:
    inputs = [Value(called, *known) for called, known in values]
    read_ = [value if data.draw(st.booleans()) else None for value in inputs]
    graph = graph_of(Opaque(kind), *read_, name=name, shape=made[0], dtype=made[1], made=2)
    graph.inputs, graph.captured = inputs[:1], inputs[1:2]
    again(graph)


numbers = st.floats(allow_infinity=True, allow_nan=False)


@given(st.lists(numbers, min_size=1, max_size=4), numbers)
def test_every_sum(coefficients: list[float], offset: float) -> None:
    inputs = [Value(f"x{index}", (2,), "float32") for index in range(len(coefficients))]
    graph = graph_of(Sum(tuple(coefficients), offset), *inputs)
    (node,) = read(again(graph), PlainHost()).nodes
    assert node.op == Sum(tuple(coefficients), offset)


@pytest.mark.parametrize(
    ("op", "text"),
    [
        (Sum((1.0,)), "y = x"),
        (Sum((-1.0,), 0.5), "y = -x + 0.5"),
        (Sum((2.0, -1.0, -0.25), -3.0), "y = 2 x - x - 0.25 x - 3"),
        (Sum((1e-5,), 1e20), "y = 1e-05 x + 1e+20"),
    ],
)
def test_sums(op: Sum, text: str) -> None:
    x = Value("x", (2,), "float32")
    graph = graph_of(op, *[x] * len(op.coefficients), shape=(2,))
    assert again(graph).splitlines()[1] == text


@pytest.mark.parametrize(
    ("op", "shape", "text"),
    [
        (scale_shift(np.array([2.0, 3]), np.array([1.0, 0]), 2), (1, 2, 4, 4), "scale_shift"),
        (scale_shift(np.array([2.0, 3]), np.zeros(2), 0, -1), (1, 5, 2), "scale, axis -1"),
        (scale_shift(np.ones(2), np.array([1.0, 0]), 1), (1, 2, "N"), "shift"),
        (identity(2, 2), (1, 2, 4, 4), "identity"),
        (identity(2, 2), (1, "C", 4, 4), "1x1 conv, 2 -> 2, groups 2"),
        (pad(2, (1, 0), (0, -1)), (1, 2, 4, 4), "pad (1, 0, 0, -1)"),
        (pad(2, (1,), (1,), 2.5), (1, 2, 4), "pad (1, 1) with 2.5"),
        (pad(2, (1,), (1,), np.array([1.0, 2])), (1, 2, 4), "pad (1, 1) with each"),
        (
            average_pool(2, (2, 2), (2, 2), (1, 1), (1, 0), (0, 0)),
            (1, 2, 4, 4),
            "average pool 2x2, stride (2, 2), pads (1, 0, 0, 0)",
        ),
        (random_conv(2, 3, 1, 1, bias=False), (1, 2, 4, 4), "1x1 conv, 2 -> 3"),
        (
            random_conv(2, 3, 3, pad_value=np.array([1.0, 1.0])),
            (1, 2, 4),
            "3 conv, 2 -> 3, pads (1, 1) with 1, bias",
        ),
        (Conv.of(np.array([[1.0, 2], [3, 4]]), axis=-1), (1, 5, 2), "linear, 2 -> 2"),
        (Conv.of(np.diag([1.0, 2])), (1, 2), "linear, 2 -> 2, axis 1, 2 blocks"),
        (Conv.of(np.zeros((3, 2, 3))), (1, 2, 4), "3 conv, 2 -> 3, zero"),
        (Conv.of(np.outer(np.arange(1.0, 9), np.arange(1.0, 9)), axis=-1), (1, 8), "linear, 8 -> 8, rank 1"),
        (Select(((0, 2), (3, 1)), 4, -1), (1, 4), "channels 0:2, 3:4 of 4, axis -1"),
        (Reshape((4, 2)), ("N", 8), "reshape to (-1, 4, 2)"),
        (Permute((0, 2, 1)), (1, 2, "N"), "permute to (0, 2, 1)"),
        (Opaque("Relu"), (1,), "Relu"),
        (Opaque("batch_norm"), (1,), '"batch_norm"'),
        (Opaque("a (b)"), (1,), '"a (b)"'),
    ],
    ids=str,
)
def test_operators_in_words(op: Op, shape: tuple[Dim, ...], text: str) -> None:
    graph = graph_of(op, Value("x", shape, "float32"), made=len(op.ranges) if isinstance(op, Select) else 1)
    assert f" = {text} (x)" in again(graph)


def test_a_label_that_a_pass_cares_for() -> None:
    norm = scale_shift(np.ones(2), np.zeros(2), 2)
    assert line(norm, 1, 2, 4, 4, label="batch_norm") == "batch_norm"
    (node,) = read(write(graph_of(norm, Value("x", (1, 2, 4, 4)), label="batch_norm")), PlainHost()).nodes
    assert node.label == "batch_norm"


def test_constants_and_values_of_an_enclosing_graph() -> None:
    x, outer = Value("x", (2, 2), "float32"), Value("x", None, None)
    held = Value("c", (2, 2), "int64")
    held.constant = Constant.of(np.eye(2, dtype=np.int64))
    graph = graph_of(Opaque("Where"), held, None, x, outer, shape=(2, 2))
    graph.inputs, graph.captured = [x], [outer]
    text = again(graph)
    assert text == (
        "x: float32 [2, 2]\n"
        "x'1: captured ? ?\n"
        "c: constant int64 [2, 2]\n"
        "y: float32 [2, 2] = Where (c, _, x, x'1)\n"
        "return y\n"
    )
    (node,) = read(text, PlainHost()).nodes
    assert node.inputs[0] is not None
    assert node.inputs[0].constant is not None
    assert node.inputs[0].constant.array().dtype == np.int64


def test_several_outputs_and_a_concatenation() -> None:
    text = (
        "x: float32 [1, 4, H, (W + 1)//2]\n"
        "p, q: float32 [1, 3, H, ?] = channels 0:1, 1:4 of 4 (x)\n"
        "a = concat, axis 1 (p, q, x)\n"
        "return a, x\n"
    )
    graph = read(text, PlainHost())
    assert write(graph) == text
    assert graph.outputs[0].shape == (1, 8, "H", "(W + 1)//2")
    assert [node.op for node in graph.ordered()] == [Select(((0, 1), (1, 3)), 4, 1), Concat(3, 1)]


def test_weights_are_the_same_each_time_and_small_integers() -> None:
    text = "x: float32 [1, 2, 4]\na = 3 conv, 2 -> 3, bias (x)\nb = 3 conv, 3 -> 3, bias (a)\nreturn b\n"
    first, second = ([node.op for node in read(text, PlainHost()).ordered()] for _ in range(2))
    assert first == second
    for op in first:
        assert isinstance(op, Conv)
        for values in (op.weight, op.bias):
            assert set(np.abs(values).flat) <= set(range(1, 10))
    (y,) = evaluate(read(text, PlainHost()), {"x": np.ones((1, 2, 4))})
    assert y.shape == (1, 3, 0)


def test_operators_that_are_more_than_their_name() -> None:
    text = "x: float32 [2]\ny = Double (x)\nreturn y\n"
    graph = read(text, PlainHost(), {"Double": Opaque("Double", lambda x: (2 * x,))})
    assert evaluate(graph, {"x": np.ones(2)})[0].tolist() == [2.0, 2.0]


def test_a_model_before_and_after_its_rewrites() -> None:
    (graph,) = import_model(onnx_ir.from_proto(convnet()))
    assert "n = BatchNormalization (h, scale, bias, mean, var)\n" in again(graph)
    run(graph, select(), Log(), check)
    check.settle(graph)
    assert again(graph) == (
        "x: float32 [N, 3, H, W]\n"
        "n = 3x3 conv, 3 -> 4, pads (1, 1, 1, 1), bias (x)\n"
        "r = Relu (n)\n"
        "y = 3x3 conv, 4 -> 5, stride (2, 2), pads (1, 1, 1, 1), bias (r)\n"
        "return y\n"
    )


WRONG = {
    "a b c": "this is no input, node or return",
    "y = Relu (z)": "z is not known",
    "return z": "z is not known",
    "x: float32 [1]": "there is a x already",
    "c: constant float32 [N]": "the extents of the constant c are not known",
    "y = 3x3 dragon (x)": "there is no operator '3x3 dragon'",
    "y = 2 x +": "2 x + is no sum and no operator of values",
    "y = 3x3 conv, 3 -> 4 (x)": "3x3 conv, 3 -> 4 reads 3 channels, not 4",
    "y = 3 conv, 4 -> 4 (x)": "3 conv, 4 -> 4 reads tensors of 3 axes, not 4",
    "y = 3x3 conv, 4 -> 4 (x, x)": "3x3 conv, 4 -> 4 reads 1 values, not 2",
    "y = 3x3 conv, 4 -> 4 (_)": "3x3 conv, 4 -> 4 has no optional inputs",
    "y = concat, axis 1 ()": "concat, axis 1 reads nothing",
    "y = 3x3 conv, 4 -> 4, groups 3 (x)": "4 channels do not divide into 3",
    "y = 3x3 conv, 4 -> 4, zero outputs [4] (x)": "a kernel [4, 4, 3, 3] has nothing at 4 of axis 0",
    "y = 3x3 conv, 4 -> 4, zero taps [] x [] (x)": "is written '3x3 conv, 4 -> 4'",
    "y = 1x1 conv, 4 -> 4, groups 4 (x)": "is written 'scale'",
    "p = channels 0:2, 2:4 of 4 (x)": "channels 0:2, 2:4 of 4 has 2 outputs, not 1",
    "p, q = 2 x": "sum +2*x0 has 1 outputs, not 2",
    "y = batch_norm (u)": "the channels of Value('u', None?) are not known",
    "y = scale ()": "there is no input",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_said_with_its_line(wrong: str) -> None:
    with pytest.raises(InputError, match=re.escape(f"line 3, {wrong!r}: ")) as error:
        read(f"x: float32 [1, 4, 8, 8]\nu: ? ?\n{wrong}\nreturn x\n", PlainHost())
    assert WRONG[wrong] in str(error.value)

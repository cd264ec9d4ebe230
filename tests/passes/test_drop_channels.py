from collections.abc import Sequence

import numpy as np
import onnx
import onnx.checker
import onnxruntime
import pytest

import fuser
from fuser.algebra.conv import Conv
from fuser.errors import Declined
from fuser.ir.graph import Graph
from fuser.ir.node import Value
from fuser.ir.ops import Opaque
from passes.drop_channels import Coupled, drop_channels, without
from tests.graphs import Builder, operators, optimize, random_conv, relu
from tests.small_models import normal, parsed

sigmoid = Opaque("Sigmoid", lambda x: (1 / (1 + np.exp(-x)),), elementwise=True)
multiply = Opaque("Mul", lambda x, y: (x * y,), elementwise=True)
clip = Opaque("Clip", lambda x, low: (np.maximum(x, low),), elementwise=True)
softmax = Opaque("Softmax", lambda x: (np.exp(x) / np.exp(x).sum(1, keepdims=True),))
maximum = Opaque(
    "MaxPool", lambda x: (x.reshape(*x.shape[:2], -1).max(-1)[..., None, None],), homogeneous=True
)


def pruned(
    conv: Conv, rows: Sequence[int] = (), columns: Sequence[int] = (), bias: Sequence[float] = ()
) -> Conv:
    """The operator with zeros for some outputs (their biases given) and inputs, and nowhere else."""
    weight = conv.weight + 5 * (conv.weight >= 0)
    weight[list(rows)] = 0
    weight[:, list(columns)] = 0
    shift = conv.bias.copy()
    shift[list(rows)] = bias or 0
    return Conv.of(
        weight, shift, groups=conv.groups, stride=conv.stride, begin=conv.begin, end=conv.end, axis=conv.axis
    )


def block(first: Conv, *between: Opaque | Conv, last: Conv) -> Graph:
    b = Builder(1, first.inputs, 6, 6)
    x = b.add(first, b.x)
    for op in between:
        x = b.add(op, x)
    return b.finish(b.add(last, x))


def test_constant_and_unread_channels_through_relu() -> None:
    first = pruned(random_conv(3, 6, 3, 3), [1, 4], bias=[-2, 0])
    graph = block(first, relu, last=pruned(random_conv(6, 2, 3, 3), columns=[5]))
    optimize(graph, drop_channels)
    assert operators(graph) == [
        "3x3 conv, 3 -> 3, pads (1, 1, 1, 1)",
        "Relu",
        "3x3 conv, 3 -> 2, pads (1, 1, 1, 1)",
    ]
    assert [value.shape for node in graph.nodes for value in node.outputs] == [
        (1, 3, 6, 6),
        (1, 3, 6, 6),
        (1, 2, 6, 6),
    ]


@pytest.mark.parametrize("careful", [False, True])
def test_a_constant_joins_the_bias_of_an_unpadded_reader(careful: bool) -> None:
    first = pruned(random_conv(3, 4, 3, 3), [2], bias=[3])
    last = random_conv(4, 2, 3, 3, begin=(0, 0), end=(0, 0))
    graph = block(first, sigmoid, last=last)
    optimize(graph, drop_channels, careful=careful)
    assert operators(graph)[2] == "3x3 conv, 3 -> 2"
    made = graph.outputs[0].producer
    assert made is not None
    assert isinstance(made.op, Conv)
    expected = last.bias + last.weight[:, 2].sum(axis=(1, 2)) / (1 + np.exp(-3))
    np.testing.assert_allclose(made.op.bias, expected, rtol=1e-15)


def test_a_channel_that_a_depthwise_kernel_does_not_read() -> None:
    depthwise = pruned(random_conv(6, 6, 3, 3, groups=6), [0, 3], bias=[1, 2])
    graph = block(random_conv(3, 6, 1, 1), relu, depthwise, relu, last=random_conv(6, 2, 1, 1))
    optimize(graph, drop_channels)
    assert operators(graph) == [
        "1x1 conv, 3 -> 4",
        "Relu",
        "3x3 conv, 4 -> 4, groups 4, pads (1, 1, 1, 1)",
        "Relu",
        "1x1 conv, 4 -> 2",
    ]


def test_constants_pass_a_depthwise_kernel_whose_border_is_the_same() -> None:
    depthwise = pruned(random_conv(4, 4, 3, 3, groups=4))
    first = pruned(random_conv(3, 4, 1, 1), [1], bias=[-1])
    graph = block(first, relu, depthwise, last=random_conv(4, 2, 1, 1))
    optimize(graph, drop_channels)
    assert operators(graph)[2] == "3x3 conv, 3 -> 3, groups 3, pads (1, 1, 1, 1)"


def test_several_paths_and_readers() -> None:
    b = Builder(1, 3, 6, 6)
    x = b.add(pruned(random_conv(3, 4, 1, 1), [3], bias=[2]), b.x)
    swish = b.add(multiply, x, b.add(sigmoid, x))
    low = b.constant(np.array(0.5))
    first = b.add(random_conv(4, 2, 1, 1), b.add(clip, swish, low))
    second = b.add(random_conv(4, 3, 1, 1), b.add(maximum, b.sum(swish, x), shape=(1, 4, 1, 1)))
    graph = b.finish(first, second)
    optimize(graph, drop_channels)
    assert operators(graph).count("1x1 conv, 3 -> 3") == 2, operators(graph)
    assert "1x1 conv, 3 -> 2" in operators(graph)


def test_linear_layers() -> None:
    b = Builder(5, 4)
    first = Conv.of(np.array([[1.0, 2, 3, 4], [0, 0, 0, 0], [5, 6, 7, 8]]), np.array([1.0, 2, 3]), axis=-1)
    last = Conv.of(np.array([[1.0, 2, 3]]), axis=-1)
    graph = b.finish(b.add(last, b.add(sigmoid, b.add(first, b.x))))
    optimize(graph, drop_channels)
    assert operators(graph) == ["linear, 4 -> 2", "Sigmoid", "linear, 2 -> 1"]


@pytest.mark.parametrize("careful", [False, True])
def test_one_region_after_another(careful: bool) -> None:
    # The channels behind the middle one go first; then what it reads is no longer what it was either.
    middle = pruned(random_conv(4, 5, 1, 1), [0, 2], columns=[1], bias=[1, 2])
    graph = block(random_conv(3, 4, 3, 3), relu, middle, sigmoid, last=random_conv(5, 2, 1, 1))
    optimize(graph, drop_channels, careful=careful)
    assert operators(graph)[::2] == [
        "3x3 conv, 3 -> 3, pads (1, 1, 1, 1)",
        "1x1 conv, 3 -> 3",
        "1x1 conv, 3 -> 2",
    ]


def test_columns_where_rows_decline() -> None:
    middle = pruned(random_conv(4, 5, 1, 1), [0], columns=[1], bias=[1])
    graph = block(random_conv(3, 4, 3, 3), relu, middle, softmax, last=random_conv(5, 2, 1, 1))
    optimize(graph, drop_channels)
    assert operators(graph)[:3] == ["3x3 conv, 3 -> 3, pads (1, 1, 1, 1)", "Relu", "1x1 conv, 3 -> 5"]


def test_one_channel_stays() -> None:
    first = pruned(random_conv(3, 4, 1, 1), range(4), bias=[1, 2, 3, 4])
    graph = block(first, relu, last=random_conv(4, 2, 1, 1))
    optimize(graph, drop_channels)
    assert operators(graph) == ["1x1 conv, 3 -> 1", "Relu", "1x1 conv, 1 -> 2"]


# --- refusals: one constant channel, or one that nothing reads, and something in the way ---

dead = pruned(random_conv(3, 4, 3, 3), [2], bias=[3])


def reason(graph: Graph) -> str:
    (event,) = optimize(graph, drop_channels)
    assert event.status == "declined"
    return event.reason


def test_declines_where_the_border_differs() -> None:
    padded = "into n2: the border differs: channel 2 is constantly 3, and is padded with 0"
    assert reason(block(dead, relu, last=random_conv(4, 2, 3, 3))) == padded
    depthwise = pruned(random_conv(4, 4, 3, 3, groups=4))
    assert reason(block(dead, relu, depthwise, last=random_conv(4, 2, 1, 1))) == padded


def test_declines_what_mixes_channels() -> None:
    graph = block(dead, softmax, last=random_conv(4, 2, 1, 1))
    assert reason(graph) == "n1 (Softmax) reads all channels"
    graph = block(dead, relu, last=random_conv(4, 2, 1, 1, groups=2))
    assert reason(graph) == "n2 (1x1 conv, 4 -> 2, groups 2) reads all channels"


def test_declines_an_output_of_the_graph() -> None:
    b = Builder(1, 3, 6, 6)
    x = b.add(relu, b.add(dead, b.x))
    assert reason(b.finish(b.add(random_conv(4, 2, 1, 1), x), x)) == "'v1' is a graph output"


def joined(b: Builder, other: Value) -> Graph:
    x = b.add(multiply, b.add(dead, b.x), other)
    return b.finish(b.add(random_conv(4, 2, 1, 1), x))


def test_declines_what_else_is_read() -> None:
    b = Builder(1, 3, 6, 6)
    assert reason(joined(b, b.input("gate", (1, 4, 1, 1)))) == "n1 also reads 'gate'"
    b = Builder(1, 3, 6, 6)
    assert reason(joined(b, b.constant(np.ones((1, 4, 1, 1)), "slope"))) == "n1 also reads 'slope'"


def test_declines_what_no_convolution_makes() -> None:
    unread = pruned(random_conv(4, 2, 1, 1), columns=[1])
    b = Builder(1, 4, 6, 6)
    graph = b.finish(b.add(unread, b.add(relu, b.x)))
    assert reason(graph) == "channels that nothing reads come from the input 'x'"
    b = Builder(1, 4, 6, 6)
    graph = b.finish(b.add(unread, b.add(softmax, b.x)))
    assert reason(graph) == "channels that nothing reads come from n0 (Softmax)"
    b = Builder(1, 4, 6, 6)
    graph = b.finish(b.add(unread, b.add(random_conv(4, 4, 1, 1, groups=2), b.x)))
    assert reason(graph) == "2 groups do not lose channels one by one"


@pytest.mark.parametrize("between", [0, 1, 2])
def test_declines_what_is_computed_of_constants(between: int) -> None:
    b = Builder(1, 4, 6, 6)
    held = b.constant(np.ones((1, 4, 6, 6)))
    for _ in range(between):
        held = b.add(relu, held)
    node = b.add(pruned(random_conv(4, 2, 1, 1), columns=[1]), held).producer
    assert node is not None
    with pytest.raises(Declined, match="channels that nothing reads come from n0 of constants"):
        list(drop_channels.propose(node))


def test_declines_far_away() -> None:
    graph = block(dead, *[relu] * 9, last=random_conv(4, 2, 1, 1))
    assert reason(graph) == "more than 8 operators lie between the convolutions"
    graph = block(random_conv(3, 4, 1, 1), *[relu] * 9, last=pruned(random_conv(4, 2, 1, 1), columns=[1]))
    assert reason(graph) == "channels that nothing reads come from more than 8 operators before"


def test_declines_what_is_not_constant_after_all() -> None:
    ramp = Opaque("Ramp", lambda x: (x + np.arange(x.shape[-1]),), elementwise=True)
    assert reason(block(dead, ramp, last=random_conv(4, 2, 1, 1))) == (
        "n1 (Ramp) does not make constants of constants"
    )
    logarithm = Opaque("Sqrt", lambda x: (np.where(x < 5, np.nan, x),), elementwise=True)
    assert reason(block(dead, logarithm, last=random_conv(4, 2, 1, 1))) == (
        "n1 (Sqrt) does not make constants of constants"
    )


# --- through ONNX ---


def test_a_pruned_model_through_onnx() -> None:
    w1, w2 = normal(8, 3, 3, 3), normal(4, 8, 3, 3)
    scale = np.linspace(0.5, 1.5, 8)
    scale[[1, 4]] = 0
    w2[:, 6] = 0
    model = parsed(
        """g (float[1,3,9,9] x) => (float[1,4,2,2] y) {
            h = Conv <pads = [1,1,1,1]> (x, w1)
            n = BatchNormalization (h, scale, bias, mean, var)
            r = HardSwish (n)
            m = MaxPool <kernel_shape = [3,3], strides = [2,2]> (r)
            y = Conv (m, w2)
        }""",
        w1=w1,
        w2=w2,
        scale=scale,
        bias=normal(8, seed=1),
        mean=normal(8, seed=2),
        var=np.linspace(0.5, 2, 8),
    )
    model = onnx.shape_inference.infer_shapes(model)
    result, report = fuser.optimize(model, return_report=True)
    assert {"fold_batch_norm", "drop_channels"} == {event.rewrite for event in report.applied}
    onnx.checker.check_model(result, full_check=True)
    assert [list(weight.dims) for weight in result.graph.initializer if len(weight.dims) == 4] == [
        [5, 3, 3, 3],
        [4, 5, 3, 3],
    ]
    stated = {
        info.name: [d.dim_value for d in info.type.tensor_type.shape.dim] for info in result.graph.value_info
    }
    # They are other values than in the source, and are called differently.
    assert not {"n", "m"} & set(stated)
    assert stated["n_fused"] == [1, 5, 9, 9]
    assert stated["m_fused"] == [1, 5, 4, 4]
    x = normal(1, 3, 9, 9).astype(np.float32)
    before, after = (
        onnxruntime.InferenceSession(m.SerializeToString(), providers=["CPUExecutionProvider"]).run(
            None, {"x": x}
        )[0]
        for m in (model, result)
    )
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5 * np.abs(before).max())


def test_declines_what_nothing_reads() -> None:
    b = Builder(1, 3, 6, 6)
    conv = random_conv(3, 4, 3, 3)
    weight = conv.weight
    weight[1] = 0.0
    dead = b.add(Conv.of(weight, conv.bias), b.x)
    b.finish(b.add(relu, b.x))
    node = dead.producer
    assert node is not None
    with pytest.raises(Declined, match="nothing reads 'v0'"):
        list(without(Coupled.behind(node)))

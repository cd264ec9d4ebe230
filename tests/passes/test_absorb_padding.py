import numpy as np
import pytest

from fuser.algebra.conv import Conv, average_pool, pad
from fuser.ir.ops import Opaque
from passes.absorb_padding import absorb_padding
from tests.graphs import Builder, operators, optimize, random_conv

max_pool = Opaque("MaxPool", lambda x: (x,), homogeneous=True)


@pytest.mark.parametrize(
    "conv",
    [
        random_conv(3, 4, 3, 3),
        random_conv(3, 4, 3, 3, begin=(0, 0), end=(0, 0), stride=(2, 2)),
        average_pool(3, (3, 3), (2, 2), (1, 1), (1, 1), (1, 1)),
    ],
    ids=["padded", "strided", "average pool"],
)
def test_zeros_join_the_pads(conv: Conv) -> None:
    b = Builder(1, 3, 6, 7)
    graph = b.finish(b.add(conv, b.add(pad(3, (1, 0), (2, 3)), b.x)))
    optimize(graph, absorb_padding)
    ((begin, end),) = [(n.op.begin, n.op.end) for n in graph.ordered() if isinstance(n.op, Conv)]
    assert begin == (conv.begin[0] + 1, conv.begin[1])
    assert end == (conv.end[0] + 2, conv.end[1] + 3)


def test_into_every_reader() -> None:
    b = Builder(1, 3, 6, 7)
    padded = b.add(pad(3, (1, 1), (1, 1)), b.x)
    graph = b.finish(b.add(random_conv(3, 4, 3, 3), padded), b.add(random_conv(3, 2, 1, 1), padded))
    optimize(graph, absorb_padding)
    assert operators(graph) == ["3x3 conv, 3 -> 4, pads (2, 2, 2, 2)", "1x1 conv, 3 -> 2, pads (1, 1, 1, 1)"]


def test_a_value_before_an_unpadded_convolution_is_its_pad_value() -> None:
    b = Builder(1, 3, 6, 7)
    padded = b.add(pad(3, (1, 1), (1, 1), 2.5), b.x)
    graph = b.finish(b.add(random_conv(3, 4, 3, 3, begin=(0, 0), end=(0, 0)), padded))
    optimize(graph, absorb_padding)
    (node,) = graph.nodes
    assert isinstance(node.op, Conv)
    assert node.op.pad_value.tolist() == [2.5, 2.5, 2.5]


def test_values_that_differ_decline() -> None:
    b = Builder(1, 3, 6, 7)
    graph = b.finish(b.add(random_conv(3, 4, 3, 3), b.add(pad(3, (1, 1), (1, 1), 2.5), b.x)))
    (event,) = optimize(graph, absorb_padding)
    assert "the inner operator continues with 2.5, the outer one pads with 0 (channel 0)" in event.reason


def test_cropping_before_padding_declines() -> None:
    b = Builder(1, 3, 6, 7)
    graph = b.finish(b.add(random_conv(3, 4, 3, 3), b.add(pad(3, (-1, 0), (0, 0)), b.x)))
    (event,) = optimize(graph, absorb_padding)
    assert "the border mixes input and padding on axis 0" in event.reason


def test_maximum_pooling_is_no_convolution() -> None:
    b = Builder(1, 3, 6, 7)
    graph = b.finish(b.add(max_pool, b.add(pad(3, (1, 1), (1, 1)), b.x)))
    (event,) = optimize(graph, absorb_padding)
    assert event.reason == "n1 (MaxPool) reads it and is no convolution"


def test_values_that_differ_by_channel_are_left_to_the_host() -> None:
    b = Builder(1, 3, 6, 7)
    padded = b.add(pad(3, (1, 1), (1, 1), np.array([1.0, 2.0, 3.0])), b.x)
    graph = b.finish(b.add(random_conv(3, 4, 3, 3, begin=(0, 0), end=(0, 0)), padded))
    (event,) = optimize(graph, absorb_padding)
    assert "pad values differ by channel" in event.reason

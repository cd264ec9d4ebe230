import numpy as np
import pytest

from fuser.algebra.conv import Conv, scale_shift
from fuser.ir.ops import Opaque
from passes.fold_scale_through import fold_scale_through
from tests.graphs import Builder, operators, optimize, random_conv, relu

sigmoid = Opaque("Sigmoid", lambda x: (1 / (1 + np.exp(-x)),))
per_channel = scale_shift(np.array([0.5, 1.0, 2.0]), np.zeros(3), 2)


def test_through_relu_into_a_padded_convolution() -> None:
    conv = random_conv(3, 4, 3, 3)
    b = Builder(1, 3, 6, 6)
    graph = b.finish(b.add(conv, b.add(relu, b.add(per_channel, b.add(sigmoid, b.x)))))
    optimize(graph, fold_scale_through)
    assert operators(graph) == ["Sigmoid", "Relu", str(conv)]


def test_a_scalar_into_several_readers() -> None:
    conv = random_conv(3, 4, 3, 3)
    b = Builder(1, 3, 6, 6)
    scaled = b.sum(b.x, coefficients=[3.0])
    y = b.add(relu, scaled)
    graph = b.finish(b.add(conv, y), b.add(conv, b.add(relu, scaled)), b.add(conv, y))
    optimize(graph, fold_scale_through)
    assert operators(graph).count("Relu") == 2
    assert len(graph.nodes) == 5


@pytest.mark.parametrize(
    ("op", "reason"),
    [
        (scale_shift(np.array([1.0, -2.0, 3.0]), np.zeros(3), 2), "the scale is not positive everywhere: -2"),
        (scale_shift(np.array([1.0, 0.0, 3.0]), np.zeros(3), 2), "the scale is not positive everywhere: 0"),
        (scale_shift(np.ones(3), np.array([0.0, 5.0, 0.0]), 2), "a shift does not pass a non-linearity: 5"),
    ],
)
def test_declines(op: Conv, reason: str) -> None:
    b = Builder(1, 3, 6, 6)
    graph = b.finish(b.add(random_conv(3, 4, 3, 3), b.add(relu, b.add(op, b.x))))
    (event,) = optimize(graph, fold_scale_through)
    assert event.reason == reason


def test_every_reader_must_take_it() -> None:
    b = Builder(1, 3, 6, 6)
    y = b.add(relu, b.add(per_channel, b.x))
    graph = b.finish(b.add(random_conv(3, 4, 3, 3), y), b.add(sigmoid, y))
    (event,) = optimize(graph, fold_scale_through)
    assert event.reason == "n3 (Sigmoid) reads it and is no convolution"

    b = Builder(1, 3, 6, 6)
    y = b.add(relu, b.add(per_channel, b.x))
    graph = b.finish(b.add(random_conv(3, 4, 3, 3), y), y)
    (event,) = optimize(graph, fold_scale_through)
    assert event.reason == "'v1' is a graph output"


def test_not_through_what_is_not_homogeneous() -> None:
    b = Builder(1, 3, 6, 6)
    graph = b.finish(b.add(random_conv(3, 4, 3, 3), b.add(sigmoid, b.add(per_channel, b.x))))
    assert optimize(graph, fold_scale_through) == []

"""A scale and a shift that go where elements go, in graphs made by hand."""

from dataclasses import replace

import numpy as np
import pytest

from fuser.algebra.conv import Conv, scale_shift
from fuser.ir.ops import Opaque, Reshape
from passes.carry_scale_shift import carry_scale_shift
from tests.graphs import Builder, operators, optimize, random_conv, relu

sigmoid = Opaque("Sigmoid", lambda x: (1 / (1 + np.exp(-x)),))
per_channel = scale_shift(np.array([0.5, 1.0, 2.0]), np.zeros(3), 2)


def test_through_relu_into_a_padded_convolution() -> None:
    conv = random_conv(3, 4, 3, 3)
    b = Builder(1, 3, 6, 6)
    graph = b.finish(b.add(conv, b.add(relu, b.add(per_channel, b.add(sigmoid, b.x)))))
    optimize(graph, carry_scale_shift)
    assert operators(graph) == ["Sigmoid", "Relu", str(conv)]


def test_a_scalar_into_several_readers() -> None:
    conv = random_conv(3, 4, 3, 3)
    b = Builder(1, 3, 6, 6)
    scaled = b.sum(b.x, coefficients=[3.0])
    y = b.add(relu, scaled)
    graph = b.finish(b.add(conv, y), b.add(conv, b.add(relu, scaled)), b.add(conv, y))
    optimize(graph, carry_scale_shift)
    assert operators(graph).count("Relu") == 2
    assert len(graph.nodes) == 5


@pytest.mark.parametrize(
    ("op", "reason"),
    [
        (
            scale_shift(np.array([1.0, -2.0, 3.0]), np.zeros(3), 2),
            "the scale is not positive everywhere: -2",
        ),
        (
            scale_shift(np.array([1.0, 0.0, 3.0]), np.zeros(3), 2),
            "the scale is not positive everywhere: 0",
        ),
        (scale_shift(np.ones(3), np.array([0.0, 5.0, 0.0]), 2), "a shift does not pass: 5"),
    ],
)
def test_declines(op: Conv, reason: str) -> None:
    b = Builder(1, 3, 6, 6)
    graph = b.finish(b.add(random_conv(3, 4, 3, 3), b.add(relu, b.add(op, b.x))))
    (event,) = optimize(graph, carry_scale_shift)
    assert event.reason == f"n1 (Relu): {reason}"


def test_every_reader_must_take_it() -> None:
    b = Builder(1, 3, 6, 6)
    y = b.add(relu, b.add(per_channel, b.x))
    graph = b.finish(b.add(random_conv(3, 4, 3, 3), y), b.add(sigmoid, y))
    (event,) = optimize(graph, carry_scale_shift)
    assert event.reason == "n3 (Sigmoid): it carries no scale and no shift"

    b = Builder(1, 3, 6, 6)
    y = b.add(relu, b.add(per_channel, b.x))
    graph = b.finish(b.add(random_conv(3, 4, 3, 3), y), y)
    (event,) = optimize(graph, carry_scale_shift)
    assert event.reason == "'v1' is a graph output"


def test_not_through_what_is_not_homogeneous() -> None:
    b = Builder(1, 3, 6, 6)
    graph = b.finish(b.add(random_conv(3, 4, 3, 3), b.add(sigmoid, b.add(per_channel, b.x))))
    (event,) = optimize(graph, carry_scale_shift)
    assert event.reason == "n1 (Sigmoid): it carries no scale and no shift"


@pytest.mark.parametrize("batch", [2, "N"])
def test_a_norm_before_a_flat_embedding(batch: int | str) -> None:
    b = Builder(batch, 3, 4, 5)
    x = b.norm(b.add(relu, b.x))
    graph = b.finish(b.add(replace(random_conv(60, 7), axis=-1), b.add(Reshape((60,)), x)))
    optimize(graph, carry_scale_shift)
    assert operators(graph) == ["Relu", "reshape to (-1, 60)", "linear, 60 -> 7"]


def test_a_scale_of_all() -> None:
    b = Builder(2, 3, 4, 5)
    x = b.sum(b.x, coefficients=[2.0], offset=1.0)
    graph = b.finish(b.add(random_conv(6, 7, 1), b.add(Reshape((6, 10)), x)))
    optimize(graph, carry_scale_shift)
    assert operators(graph) == ["reshape to (-1, 6, 10)", "1 conv, 6 -> 7"]


def test_a_channel_that_becomes_two() -> None:
    b = Builder(2, 3, 4, 5)
    scale = scale_shift(np.arange(1.0, 4.0), np.zeros(3), 2)
    graph = b.finish(b.add(random_conv(6, 7, 3), b.add(Reshape((6, 10)), b.add(scale, b.x))))
    optimize(graph, carry_scale_shift)
    assert operators(graph) == ["reshape to (-1, 6, 10)", "3 conv, 6 -> 7, pads (1, 1)"]


def test_the_last_axis_of_rows() -> None:
    b = Builder(10, 4)
    norm = scale_shift(np.arange(1.0, 5.0), np.arange(4.0), 0, -1)
    x = b.add(Reshape((5, 4)), b.add(norm, b.x))
    graph = b.finish(b.add(replace(random_conv(4, 3), axis=-1), x))
    optimize(graph, carry_scale_shift)
    assert operators(graph) == ["reshape to (-1, 5, 4)", "linear, 4 -> 3"]


def test_channels_that_do_not_share_a_scale() -> None:
    b = Builder(2, 4, 4, 5)
    graph = b.finish(b.add(random_conv(2, 7, 1), b.add(Reshape((2, 40)), b.norm(b.x))))
    (event,) = optimize(graph, carry_scale_shift)
    assert event.reason == "the scale and shift differ along axis [2], and not along axis 1 alone"


def test_a_shift_under_padding_declines() -> None:
    b = Builder(2, 3, 4, 5)
    graph = b.finish(b.add(random_conv(3, 7, 3), b.add(Reshape((3, 20)), b.norm(b.x))))
    (event,) = optimize(graph, carry_scale_shift)
    assert "the border differs" in event.reason


def test_what_mixes_channels_stays() -> None:
    b = Builder(2, 3, 4, 5)
    graph = b.finish(
        b.add(random_conv(3, 7, 1), b.add(Reshape((3, 20)), b.add(random_conv(3, 3, 1, 1), b.x)))
    )
    assert optimize(graph, carry_scale_shift) == []

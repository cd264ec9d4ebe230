from dataclasses import replace

import pytest

from fuser.algebra.conv import Conv
from fuser.ir.node import Value
from fuser.ir.ops import Reshape
from passes.eliminate_reshapes import eliminate_reshapes
from tests.graphs import Builder, operators, optimize, random_conv


def linear(inputs: int, outputs: int) -> Conv:
    return replace(random_conv(inputs, outputs), axis=-1)


def between(b: Builder, first: tuple[int, ...], *ops: Conv, last: tuple[int, ...]) -> Value:
    """reshape(ops(reshape(x)))."""
    x = b.add(Reshape(first), b.x)
    for op in ops:
        x = b.add(op, x)
    return b.add(Reshape(last), x)


@pytest.mark.parametrize("batch", [2, "N"])
@pytest.mark.parametrize("groups", [1, 2])
def test_a_pointwise_convolution_of_flat_images(batch: int | str, groups: int) -> None:
    b = Builder(batch, 4, 5, 6)
    graph = b.finish(between(b, (4, 30), random_conv(4, 8, 1, groups=groups), last=(8, 5, 6)))
    optimize(graph, eliminate_reshapes)
    kind = "1x1 conv, 4 -> 8"
    assert operators(graph) == [kind if groups == 1 else f"{kind}, groups 2"]


def test_several_maps_of_the_channels() -> None:
    b = Builder(1, 4, 5, 6)
    x = b.add(random_conv(4, 3, 1), b.add(Reshape((4, 30)), b.x))
    x = b.sum(b.norm(x, rank=1), coefficients=[2.0], offset=1.0)
    graph = b.finish(b.add(Reshape((3, 5, 6)), x))
    optimize(graph, eliminate_reshapes)
    assert operators(graph) == ["1x1 conv, 4 -> 3"]


def test_flat_images_may_be_what_is_read() -> None:
    b = Builder(1, 4, 30)
    graph = b.finish(between(b, (4, 5, 6), random_conv(4, 3, 1, 1), last=(3, 30)))
    optimize(graph, eliminate_reshapes)
    assert operators(graph) == ["1 conv, 4 -> 3"]


@pytest.mark.parametrize("batch", [2, "N"])
def test_a_linear_layer_of_rows(batch: int | str) -> None:
    """The batch of the rows is not that of the samples."""
    b = Builder(batch, 5, 4)
    graph = b.finish(between(b, (4,), linear(4, 3), last=(5, 3)))
    optimize(graph, eliminate_reshapes)
    assert operators(graph) == ["linear, 4 -> 3"]


def test_a_linear_layer_of_samples_that_are_made_of_rows() -> None:
    b = Builder("N", 4)
    graph = b.finish(between(b, (5, 4), linear(4, 3), last=(3,)))
    optimize(graph, eliminate_reshapes, feeds={"x": random_conv(4, 10).weight})
    assert operators(graph) == ["linear, 4 -> 3"]


def test_channels_may_become_the_last_axis() -> None:
    b = Builder(2, 4)
    graph = b.finish(between(b, (4, 1, 1), random_conv(4, 3, 1, 1), last=(3,)))
    optimize(graph, eliminate_reshapes)
    assert operators(graph) == ["linear, 4 -> 3"]


def test_reshapes_that_cancel() -> None:
    b = Builder(2, 4, 5)
    x = b.sum(between(b, (20,), last=(4, 5)), coefficients=[2.0])
    graph = b.finish(b.add(Reshape((4, 5)), b.sum(b.add(Reshape((5, 4)), x), coefficients=[3.0])))
    optimize(graph, eliminate_reshapes)
    assert operators(graph) == ["sum +2*x0", "sum +3*x0"]


@pytest.mark.parametrize(("first", "last"), [((4, 30), (3, 6, 5)), ((4, 30), (3, 30)), ((4, 10, 3), (9, 10))])
def test_shapes_that_differ_in_more_than_channels(first: tuple[int, ...], last: tuple[int, ...]) -> None:
    b = Builder(1, 4, 5, 6)
    op = random_conv(4, 3, *(1,) * (len(first) - 1))
    graph = b.finish(between(b, first, op, last=last))
    assert optimize(graph, eliminate_reshapes) == []
    assert len(graph.nodes) == 3


def test_a_kernel_that_sees_more_than_one_position() -> None:
    b = Builder(1, 4, 5, 6)
    graph = b.finish(between(b, (4, 30), random_conv(4, 3, 3), last=(3, 5, 6)))
    assert optimize(graph, eliminate_reshapes) == []


def test_channels_that_are_no_axis_of_the_source() -> None:
    b = Builder(1, 4, 5, 6)
    graph = b.finish(between(b, (20, 6), random_conv(20, 20, 1), last=(4, 5, 6)))
    (event,) = optimize(graph, eliminate_reshapes)
    assert (
        event.reason
        == "the channels of 1 conv, 20 -> 20 on (20, 6) are no axis of both (4, 5, 6) and (4, 5, 6)"
    )


def test_more_axes_than_a_convolution_has() -> None:
    b = Builder(1, 4, 2, 2, 2, 2)
    graph = b.finish(between(b, (4, 16), random_conv(4, 3, 1), last=(3, 2, 2, 2, 2)))
    (event,) = optimize(graph, eliminate_reshapes)
    assert event.reason == "4 spatial axes are more than 3"


def test_who_else_reads_the_rows_keeps_them() -> None:
    b = Builder(1, 64, 56, 56)
    rows = b.add(random_conv(64, 64, 1), b.add(Reshape((64, 3136)), b.x))
    graph = b.finish(b.add(Reshape((64, 56, 56)), rows), rows)
    (event,) = optimize(graph, eliminate_reshapes)
    assert "no gain" in event.reason

from dataclasses import replace

import numpy as np
import pytest

from fuser.algebra.conv import Conv
from fuser.ir.node import Value
from fuser.ir.ops import Reshape
from passes.merge_rows import merge_rows
from tests.graphs import Builder, operators, optimize, random_conv


def rows(b: Builder, op: Conv, last: tuple[int, ...]) -> Value:
    """reshape(op(reshape(x)))."""
    return b.add(Reshape(last), b.add(op, b.add(Reshape((op.inputs, *(1,) * op.rank)), b.x)))


@pytest.mark.parametrize("batch", [2, "N"])
@pytest.mark.parametrize("careful", [False, True])
def test_repmlp(batch: int | str, careful: bool) -> None:
    b = Builder(batch, 3, 4, 5)
    local = b.add(random_conv(3, 3, 3, 3, groups=3), b.x)
    graph = b.finish(b.sum(rows(b, random_conv(60, 60, 1, 1, groups=3), (3, 4, 5)), local))
    optimize(graph, merge_rows, careful=careful)
    assert operators(graph) == [
        "reshape to (-1, 60, 1, 1)",
        "1x1 conv, 60 -> 60, groups 3",
        "reshape to (-1, 3, 4, 5)",
    ]


@pytest.mark.parametrize(
    "conv",
    [
        random_conv(3, 2, 3, 2, begin=(1, 0), end=(1, 1)),
        random_conv(3, 2, 3, 1, dilation=(2, 1), begin=(2, 0), end=(2, 0), pad_value=np.array([1.0, 2, 3])),
        random_conv(3, 2, 1, 1, bias=False),
    ],
)
def test_whatever_a_convolution_says(conv: Conv) -> None:
    b = Builder(2, 3, 4, 5)
    full = rows(b, replace(random_conv(60, 40), axis=-1), (2, 4, 5))
    graph = b.finish(b.sum(b.add(conv, b.x), full, coefficients=[2.0, -1.0], offset=3.0))
    optimize(graph, merge_rows)
    assert operators(graph) == ["reshape to (-1, 60)", "linear, 60 -> 40", "reshape to (-1, 2, 4, 5)"]


def test_a_stride() -> None:
    b = Builder(1, 4, 6, 5)
    local = b.add(random_conv(4, 2, 3, 3, stride=(2, 2)), b.x)
    graph = b.finish(b.sum(rows(b, random_conv(120, 18, 1, 1), (2, 3, 3)), local))
    optimize(graph, merge_rows)
    assert len(graph.nodes) == 3


def test_a_chain_and_what_cannot_join() -> None:
    b = Builder(1, 3, 4, 5)
    local = b.norm(b.add(random_conv(3, 3, 3, 3, groups=3), b.x))
    other = b.input("y", (1, 3, 4, 5))
    graph = b.finish(b.sum(other, local, rows(b, random_conv(60, 60, 1, 1, groups=3), (3, 4, 5))))
    optimize(graph, merge_rows)
    assert operators(graph)[1:] == [
        "1x1 conv, 60 -> 60, groups 3",
        "reshape to (-1, 3, 4, 5)",
        "sum +1*x0 +1*x1",
    ]


def test_the_input_itself() -> None:
    b = Builder(1, 3, 4, 5)
    graph = b.finish(b.sum(rows(b, random_conv(60, 60, 1, 1, groups=3), (3, 4, 5)), b.x))
    optimize(graph, merge_rows)
    assert len(graph.nodes) == 3


def test_both_behind_a_reshape_of_more_axes() -> None:
    """RepMLPNet: partitions [N, h, w, C, 4, 4], of which C/S groups of S are samples."""
    b = Builder("N", 2, 3, 4, 4, 4)
    full = b.add(random_conv(32, 32, 1, 1, groups=2), b.add(Reshape((32, 1, 1)), b.x))
    local = b.add(random_conv(2, 2, 3, 3, groups=2), b.add(Reshape((2, 4, 4)), b.x))
    last = Reshape((2, 3, 4, 4, 4))
    graph = b.finish(b.sum(b.add(last, full), b.add(last, local)))
    optimize(graph, merge_rows)
    assert operators(graph) == [
        "reshape to (-1, 32, 1, 1)",
        "1x1 conv, 32 -> 32, groups 2",
        "reshape to (-1, 2, 3, 4, 4, 4)",
    ]


def test_rows_may_be_what_is_read_and_made() -> None:
    b = Builder(2, 60)
    image = b.add(random_conv(3, 3, 3, 3), b.add(Reshape((3, 4, 5)), b.x))
    full = b.add(replace(random_conv(60, 60), axis=-1), b.x)
    graph = b.finish(b.sum(full, b.add(Reshape((60,)), image)))
    optimize(graph, merge_rows)
    assert operators(graph) == ["linear, 60 -> 60"]


def test_a_dense_convolution_beside_grouped_rows_stays() -> None:
    b = Builder(1, 8, 9, 9)
    full = rows(b, random_conv(648, 648, 1, 1, groups=8), (8, 9, 9))
    graph = b.finish(b.sum(full, b.add(random_conv(8, 8, 3, 3), b.x)))
    (event,) = optimize(graph, merge_rows)
    assert "no gain" in event.reason


def test_maps_of_other_rows_do_not_add_up() -> None:
    """The layer acts on each of four rows, the convolution on all of them."""
    b = Builder(1, 4, 5)
    full = b.add(Reshape((4, 5)), b.add(replace(random_conv(5, 5), axis=-1), b.add(Reshape((5,)), b.x)))
    graph = b.finish(b.sum(full, b.add(random_conv(4, 4, 3), b.x)))
    (event,) = optimize(graph, merge_rows)
    assert "channels differ: (5, 5) and (20, 20)" in event.reason


def test_a_layer_of_each_position_is_no_map_of_rows() -> None:
    b = Builder(1, 4, 5)
    full = rows(b, replace(random_conv(20, 20), axis=-1), (4, 5))
    graph = b.finish(b.sum(full, b.add(replace(random_conv(5, 5), axis=-1), b.x)))
    (event,) = optimize(graph, merge_rows)
    assert "a linear layer acts on (4, 5), on each of its positions alone" in event.reason


def test_extents_that_are_not_known() -> None:
    b = Builder(1, 3, "h", 5)
    full = b.add(Reshape((60, 1, 1)), b.x, shape=(1, 60, 1, 1))
    full = b.add(Reshape((3, 4, 5)), b.add(random_conv(60, 60, 1, 1), full), shape=(1, 3, "h", 5))
    graph = b.finish(b.sum(full, b.add(random_conv(3, 3, 3, 3), b.x)))
    feeds = {"x": np.ones((1, 3, 4, 5))}
    (event,) = optimize(graph, merge_rows, feeds=feeds)
    assert "the extents of 'x' are not known: (1, 3, 'h', 5)" in event.reason


def test_other_sources_are_none_of_its_business() -> None:
    b = Builder(1, 3, 4, 5)
    y = b.input("y", (1, 3, 4, 5))
    graph = b.finish(b.sum(rows(b, random_conv(60, 60, 1, 1), (3, 4, 5)), b.add(random_conv(3, 3, 3, 3), y)))
    assert optimize(graph, merge_rows) == []

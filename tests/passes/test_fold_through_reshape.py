from dataclasses import replace

import numpy as np
import pytest

from fuser.algebra.conv import scale_shift
from fuser.ir.ops import Reshape
from passes.fold_through_reshape import fold_through_reshape
from tests.graphs import Builder, operators, optimize, random_conv, relu


@pytest.mark.parametrize("batch", [2, "N"])
def test_a_norm_before_a_flat_embedding(batch: int | str) -> None:
    b = Builder(batch, 3, 4, 5)
    x = b.norm(b.add(relu, b.x))
    graph = b.finish(b.add(replace(random_conv(60, 7), axis=-1), b.add(Reshape((60,)), x)))
    optimize(graph, fold_through_reshape)
    assert operators(graph) == ["Relu", "reshape to (-1, 60)", "linear, 60 -> 7"]


def test_a_scale_of_all() -> None:
    b = Builder(2, 3, 4, 5)
    x = b.sum(b.x, coefficients=[2.0], offset=1.0)
    graph = b.finish(b.add(random_conv(6, 7, 1), b.add(Reshape((6, 10)), x)))
    optimize(graph, fold_through_reshape)
    assert operators(graph) == ["reshape to (-1, 6, 10)", "1 conv, 6 -> 7"]


def test_a_channel_that_becomes_two() -> None:
    b = Builder(2, 3, 4, 5)
    scale = scale_shift(np.arange(1.0, 4.0), np.zeros(3), 2)
    graph = b.finish(b.add(random_conv(6, 7, 3), b.add(Reshape((6, 10)), b.add(scale, b.x))))
    optimize(graph, fold_through_reshape)
    assert operators(graph) == ["reshape to (-1, 6, 10)", "3 conv, 6 -> 7, pads (1, 1)"]


def test_the_last_axis_of_rows() -> None:
    b = Builder(10, 4)
    norm = scale_shift(np.arange(1.0, 5.0), np.arange(4.0), 0, -1)
    x = b.add(Reshape((5, 4)), b.add(norm, b.x))
    graph = b.finish(b.add(replace(random_conv(4, 3), axis=-1), x))
    optimize(graph, fold_through_reshape)
    assert operators(graph) == ["reshape to (-1, 5, 4)", "linear, 4 -> 3"]


def test_channels_that_do_not_share_a_scale() -> None:
    b = Builder(2, 4, 4, 5)
    graph = b.finish(b.add(random_conv(2, 7, 1), b.add(Reshape((2, 40)), b.norm(b.x))))
    (event,) = optimize(graph, fold_through_reshape)
    assert event.reason == "the scale and shift of (4, 4, 5) differ within the channels of (2, 40)"


def test_a_shift_under_padding_declines() -> None:
    b = Builder(2, 3, 4, 5)
    graph = b.finish(b.add(random_conv(3, 7, 3), b.add(Reshape((3, 20)), b.norm(b.x))))
    (event,) = optimize(graph, fold_through_reshape)
    assert "the border differs" in event.reason


def test_what_mixes_channels_stays() -> None:
    b = Builder(2, 3, 4, 5)
    graph = b.finish(
        b.add(random_conv(3, 7, 1), b.add(Reshape((3, 20)), b.add(random_conv(3, 3, 1, 1), b.x)))
    )
    assert optimize(graph, fold_through_reshape) == []

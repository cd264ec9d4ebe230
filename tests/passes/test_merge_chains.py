from dataclasses import replace

import numpy as np
import pytest

from fuser.algebra.conv import Conv, average_pool
from fuser.ir.ops import Concat
from passes.merge_branches import merge_branches
from passes.merge_chains import merge_chains
from tests.graphs import Builder, operators, optimize, random_conv, relu


def test_expand_nets_with_the_pads_first() -> None:
    b = Builder(1, 3, 7, 8)
    x = b.add(random_conv(3, 12, 1, 1, begin=(1, 1), end=(1, 1)), b.x)
    x = b.add(random_conv(12, 12, 3, 3, begin=(0, 0), end=(0, 0)), x)
    graph = b.finish(b.add(random_conv(12, 5, 1, 1), x))
    optimize(graph, merge_chains)
    assert operators(graph) == ["3x3 conv, 3 -> 5, pads (1, 1, 1, 1)"]


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_kernel_then_pointwise_of_any_rank(rank: int) -> None:
    b = Builder(1, 4, *(6,) * rank)
    inner = random_conv(
        4, 4, *(3,) * rank, stride=(2,) * rank, dilation=(2,) * rank, begin=(2,) * rank, end=(2,) * rank
    )
    graph = b.finish(b.add(random_conv(4, 4, *(1,) * rank), b.add(inner, b.x)))
    optimize(graph, merge_chains)
    assert operators(graph) == [str(inner)]


def test_grouped_and_depthwise_chains() -> None:
    b = Builder(1, 8, 6, 6)
    x = b.add(random_conv(8, 8, 3, 3, groups=8), b.x)
    graph = b.finish(b.add(random_conv(8, 8, 1, 1, groups=8, stride=(2, 2)), x))
    optimize(graph, merge_chains)
    assert operators(graph) == ["3x3 conv, 8 -> 8, groups 8, stride (2, 2), pads (1, 1, 1, 1)"]


def test_linear_layers() -> None:
    b = Builder(5, 6)
    wide = Conv.of(np.arange(96.0).reshape(16, 6), np.ones(16), axis=-1)
    back = Conv.of(np.arange(64.0).reshape(4, 16), np.ones(4), axis=-1)
    graph = b.finish(b.add(back, b.add(wide, b.x)))
    optimize(graph, merge_chains)
    assert operators(graph) == ["linear, 6 -> 4"]


def test_low_rank_factors_stay() -> None:
    b = Builder(512, 512)
    down = Conv.of(np.ones((4, 512)), axis=-1)
    up = Conv.of(np.ones((512, 4)), np.ones(512), axis=-1)
    graph = b.finish(b.add(up, b.add(down, b.x)))
    (event,) = optimize(graph, merge_chains)
    assert "no gain: 1.34e+08 multiply-adds" in event.reason
    assert len(graph.nodes) == 2


def test_depthwise_separable_stays() -> None:
    b = Builder(1, 64, 28, 28)
    graph = b.finish(b.add(random_conv(64, 64, 1, 1), b.add(random_conv(64, 64, 3, 3, groups=64), b.x)))
    (event,) = optimize(graph, merge_chains)
    assert "no gain" in event.reason


def test_same_padding_twice_declines() -> None:
    b = Builder(1, 3, 6, 6)
    graph = b.finish(b.add(random_conv(3, 3, 3, 3), b.add(random_conv(3, 3, 3, 3, bias=False), b.x)))
    (event,) = optimize(graph, merge_chains)
    assert "the border mixes input and padding on axis 0" in event.reason


def test_a_bias_under_zero_padding_declines() -> None:
    b = Builder(1, 3, 6, 6)
    graph = b.finish(b.add(random_conv(3, 3, 3, 3), b.add(random_conv(3, 3, 1, 1), b.x)))
    (event,) = optimize(graph, merge_chains)
    assert "the border differs: the inner operator continues with" in event.reason


def test_a_bias_under_its_own_padding_merges() -> None:
    inner = random_conv(3, 8, 1, 1)
    outer = replace(random_conv(8, 3, 3, 3), pad_value=inner.bias)
    b = Builder(1, 3, 6, 6)
    graph = b.finish(b.add(outer, b.add(inner, b.x)))
    optimize(graph, merge_chains)
    assert operators(graph) == ["3x3 conv, 3 -> 3, pads (1, 1, 1, 1)"]


def test_an_intermediate_that_is_read_elsewhere_stays() -> None:
    b = Builder(1, 8, 6, 6)
    middle = b.add(random_conv(8, 8, 3, 3), b.x)
    graph = b.finish(b.add(random_conv(8, 8, 1, 1), middle), b.add(relu, middle))
    (event,) = optimize(graph, merge_chains)
    assert "no gain" in event.reason
    assert "also read by n2" in event.reason


def pool(channels: int) -> Conv:
    return average_pool(channels, (2, 2), (2, 2), (1, 1), (0, 0), (0, 0))


def test_a_pool_goes_before_the_convolution_that_mixes_channels() -> None:
    b = Builder(1, 256, 28, 28)
    graph = b.finish(b.add(pool(128), b.add(random_conv(256, 128, 1, 1), b.x), label="average_pool"))
    optimize(graph, merge_chains)
    first, last = graph.ordered()
    assert [str(first.op), first.label] == ["2x2 conv, 256 -> 256, groups 256, stride (2, 2)", "average_pool"]
    assert str(last.op) == "1x1 conv, 256 -> 128"


def test_a_pool_behind_few_channels_becomes_one_convolution_with_them() -> None:
    b = Builder(1, 3, 6, 6)
    graph = b.finish(b.add(pool(3), b.add(random_conv(3, 3, 1, 1), b.x)))
    optimize(graph, merge_chains)
    assert operators(graph) == ["2x2 conv, 3 -> 3, stride (2, 2)"]


def test_a_padded_pool_of_a_bias_stays() -> None:
    b = Builder(1, 64, 28, 28)
    padded = average_pool(32, (2, 2), (2, 2), (1, 1), (1, 1), (1, 1))
    graph = b.finish(b.add(padded, b.add(random_conv(64, 32, 1, 1), b.x)))
    (event,) = optimize(graph, merge_chains)
    assert "the border differs" in event.reason
    assert len(graph.nodes) == 2


def test_parts_of_a_concatenation_that_come_from_one_value() -> None:
    b = Builder(1, 5, 7, 8)
    x = b.add(relu, b.x)
    parts = b.add(random_conv(5, 4, 3, 3), x), b.add(random_conv(5, 3, 1, 1), x), x
    joined = b.add(Concat(3, 1), *parts, shape=(1, 12, 7, 8))
    graph = b.finish(b.add(random_conv(12, 6, 1, 1), joined))
    optimize(graph, merge_chains)
    assert operators(graph) == ["Relu", "3x3 conv, 5 -> 6, pads (1, 1, 1, 1)"]


def test_parts_of_a_concatenation_under_a_padded_kernel() -> None:
    b = Builder(1, 5, 7, 8)
    x = b.add(relu, b.x)
    joined = b.add(Concat(2, 1), b.add(random_conv(5, 4, 1, 1, bias=False), x), x, shape=(1, 9, 7, 8))
    graph = b.finish(b.add(random_conv(9, 6, 3, 3), joined))
    optimize(graph, merge_chains)
    assert operators(graph) == ["Relu", "3x3 conv, 5 -> 6, pads (1, 1, 1, 1)"]

    b = Builder(1, 5, 7, 8)
    x = b.add(relu, b.x)
    joined = b.add(Concat(2, 1), b.add(random_conv(5, 4, 1, 1), x), x, shape=(1, 9, 7, 8))
    graph = b.finish(b.add(random_conv(9, 6, 3, 3), joined))
    (event,) = optimize(graph, merge_chains)
    assert "the border differs" in event.reason


def test_parts_of_a_concatenation_with_other_sources_or_unknown_channels_stay() -> None:
    b = Builder(1, 5, 7, 8)
    y = b.input("y", (1, 5, 7, 8))
    joined = b.add(Concat(2, 1), b.add(random_conv(5, 5, 3, 3), b.x), y, shape=(1, 10, 7, 8))
    graph = b.finish(b.add(random_conv(10, 6, 1, 1), joined))
    assert optimize(graph, merge_chains) == []

    b = Builder(1, 5, 7, 8)
    part = b.add(random_conv(5, 5, 3, 3), b.x)
    part.shape = None
    joined = b.add(Concat(2, 1), part, b.x, shape=(1, 10, 7, 8))
    graph = b.finish(b.add(random_conv(10, 6, 1, 1), joined))
    (event,) = optimize(graph, merge_chains)
    assert event.reason == "'v0' has None channels"


def test_a_stem_is_not_pulled_into_one_branch_while_the_branches_may_become_one() -> None:
    b = Builder(1, 3, 32, 32)
    stem = random_conv(3, 32, 3, 3, stride=(2, 2))
    x = b.add(stem, b.x)
    graph = b.finish(b.sum(b.add(random_conv(32, 32, 3, 3), x), b.add(random_conv(32, 32, 1, 1), x), x))
    optimize(graph, merge_branches, merge_chains)
    assert operators(graph) == [str(stem), "3x3 conv, 32 -> 32, pads (1, 1, 1, 1)"]

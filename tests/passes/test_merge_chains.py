from dataclasses import replace

import numpy as np
import pytest

from fuser.conv import Conv
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

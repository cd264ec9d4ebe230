import numpy as np

from fuser.algebra.conv import Conv, regroup
from passes.split_groups import split_groups
from tests.graphs import Builder, operators, optimize, random_conv


def positive(inputs: int, outputs: int, *size: int, groups: int) -> Conv:
    """A convolution without a single zero."""
    conv = random_conv(inputs, outputs, *size, groups=groups)
    return Conv.of(np.abs(conv.weight) + 1, conv.bias, groups=conv.groups, begin=conv.begin, end=conv.end)


def test_dense_becomes_grouped() -> None:
    conv = positive(8, 12, 3, 3, groups=4)
    b = Builder(1, 8, 6, 6)
    graph = b.finish(b.add(regroup(conv, 1), b.x))
    optimize(graph, split_groups)
    assert operators(graph) == [str(conv)]


def test_grouped_becomes_depthwise() -> None:
    conv = positive(6, 6, 3, 3, groups=6)
    b = Builder(1, 6, 6, 6)
    graph = b.finish(b.add(regroup(conv, 2), b.x))
    optimize(graph, split_groups)
    assert operators(graph) == ["3x3 conv, 6 -> 6, groups 6, pads (1, 1, 1, 1)"]


def test_a_diagonal_linear_layer_is_a_scale() -> None:
    b = Builder(2, 4)
    graph = b.finish(b.add(Conv.of(np.diag([1.0, 2.0, 3.0, 4.0]), np.ones(4), axis=-1), b.x))
    optimize(graph, split_groups)
    assert operators(graph) == ["linear, 4 -> 4, groups 4"]


def test_other_linear_layers_decline() -> None:
    b = Builder(2, 4)
    graph = b.finish(b.add(Conv.of(np.eye(2).repeat(2, 0).repeat(2, 1), axis=-1), b.x))
    (event,) = optimize(graph, split_groups)
    assert event.reason == "2 blocks are zero outside, but a linear layer has no groups"


def test_one_weight_outside_is_enough_to_stay() -> None:
    weight = regroup(positive(8, 8, 1, 1, groups=2), 1).weight
    weight[5, 1] = 1e-30
    b = Builder(1, 8, 6, 6)
    graph = b.finish(b.add(Conv.of(weight), b.x))
    assert optimize(graph, split_groups) == []

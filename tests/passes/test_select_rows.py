from fuser.ir.ops import Concat, Select
from passes.merge_branches import merge_branches
from passes.merge_siblings import merge_siblings
from passes.select_rows import select_rows
from tests.graphs import Builder, operators, optimize, random_conv, relu
from tests.passes.test_merge_siblings import split


def test_rows_that_nobody_reads_are_not_computed() -> None:
    b = Builder(1, 4, 6, 6)
    first, _ = split(b, b.add(random_conv(4, 12, 3, 3), b.x), 4, 8)
    graph = b.finish(b.add(relu, first))
    optimize(graph, select_rows)
    assert operators(graph) == ["3x3 conv, 4 -> 4, pads (1, 1, 1, 1)", "Relu"]


def test_a_convolution_read_elsewhere_stays() -> None:
    b = Builder(1, 64, 6, 6)
    conv = b.add(random_conv(64, 12, 3, 3), b.x)
    first, _ = split(b, conv, 8, 4)
    graph = b.finish(b.add(relu, first), b.add(relu, conv))
    (event,) = optimize(graph, select_rows)
    assert "no gain" in event.reason


def test_what_is_no_convolution_stays() -> None:
    b = Builder(1, 4, 6, 6)
    first, second = split(b, b.add(relu, b.x), 2, 2)
    graph = b.finish(b.add(relu, first), b.add(relu, second))
    assert optimize(graph, select_rows) == []


def test_a_slice_of_another_axis_declines() -> None:
    b = Builder(1, 4, 6, 6)
    conv = b.add(random_conv(4, 6, 3, 3), b.x)
    part = b.add(Select(((0, 3),), 6, -1), conv, shape=(1, 6, 6, 3))
    graph = b.finish(b.add(relu, part))
    (event,) = optimize(graph, select_rows)
    assert event.reason == "channel axis differs: 1 and -1"


def test_a_convolution_of_a_slice_of_another_axis_stays() -> None:
    b = Builder(1, 4, 6, 6)
    part = b.add(Select(((0, 3),), 6, -1), b.x, shape=(1, 4, 6, 3))
    both = b.sum(b.add(random_conv(4, 4, 1, 1), part), part)
    graph = b.finish(both)
    optimize(graph, merge_branches)
    assert operators(graph) == ["channels 0:3 of 6", "1x1 conv, 4 -> 4"]


def test_siblings_on_another_axis_stay() -> None:
    b = Builder(1, 4, 6, 6)
    parts = [b.add(random_conv(4, 4, 1, 1, seed=seed), b.x) for seed in (0, 1)]
    graph = b.finish(b.add(Concat(2, -1), *parts, shape=(1, 4, 6, 12)))
    assert optimize(graph, merge_siblings) == []

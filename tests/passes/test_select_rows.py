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

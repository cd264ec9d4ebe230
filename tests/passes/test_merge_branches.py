import numpy as np
import pytest

from fuser.algebra.conv import Conv, average_pool, identity, pad
from fuser.ir.graph import Graph
from fuser.ir.node import Value
from passes.fold_batch_norm import fold_batch_norm
from passes.fold_scale_shift import fold_scale_shift
from passes.merge_branches import merge_branches
from tests.graphs import Builder, operators, optimize, random_conv, relu


def source(*shape: int) -> tuple[Builder, Value]:
    b = Builder(*shape)
    return b, b.add(relu, b.x)


def test_repvgg() -> None:
    b, x = source(1, 8, 7, 6)
    k3 = b.norm(b.add(random_conv(8, 8, 3, 3, bias=False), x), 1)
    k1 = b.norm(b.add(random_conv(8, 8, 1, 1, bias=False), x), 2)
    graph = b.finish(b.add(relu, b.sum(b.sum(k3, k1), b.norm(x, 3))))
    optimize(graph, fold_batch_norm, merge_branches)
    assert operators(graph) == ["Relu", "3x3 conv, 8 -> 8, pads (1, 1, 1, 1)", "Relu"]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
@pytest.mark.parametrize("nested", [False, True])
def test_any_order_arity_sign_and_scalar(order: tuple[int, ...], nested: bool) -> None:
    b, x = source(1, 4, 7, 6)
    terms = [b.add(random_conv(4, 4, 3, 3), x), x, b.add(random_conv(4, 4, 1, 1), x)]
    a, c, d = (terms[i] for i in order)
    if nested:
        y = b.sum(a, b.sum(c, d, coefficients=[2.0, -1.0], offset=1.5), coefficients=[1.0, -0.5])
    else:
        y = b.sum(a, c, d, coefficients=[1.0, -3.0, 0.5], offset=-2.0)
    graph = b.finish(y)
    optimize(graph, merge_branches)
    assert operators(graph) == ["Relu", "3x3 conv, 4 -> 4, pads (1, 1, 1, 1)"]


@pytest.mark.parametrize("groups", [2, 4, 8])
def test_grouped_identity(groups: int) -> None:
    b, x = source(1, 8, 5, 5)
    graph = b.finish(b.sum(b.add(random_conv(8, 8, 3, 3, groups=groups), x), x))
    optimize(graph, merge_branches)
    assert operators(graph) == ["Relu", f"3x3 conv, 8 -> 8, groups {groups}, pads (1, 1, 1, 1)"]


def test_a_norm_over_a_sum_of_norms() -> None:
    b, x = source(1, 4, 7, 6)
    inner = b.sum(b.norm(b.add(random_conv(4, 4, 3, 3), x)), b.add(random_conv(4, 4, 1, 1), x), b.norm(x, 4))
    graph = b.finish(b.sum(x, b.norm(inner, 7), coefficients=[1.0, -1.0]))
    optimize(graph, fold_batch_norm, merge_branches)
    assert operators(graph) == ["Relu", "3x3 conv, 4 -> 4, pads (1, 1, 1, 1)"]


def test_strided_rectangular_dilated_even_and_pooled() -> None:
    b, x = source(1, 4, 9, 9)
    terms = [
        random_conv(4, 4, 5, 5, stride=(2, 2), groups=4),
        random_conv(4, 4, 1, 1, stride=(2, 2), groups=4),
        random_conv(4, 4, 3, 3, stride=(2, 2), dilation=(2, 2), begin=(2, 2), end=(2, 2), groups=4),
        random_conv(4, 4, 1, 3, stride=(2, 2), groups=4),
        average_pool(4, (3, 3), (2, 2), (1, 1), (1, 1), (1, 1)),
    ]
    graph = b.finish(b.sum(*(b.add(conv, x) for conv in terms)))
    optimize(graph, merge_branches)
    assert operators(graph) == ["Relu", "5x5 conv, 4 -> 4, groups 4, stride (2, 2), pads (2, 2, 2, 2)"]


def test_cropped_input() -> None:
    b, x = source(1, 4, 9, 9)
    cropped = b.add(pad(4, (0, -1), (0, -1)), x)
    k3 = b.add(random_conv(4, 4, 3, 3, begin=(0, 0), end=(0, 0)), x)
    k31 = b.add(random_conv(4, 4, 3, 1, begin=(0, 0), end=(0, 0)), cropped)
    graph = b.finish(b.sum(k3, k31))
    optimize(graph, merge_branches)
    assert operators(graph) == ["Relu", "3x3 conv, 4 -> 4"]


def test_a_branch_that_is_a_chain_is_collapsed_for_the_sum() -> None:
    b, x = source(1, 8, 6, 6)
    chain = b.add(random_conv(8, 8, 3, 3), b.add(random_conv(8, 8, 1, 1, bias=False), x))
    graph = b.finish(b.sum(b.add(random_conv(8, 8, 3, 3), x), chain))
    optimize(graph, merge_branches)
    assert operators(graph) == ["Relu", "3x3 conv, 8 -> 8, pads (1, 1, 1, 1)"]


def test_terms_of_other_values_stay_terms() -> None:
    b, x = source(1, 4, 6, 6)
    other = b.add(relu, b.add(random_conv(4, 4, 3, 3), x))
    graph = b.finish(b.sum(b.add(random_conv(4, 4, 3, 3), x), other, x))
    optimize(graph, merge_branches)
    assert operators(graph) == [
        "Relu",
        "3x3 conv, 4 -> 4, pads (1, 1, 1, 1)",
        "Relu",
        "3x3 conv, 4 -> 4, pads (1, 1, 1, 1)",
        "sum +1*x0 +1*x1",
    ]


def test_large_strips_stay_apart_where_their_union_costs_more() -> None:
    b, x = source(1, 8, 56, 56)
    strips = [random_conv(8, 8, *size, groups=8) for size in ((51, 5), (5, 51), (5, 5))]
    graph = b.finish(b.sum(*(b.add(conv, x) for conv in strips)))
    optimize(graph, merge_branches)
    assert sorted(operators(graph))[:2] == [
        "51x5 conv, 8 -> 8, groups 8, pads (25, 2, 25, 2)",
        "5x51 conv, 8 -> 8, groups 8, pads (2, 25, 2, 25)",
    ]


def declined(b: Builder, *terms: Value) -> str:
    graph: Graph = b.finish(b.sum(*terms))
    count = len(graph.nodes)
    (event,) = optimize(graph, merge_branches)
    assert event.status == "declined"
    assert len(graph.nodes) == count
    return event.reason


def test_stride_differs() -> None:
    b, x = source(1, 4, 3, 3)
    a = b.add(random_conv(4, 4, 1, 1, stride=(3, 3)), x)
    c = b.add(random_conv(4, 4, 3, 3, begin=(0, 0), end=(0, 0)), x)
    assert "stride differs: (3, 3) and (1, 1)" in declined(b, a, c)


def test_extent_differs_unless_known_to_meet() -> None:
    b = Builder(1, 4, "h", 6)
    x = b.add(relu, b.x)
    even = random_conv(4, 4, 2, 2, stride=(2, 2), begin=(0, 0), end=(0, 0))
    point = random_conv(4, 4, 1, 1, stride=(2, 2))
    assert "output extent differs: slack (-1, -1) and (0, 0)" in declined(b, b.add(even, x), b.add(point, x))

    b, x = source(1, 4, 6, 6)
    graph = b.finish(b.sum(b.add(even, x), b.add(point, x)))
    optimize(graph, merge_branches)
    assert len(graph.nodes) == 2


def test_pad_value_differs() -> None:
    b, x = source(1, 2, 6, 6)
    a = b.add(random_conv(2, 2, 3, 3), x)
    c = b.add(random_conv(2, 2, 3, 3, pad_value=np.array([0.0, 1.0])), x)
    assert "pad value differs: 0 and 1 (channel 1)" in declined(b, a, c)


def test_a_branch_read_elsewhere_does_not_vanish() -> None:
    b, x = source(1, 4, 6, 6)
    a, c = b.add(random_conv(4, 4, 3, 3), x), b.add(random_conv(4, 4, 3, 3, seed=1), x)
    graph = b.finish(b.sum(a, c), b.add(relu, a), b.add(relu, c))
    (event,) = optimize(graph, merge_branches)
    assert "no gain" in event.reason
    assert "is also read by" in event.reason


def test_an_identity_under_a_sum_is_not_a_bias() -> None:
    b, x = source(1, 3, 6, 6)
    same = b.add(identity(3, 2), x)
    graph = b.finish(b.sum(b.add(Conv.of(np.ones((3, 3, 1, 1))), x), same))
    optimize(graph, merge_branches)
    (conv,) = [node.op for node in graph.nodes if isinstance(node.op, Conv)]
    assert conv.weight[:, :, 0, 0].tolist() == [[2, 1, 1], [1, 2, 1], [1, 1, 2]]


def test_a_value_that_is_added_twice() -> None:
    b, x = source(1, 3, 6, 6)
    conv = random_conv(3, 4, 3, 3)
    graph = b.finish(b.add(conv, b.sum(x, x, x)))
    optimize(graph, merge_branches, fold_scale_shift)
    assert operators(graph) == ["Relu", str(conv)]

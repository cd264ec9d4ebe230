import numpy as np
import pytest

import fuser
from fuser.algebra.conv import Conv
from passes.drop_branches import drop_branches
from tests.graphs import Builder, operators, optimize, random_conv, relu
from tests.small_models import normal, parsed


def dead(channels: int, bias: list[float] | None = None) -> Conv:
    """A 3x3 convolution whose kernel is zero."""
    shift = None if bias is None else np.array(bias)
    return Conv.of(np.zeros((channels, channels, 3, 3)), shift, begin=(1, 1), end=(1, 1))


def test_a_branch_of_zeros_is_its_bias_and_goes_with_what_leads_to_it() -> None:
    b = Builder(1, 3, 5, 6)
    inside = b.add(relu, b.add(random_conv(3, 3, 3, 3), b.x))
    branch = b.add(dead(3, [1.0, 0.0, -2.0]), inside)
    graph = b.finish(b.sum(b.x, branch, coefficients=[1.0, -3.0], offset=0.5))
    optimize(graph, drop_branches)
    (node,) = graph.nodes
    assert isinstance(node.op, Conv)
    assert node.op.pointwise
    assert node.op.bias.tolist() == [-2.5, 0.5, 6.5]
    assert (node.op.weight == 1).all()


def test_without_a_bias_nothing_is_left() -> None:
    b = Builder(1, 3, 5, 6)
    graph = b.finish(b.add(relu, b.sum(b.add(dead(3), b.x), b.add(relu, b.x))))
    optimize(graph, drop_branches)
    assert operators(graph) == ["Relu", "Relu"]


def test_the_other_branches_keep_their_factors() -> None:
    b = Builder(1, 16, 32, 32)
    y = b.add(relu, b.x)
    graph = b.finish(b.sum(b.x, b.add(dead(16, [1.0] * 16), y), y, coefficients=[2.0, 1.0, -1.0]))
    optimize(graph, drop_branches)
    assert operators(graph) == ["Relu", "sum +2*x0 -1*x1", "1x1 conv, 16 -> 16, groups 16"]


def test_a_sum_of_constants_stays() -> None:
    b = Builder(1, 3, 5, 6)
    graph = b.finish(b.sum(b.add(dead(3), b.x), b.add(dead(3, [1.0, 2.0, 3.0]), b.x)))
    (event,) = optimize(graph, drop_branches)
    assert event.reason == "all 2 branches are constant"


@pytest.mark.parametrize("order", [("c", "m", "x"), ("m", "c", "x")])
@pytest.mark.parametrize("bias", [0.0, 1.0])
def test_biases_along_different_axes_are_branches_of_their_own(order: tuple[str, ...], bias: float) -> None:
    """A linear layer of the last axis beside a convolution of the channels, both zero."""
    model = parsed(
        f"""g (float[N,4,H,5] x) => (float[N,4,H,5] y) {{
            c = Conv (x, w, b) m = MatMul (x, z) r = Relu (x) y = Sum ({", ".join(order)}, r) }}""",
        w=np.zeros((4, 4, 1, 1)),
        b=np.arange(4.0) * bias,
        z=np.zeros((5, 5)),
    )
    result = fuser.optimize(model, verify=True)
    kinds = [node.op_type for node in result.graph.node]
    assert "MatMul" not in kinds
    assert kinds.count("Conv") == 0


def test_one_tap_that_is_not_zero_keeps_the_branch() -> None:
    b = Builder(1, 3, 5, 6)
    weight = np.zeros((3, 3, 3, 3))
    weight[2, 1, 0, 2] = 1e-30
    branch = Conv.of(weight, begin=(1, 1), end=(1, 1))
    graph = b.finish(b.sum(b.x, b.add(branch, b.x)))
    assert optimize(graph, drop_branches) == []
    assert len(graph.nodes) == 2


@pytest.mark.parametrize("size", [1, 3])
def test_a_residual_whose_last_norm_is_zero(size: int) -> None:
    model = parsed(
        "g (float[1,4,8,8] x) => (float[1,4,8,8] y) { "
        'a = Conv <pads = [1, 1, 1, 1]> (x, w) b = Relu(a) c = Conv <auto_pad = "SAME_UPPER"> (b, v) '
        "d = BatchNormalization(c, scale, shift, mean, variance) r = Relu(x) e = Add(r, d) y = Relu(e) }",
        w=normal(4, 4, 3, 3),
        v=normal(4, 4, size, size, seed=1),
        scale=np.zeros(4),
        shift=normal(4, seed=2),
        mean=normal(4, seed=3),
        variance=np.ones(4),
    )
    result = fuser.optimize(model)
    assert [node.op_type for node in result.graph.node] == ["Relu", "Add", "Relu"]
    assert fuser.verify(model, result).ok

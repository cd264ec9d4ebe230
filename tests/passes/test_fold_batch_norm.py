from typing import Any

import numpy as np
import pytest

from fuser.algebra.conv import Conv, scale_shift
from passes.fold_batch_norm import fold_batch_norm
from tests.graphs import Builder, operators, optimize, random_conv, relu

CONVS: list[Any] = [
    pytest.param(random_conv(6, 4, 3, 3), id="dense"),
    pytest.param(random_conv(6, 4, 3, 3, groups=2), id="grouped"),
    pytest.param(random_conv(6, 6, 3, 3, groups=6, stride=(2, 1)), id="depthwise"),
    pytest.param(random_conv(6, 12, 3, 3, groups=6, dilation=(2, 2)), id="depthwise multiplier"),
    pytest.param(random_conv(6, 6, 3, 3, transposed=True, stride=(2, 2)), id="transposed, Cin = Cout"),
    pytest.param(random_conv(6, 4, 3, 3, transposed=True, groups=2), id="transposed grouped"),
    pytest.param(random_conv(6, 6, 3, 3, transposed=True, groups=6), id="transposed depthwise"),
]


@pytest.mark.parametrize("conv", CONVS)
def test_after_a_convolution(conv: Conv) -> None:
    b = Builder(2, 6, 7, 8)
    graph = b.finish(b.norm(b.add(conv, b.x)))
    optimize(graph, fold_batch_norm)
    assert operators(graph) == [str(conv)]


@pytest.mark.parametrize("conv", CONVS)
def test_before_an_unpadded_convolution(conv: Conv) -> None:
    from dataclasses import replace

    conv = replace(conv, begin=(0, 0), end=(0, 0))
    b = Builder(2, 6, 9, 8)
    graph = b.finish(b.add(conv, b.norm(b.x)))
    events = optimize(graph, fold_batch_norm)
    if conv.transposed:
        assert "a shift does not pass through a transposed convolution" in events[0].reason
    else:
        assert operators(graph) == [str(conv)]


def test_linear_both_ways() -> None:
    b = Builder(5, 6)
    linear = Conv.of(np.arange(24.0).reshape(4, 6), np.ones(4), axis=-1)
    norm = scale_shift(np.arange(1.0, 7.0), np.ones(6), 0, axis=-1)
    after = scale_shift(np.arange(1.0, 5.0), np.ones(4), 0, axis=-1)
    graph = b.finish(b.add(after, b.add(linear, b.add(norm, b.x, label="batch_norm")), label="batch_norm"))
    optimize(graph, fold_batch_norm)
    assert operators(graph) == ["linear, 6 -> 4"]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("first", ["linear", "norm"])
def test_one_number_for_all_channels_has_no_axis(channels: int, first: str) -> None:
    b = Builder(2, channels, 6)
    linear = Conv.of(np.arange(24.0).reshape(4, 6), np.ones(4), axis=-1)
    norm = scale_shift(np.full(channels, 2.0), np.full(channels, 3.0), 1)
    x = b.add(linear, b.x) if first == "linear" else b.x
    x = b.add(norm, x, label="batch_norm")
    graph = b.finish(x if first == "linear" else b.add(linear, x))
    optimize(graph, fold_batch_norm)
    assert operators(graph) == ["linear, 6 -> 4"]


@pytest.mark.parametrize("varied", ["scale", "shift"])
def test_numbers_of_their_own_have_an_axis(varied: str) -> None:
    b = Builder(2, 3, 6)
    linear = Conv.of(np.arange(24.0).reshape(4, 6), np.ones(4), axis=-1)
    own = {"scale": np.full(3, 2.0), "shift": np.full(3, 3.0), varied: np.arange(1.0, 4.0)}
    graph = b.finish(
        b.add(scale_shift(own["scale"], own["shift"], 1), b.add(linear, b.x), label="batch_norm")
    )
    (event,) = optimize(graph, fold_batch_norm)
    assert "channel axis differs: 1 and -1" in event.reason


def test_before_a_padded_convolution_the_border_differs() -> None:
    b = Builder(1, 6, 7, 7)
    graph = b.finish(b.add(random_conv(6, 4, 3, 3), b.norm(b.x)))
    (event,) = optimize(graph, fold_batch_norm)
    assert event.status == "declined"
    assert "the border differs: the inner operator continues with" in event.reason
    assert "the outer one pads with 0" in event.reason


def test_into_all_readers_or_none() -> None:
    b = Builder(1, 6, 7, 7)
    norm = b.norm(b.add(relu, b.x))
    graph = b.finish(b.add(random_conv(6, 4, 1, 1), norm), b.add(random_conv(6, 2, 1, 1), norm))
    optimize(graph, fold_batch_norm)
    assert operators(graph) == ["Relu", "1x1 conv, 6 -> 4", "1x1 conv, 6 -> 2"]

    b = Builder(1, 6, 7, 7)
    norm = b.norm(b.add(relu, b.x))
    graph = b.finish(b.add(random_conv(6, 4, 1, 1), norm), b.add(relu, norm))
    (event,) = optimize(graph, fold_batch_norm)
    assert event.status == "declined"
    assert "n3 (Relu) reads it and is no convolution" in event.reason


def test_a_convolution_that_is_read_elsewhere_is_not_doubled() -> None:
    b = Builder(1, 6, 7, 7)
    conv = b.add(random_conv(6, 4, 3, 3), b.x)
    graph = b.finish(b.norm(conv), b.add(relu, conv))
    (event,) = optimize(graph, fold_batch_norm)
    assert event.status == "declined"
    assert "no gain" in event.reason
    assert "'v0' is also read by n2" in event.reason


def test_a_convolution_that_is_a_graph_output_stays() -> None:
    b = Builder(1, 6, 7, 7)
    conv = b.add(random_conv(6, 4, 3, 3), b.x)
    graph = b.finish(b.norm(conv), conv)
    (event,) = optimize(graph, fold_batch_norm)
    assert "'v0' is also read by the graph output" in event.reason


def test_between_non_linearities_there_is_nothing_to_fold_into() -> None:
    b = Builder(1, 6, 7, 7)
    graph = b.finish(b.add(relu, b.norm(b.add(relu, b.x))))
    (event,) = optimize(graph, fold_batch_norm)
    assert (
        event.reason
        == "behind n0 (Relu): nothing to fold into; forward: n2 (Relu) reads it and is no convolution"
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite_decline(bad: float) -> None:
    weight = np.ones((4, 6, 1, 1))
    weight[0, 0] = bad
    b = Builder(1, 6, 7, 7)
    graph = b.finish(b.norm(b.add(Conv.of(weight), b.x)))
    from fuser.rewrite.driver import run
    from fuser.rewrite.pattern import Log, Plan
    from fuser.validate import check

    log = Log()
    run(graph, Plan((fold_batch_norm,)), log, check, careful=True)
    (event,) = log.events
    assert event.status == "declined"
    assert f"the weight would hold {bad}" in event.reason


def test_overflow_of_the_dtype_declines() -> None:
    b = Builder(1, 2, 3, 3)
    conv = b.add(Conv.of(np.full((2, 2, 1, 1), 40000.0)), b.x)
    out = b.add(scale_shift(np.full(2, 2.0), np.zeros(2), 2), conv, label="batch_norm")
    out.dtype = "float16"
    graph = b.finish(out)
    (event,) = optimize(graph, fold_batch_norm, careful=True)
    assert "the weight overflows float16: 80000 is more than 65504" in event.reason

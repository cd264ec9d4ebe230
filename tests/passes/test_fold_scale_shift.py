import numpy as np

from fuser.algebra.conv import Conv, scale_shift
from passes.fold_scale_shift import fold_scale_shift
from tests.graphs import Builder, operators, optimize, random_conv, relu


def test_per_channel_and_scalar_after_a_convolution() -> None:
    conv = random_conv(3, 4, 3, 3)
    b = Builder(1, 3, 6, 6)
    scaled = b.add(scale_shift(np.arange(1.0, 5.0), np.arange(4.0), 2), b.add(conv, b.x))
    graph = b.finish(b.sum(scaled, coefficients=[-2.0], offset=3.0))
    optimize(graph, fold_scale_shift)
    assert operators(graph) == [str(conv)]


def test_scale_before_a_padded_convolution() -> None:
    conv = random_conv(3, 4, 3, 3)
    b = Builder(1, 3, 6, 6)
    graph = b.finish(b.add(conv, b.sum(b.x, coefficients=[0.5])))
    optimize(graph, fold_scale_shift)
    assert operators(graph) == [str(conv)]


def test_the_scale_goes_forward_and_the_shift_stays() -> None:
    conv = random_conv(3, 4, 3, 3)
    b = Builder(1, 3, 6, 6)
    graph = b.finish(b.add(conv, b.sum(b.sum(b.add(relu, b.x), coefficients=[0.5]), offset=2.0)))
    optimize(graph, fold_scale_shift)
    assert operators(graph) == ["Relu", "sum +1*x0 +4", str(conv)]


def test_a_shift_alone_stays_before_a_padded_convolution() -> None:
    b = Builder(1, 3, 6, 6)
    graph = b.finish(b.add(random_conv(3, 4, 3, 3), b.sum(b.x, offset=2.0)))
    (event,) = optimize(graph, fold_scale_shift)
    assert event.status == "declined"
    assert "the inner operator continues with 2, the outer one pads with 0" in event.reason


def test_chains_of_scalars_fold_across_what_they_are_separated_by() -> None:
    b = Builder(5, 3)
    linear = Conv.of(np.arange(12.0).reshape(4, 3), axis=-1)
    y = b.sum(b.sum(b.add(linear, b.x), offset=1.0), coefficients=[3.0])
    graph = b.finish(b.sum(y, offset=-1.0))
    optimize(graph, fold_scale_shift)
    assert operators(graph) == ["linear, 3 -> 4"]


def test_a_zero_scale_cannot_be_split_off() -> None:
    b = Builder(1, 2, 6, 6)
    zero = scale_shift(np.array([0.0, 1.0]), np.array([1.0, 1.0]), 2)
    graph = b.finish(b.add(random_conv(2, 4, 3, 3), b.add(zero, b.x)))
    (event,) = optimize(graph, fold_scale_shift)
    assert "a scale of 0 has no inverse" in event.reason


def test_a_scale_alone_has_nothing_to_split_off() -> None:
    b = Builder(1, 3, 6, 6)
    reader = random_conv(3, 4, 3, 3, pad_value=np.array([3.0, 2.0, 1.0]))
    graph = b.finish(b.add(reader, b.sum(b.x, coefficients=[2.0])))
    (event,) = optimize(graph, fold_scale_shift)
    assert "there is no shift to split off" in event.reason


def test_an_identity_map_of_a_shared_value_is_no_scale() -> None:
    b = Builder(1, 2, 6, 6)
    scaled = b.sum(b.x, coefficients=[2.0])
    graph = b.finish(b.add(relu, scaled), b.add(random_conv(2, 4, 3, 3), scaled))
    (event,) = optimize(graph, fold_scale_shift)
    assert "n1 (Relu) reads it and is no convolution" in event.reason

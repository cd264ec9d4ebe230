"""Convolutions at one extent as matrices, against their definition."""

from math import prod

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fuser.algebra.conv import Conv, scale_shift
from fuser.algebra.lazy import Lazy
from fuser.algebra.rows import as_matrix, on_axes
from fuser.errors import Declined
from tests.direct import direct, unclipped
from tests.laws import PADDED, SAME, UP, conv
from tests.strategies import convs, images, integers


@settings(max_examples=300)
@given(convs(transposed=None), st.data())
def test_a_convolution_is_a_matrix_on_rows(k: Conv, data: st.DataObject) -> None:
    assume(k.axis == 1)
    x = data.draw(images(k))
    assume(min(unclipped(k, x.shape[2:]), default=1) > 0)
    matrix = as_matrix(k, x.shape[2:])
    assert matrix.rank == 0
    assert matrix.groups >= k.groups
    expected = direct(k, x).reshape(len(x), -1)
    assert np.array_equal(matrix.evaluate(x.reshape(len(x), -1)), expected)


def test_a_tap_that_reads_padding_is_bias() -> None:
    k = Conv.of(np.array([[[2.0, 3.0]]]), np.array([5.0]), begin=(1,), pad_value=np.array([7.0]))
    matrix = as_matrix(k, (2,))
    assert matrix.weight.tolist() == [[3, 0], [2, 3]]
    assert matrix.bias.tolist() == [5 + 2 * 7, 5]


def test_groups_are_blocks() -> None:
    matrix = as_matrix(conv(4, 6, 3, 3, groups=2, **SAME), (3, 2))
    assert matrix.kernel.shape == (4 * 6, 3 * 6)
    assert matrix.groups == 2


def test_a_scale_of_each_channel_is_one_of_each_element() -> None:
    matrix = as_matrix(scale_shift(np.array([2.0, 3.0]), np.array([5.0, 7.0]), 1), (3,))
    assert matrix.pointwise
    assert matrix.weight.reshape(-1).tolist() == [2, 2, 2, 3, 3, 3]
    assert matrix.bias.tolist() == [5, 5, 5, 7, 7, 7]


def test_one_position_is_the_kernel_as_it_is_at_hand() -> None:
    k = conv(4, 6, 1, 1, groups=2)
    matrix = as_matrix(k, (1, 1))
    assert matrix.kernel.at_hand
    assert np.array_equal(matrix.weight, k.weight.reshape(4, 3))


def test_no_kernel_is_computed_before_somebody_looks() -> None:
    def compute() -> np.ndarray:
        raise AssertionError

    k = Conv(Lazy((64, 64, 3, 3), compute), np.ones(64), begin=(1, 1), end=(1, 1))
    assert as_matrix(k, (56, 56)).kernel.shape == (64 * 56 * 56,) * 2


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("shape", [(12,), (6, 2), (2, 3, 2)])
def test_a_map_of_channels_does_not_see_the_other_axes(shape: tuple[int, ...], groups: int) -> None:
    k, x = conv(4, 6, 1, 1, groups=groups), integers(0, 2, 6, 3, 4)
    moved = on_axes(k, len(shape))
    assert np.array_equal(moved.evaluate(x.reshape(2, 6, *shape)), k.evaluate(x).reshape(2, 4, *shape))
    assert on_axes(moved, 2) == k
    assert on_axes(k, 2) is k


@pytest.mark.parametrize("axis", [1, -1])
def test_a_map_of_channels_of_one_position(axis: int) -> None:
    k, x = conv(4, 6, 1, 1), integers(0, 2, 6, 1, 1)
    assert np.array_equal(on_axes(k, 0, axis).evaluate(x.reshape(2, 6)), k.evaluate(x).reshape(2, 4))


@pytest.mark.parametrize(
    ("k", "extent", "reason"),
    [
        (conv(2, 3, axis=-1), (), "the channel axis is -1, not 1"),
        (conv(2, 3, 3), (4, 5), r"an extent of \(4, 5\) for 1 spatial axes"),
        (conv(2, 3, 3), (2,), r"nothing is left of an extent of \(2,\): \(0,\)"),
    ],
)
def test_what_is_no_matrix(k: Conv, extent: tuple[int, ...], reason: str) -> None:
    with pytest.raises(Declined, match=reason):
        as_matrix(k, extent)


@pytest.mark.parametrize("k", [conv(2, 3, 3, **PADDED), conv(2, 2, 1, stride=(2,)), UP])
def test_what_is_more_than_a_map_of_channels(k: Conv) -> None:
    with pytest.raises(Declined, match="is no map of the channels alone"):
        on_axes(k, 2)


def test_the_whole_law() -> None:
    """R^-1 a (R x) + k x = R^-1 (a + M) (R x)."""
    k, rows = conv(2, 3, 3, 3, seed=3, stride=(2, 1), **SAME), 3 * 4 * 5
    a = conv(2 * 2 * 5, rows)
    x = integers(0, 2, 3, 4, 5)
    both = a.evaluate(x.reshape(2, rows)).reshape(2, 2, 2, 5) + k.evaluate(x)
    matrix = as_matrix(k, (4, 5))
    assert prod(matrix.kernel.shape) == prod(a.kernel.shape)
    merged = Conv.of(a.weight + matrix.weight, a.bias + matrix.bias)
    assert np.array_equal(merged.evaluate(x.reshape(2, rows)).reshape(both.shape), both)

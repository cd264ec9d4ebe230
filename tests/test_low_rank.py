"""Kernels that are products of smaller ones; both factors are exact up to the rounding of float64."""

from dataclasses import replace

import numpy as np
import pytest

from fuser.algebra import compose
from fuser.conv import Conv
from fuser.errors import Declined
from fuser.lazy import Array
from fuser.low_rank import factor
from tests.laws import conv
from tests.strategies import integers


def product(outer: Conv, inner: Conv, **attributes: object) -> Conv:
    """A convolution with the kernel of two after one another, and other attributes."""
    kernel = compose(outer, inner).weight
    return Conv.of(kernel, integers(3, outer.outputs), **attributes)


def difference(whole: Conv, parts: tuple[Conv, Conv], n: tuple[int, ...]) -> float:
    """The error of the two factors, relative to the largest result."""
    x = np.random.default_rng(0).standard_normal((2, whole.inputs, *n))
    expected = whole.evaluate(x)
    outer, inner = parts
    return float(np.abs(outer.evaluate(inner.evaluate(x)) - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize(
    ("last", "outer", "inner"),
    [
        ((), (1, 1), (3, 3)),
        ((0, 1), (3, 3), (1, 1)),
        ((0,), (3, 1), (1, 3)),
        ((1,), (1, 3), (3, 1)),
    ],
)
def test_factors_with_the_taps_on_either_side(
    last: tuple[int, ...], outer: tuple[int, int], inner: tuple[int, int]
) -> None:
    whole = product(
        conv(20, 3, *outer, bias=False),
        conv(3, 18, *inner, seed=5, bias=False),
        stride=(2, 1),
        dilation=(1, 2),
        begin=(1, 2),
        end=(0, 3),
        pad_value=integers(9, 18),
    )
    parts = factor(whole, last)
    assert parts is not None
    assert [part.size for part in parts] == [outer, inner]
    assert parts[0].inputs == 3
    assert difference(whole, parts, (7, 9)) < 1e-14


def test_linear_layers() -> None:
    whole = Conv.of(integers(0, 40, 2) @ integers(1, 2, 30), np.ones(40), axis=-1)
    parts = factor(whole)
    assert parts is not None
    assert [str(part) for part in parts] == ["linear, 2 -> 40", "linear, 30 -> 2"]
    assert difference(whole, parts, ()) < 1e-14


def test_the_smallest_rank_is_found() -> None:
    whole = Conv.of(integers(0, 64, 7) @ integers(1, 7, 64))
    parts = factor(whole)
    assert parts is not None
    assert parts[0].inputs == 7


def low_rank(rank: int, dtype: type) -> Conv:
    random = np.random.default_rng(0)
    weight: Array = random.standard_normal((96, rank)).astype(dtype) @ random.standard_normal(
        (rank, 80)
    ).astype(dtype)
    single = weight.astype(np.float32)
    made = Conv.of(weight)
    return replace(made, kernel=made.kernel.holding(single))


def test_the_rounding_of_float32_is_not_low_rank() -> None:
    whole = low_rank(4, np.float32)
    with pytest.raises(Declined, match=r"rank 4 only within the rounding of float32: the next .* is \d\.\de-08"):
        factor(whole)


def test_merged_factors_of_half_precision_are() -> None:
    # Products of 11 bits each fit the 24 bits of float32, and a sum of one term is not rounded.
    rounded = low_rank(1, np.float16).weight
    random = np.random.default_rng(0)
    a, b = (random.standard_normal(shape).astype(np.float16).astype(np.float32) for shape in ((96, 1), (1, 80)))
    assert not np.array_equal(rounded, a @ b)
    parts = factor(Conv.of(a @ b))
    assert parts is not None
    assert parts[0].inputs == 1


@pytest.mark.parametrize(
    "whole",
    [
        conv(48, 48),
        Conv.of(np.random.default_rng(0).standard_normal((40, 40, 3, 3))),
        Conv.of(np.zeros((48, 48))),
        Conv.of(integers(0, 64, 40) @ integers(1, 40, 64)),
        conv(8, 1, 3, 3),
        replace(Conv.of(np.ones((8, 8, 1))), transposed=True),
        Conv.of(np.ones((8, 4, 3)), groups=2),
    ],
    ids=["full", "full 3x3", "zero", "rank 40", "one input", "transposed", "grouped"],
)
def test_no_smaller_factors(whole: Conv) -> None:
    assert factor(whole) is None

"""Kernels that are products of smaller ones; both factors are exact up to the rounding of float64."""

from dataclasses import replace

import numpy as np
import pytest

from fuser.algebra.conv import Conv
from fuser.algebra.laws import compose
from fuser.algebra.low_rank import factor
from fuser.errors import Declined
from fuser.ir.constant import Constant
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


def test_the_rounding_of_float32_is_not_low_rank() -> None:
    random = np.random.default_rng(0)
    single = (random.standard_normal((96, 4)) @ random.standard_normal((4, 80))).astype(np.float32)
    with pytest.raises(
        Declined, match=r"rank 4 only within the rounding of float32: .* is \d\.\de-08 of the first"
    ):
        factor(Conv(Constant.of(single).lazy, np.zeros(96)))


def test_merged_factors_of_half_precision_are() -> None:
    # Products of 11 bits each fit the 24 bits of float32, and a sum of one term is not rounded.
    random = np.random.default_rng(0)
    left, right = (random.standard_normal(shape).astype(np.float16) for shape in ((96, 1), (1, 80)))
    merged = left.astype(np.float32) * right.astype(np.float32)
    parts = factor(Conv.of(merged.astype(np.float64)))
    assert parts is not None
    assert parts[0].inputs == 1


@pytest.mark.parametrize(
    "whole",
    [
        conv(48, 48),
        Conv.of(np.random.default_rng(0).standard_normal((40, 40, 3, 3))),
        Conv.of(np.zeros((48, 48))),
        Conv.of(np.full((48, 48), np.nan)),
        Conv.of(integers(0, 64, 40) @ integers(1, 40, 64)),
        conv(8, 1, 3, 3),
        replace(Conv.of(np.ones((8, 8, 1))), transposed=True),
        Conv.of(np.ones((8, 4, 3)), groups=2),
    ],
    ids=["full", "full 3x3", "zero", "not finite", "rank 40", "one input", "transposed", "grouped"],
)
def test_no_smaller_factors(whole: Conv) -> None:
    assert factor(whole) is None


def test_a_kernel_that_holds_nan_where_it_is_not_looked_at_first() -> None:
    weight = integers(0, 40, 2) @ integers(1, 2, 30)
    weight[-1, -1] = np.nan
    with pytest.raises(Declined, match="the weight holds NaN or infinity"):
        factor(Conv.of(weight, axis=-1), ())

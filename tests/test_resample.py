"""The laws of resampling against direct evaluation: equal at every extent, borders included."""

from math import prod
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fuser.algebra.conv import Conv
from fuser.algebra.resample import gathered, nearest, phases, shuffled, upsampled
from fuser.errors import Declined

Array = np.ndarray[Any, np.dtype[np.float64]]


def whole(seed: int, *shape: int) -> Array:
    """Small whole numbers: sums and products of them are exact."""
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(np.float64)


def tuples(rank: int, low: int, high: int) -> st.SearchStrategy[tuple[int, ...]]:
    return st.tuples(*[st.integers(low, high)] * rank)


@st.composite
def convs(draw: st.DrawFn, factors: tuple[int, ...], *, plain: bool = False) -> Conv:
    """Any convolution without a stride, crops and wide pads included."""
    rank, groups = len(factors), draw(st.integers(1, 2))
    size = draw(tuples(rank, 1, 4))
    shape = (groups * draw(st.integers(1, 2)), draw(st.integers(1, 2)), *size)
    seed = draw(st.integers(0, 2**16))
    return Conv.of(
        whole(seed, *shape),
        whole(seed + 1, shape[0]),
        groups=groups,
        dilation=(1,) * rank if plain else draw(tuples(rank, 1, 3)),
        begin=draw(tuples(rank, -1, 4)),
        end=draw(tuples(rank, -1, 4)),
    )


def repeated(x: Array, factors: tuple[int, ...]) -> Array:
    for axis, factor in enumerate(factors, start=2):
        x = x.repeat(factor, axis)
    return x


FACTORS = st.integers(1, 2).flatmap(lambda rank: tuples(rank, 1, 3))


@settings(max_examples=400, deadline=None)
@given(FACTORS, st.data())
def test_what_is_read_of_an_upsampling_is_a_transposed_convolution(factors: Any, data: st.DataObject) -> None:
    conv = data.draw(convs(factors))
    x = whole(7, 2, conv.inputs, *data.draw(tuples(len(factors), 1, 5)))
    up = repeated(x, factors)
    assert np.array_equal(nearest(conv.inputs, factors).evaluate(x), up)
    assume(all(n + slack > 0 for n, slack in zip(up.shape[2:], conv.slack, strict=True)))
    made = upsampled(conv, factors)
    assert made.extent(x.shape[2:]) == conv.extent(up.shape[2:])
    assert np.array_equal(made.evaluate(x), conv.evaluate(up))


@settings(max_examples=400, deadline=None)
@given(FACTORS, st.data())
def test_the_phases_of_a_transposed_convolution_are_channels(factors: Any, data: st.DataObject) -> None:
    drawn = data.draw(convs(factors, plain=True))
    conv = Conv(drawn.kernel, drawn.bias, drawn.groups, factors, (), drawn.begin, drawn.end, transposed=True)
    x = whole(9, 2, conv.inputs, *data.draw(tuples(len(factors), 1, 5)))
    extent = [
        (n - 1) * s + 1 - slack for n, s, slack in zip(x.shape[2:], conv.stride, conv.slack, strict=True)
    ]
    assume(min(extent) > 0)
    made, crop = phases(conv)
    assert made.kernel.shape[0] == conv.outputs * prod(factors)
    assert np.array_equal(crop.evaluate(shuffled(made.evaluate(x), factors)), conv.evaluate(x))


def test_a_three_by_three_behind_an_upsampling_by_two_has_two_by_two_phases() -> None:
    conv = Conv.of(whole(1, 5, 3, 3, 3), whole(2, 5), begin=(1, 1), end=(1, 1))
    transposed = upsampled(conv, (2, 2))
    assert (transposed.size, transposed.begin, transposed.end) == ((4, 4), (1, 1), (1, 1))
    made, crop = phases(transposed)
    assert (made.size, made.outputs) == ((2, 2), 20)
    assert crop.begin == crop.end == (-1, -1)
    five = Conv.of(whole(1, 5, 3, 5, 5), whole(2, 5), begin=(2, 2), end=(2, 2))
    made, crop = phases(upsampled(five, (2, 2)))
    assert made.size == (3, 3)
    assert not any(crop.begin + crop.end)


@settings(max_examples=300, deadline=None)
@given(FACTORS, st.data())
def test_what_reads_blocks_as_channels_reads_positions(factors: Any, data: st.DataObject) -> None:
    drawn = data.draw(convs(factors, plain=True))
    count, seed = prod(factors), data.draw(st.integers(0, 2**16))
    kernel = whole(seed, drawn.outputs, drawn.kernel.shape[1] * count, *drawn.size)
    stride = data.draw(tuples(len(factors), 1, 2))
    outside = np.repeat(whole(seed + 1, drawn.inputs), count)
    conv = Conv.of(
        kernel,
        drawn.bias,
        groups=drawn.groups,
        stride=stride,
        begin=drawn.begin,
        end=drawn.end,
        pad_value=outside,
    )
    blocks = whole(seed + 2, 2, conv.inputs, *data.draw(tuples(len(factors), 1, 4)))
    assume(all(n + slack > 0 for n, slack in zip(blocks.shape[2:], conv.slack, strict=True)))
    made = gathered(conv, factors)
    assert made.kernel.shape[2:] == tuple(k * r for k, r in zip(conv.size, factors, strict=True))
    assert np.array_equal(made.evaluate(shuffled(blocks, factors)), conv.evaluate(blocks))


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"stride": (2,)}, r"the stride is \(2,\), and not 1"),
        ({"begin": (1,), "pad_value": np.ones(2)}, "what is read outside is not zero"),
        ({"transposed": True}, "is not what is read behind an upsampling"),
    ],
)
def test_what_is_no_law_of_upsampling(attributes: Any, reason: str) -> None:
    with pytest.raises(Declined, match=reason):
        upsampled(Conv.of(np.ones((1, 2, 3)), **attributes), (2,))


def test_what_is_no_law_of_phases_and_blocks() -> None:
    with pytest.raises(Declined, match="is not transposed"):
        phases(Conv.of(np.ones((1, 1, 3))))
    apart = Conv.of(np.ones((1, 1, 3)), dilation=(2,), transposed=True)
    with pytest.raises(Declined, match=r"the dilation is \(2,\)"):
        phases(apart)
    with pytest.raises(Declined, match=r"the dilation is \(2,\)"):
        gathered(Conv.of(np.ones((1, 4, 3)), dilation=(2,)), (2,))
    with pytest.raises(Declined, match=r"3 channels of a group are no blocks of \(2,\)"):
        gathered(Conv.of(np.ones((1, 3, 3))), (2,))
    uneven = Conv.of(np.ones((1, 2, 3)), begin=(1,), pad_value=np.array([0.0, 1.0]))
    with pytest.raises(Declined, match="differs within a block"):
        gathered(uneven, (2,))

"""Composition: exact, borders included, or declined with a reason; and no needless refusals."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from fuser.algebra import laws
from fuser.algebra.conv import Conv, average_pool, identity, pad, scale_shift
from fuser.algebra.laws import compose
from fuser.algebra.lazy import known
from fuser.errors import Declined
from tests.direct import unclipped
from tests.laws import BY_NO_CHANCE, SAME, UP, all_extents, conv, one_after_the_other, outcome
from tests.strategies import chains, convs, images, integers, seeds


@contextmanager
def without_border_conditions() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(laws, "_require_border", lambda *_: None)
        yield


def generic(outer: Conv, inner: Conv, reason: str) -> tuple[Conv, Conv]:
    """The same chain with kernels in which nothing cancels.

    A refusal does not look at the outer kernel, nor at the inner one where the border mixes input and
    padding.
    """
    random = np.random.default_rng(0)

    def large(conv: Conv) -> Conv:
        return replace(conv, kernel=known(random.integers(1, BY_NO_CHANCE, conv.kernel.shape).astype(float)))

    return large(outer), large(inner) if "mixes" in reason else inner


# --- compose ---


@settings(max_examples=300)
@given(chains(), seeds)
def test_compose_is_exact_for_every_extent_or_declines(chain: tuple[Conv, Conv], seed: int) -> None:
    outer, inner = chain
    composed, reason = outcome(compose, outer, inner)
    if composed is None:
        event("declined")
        assert "border" in reason
        outer, inner = generic(outer, inner, reason)
        with without_border_conditions():
            wrong = compose(outer, inner)
        assert any(
            not np.array_equal(wrong.evaluate(x), one_after_the_other(outer, inner, x))
            for n in all_extents(inner, outer)
            for x in [integers(seed, 1, inner.inputs, *n, largest=BY_NO_CHANCE)]
        ), f"needless: {reason}"
        return
    event("padded" if outer.reads_outside else "not padded")
    for n in all_extents(inner, outer):
        x = integers(seed, 1, inner.inputs, *n)
        assert np.array_equal(composed.evaluate(x), one_after_the_other(outer, inner, x))


@settings(max_examples=300)
@given(chains(), seeds, st.data())
def test_compose_with_a_known_extent(chain: tuple[Conv, Conv], seed: int, data: st.DataObject) -> None:
    outer, inner = chain
    n = tuple(data.draw(st.integers(1, 12)) for _ in range(inner.rank))
    x = integers(seed, 1, inner.inputs, *n, largest=BY_NO_CHANCE)
    if min(unclipped(inner, n)) < 0:
        return
    expected = one_after_the_other(outer, inner, x)
    composed, reason = outcome(compose, outer, inner, n)
    if composed is None:
        event("declined")
        with pytest.raises(Declined):
            compose(outer, inner)
        outer, inner = generic(outer, inner, reason)
        expected = one_after_the_other(outer, inner, x)
        # The law does not look closely where pads and dilation are so large that the input hardly matters.
        if min(n) < 6 or np.array_equal(expected, one_after_the_other(outer, inner, 0 * x)):
            return
        with without_border_conditions():
            wrong = compose(outer, inner)
        assert not np.array_equal(wrong.evaluate(x), expected), f"needless: {reason}"
        return
    event("padded" if outer.reads_outside else "not padded")
    assert np.array_equal(composed.evaluate(x), expected)


@given(st.data())
def test_compose_of_linear_layers(data: st.DataObject) -> None:
    inner = data.draw(convs(rank=0)).with_axis(-1)
    outer = data.draw(convs(rank=0, inputs=inner.outputs)).with_axis(-1)
    x = data.draw(images(inner))
    assert np.array_equal(compose(outer, inner).evaluate(x), one_after_the_other(outer, inner, x))


@settings(max_examples=50)
@given(st.data())
def test_compose_with_three_spatial_axes(data: st.DataObject) -> None:
    inner = data.draw(convs(rank=3))
    outer = data.draw(convs(rank=3, inputs=inner.outputs, pads=(-1, 0)))
    x = data.draw(images(inner))
    if min(unclipped(inner, x.shape[2:])) >= 0:
        assert np.array_equal(compose(outer, inner).evaluate(x), one_after_the_other(outer, inner, x))


GROUPINGS = [
    # channels before, between and behind; groups of inner and outer; groups of the result
    (4, 4, 4, 1, 4, 1),  # a scale behind a dense kernel
    (4, 4, 4, 4, 1, 1),  # a depthwise kernel before a dense one
    (4, 4, 4, 4, 4, 4),  # depthwise twice
    (4, 4, 4, 2, 4, 2),  # grouped, then depthwise
    (4, 4, 8, 2, 4, 2),  # ... with a channel multiplier
    (4, 8, 8, 4, 8, 4),  # a channel multiplier, then depthwise
    (4, 8, 8, 4, 2, 2),  # a channel multiplier, then grouped
    (4, 4, 8, 4, 4, 4),  # depthwise, then a channel multiplier
    (4, 8, 16, 4, 8, 4),  # a channel multiplier twice
    (4, 4, 6, 4, 2, 2),  # depthwise, then grouped
    (8, 8, 8, 4, 2, 2),
    (6, 6, 6, 2, 3, 1),
    (6, 6, 6, 3, 2, 1),
    (8, 4, 8, 4, 4, 4),
    (1, 1, 1, 1, 1, 1),
    (1, 4, 4, 1, 4, 1),
]


@pytest.mark.parametrize(("before", "between", "behind", "inner_groups", "outer_groups", "groups"), GROUPINGS)
@pytest.mark.parametrize(("inner_taps", "outer_taps"), [(1, 1), (3, 1), (1, 2), (3, 2)])
def test_compose_works_grouped_kernels_out_per_group(
    before: int,
    between: int,
    behind: int,
    inner_groups: int,
    outer_groups: int,
    groups: int,
    inner_taps: int,
    outer_taps: int,
) -> None:
    inner = conv(between, before, inner_taps, 2, groups=inner_groups)
    outer = conv(behind, between, outer_taps, 1, groups=outer_groups, seed=5)
    composed = compose(outer, inner)
    x = integers(9, 2, before, 5, 4)
    assert composed.groups == groups
    assert np.array_equal(composed.evaluate(x), one_after_the_other(outer, inner, x))


def test_compose_multiplies_strides_and_spreads_taps() -> None:
    inner = conv(2, 2, 3, stride=(2,), begin=(1,), end=(1,))
    composed = compose(conv(2, 2, 2, stride=(3,), seed=3), inner)
    assert (composed.stride, composed.size, composed.dilation) == ((6,), (5,), (1,))
    assert (composed.begin, composed.end) == ((1,), (1,))
    dilated = compose(conv(2, 2, 2, dilation=(2,), seed=3), conv(2, 2, 2, dilation=(4,)))
    assert (dilated.size, dilated.dilation) == ((4,), (2,))


# What published blocks need: no needless refusals.
ACCEPTED = {
    "ExpandNets: the pads and a bias come first": (
        conv(4, 3, 3, 3, seed=2),
        conv(3, 2, 1, 1, **SAME),
    ),
    "ExpandNets: 1x1 behind": (conv(2, 4, 1, 1, seed=2), conv(4, 2, 3, 3, **SAME)),
    "ExpandNets: stacked 3x3, all padding on the first": (
        conv(2, 4, 3, 3, seed=2),
        conv(4, 2, 3, 3, begin=(2, 2), end=(2, 2)),
    ),
    "Tucker: 1x1 without bias before a padded 3x3": (
        conv(4, 3, 3, 3, seed=2, **SAME),
        conv(3, 2, 1, 1, bias=False),
    ),
    "DBB, ECBSR: padded with the bias of the 1x1": (
        conv(4, 3, 3, 3, seed=2, pad_value=integers(1, 3), **SAME),
        conv(3, 2, 1, 1),
    ),
    "DBB: the pad is a node of its own": (pad(3, (1, 1), (1, 1), integers(1, 3)), conv(3, 2, 1, 1)),
    "patchify stem under a padded kernel": (
        conv(4, 3, 3, 3, seed=2, begin=(1, 1), end=(0, 0)),
        conv(3, 2, 2, 2, stride=(2, 2), bias=False),
    ),
    "strided 1x1 before a padded 3x3": (
        conv(4, 3, 3, 3, seed=2, **SAME),
        conv(3, 2, 1, 1, stride=(2, 2), bias=False),
    ),
    "a value that continues itself": (
        pad(2, (1,), (1,), 5.0),
        replace(
            scale_shift(np.full(2, 2.0), np.full(2, -5.0), 1), begin=(1,), end=(1,), pad_value=np.full(2, 5.0)
        ),
    ),
    "a pad of a pad": (pad(2, (1,), (2,), 3.0), pad(2, (2,), (1,), 3.0)),
    "crop behind a padded kernel": (pad(3, (-1, -1), (-1, -1)), conv(3, 2, 3, 3, **SAME)),
    "crop before a strided 1x1, padded again": (
        pad(2, (1,), (0,)),
        replace(identity(2, 1), stride=(2,), begin=(-1,)),
    ),
    "a stride that never reads the position that mixes": (
        conv(2, 2, 1, stride=(2,), begin=(2,), seed=3),
        conv(2, 2, 2, bias=False),
    ),
    "the mean of a mean": (
        average_pool(2, (2,), (2,), (1,), (0,), (0,)),
        average_pool(2, (2,), (2,), (1,), (1,), (1,)),
    ),
}


@pytest.mark.parametrize(("outer", "inner"), ACCEPTED.values(), ids=list(ACCEPTED))
def test_compose_accepts_what_is_exact(outer: Conv, inner: Conv) -> None:
    composed = compose(outer, inner)
    for n in all_extents(inner, outer):
        x = integers(7, 1, inner.inputs, *n)
        assert np.array_equal(composed.evaluate(x), one_after_the_other(outer, inner, x))


DECLINED = {
    "spatial axes": (conv(2, 2, 3), conv(2, 2, 3, 3), "spatial axes differ: 1 and 2"),
    "channel axis": (conv(2, 2), conv(2, 2, axis=-1), "channel axis differs: 1 and -1"),
    "channels": (conv(2, 3, 1), conv(2, 3, 1), "channels differ: 3 and 2"),
    "bias under zero padding": (
        conv(2, 2, 3, begin=(1,), end=(1,)),
        Conv.of(integers(0, 2, 2, 1), np.array([0.0, 7.0])),
        "the border differs: the inner operator continues with 7, the outer one pads with 0 (channel 1)",
    ),
    "pads with a value before a kernel that continues with another": (
        pad(1, (1,), (1,), 3.0),
        replace(scale_shift(np.array([2.0]), np.array([1.0]), 1), begin=(1,), pad_value=np.array([4.0])),
        "the border differs: the inner operator continues with 9, the outer one pads with 3 (channel 0)",
    ),
    "same after same": (
        conv(2, 2, 3, 3, **SAME),
        conv(2, 2, 3, 3, bias=False, **SAME),
        (
            "the border mixes input and padding on axis 0: the outer pad is 1, and the inner "
            "kernel reaches 2 past stride + pad 2"
        ),
    ),
    "the end alone": (
        conv(2, 2, 3, begin=(0,), end=(2,)),
        conv(2, 2, 3, begin=(1,), end=(1,), bias=False),
        (
            "the border mixes input and padding on axis 0: the outer pad is 2, and the inner "
            "kernel reaches 2 past its end pad 1"
        ),
    ),
    "the second axis": (
        conv(2, 2, 1, 3, begin=(0, 1)),
        conv(2, 2, 1, 3, bias=False),
        "the border mixes input and padding on axis 1",
    ),
}


@pytest.mark.parametrize(("outer", "inner", "reason"), DECLINED.values(), ids=list(DECLINED))
def test_compose_says_why_not(outer: Conv, inner: Conv, reason: str) -> None:
    with pytest.raises(Declined, match=re.escape(reason)):
        compose(outer, inner)


def test_a_known_extent_allows_more() -> None:
    stem, outer = conv(3, 2, 4, stride=(4,), bias=False), conv(2, 3, 3, begin=(1,), end=(1,), seed=4)
    with pytest.raises(Declined, match="end pad 0"):
        compose(outer, stem)
    x = integers(3, 1, 2, 16)
    assert np.array_equal(compose(outer, stem, (16,)).evaluate(x), one_after_the_other(outer, stem, x))
    with pytest.raises(Declined, match="end pad 0"):
        compose(outer, stem, (18,))


def test_a_pad_that_is_never_read_is_no_condition() -> None:
    inner, outer = conv(2, 2, 3, begin=(1,), end=(1,)), conv(2, 2, 1, stride=(2,), end=(1,), seed=4)
    with pytest.raises(Declined, match="border"):
        compose(outer, inner)
    with pytest.raises(Declined, match="border"):
        compose(outer, inner, (6,))
    x = integers(3, 1, 2, 7)
    assert np.array_equal(compose(outer, inner, (7,)).evaluate(x), one_after_the_other(outer, inner, x))


# --- transposed convolutions ---


@given(st.data())
def test_compose_with_a_transposed_convolution_in_the_middle(data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, 2))
    middle = data.draw(convs(rank=rank, transposed=True))
    local: dict[str, Any] = {"taps": 1, "pads": (0, 0)}
    before = replace(data.draw(convs(rank=rank, outputs=middle.inputs, **local)), stride=())
    before = replace(before, bias=np.zeros(before.outputs))
    behind = replace(data.draw(convs(rank=rank, inputs=middle.outputs, **local)), stride=())
    composed = compose(behind, compose(middle, before))
    assert composed == compose(compose(behind, middle), before)
    assert composed.transposed
    x = data.draw(images(before))
    assert np.array_equal(composed.evaluate(x), behind.evaluate(one_after_the_other(middle, before, x)))


def test_batch_norm_behind_a_grouped_transposed_convolution() -> None:
    up = conv(6, 4, 3, 3, groups=2, stride=(2, 2), begin=(1, 1), end=(0, 0), dilation=(1, 2), transposed=True)
    norm = scale_shift(integers(1, 6), integers(2, 6), 2)
    composed = compose(norm, up)
    assert composed.geometry == up.geometry
    x = integers(3, 2, 4, 3, 3)
    assert np.array_equal(composed.evaluate(x), one_after_the_other(norm, up, x))


@pytest.mark.parametrize(
    ("outer", "inner", "reason"),
    [
        (
            UP,
            UP,
            "composes with a 1x1 of stride 1 without pads only: (transposed 3 conv",
        ),
        (
            conv(2, 2, 3),
            UP,
            "composes with a 1x1 of stride 1 without pads only: (3 conv, 2 -> 2) after (transposed",
        ),
        (UP, conv(2, 2, 1, begin=(1,), bias=False), "composes with a 1x1 of stride 1 without pads only"),
        (
            UP,
            scale_shift(np.ones(2), np.array([0.0, 3.0]), 1),
            "a shift does not pass through a transposed convolution: 3 (channel 1)",
        ),
    ],
)
def test_compose_with_a_transposed_convolution_says_why_not(outer: Conv, inner: Conv, reason: str) -> None:
    with pytest.raises(Declined, match=re.escape(reason)):
        compose(outer, inner)


def test_a_transposed_kernel_does_not_change_places() -> None:
    """How many of its taps add up, and so what becomes of the bias before it, differs between positions."""
    outer = Conv.of(np.ones((4, 1, 3)), groups=4, stride=(2,), transposed=True)
    inner = Conv.of(integers(1, 4, 2, 1), integers(2, 4))
    with pytest.raises(Declined, match="mixes channels"):
        laws.swap(outer, inner)

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from fuser import algebra
from fuser.algebra import add, compose, embed, scale, shift
from fuser.conv import Conv, Ints, Window, average_pool, identity, pad, regroup, scale_shift
from fuser.errors import Declined
from fuser.lazy import Array, Lazy
from tests.direct import dense, direct, unclipped
from tests.strategies import branches, chains, convs, images, integers, seeds

# An input of integers up to this: a wrong result does not come out right by a sum that happens to vanish.
BY_NO_CHANCE = 1_000_000
SAME: dict[str, Any] = {"begin": (1, 1), "end": (1, 1)}


def conv(outputs: int, inputs: int, *size: int, seed: int = 0, bias: bool = True, **attributes: Any) -> Conv:
    """A convolution of small integers without zero."""
    weight = integers(seed, outputs, inputs // attributes.get("groups", 1), *size)
    return Conv.of(weight, integers(seed + 1, outputs) if bias else None, **attributes)


def outcome(law: Callable[..., Conv], *arguments: Any) -> tuple[Conv | None, str]:
    """What a law gives, or the reason why it declines."""
    try:
        return law(*arguments), ""
    except Declined as reason:
        return None, str(reason)


def one_after_the_other(outer: Conv, inner: Conv, x: Array) -> Array:
    return outer.evaluate(inner.evaluate(x))


def all_extents(*convolutions: Conv) -> Iterator[Ints]:
    """The first extents that leave something of every axis, then larger ones of each residue of the strides."""
    smallest = [
        next(n for n in range(1, 60) if reaches(n, axis, *convolutions))
        for axis in range(convolutions[0].rank)
    ]
    steps = max((prod(c.stride[axis] for c in convolutions) for axis in range(len(smallest))), default=1)
    for more in (0, 1, 2, *range(8, 8 + steps)):
        yield tuple(n + more for n in smallest)


def reaches(n: int, axis: int, *convolutions: Conv) -> bool:
    """Whether an axis of extent `n` leaves something when the convolutions are applied in turn."""
    for each in convolutions:
        n = unclipped(each, (n,) * each.rank)[axis]
        if n < 1:
            return False
    return True


@contextmanager
def without_border_conditions() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(algebra, "_require_border", lambda *_: None)
        yield


# --- compose ---


@settings(max_examples=500)
@given(chains(), seeds)
def test_compose_is_exact_for_every_extent_or_declines(chain: tuple[Conv, Conv], seed: int) -> None:
    outer, inner = chain
    composed, reason = outcome(compose, outer, inner)
    if composed is None:
        event("declined")
        assert "border" in reason
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


@settings(max_examples=500)
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
            "the border mixes input and padding on axis 0: the outer pad is 1, and the inner kernel reaches 2 past "
            "stride + pad 2"
        ),
    ),
    "the end alone": (
        conv(2, 2, 3, begin=(0,), end=(2,)),
        conv(2, 2, 3, begin=(1,), end=(1,), bias=False),
        (
            "the border mixes input and padding on axis 0: the outer pad is 2, and the inner kernel reaches 2 past "
            "its end pad 1"
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


UP = conv(2, 2, 3, stride=(2,), transposed=True)


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


# --- add ---


@settings(max_examples=500)
@given(branches(), seeds)
def test_add_is_exact_for_every_extent_or_declines(pair: tuple[Conv, Conv], seed: int) -> None:
    a, b = pair
    inputs = [
        integers(seed, 2, a.inputs, *n, largest=BY_NO_CHANCE) for side in pair for n in all_extents(side)
    ]
    sides = [(a.evaluate(x), b.evaluate(x), x) for x in inputs]
    total, reason = outcome(add, a, b)
    if total is None:
        event(reason.split(":")[0])
        match reason.split(" differs")[0]:
            case "stride":
                assert a.stride != b.stride
            case "output extent":
                assert any(u.shape != v.shape for u, v, _ in sides)
            case "pad value":
                assert all(wrong_with(side.pad_value, a, b, sides) for side in pair)
            case other:
                pytest.fail(other)
        return
    event("accepted")
    assert total == add(b, a)
    for u, v, x in sides:
        assert np.array_equal(total.evaluate(x), u + v)


def wrong_with(pad_value: Array, a: Conv, b: Conv, sides: list[tuple[Array, Array, Array]]) -> bool:
    """Whether the sum would come out wrong if it took this pad value."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(algebra, "_common_pad_value", lambda *_: pad_value)
        total = add(a, b)
    return any(not np.array_equal(total.evaluate(x), u + v) for u, v, x in sides)


@given(branches(), st.data())
def test_add_with_a_known_extent(pair: tuple[Conv, Conv], data: st.DataObject) -> None:
    a, b = pair
    x = data.draw(images(a))
    u, v = (side.evaluate(x) for side in pair)
    total, reason = outcome(add, a, b, x.shape[2:])
    if total is None:
        event(reason.split(":")[0])
        assert "pad value" in reason or a.stride != b.stride or u.shape != v.shape
        return
    event("accepted")
    assert np.array_equal(total.evaluate(x), u + v)


@given(branches(transposed=True), st.data())
def test_add_of_transposed_convolutions(pair: tuple[Conv, Conv], data: st.DataObject) -> None:
    a, b = pair
    x = data.draw(images(a))
    total, reason = outcome(add, a, b)
    if total is None:
        event("declined")
        assert a.stride != b.stride or a.slack != b.slack, reason
        return
    event("accepted")
    assert np.array_equal(total.evaluate(x), a.evaluate(x) + b.evaluate(x))


ALIGNED = {
    # a, b, and the taps, dilation and pads of the sum
    "strided 1x1 and strided 3x3": (
        conv(2, 2, 1, stride=(2,)),
        conv(2, 2, 3, stride=(2,), begin=(1,), end=(1,)),
        ((3,), (1,), (1,), (1,)),
    ),
    "the corners of a 3x3": (
        conv(2, 2, 2, dilation=(2,), begin=(1,), end=(1,)),
        conv(2, 2, 3, begin=(1,), end=(1,)),
        ((3,), (1,), (1,), (1,)),
    ),
    "a dilated kernel keeps its dilation": (
        conv(2, 2, 3, dilation=(2,), begin=(2,), end=(2,)),
        conv(2, 2, 1),
        ((3,), (2,), (2,), (2,)),
    ),
    "two dilations": (
        conv(2, 2, 3, dilation=(2,), begin=(2,), end=(2,)),
        conv(2, 2, 3, dilation=(3,), begin=(3,), end=(3,)),
        ((7,), (1,), (3,), (3,)),
    ),
    "even spans": (conv(2, 2, 2, begin=(1,)), conv(2, 2, 2, end=(1,)), ((3,), (1,), (1,), (1,))),
    "no tap in common": (
        replace(identity(2, 1), begin=(2,), end=(-2,)),
        replace(identity(2, 1), begin=(-1,), end=(1,)),
        ((2,), (3,), (2,), (1,)),
    ),
    "a crop and an unpadded kernel": (
        conv(2, 2, 3),
        replace(identity(2, 1), begin=(-1,), end=(-1,)),
        ((3,), (1,), (0,), (0,)),
    ),
    "ACNet: thin kernels": (
        conv(2, 2, 3, 1, begin=(1, 0), end=(1, 0)),
        conv(2, 2, 1, 3, begin=(0, 1), end=(0, 1)),
        ((3, 3), (1, 1), (1, 1), (1, 1)),
    ),
}


@pytest.mark.parametrize(("a", "b", "geometry"), ALIGNED.values(), ids=list(ALIGNED))
def test_add_aligns_windows(a: Conv, b: Conv, geometry: tuple[Ints, ...]) -> None:
    total = add(a, b)
    assert (total.size, total.dilation, total.begin, total.end) == geometry
    for n in [*all_extents(a), *all_extents(b)]:
        x = integers(3, 1, 2, *n)
        assert np.array_equal(total.evaluate(x), a.evaluate(x) + b.evaluate(x))


@pytest.mark.parametrize(
    ("first", "second", "groups"), [(4, 4, 4), (4, 2, 2), (2, 8, 2), (1, 8, 1), (8, 8, 8)]
)
def test_add_meets_in_the_common_groups(first: int, second: int, groups: int) -> None:
    a, b = conv(8, 8, 3, groups=first, begin=(1,), end=(1,)), conv(8, 8, 1, groups=second, seed=4)
    total = add(a, b)
    expected = dense(a)
    expected[..., 1:2] += dense(b)
    assert total.groups == groups
    assert np.array_equal(dense(total), expected)


def test_an_operator_that_reads_nothing_outside_agrees_with_any_pad_value() -> None:
    a = conv(2, 2, 3, begin=(1,), end=(1,), pad_value=np.array([3.0, 4.0]))
    total = add(conv(2, 2, 1, seed=5), a)
    assert np.array_equal(total.pad_value, [3, 4])
    x = integers(3, 1, 2, 5)
    assert np.array_equal(total.evaluate(x), a.evaluate(x) + conv(2, 2, 1, seed=5).evaluate(x))


PADDED: dict[str, Any] = {"begin": (1,), "end": (1,)}


@pytest.mark.parametrize(
    ("a", "b", "reason"),
    [
        (conv(2, 2), conv(2, 2, axis=-1), "channel axis differs: 1 and -1"),
        (UP, conv(2, 2, 3, stride=(2,)), "transposed differs: True and False"),
        (conv(2, 2, 3), conv(2, 2, 3, 3), "spatial axes differ: 1 and 2"),
        (conv(2, 3, 3), conv(2, 2, 3), "channels differ: (3, 2) and (2, 2)"),
        (conv(2, 2, 1, stride=(2,)), conv(2, 2, 1), "stride differs: (2,) and (1,)"),
        (conv(2, 2, 3), conv(2, 2, 1), "output extent differs: slack (-2,) and (0,)"),
        (
            conv(2, 2, 3, pad_value=np.array([0.0, 1.0]), **PADDED),
            conv(2, 2, 3, pad_value=np.array([0.0, 2.5]), **PADDED),
            "pad value differs: 1 and 2.5 (channel 1)",
        ),
    ],
)
def test_add_says_why_not(a: Conv, b: Conv, reason: str) -> None:
    with pytest.raises(Declined, match=re.escape(reason)):
        add(a, b)


def test_add_says_why_not_for_a_known_extent() -> None:
    a, b = conv(2, 2, 2, stride=(2,)), conv(2, 2, 1, stride=(2,))
    with pytest.raises(Declined, match=r"output extent differs: \(3,\) and \(4,\) for an input of \(7,\)"):
        add(a, b, (7,))
    x = integers(3, 1, 2, 6)
    assert np.array_equal(add(a, b, (6,)).evaluate(x), a.evaluate(x) + b.evaluate(x))


# --- embed, scale, shift ---


@given(st.data())
def test_embed_keeps_the_map(data: st.DataObject) -> None:
    own = data.draw(convs(rank=data.draw(st.integers(1, 2))))
    before, behind = ((data.draw(st.integers(0, 3)), data.draw(st.integers(0, 3))) for _ in range(2))
    windows = tuple(
        w | Window(w.first - a, w.last + b, 1 if a or b else w.step)
        for w, a, b in zip(own.windows, before, behind, strict=False)
    )
    embedded = embed(own, windows)
    placed = replace(
        embedded,
        begin=tuple(-w.first for w in windows),
        end=tuple(slack + w.last for slack, w in zip(own.slack, windows, strict=True)),
        pad_value=own.pad_value,
    )
    assert placed.windows == windows
    x = data.draw(images(own))
    assert np.array_equal(direct(placed, x), direct(own, x))


def test_embed_in_its_own_windows_is_itself() -> None:
    own = conv(2, 2, 3, dilation=(2,))
    assert embed(own, own.windows) is own


@given(st.data(), st.sampled_from([-2.0, 0.0, 1.0, 0.5]), st.sampled_from([-3.0, 0.0, 2.0]))
def test_scale_and_shift(data: st.DataObject, factor: float, offset: float) -> None:
    own = data.draw(convs(rank=data.draw(st.integers(0, 2)), transposed=None)).with_axis(1)
    x = data.draw(images(own))
    assert np.array_equal(scale(own, factor).evaluate(x), factor * own.evaluate(x))
    assert np.array_equal(shift(own, offset).evaluate(x), own.evaluate(x) + offset)


def test_nothing_to_scale_or_shift_is_the_operator_itself() -> None:
    own = conv(2, 2, 3)
    assert scale(own, 1.0) is own
    assert shift(own, 0.0) is own


# --- whole blocks ---


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_a_repvgg_block_is_one_convolution(groups: int, stride: int) -> None:
    def norm(seed: int) -> Conv:
        return scale_shift(integers(seed, 4), integers(seed + 1, 4), 2)

    strides = (stride, stride)
    parts = [
        [conv(4, 4, 3, 3, groups=groups, stride=strides, bias=False, **SAME), norm(1)],
        [conv(4, 4, 1, 1, groups=groups, stride=strides, seed=3, bias=False), norm(3)],
        [norm(5)] if stride == 1 else [],
    ]
    x = integers(8, 2, 4, 6, 5)
    sums = [compose(part[1], part[0]) if len(part) == 2 else part[0] for part in parts if part]
    whole = sums[0]
    for branch in sums[1:]:
        whole = add(whole, branch)
    expected = sum(
        one_after_the_other(part[1], part[0], x) if len(part) == 2 else part[0].evaluate(x)
        for part in parts
        if part
    )
    assert (whole.size, whole.groups, whole.begin, whole.end) == ((3, 3), groups, (1, 1), (1, 1))
    assert np.array_equal(whole.evaluate(x), expected)


# --- laziness ---


def unseen(outputs: int, inputs: int, *size: int, **attributes: Any) -> Conv:
    """A convolution whose kernel must not be looked at."""

    def compute() -> Array:
        raise LookupError("the kernel was looked at")

    return Conv(
        Lazy((outputs, inputs // attributes.get("groups", 1), *size), compute),
        np.zeros(outputs),
        **attributes,
    )


@pytest.mark.parametrize(
    ("outer", "inner"),
    [
        (unseen(4, 4, 3, 3), unseen(4, 4, 3, 3, **SAME)),
        (unseen(4, 4, 3, 3, **SAME), unseen(4, 4, 1, 1)),
        (unseen(4, 4, 3, 3, **SAME), unseen(4, 4, 1, 1, groups=4)),
        (unseen(4, 4, 1, 1, groups=4), unseen(4, 4, 3, 3, **SAME)),
        (unseen(4, 4, 1, 1, groups=2), unseen(4, 4, 3, 3, groups=4, **SAME)),
        (unseen(4, 4, 1, 1), unseen(4, 4, 3, 3, transposed=True)),
        (unseen(4, 4), unseen(4, 4)),
    ],
)
def test_compose_looks_at_no_kernel(outer: Conv, inner: Conv) -> None:
    composed = compose(outer, inner)
    with pytest.raises(LookupError):
        _ = composed.weight


def test_add_and_what_it_uses_look_at_no_kernel() -> None:
    a, b = unseen(4, 4, 3, **PADDED), unseen(4, 4, 1, groups=2)
    for result in (add(a, b), regroup(b, 1), embed(b, a.windows), scale(a, 2.0), shift(a, 1.0)):
        with pytest.raises(LookupError):
            _ = result.weight


def test_a_bias_looks_at_the_kernel_behind_it_only() -> None:
    shifted = shift(unseen(4, 4, 1), 1.0)
    assert np.array_equal(
        compose(conv(2, 4, 3), shifted).bias, conv(2, 4, 3).respond(np.ones(4)) + conv(2, 4, 3).bias
    )
    with pytest.raises(LookupError):
        compose(unseen(4, 4, 3), shifted)


def test_a_geometry_that_fails_is_refused_before_a_kernel_is_looked_at() -> None:
    padded = unseen(4, 4, 3, pad_value=np.ones(4), **PADDED)
    with pytest.raises(Declined, match="border mixes"):
        compose(padded, padded)


def test_a_chain_of_thousands_neither_recurses_nor_slows_down() -> None:
    step = scale_shift(np.array([-1.0, 1.0]), np.array([1.0, 1.0]), 1)
    chain = step
    for _ in range(3000):
        chain = compose(step, chain)
    assert np.array_equal(chain.weight.reshape(2), [-1, 1])
    assert np.array_equal(chain.bias, [1, 3001])
    total = step
    for _ in range(3000):
        total = add(total, step)
    assert np.array_equal(total.weight.reshape(2), [-3001, 3001])


def test_residual_linear_blocks_do_not_double_the_work() -> None:
    step = scale_shift(np.array([1.0]), np.array([0.0]), 1)
    chain = step
    for _ in range(40):
        chain = add(chain, compose(step, chain))
    assert chain.weight.item() == 2.0**40

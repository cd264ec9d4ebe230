"""The laws but for composition, which has a file of its own; whole blocks; laziness."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from fuser.algebra import laws
from fuser.algebra.channels import block_diagonal, select, stack, take, widen
from fuser.algebra.conv import Conv, Ints, Window, average_pool, identity, regroup, scale_shift
from fuser.algebra.laws import add, compose, embed, scale, shift, swap
from fuser.algebra.lazy import Array, Lazy, known
from fuser.errors import Declined
from tests.direct import dense, direct
from tests.laws import BY_NO_CHANCE, PADDED, SAME, UP, all_extents, conv, one_after_the_other, outcome
from tests.strategies import branches, convs, images, integers, seeds

# --- add ---


@settings(max_examples=300)
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
        patch.setattr(laws, "_common_pad_value", lambda *_: pad_value)
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


# --- channels side by side ---


@given(branches(), st.data())
def test_stack_is_the_concatenation(pair: tuple[Conv, Conv], data: st.DataObject) -> None:
    parts = [*pair, pair[0]]
    stacked, reason = outcome(stack, parts)
    if stacked is None:
        event(reason.split(":")[0])
        assert outcome(add, *pair) == (None, reason)
        return
    event("accepted")
    x = data.draw(images(pair[0]))
    channels = 1 if pair[0].axis == 1 else -1
    assert np.array_equal(stacked.evaluate(x), np.concatenate([part.evaluate(x) for part in parts], channels))


@given(convs(transposed=None), st.data())
def test_select_is_a_slice_of_the_channels(own: Conv, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, own.outputs - 1))
    size = data.draw(st.integers(1, own.outputs - first))
    x = data.draw(images(own))
    y = np.moveaxis(own.evaluate(x), own.axis, 0)[first : first + size]
    assert np.array_equal(np.moveaxis(select(own, first, size).evaluate(x), own.axis, 0), y)


@given(convs(transposed=None), st.integers(0, 3), st.integers(0, 3), st.data())
def test_widen_reads_some_of_the_channels(own: Conv, before: int, behind: int, data: st.DataObject) -> None:
    own = replace(own, pad_value=np.zeros(own.inputs))
    wide = widen(own, before, before + own.inputs + behind)
    x = data.draw(images(wide))
    y = own.evaluate(np.moveaxis(np.moveaxis(x, own.axis, 0)[before : before + own.inputs], 0, own.axis))
    assert np.array_equal(wide.evaluate(x), y)


@given(convs(transposed=None), st.data())
def test_the_parts_of_a_convolution_add_up_to_it(own: Conv, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, own.inputs))
    x = data.draw(images(own))
    total = own.bias.reshape(-1, *(1,) * own.rank)
    for start, size in ((0, first), (first, own.inputs - first)):
        if size:
            part = np.moveaxis(np.moveaxis(x, own.axis, 0)[start : start + size], 0, own.axis)
            total = total + take(own, start, size).evaluate(part)
    assert np.array_equal(total, own.evaluate(x))


@given(convs(inputs=1, outputs=1), convs(rank=0), st.data())
def test_swap_works_on_each_channel_before_it_mixes_them(one: Conv, mixer: Conv, data: st.DataObject) -> None:
    shape = (*mixer.kernel.shape, *(1,) * one.rank)
    mix = Conv.of(mixer.weight.reshape(shape), mixer.bias, groups=mixer.groups, axis=one.axis)
    weight, bias = np.repeat(one.weight, mix.outputs, axis=0), integers(0, mix.outputs)
    pool = replace(
        one, kernel=known(weight), bias=bias, groups=mix.outputs, pad_value=np.full(mix.outputs, 2.0)
    )
    if data.draw(st.booleans()):
        pool = replace(pool, pad_value=mix.bias)
    if pool.reads_outside and not np.array_equal(pool.pad_value, mix.bias):
        event("declined")
        with pytest.raises(Declined, match="border differs"):
            swap(pool, mix)
        return
    event("padded" if pool.reads_outside else "not padded")
    last, first = swap(pool, mix)
    x = data.draw(images(mix))
    assert np.array_equal(last.evaluate(first.evaluate(x)), pool.evaluate(mix.evaluate(x)))


@pytest.mark.parametrize(
    ("outer", "inner", "reason"),
    [
        (average_pool(2, (2,), (2,), (1,), (0,), (0,)), conv(2, 3, 3), "3 conv, 3 -> 2 does more"),
        (conv(2, 2, 2), conv(2, 3, 1), "2 conv, 2 -> 2 mixes channels"),
        (
            average_pool(2, (2,), (2,), (1,), (0,), (0,)),
            conv(2, 3, axis=-1),
            "channel axis and spatial axes differ: (1, 1) and (-1, 0)",
        ),
        (conv(2, 2, 2, groups=2), conv(2, 3, 1), "differs between channels"),
        (
            average_pool(2, (2,), (2,), (1,), (1,), (1,)),
            Conv.of(np.ones((2, 3, 1)), np.array([0.0, 4.0])),
            "the border differs: the inner operator continues with 4, the outer one pads with 0 (channel 1)",
        ),
    ],
)
def test_swap_declines(outer: Conv, inner: Conv, reason: str) -> None:
    with pytest.raises(Declined, match=re.escape(reason)):
        swap(outer, inner)


@given(convs(rank=1, transposed=None), st.integers(1, 3), st.data())
def test_block_diagonal_keeps_the_parts_apart(own: Conv, more: int, data: st.DataObject) -> None:
    parts = [own, *(replace(own, kernel=scale(own, 2.0 + i).kernel, bias=own.bias + i) for i in range(more))]
    whole = block_diagonal(parts)
    assert whole.groups == len(parts) * own.groups
    x = data.draw(images(whole))
    pieces = np.split(x, len(parts), axis=1)
    y = [part.evaluate(piece) for part, piece in zip(parts, pieces, strict=True)]
    assert np.array_equal(whole.evaluate(x), np.concatenate(y, axis=1))


@pytest.mark.parametrize(
    ("law", "arguments", "reason"),
    [
        (stack, [[conv(2, 2, 3), conv(2, 3, 3)]], "input channels differ: [2, 3]"),
        (stack, [[UP, UP]], "transposed convolutions do not stack"),
        (stack, [[conv(2, 2, 1), conv(3, 2, 1, stride=(2,))]], "stride differs: (1,) and (2,)"),
        (
            block_diagonal,
            [[conv(2, 2, 3), conv(2, 3, 3)]],
            "the parts differ: 3 conv, 2 -> 2 and 3 conv, 3 -> 2",
        ),
        (
            block_diagonal,
            [[conv(2, 2, 3), conv(4, 2, 3)]],
            "the parts differ: 3 conv, 2 -> 2 and 3 conv, 2 -> 4",
        ),
        (widen, [conv(1, 1, 1, begin=(1,), pad_value=np.array([3.0])), 0, 2], "the pad value is not zero: 3"),
    ],
)
def test_side_by_side_says_why_not(law: Callable[..., Conv], arguments: list[Any], reason: str) -> None:
    assert outcome(law, *arguments) == (None, reason)


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

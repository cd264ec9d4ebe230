"""The laws of weight values, with planted zeros; and that weights without any are hardly looked at."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fuser.algebra.conv import Conv, Window, regroup
from fuser.algebra.laws import embed
from fuser.algebra.lazy import Array, Lazy, known
from fuser.algebra.low_rank import factor
from fuser.algebra.narrowing import (
    block_groups,
    fix_inputs,
    glimpse,
    narrow,
    split_groups,
    take_outputs,
    zero_columns,
    zero_rows,
)
from fuser.errors import Declined
from fuser.rewrite.driver import run
from fuser.rewrite.pattern import Log, Plan
from fuser.validate import check
from passes.drop_channels import drop_channels
from passes.factor_low_rank import factor_low_rank
from passes.narrow_kernels import narrow_kernels
from passes.split_groups import split_groups as split_groups_pass
from tests.graphs import Builder, relu
from tests.laws import BY_NO_CHANCE, all_extents, conv, outcome
from tests.strategies import convs, integers, seeds


def zeroed(original: Conv, *where: tuple[int, int]) -> Conv:
    """The operator with zeros at positions of axes of its kernel."""
    weight = original.weight.copy()
    for axis, index in where:
        weight[(slice(None),) * axis + (index,)] = 0
    return replace(original, kernel=known(weight))


@st.composite
def sparse(draw: st.DrawFn, *, taps: int = 5, transposed: bool | None = None) -> Conv:
    """A convolution with whole slices of zeros along any axis of its kernel, save one weight."""
    dense = draw(convs(taps=taps, transposed=transposed, pads=(-1, 5)))
    shape = dense.kernel.shape
    axes = st.integers(0, len(shape) - 1).flatmap(
        lambda axis: st.tuples(st.just(axis), st.integers(0, shape[axis] - 1))
    )
    return zeroed(dense, *draw(st.lists(axes, max_size=6)))


def assert_same(a: Conv, b: Conv, seed: int) -> None:
    """Equal results, exactly, at several extents, and equal output extents at all of them."""
    for extent in all_extents(a):
        assert a.extent(extent) == b.extent(extent)
    for extent in list(all_extents(a))[:4]:
        x = integers(seed, 2, a.inputs, *extent, largest=BY_NO_CHANCE)
        x = x if a.axis == 1 else x.reshape(2, a.inputs)
        np.testing.assert_array_equal(b.evaluate(x), a.evaluate(x))


# --- narrow ---


@given(sparse(), seeds)
def test_narrow_is_exact_and_goes_as_far_as_it_can(wide: Conv, seed: int) -> None:
    narrowed, reason = outcome(narrow, wide)
    if narrowed is None:
        assert "without them the pad of" in reason
        return
    assert_same(wide, narrowed, seed)
    for before, after in zip(wide.begin + wide.end, narrowed.begin + narrowed.end, strict=True):
        assert after == before or 0 <= after < before
    again, _ = outcome(narrow, narrowed)
    assert again is None or again is narrowed


@given(convs(rank=2, pads=(0, 0)), st.lists(st.integers(0, 2), min_size=4, max_size=4), st.integers(1, 3))
def test_narrow_finds_what_was_embedded(small: Conv, rims: list[int], finer: int) -> None:
    assume(all(step % finer == 0 or taps == 1 for step, taps in zip(small.dilation, small.size, strict=True)))
    windows = tuple(
        Window(w.first - finer * before, w.last + finer * after, finer)
        for w, before, after in zip(small.windows, rims[:2], rims[2:], strict=True)
    )
    large = replace(
        embed(small, windows),
        begin=tuple(-w.first for w in windows),
        end=tuple(finer * after for after in rims[2:]),
    )
    assert narrow(large) == small


def test_a_centre_alone_is_a_pointwise_kernel() -> None:
    centre = zeroed(conv(2, 3, 3, 3, begin=(1, 1), end=(1, 1)), (2, 0), (2, 2), (3, 0), (3, 2))
    assert str(narrow(centre)) == "1x1 conv, 3 -> 2"


def test_zeros_between_the_taps_are_dilation() -> None:
    stuffed = zeroed(conv(2, 3, 5, begin=(2,), end=(4,), dilation=(3,)), (2, 1), (2, 3))
    assert str(narrow(stuffed)) == "3 conv, 3 -> 2, dilation (6,), pads (2, 4)"


def test_a_step_must_meet_both_ends() -> None:
    # Taps 0, 2 and 3: a step of 2 would lose the last one.
    assert narrow(odd := zeroed(conv(1, 1, 4), (2, 1))) is odd


def test_of_a_kernel_of_zeros_one_tap_stays() -> None:
    nothing = Conv.of(np.zeros((1, 1, 3, 3)), np.ones(1), begin=(1, 1), end=(1, 1))
    assert str(narrow(nothing)) == "1x1 conv, 1 -> 1"


def test_pads_that_cannot_follow() -> None:
    unpadded = zeroed(conv(1, 1, 3, dilation=(2,), begin=(1,), end=(2,)), (2, 0))
    with pytest.raises(Declined, match=r"at the begin of axis 0 are zero, .* the pad of 1 would be -1"):
        narrow(unpadded)
    with pytest.raises(Declined, match=r"at the end of axis 0 are zero, .* the pad of 0 would be -1"):
        narrow(zeroed(conv(1, 1, 2), (2, 1)))


def test_almost_zero_is_not_zero() -> None:
    weight = np.ones((1, 1, 3))
    weight[..., 0] = 1e-30
    assert narrow(almost := Conv.of(weight, begin=(1,))) is almost


# --- groups ---


@given(convs(transposed=None))
def test_a_dense_kernel_becomes_grouped_again(grouped: Conv) -> None:
    dense = regroup(grouped, 1)
    assert block_groups(dense) == grouped.groups
    assert split_groups(dense, grouped.groups) == grouped


@given(sparse(), seeds)
def test_split_groups_is_exact_and_as_fine_as_it_can_be(coarse: Conv, seed: int) -> None:
    groups = block_groups(coarse)
    assert_same(coarse, split_groups(coarse, groups), seed)
    for finer in range(groups + 1, coarse.outputs + 1):
        assert outcome(split_groups, coarse, finer)[0] is None


def test_groups_that_do_not_nest() -> None:
    # Blocks of 1 in 6 groups of one channel, written as 2 groups: 3 groups are no refinement of 2.
    two = regroup(conv(6, 6, 1, groups=6), 2)
    assert str(split_groups(two, 3)) == "1 conv, 6 -> 6, groups 3"
    assert block_groups(two) == 6


def test_what_does_not_split() -> None:
    with pytest.raises(Declined, match="8 weights outside of 2 groups are not zero"):
        split_groups(conv(4, 4), 2)
    with pytest.raises(Declined, match="4 -> 6 channels do not divide into 4 groups"):
        split_groups(conv(6, 4), 4)


# --- channels ---


@given(sparse())
def test_rows_and_columns(operator: Conv) -> None:
    dense = regroup(operator, 1).weight.reshape(operator.outputs, operator.inputs, -1)
    np.testing.assert_array_equal(zero_rows(operator), ~dense.any(axis=(1, 2)))
    np.testing.assert_array_equal(zero_columns(operator), ~dense.any(axis=(0, 2)))


@given(convs(taps=3), seeds, st.data())
def test_fixed_inputs_join_the_bias(operator: Conv, seed: int, data: st.DataObject) -> None:
    assume(operator.groups == 1 and operator.inputs > 1)
    fixed = data.draw(st.lists(st.booleans(), min_size=operator.inputs, max_size=operator.inputs))
    assume(any(fixed) and not all(fixed))
    border = operator.reads_outside
    constants = np.where(fixed, operator.pad_value if border else integers(seed, operator.inputs), np.nan)
    made = fix_inputs(operator, constants)
    (extent, *_) = all_extents(operator)
    x = integers(seed, 2, operator.inputs, *extent)
    x[:, fixed] = constants[fixed].reshape(-1, *(1,) * operator.rank)
    np.testing.assert_array_equal(made.evaluate(x[:, ~np.array(fixed)]), operator.evaluate(x))


def test_inputs_that_cannot_be_fixed() -> None:
    three = np.array([np.nan, 3.0])
    with pytest.raises(Declined, match="channel 1 is constantly 3, and is padded with 0"):
        fix_inputs(conv(2, 2, 3, begin=(1,)), three)
    with pytest.raises(Declined, match="a shift does not pass through a transposed convolution"):
        fix_inputs(conv(2, 2, 3, transposed=True), three)
    with pytest.raises(Declined, match="2 groups do not lose channels one by one"):
        fix_inputs(conv(2, 2, 3, groups=2), three)
    with pytest.raises(Declined, match="all 2 channels are constant"):
        fix_inputs(conv(2, 2, 3), np.ones(2))


def test_outputs_are_taken_dense_or_depthwise() -> None:
    keep = np.array([0, 2])
    x = integers(1, 2, 3, 5)
    dense = conv(3, 3, 3)
    np.testing.assert_array_equal(take_outputs(dense, keep).evaluate(x), dense.evaluate(x)[:, keep])
    depthwise = conv(3, 3, 3, groups=3, begin=(1,), pad_value=np.array([1.0, 2.0, 3.0]))
    taken = take_outputs(depthwise, keep)
    np.testing.assert_array_equal(taken.evaluate(x[:, keep]), depthwise.evaluate(x)[:, keep])
    with pytest.raises(Declined, match="2 groups do not lose channels one by one"):
        take_outputs(conv(4, 4, 3, groups=2), np.array([0]))


# --- looking ---


class Touched(np.ndarray):
    """An array that adds up how many elements are computed with."""

    elements = 0

    def __array_ufunc__(self, ufunc: object, method: str, *inputs: object, **kwargs: object) -> object:
        arrays = [x.view(np.ndarray) if isinstance(x, Touched) else x for x in inputs]
        Touched.elements += sum(x.size for x in inputs if isinstance(x, Touched))
        return getattr(ufunc, method)(*arrays, **kwargs)


def stored(weight: Array) -> Conv:
    """An operator whose kernel lies in a file, in float32; nobody may ask for all of it in float64."""

    def compute() -> Array:
        raise AssertionError("the kernel was read as a whole")

    held = weight.astype(np.float32).view(Touched)
    same = (weight.shape[2] // 2,) * (weight.ndim - 2)
    return Conv(
        Lazy(weight.shape, compute, held=lambda: held), np.zeros(weight.shape[0]), begin=same, end=same
    )


def test_most_kernels_are_hardly_looked_at() -> None:
    operator = stored(np.random.default_rng(0).standard_normal((64, 96, 3, 3)))
    Touched.elements = 0
    assert narrow(operator) is operator
    assert block_groups(operator) == 1
    assert not zero_rows(operator).any()
    assert not zero_columns(operator).any()
    assert all(factor(operator, last) is None for last in ((), (0, 1), (0,), (1,)))
    # One for each row and each column, and a corner of the taps.
    assert Touched.elements < 64 + 96 + 9 + 3 * 6
    assert glimpse(operator) is glimpse(operator)


def test_what_is_trimmed_is_not_read_either() -> None:
    weight = np.zeros((4, 4, 3, 3))
    weight[..., 1, 1] = 1
    made = narrow(stored(weight))
    assert made.size == (1, 1)
    assert made.kernel.at_hand


def test_the_passes_read_no_kernel_as_a_whole() -> None:
    random = np.random.default_rng(0)
    b = Builder(1, 40, 8, 8)
    x = b.add(relu, b.add(stored(random.standard_normal((48, 40, 3, 3))), b.x))
    x = b.add(relu, b.add(stored(random.standard_normal((64, 48, 1, 1))), x))
    graph = b.finish(b.add(stored(random.standard_normal((36, 64, 5, 5))), x))
    log = Log()
    Touched.elements = 0
    run(graph, Plan((drop_channels, narrow_kernels, split_groups_pass, factor_low_rank)), log, check)
    assert log.events == []
    assert Touched.elements < 1000

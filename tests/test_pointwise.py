"""A scale and a shift that go where elements go, against what they do."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuser.algebra.pointwise import Extent, Pointwise, groups
from fuser.errors import Declined

Array = np.ndarray[Any, np.dtype[np.float64]]


def whole(data: st.DataObject, shape: tuple[int, ...]) -> Array:
    """Small whole numbers: sums and products of them are exact."""
    seed = data.draw(st.integers(0, 2**16))
    return np.random.default_rng(seed).integers(-3, 4, shape).astype(np.float64)


def maps(data: st.DataObject, shape: tuple[int, ...]) -> Pointwise:
    kept = tuple(n if data.draw(st.booleans()) else 1 for n in shape)
    return Pointwise(whole(data, kept), whole(data, kept))


@st.composite
def reshapes(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Two shapes of as many elements."""
    primes = draw(st.lists(st.sampled_from([1, 2, 3]), min_size=1, max_size=6))

    def cut() -> tuple[int, ...]:
        ends = sorted(draw(st.sets(st.integers(1, len(primes)), min_size=1)) | {len(primes)})
        return tuple(int(np.prod(primes[a:b])) for a, b in zip([0, *ends], ends, strict=False))

    return cut(), cut()


def hidden(data: st.DataObject, *shapes: tuple[int, ...]) -> list[tuple[Extent, ...]]:
    """The shapes as a graph knows them: some extents by name, some not at all."""

    def seen(n: int) -> Extent:
        return data.draw(st.sampled_from([n, n, f"n{n}", None]))

    return [tuple(map(seen, shape)) for shape in shapes]


@settings(max_examples=600)
@given(reshapes(), st.data())
def test_a_reshape_carries_them_or_declines(shapes: Any, data: st.DataObject) -> None:
    before, after = shapes
    m, x = maps(data, before), whole(data, before)
    try:
        moved = m.reshaped(*hidden(data, before, after))
    except Declined:
        return
    assert np.array_equal(moved(x.reshape(after)), m(x).reshape(after))


@settings(max_examples=200)
@given(reshapes(), st.data())
def test_of_known_extents_every_reshape_carries_them(shapes: Any, data: st.DataObject) -> None:
    before, after = shapes
    m, x = maps(data, before), whole(data, before)
    moved = m.reshaped(before, after)
    assert np.array_equal(moved(x.reshape(after)), m(x).reshape(after))
    back = moved.reshaped(after, before)
    assert np.array_equal(back(x), m(x))


@settings(max_examples=200)
@given(reshapes(), st.data())
def test_groups_are_of_equal_size_and_cover_both_sides(shapes: Any, data: st.DataObject) -> None:
    before, after = shapes
    found = groups(*hidden(data, before, after))
    assert [axis for old, _ in found for axis in old] == [*range(len(before))]
    assert [axis for _, new in found for axis in new] == [*range(len(after))]
    for old, new in found:
        assert np.prod([before[a] for a in old]) == np.prod([after[a] for a in new])


@pytest.mark.parametrize(
    ("before", "axis", "after", "behind"),
    [
        (("N", 6, "H", "W"), 1, ("N", 6, None), 1),  # an image becomes a sequence
        (("N", 6, None, None), 1, ("N", 2, 3, "H", "W"), (1, 2)),  # heads, or groups
        ((None, "T", 6), 2, (None, 6), 1),  # rows, as many as nobody knows
        ((None, 6), 1, ("N", "T", 6), 2),
        (("N", 6, 1, 1), 1, (None, 6), 1),
        (("N", 2, 3), (1, 2), (None, 6), 1),
        (("N", 6, 4, 4), 1, ("N", 96), 1),  # each number for every position
        ((6, "T"), 0, (6, 1, "T"), 0),
    ],
)
def test_nothing_is_known_of_axes_that_do_not_matter(before: Any, axis: Any, after: Any, behind: Any) -> None:
    shape = [n if i in np.atleast_1d(axis) else 1 for i, n in enumerate(before)]
    numbers = np.arange(6.0).reshape(shape)
    moved = Pointwise(numbers, -numbers).reshaped(before, after)
    assert moved.axes == tuple(np.atleast_1d(behind))
    size = int(np.prod([after[i] for i in moved.axes]))
    assert moved.scale.reshape(-1).tolist() == np.repeat(np.arange(6.0), size // 6).tolist()


@pytest.mark.parametrize(
    ("before", "after"), [(("N", 6, "H"), ("N", None)), ((None, 6), (None, "T", 5)), (("N", 6), (None, None))]
)
def test_an_axis_that_nobody_can_follow_is_declined_with_both_shapes(before: Any, after: Any) -> None:
    m = Pointwise.of(np.arange(6.0), np.zeros(6), len(before), 1)
    with pytest.raises(Declined, match=r"axes \(.*\) of \(.*6.*\), and what becomes of these in"):
        m.reshaped(before, after)


@given(st.permutations(range(4)), st.data())
def test_a_transposition_carries_them(order: list[int], data: st.DataObject) -> None:
    m, x = maps(data, (2, 3, 1, 4)), whole(data, (2, 3, 1, 4))
    assert np.array_equal(m.transposed(order)(x.transpose(order)), m(x).transpose(order))


@given(st.integers(0, 2), st.data())
def test_parts_of_a_concatenation_have_their_own(axis: int, data: st.DataObject) -> None:
    shapes = [tuple(n + i if a == axis else n for a, n in enumerate((2, 3, 2))) for i in range(3)]
    parts, xs = [maps(data, shape) for shape in shapes], [whole(data, shape) for shape in shapes]
    sizes = [shape[axis] for shape in shapes]
    joined = Pointwise.joined(parts, axis, sizes)
    made = np.concatenate([m(x) for m, x in zip(parts, xs, strict=True)], axis)
    assert np.array_equal(joined(np.concatenate(xs, axis)), made)
    for i, (m, x) in enumerate(zip(parts, xs, strict=True)):
        assert np.array_equal(joined.part(axis, sum(sizes[:i]), sizes[i])(x), m(x))


@given(st.data())
def test_one_behind_the_other_is_one(data: st.DataObject) -> None:
    shape = (2, 3, 4)
    a, b, x = maps(data, shape), maps(data, shape), whole(data, shape)
    assert np.array_equal(b.after(a)(x), b(a(x)))
    assert b.after(a).axes == b.after(a).compressed().axes


def test_numbers_of_channels_are_had_where_no_other_axis_has_any() -> None:
    m = Pointwise.of(np.array([2.0, 3.0]), np.array([0.0, 1.0]), 4, 1)
    scale, shift = m.on(4, -3, 2)
    assert (scale.tolist(), shift.tolist()) == ([2, 3], [0, 1])
    one = Pointwise.of(np.array([2.0, 2.0]), np.array([1.0, 1.0]), 4, 3)
    assert one.axes == ()
    assert one.on(4, 1, 3)[0].tolist() == [2, 2, 2]
    with pytest.raises(Declined, match=r"differ along axis \[1\], and not along axis 2 alone"):
        m.on(4, 2, 2)
    assert Pointwise(np.ones((1, 1)), np.zeros((1, 1))).neutral
    assert not m.neutral

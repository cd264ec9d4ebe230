import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuser.errors import Declined
from fuser.ir.choices import choices, sides
from fuser.ir.literals import MANY, RIGID, UNIFORM, Literals, acting, extremes

numbers = st.sets(st.integers(-30, 30), max_size=6)


@given(numbers, st.integers(0, 40))
def test_an_extent_on_either_side_of_every_number(cuts: set[int], reach: int) -> None:
    found = sides(cuts, reach)
    assert found == sorted(set(found))
    for n in {abs(n) for n in cuts} - {0}:
        assert n == 1 or n - 1 in found
        assert {n, n + 1, n + 2} <= set(found)
    assert found[-1] > max(reach, *map(abs, cuts), 0) + 1


@given(numbers, st.integers(0, 40), st.integers(0, 60))
def test_the_last_extent_is_beyond_a_plain_one_too(cuts: set[int], reach: int, plain: int) -> None:
    *inner, last = sides(cuts, reach)
    assert sides(cuts, reach, plain) == [*inner, max(last, plain + 1)]


@given(st.dictionaries(st.sampled_from([0, 2, 3]), numbers, min_size=1))
def test_no_two_axes_are_alike_and_each_has_all_its_extents(cuts: dict[int, set[int]]) -> None:
    options = {axis: sides(held, 0) for axis, held in cuts.items()}
    tried = [wanted for wanted, _ in choices(options, {axis: 2 + 3 * axis for axis in options})]
    for wanted in tried:
        assert len(set(wanted.values())) == len(wanted)
    for axis, extents in options.items():
        had = {wanted[axis] for wanted in tried}
        assert had.issuperset(extents)


@given(st.dictionaries(st.sampled_from([0, 2, 3]), numbers), st.sets(st.integers(1, 12)))
def test_the_source_must_run_at_one_of_the_extents(cuts: dict[int, set[int]], taken: set[int]) -> None:
    """Also where extents that others have taken push the plain ones up to the last."""
    options = {axis: sides(held, 0, 2 + 3 * axis) for axis, held in cuts.items()}
    tried = list(choices(options, {axis: 2 + 3 * axis for axis in options}, taken))
    assert any(needed for _, needed in tried)
    for wanted, needed in tried:
        assert not needed or any(wanted[axis] >= extents[-1] for axis, extents in options.items()) or not cuts


def test_numbers_that_are_too_large_decline() -> None:
    with pytest.raises(
        Declined, match=r"the graph has the number 5000, and extents beyond 1024 are not tried"
    ):
        sides([5000], 0)
    with pytest.raises(Declined, match=r"numbers in the graph reach 1100 together, and extents beyond 1024"):
        sides([600, 500], 1100)
    with pytest.raises(Declined, match=r"\d+ extents would have to be tried, more than 64"):
        sides(range(0, 400, 4), 0)


def test_axes_that_numbers_act_on() -> None:
    assert Literals((4,), (-1,)).on(3, 4)
    assert not Literals((4,), (-1,)).on(1, 4)
    assert Literals((4,), None).on(1, 4)


def test_numbers_act_everywhere_once_elements_move_between_axes() -> None:
    crop, other = Literals((4, -9), (2,), rigid=True), Literals((5,), (-1,), rigid=True)
    assert acting([(crop, 4), (other, 4)], 2) == ({4, -9}, 9)
    assert acting([(crop, 4), (other, 4)], 3) == ({5}, 5)
    assert acting([(crop, 4), (other, 4), (RIGID, 4)], 1) == ({4, -9, 5}, 14)
    assert acting([(UNIFORM, 4)], 1) == (set(), 0)


def test_of_a_long_list_its_extremes_and_its_length() -> None:
    assert extremes(np.arange(MANY)) == tuple(range(MANY))
    assert extremes(np.arange(3, 103)) == (3, 102, 100)

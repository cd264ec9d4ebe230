"""Formulas for extents, and sizes that satisfy what is asked of them."""

from collections.abc import Callable, Mapping
from math import ceil
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fuser.judge import forms
from fuser.judge.forms import Form, Known, symbol, symbols, value
from fuser.judge.sizes import LIMIT, Rule, Sizes

NAMES = ("a", "b", "c")
LEAVES = st.one_of(st.integers(0, 9), st.sampled_from([symbol(name) for name in NAMES]))
OPERATIONS: dict[Callable[[Known, Known], Known], Callable[[Any, Any], Any]] = {
    forms.added: lambda a, b: a + b,
    forms.multiplied: lambda a, b: a * b,
    forms.least: min,
    forms.most: max,
    forms.divided: lambda a, b: a // b,
}
# Pairs of a formula and the function of the sizes that it stands for.
EXPRESSIONS = st.recursive(
    LEAVES.map(lambda leaf: (leaf, lambda sizes: value(leaf, sizes))),
    lambda inner: st.tuples(st.sampled_from(list(OPERATIONS)), inner, inner).map(
        lambda t: (
            t[0](t[1][0], t[2][0] if t[0] is not forms.divided else 3),
            lambda sizes: OPERATIONS[t[0]](
                t[1][1](sizes), t[2][1](sizes) if t[0] is not forms.divided else 3
            ),
        )
    ),
    max_leaves=8,
)


@given(EXPRESSIONS, st.tuples(*[st.integers(1, 50)] * 3))
def test_a_formula_is_what_it_stands_for(
    pair: tuple[Known, Callable[[Mapping[str, int]], int]], numbers: tuple[int, ...]
) -> None:
    form, function = pair
    sizes = dict(zip(NAMES, numbers, strict=True))
    assert value(form, sizes) == function(sizes)
    assert symbols(form) <= set(NAMES)
    known: dict[str, Known] = {"a": symbol("b"), "c": 7}
    assert value(forms.replaced(form, known), sizes) == function({"b": sizes["b"], "a": sizes["b"], "c": 7})
    grid = np.arange(1, 6)
    assert np.broadcast_to(value(form, {**sizes, "b": grid}), 5).tolist() == [
        function({**sizes, "b": n}) for n in range(1, 6)
    ]


@given(st.integers(1, 7), st.integers(0, 3), st.integers(1, 4))
def test_windows_that_are_equal_are_written_alike(kernel: int, pad: int, stride: int) -> None:
    odd, pads = 2 * kernel - 1, kernel - 1
    h = symbol("h")
    small = forms.plus(forms.over(forms.plus(h, -1), stride), 1)
    large = forms.plus(forms.over(forms.plus(h, 2 * pads - odd), stride), 1)
    assert small == large
    assert forms.over(forms.times(forms.plus(h, pad), stride), stride) == forms.plus(h, pad)


def test_what_is_computed_in_many_steps_is_not_followed() -> None:
    form: Known = symbol("a")
    for step in range(forms.DEEPEST):
        form = forms.least(forms.added(form, symbol("b")), symbol(f"c{step}"))
    with pytest.raises(ValueError, match="more than 40 steps"):
        forms.least(form, symbol("d"))
    bound: Known = symbol("a")
    for number in range(100, 0, -1):
        bound = forms.least(bound, number)
    assert bound == forms.least(symbol("a"), 1)


def solved(order: list[str], rules: list[Rule], **wishes: int) -> dict[str, int]:
    sizes = Sizes(order, rules, {}, {})
    return sizes.near({name: wishes.get(name, 5) for name in order}, apart=True)


def test_a_sum_is_solved_for_its_whole() -> None:
    past, tokens, mask = (symbol(name) for name in ("past", "tokens", "mask"))
    found = solved(["mask", "past", "tokens"], [Rule("equal", forms.added(past, tokens), mask)], mask=3)
    assert found["mask"] == found["past"] + found["tokens"]


def test_an_equal_extent_is_no_second_one() -> None:
    found = solved(
        ["a", "b", "c"], [Rule("alike", symbol("a"), symbol("b")), Rule("equal", symbol("c"), 9)], a=3
    )
    assert found == {"a": 3, "b": 3, "c": 9}


def test_one_beside_a_constant_is_admissible() -> None:
    rule = Rule("alike", symbol("a"), 40)
    assert {solved(["a"], [rule], a=wish)["a"] for wish in (2, 30)} == {1, 40}


@pytest.mark.parametrize("levels", [1, 2, 3, 4, 5])
def test_skip_connections_ask_for_multiples(levels: int) -> None:
    h: Known = symbol("h")
    rules = []
    down = [h]
    for _ in range(levels):
        down.append(forms.added(forms.divided(forms.added(down[-1], -1), 2), 1))
    for inner, outer in zip(down[1:], down, strict=False):
        rules.append(Rule("equal", forms.scaled(inner, 2), outer))
    for wish in (37, 64, 101):
        found = solved(["h"], rules, h=wish)["h"]
        assert found % 2**levels == 0
        assert abs(found - wish) <= 2**levels


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_what_can_be_satisfied_is(data: st.DataObject) -> None:
    """Rules that hold at invented sizes."""
    truth = {name: data.draw(st.integers(1, 60)) for name in NAMES}
    rules = []
    for _ in range(data.draw(st.integers(1, 3))):
        name = data.draw(st.sampled_from(NAMES))
        factor, step = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 6))
        form = forms.divided(forms.scaled(symbol(name), factor), step)
        number = int(value(form, truth))
        rules.append(data.draw(st.sampled_from([Rule("equal", form, number), Rule("fits", number, form)])))
    one, other = data.draw(st.permutations(NAMES))[:2]
    ratio = ceil(truth[one] / truth[other])
    rules.append(Rule("fits", symbol(one), forms.scaled(symbol(other), ratio)))
    assume(all(rule.holds(truth) for rule in rules))
    found = solved(list(NAMES), rules, a=9, b=20, c=30)
    assert all(rule.holds(found) for rule in rules), (rules, found)
    assert all(1 <= n <= LIMIT for n in found.values())


def test_two_extents_move_together_where_one_alone_cannot() -> None:
    tokens = forms.multiplied(forms.divided(symbol("h"), 8), forms.divided(symbol("w"), 8))
    found = solved(["h", "w"], [Rule("equal", tokens, 49)], h=64, w=96)
    assert (found["h"] // 8) * (found["w"] // 8) == 49
    assert max(found.values()) < 2 * min(found.values())


def test_what_nothing_satisfies_is_left_to_the_model() -> None:
    assert solved(["a"], [Rule("equal", forms.scaled(symbol("a"), 2), 7)], a=4) == {"a": 4}


def test_edges_are_where_a_comparison_changes() -> None:
    sizes = Sizes(["h"], [], {}, {})
    half = forms.divided(symbol("h"), 2)
    assert isinstance(half, Form)
    assert sizes.edges("h", [(half, 5)], {"h": 8}) == [10, 12]

"""What elements may be, from what becomes of them."""

from collections.abc import Callable

import numpy as np
import pytest

from fuser.judge.forms import symbol
from fuser.judge.needs import HUGE, Need, Trace, drawn, need


def traced(dtype: str, *numbers: float) -> Trace:
    asked = need(dtype, numbers, ())
    assert asked is not None
    return Trace(asked, asked.candidates)


def values(asked: Need, *shape: int, outcome: bool = True, **sizes: int) -> np.ndarray:
    return drawn(asked, shape, sizes, np.random.default_rng(0), outcome)


@pytest.mark.parametrize(
    ("steps", "low", "high"),
    [
        ([], 0, 9),
        ([lambda x: x + 2], 0, 7),
        ([lambda x: x - 100], 100, 109),
        ([lambda x: x.astype(np.float32), lambda x: x * 0.5, lambda x: x.astype(np.int64)], 0, 19),
        ([lambda x: np.clip(x, 0, 9)], 0, 15),
        ([lambda x: -x, lambda x: x + 9], 0, 9),
    ],
)
def test_a_bound_is_one_of_the_input(
    steps: list[Callable[[np.ndarray], np.ndarray]], low: int, high: int
) -> None:
    trace = traced("int64", 100, 9)
    for step in steps:
        trace = trace.through(step)
    trace.within(0, 10)
    drawn_ = values(trace.need, 2000)
    assert low <= drawn_.min() < low + 2
    assert high - 2 < drawn_.max() <= high


def test_a_bound_may_be_an_extent() -> None:
    trace = traced("int32")
    trace.within(1, symbol("t"))
    assert values(trace.need, 500, t=7).max() == 6
    assert values(trace.need, 500, t=30).max() == 29


@pytest.mark.parametrize("low", [-HUGE, -1e9, np.finfo(np.float32).min, -np.inf])
def test_what_closes_is_a_mask(low: float) -> None:
    trace = traced("int64").through(lambda x: np.where(x == 1, 0.0, low))
    trace.leaves()
    mask = values(trace.need, 5, 9)
    assert np.unique(mask).tolist() == [0, 1]
    assert mask[:, 0].all()
    assert mask[0].all()


def test_a_row_of_one_is_open() -> None:
    trace = traced("bool").through(lambda x: np.where(x, -np.inf, 0.0))
    trace.leaves()
    assert not values(trace.need, 50, 1).any()


def test_numbers_that_are_only_scaled_are_no_mask() -> None:
    trace = traced("int64").through(lambda x: x.astype(np.float32) * 255)
    trace.leaves()
    assert values(trace.need, 500).max() > 1


@pytest.mark.parametrize(
    ("function", "low", "high"), [(np.sqrt, 0, 4), (np.arcsin, -1, 1), (np.arccosh, 1, 4)]
)
def test_a_function_has_a_domain(
    function: Callable[[np.ndarray], np.ndarray], low: float, high: float
) -> None:
    trace = traced("float32")
    trace.through(function)
    found = values(trace.need, 500)
    assert low <= found.min() < found.max() <= high
    assert np.isfinite(function(found)).all()


def test_both_outcomes_of_a_comparison_come() -> None:
    trace = traced("int64", 16000)
    trace.through(lambda x: x == 16000).both()
    assert values(trace.need) == 16000 != values(trace.need, outcome=False)
    assert 0 < (values(trace.need, 400) == 16000).sum() < 400


def test_the_largest_is_the_extent() -> None:
    trace = traced("int64")
    trace.within(1, 17)
    trace.need.top = "t"
    assert values(trace.need, 3, t=9).max() == 9


@pytest.mark.parametrize("dtype", ["complex64", "seq(tensor(float))", "undefined"])
def test_of_other_types_nothing_is_drawn(dtype: str) -> None:
    assert need(dtype, (), ()) is None

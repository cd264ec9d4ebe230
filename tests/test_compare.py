"""How far arrays are apart, and how far they may be."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fuser.judge.compare import CEILING, FLOOR, OWN, Row, distance, floor, judge, largest


def single(values: list[float]) -> NDArray[Any]:
    return np.array(values, dtype=np.float32)


def row(error: float, own: float | None, float64: float | None, dtype: str = "float32") -> Row:
    return Row("y", 0, (4,), dtype, 4, 1.0, error, own, float64, floor(dtype), ok=True)


def test_errors_are_relative_to_the_scale_of_the_reference() -> None:
    original, result = single([1.0, -9.998, 3.0]), single([1.0, -9.998, 3.001])
    (found,) = judge([{"y": original}], [{"y": result}], [{"y": np.array([1.0, -10.0, 3.0005])}], {})
    assert found.scale == 10.0
    assert found.error == pytest.approx(1e-4, rel=1e-2)
    assert found.own_error == pytest.approx(2e-4, rel=1e-2)
    assert found.float64_error == pytest.approx(2e-4, rel=1e-2)
    assert found.tolerance == pytest.approx(4e-4, rel=1e-2)
    assert found.ok


def test_the_own_error_of_all_samples_counts() -> None:
    exact, ideal = {"y": single([1.0])}, {"y": np.array([1.0])}
    off = {"y": single([1.0001])}
    first, second = judge([exact, off], [off, off], [ideal, ideal], {})
    assert first.own_error == 0
    assert first.tolerance == second.tolerance == pytest.approx(2e-4, rel=1e-2)
    assert first.ok


@given(st.floats(0, 10), st.floats(0, 1e-3), st.sampled_from(list(FLOOR)))
def test_the_tolerance_has_no_jump_and_a_ceiling(own: float, more: float, dtype: str) -> None:
    """Whatever the original's own error is: a little more of it never allows much more."""

    def allowed(error: float) -> float:
        sample = {"y": np.array([1.0 + error])}
        (found,) = judge([sample], [sample], [{"y": np.array([1.0])}], {"y": dtype})
        return found.tolerance

    assert floor(dtype) <= allowed(own) <= CEILING[dtype]
    assert -1e-12 <= allowed(own + more) - allowed(own) <= OWN * more + 1e-12


def test_the_narrowest_type_that_computes_says_what_is_allowed() -> None:
    original, result = {"y": single([1.0])}, {"y": single([1.004])}
    found = [
        judge([original], [result], None, {}, precisions={"y": kind})[0] for kind in ("float16", "float32")
    ]
    assert [row.ok for row in found] == [True, False]
    assert [row.dtype for row in found] == ["float32", "float32"]


def test_elements_of_a_sequence_have_the_precision_of_the_whole() -> None:
    arrays = {"y[0]": single([1.0]), "y[1]['a']": single([1.0])}
    rows = judge([arrays], [arrays], None, {}, precisions={"y": "float16"})
    assert [row.precision for row in rows] == ["float16", "float16"]


def test_without_an_ideal_ten_times_the_floor_is_allowed_and_between_float64_once() -> None:
    original, result = {"y": single([1.0])}, {"y": single([1.00005])}
    assert [r.ok for r in judge([original], [result], None, {})] == [True]
    assert [r.ok for r in judge([original], [result], None, {}, exact=True)] == [False]


def test_an_ideal_of_another_shape_is_no_reference() -> None:
    (found,) = judge([{"y": np.ones(3)}], [{"y": np.ones(3)}], [{"y": np.ones(4)}], {})
    assert found.own_error is None
    assert found.ok


def test_what_is_missing_or_of_another_type_is_wrong() -> None:
    (missing,) = judge([{"y": np.ones(3)}], [{}], None, {})
    (retyped,) = judge([{"y": np.ones(3)}], [{"y": np.ones(3, int)}], None, {})
    assert (missing.ok, missing.reason, missing.error) == (False, "is missing", math.inf)
    assert retyped.reason == "is int64 instead of float64"
    assert missing.settled(math.inf) == missing
    assert missing.excess == math.inf


def test_excess_is_in_units_of_the_tolerance() -> None:
    assert row(0.0, None, None).excess == 0.0
    assert row(2e-5, None, None).settled(1e-5).excess == pytest.approx(2.0)
    assert row(0.1, 0.0, 0.1, "int64").settled(0.0).excess == math.inf


def test_an_own_error_above_the_floor_is_inconclusive() -> None:
    assert not row(0.0, None, None).inconclusive
    assert not row(0.0, 9e-6, 0.0).inconclusive
    assert row(0.0, 2e-5, 0.0).inconclusive
    assert row(0.0, 0.1, 0.0, "int64").inconclusive


def test_distance_from_nothing() -> None:
    assert largest(np.zeros(0)) == 0.0
    assert distance(np.zeros(2), np.zeros(2), 0.0) == 0.0
    assert distance(np.ones(2), np.zeros(2), 0.0) == math.inf
    assert distance(np.ones(2), np.zeros(2), 0.0, "float32") == math.inf
    assert distance(np.full(2, 2.0**-127), np.zeros(2), 2.0**-140, "float32") == 0.5
    assert distance(np.ones(2), np.zeros(2), 4.0, "float32") == 0.25

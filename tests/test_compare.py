"""How far arrays are apart, and how far they may be."""

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fuser.compare import Row, distance, floor, judge, largest


def single(values: list[float]) -> NDArray[Any]:
    return np.array(values, dtype=np.float32)


def row(error: float, own: float | None, float64: float | None, dtype: str = "float32") -> Row:
    return Row("y", 0, (4,), dtype, 4, 1.0, error, own, float64, floor(dtype), ok=True)


def test_errors_are_relative_to_the_scale_of_the_reference() -> None:
    original, result = single([1.0, -8.0, 3.0]), single([1.0, -8.0, 4.0])
    (found,) = judge([{"y": original}], [{"y": result}], [{"y": np.array([1.0, -10.0, 3.5])}], {})
    assert found.scale == 10.0
    assert found.error == pytest.approx(0.1)
    assert found.own_error == pytest.approx(0.2)
    assert found.float64_error == pytest.approx(0.2)
    assert found.tolerance == pytest.approx(0.4)
    assert found.ok


def test_the_own_error_of_all_samples_counts() -> None:
    exact, ideal = {"y": single([1.0])}, {"y": np.array([1.0])}
    off = {"y": single([1.001])}
    first, second = judge([exact, off], [off, off], [ideal, ideal], {})
    assert first.own_error == 0
    assert first.tolerance == second.tolerance == pytest.approx(2e-3, rel=1e-4)
    assert first.ok


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

import numpy as np
import pytest

from fuser.lazy import MAX_WORK, Array, Lazy, defer, known


def untouchable(*shape: int) -> Lazy:
    def compute() -> Array:
        raise AssertionError("the values were looked at")

    return Lazy(shape, compute)


def test_values_are_computed_at_each_look_and_not_before() -> None:
    looks = []

    def compute() -> Array:
        looks.append(1)
        return np.ones(3)

    double = defer((3,), lambda x: 2 * x, Lazy((3,), compute))
    assert not looks
    assert np.array_equal(double(), [2, 2, 2])
    assert np.array_equal(double(), [2, 2, 2])
    assert len(looks) == 2


def test_deferring_looks_at_nothing() -> None:
    assert defer((2, 3), np.add, untouchable(2, 3), untouchable(2, 3)).shape == (2, 3)


def test_known_arrays_are_float64_and_not_copied() -> None:
    array = np.ones(2)
    assert known(array)() is array
    assert known(np.ones(2, dtype=np.float32))().dtype == np.float64


def test_a_broken_promise_is_found() -> None:
    with pytest.raises(AssertionError, match=r"computed shape \(2,\), promised \(3,\)"):
        defer((3,), lambda: np.ones(2))()


def test_a_long_chain_neither_recurses_nor_recomputes() -> None:
    computed = 0

    def increment(x: Array) -> Array:
        nonlocal computed
        computed += 1
        return x + 1

    lazy = known(np.zeros(1))
    for _ in range(5000):
        lazy = defer((1,), increment, lazy)
    assert lazy() == 5000
    assert computed < 5000 + 2 * MAX_WORK


def test_a_chain_that_uses_each_array_twice_stays_cheap() -> None:
    computed = 0

    def add(x: Array, y: Array) -> Array:
        nonlocal computed
        computed += 1
        return x + y

    lazy = known(np.ones(1))
    for _ in range(50):
        lazy = defer((1,), add, lazy, lazy)
    assert lazy() == 2.0**50
    assert computed < 50 * MAX_WORK


def test_repr_names_the_shape() -> None:
    assert repr(known(np.zeros((2, 3)))) == "Lazy(2, 3)"

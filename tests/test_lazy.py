import numpy as np
import pytest

from fuser.algebra.lazy import KERNELS, MAX_WORK, Array, Lazy, Shelf, arrange, defer, known


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


def test_what_is_held_can_be_looked_at_without_computing() -> None:
    held = np.ones((2, 3), dtype=np.float16)
    lazy = Lazy((2, 3), untouchable(2, 3), held=lambda: held)
    assert lazy.at_hand
    assert lazy.peek() is held
    assert not untouchable(2).at_hand
    assert not defer((2, 3), np.add, lazy, lazy).at_hand


def test_what_is_not_held_is_computed_to_be_looked_at() -> None:
    assert np.array_equal(defer((2,), lambda x: x + 1, known(np.zeros(2))).peek(), [1, 1])


def test_holding_adds_values_at_hand_and_keeps_the_exact_ones() -> None:
    exact = defer((1,), lambda x: x / 3, known(np.ones(1)))
    rounded = exact.holding(np.full(1, 1 / 3, dtype=np.float32))
    assert rounded.at_hand
    assert rounded.peek().dtype == np.float32
    assert np.array_equal(rounded(), exact())
    assert rounded.work == exact.work


def counted(count: int, looks: list[int]) -> Lazy:
    def compute() -> Array:
        looks.append(1)
        return np.arange(count) / 3

    return Lazy((count,), compute)


@pytest.mark.parametrize(("room", "computed"), [(1 << 20, 0), (3 * 40, 0), (2 * 40, 6), (39, 12), (0, 12)])
def test_what_is_held_beyond_the_room_of_a_shelf_is_computed_again_and_rounded_alike(
    room: int, computed: int
) -> None:
    looks: list[int] = []
    shelf = Shelf(room)
    exact = [counted(10, looks) for _ in range(3)]
    held = [lazy.holding(lazy().astype(np.float32), shelf) for lazy in exact]
    looks.clear()
    for _ in range(2):
        for lazy in held:
            assert lazy.at_hand
            assert lazy.peek().dtype == np.float32
            assert np.array_equal(lazy.peek(), (np.arange(10) / 3).astype(np.float32))
    # Two looks at each in a row: the second finds what the first has put there, if that has room at all.
    assert len(looks) == computed
    assert 0 <= shelf.room <= room


def test_a_shelf_keeps_nothing_that_nobody_can_ask_for() -> None:
    shelf = Shelf(1000)
    held = known(np.ones(100)).holding(np.ones(100, dtype=np.float32), shelf)
    assert shelf.room == 600
    del held
    assert shelf.room == 1000


def test_the_shelf_of_all_kernels_is_empty_when_models_are_gone() -> None:
    before = KERNELS.room
    held = known(np.ones(100)).holding(np.ones(100, dtype=np.float32))
    assert KERNELS.room == before - 400
    del held
    assert KERNELS.room == before


def test_arranged_elements_are_at_hand_where_those_of_the_source_are() -> None:
    held = np.arange(6, dtype=np.float32).reshape(2, 3)
    source = Lazy((2, 3), untouchable(2, 3), held=lambda: held)
    turned = arrange((3, 2), np.transpose, source)
    assert np.array_equal(turned.peek(), held.T)
    assert turned.peek().dtype == np.float32
    assert not arrange((3, 2), np.transpose, untouchable(2, 3)).at_hand
    assert np.array_equal(arrange((3, 2), np.transpose, known(held.astype(np.float64)))(), held.T)

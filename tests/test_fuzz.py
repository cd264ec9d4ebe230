"""Random networks: a few here, as many as one likes by ``python -m tests.fuzz``."""

import pytest

from tests.fuzz import check


@pytest.mark.parametrize("first", range(0, 60, 10))
def test_random_networks_compute_the_same(first: int) -> None:
    removed = [check(seed) for seed in range(first, first + 10)]
    assert sum(removed) > 0

"""Random modules of torch: a few here, as many as one likes by ``python -m tests.fuzz_fx``."""

import pytest

pytest.importorskip("torch")

from tests.fuzz_fx import check


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("first", [0, 60, 120, 180])
def test_random_modules_compute_the_same(first: int) -> None:
    removed = [check(seed) or 0 for seed in range(first, first + 10)]
    assert sum(removed) > 0

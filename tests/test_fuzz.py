"""Random networks: a few here, as many as one likes by ``python -m tests.fuzz``."""

import numpy as np
import pytest

from tests.fuzz.check import check
from tests.fuzz.judge import distance


@pytest.mark.parametrize("first", [29, 37])
def test_random_networks_stay_what_they_are(first: int) -> None:
    outcomes = {seed: check(seed) for seed in range(first, first + 8)}
    assert {seed: outcome.faults for seed, outcome in outcomes.items() if outcome.faults} == {}
    assert sum(outcome.removed for outcome in outcomes.values()) > 0


def test_an_optional_value_that_is_absent_is_only_like_itself() -> None:
    there = np.ones(2, np.float32)
    assert [distance(a, b) for a, b in ((None, None), (None, there), (there, None))] == [0, np.inf, np.inf]

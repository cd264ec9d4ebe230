"""Random networks: a few here, as many as one likes by ``python -m tests.fuzz``."""

import pytest

from tests.fuzz.check import check


@pytest.mark.parametrize("first", [29, 37])
def test_random_networks_stay_what_they_are(first: int) -> None:
    outcomes = {seed: check(seed) for seed in range(first, first + 8)}
    assert {seed: outcome.faults for seed, outcome in outcomes.items() if outcome.faults} == {}
    assert sum(outcome.removed for outcome in outcomes.values()) > 0

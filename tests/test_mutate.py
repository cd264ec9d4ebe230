"""Mutated files: a few here, as many as one likes by ``python -m tests.mutate``."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.mutate.bases import BASES, base
from tests.mutate.mutants import mutant
from tests.mutate.trial import attempt, command, compared


@pytest.mark.parametrize("first", [10, 30])
def test_mutants_are_optimized_or_refused(first: int) -> None:
    outcomes = {seed: attempt(seed) for seed in range(first, first + 10)}
    assert {seed: outcome for seed, outcome in outcomes.items() if outcome.fault} == {}


@pytest.mark.parametrize("index", range(4), ids=[make.__name__ for make in BASES[:4]])
def test_what_is_mutated_is_in_order(index: int, tmp_path: Path) -> None:
    """So that what is found is found by mutation."""
    model = base(index)
    onnx.checker.check_model(model, full_check=True)
    source, target = tmp_path / "source.onnx", tmp_path / "target.onnx"
    onnx.save(model, source)
    assert command(["optimize", str(source), "-o", str(target)]) == (0, "")
    assert list(compared(source, target)) == []


def test_mutants_differ_from_what_they_are_made_of() -> None:
    message = base(0).SerializeToString()
    made = [mutant(message, np.random.default_rng(seed)) for seed in range(50)]
    assert sum(other != message for other in made) > 40
    assert len(set(made)) > 40
    assert mutant(message, np.random.default_rng(3)) == made[3]

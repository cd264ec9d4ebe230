"""Mutated files: a few here, as many as one likes by ``python -m tests.mutate``."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.mutate.bases import BASES, base
from tests.mutate.mutants import mutant
from tests.mutate.trial import attempt, command, compared, judged


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


@pytest.mark.parametrize("place", ["input", "output", "value_info"])
@pytest.mark.parametrize("kind", [0, 99, 2**31 - 1, -(2**31)])
def test_types_that_are_none_are_refused_or_left(place: str, kind: int, tmp_path: Path) -> None:
    model = base(0)
    model.graph.value_info.add(name="n").type.tensor_type.elem_type = 1
    getattr(model.graph, place)[0].type.tensor_type.elem_type = kind
    source, target = tmp_path / "source.onnx", tmp_path / "target.onnx"
    onnx.save(model, source)
    assert command(["inspect", str(source)])[0] in (0, 2)
    status, said = command(["optimize", str(source), "-o", str(target)])
    assert judged(status, said, source, target)[0] in ("written", "refused")


def test_mutants_differ_from_what_they_are_made_of() -> None:
    message = base(0).SerializeToString()
    made = [mutant(message, np.random.default_rng(seed)) for seed in range(50)]
    assert sum(other != message for other in made) > 40
    assert len(set(made)) > 40
    assert mutant(message, np.random.default_rng(3)) == made[3]

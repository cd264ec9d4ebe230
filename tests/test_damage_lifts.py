"""The command that damages lift rules: it finds their places, and `verify` notices what once passed."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from tests.damage_lifts import DAMAGED, damages
from tests.lift_models import models

HOSTS = Path(__file__).resolve().parent.parent / "fuser" / "hosts"


def test_every_module_of_rules_is_damaged_in_many_places() -> None:
    found = damages(HOSTS)
    assert {damage.module for damage in found} == set(DAMAGED)
    assert sum("condition dropped" in damage.text for damage in found) > 30
    assert sum("factor 1.01" in damage.text for damage in found) > 5


def test_every_model_runs() -> None:
    """One that does not would show nothing of a damage."""
    for model in models():
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        (given,) = session.get_inputs()
        shape = [n if isinstance(n, int) else 2 for n in given.shape]
        (found,) = session.run(None, {given.name: np.ones(shape, np.float32)})
        assert np.isfinite(found).all()
        assert found.any()


@pytest.mark.parametrize("part", ["factor 1.01: scale / np.sqrt", "count_include_pad"])
def test_verify_notices(part: str) -> None:
    """A factor in the norm, and the condition for pads that are not counted."""
    command = [sys.executable, "-m", "tests.damage_lifts", part]
    done = subprocess.run(command, cwd=HOSTS.parent.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "noticed" in done.stdout.splitlines()[0]
    assert ", 0 of them unnoticed by verify" in done.stdout

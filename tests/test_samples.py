"""Inputs that fit together and mean something, for models that only such inputs get through."""

from collections.abc import Callable, Mapping

import numpy as np
import pytest
from onnx import ModelProto

from fuser.inputs import Feeds
from fuser.runtime import Session, opened
from fuser.samples import Samples
from tests.demanding_models import ALL


class Counted:
    """A session that counts how often it is run."""

    def __init__(self, session: Session) -> None:
        self.inputs, self.outputs = session.inputs, session.outputs
        self.runs = 0
        self._session = session

    def run(self, feeds: Mapping[str, np.ndarray]) -> Feeds:
        self.runs += 1
        return self._session.run(feeds)


def sampled(model: ModelProto, **options: object) -> tuple[list[tuple[Feeds, Feeds]], int]:
    """The samples of a model, and how often it was run for them."""
    samples = Samples(model, **options)  # type: ignore[arg-type]  # any of its options
    with opened(model, "the model", optimise=False) as session:
        runner = Counted(session)
        return list(samples.of(runner)), runner.runs


@pytest.mark.parametrize("make", ALL, ids=lambda make: make.__name__)
def test_a_model_that_is_particular_runs_at_once_and_computes_something(
    make: Callable[[], ModelProto],
) -> None:
    found, runs = sampled(make())
    assert runs == len(found) >= 2
    for feeds, outputs in found:
        for name, array in outputs.items():
            assert array.size, name
            assert np.isfinite(array).all(), (name, {key: value.shape for key, value in feeds.items()})
            assert array.size == 1 or array.min() < array.max(), name

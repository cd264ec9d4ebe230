"""ONNX models against one another on onnxruntime, with all its optimisations on.

Threads that wait sleep instead of spinning: two sessions that spin take the processor from each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import onnxruntime

from fuser.hosts.host import Call, Contest, Fed, Place
from fuser.hosts.onnx.demands.samples import samples_of
from fuser.hosts.onnx.judge.runtime import CPU, Session, opened
from fuser.judge.inputs import LARGE, NOMINAL, Feeds

if TYPE_CHECKING:
    from fuser.hosts.onnx.judge.runtime import Model


@contextmanager
def contest(original: Model, result: Model, fed: Fed, place: Place) -> Iterator[Contest]:
    """Two sessions, to be timed within the block.

    Raises:
        InputError: one of the models cannot be loaded or run, or there is no such provider.
    """
    provider, threads = place.provider or CPU, place.threads
    # The nominal size first, the others only where the model does not take it.
    drawn = samples_of(original, fed, order=(NOMINAL, *LARGE))
    with (
        opened(original, "the original", optimise=True, threads=threads, provider=provider) as first,
        opened(result, "the result", optimise=True, threads=threads, provider=provider) as second,
    ):
        ((feeds, _),) = drawn.of(first)
        second.run(feeds)  # says in one sentence what does not fit
        yield Contest(
            calls=(_call(first, feeds), _call(second, feeds)),
            inputs={name: array.shape for name, array in feeds.items()},
            provider=provider,
            runtime=f"onnxruntime {onnxruntime.__version__}",
        )


def _call(session: Session, feeds: Feeds) -> Call:
    run = session.bare().run
    return lambda: run(None, feeds)

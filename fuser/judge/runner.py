"""What runs a model, to whoever judges it: a face for any runtime, and how inputs are found that it takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from fuser.errors import InputError
from fuser.judge.compare import Outputs
from fuser.judge.inputs import Feeds, Shapes, Spec, ceilings, draw

MOST_ELEMENTS: Final = 2**30
"""Of an input that is drawn: 4 GiB of float32."""


class CannotRun(InputError):
    """The runtime refuses the model, or these inputs for it."""


class TakesTooLong(CannotRun):
    """It does not end in the time that it is given. It would not with other inputs either."""


class Runner(Protocol):
    """What evaluates a model. `inputs` are those that must be fed, `outputs` type by name, both in order."""

    inputs: list[Spec]
    outputs: dict[str, str]

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The outputs by name, or `CannotRun`."""


def listed(names: Iterable[str]) -> list[str]:
    """The names of outputs, each its own: a graph may list one value more than once."""
    seen: Counter[str] = Counter()
    found = []
    for name in names:
        found.append(f"{name}[again {seen[name]}]" if seen[name] else name)
        seen[name] += 1
    return found


def flat(name: str, value: Any) -> Iterator[tuple[str, NDArray[Any]]]:
    """A value as arrays with names: of sequences and maps one for each element."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from flat(f"{name}[{key!r}]", part)
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield from flat(f"{name}[{index}]", part)
    else:
        yield name, np.asarray(value)


@dataclass(frozen=True)
class Trial:
    """Shapes to try, and what draws a sample of them, by its number: one after the other until one is taken.

    A `large` one is tried only while none of any size runs. `kind` tells trials of equal shapes apart: one of
    each is tried.
    """

    shapes: Shapes
    large: bool
    feeds: Callable[[int], Iterator[Feeds]]
    kind: str = ""

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for trials that are the same."""
        return self.kind, *self.shapes.items()


def accepted(
    runner: Runner,
    attempts: Iterable[tuple[Shapes, bool]],
    *,
    samples: int,
    seed: int = 0,
    known: Feeds | None = None,
) -> Iterator[tuple[Feeds, Outputs]]:
    """Random inputs of given shapes that the model runs with; the flag marks the large ones.

    Inputs that are `known` have those values, repeated.

    Raises:
        CannotRun: the model takes none of them.
    """

    def drawn(shapes: Shapes, sample: int) -> Iterator[Feeds]:
        for ceiling in ceilings(runner.inputs):
            yield draw(runner.inputs, shapes, seed=seed, sample=sample, ceiling=ceiling, known=known)

    trials = (Trial(shapes, large, partial(drawn, shapes)) for shapes, large in attempts)
    return ran(runner, trials, samples=samples)


def ran(runner: Runner, trials: Iterable[Trial], *, samples: int) -> Iterator[tuple[Feeds, Outputs]]:
    """Up to `samples` inputs that the model runs with, and its outputs.

    Where only one shape runs, its second sample has other values.

    Raises:
        CannotRun: the model takes none of them, or none can be made. The message says what was tried.
        TakesTooLong: one of them does not end.
    """
    refusal: InputError | None = None
    taken: list[Trial] = []
    tried: dict[tuple[Any, ...], Shapes] = {}
    for trial in trials:
        if len(taken) == samples or (trial.large and taken):
            break
        if trial.key in tried:
            continue
        tried[trial.key] = trial.shapes
        try:
            yield _run(runner, trial, len(taken))
            taken.append(trial)
        except TakesTooLong:
            raise
        except InputError as error:
            refusal = refusal or error
    if not taken:
        raise CannotRun(
            f"no sample ran: {_tried(tried.values())}; {refusal or 'there was none to try'}"
        ) from refusal
    if len(taken) == 1 and samples > 1:
        with suppress(CannotRun):
            yield _run(runner, taken[0], 1)


def _run(runner: Runner, trial: Trial, sample: int) -> tuple[Feeds, Outputs]:
    for name, shape in trial.shapes.items():
        if prod(shape) > MOST_ELEMENTS:
            raise CannotRun(f"input {name!r} of shape {list(shape)} is too large to be made up")
    refusal: CannotRun | None = None
    for feeds in trial.feeds(sample):
        try:
            return feeds, runner.run(feeds)
        except CannotRun as error:
            refusal = refusal or error
    raise refusal or CannotRun("nothing was drawn")


def _tried(tried: Iterable[Shapes]) -> str:
    """The shapes of some trials in words."""
    listed = ["; ".join(f"{name} {list(shape)}" for name, shape in shapes.items()) for shapes in tried]
    different = list(dict.fromkeys(listed))
    more = f" and {len(different) - 6} more" if len(different) > 6 else ""
    return f"tried {', or '.join(different[:6]) or 'nothing'}{more}"

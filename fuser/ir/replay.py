"""Steps of the source and applications of rewrites, evaluated side by side in float64 at several extents.

An operator is evaluated for all trials before the next one, so that its constants are widened once, and only
for as long as they are used.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fuser.algebra.conv import Conv
from fuser.algebra.lazy import Array, Lazy
from fuser.errors import Declined
from fuser.ir.graph import FLOATS, Apply, Concat, Op, Opaque, Step, Value

NOTHING: Final = "nothing is left of the extents"

FAILURES: Final = (ValueError, IndexError, KeyError, TypeError, ZeroDivisionError, MemoryError, Declined)
"""What operators raise for operands that they cannot take."""

SHORT: Final = 16
"""A list of no more whole numbers may say how far, how often or how wide, of each axis of a value."""

Arrays = dict[Value | Apply, NDArray[Any]]


@dataclass
class Trial:
    """One choice of extents: the shape of each value from outside, and what was computed so far.

    `failed` says why the source cannot be evaluated at these extents; then it makes nothing there that a
    rewrite would have to make too. `refused` says why the rewrite cannot. `needed`: the trial must not fail.
    """

    shapes: Mapping[Value, tuple[int, ...]]
    needed: bool
    made: Arrays = field(default_factory=dict)
    rewritten: Arrays = field(default_factory=dict)
    failed: str = ""
    refused: str = ""
    fed: dict[Value, NDArray[Any]] = field(default_factory=dict)
    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def feed(self, value: Value, like: tuple[int, ...] = ()) -> NDArray[Any]:
        """Random data for a value from outside, the same at each look; of shape `like` if none is known."""
        if value not in self.fed:
            self.fed[value] = _drawn(self.random, value.dtype, self.shapes.get(value, like))
        return self.fed[value]

    def outline(self, value: Value) -> Array:
        """Something with the shape of a value of which only that is looked at."""
        return np.broadcast_to(np.zeros(1), self.shapes.get(value, ()))


def run_steps(steps: Sequence[Step], leaves: Iterable[Value], trials: Sequence[Trial]) -> None:
    """Evaluate the source at each trial; `leaves` are fed, whatever makes them."""
    fed = set(leaves)
    for step in steps:
        constants = {v: v.constant.wide() for v in step.inputs if v is not None and v.constant is not None}
        for trial in trials:
            if not trial.failed:
                with _failing(trial, str(step.op)):
                    _run_step(step, fed, constants, trial)


def _drawn(random: np.random.Generator, dtype: str | None, shape: tuple[int, ...]) -> NDArray[Any]:
    """Elements of a type, numbers in float64."""
    if dtype == "bool":
        return random.random(shape) < 0.5
    if dtype is not None and dtype.startswith(("int", "uint")):
        return random.integers(0, 8 if len(shape) < 2 and prod(shape) <= SHORT else 100, shape, dtype)
    return np.asarray(random.standard_normal(shape))


@contextmanager
def _failing(trial: Trial, what: str) -> Iterator[None]:
    try:
        with np.errstate(all="ignore"):
            yield
    except FAILURES as error:
        trial.failed = f"{what}: {error}"


def _run_step(step: Step, fed: set[Value], constants: Mapping[Value, NDArray[Any]], trial: Trial) -> None:
    known = {v: trial.made[v] for v in step.inputs if v is not None and v in trial.made and v not in fed}
    like = next((array.shape for array in known.values()), ())
    by_shape = isinstance(step.op, Opaque) and step.op.of_shape
    inputs: list[NDArray[Any] | None] = []
    for v in step.inputs:
        if v is None or v in constants:
            inputs.append(None if v is None else constants[v])
        elif v in known:
            inputs.append(known[v])
        else:
            inputs.append(trial.outline(v) if by_shape and v not in fed else trial.feed(v, like))
    if isinstance(step.op, Opaque) and step.op.retypes and step.outputs[0].dtype in FLOATS:
        results: tuple[NDArray[Any], ...] = (np.asarray(inputs[0], dtype=np.float64),)
    else:
        results = apply(step.op, inputs)
    if any(not array.size for array in results):
        raise Declined(NOTHING)
    trial.made.update(zip(step.outputs, results, strict=False))


def run_application(target: Apply, trials: Sequence[Trial], *, linked: bool) -> None:
    """Evaluate what stands in for a value at each trial; where `linked`, of what the source made."""
    for part in target.applications():
        op = _at_hand(part.op)
        constants = {
            v: v.constant.wide() for v in part.inputs if isinstance(v, Value) and v.constant is not None
        }
        for trial in trials:
            if not trial.refused and not (linked and trial.failed):
                try:
                    with np.errstate(all="ignore"):
                        trial.rewritten[part] = apply(op, _operands(part, constants, trial, linked=linked))[0]
                except FAILURES as error:
                    trial.refused = f"the rewrite cannot be evaluated: {error}"


def _operands(
    part: Apply, constants: Mapping[Value, NDArray[Any]], trial: Trial, *, linked: bool
) -> list[NDArray[Any]]:
    """What a part of an application reads."""
    known: dict[Value | Apply, NDArray[Any]] = {}
    known.update(constants.items())
    for v in part.inputs:
        made = trial.made.get(v) if linked and v not in trial.fed else trial.rewritten.get(v)
        made = trial.rewritten.get(v) if made is None else made
        if made is not None:
            known[v] = made
    like = next((array.shape for array in known.values()), ())
    return [known[v] if v in known or isinstance(v, Apply) else trial.feed(v, like) for v in part.inputs]


def _at_hand(op: Op) -> Op:
    """The operator with its kernel computed, however often it is looked at."""
    if not isinstance(op, Conv):
        return op
    weight = op.weight
    return replace(op, kernel=Lazy(weight.shape, lambda: weight))


def apply(op: Op, inputs: Sequence[Array | None]) -> tuple[Array, ...]:
    """The outputs of any operator, computed directly."""
    if op.evaluate is None:
        raise Declined(f"{op} cannot be evaluated")
    if isinstance(op, Concat):
        inputs = _with_channels(inputs, op.axis)
    result = op.evaluate(*inputs)  # type: ignore[arg-type]  # only an Opaque has absent inputs
    return result if isinstance(result, tuple) else (result,)


def _with_channels(parts: Sequence[Array | None], axis: int) -> list[Array | None]:
    """The parts of a concatenation; a scalar, a value that only this reads, is one channel beside them."""
    shape = next((list(part.shape) for part in parts if part is not None and part.ndim), [])
    if shape:
        shape[axis] = 1
    return [np.broadcast_to(part, shape) if part is not None and not part.ndim else part for part in parts]

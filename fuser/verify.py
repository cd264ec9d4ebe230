"""The original against the result: the same inputs, in onnxruntime without its optimisations, judged in float64.

An output is right if it is no further from the float64 evaluation of the original than twice the original's own float32
error, or 1e-5 of its scale. Where float32 itself is further off than that (a deep network can be chaotic), the end
proves nothing, and the result is judged value by value instead: see `check_values`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from fuser import oracle
from fuser.errors import InputError
from fuser.inputs import CEILINGS, Feeds, Given, Spec, attempts, draw, given, model_specs
from fuser.ir import Graph
from fuser.oracle import OracleUnavailable
from fuser.runtime import CannotRun, interface, opened

if TYPE_CHECKING:
    import onnx_ir

    from fuser.runtime import Model

Outputs = dict[str, NDArray[Any]]

FLOOR: Final = {"float64": 1e-9, "float32": 1e-5, "float16": 8 * 2.0**-10, "bfloat16": 8 * 2.0**-7}
"""What is always allowed, relative to the output's scale, by its type."""

WITHOUT_ORACLE: Final = 10
"""How many times more is allowed where there is no float64 evaluation, so that the original's own error is not known."""


@dataclass(frozen=True)
class Row:
    """One output for one sample. Errors are largest differences relative to `scale`, the output's largest value.

    For integers and booleans an error is the share of elements that differ.

    `error`: result against original; `own_error`: original against its float64 evaluation; `float64_error`: result
    against that. The last is compared with `tolerance`, or `error` where there is no float64 evaluation.
    """

    output: str
    sample: int
    shape: tuple[int, ...]
    dtype: str
    compared: int
    scale: float
    error: float
    own_error: float | None
    float64_error: float | None
    tolerance: float
    ok: bool
    reason: str = ""

    @property
    def excess(self) -> float:
        """The error that counts, in units of the tolerance."""
        error = self.error if self.float64_error is None else self.float64_error
        return 0.0 if error == 0 else error / self.tolerance if self.tolerance else math.inf


@dataclass(frozen=True)
class Values:
    """The result judged value by value: `compared` of its values are named in the original too."""

    compared: int
    worst: str
    error: float
    ok: bool


@dataclass(frozen=True)
class Verification:
    """The verdict, the rows that it rests on, and the shapes that were fed, one mapping for each sample."""

    ok: bool
    reason: str
    rows: tuple[Row, ...] = ()
    samples: tuple[dict[str, tuple[int, ...]], ...] = ()
    notes: tuple[str, ...] = ()
    values: Values | None = None
    seconds: float = 0.0

    @property
    def worst(self) -> Row | None:
        """The row nearest to its tolerance, or furthest beyond it."""
        return max(self.rows, key=lambda row: (not row.ok, row.excess), default=None)

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON can hold it: what is not finite becomes None."""
        result: dict[str, Any] = _plain(asdict(self))
        return result


def verify(
    original: Model,
    result: Model,
    *,
    inputs: Given | None = None,
    samples: int = 3,
    seed: int = 0,
    sizes: Mapping[str, int] | None = None,
) -> Verification:
    """Compare `result` with `original`; a difference is a verdict, not an exception.

    Args:
        original: path, `onnx.ModelProto` or `onnx_ir.Model`.
        result: the same.
        inputs: arrays by input name, an `.npz` or an `.npy` file. Without them inputs are drawn at random.
        samples: how many inputs are drawn, of different shapes where dimensions are symbolic.
        seed: of the random inputs.
        sizes: extents of symbolic dimensions by name; the rest is tried out.

    Raises:
        InputError: a model cannot be read, or neither onnxruntime nor a float64 evaluation can run the original.
    """
    started = perf_counter()
    verdict = _Check(original, result, inputs, samples, seed, sizes).run()
    return replace(verdict, seconds=perf_counter() - started)


class _Runner(Protocol):
    """What evaluates a model: a session of the runtime, or the float64 evaluation."""

    inputs: list[Spec]
    outputs: dict[str, str]

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Outputs: ...


class _Float64:
    """A model as the oracle sees it, with the face of a session."""

    def __init__(self, model: Model) -> None:
        self._model = model
        loaded = _loaded(model)
        self.inputs = model_specs(loaded)
        self.outputs = {v.name or "": v.dtype.numpy().name if v.dtype else "" for v in loaded.graph.outputs}

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Outputs:
        graph, defaults = _imported(self._model)
        return oracle.evaluate(graph, defaults | dict(feeds))


class _Check:
    """One verification. At any time at most one of the two models is loaded."""

    def __init__(
        self,
        original: Model,
        result: Model,
        inputs: Given | None,
        samples: int,
        seed: int,
        sizes: Mapping[str, int] | None,
    ) -> None:
        self.original, self.result = original, result
        self.inputs, self.samples, self.seed, self.sizes = inputs, samples, seed, sizes
        self.float64_only = False
        self.notes: list[str] = []

    def run(self) -> Verification:
        feeds, expected, face = self._original()
        try:
            with self._runner(self.result, "the result") as runner:
                if difference := _interface_difference(face, runner):
                    return self._verdict(feeds, reason=difference)
                actual = [runner.run(feed) for feed in feeds]
        except (CannotRun, OracleUnavailable) as error:
            return self._verdict(feeds, reason=f"the result does not run where the original does: {error}")
        ideal = None if self.float64_only else self._ideal(feeds)
        rows = _judge(expected, actual, ideal, face.outputs)
        values = None
        if ideal is not None and any(not row.ok or _inconclusive(row) for row in rows):
            values = self._values(feeds[0])
            rows = [_reconsider(row, values) for row in rows]
        return self._verdict(feeds, rows, values, expected)

    @contextmanager
    def _runner(self, model: Model, name: str) -> Iterator[_Runner]:
        if self.float64_only:
            yield _Float64(model)
            return
        with opened(model, name, optimise=False) as session:
            yield session

    def _original(self) -> tuple[list[Feeds], list[Outputs], _Runner]:
        """The inputs, what the original makes of them, and what it looks like from outside."""
        try:
            with self._runner(self.original, "the original") as runner:
                return (*self._sampled(runner), runner)
        except CannotRun as refusal:
            # A type or an operator that the runtime lacks; the arithmetic can still be compared.
            self.float64_only = True
            try:
                with self._runner(self.original, "the original") as runner:
                    found = (*self._sampled(runner), runner)
            except OracleUnavailable as error:
                raise InputError(f"{refusal}; and {error}") from refusal
            self.notes.append(f"{refusal}; both models were evaluated in float64 instead")
            return found

    def _sampled(self, runner: _Runner) -> tuple[list[Feeds], list[Outputs]]:
        if self.inputs is not None:
            feeds = [given(self.inputs, runner.inputs)]
            return feeds, [runner.run(feed) for feed in feeds]
        return draw_samples(runner, self.samples, self.seed, self.sizes)

    def _ideal(self, feeds: Sequence[Feeds]) -> list[Outputs] | None:
        """The float64 evaluation of the original, where it can be had."""
        try:
            graph, defaults = _imported(self.original)
            return [oracle.evaluate(graph, defaults | feed) for feed in feeds]
        except (OracleUnavailable, InputError) as error:
            self.notes.append(f"no float64 evaluation, so the result is compared with the original's float32: {error}")
            return None

    def _values(self, feed: Feeds) -> Values | None:
        try:
            return check_values(self.original, self.result, feed)
        except (OracleUnavailable, InputError) as error:
            self.notes.append(f"not judged value by value: {error}")
            return None

    def _verdict(
        self,
        feeds: Sequence[Feeds],
        rows: Sequence[Row] = (),
        values: Values | None = None,
        expected: Sequence[Outputs] = (),
        reason: str = "",
    ) -> Verification:
        reason = reason or _reason(rows)
        if reason and rows and self._unsteady(feeds[0], expected[0]):
            reason += "; but the original itself gives different outputs each time, so no comparison can succeed"
        elif reason and values is not None and not values.ok:
            reason += f"; the first value that differs is {values.worst!r}"
        shapes = tuple({name: array.shape for name, array in feed.items()} for feed in feeds)
        return Verification(not reason, reason, tuple(rows), shapes, tuple(self.notes), values)

    def _unsteady(self, feed: Feeds, expected: Outputs) -> bool:
        """Whether the original differs from itself: random numbers inside."""
        with self._runner(self.original, "the original") as runner:
            again = runner.run(feed)
        return any(not np.array_equal(again[k], expected[k], equal_nan=expected[k].dtype.kind == "f") for k in expected)


def draw_samples(
    runner: _Runner, samples: int, seed: int = 0, sizes: Mapping[str, int] | None = None
) -> tuple[list[Feeds], list[Outputs]]:
    """Random inputs that the model accepts, small ones first, and its outputs for them.

    Raises:
        CannotRun: it accepts none.
        InputError: an input is not a tensor of numbers.
    """
    feeds: list[Feeds] = []
    outputs: list[Outputs] = []
    refusal: CannotRun | OracleUnavailable | None = None
    fixed = [(shapes, large) for shapes, large in attempts(runner.inputs, sizes)]
    ceilings = CEILINGS if any(np.dtype(_kind(spec)).kind in "iu" for spec in runner.inputs) else CEILINGS[:1]
    for shapes, large in fixed:
        if len(feeds) == samples or (large and feeds):
            break
        for ceiling in ceilings:
            feed = draw(runner.inputs, shapes, seed=seed, sample=len(feeds), ceiling=ceiling)
            try:
                result = runner.run(feed)
            except (CannotRun, OracleUnavailable) as error:
                refusal = refusal or error
                continue
            feeds.append(feed)
            outputs.append(result)
            break
    if not feeds:
        assert refusal is not None
        raise refusal
    # One shape only: at least its values differ.
    if len(feeds) == 1 and samples > 1:
        shapes = {name: array.shape for name, array in feeds[0].items()}
        again = draw(runner.inputs, shapes, seed=seed, sample=1, ceiling=CEILINGS[-1])
        try:
            outputs.append(runner.run(again))
            feeds.append(again)
        except (CannotRun, OracleUnavailable):
            pass
    return feeds, outputs

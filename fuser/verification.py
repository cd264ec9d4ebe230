"""The original against the result: same inputs, each where it runs, judged by the original in float64.

ONNX runs in onnxruntime without its optimisations, torch as it is called (`torch_verification.py`). An output
is right if it is no further from the float64 evaluation of the original than twice the original's own error
in its own types, or 1e-5 of its scale (`compare.FLOOR` for other types). Where float32 itself is further off
than that (a deep network can be chaotic), the end of the network proves nothing, and the result is judged
value by value: each of its nodes reads what the original computes in float64, and has to compute what the
original computes.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fuser import oracle
from fuser.compare import OWN_CHAOTIC, Outputs, Row, distance, floor, judge, largest
from fuser.errors import InputError, VerificationError
from fuser.hosts.kind import is_torch, require_torch
from fuser.inputs import Feeds, attempts, given, model_specs
from fuser.ir import Graph
from fuser.oracle import OracleUnavailable
from fuser.runtime import CannotRun, Runner, accepted, opened

if TYPE_CHECKING:
    import onnx_ir

    from fuser.runtime import Model

__all__ = ["Float64", "Models", "Row", "Values", "Verification", "check_values", "compare", "verify"]


@dataclass(frozen=True)
class Values:
    """The result judged value by value: `compared` values have a name that the original has too.

    `worst` is the first of them that is wrong, or else the least exact, and `error` its error relative to
    its scale.
    """

    compared: int
    inner: int
    worst: str
    error: float
    ok: bool


@dataclass(frozen=True)
class Verification:
    """The verdict, the rows that it rests on, and the shapes that were fed, one mapping for each sample.

    True where it is `ok`.
    """

    ok: bool
    reason: str
    rows: tuple[Row, ...] = ()
    samples: tuple[dict[str, tuple[int, ...]], ...] = ()
    notes: tuple[str, ...] = ()
    values: Values | None = None
    seconds: float = 0.0

    def __bool__(self) -> bool:
        return self.ok

    @property
    def worst(self) -> Row | None:
        """The row nearest to its tolerance, or furthest beyond it."""
        return max(self.rows, key=lambda row: (not row.ok, row.excess), default=None)

    def to_dict(self) -> dict[str, Any]:
        """Everything; errors of what cannot be compared are infinite."""
        return asdict(self)


def verify(
    original: Any,
    result: Any,
    *,
    inputs: Any = None,
    samples: int = 3,
    seed: int = 0,
    sizes: Mapping[str, int] | None = None,
    certificate: str | os.PathLike[str] | None = None,
) -> Verification:
    """Compare `result` with `original`; a difference is a verdict, not an exception.

    Args:
        original: path, `onnx.ModelProto` or `onnx_ir.Model`; or a torch module in evaluation mode, an
            `ExportedProgram` or the path of a `.pt2` file.
        result: the same; of a torch original also an ONNX model, whose inputs and outputs are taken in order.
        inputs: arrays by input name, an `.npz` or an `.npy` file. For torch a tensor, a tuple of arguments or
            a mapping of arguments by name; files for an exported program only. Without them inputs are drawn
            at random; a module that is not an exported program says too little for that, and needs them.
        samples: how many inputs are drawn, of different shapes where dimensions are symbolic.
        seed: of the random inputs.
        sizes: extents of symbolic dimensions by name; the others are tried out.
        certificate: the file that `optimize_file` wrote; what it states is proved again, and both models must
            be paths of ONNX files.

    Raises:
        InputError: a model or the inputs cannot be read, a torch model is in training mode, or the original
            can be evaluated neither as it is nor in float64.
    """
    if certificate is not None:
        refused = _refuted(original, result, certificate)
        if refused is not None:
            return refused
    if is_torch(original) or is_torch(result):
        require_torch("a .pt2 file")
        from fuser.torch_verification import TorchModels

        count = samples if inputs is None else 1
        return compare(TorchModels(original, result, inputs, count, seed, sizes))
    return compare(_OnnxModels(original, result, inputs, samples, seed, sizes))


def _refuted(original: Any, result: Any, certificate: str | os.PathLike[str]) -> Verification | None:
    """The verdict where a certificate does not hold."""
    from fuser import certificate as certificates

    for model in (original, result):
        if not isinstance(model, str | os.PathLike) or is_torch(model):
            raise InputError(f"a certificate is about ONNX files, not about a {type(model).__name__}")
    try:
        certificates.check(original, result, certificate)
    except VerificationError as refuted:
        return Verification(False, str(refuted))
    return None


class Models(Protocol):
    """The two models of a comparison: where they run, on what, and what is known of their insides."""

    def original(self, *, precise: bool) -> AbstractContextManager[Runner]:
        """The original, `precise` in float64; `CannotRun` where it cannot be had."""

    def result(self, *, precise: bool) -> AbstractContextManager[Runner]:
        """The result, in the same way. It is asked for after the original has run."""

    def samples(self, runner: Runner) -> Iterator[tuple[Feeds, Outputs]]:
        """Inputs, and what the original makes of them; `CannotRun` if it takes none."""

    def values(self, feeds: Feeds) -> Values | None:
        """The result judged value by value, where values have names."""


def compare(models: Models) -> Verification:
    """The verdict on two models.

    Raises:
        InputError: the original can be evaluated neither as it is nor in float64.
    """
    started = perf_counter()
    verdict = _Check(models).run()
    return replace(verdict, seconds=perf_counter() - started)


@dataclass(frozen=True)
class _OnnxModels:
    """ONNX against ONNX, in onnxruntime and by the oracle."""

    first: Model
    second: Model
    inputs: Any
    count: int
    seed: int
    sizes: Mapping[str, int] | None

    def original(self, *, precise: bool) -> AbstractContextManager[Runner]:
        return _running(self.first, "the original", precise=precise)

    def result(self, *, precise: bool) -> AbstractContextManager[Runner]:
        return _running(self.second, "the result", precise=precise)

    def samples(self, runner: Runner) -> Iterator[tuple[Feeds, Outputs]]:
        if self.inputs is not None:
            feeds = given(self.inputs, runner.inputs)
            yield feeds, runner.run(feeds)
            return
        tried = attempts(runner.inputs, self.sizes)
        yield from accepted(runner, tried, samples=self.count, seed=self.seed)

    def values(self, feeds: Feeds) -> Values | None:
        return check_values(self.first, self.second, feeds)


@contextmanager
def _running(model: Model, name: str, *, precise: bool) -> Iterator[Runner]:
    if precise:
        yield Float64(model, name)
        return
    with opened(model, name, optimise=False) as session:
        yield session


@dataclass
class _Check:
    """One verification. At any time at most one of the two models is loaded."""

    models: Models

    def __post_init__(self) -> None:
        self.float64_only = False
        self.notes: list[str] = []
        self.feeds: list[Feeds] = []
        self.expected: list[Outputs] = []

    def run(self) -> Verification:
        """The steps: original, result, float64, verdict."""
        face = self._original()
        try:
            with self.models.result(precise=self.float64_only) as runner:
                if difference := _difference(face, runner):
                    return self._verdict(reason=difference)
                actual = [runner.run(feed) for feed in self.feeds]
        except CannotRun as error:
            return self._verdict(reason=f"the result does not run where the original does: {error}")
        if more := [name for name in actual[0] if name not in self.expected[0]]:
            return self._verdict(
                reason=f"the result has outputs that the original has not: {', '.join(more)}"
            )
        ideal = None if self.float64_only else self._ideal()
        rows = judge(self.expected, actual, ideal, face.outputs, exact=self.float64_only)
        values = None
        if ideal is not None and any(row.inconclusive or not row.ok for row in rows):
            values = self._values()
            rows = [_reconsidered(row, values) for row in rows]
        return self._verdict(rows, values)

    def _original(self) -> Runner:
        """Find inputs, keep what the original makes of them, and return what it looks like from outside."""
        try:
            return self._sample()
        except CannotRun as refusal:
            # A type or an operator that the runtime lacks; the arithmetic can still be compared.
            self.float64_only = True
            try:
                runner = self._sample()
            except CannotRun as error:
                raise InputError(f"{refusal}; and {error}") from refusal
            self.notes.append(f"{refusal}; so both models were evaluated in float64 only")
            return runner

    def _sample(self) -> Runner:
        with self.models.original(precise=self.float64_only) as runner:
            pairs = list(self.models.samples(runner))
            self.feeds, self.expected = [feeds for feeds, _ in pairs], [outputs for _, outputs in pairs]
            return runner

    def _ideal(self) -> list[Outputs] | None:
        """The float64 evaluation of the original, where it can be had."""
        try:
            with self.models.original(precise=True) as runner:
                return [runner.run(feed) for feed in self.feeds]
        except InputError as error:
            self.notes.append(
                f"compared with what the original itself computes, for there is no other reference: {error}"
            )
            return None

    def _values(self) -> Values | None:
        try:
            return self.models.values(self.feeds[0])
        except (OracleUnavailable, InputError) as error:
            self.notes.append(f"not judged value by value: {error}")
            return None

    def _verdict(
        self, rows: Sequence[Row] = (), values: Values | None = None, reason: str = ""
    ) -> Verification:
        reason = reason or _reason(rows)
        doubtful = reason or any(row.inconclusive for row in rows)
        if doubtful and any(row.compared for row in rows) and self._unsteady():
            reason = reason or "the original's own error is beyond what its types cost"
            reason += "; but the original too gives different outputs each time, so no comparison can succeed"
        elif reason and values is not None and not values.ok:
            reason += (
                f"; the first value that differs is {values.worst!r}, by {values.error:.2g} of its scale"
            )
        shapes = tuple({name: array.shape for name, array in feed.items()} for feed in self.feeds)
        return Verification(not reason, reason, tuple(rows), shapes, tuple(self.notes), values)

    def _unsteady(self) -> bool:
        """Whether the original differs from itself: random numbers inside."""
        with self.models.original(precise=self.float64_only) as runner:
            once, again = runner.run(self.feeds[0]), runner.run(self.feeds[0])
        return any(again[name].tobytes() != array.tobytes() for name, array in once.items())


def _difference(original: Runner, result: Runner) -> str:
    """What callers would notice before they run anything."""
    before = {spec.name: spec.dtype for spec in original.inputs}
    after = {spec.name: spec.dtype for spec in result.inputs}
    for what, old, new in (("inputs", before, after), ("outputs", original.outputs, result.outputs)):
        if list(old.items()) != list(new.items()):
            return f"the {what} differ: {_listed(old)} and {_listed(new)}"
    return ""


def _listed(types: Mapping[str, str]) -> str:
    return ", ".join(f"{dtype} {name}" for name, dtype in types.items()) or "none"


def _reason(rows: Sequence[Row]) -> str:
    """Why the rows are no proof, in one sentence; empty if they are."""
    if not rows:
        return "nothing was compared: the model has no outputs"
    wrong = [row for row in rows if not row.ok]
    if wrong:
        row = max(wrong, key=lambda row: row.excess)
        more = len({row.output for row in wrong}) - 1
        return f"output {row.output!r} {row.reason}" + (f" ({more} more outputs differ)" if more else "")
    if not any(row.compared for row in rows):
        return "nothing was compared: every output is empty, NaN or infinite"
    return ""


def _reconsidered(row: Row, values: Values | None) -> Row:
    """The row, decided by the values inside where the end of the network does not decide it."""
    if values is None or not row.inconclusive or row.own_error is None or not row.comparable:
        return row
    if values.ok:
        return row.settled(max(row.tolerance, OWN_CHAOTIC * row.own_error))
    if not values.inner:
        return row
    reason = (
        f"is {row.own_error:.2g} of its scale off in float32 already, and values inside differ in float64"
    )
    return replace(row, ok=False, reason=reason)


def check_values(original: Model, result: Model, feeds: Feeds) -> Values:
    """Judge `result` value by value in float64, by the values whose names both models have.

    What one node does is seen without what earlier nodes did: errors do not add up, and chaos has no time to
    grow.

    Raises:
        OracleUnavailable: one of the models cannot be evaluated.
    """
    graph, defaults = _imported(result)
    names = {value.name for node in graph.nodes for value in node.outputs}
    source, source_defaults = _imported(original)
    known = oracle.evaluate(source, source_defaults | feeds, keep=names)
    ends = {value.name for value in graph.outputs}
    errors: dict[str, tuple[float, float]] = {}
    for value, array in oracle.trace(graph, defaults | feeds, known):
        if value.name in known and array.dtype.kind == "f":
            errors[value.name] = _error(known[value.name], array), floor(value.dtype or "float32")
    wrong = [name for name, (error, allowed) in errors.items() if not error <= allowed]
    worst = wrong[0] if wrong else max(errors, key=lambda name: errors[name][0], default="")
    inner = sum(name not in ends for name in errors)
    return Values(len(errors), inner, worst, errors.get(worst, (0.0, 0.0))[0], bool(errors) and not wrong)


def _error(expected: NDArray[Any], actual: NDArray[Any]) -> float:
    if expected.shape != actual.shape:
        return math.inf
    finite = np.isfinite(expected)
    if not np.array_equal(expected[~finite], actual[~finite], equal_nan=True):
        return math.inf
    return distance(actual[finite], expected[finite], largest(expected[finite]))


class Float64:
    """An ONNX model evaluated by the oracle, with the face of a session."""

    def __init__(self, model: Model, name: str) -> None:
        self.name = str(model) if isinstance(model, str | os.PathLike) else name
        self._graph, self._defaults, loaded = _read(model)
        self.inputs = model_specs(loaded)
        self.outputs = {v.name or "": v.dtype.numpy().name if v.dtype else "" for v in loaded.graph.outputs}

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Outputs:
        """The outputs in float64.

        Raises:
            CannotRun: an operator cannot be evaluated.
        """
        try:
            return oracle.evaluate(self._graph, self._defaults | dict(feeds))
        except OracleUnavailable as error:
            raise CannotRun(f"{self.name}: {error}") from error


def _imported(model: Model) -> tuple[Graph, Feeds]:
    """The main graph, and the values of initializers that callers may override."""
    graph, defaults, _ = _read(model)
    return graph, defaults


def _read(model: Model) -> tuple[Graph, Feeds, onnx_ir.Model]:
    import onnx_ir.passes.common

    from fuser.hosts import onnx_io
    from fuser.hosts.onnx_import import import_model

    loaded = onnx_io.load(Path(model)) if isinstance(model, str | os.PathLike) else onnx_io.from_any(model)
    if loaded.functions:
        onnx_ir.passes.common.InlinePass()(loaded)
    overridable = {value.name for value in loaded.graph.inputs}
    defaults = {
        name: value.const_value.numpy()
        for name, value in loaded.graph.initializers.items()
        if name in overridable and value.const_value is not None
    }
    return import_model(loaded)[0], defaults, loaded

"""Inside the models: does our evaluation do what onnxruntime does, and the result what the original does?

Chaos ends where a single node is looked at. `agree` gives each node of a model what onnxruntime gave it, and
demands of our evaluation of it what onnxruntime made of that. `compare_values` gives each node of a result
what the original computes in float64, and demands what the original computes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray

from fuser.errors import ContradictionError, OracleUnavailable
from fuser.hosts.onnx.judge.cut import WIDTHS, exposed
from fuser.hosts.onnx.judge.oracle import Oracle
from fuser.hosts.onnx.judge.runtime import opened
from fuser.hosts.onnx.judge.scope import Scope, widened
from fuser.hosts.onnx.judge.source import Source, named, needed_nodes, reads
from fuser.judge.compare import distance, floor, largest
from fuser.judge.verification import Values

MOVED: Final = 64
"""How many times as far as a rounding of each of its inputs moves a node, its own roundings may."""

DRAWS: Final = 32
"""As many random numbers at least say how far that is: one alone may come out small by chance."""

FLIPPED: Final = 0.01
"""The part of whole numbers that may come out otherwise, because what they are made from is rounded."""


def compare_values(source: Oracle, result: Oracle, feeds: Mapping[str, Any]) -> Values:
    """Judge `result` value by value in float64, by the values whose names both models have.

    What one node does is seen without what earlier nodes did: errors do not add up, and chaos has no time to
    grow.

    Raises:
        OracleUnavailable: one of the models cannot be evaluated.
    """
    names = {name for node in result.model.graph.node for name in node.output}
    known = {name: data for name, data in source.trace(feeds) if name in names}
    ends = {value.name for value in result.model.graph.output}
    errors: dict[str, float] = {}
    for name, data in result.trace(feeds, known):
        if name in known and isinstance(data, np.ndarray) and data.dtype.kind == "f":
            error = _error(known[name], data)
            if data.size or error:  # nothing is seen of what is empty in both
                errors[name] = error
    for oracle in (source, result):
        if not errors and oracle.refused:
            raise OracleUnavailable(next(iter(oracle.refused.values())))
    wrong = [name for name, error in errors.items() if not error <= floor("float32")]
    worst = wrong[0] if wrong else max(errors, key=errors.__getitem__, default="")
    # A value that could not be computed in the result stands for all behind it.
    complete = not (ends & (source.refused.keys() | result.refused.keys()))
    inner = sum(name not in ends for name in errors)
    ok = bool(errors) and complete and not wrong
    return Values(len(errors), inner, worst, errors.get(worst, 0.0), ok, wrong=bool(wrong))


def _error(expected: Any, actual: NDArray[Any]) -> float:
    if not isinstance(expected, np.ndarray) or expected.shape != actual.shape:
        return math.inf
    finite = np.isfinite(expected)
    if not np.array_equal(expected[~finite], actual[~finite], equal_nan=True):
        return math.inf
    return distance(actual[finite], expected[finite], largest(expected[finite]), "float32")


def agree(model: onnx.ModelProto, source: Source, feeds: Mapping[str, Any]) -> int:
    """Compare onnxruntime and our evaluation of each node of `model`, which is `source` or a part of it.

    Returns:
        how many nodes were compared.

    Raises:
        ContradictionError: they differ at a node by more than its types explain.
        CannotRun: the runtime does not run it.
    """
    with opened(exposed(model), source.name, optimise=False, folder=source.folder) as session:
        read = {value.name for value in model.graph.input}  # less than what was made up, in a part of a model
        seen = session.run({name: array for name, array in feeds.items() if name in read})
    oracle = Oracle(model, source.folder)
    graph = model.graph
    scope = oracle.scope(graph, {name: np.asarray(array) for name, array in feeds.items()} | seen, None)
    compared = 0
    for node in needed_nodes(graph, {value.name for value in graph.output}):
        if any(name not in seen for name in node.output if name):
            continue
        try:
            inputs = {name: scope.read(name) for name in reads(node)}
            results = oracle.compute(node, Scope({n: widened(data) for n, data in inputs.items()}, {}))
        except OracleUnavailable:
            continue
        compared += 1
        for place, (name, ours) in enumerate(zip(node.output, results, strict=False)):
            if name and (reason := _contradiction(oracle, node, inputs, place, ours, seen[name])):
                raise ContradictionError(
                    f"{source.name}: our float64 evaluation of {named(node)} is no reference, for "
                    f"onnxruntime contradicts it: {name!r} {reason}"
                )
    return compared


def _contradiction(
    oracle: Oracle, node: onnx.NodeProto, inputs: dict[str, Any], place: int, ours: Any, seen: NDArray[Any]
) -> str:
    """How our output of a node differs from the runtime's by more than rounding; empty if it does not."""
    if not isinstance(ours, np.ndarray) or seen.dtype.kind in "OSU":
        return ""
    if ours.shape != seen.shape:
        return f"has shape {list(seen.shape)} there, and {list(ours.shape)} here"
    kind = min((a.dtype.name for a in (*inputs.values(), seen) if getattr(a, "dtype", None) is not None
                and a.dtype.name in WIDTHS), key=WIDTHS.__getitem__, default="")  # fmt: skip
    theirs = widened(seen)
    error = _apart(theirs, ours, kind)
    allowed = max(floor(kind), FLIPPED if theirs.dtype.kind != "f" else 0.0)
    if error <= allowed:
        return ""
    allowed = max(allowed, MOVED * _movement(oracle, node, inputs, place, ours, kind or "float32"))
    if error <= allowed:
        return ""
    return f"differs by {error:.2g} of its scale, and {allowed:.2g} is what its types explain"


def _apart(a: NDArray[Any], b: NDArray[Any], kind: str) -> float:
    """The largest difference of what is finite in both, or the part of the whole numbers that differ."""
    if a.dtype.kind not in "fc":
        return float(np.mean(a != b)) if a.size else 0.0
    finite = np.isfinite(a) & np.isfinite(b)
    return distance(a[finite], b[finite], largest(b[finite]), kind)


def _movement(
    oracle: Oracle, node: onnx.NodeProto, inputs: dict[str, Any], place: int, ours: NDArray[Any], kind: str
) -> float:
    """How far the output moves when each floating input is rounded at random; infinite if that has no result.

    A sum of n terms is off by few times that, for it is rounded n times as each of its terms is once.
    """
    generator = np.random.default_rng(0)
    unit = 2.0 ** -WIDTHS[kind]
    moved = 0.0
    for _ in range(2 + DRAWS // max(1, ours.size)):
        shaken = {
            name: data * (1 + unit * generator.choice([-1.0, 1.0], data.shape))
            if isinstance(data, np.ndarray) and data.dtype.kind == "f"
            else data
            for name, data in ((name, widened(data)) for name, data in inputs.items())
        }
        try:
            other = oracle.compute(node, Scope(shaken, {}))[place]
        except OracleUnavailable:
            return math.inf
        moved = max(moved, _apart(other, ours, kind) if other.shape == ours.shape else math.inf)
    return moved

"""If, Loop, Scan, calls of local functions and sequences, as the float64 evaluation walks them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import onnx

from fuser.errors import OracleUnavailable
from fuser.hosts.onnx.judge.scope import Data, Evaluation, Scope
from fuser.hosts.onnx.judge.source import attributes, bodies

# Every rule has the signature of the table.
# ruff: noqa: ARG001, ARG005

MOST: Final = 30_000
"""Nodes in bodies that are evaluated of a model, and turns without any: a Loop may be one without end."""


def run_body(
    oracle: Evaluation, body: onnx.GraphProto, arguments: Sequence[Data], scope: Scope
) -> list[Data]:
    """The outputs of a body for its inputs in order; it sees the values around it."""
    oracle.steps_left -= len(body.node) + 1
    if oracle.steps_left < 0:
        raise OracleUnavailable("bodies take more steps than are waited for")
    known = dict(zip((value.name for value in body.input), arguments, strict=False))
    inner = oracle.scope(body, known, scope)
    return _outputs(oracle, body.node, [value.name for value in body.output], inner)


def _outputs(oracle: Evaluation, nodes: Any, names: list[str], scope: Scope) -> list[Data]:
    refused, oracle.refused = oracle.refused, {}
    try:
        for _ in oracle.steps(list(nodes), scope, {}, set(names)):
            pass
        for name in names:
            if name in oracle.refused:
                raise OracleUnavailable(oracle.refused[name])
        return [scope.read(name) for name in names]
    finally:
        oracle.refused = refused


def call(oracle: Evaluation, function: onnx.FunctionProto, node: onnx.NodeProto, scope: Scope) -> list[Data]:
    """The outputs of a local function, whose attributes the call gives."""
    given = {entry.name: entry for entry in (*function.attribute_proto, *node.attribute)}
    nodes = [_bound(part, given) for part in function.node]
    arguments = [scope.read(name) if name else None for name in node.input]
    known = {name: a for name, a in zip(function.input, arguments, strict=False) if a is not None}
    inner = oracle.scope(onnx.GraphProto(), known, None)
    outer, oracle.opsets = oracle.opsets, oracle.opsets | {e.domain: e.version for e in function.opset_import}
    try:
        return _outputs(oracle, nodes, list(function.output), inner)
    finally:
        oracle.opsets = outer


def _bound(node: onnx.NodeProto, given: Mapping[str, onnx.AttributeProto]) -> onnx.NodeProto:
    """A node of a function with the attributes that the call gives; what it does not give is left out."""
    result = onnx.NodeProto()
    result.CopyFrom(node)
    del result.attribute[:]
    for entry in node.attribute:
        if not entry.ref_attr_name:
            added = result.attribute.add()
            added.CopyFrom(entry)
            for body in (added.g, *added.graphs) if entry.type in _GRAPHS else ():
                parts = [_bound(part, given) for part in body.node]
                del body.node[:]
                body.node.extend(parts)
        elif entry.ref_attr_name in given:
            added = result.attribute.add()
            added.CopyFrom(given[entry.ref_attr_name])
            added.name = entry.name
    return result


_GRAPHS: Final = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)


def if_(oracle: Evaluation, node: onnx.NodeProto, scope: Scope) -> list[Data]:
    """One of two bodies."""
    chosen = "then_branch" if np.asarray(scope.read(node.input[0])).reshape(-1)[0] else "else_branch"
    (body,) = (entry.g for entry in node.attribute if entry.name == chosen)
    return run_body(oracle, body, [], scope)


def loop(oracle: Evaluation, node: onnx.NodeProto, scope: Scope) -> list[Data]:
    """The body, as often as the trip count and its condition say; what it adds each time is stacked."""
    (body,) = bodies(node)
    limit, condition, *state = [scope.read(name) if name else None for name in node.input]
    limit = math.inf if limit is None else int(np.asarray(limit).reshape(-1)[0])
    going = True if condition is None else bool(np.asarray(condition).reshape(-1)[0])
    stacked: list[list[Data]] = [[] for _ in body.output[1 + len(state) :]]
    turn = 0
    while going and turn < limit:
        arguments = [np.array(turn, np.int64), np.array(going), *state]
        again, *results = run_body(oracle, body, arguments, scope)
        going = bool(np.asarray(again).reshape(-1)[0])
        state = results[: len(state)]
        for parts, part in zip(stacked, results[len(state) :], strict=True):
            parts.append(part)
        turn += 1
    if not turn and stacked:
        raise OracleUnavailable("a Loop without turns: nothing says what shape its scanned outputs have")
    return [*state, *map(np.stack, stacked)]


def scan(oracle: Evaluation, node: onnx.NodeProto, scope: Scope) -> list[Data]:
    """The body for each slice of its scanned inputs, from opset 9."""
    if oracle.opsets.get("", 9) < 9:
        raise OracleUnavailable("a Scan of opset 8 is batched")
    (body,) = bodies(node)
    given = attributes(node)
    inputs = [scope.read(name) for name in node.input]
    count = given["num_scan_inputs"]
    state, scanned = inputs[: len(inputs) - count], inputs[len(inputs) - count :]
    made = len(body.output) - len(state)
    axes = given.get("scan_input_axes") or [0] * count
    backward = given.get("scan_input_directions") or [0] * count
    slices = [
        np.flip(np.moveaxis(data, axis, 0), 0) if back else np.moveaxis(data, axis, 0)
        for data, axis, back in zip(scanned, axes, backward, strict=True)
    ]
    stacked: list[list[Data]] = [[] for _ in range(made)]
    for parts in zip(*slices, strict=True):
        results = run_body(oracle, body, [*state, *parts], scope)
        state = results[: len(state)]
        for found, part in zip(stacked, results[len(state) :], strict=True):
            found.append(part)
    backward = given.get("scan_output_directions") or [0] * made
    axes = given.get("scan_output_axes") or [0] * made
    whole = [np.stack(found[::-1] if back else found) for found, back in zip(stacked, backward, strict=True)]
    return [*state, *(np.moveaxis(data, 0, axis) for data, axis in zip(whole, axes, strict=True))]


# Sequences are lists.


def _read(node: onnx.NodeProto, scope: Scope) -> list[Data]:
    return [scope.read(name) if name else None for name in node.input]


def _at(oracle: Evaluation, node: onnx.NodeProto, scope: Scope) -> list[Data]:
    sequence, place = _read(node, scope)
    return [sequence[int(place)]]


def _insert(oracle: Evaluation, node: onnx.NodeProto, scope: Scope) -> list[Data]:
    sequence, part, *place = _read(node, scope)
    at = int(place[0]) if place else len(sequence)
    return [[*sequence[:at], part, *sequence[at:]]]


def _erase(oracle: Evaluation, node: onnx.NodeProto, scope: Scope) -> list[Data]:
    sequence, *place = _read(node, scope)
    at = int(place[0]) % len(sequence) if place else len(sequence) - 1
    return [sequence[:at] + sequence[at + 1 :]]


def _split(oracle: Evaluation, node: onnx.NodeProto, scope: Scope) -> list[Data]:
    given = attributes(node)
    data, *sizes = _read(node, scope)
    axis = given.get("axis", 0)
    extent = data.shape[axis]
    step = 1 if not sizes or sizes[0] is None else sizes[0]
    ends = np.cumsum(step)[:-1] if np.ndim(step) else range(int(step), extent, int(step))
    parts = np.split(data, list(ends), axis=axis)
    drop = not sizes and not given.get("keepdims", 1)
    return [[np.squeeze(part, axis) if drop else part for part in parts]]


def _join(oracle: Evaluation, node: onnx.NodeProto, scope: Scope) -> list[Data]:
    given = attributes(node)
    (sequence,) = _read(node, scope)
    join = np.stack if given.get("new_axis", 0) else np.concatenate
    return [join(sequence, axis=given["axis"])]


Rule = Callable[[Evaluation, onnx.NodeProto, Scope], list[Any]]

RULES: Final[dict[str, Rule]] = {
    "ConcatFromSequence": _join,
    "If": if_,
    "Loop": loop,
    "Scan": scan,
    "SequenceAt": _at,
    "SequenceConstruct": lambda oracle, node, scope: [_read(node, scope)],
    "SequenceEmpty": lambda oracle, node, scope: [[]],
    "SequenceErase": _erase,
    "SequenceInsert": _insert,
    "SequenceLength": lambda oracle, node, scope: [np.array(len(_read(node, scope)[0]), np.int64)],
    "SplitToSequence": _split,
}

"""Evaluation of a graph of the compiler in float64, operator by operator, as tests want to see it.

Operators of the algebra are computed by themselves, everything else by the host's meaning of the node. All
floating values are float64, whatever the model says: a cast between floating types changes nothing here.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fuser.compare import widen
from fuser.errors import OracleUnavailable
from fuser.ir import Apply, Graph, Node, Opaque, Value

Arrays = Mapping[str, NDArray[Any]]
Read = Callable[[Value], NDArray[Any]]


def evaluate(graph: Graph, feeds: Arrays, *, keep: Collection[str] = ()) -> dict[str, NDArray[Any]]:
    """The outputs of `graph` by name, and the values named in `keep`; floating ones in float64.

    `graph` is as imported or rewritten; `feeds` has an array for every input that has no constant.

    Raises:
        OracleUnavailable: an operator cannot be evaluated, or a feed is missing.
    """
    wanted = {value.name for value in graph.outputs} | set(keep)
    results = {value.name: array for value, array in trace(graph, feeds) if value.name in wanted}
    for value in graph.outputs:
        if value.name not in results:  # an input or a constant that is handed through
            results[value.name] = _given(value, feeds)
    return results


def trace(graph: Graph, feeds: Arrays, known: Arrays | None = None) -> Iterator[tuple[Value, NDArray[Any]]]:
    """Each value that a node computes, in order; only what the outputs depend on is evaluated.

    Where `known` has an array for the value just computed, later nodes read that one instead: each node is
    then seen on its own, without what earlier nodes did wrong.

    Raises:
        OracleUnavailable: an operator cannot be evaluated, or a feed is missing.
    """
    nodes = _needed(graph)
    last = {value: node for node in nodes for value in node.inputs if value is not None}
    alive: dict[Value, NDArray[Any]] = {}

    def read(value: Value) -> NDArray[Any]:
        return alive[value] if value in alive else _given(value, feeds)

    for node in nodes:
        for value, array in zip(node.outputs, _compute(node, read), strict=False):
            yield value, array
            if value in last:
                replaced = known.get(value.name) if known else None
                alive[value] = array if replaced is None or replaced.shape != array.shape else replaced
        # Memory is for what is still to be read.
        for part in node.inputs:
            if part is not None and last[part] is node:
                alive.pop(part, None)


def _needed(graph: Graph) -> list[Node]:
    """The nodes that the outputs depend on, in order."""
    needed = set(graph.outputs)
    nodes = []
    for node in reversed(graph.ordered()):
        if not needed.isdisjoint(node.outputs):
            nodes.append(node)
            needed.update(value for value in node.inputs if value is not None and value.constant is None)
    return nodes[::-1]


def _given(value: Value, feeds: Arrays) -> NDArray[Any]:
    if value.constant is not None:
        return widen(value.constant.array())
    if value.name not in feeds:
        raise OracleUnavailable(f"there is no array for {value.name!r}")
    return widen(feeds[value.name])


def _compute(node: Node, read: Read) -> tuple[NDArray[Any], ...]:
    """The outputs of `node`; of its inputs only those are read that the computation needs."""
    try:
        with np.errstate(all="ignore"):
            return tuple(widen(np.asarray(array)) for array in _outputs(node, read))
    except OracleUnavailable:
        raise
    except Exception as error:
        # Reference implementations fail in many ways on what they do not cover; here all of them mean the
        # same.
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise OracleUnavailable(f"{_named(node)} cannot be evaluated in float64: {reason}") from error


def _outputs(node: Node, read: Read) -> tuple[NDArray[Any], ...]:
    op = node.op
    if not isinstance(op, Opaque):
        return _application(Apply(op, tuple(filter(None, node.inputs))), read)
    if op.kind == "Cast" and node.inputs[0] is not None and _is_floating(node.outputs[0]):
        source = read(node.inputs[0])
        if source.dtype == np.float64:
            return (source,)
    if op.evaluate is None:
        raise OracleUnavailable(f"{_named(node)} cannot be evaluated in float64: {op.kind} is not known here")
    return op.evaluate(*(None if value is None else read(value) for value in node.inputs))


def _application(apply: Apply, read: Read) -> tuple[NDArray[Any], ...]:
    """The outputs of an application; of a nested one the first is read."""
    assert apply.op.evaluate is not None, apply.op
    inputs = [read(part) if isinstance(part, Value) else _application(part, read)[0] for part in apply.inputs]
    result: NDArray[Any] | tuple[NDArray[Any], ...] = apply.op.evaluate(*inputs)
    return result if isinstance(result, tuple) else (result,)


def _is_floating(value: Value) -> bool:
    return value.dtype is not None and "float" in value.dtype


def _named(node: Node) -> str:
    kind = node.op.kind if isinstance(node.op, Opaque) else str(node.op)
    return f"node {node.name!r} ({kind})" if node.name else f"the node of {node.outputs[0].name!r} ({kind})"

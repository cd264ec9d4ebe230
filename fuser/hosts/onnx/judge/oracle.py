"""Evaluation of an ONNX model in float64, node by node from the file: what runtimes are measured against.

Every operator has an evaluator of its own meaning (`standard/evaluate.py`); bodies, functions and sequences
are walked here. Neither the compiler's graph nor anything lifted takes part. All floating values are float64,
whatever the model says: a cast between floating types changes nothing here. Weights are read when a node
needs them, and dropped behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnx_ir
from onnx import TensorProto

from fuser.errors import OracleUnavailable
from fuser.hosts.onnx.judge import control
from fuser.hosts.onnx.judge.scope import Data, Scope, widened
from fuser.hosts.onnx.judge.source import (
    Source,
    array_of,
    attributes,
    declared,
    dense,
    named,
    needed_nodes,
    reads,
    specs,
)
from fuser.hosts.onnx.standard.evaluate import evaluator
from fuser.hosts.onnx.standard.reference import of_other_domains
from fuser.judge.runner import CannotRun, flat, listed

FLOATING: Final = frozenset(
    {TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16}
)


@dataclass
class Oracle:
    """A model that is evaluated in float64.

    `refused` says of each value that could not be computed why, once something was evaluated. `steps_left` is
    how many nodes in bodies may still be evaluated: a Loop may be one without end.
    """

    model: onnx.ModelProto
    folder: Path
    refused: dict[str, str] = field(default_factory=dict)
    steps_left: int = control.MOST

    def __post_init__(self) -> None:
        self.opsets = {entry.domain: entry.version for entry in self.model.opset_import}
        self.functions = {(f.domain, f.name): f for f in self.model.functions}
        self._evaluators: dict[tuple[int, bytes], Callable[..., Sequence[Data]]] = {}

    def trace(
        self, feeds: Mapping[str, Data], known: Mapping[str, Data] | None = None
    ) -> Iterator[tuple[str, Data]]:
        """Each value of the main graph that a node computes, in order, as far as the outputs depend on it.

        Where `known` has an array of that name, later nodes read that one: each node is then seen on its own,
        without what earlier nodes did wrong. Values that cannot be computed, and what depends on them, are
        left out.
        """
        graph = self.model.graph
        scope = self.scope(graph, {name: widened(data) for name, data in feeds.items()}, None)
        nodes = needed_nodes(graph, {value.name for value in graph.output})
        yield from self.steps(nodes, scope, known or {}, keep={value.name for value in graph.output})

    def evaluate(self, feeds: Mapping[str, Data]) -> dict[str, Data]:
        """The outputs that can be computed, by name."""
        wanted = {value.name for value in self.model.graph.output}
        found = {n: data for n, data in self.trace(feeds) if n in wanted}
        scope = self.scope(self.model.graph, {name: widened(data) for name, data in feeds.items()}, None)
        for name in wanted - found.keys() - self.refused.keys():
            found[name] = scope.read(name)  # an input or a constant that is handed through
        return found

    def scope(self, graph: onnx.GraphProto, known: dict[str, Data], outer: Scope | None) -> Scope:
        """The constants of a graph, behind what is fed."""
        constants: dict[str, Callable[[], Data]] = {
            tensor.name: partial(array_of, tensor, self.folder) for tensor in graph.initializer
        }
        constants |= {s.values.name: partial(dense, s, self.folder) for s in graph.sparse_initializer}
        return Scope(known, constants, outer)

    def steps(
        self,
        nodes: Sequence[onnx.NodeProto],
        scope: Scope,
        known: Mapping[str, Data],
        keep: set[str],
    ) -> Iterator[tuple[str, Data]]:
        """Evaluate nodes in order; values are dropped behind the last that reads them."""
        last = {name: index for index, node in enumerate(nodes) for name in reads(node)}
        for index, node in enumerate(nodes):
            lacking = next((name for name in reads(node) if name in self.refused), None)
            if lacking is not None:
                self.refused.update(dict.fromkeys(node.output, self.refused[lacking]))
                continue
            try:
                results = self.compute(node, scope)
            except OracleUnavailable as error:
                self.refused.update(dict.fromkeys(node.output, str(error)))
                continue
            for name, data in zip(node.output, results, strict=False):
                if name:
                    yield name, data
                    if last.get(name, -1) > index or name in keep:
                        scope.known[name] = widened(known[name]) if name in known else data
            for name in reads(node):
                if last[name] == index and name not in keep:
                    scope.known.pop(name, None)

    def compute(self, node: onnx.NodeProto, scope: Scope) -> tuple[Data, ...]:
        """The outputs of a node.

        Raises:
            OracleUnavailable: it cannot be evaluated.
        """
        try:
            with np.errstate(all="ignore"):
                return tuple(map(widened, self._results(node, scope)))
        except OracleUnavailable:
            raise
        except Exception as error:
            # Reference implementations fail in many ways on what they do not cover; all mean the same here.
            reason = str(error).strip().split("\n")[0] or type(error).__name__
            raise OracleUnavailable(f"{named(node)} cannot be evaluated in float64: {reason}") from error

    def _results(self, node: onnx.NodeProto, scope: Scope) -> Sequence[Data]:
        if (node.domain, node.op_type) in self.functions:
            return control.call(self, self.functions[node.domain, node.op_type], node, scope)
        if node.domain == "" and node.op_type in control.RULES:
            return control.RULES[node.op_type](self, node, scope)
        inputs: list[Any] = [scope.read(name) if name else None for name in node.input]
        if node.op_type == "Cast" and attributes(node)["to"] in FLOATING and inputs[0].dtype.kind in "fiub":
            return (inputs[0].astype(np.float64),)
        return self._evaluator(node)(*inputs)

    def _evaluator(self, node: onnx.NodeProto) -> Callable[..., Sequence[Data]]:
        """What computes a node; nodes that differ in their names only have the same."""
        alone = onnx.NodeProto(op_type=node.op_type, domain=node.domain, attribute=node.attribute)
        alone.output.extend(f"o{place}" if name else "" for place, name in enumerate(node.output))
        opset = self.opsets.get(node.domain, 1)
        key = opset, b"" if node.op_type == "Constant" else alone.SerializeToString()
        found = self._evaluators.get(key)
        if found is None:
            if node.domain == "":
                found = evaluator(onnx_ir.serde.deserialize_node(alone), opset)
            else:
                found = of_other_domains(alone, opset)
            if found is None:
                raise OracleUnavailable(f"{named(node)} cannot be evaluated in float64: it is not known here")
            if key[1]:  # a constant may be large
                self._evaluators[key] = found
        return found


class Float64:
    """An ONNX model in float64, with the face of a session."""

    def __init__(self, model: Any, name: str) -> None:
        source = Source(model, name)
        self.name = source.name
        self.oracle = Oracle(source.proto(), source.folder)
        graph = self.oracle.model.graph
        self.inputs = specs(graph)
        names = [value.name for value in graph.output]
        self._made = dict(zip(listed(names), names, strict=True))
        self.outputs = dict(zip(self._made, map(declared, graph.output), strict=True))

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """The outputs in float64, as far as they can be computed.

        Raises:
            CannotRun: none can.
        """
        try:
            found = self.oracle.evaluate(feeds)
        except OracleUnavailable as error:
            raise CannotRun(f"{self.name}: {error}") from error
        if self.outputs and not found:
            raise CannotRun(f"{self.name}: {next(iter(self.oracle.refused.values()))}")
        made = {name: found[own] for name, own in self._made.items() if own in found}
        return dict(pair for name, data in made.items() for pair in flat(name, data))

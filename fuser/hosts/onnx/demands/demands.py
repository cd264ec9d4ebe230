"""What an ONNX model demands of its inputs, found in one walk over nodes, bodies and functions."""

from __future__ import annotations

import os
from collections import ChainMap
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any, Final

import onnx
import onnx.external_data_helper

from fuser.hosts.onnx.demands.elements import leave
from fuser.hosts.onnx.demands.shapes import SHAPES
from fuser.hosts.onnx.demands.tensors import Call, Span, Tensor, Unknown, held, skeleton
from fuser.hosts.onnx.demands.values import VALUES
from fuser.hosts.onnx.judge.source import type_name
from fuser.judge.demands import Demands
from fuser.judge.forms import Extent, Known, symbol
from fuser.judge.needs import Trace, need

STANDARD: Final = frozenset({"", "ai.onnx"})
ELEMENTS: Final = 8
"""Integer inputs of at most so many elements may be shapes or counts."""

# What a rule stumbles over in a file that nobody has checked; whoever runs the file says what is wrong.
STUMBLES: Final = (Unknown, ValueError, TypeError, LookupError, ArithmeticError, AttributeError)

# Operators whose numbers are extents, bounds and places, whatever it is that they are applied to.
SIZED: Final = frozenset(
    {"Expand", "Gather", "OneHot", "Pad", "Range", "Reshape", "Slice", "Split", "Tile", "TopK"}
)

Scope = MutableMapping[str, Tensor]


def demands(model: onnx.ModelProto, folder: str = "") -> Demands:
    """What `model` demands of its inputs; external data lies in `folder`, only short tensors are read."""
    walk = _Walk(model, folder)
    walk.main()
    return walk.demands


def demands_of(model: Any) -> Demands:
    """The same of a path, an `onnx.ModelProto` or an `onnx_ir.Model`; external weights are not read."""
    if isinstance(model, str | os.PathLike):
        path = Path(model)
        return demands(onnx.load(path, load_external_data=False), str(path.parent))
    if isinstance(model, onnx.ModelProto):
        return demands(model)
    import onnx_ir

    if not isinstance(model, onnx_ir.Model):
        raise TypeError(f"a {type(model).__name__} is no ONNX model")
    return demands(skeleton(model))


@dataclass
class _Frame:
    """The graph that is walked: what is known in it, attributes of its caller, opset, what it states."""

    scope: Scope
    attributes: Mapping[str, onnx.AttributeProto]
    opset: int
    stated: dict[str, onnx.ValueInfoProto] = field(default_factory=dict)


class _Walk:
    """One walk."""

    def __init__(self, model: onnx.ModelProto, folder: str) -> None:
        self.model = model
        self.folder = folder
        self.demands = Demands()
        self.functions = {(f.domain, f.name, getattr(f, "overload", "")): f for f in model.functions}
        self.names: set[str] = set()
        self.calls: list[onnx.FunctionProto] = []

    def main(self) -> None:
        """Describe the inputs, and walk."""
        graph = self.model.graph
        opset = _opset(self.model.opset_import)
        scope: Scope = {tensor.name: held(tensor, self.folder) for tensor in graph.initializer}
        numbers, words = self._vocabulary(scope.values())
        for value in graph.input:
            if value.name not in scope:
                scope[value.name] = self._input(value, numbers, words)
        self.body(graph, _Frame(scope, {}, opset))

    def _vocabulary(self, tensors: Iterable[Tensor]) -> tuple[set[float], list[str]]:
        """Numbers and words that occur: what a model treats in its own way is one of them."""
        numbers: set[float] = set()
        words: dict[str, None] = {}
        nodes = [node for graph in self._graphs() for node in graph]
        constants = (
            held(t, self.folder) for node in nodes if node.op_type == "Constant" for t in _tensors(node)
        )
        for tensor in chain(tensors, constants):
            if tensor.dims and isinstance(tensor.dims[0], int):
                numbers.add(tensor.dims[0])
            if tensor.array is None:
                continue
            if tensor.array.dtype.kind in "iuf":
                numbers.update(n for n in tensor.array.reshape(-1).tolist() if abs(n) < 2**31)
            elif tensor.array.dtype.kind in "OSU":
                words.update(dict.fromkeys(map(_text, tensor.array.reshape(-1).tolist())))
        for node in nodes:
            for attribute in (
                node.attribute if node.domain == "ai.onnx.ml" or node.op_type == "Constant" else ()
            ):
                words.update(dict.fromkeys(map(_text, attribute.strings)))
                numbers.update(attribute.ints)
                numbers.update({attribute.i} if attribute.type == attribute.INT else ())
        return numbers, list(words)

    def _graphs(self) -> Iterator[Sequence[onnx.NodeProto]]:
        """The nodes of every graph."""
        pending: list[Sequence[onnx.NodeProto]] = [
            self.model.graph.node,
            *(f.node for f in self.model.functions),
        ]
        while pending:
            nodes = pending.pop()
            yield nodes
            for node in nodes:
                if node.op_type in ("If", "Loop", "Scan"):
                    pending += [a.g.node for a in node.attribute if a.type == a.GRAPH]

    def _input(self, value: onnx.ValueInfoProto, numbers: set[float], words: list[str]) -> Tensor:
        kind = value.type.tensor_type
        if not value.type.HasField("tensor_type"):
            return Tensor()
        dtype = type_name(kind.elem_type)
        asked = need(dtype, numbers, words)
        if asked is not None:
            self.demands.needs[value.name] = asked
        dims = self._dims(value.name, kind) if kind.HasField("shape") else self._unstated(value.name)
        self.demands.shapes[value.name] = dims
        elements = None
        count = 1
        for extent in dims:
            count = count * extent if isinstance(extent, int) else ELEMENTS + 1
        if dtype in ("int32", "int64") and len(dims) < 2 and 0 < count <= ELEMENTS:
            self.demands.elements[value.name] = tuple(f"{value.name}[{i}]" for i in range(count))
            elements = tuple(map(symbol, self.demands.elements[value.name]))
        return Tensor(dims, None, elements, (Trace(asked, asked.candidates),) if asked is not None else ())

    def _dims(self, name: str, kind: onnx.TypeProto.Tensor) -> tuple[Known, ...]:
        dims: list[Known] = []
        for axis, dim in enumerate(kind.shape.dim):
            if dim.HasField("dim_value") and dim.dim_value >= 0:
                dims.append(dim.dim_value)
            else:
                dims.append(symbol(dim.dim_param or f"{name}.{axis}"))
                self.names.add(dim.dim_param)
        return tuple(dims)

    def _unstated(self, name: str) -> tuple[Known, ...]:
        """As many axes as the first reader says, four if it says nothing."""
        weights = {tensor.name: len(tensor.dims) for tensor in self.model.graph.initializer}
        rank = 4
        for node in self.model.graph.node:
            if name in node.input:
                of_weight = weights.get(node.input[1], 4) if len(node.input) > 1 else 4
                rank = (
                    of_weight
                    if node.op_type in ("Conv", "ConvTranspose")
                    else 2
                    if node.op_type == "Gemm"
                    else 4
                )
                break
        return tuple(symbol(f"{name}.{axis}") for axis in range(rank))

    # --- graphs --------------------------------------------------------------------------------------------

    def body(self, graph: onnx.GraphProto, frame: _Frame) -> list[Tensor]:
        """Walk a graph whose inputs are in the scope already."""
        frame.stated = {value.name: value for value in (*graph.value_info, *graph.output)}
        for tensor in graph.initializer if graph is not self.model.graph else ():
            frame.scope[tensor.name] = held(tensor, self.folder)
        for node in graph.node:
            self.visit(node, frame)
        return [frame.scope.get(value.name, Tensor()) for value in graph.output]

    def inside(self, graph: onnx.GraphProto, frame: _Frame, inputs: Sequence[Tensor] = ()) -> list[Tensor]:
        """Walk a body, which sees what is around it."""
        scope = ChainMap({}, frame.scope)
        scope.update({value.name: tensor for value, tensor in zip(graph.input, inputs, strict=False)})
        return self.body(graph, replace(frame, scope=scope))

    def visit(self, node: onnx.NodeProto, frame: _Frame) -> None:
        """Note what is known of the outputs of a node."""
        attributes = {a.name: a for a in node.attribute}
        for name, attribute in list(attributes.items()):
            if attribute.ref_attr_name:
                attributes.pop(name)
                if attribute.ref_attr_name in frame.attributes:
                    attributes[name] = frame.attributes[attribute.ref_attr_name]
        inputs = [frame.scope.get(name) if name else None for name in node.input]
        call = Call(node.op_type, inputs, attributes, len(node.output), frame.opset, self.demands)
        made = self._made(node, call, frame)
        for name, tensor in zip(node.output, made, strict=False):
            if tensor.dims is None or None in tensor.dims:
                tensor.dims = self._completed(tensor.dims, frame.stated.get(name))
            known = tuple(extent for extent in tensor.dims or () if extent is not None)
            # What is not known is counted as one. A body that does not end is stopped by the clock.
            if not self.demands.muted and node.op_type not in _CONTROL:
                self.demands.made.setdefault(known)
            frame.scope[name] = tensor

    def _made(self, node: onnx.NodeProto, call: Call, frame: _Frame) -> list[Tensor]:
        function = self.functions.get((node.domain, node.op_type, getattr(node, "overload", "")))
        try:
            if function is not None:
                return self._called(function, call)
            if node.domain not in STANDARD:
                leave(call)
                return [Tensor() for _ in node.output]
            if call.kind in _CONTROL:
                return _CONTROL[call.kind](self, call, frame)
        except STUMBLES:
            return [Tensor() for _ in node.output]
        return self._standard(call)

    def _standard(self, call: Call) -> list[Tensor]:
        """An operator that has rules, or none."""
        if call.kind == "Constant":
            return [self._constant(call)]
        shapes: Sequence[tuple[Extent, ...] | None] = ()
        try:
            if call.kind in SHAPES:
                shapes = SHAPES[call.kind](call)
        except STUMBLES:
            if call.kind in SIZED:
                self._loose(call)
        made = [Tensor(shapes[i] if i < len(shapes) else None) for i in range(call.outputs)]
        try:
            VALUES.get(call.kind, _leave)(call, made)
        except STUMBLES:
            leave(call)
        return made

    def _loose(self, call: Call) -> None:
        """Note the numbers of a node that is applied to nobody knows what."""
        for tensor in call.inputs[1:]:
            for element in (tensor.elements or ()) if tensor is not None else ():
                self.demands.kink(None, element)

    def _constant(self, call: Call) -> Tensor:
        import numpy as np

        for name, attribute in call.attributes.items():
            if name == "value":
                return held(attribute.t, self.folder)
            if name.startswith("value_"):
                number = onnx.helper.get_attribute_value(attribute)
                kind = np.int64 if "int" in name else np.float32 if "float" in name else object
                return Tensor.of(np.array(number, kind))
        return Tensor()

    def _completed(self, dims: tuple[Extent, ...] | None, stated: onnx.ValueInfoProto | None) -> Any:
        """What the file states of a shape, where nothing else is known."""
        if stated is None or not stated.type.tensor_type.HasField("shape"):
            return dims
        listed = stated.type.tensor_type.shape.dim
        known = [
            dim.dim_value
            if dim.HasField("dim_value") and dim.dim_value > 0
            else symbol(dim.dim_param)
            if dim.dim_param and dim.dim_param in self.names
            else None
            for dim in listed
        ]
        if dims is None or len(dims) != len(known):
            return tuple(known) if dims is None else dims
        return tuple(own if own is not None else other for own, other in zip(dims, known, strict=True))

    # --- bodies --------------------------------------------------------------------------------------------

    def _called(self, function: onnx.FunctionProto, call: Call) -> list[Tensor]:
        """A local function."""
        if any(other is function for other in self.calls):
            raise Unknown  # of itself, which no runtime takes
        scope: Scope = {}
        for name, tensor in zip(function.input, call.inputs, strict=False):
            if tensor is not None:
                scope[name] = tensor
        defaults = {a.name: a for a in function.attribute_proto}
        frame = _Frame(scope, {**defaults, **call.attributes}, _opset(function.opset_import))
        self.calls.append(function)
        for node in function.node:
            self.visit(node, frame)
        self.calls.pop()
        return [scope.get(name, Tensor()) for name in function.output]

    def branches(self, call: Call, frame: _Frame) -> list[Tensor]:
        """An If: the branch that is taken, or either in turn where an input decides."""
        condition = call.input(0)
        bodies = call.attributes["then_branch"].g, call.attributes["else_branch"].g
        if (number := condition.number) is not None:
            return self.inside(bodies[0] if number else bodies[1], frame)
        outcome = None
        for trace in condition.traces:
            trace.both()
            if trace.need.wishes and outcome is None:
                outcome = bool(trace.images[trace.need.wishes[0].argmax()])
        before = self.demands.when, self.demands.muted
        results = []
        for body, taken in zip(bodies, (True, False), strict=True):
            if outcome is None:
                self.demands.muted = True
            elif self.demands.when is None:
                self.demands.when = taken is outcome
            results.append(self.inside(body, frame))
            self.demands.when, self.demands.muted = before
        return [_either(a, b) for a, b in zip(*results, strict=False)]

    def loop(self, call: Call, frame: _Frame) -> list[Tensor]:
        """A Loop: what it carries keeps the extents that the body keeps."""
        trips, body = call.input(0), call.attributes["body"].g
        for element in trips.elements or (None,):
            self.demands.extent(element, trips.traces)
        count = trips.elements[0] if trips.elements else None
        step = Tensor((), span=None if count is None else Span(0, count))
        carried = [Tensor(call.input(i).dims) for i in range(2, len(call.inputs))]
        made = self._repeated(body, frame, carried, lambda states: [step, Tensor(()), *states], 1)
        scans = [Tensor(None if t.dims is None else (count, *t.dims)) for t in made[1 + len(carried) :]]
        return [*(Tensor(t.dims) for t in made[1 : 1 + len(carried)]), *scans]

    def scan(self, call: Call, frame: _Frame) -> list[Tensor]:
        """A Scan over the first axes of its last inputs."""
        body, count = call.attributes["body"].g, call.attribute("num_scan_inputs", 0)
        states = [Tensor(t.dims if t else None) for t in call.inputs[: len(call.inputs) - count]]
        axes = call.attribute("scan_input_axes", [0] * count)
        sequences = [t.dims for t in call.inputs[len(states) :] if t is not None and t.dims is not None]
        lengths = [dims[axis] for dims, axis in zip(sequences, axes, strict=True)]
        for length in lengths[1:]:
            self.demands.equal(lengths[0], length)
        steps = [
            Tensor((*d[: a % len(d)], *d[a % len(d) + 1 :])) for d, a in zip(sequences, axes, strict=True)
        ]
        made = self._repeated(body, frame, states, lambda carried: [*carried, *steps], 0)
        rest = [Tensor(None if t.dims is None else (lengths[0], *t.dims)) for t in made[len(states) :]]
        return [*(Tensor(t.dims) for t in made[: len(states)]), *rest]

    def _repeated(
        self, body: onnx.GraphProto, frame: _Frame, carried: list[Tensor], inputs: Any, first: int
    ) -> list[Tensor]:
        """Walk a body; again, with what changes from one turn to the next not known, where something does."""
        rules = len(self.demands.rules)
        made = self.inside(body, frame, inputs(carried))
        after = made[first : first + len(carried)]
        if all(old.dims == new.dims for old, new in zip(carried, after, strict=False)):
            return made
        while len(self.demands.rules) > rules:
            self.demands.rules.popitem()
        kept = [Tensor(_either(old, new).dims) for old, new in zip(carried, after, strict=False)]
        return self.inside(body, frame, inputs(kept))


_CONTROL: Final = {"If": _Walk.branches, "Loop": _Walk.loop, "Scan": _Walk.scan}


def _leave(call: Call, made: list[Tensor]) -> None:  # noqa: ARG001  # the signature of the table
    leave(call)


def _either(a: Tensor, b: Tensor) -> Tensor:
    """What is known of a value that is one of two."""
    if a.dims is None or b.dims is None or len(a.dims) != len(b.dims):
        return Tensor()
    return Tensor(
        tuple(m if m == n else None for m, n in zip(a.dims, b.dims, strict=True)), traces=a.traces + b.traces
    )


def _opset(imports: Iterable[onnx.OperatorSetIdProto]) -> int:
    return next((entry.version for entry in imports if entry.domain in STANDARD), 0)


def _tensors(node: onnx.NodeProto) -> Iterator[onnx.TensorProto]:
    return (attribute.t for attribute in node.attribute if attribute.type == attribute.TENSOR)


def _text(word: Any) -> str:
    return word.decode(errors="replace") if isinstance(word, bytes) else str(word)

"""ONNX to the graph of passes: a `Graph` for the main graph, each body of If, Loop and Scan, each function.

Nothing is lifted here and no weight is read. Every node becomes an `Opaque` that carries how to evaluate
and how to lift it; initializers and Constant nodes become constants that are read when somebody looks at
them. The model is not changed.
"""

from dataclasses import dataclass, field
from typing import Final

import numpy as np
import onnx_ir

from fuser.errors import Declined
from fuser.hosts.onnx.calls import read_call
from fuser.hosts.onnx.file.walk import graphs_in
from fuser.hosts.onnx.host import OnnxHost
from fuser.hosts.onnx.idioms import require_no_closing
from fuser.hosts.onnx.node import host_dtype, read_tensor
from fuser.hosts.onnx.shapes.shapes import Body, infer_shapes
from fuser.hosts.onnx.standard.evaluate import call_evaluator, evaluator
from fuser.hosts.operators.call import Call, Held
from fuser.hosts.operators.catalogue import OPERATORS
from fuser.hosts.operators.operator import Finder, Lifter, Operator
from fuser.ir.constant import Constant
from fuser.ir.extents import Dim
from fuser.ir.graph import Graph
from fuser.ir.node import Apply, Lift, Node, Value
from fuser.ir.ops import Opaque

NUMBERS: Final = frozenset({"int64", "int32", "bool"})
MANY: Final = 4096
"""More numbers than these are no shapes and no indices of a border."""
NO_NAMES: Final = frozenset({None, "", "?", "-1", "*", "None"})


def import_model(model: onnx_ir.Model) -> list[Graph]:
    """The graphs of a model: the main one, its bodies in the order of their nodes, then the functions.

    Shapes and element types come from the file where it states them, and are inferred where it does not.
    """
    importer = _Importer(model)
    importer.run(model.graph, model.graph.name or "main")
    for function in model.functions.values():
        importer.run(function, function.name)
    infer_shapes(model, importer.graphs, importer.bodies, importer.calls)
    return importer.graphs


@dataclass
class _Scope:
    """A graph under construction: its values by the host's, and the scope around it."""

    graph: Graph
    host: OnnxHost
    outer: "_Scope | None"
    # The names of graph inputs that have a default.
    overridable: frozenset[str] = frozenset()
    values: dict[onnx_ir.Value, Value] = field(default_factory=dict)
    # The captured values, with what they are in the scope around.
    captured: dict[Value, Value] = field(default_factory=dict)


class _Importer:
    def __init__(self, model: onnx_ir.Model) -> None:
        self.model = model
        self.graphs: list[Graph] = []
        self.bodies: dict[Node, list[Body]] = {}
        self.calls: dict[Node, Call] = {}

    def run(self, source: onnx_ir.Graph | onnx_ir.Function, name: str, outer: _Scope | None = None) -> _Scope:
        """Import one graph, and the bodies in it."""
        host = OnnxHost(self.model, source, None if outer is None else outer.host.opset)
        scope = _Scope(Graph(name, host), host, outer)
        self.graphs.append(scope.graph)
        inputs = list(source.inputs)
        if isinstance(source, onnx_ir.Graph):
            # Before version 4 of the format every initializer was an input too, and none can be overridden.
            overridable = set(inputs) if (self.model.ir_version or 4) >= 4 else set()
            around = frozenset() if outer is None else outer.overridable
            scope.overridable = around.union(v.name or "" for v in overridable if v.is_initializer())
            for initializer in source.initializers.values():
                value = _declare(scope, initializer)
                if initializer not in overridable and initializer.const_value is not None:
                    value.constant = read_tensor(initializer.const_value)
        scope.graph.inputs = [scope.values.get(v) or _declare(scope, v) for v in inputs]
        for index, node in enumerate(source):
            self._add(scope, node, index)
        scope.graph.outputs = [_read(scope, value) for value in source.outputs]
        scope.graph.captured = list(scope.captured)
        return scope

    def _add(self, scope: _Scope, node: onnx_ir.Node, index: int) -> None:
        inputs = [None if value is None else _read(scope, value) for value in node.inputs]
        graphs = [(entry, body) for entry in node.attributes.values() for body in graphs_in(entry)]
        bodies = [
            self.run(body, f"{node.name or node.op_type}/{entry.name}", scope) for entry, body in graphs
        ]
        for body in bodies:
            inputs.extend(outer for outer in body.captured.values() if outer not in inputs)
        outputs = [scope.values.get(v) or _declare(scope, v) for v in node.outputs]
        call = None if node.domain else read_call(node, scope.host.opset, scope.overridable)
        op = self._operator(node, call, scope.host.opset, control_flow=bool(graphs))
        made = Node(op, inputs, outputs, name=node.name or "", position=(index,), source=node)
        scope.graph.add(made)
        if call is not None:
            self.calls[made] = call
        if call is not None and call.kind == "Constant":
            outputs[0].constant = _constant(call)
        elif inputs and not graphs:
            outputs[0].constant = _numbers(made)
        if bodies:
            self.bodies[made] = [Body(body.graph, body.captured) for body in bodies]

    def _operator(self, node: onnx_ir.Node, call: Call | None, opset: int, *, control_flow: bool) -> Opaque:
        """The operator of a node. What depends on an attribute of the enclosing function cannot be known."""
        kind = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
        if control_flow or any(entry.is_ref() for entry in node.attributes.values()):
            return Opaque(kind)
        if call is None:
            known = node.op_identifier() in self.model.functions
            return Opaque(kind, evaluate=call_evaluator(self.model, node, opset) if known else None)
        operator = OPERATORS.get(kind, Operator(kind))
        affine = () if _cuts_unseen(call) else operator.linear(call, len(node.inputs))
        rule: Lift | None = None if operator.lift is None else _unless_closing(Lifter(operator, call))
        return Opaque(
            kind,
            evaluate=evaluator(node, opset),
            lift=rule if operator.makes is None else _computing(rule),
            linear=affine,
            of_shape=operator.of_shape,
            retypes=operator.retypes,
            repeats=operator.repeats,
            literals=Finder(operator, call),
            foldable=operator.foldable,
            homogeneous=operator.homogeneous,
            elementwise=operator.elementwise,
            carries=operator.carrying(call),
        )


def _numbers(node: Node, *, whole: bool = True) -> Constant | None:
    """Shapes, axes, indices and pads that are computed from constants; other shapes follow from them.

    With `whole`, only what is computed from whole numbers and from truth values.
    """
    op, value = node.op, node.outputs[0]
    known = [v.constant for v in node.inputs if v is not None and v.constant is not None]
    operator = OPERATORS.get(op.kind) if isinstance(op, Opaque) else None
    if operator is None or operator.makes is None or op.evaluate is None or value.constant is not None:
        return None
    if len(known) != len(node.inputs) or any(
        c.size > MANY or (whole and c.dtype not in NUMBERS) for c in known
    ):
        return None
    arrays = [constant.array() for constant in known]
    try:
        if operator.makes(arrays) > MANY:
            return None
        return Constant.of(np.asarray(op.evaluate(*arrays)[0]))
    except (Declined, ValueError, IndexError):
        return None


def _cuts_unseen(call: Call) -> bool:
    """Whether a Slice has no inputs to cut by: regions look for numbers in those."""
    return call.kind == "Slice" and not isinstance(call.attributes.get("starts"), Held)


def _unless_closing(rule: Lift) -> Lift:
    """The rule, but for a scale that closes an activation."""

    def lift(node: Node) -> Apply | Constant | None:
        lifted = rule(node)
        if isinstance(lifted, Apply):
            require_no_closing(node, lifted.op)
        return lifted

    return lift


def _computing(rule: Lift | None) -> Lift:
    """The rule, and for what is computed from numbers that became known meanwhile the result."""

    def lift(node: Node) -> Apply | Constant | None:
        shape = node.outputs[0].shape
        if shape is None or not all(isinstance(dim, int) for dim in shape):
            made = _numbers(node, whole=False)
            if made is not None:
                return made
        return rule(node) if rule is not None else None

    return lift


def _declare(scope: _Scope, source: onnx_ir.Value) -> Value:
    """Enter a value that `scope` defines."""
    value = Value(source.name or "", _shape(source), host_dtype(source))
    scope.values[source] = value
    scope.host.values[value] = source
    return value


def _read(scope: _Scope, source: onnx_ir.Value) -> Value:
    """A value as `scope` sees it: its own, or captured from a scope around it."""
    value = scope.values.get(source)
    if value is not None:
        return value
    value = _declare(scope, source)
    if scope.outer is not None:
        around = _read(scope.outer, source)
        value.constant, value.shape, value.dtype = around.constant, around.shape, around.dtype
        scope.captured[value] = around
    return value


def _shape(value: onnx_ir.Value) -> tuple[Dim, ...] | None:
    return None if value.shape is None else tuple(map(_dim, value.shape.dims))


def _dim(dim: int | onnx_ir.SymbolicDim) -> Dim:
    """An extent. Exporters that do not know it write -1 or a question mark, for different extents alike."""
    if isinstance(dim, int):
        return dim if dim >= 0 else None
    return None if dim.value in NO_NAMES else dim.value


def _constant(call: Call) -> Constant | None:
    """What a Constant node holds; None for what is no dense tensor, or is given by the enclosing function."""
    for name, value in call.attributes.items():
        if value is None or isinstance(value, Constant):
            return value
        if name in ("value_float", "value_floats"):
            return Constant.of(np.asarray(value, dtype=np.float32))
        if name in ("value_int", "value_ints"):
            return Constant.of(np.asarray(value, dtype=np.int64))
    return None

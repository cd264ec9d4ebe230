"""ONNX to the graph of passes: a `Graph` for the main graph, each body of If, Loop and Scan, each function.

Nothing is lifted here and no weight is read. Every node becomes an `Opaque` that carries how to evaluate
and how to lift it; initializers and Constant nodes become constants that are read when somebody looks at
them. The model is not changed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf, prod
from typing import Any, Final

import numpy as np
import onnx_ir
from numpy.typing import NDArray

from fuser.errors import Declined
from fuser.hosts.onnx.file.walk import graphs_in
from fuser.hosts.onnx.host import OnnxHost
from fuser.hosts.onnx.lift.layers import lifter
from fuser.hosts.onnx.linear import OF_SHAPE, linear
from fuser.hosts.onnx.literals import Finder
from fuser.hosts.onnx.node import host_dtype, read_tensor
from fuser.hosts.onnx.shapes.shapes import Body, infer_shapes
from fuser.hosts.onnx.standard.evaluate import call_evaluator, evaluator
from fuser.ir.constant import Constant
from fuser.ir.extents import Dim
from fuser.ir.graph import Graph
from fuser.ir.node import Apply, Lift, Node, Value
from fuser.ir.ops import Opaque

# f(s * x) = s * f(x) for s > 0, channel by channel, in the first input.
HOMOGENEOUS: Final = frozenset(
    {"Relu", "LeakyRelu", "PRelu", "MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool"}
)
# Every element from those at the same position; inputs broadcast.
ELEMENTWISE: Final = frozenset(
    {"Abs", "Add", "Celu", "Clip", "Div", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "Identity"}
    | {"LeakyRelu", "Log", "Max", "Mean", "Min", "Mish", "Mul", "Neg", "PRelu", "Pow", "Reciprocal", "Relu"}
    | {"Selu", "Sigmoid", "Sign", "Softplus", "Softsign", "Sqrt", "Sub", "Sum", "Swish", "Tanh"}
    | {"ThresholdedRelu"}
)
NUMBERS: Final = frozenset({"int64", "int32", "bool"})
ARITHMETIC: Final = frozenset(
    {"Add", "Cast", "Concat", "ConstantOfShape", "Div", "Equal", "Expand", "Gather", "Mod", "Mul"}
    | {"Range", "Reshape", "Shape", "Slice", "Squeeze", "Sub", "Transpose", "Unsqueeze", "Where"}
)
BROADCASTING: Final = frozenset({"Add", "Div", "Equal", "Mod", "Mul", "Sub", "Where"})
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
    infer_shapes(model, importer.graphs, importer.bodies)
    return importer.graphs


@dataclass
class _Scope:
    """A graph under construction: its values by the host's, and the scope around it."""

    graph: Graph
    host: OnnxHost
    outer: "_Scope | None"
    values: dict[onnx_ir.Value, Value] = field(default_factory=dict)
    # The captured values, with what they are in the scope around.
    captured: dict[Value, Value] = field(default_factory=dict)


class _Importer:
    def __init__(self, model: onnx_ir.Model) -> None:
        self.model = model
        self.graphs: list[Graph] = []
        self.bodies: dict[Node, list[Body]] = {}

    def run(self, source: onnx_ir.Graph | onnx_ir.Function, name: str, outer: _Scope | None = None) -> _Scope:
        """Import one graph, and the bodies in it."""
        host = OnnxHost(self.model, source, None if outer is None else outer.host.opset)
        scope = _Scope(Graph(name, host), host, outer)
        self.graphs.append(scope.graph)
        inputs = list(source.inputs)
        if isinstance(source, onnx_ir.Graph):
            # Before version 4 of the format every initializer was an input too, and none can be overridden.
            overridable = set(inputs) if (self.model.ir_version or 4) >= 4 else set()
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
        op = self._operator(node, scope.host.opset, control_flow=bool(graphs))
        made = Node(op, inputs, outputs, name=node.name or "", position=(index,), source=node)
        scope.graph.add(made)
        if node.op_type == "Constant" and node.domain == "":
            outputs[0].constant = _constant(node)
        elif inputs and not graphs:
            outputs[0].constant = _numbers(made)
        if bodies:
            self.bodies[made] = [Body(body.graph, body.captured) for body in bodies]

    def _operator(self, node: onnx_ir.Node, opset: int, *, control_flow: bool) -> Opaque:
        """The operator of a node. What depends on an attribute of the enclosing function cannot be known."""
        kind = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
        if control_flow or any(entry.is_ref() for entry in node.attributes.values()):
            return Opaque(kind)
        if node.domain:
            known = node.op_identifier() in self.model.functions
            return Opaque(kind, evaluate=call_evaluator(self.model, node, opset) if known else None)
        affine = linear(node, opset)
        rule: Lift | None = lifter(node.op_type, opset)
        return Opaque(
            kind,
            evaluate=evaluator(node, opset),
            lift=_computing(rule) if node.op_type in ARITHMETIC else rule,
            linear=affine,
            of_shape=node.op_type in OF_SHAPE,
            retypes=node.op_type == "Cast",
            literals=Finder(node),
            foldable=node.op_type != "DequantizeLinear",
            homogeneous=node.op_type in HOMOGENEOUS,
            elementwise=node.op_type in ELEMENTWISE,
        )


def _numbers(node: Node, *, whole: bool = True) -> Constant | None:
    """Shapes, axes, indices and pads that are computed from constants; other shapes follow from them.

    With `whole`, only what is computed from whole numbers and from truth values.
    """
    op, value = node.op, node.outputs[0]
    known = [v.constant for v in node.inputs if v is not None and v.constant is not None]
    if (
        not isinstance(op, Opaque)
        or op.kind not in ARITHMETIC
        or op.evaluate is None
        or value.constant is not None
    ):
        return None
    if len(known) != len(node.inputs) or any(
        c.size > MANY or (whole and c.dtype not in NUMBERS) for c in known
    ):
        return None
    arrays = [constant.array() for constant in known]
    try:
        if made_of(op.kind, arrays) > MANY:
            return None
        return Constant.of(np.asarray(op.evaluate(*arrays)[0]))
    except (Declined, ValueError, IndexError):
        return None


def made_of(kind: str, arrays: Sequence[NDArray[Any]]) -> float:
    """How many elements an operator makes of constants, at most: numbers in a file may be anything.

    Raises:
        ValueError: the constants do not fit together.
    """
    if kind == "ConstantOfShape":
        return prod(abs(int(n)) for n in arrays[0].flat)
    if kind == "Expand":
        return arrays[0].size * prod(abs(int(n)) for n in arrays[1].flat)
    if kind == "Range":
        start, limit, step = (array.item() for array in arrays)
        return abs(limit - start) / abs(step) if step else inf
    if kind == "Gather":
        return arrays[1].size * arrays[0].size / max(1, min(arrays[0].shape, default=1))
    return prod(np.broadcast_shapes(*(array.shape for array in arrays))) if kind in BROADCASTING else 0


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


def _constant(node: onnx_ir.Node) -> Constant | None:
    """What a Constant node holds; None for what is no dense tensor, or is given by the enclosing function."""
    for name, entry in node.attributes.items():
        if entry.is_ref():
            return None
        if name == "value":
            return read_tensor(entry.value)
        if name in ("value_float", "value_floats"):
            return Constant.of(np.asarray(entry.value, dtype=np.float32))
        if name in ("value_int", "value_ints"):
            return Constant.of(np.asarray(entry.value, dtype=np.int64))
    return None

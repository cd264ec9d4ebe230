"""What a model amounts to: nodes by operator, parameters, bytes, multiply-adds. Weights are never read."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import onnx
    import onnx_ir

# Tensors of at most this many elements may hold a shape, which inference has to see.
SMALL: Final = 64

STANDARD: Final = frozenset({"", "ai.onnx"})

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Summary:
    """What a model holds and what running it costs, bodies of control flow and local functions included.

    `operators`: number of nodes by operator, in alphabetical order, without Constant, which does no work.
    `parameters`: elements of all weights, each tensor once; `weight_bytes`: what they take in memory.
    `nominal`: the shape of each input that `multiply_adds` is stated for.
    """

    operators: dict[str, int]
    parameters: int
    weight_bytes: int
    nominal: Shapes
    skeleton: onnx.ModelProto | None = field(default=None, repr=False, compare=False)
    """An ONNX graph without its weights: `multiply_adds` is worked out from it when somebody asks."""

    @property
    def nodes(self) -> int:
        """Number of nodes that do work."""
        return sum(self.operators.values())

    @cached_property
    def multiply_adds(self) -> int | None:
        """Multiply-adds of convolutions and matrix products at nominal size; None if a shape is unknown.

        A body of control flow counts once.
        """
        return None if self.skeleton is None else multiply_adds(self.skeleton)

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON can hold it."""
        return {
            "nodes": self.nodes,
            "operators": dict(self.operators),
            "parameters": self.parameters,
            "weight_bytes": self.weight_bytes,
            "multiply_adds": self.multiply_adds,
            "nominal_inputs": {name: list(shape) for name, shape in self.nominal.items()},
        }


def summarise(model: onnx_ir.Model, shapes: Shapes | None = None) -> Summary:
    """Summarise `model`, some inputs in given shapes. One walk over the nodes; no weight is read."""
    walk = _Walk(model, shapes or {})
    return Summary(
        operators=dict(sorted(walk.operators.items())),
        parameters=sum(size for size, _ in walk.weights.values()),
        weight_bytes=sum(size for _, size in walk.weights.values()),
        nominal=walk.nominal,
        skeleton=walk.proto,
    )


class _Walk:
    """One walk over a model: counts what is there, and copies all but the weights into `proto`."""

    def __init__(self, model: onnx_ir.Model, shapes: Shapes) -> None:
        import onnx

        from fuser.judge.inputs import model_specs, nominal_shapes, pinned

        self.operators: Counter[str] = Counter()
        self.weights: dict[int, tuple[int, int]] = {}  # elements and bytes of each tensor, by identity
        specs = model_specs(model)
        self.nominal = {**nominal_shapes(specs, pinned(specs, shapes)), **shapes}
        self.proto = onnx.ModelProto(ir_version=model.ir_version)
        for domain, version in model.opset_imports.items():
            self.proto.opset_import.add(domain=domain, version=version)
        self.graph(model.graph, self.proto.graph)
        for function in model.functions.values():
            self.function(function)

    def graph(self, graph: onnx_ir.Graph, proto: onnx.GraphProto) -> None:
        """Fill `proto` with the nodes of `graph`; large constants become inputs of their type and shape."""
        proto.name = graph.name or "graph"
        for value in graph.inputs:
            if value.name not in graph.initializers:
                self.input(value, proto.input.add())
        for value in graph.initializers.values():
            if value.const_value is not None:
                self.constant(value.name, value.const_value, proto)
        for node in graph:
            self.node(node, proto)
        proto.output.extend(_named(value) for value in graph.outputs)

    def input(self, value: onnx_ir.Value, proto: onnx.ValueInfoProto) -> None:
        """Describe an input, that of the model in its nominal shape."""
        import onnx_ir

        onnx_ir.serde.serialize_value_into(proto, value)
        if value.name is not None and value.name in self.nominal and proto.type.HasField("tensor_type"):
            shape = proto.type.tensor_type.shape
            shape.Clear()
            for extent in self.nominal[value.name]:
                shape.dim.add(dim_value=extent)

    def function(self, function: onnx_ir.Function) -> None:
        """Copy a local function. It has no inputs that could stand for its constants, so they stay in it."""
        import onnx_ir

        onnx_ir.serde.serialize_function_into(self.proto.functions.add(), function)
        for node in function.all_nodes():
            if (tensor := _tensor(node)) is not None:
                self.weigh(tensor)
            else:
                self.operators[node.op_type] += 1

    def node(self, node: onnx_ir.Node, graph: onnx.GraphProto) -> None:
        """Copy a node, its bodies without weights too."""
        import onnx
        import onnx_ir

        if (tensor := _tensor(node)) is not None:
            self.constant(node.outputs[0].name, tensor, graph)
            return
        self.operators[node.op_type] += 1
        proto = graph.node.add(op_type=node.op_type, domain=node.domain, overload=node.overload)
        proto.input.extend((value.name or "") if value is not None else "" for value in node.inputs)
        proto.output.extend(value.name or "" for value in node.outputs)
        for attribute in node.attributes.values():
            if attribute.type == onnx_ir.AttributeType.GRAPH and not attribute.is_ref():
                body = proto.attribute.add(name=attribute.name, type=onnx.AttributeProto.GRAPH)
                self.graph(attribute.as_graph(), body.g)
            else:
                onnx_ir.serde.serialize_attribute_into(proto.attribute.add(), attribute)
        if node.domain not in STANDARD:
            # Nobody can infer the results of foreign operators: what the file says of them is all there is.
            for value in node.outputs:
                if value.name and value.shape is not None and value.shape.is_static():
                    onnx_ir.serde.serialize_value_into(graph.value_info.add(), value)

    def weigh(self, tensor: onnx_ir.TensorProtocol) -> tuple[int, ...]:
        """Take a constant into account; returns its shape."""
        shape = tuple(tensor.shape.numpy())
        size = prod(shape)
        self.weights[id(tensor)] = (size, _bytes(tensor, size))
        return shape

    def constant(self, name: str | None, tensor: onnx_ir.TensorProtocol, graph: onnx.GraphProto) -> None:
        """Enter a constant: a small one, which may be a shape, with its values, a large one without."""
        import onnx_ir

        shape = self.weigh(tensor)
        if prod(shape) <= SMALL:
            proto = graph.initializer.add()
            onnx_ir.serde.serialize_tensor_into(proto, tensor)
            proto.name = name or ""
            return
        given = graph.input.add(name=name or "")
        given.type.tensor_type.elem_type = tensor.dtype.value
        for extent in shape:
            given.type.tensor_type.shape.dim.add(dim_value=extent)


def _bytes(tensor: onnx_ir.TensorProtocol, size: int) -> int:
    """What a tensor takes in memory: strings what their characters take."""
    import onnx_ir

    if isinstance(tensor, onnx_ir.StringTensor):
        return sum(map(len, tensor.string_data()))
    return math.ceil(tensor.dtype.itemsize * size)


def _tensor(node: onnx_ir.Node) -> Any:
    """The tensor of a Constant node in its usual form; None for any other node."""
    import onnx_ir

    if node.op_type != "Constant" or node.domain not in STANDARD:
        return None
    attribute = node.attributes.get("value")
    if attribute is None or attribute.type != onnx_ir.AttributeType.TENSOR:
        return None
    return attribute.value


def _named(value: onnx_ir.Value) -> onnx.ValueInfoProto:
    """A value of which only the name is said."""
    import onnx

    return onnx.ValueInfoProto(name=value.name or "")


def multiply_adds(skeleton: onnx.ModelProto) -> int | None:
    """Multiply-adds of a model with fixed inputs; None if a shape is unknown."""
    import onnx
    import onnx.inliner

    try:
        if skeleton.functions:
            skeleton = onnx.inliner.inline_local_functions(skeleton)
        inferred = onnx.shape_inference.infer_shapes(skeleton, data_prop=True)
    except Exception:  # noqa: BLE001  # whatever inference stumbles over: the figure is then not known
        return None
    return _count(inferred.graph, {})


def _count(graph: onnx.GraphProto, outer: Shapes) -> int | None:
    """The sum over the nodes of a graph and its bodies."""
    shapes = {**outer, **_shapes(graph.input), **_shapes(graph.value_info), **_shapes(graph.output)}
    shapes |= {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    total = 0
    for node in graph.node:
        bodies = [_count(attribute.g, shapes) for attribute in node.attribute if attribute.HasField("g")]
        for cost in (_cost(node, shapes), *bodies):
            if cost is None:
                return None
            total += cost
    return total


def _shapes(values: Iterable[onnx.ValueInfoProto]) -> dict[str, tuple[int, ...]]:
    """The fully known shapes."""
    result = {}
    for value in values:
        if value.type.HasField("tensor_type") and value.type.tensor_type.HasField("shape"):
            dims = value.type.tensor_type.shape.dim
            if all(dim.HasField("dim_value") for dim in dims):
                result[value.name] = tuple(dim.dim_value for dim in dims)
    return result


def _cost(node: onnx.NodeProto, shapes: Shapes) -> int | None:
    """Multiply-adds of one node; 0 for what is neither a convolution nor a matrix product."""
    if node.domain not in STANDARD or node.op_type not in {"Conv", "ConvTranspose", "Gemm", "MatMul"}:
        return 0
    read = [shapes.get(name) for name in node.input[:2]]
    made = shapes.get(node.output[0])
    if made is None or None in read:
        return None
    left, right = (shape for shape in read if shape is not None)
    match node.op_type:
        case "Conv":  # each output element reads I/groups channels of each tap
            return prod(made) * prod(right[1:])
        case "ConvTranspose":  # each input element is written to O/groups channels of each tap
            return prod(left) * prod(right[1:])
        case "Gemm":
            transposed = any(a.name == "transA" and a.i for a in node.attribute)
            return prod(made) * left[0 if transposed else 1]
        case _:
            return prod(made) * left[-1]

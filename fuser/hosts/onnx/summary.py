"""What an ONNX model amounts to, and what it takes. Weights are never read."""

import math
from collections import Counter
from collections.abc import Iterable
from functools import partial
from math import prod
from typing import Any, Final

import numpy as np
import onnx
import onnx_ir

from fuser.hosts.summary import Shapes, Summary
from fuser.judge.inputs import Dim, Given, Spec, given, nominal_shapes, pinned, require_shapes

# Tensors of at most this many elements may hold a shape, which inference has to see.
SMALL: Final = 64

STANDARD: Final = frozenset({"", "ai.onnx"})


def summarise(model: onnx_ir.Model, shapes: Shapes | None = None) -> Summary:
    """Summarise `model`, some inputs in given shapes. One walk over the nodes; no weight is read."""
    walk = _Walk(model, shapes or {})
    return Summary(
        operators=dict(sorted(walk.operators.items())),
        parameters=sum(size for size, _ in walk.weights.values()),
        weight_bytes=sum(size for _, size in walk.weights.values()),
        nominal=walk.nominal,
        count=partial(multiply_adds, walk.proto),
    )


def model_specs(model: onnx_ir.Model) -> list[Spec]:
    """The inputs that a caller must feed: initializers that are also inputs have values of their own."""
    return [
        Spec(value.name or "", _dtype_name(value), _dims(value.shape))
        for value in model.graph.inputs
        if value.name not in model.graph.initializers
    ]


def _dtype_name(value: onnx_ir.Value) -> str:
    if not value.dtype:  # no tensor, or one whose type is UNDEFINED, which is 0
        return str(value.type)
    name = np.dtype(value.dtype.numpy()).name
    return "string" if name == "object" else name


def _dims(shape: onnx_ir.Shape | None) -> tuple[Dim, ...] | None:
    return None if shape is None else tuple(dim if isinstance(dim, int) else dim.value for dim in shape)


def shapes_of(model: onnx_ir.Model, inputs: Given | None, shapes: Shapes | None) -> Shapes:
    """What multiply-adds are counted for: the shapes of the user's inputs, or those that the user gave.

    Raises:
        InputError: they do not fit the model, or each other.
    """
    if inputs is None:
        return shapes or {}
    found = {name: array.shape for name, array in given(inputs, model_specs(model)).items()}
    require_shapes(found, shapes)
    return found


class _Walk:
    """One walk over a model: counts what is there, and copies all but the weights into `proto`."""

    def __init__(self, model: onnx_ir.Model, shapes: Shapes) -> None:
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
        onnx_ir.serde.serialize_value_into(proto, value)
        if value.name is not None and value.name in self.nominal and proto.type.HasField("tensor_type"):
            shape = proto.type.tensor_type.shape
            shape.Clear()
            for extent in self.nominal[value.name]:
                shape.dim.add(dim_value=extent)

    def function(self, function: onnx_ir.Function) -> None:
        """Copy a local function. It has no inputs that could stand for its constants, so they stay in it."""
        onnx_ir.serde.serialize_function_into(self.proto.functions.add(), function)
        for node in function.all_nodes():
            if (tensor := _tensor(node)) is not None:
                self.weigh(tensor)
            else:
                self.operators[node.op_type] += 1

    def node(self, node: onnx_ir.Node, graph: onnx.GraphProto) -> None:
        """Copy a node, its bodies without weights too."""
        import onnx

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
    if isinstance(tensor, onnx_ir.StringTensor):
        return sum(map(len, tensor.string_data()))
    return math.ceil(tensor.dtype.itemsize * size)


def _tensor(node: onnx_ir.Node) -> Any:
    """The tensor of a Constant node in its usual form; None for any other node."""
    if node.op_type != "Constant" or node.domain not in STANDARD:
        return None
    attribute = node.attributes.get("value")
    if attribute is None or attribute.type != onnx_ir.AttributeType.TENSOR:
        return None
    return attribute.value


def _named(value: onnx_ir.Value) -> onnx.ValueInfoProto:
    """A value of which only the name is said."""
    return onnx.ValueInfoProto(name=value.name or "")


def multiply_adds(skeleton: onnx.ModelProto) -> int | None:
    """Multiply-adds of a model with fixed inputs; None if a shape is unknown."""
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

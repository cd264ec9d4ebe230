"""One of two graphs that are compared, and its nodes as forms: the own reading of the standard by `recheck`.

Whatever is read here comes from the attributes and constants of a node. What they leave open is no form: the
node's result stands for itself then, as a leaf, and proves nothing but that the other graph has it too.
"""

from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from fuser.algebra import form_laws as laws
from fuser.algebra.affine_forms import Form, Leaf, as_form, plain, through
from fuser.algebra.lazy import Lazy
from fuser.errors import Declined, require

UNITS: Final = {1: 2.0**-24, 10: 2.0**-11, 11: 2.0**-53, 16: 2.0**-8}
"""The roundoff of floating types, by the number that ONNX has for them."""
WEIGHTED: Final = {"Conv", "ConvTranspose", "Gemm", "MatMul", "AveragePool", "BatchNormalization"}
NONE: Final = (0, None)
"""The element type and shape of a value of which nothing is known, and that value itself."""
SAME: Final = {"Identity", "Dropout", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Expand", "Tile"}
MOVING: Final = {"Transpose", "Slice", "Concat", "Gather", "Split", *SAME}
HOMOGENEOUS: Final = {"Relu", "LeakyRelu", "MaxPool"}
RANDOM: Final = {
    *("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial")
}


@dataclass(frozen=True, eq=False)
class Constant:
    """A tensor that is known; `depth` operators of the graph made it, each of which rounds."""

    kind: int
    shape: tuple[int, ...]
    load: Callable[[], Any]
    depth: int = 0

    def wide(self) -> Any:
        """The values, floating ones in float64."""
        return self.load().astype(np.float64) if self.kind in UNITS else self.load()


@dataclass(frozen=True)
class Call:
    """A node with what it reads: constants, forms, leaves, None; types are pairs of element and shape."""

    node: onnx.NodeProto
    inputs: list[Any]
    types: list[tuple[int, Any]]
    made: tuple[int, Any]
    stored: int

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute."""
        entry = next((entry for entry in self.node.attribute if entry.name == name), None)
        if entry is None:
            return default
        require(not entry.ref_attr_name, f"{name} is given by the enclosing function")
        value = helper.get_attribute_value(entry)
        return value.decode() if isinstance(value, bytes) else value

    def array(self, index: int, name: str = "", default: Any = None) -> Any:
        """The values of a constant input, or of the attribute that it was in earlier versions."""
        value = self.inputs[index] if index < len(self.inputs) else None
        require(value is None or isinstance(value, Constant), f"input {index} is not constant")
        return self.get(name, default) if value is None else value.wide()

    def lazy(self, index: int = 1) -> Lazy:
        """A constant input that is read when somebody looks."""
        value = self.inputs[index]
        require(isinstance(value, Constant), f"input {index} is not constant")
        return Lazy(value.shape, value.wide)

    def form(self, index: int = 0) -> Form:
        """An input that is no constant."""
        require(isinstance(self.inputs[index], Leaf | Form), f"input {index} is constant")
        return as_form(self.inputs[index])

    def shape(self, index: int = 0) -> Any:
        """The shape of an input."""
        require(bool(self.types[index][1]), f"the shape of input {index} is not known")
        return self.types[index][1]

    def __iter__(self) -> Iterator[Any]:
        """The roundoff of what is stored and computed here, and how often the constants were rounded."""
        known = [value for value in self.inputs if isinstance(value, Constant)]
        yield max(UNITS.get(kind, 0.0) for kind in (self.made[0], *(constant.kind for constant in known)))
        yield self.stored + max((constant.depth for constant in known), default=0)

    def window(self, size: Sequence[int]) -> dict[str, Any]:
        """Stride, dilation and pads."""
        require(not self.get("output_shape") and not self.get("ceil_mode"), "the pads depend on the extent")
        require([*self.get("kernel_shape", size)] == [*size] != [], f"kernel_shape is not {size}")
        names = {"stride": "strides", "dilation": "dilations", "pads": "pads", "more": "output_padding"}
        axes = {ours: tuple(self.get(name, ())) for ours, name in names.items()}
        return {"auto": self.get("auto_pad", "NOTSET"), **axes}


def weighted(call: Call, unit: float, depth: int) -> Form:
    """What has weights: Conv, ConvTranspose, Gemm, MatMul, BatchNormalization; and AveragePool."""
    kind, form = call.node.op_type, call.form()
    if kind in {"Conv", "ConvTranspose"}:
        kernel, groups, turned = call.lazy(), call.get("group", 1), kind != "Conv"
        window = call.window(kernel.shape[2:])
        return laws.convolved(form, kernel, call.array(2), unit, depth, groups, turned, **window)
    if kind == "AveragePool":
        size, pads = call.get("kernel_shape"), call.get("pads", ())
        counted = call.get("count_include_pad") or not any(pads)
        require(
            bool(counted) and call.get("auto_pad", "NOTSET") in {"NOTSET", "VALID"}, "padding is not counted"
        )
        return laws.pooled(form, call.shape()[1], size, unit, **call.window(size))
    if kind == "BatchNormalization":
        require(len(call.node.output) == 1 and not call.get("training_mode"), "it is trained")
        arrays = [call.array(index) for index in range(1, 5)]
        # The epsilon is a float of 32 bits, in a model of doubles as well.
        epsilon = call.get("epsilon", float(np.float32(1e-5)))
        return laws.normalised(form, call.shape(), arrays, epsilon, unit, depth)
    require(not call.get("transA"), "the value is transposed")
    factors = call.get("alpha", 1.0), call.get("beta", 1.0)
    return laws.multiplied(
        form, call.lazy(), call.array(2), unit, depth, *factors, turned=bool(call.get("transB"))
    )


def arranged(call: Call) -> Form | list[Form]:
    """What moves elements: Slice, Pad, Concat, Split, Gather."""
    kind, form, shape, every = call.node.op_type, call.form(), call.shape(), range(len(call.inputs))
    if kind == "Slice":
        names = enumerate(("starts", "ends", "axes", "steps"), start=1)
        return laws.cropped(form, shape, *(call.array(index, name) for index, name in names))
    if kind == "Pad":
        require(call.get("mode", "constant") == "constant", "what is outside depends on what is inside")
        return laws.padded(form, shape, call.array(1, "pads"), call.array(3), call.array(2, "value", 0.0))
    if kind == "Concat":
        return laws.stack([*map(call.form, every)], [*map(call.shape, every)], call.get("axis", 1))
    if kind == "Split":
        sizes, many = call.array(1, "split"), len(call.node.output)
        return laws.split(form, shape, call.get("axis", 0), sizes, many)
    return laws.chosen(form, shape, call.get("axis", 0), call.array(1))


def combined(call: Call, unit: float, depth: int) -> Form:
    """Add, Sub, Sum and Mean of several values, or of one and a constant; Mul and Div by a constant."""
    kind, fixed = call.node.op_type, [isinstance(value, Constant) for value in call.inputs]
    if len(fixed) == 2 and any(fixed):
        data, array = int(fixed[0]), call.array(int(not fixed[0]))
        form, shape = call.form(data), call.shape(data)
        return laws.elementwise(kind, form, shape, array, unit, depth, first=fixed[0])
    return laws.total(
        kind, [call.form(index) for index in range(len(fixed))], [dims for _, dims in call.types], unit
    )


def meaning(call: Call) -> Form | list[Form]:
    """What a node makes, as forms.

    Raises:
        Declined: it is no sum of convolutions, or that cannot be seen.
    """
    kind, (element, shape) = call.node.op_type, call.types[0]
    if kind in WEIGHTED:
        return weighted(call, *call)
    if kind in {"Slice", "Pad", "Concat", "Split", "Gather"}:
        return arranged(call)
    if kind in {"Add", "Sub", "Sum", "Mean", "Mul", "Div"}:
        return combined(call, *call)
    still = kind in {"Identity", "Dropout", "Cast"} or (
        kind == "LeakyRelu" and call.get("alpha", 0.01) == 1.0
    )
    still = still or (kind in SAME and shape == call.made[1] and None not in (shape or [None]))
    trained = kind == "Dropout" and np.any(call.array(2, default=False))
    require(still and not trained and element == call.made[0], f"{kind} changes something, or is not known")
    return call.form()


class Side:
    """One of two graphs: what each of its values is, as far as it has been read."""

    def __init__(self, graph: Any, opsets: Any, base: str, stored: int, outer: "Side | None" = None) -> None:
        self.nodes, self.opsets, self.base, self.stored = list(graph.node), opsets, base, stored
        self.makers = {name: index for index, node in enumerate(self.nodes) for name in node.output if name}
        self.given, self.outputs = (
            [getattr(v, "name", v) for v in end] for end in (graph.input, graph.output)
        )
        tensors = {tensor.name: tensor for tensor in getattr(graph, "initializer", ())}
        for node in self.nodes:
            if node.op_type == "Constant" and not node.domain and node.attribute[0].name == "value":
                tensors[node.output[0]] = node.attribute[0].t
        self.tensors = {name: self.tensor(tensor) for name, tensor in tensors.items()}
        known = {name: constant for name, constant in self.tensors.items() if name not in self.given}
        self.values: ChainMap[str, Any] = ChainMap(known, outer.values if outer else {})
        self.types: ChainMap[str, Any] = ChainMap({}, outer.types if outer else {})
        for value in (
            v
            for part in ("value_info", "input", "output")
            for v in getattr(graph, part, ())
            if not isinstance(v, str)
        ):
            kind = value.type.tensor_type
            dims = [d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in kind.shape.dim]
            self.types[value.name] = kind.elem_type, tuple(dims) if kind.HasField("shape") else None

    def inside(self, body: onnx.GraphProto) -> "Side":
        """A graph in an attribute of a node, which sees all values of this one."""
        return Side(body, self.opsets, self.base, self.stored, self)

    def tensor(self, tensor: onnx.TensorProto) -> Constant:
        """A tensor of the file, read when somebody looks."""
        return Constant(
            tensor.data_type, tuple(tensor.dims), lambda: numpy_helper.to_array(tensor, self.base)
        )

    def run(self, node: onnx.NodeProto) -> list[Any]:
        """What a node makes: constants, forms, or leaves."""
        inputs = [self.values.get(name, NONE) if name else None for name in node.input]
        types = [
            (v.kind, v.shape) if isinstance(v, Constant) else self.types.get(name, NONE)
            for v, name in zip(inputs, node.input, strict=True)
        ]
        call = Call(node, inputs, types, self.types.get(node.output[0], NONE), self.stored)
        try:
            require(not node.domain and NONE not in inputs and node.op_type not in RANDOM, "it is not known")
            if not any(isinstance(value, Leaf | Form) for value in inputs):
                return self.computed(call)
            shape = types[0][1] if node.op_type == "Shape" and not node.attribute else None
            if shape is not None and all(isinstance(n, int) for n in shape):
                return [Constant(7, (len(shape),), lambda: np.array(shape, np.int64))]
            unit, _ = call
            require(unit > 0 or node.op_type in SAME, "it is no floating type")
            made = meaning(call)
            return made if isinstance(made, list) else [made]
        except Declined:
            return [self.opaque(call, index) for index in range(len(node.output))]

    def computed(self, call: Call) -> list[Any]:
        """Constants of constants, floating ones of the type that is stated, or of what they are made of."""
        node, known = call.node, [value for value in call.inputs if value is not None]
        feeds = {name: v.wide() for name, v in zip(node.input, call.inputs, strict=True) if v is not None}
        ends = [[onnx.ValueInfoProto(name=name) for name in names if name] for names in (feeds, node.output)]
        graph = helper.make_graph([node], "part", ends[0], ends[1])
        try:
            model = helper.make_model(graph, opset_imports=self.opsets)
            arrays = [np.asarray(array) for array in ReferenceEvaluator(model).run(None, feeds)]
        except Exception as error:
            raise Declined(f"{node.op_type} cannot be evaluated: {error}") from error
        depth = max((v.depth for v in known), default=0) + (node.op_type not in MOVING)
        floats = [kind for kind in (call.made[0], *(v.kind for v in known)) if kind in UNITS]
        made: list[Any] = []
        for array in arrays:
            own = int(helper.np_dtype_to_tensor_dtype(array.dtype))
            kind = floats[0] if own in UNITS and floats else own
            made.append(
                Constant(kind, array.shape, partial(np.asarray, array), depth if kind in UNITS else 0)
            )
        return made

    def opaque(self, call: Call, index: int) -> Any:
        """A leaf; a positive scale passes through what is homogeneous."""
        node, inputs = call.node, tuple(map(plain, call.inputs))
        kind, shape = self.types.get(node.output[index], NONE)
        key = (node.domain, node.op_type, attributes(node), len(node.output), index)
        drawn = node.op_type in {*RANDOM, "Dropout"}  # one that is trained, or may be
        known = NONE not in inputs and not drawn and not bodies(node)
        leaf = Leaf(shape, UNITS.get(kind, 0.0), key if known else (), inputs)
        if (
            inputs
            and isinstance(inputs[0], Form)
            and node.op_type in HOMOGENEOUS
            and len(inputs[0].terms) == 1
        ):
            bare = replace(leaf, inputs=(*inputs[0].terms, *inputs[1:]))
            return through(as_form(bare), inputs[0]) or leaf
        return leaf

    def cone(self, name: str, ends: Mapping[str, Any]) -> tuple[tuple[str, ...], list[str]]:
        """The nodes that make a value of some that are known, in order, and what they read of those."""
        found, leaves, stack = set[int](), dict[str, None](), [name]
        while stack:
            index = self.makers.get(stack.pop(), -1)
            if index >= 0 and index not in found:
                found.add(index)
                read = [
                    n for n in self.nodes[index].input if n and not isinstance(self.values.get(n), Constant)
                ]
                leaves.update(dict.fromkeys(n for n in read if n in ends))
                stack.extend(n for n in read if n not in ends)
        return tuple(self.nodes[i].name or self.nodes[i].output[0] for i in sorted(found)), list(leaves)


def bodies(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """The graphs in the attributes of a node, in the order of their names."""
    entries = sorted(node.attribute, key=lambda entry: entry.name)
    return [graph for entry in entries for graph in ([entry.g] if entry.HasField("g") else entry.graphs)]


def attributes(node: onnx.NodeProto) -> tuple[bytes, ...]:
    """All attributes in an order of their own; of graphs, which are compared apart, names and number."""
    found = []
    for entry in node.attribute:
        bare = onnx.AttributeProto()
        bare.CopyFrom(entry)
        for graph in (*([bare.g] if bare.HasField("g") else ()), *bare.graphs):
            graph.Clear()
        found.append(bare.SerializeToString(deterministic=True))
    return tuple(sorted(found))

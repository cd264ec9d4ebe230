"""One of two graphs that are compared: what each of its values is, read in the order of the nodes."""

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import onnx
from onnx import helper, numpy_helper

from fuser.affine_forms import Form, Leaf, through
from fuser.errors import Declined, require
from fuser.operators import MOVING, SAME, UNITS, Call, Constant, Shape, as_form, lifted, plain

HOMOGENEOUS: Final = {
    "Relu",
    "LeakyRelu",
    "PRelu",
    "MaxPool",
    "AveragePool",
    "GlobalMaxPool",
    "GlobalAveragePool",
}


@dataclass
class Side:
    """One of two graphs: what each of its values is, as far as it has been read."""

    graph: Any
    opsets: Any
    base: str
    types: Mapping[str, tuple[int, Shape]]
    stored: int
    values: MutableMapping[str, Any]

    def __post_init__(self) -> None:
        self.nodes = list(self.graph.node)
        self.makers = {name: index for index, node in enumerate(self.nodes) for name in node.output if name}
        self.given = [value if isinstance(value, str) else value.name for value in self.graph.input]
        self.tensors = {tensor.name: self.tensor(tensor) for tensor in getattr(self.graph, "initializer", ())}
        self.values.update({name: tensor for name, tensor in self.tensors.items() if name not in self.given})
        for node in self.nodes:
            if node.op_type == "Constant" and not node.domain and node.attribute[0].name == "value":
                self.values[node.output[0]] = self.tensor(node.attribute[0].t)

    def tensor(self, tensor: onnx.TensorProto) -> Constant:
        """A tensor of the file, read when somebody looks."""
        return Constant(
            tensor.data_type, tuple(tensor.dims), lambda: numpy_helper.to_array(tensor, self.base)
        )

    def type(self, name: str) -> tuple[int, Shape]:
        """Element type and shape, 0 and None where they are not known."""
        value = self.values.get(name)
        return (value.kind, value.shape) if isinstance(value, Constant) else self.types.get(name, (0, None))

    def run(self, node: onnx.NodeProto) -> list[Any]:
        """What a node makes: constants, forms, or leaves."""
        inputs = tuple(self.values.get(name) if name else None for name in node.input)
        kinds, shapes = zip(*map(self.type, node.input), strict=True) if node.input else ((), ())
        call = Call(node, inputs, kinds, shapes, self.type(node.output[0])[1], self.opsets, self.stored)
        try:
            require(not node.domain and not bodies(node), f"{node.op_type} is not known")
            known = shapes[0] if node.op_type == "Shape" and not node.attribute else None
            if known and all(isinstance(n, int) for n in known):
                return [Constant(7, (len(known),), lambda: np.array(known))]
            if not call.data and None not in [v for v, name in zip(inputs, node.input, strict=True) if name]:
                return self.computed(call)
            require(self.type(node.output[0])[0] in UNITS or call.unit > 0, "it is no floating type")
            return lifted(call)
        except Declined:
            return [self.opaque(call, index) for index in range(len(node.output))]

    def computed(self, call: Call) -> list[Any]:
        """Constants of constants, floating ones of the type that is stated, or of what they are made of."""
        deep = max((constant.depth for constant in call.constants), default=0) + (
            call.kind not in SAME | MOVING
        )
        results: list[Any] = []
        for name, array in zip(call.node.output, call.answer(), strict=True):
            kind = int(helper.np_dtype_to_tensor_dtype(array.dtype))
            stated = [
                self.types.get(name, (0, None))[0],
                *(constant.kind for constant in call.constants),
                kind,
            ]
            kind = next(k for k in stated if k in UNITS) if kind in UNITS else kind
            results.append(
                Constant(kind, array.shape, partial(np.asarray, array), deep if kind in UNITS else 0)
            )
        return results

    def opaque(self, call: Call, index: int) -> Any:
        """A leaf; a positive scale passes through what is homogeneous."""
        node, inputs = call.node, tuple(map(plain, call.inputs))
        operator = node.domain, node.op_type, attributes(node), len(node.output), index
        shape = self.type(node.output[index])[1]
        if inputs and isinstance(inputs[0], Form) and node.op_type in HOMOGENEOUS and not node.domain:
            (leaf, *more) = inputs[0].terms
            passed = None if more else through(as_form(Leaf(shape, operator, (leaf, *inputs[1:]))), inputs[0])
            if passed is not None:
                return passed
        return Leaf(shape, operator, inputs)

    def cone(self, name: str, ends: Mapping[str, Any]) -> tuple[list[onnx.NodeProto], list[str]]:
        """The nodes from the values `ends` to a value, in order, and which of `ends` they read."""
        found: set[int] = set()
        leaves: dict[str, None] = {}
        stack = [name]
        while stack:
            index = self.makers.get(stack.pop(), -1)
            if index < 0 or index in found:
                continue
            found.add(index)
            read = [n for n in self.nodes[index].input if n]
            leaves.update(dict.fromkeys(n for n in read if n in ends))
            stack.extend(n for n in read if n not in ends and not isinstance(self.values.get(n), Constant))
        return [self.nodes[index] for index in sorted(found)], list(leaves)


def bodies(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """The graphs in the attributes of a node."""
    return [
        graph for entry in node.attribute for graph in ([entry.g] if entry.HasField("g") else entry.graphs)
    ]


def attributes(node: onnx.NodeProto) -> tuple[bytes, ...]:
    """All attributes but graphs, in an order of their own."""
    others = (entry for entry in node.attribute if not entry.HasField("g") and not entry.graphs)
    return tuple(sorted(entry.SerializeToString(deterministic=True) for entry in others))


def equal(a: Any, b: Any) -> bool:
    """Whether two constants are the same to the bit, or two leaves the same."""
    if not isinstance(a, Constant) or not isinstance(b, Constant):
        return a is b
    if (a.kind, a.shape) != (b.kind, b.shape):
        return False
    old, new = a.load(), b.load()
    return bool((old == new).all()) if old.dtype == object else old.tobytes() == new.tobytes()


def near(old: Constant, new: Constant) -> bool:
    """Whether one constant may be the other, computed in other ways and rounded."""
    if (old.kind, old.shape) != (new.kind, new.shape) or old.kind not in UNITS:
        return equal(old, new)
    a, b = old.wide, new.wide
    room = UNITS[old.kind] * (np.abs(a) + old.depth * np.abs(a).max(initial=0.0))
    return bool(((np.abs(a - b) <= room) | (a == b) | (np.isnan(a) & np.isnan(b))).all())

"""A random network that grows by one operation after the other, and knows the shape of every value.

Extents are symbols. The shape of a value is known at each of a few *places*, which are an extent for every
symbol, on both sides of every literal number that operations draw.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[Any]
Shape = tuple[int, ...]
Dtype = str  # of numpy, or "string"

EXTENTS: Final = {"N": (1, 2, 4, 7, 11), "H": (4, 5, 8, 9, 12), "W": (4, 6, 7, 10, 13)}
"""What symbols stand for, in places whose order is drawn. The literal numbers lie between."""
LITERALS: Final = tuple(range(1, 11))
FLOATS: Final = ("float32", "float16", "float64")
COARSE: Final = {"float64": 0, "float32": 1, "float16": 2}
TYPES: Final = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "float64": TensorProto.DOUBLE,
    "int64": TensorProto.INT64,
    "bool": TensorProto.BOOL,
    "string": TensorProto.STRING,
}
OPSETS: Final = (11, 13, 15, 17, 18, 21)
LIMIT: Final = 20_000
"""More elements than these take time, and show nothing."""


@dataclass(frozen=True, eq=False)
class Value:
    """A value: its type, its shape at each place, the narrowest type that is in it, what it lies in."""

    name: str
    dtype: Dtype
    shapes: tuple[Shape, ...]
    coarse: int = 0  # of `COARSE`
    wrapped: str = ""  # "sequence" or "optional"

    @property
    def rank(self) -> int:
        return len(self.shapes[0])

    def fixed(self, axis: int) -> int | None:
        """The extent of an axis, where it is the same everywhere."""
        found = {shape[axis] for shape in self.shapes}
        return found.pop() if len(found) == 1 else None

    def like(self, other: "Value") -> bool:
        """Whether type and shape are those of another."""
        return (self.dtype, self.shapes, self.wrapped) == (other.dtype, other.shapes, other.wrapped)


@dataclass
class Model:
    """What all graphs of one model share."""

    random: np.random.Generator
    opset: int
    symbols: dict[str, Shape]
    ir_version: int
    nodes_hold_constants: bool
    functions: list[tuple[onnx.FunctionProto, list[Value], list[Value]]] = field(default_factory=list)
    named: int = 0

    @property
    def places(self) -> int:
        return len(next(iter(self.symbols.values())))


@dataclass
class Net:
    """One graph: the main one, a body that sees what is around it, or a function, which does not."""

    model: Model
    depth: int = 0
    constants_are_nodes: bool = False
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)
    inputs: list[Value] = field(default_factory=list)
    values: list[Value] = field(default_factory=list)

    @property
    def random(self) -> np.random.Generator:
        return self.model.random

    def body(self) -> Self:
        """A body inside this graph: it sees all values of this one."""
        # Before version 4 of the format initializers had to be inputs, which bodies cannot have.
        held = self.constants_are_nodes or self.model.ir_version < 4 or self.chance(0.3)
        return type(self)(self.model, self.depth + 1, held, values=list(self.values))

    def pick(self, choices: Sequence[Any]) -> Any:
        """One of some."""
        return choices[int(self.random.integers(len(choices)))]

    def chance(self, part: float) -> bool:
        return bool(self.random.random() < part)

    def fresh(self, prefix: str) -> str:
        self.model.named += 1
        return f"{prefix}{self.model.named}"

    def grow(self, operations: Sequence[Callable[["Net", Value], None]], length: int) -> None:
        """Add operations; many of those that are tried do not fit, and add nothing."""
        for _ in range(6 * length):
            if len(self.nodes) >= length:
                return
            tensors = [value for value in self.values if not value.wrapped]
            # The youngest values half of the time: chains, not only bushes.
            self.pick(operations)(self, self.pick(tensors[-3:] if self.chance(0.5) else tensors))

    def given(self, dtype: Dtype, shapes: tuple[Shape, ...], wrapped: str = "") -> Value:
        """An input of this graph."""
        value = Value(self.fresh("x"), dtype, shapes, COARSE.get(dtype, 0), wrapped)
        self.inputs.append(value)
        self.values.append(value)
        return value

    def weight(self, like: Value, *shape: int) -> str:
        """A constant of the type of a value; now and then some of it is zero, or all of it."""
        array = self.random.standard_normal(shape) / np.sqrt(max(1, math.prod(shape[1:])))
        if array.ndim > 1 and self.chance(0.3):
            array[self.random.random(shape[:2]) < self.pick((0.5, 1.1))] = 0.0
        return self.constant(array.astype(like.dtype))

    def whole(self, *numbers: int) -> str:
        """A list of whole numbers."""
        return self.constant(np.array(numbers, dtype=np.int64))

    def scalar(self, number: float, dtype: Dtype) -> str:
        return self.constant(np.array(number, dtype=dtype))

    def constant(self, array: Array) -> str:
        """A constant by name: an initializer, or a node."""
        name = self.fresh("c")
        tensor = numpy_helper.from_array(np.asarray(array), name)
        if self.constants_are_nodes or (self.model.nodes_hold_constants and self.chance(0.5)):
            self.nodes.append(helper.make_node("Constant", [], [name], value=tensor))
        else:
            self.weights.append(tensor)
        return name

    def fits(self, shapes: Sequence[Sequence[int]]) -> bool:
        """Whether shapes are those of a value that is neither empty nor large."""
        return all(min(shape, default=1) > 0 and math.prod(shape) <= LIMIT for shape in shapes)

    def add(
        self,
        kind: str,
        inputs: Sequence[Value | str],
        shapes: Sequence[Sequence[int]],
        dtype: Dtype | None = None,
        **attributes: Any,
    ) -> Value:
        """A node, and the one value that it makes, of the type of its first input."""
        return self.node(kind, inputs, [(dtype, shapes)], **attributes)[0]

    def node(
        self,
        kind: str,
        inputs: Sequence[Value | str],
        results: Sequence[tuple[Dtype | None, Sequence[Sequence[int]]]],
        *,
        coarse: int = 0,
        wrapped: str = "",
        domain: str = "",
        **attributes: Any,
    ) -> list[Value]:
        """A node, and the values that it makes: their types (of the first input where None) and shapes."""
        given = [value for value in inputs if isinstance(value, Value)]
        coarse = max(coarse, *(value.coarse for value in given)) if given else coarse
        made = []
        for dtype, shapes in results:
            kept = dtype or given[0].dtype
            made.append(
                Value(
                    self.fresh("v"),
                    kept,
                    tuple(map(tuple, shapes)),
                    max(coarse, COARSE.get(kept, 0)),
                    wrapped,
                )
            )
        names = [value if isinstance(value, str) else value.name for value in inputs]
        label = self.fresh("n") if self.chance(0.8) else ""
        self.nodes.append(
            helper.make_node(kind, names, [v.name for v in made], name=label, domain=domain, **attributes)
        )
        self.values.extend(made)
        return made

    def info(self, value: Value, *, stated: float = 1.0) -> onnx.ValueInfoProto:
        """The declaration of a value; extents that are not stated have no name."""
        dims: list[int | str | None] = []
        for axis in range(value.rank):
            extents = tuple(shape[axis] for shape in value.shapes)
            symbol = next((name for name, own in self.model.symbols.items() if own == extents), None)
            fixed = value.fixed(axis)
            dims.append(fixed if fixed is not None else symbol if self.chance(stated) else None)
        kind = TYPES[value.dtype]
        if value.wrapped == "sequence":
            return helper.make_tensor_sequence_value_info(value.name, kind, None)
        if value.wrapped == "optional":
            held = helper.make_tensor_type_proto(kind, dims)
            return helper.make_value_info(value.name, helper.make_optional_type_proto(held))
        return helper.make_tensor_value_info(value.name, kind, dims)

    def graph(self, name: str, outputs: Sequence[Value], stated: float = 1.0) -> onnx.GraphProto:
        """The graph so far."""
        inputs = [self.info(value, stated=stated) for value in self.inputs]
        made = [self.info(value, stated=stated) for value in outputs]
        return helper.make_graph(self.nodes, name, inputs, made, self.weights)

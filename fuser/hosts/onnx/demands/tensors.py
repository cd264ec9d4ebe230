"""What the search for inputs knows of tensors and nodes of an ONNX file, read as protobuf gives them.

This is on purpose not the reader that the compiler has: inputs that prove a rewrite are found without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import numpy as np
import onnx
from numpy.typing import NDArray

from fuser.judge.demands import Demands
from fuser.judge.forms import Extent, Known, added
from fuser.judge.needs import Trace

SHORT: Final = 64
"""Integer tensors of at most so many elements may be shapes; of larger ones only the extents are read."""

Dims = tuple[Extent, ...]
Shapes = Sequence[Dims | None]


@dataclass(frozen=True, eq=False)
class Span:
    """The least element, and one more than the largest, if the elements that were `counted` are 0 or 1."""

    low: Known
    high: Known
    counted: tuple[Trace, ...] = ()

    def moved(self, by: Known) -> Span:
        """The same with something added."""
        return Span(added(self.low, by), added(self.high, by), self.counted)

    def require(self) -> None:
        """Ask for that."""
        for trace in self.counted:
            trace.within(0, 2)


@dataclass(slots=True, eq=False)
class Tensor:
    """One value; each field is None or empty where that is not known.

    `array`: its elements, or one for all of them. `elements`: those of a short integer tensor, as extents.
    `traces`: what inputs its elements were computed from, one by one. `span`: between what they lie.
    """

    dims: Dims | None = None
    array: NDArray[Any] | None = None
    elements: Dims | None = None
    traces: tuple[Trace, ...] = ()
    span: Span | None = None

    @classmethod
    def of(cls, array: NDArray[Any]) -> Tensor:
        """A constant."""
        whole = array.dtype.kind in "iu" and array.size <= SHORT and array.ndim < 2
        elements = tuple(int(n) for n in array.reshape(-1)) if whole else None
        return cls(array.shape, array, elements)

    @property
    def number(self) -> Any:
        """The element of a tensor all of whose elements are equal; None for others."""
        if self.array is None or self.array.size == 0:
            return None
        first = self.array.reshape(-1)[0]
        return first if self.array.size == 1 or bool((self.array == first).all()) else None


@dataclass(slots=True)
class Call:
    """A node: its operator, what it reads, its attributes, how many outputs it has."""

    kind: str
    inputs: list[Tensor | None]
    attributes: Mapping[str, onnx.AttributeProto]
    outputs: int
    opset: int
    demands: Demands = field(repr=False)

    def input(self, index: int) -> Tensor:
        """An input; one of which nothing is known where it is absent."""
        found = self.inputs[index] if index < len(self.inputs) else None
        return found if found is not None else Tensor()

    def given(self, index: int) -> bool:
        """Whether there is such an input."""
        return index < len(self.inputs) and self.inputs[index] is not None

    def dims(self, index: int) -> Dims:
        """The extents of an input, or `Unknown`."""
        return known(self.input(index).dims, tuple)

    def attribute(self, name: str, default: Any = None) -> Any:
        """The value of an attribute."""
        found = self.attributes.get(name)
        return default if found is None else onnx.helper.get_attribute_value(found)

    def text(self, name: str, default: str) -> str:
        """The value of an attribute that is a string."""
        found = self.attribute(name, default)
        return found.decode(errors="replace") if isinstance(found, bytes) else str(found)

    def listed(self, name: str, index: int) -> Dims | None:
        """A list of numbers: an attribute in old opsets, an input in new ones. None where it is absent.

        Raises:
            Unknown: it is there, and its elements are not known.
        """
        if name in self.attributes:
            return tuple(self.attribute(name))
        if not self.given(index):
            return None
        return known(self.input(index).elements, tuple)


class Unknown(Exception):
    """A shape or an element is not known."""


T = TypeVar("T")


def known(value: object, kind: type[T]) -> T:
    """The value, where it is known and of that kind.

    Raises:
        Unknown: it is not.
    """
    if not isinstance(value, kind):
        raise Unknown
    return value


def held(tensor: onnx.TensorProto, folder: str) -> Tensor:
    """What is known of a constant: its extents, and its elements where they are few."""
    dims = tuple(tensor.dims)
    if int(np.prod(dims)) > SHORT or tensor.data_type == onnx.TensorProto.UNDEFINED:
        return Tensor(dims)
    try:
        return Tensor.of(onnx.numpy_helper.to_array(tensor, folder))
    except (OSError, ValueError, TypeError, KeyError, onnx.checker.ValidationError):
        # Elements beside the file that are not there, or of a type that numpy lacks: who runs it will tell.
        return Tensor(dims)


def skeleton(model: Any) -> onnx.ModelProto:
    """An `onnx_ir.Model` without the elements of its larger weights."""
    import onnx_ir

    proto = onnx.ModelProto(ir_version=model.ir_version)
    for domain, version in model.opset_imports.items():
        proto.opset_import.add(domain=domain, version=version)
    proto.functions.extend(map(onnx_ir.to_proto, model.functions.values()))
    proto.graph.node.extend(map(onnx_ir.to_proto, model.graph))
    for values, infos in ((model.graph.inputs, proto.graph.input), (model.graph.outputs, proto.graph.output)):
        for value in values:
            onnx_ir.serde.serialize_value_into(infos.add(), value)
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        if tensor is not None and tensor.size <= SHORT:
            onnx_ir.serde.serialize_tensor_into(proto.graph.initializer.add(), tensor)
            proto.graph.initializer[-1].name = name
        elif tensor is not None:
            proto.graph.initializer.add(name=name, dims=tensor.shape.numpy(), data_type=int(tensor.dtype))
    return proto

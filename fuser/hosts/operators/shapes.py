"""Numbers about shapes, and tensors that are made of numbers alone."""

from collections.abc import Sequence
from math import inf, prod
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fuser.hosts.operators.call import Call, attribute, data
from fuser.hosts.operators.extents import Extents, Shape, Shapes
from fuser.hosts.operators.operator import Arrays, Operator, always, no_more
from fuser.ir.constant import Constant
from fuser.ir.node import Node


def lift_shape(call: Call, node: Node) -> Constant | None:
    """Shape of a tensor whose extents are all known  ->  a constant."""
    dims = _extents(call, node)
    if dims is None or not all(isinstance(n, int) for n in dims):
        return None
    shape: NDArray[Any] = np.array([int(n or 0) for n in dims], dtype=np.int64)
    return Constant.of(shape)


def _extents(call: Call, node: Node) -> Shape | None:
    """The extents that are asked for."""
    x = data(node).shape
    return None if x is None else x[attribute(call, "start", 0) : attribute(call, "end")]


def shape_elements(call: Call, node: Node, extents: Extents) -> Shape | None:
    """The extents themselves."""
    return _extents(call, node)


def shape_shape(call: Call, node: Node, extents: Extents) -> Shapes:
    """As many numbers as the input has axes."""
    found = _extents(call, node)
    return [] if found is None else [(len(found),)]


def one_number(call: Call, node: Node, extents: Extents) -> Shapes:
    """A scalar."""
    return [()]


def constant_shape(call: Call, node: Node, extents: Extents) -> Shapes:
    """What the node holds."""
    held = node.outputs[0].constant
    return [held.shape] if held is not None else []


def constant_type(call: Call, node: Node) -> Sequence[str | None]:
    """What the node holds."""
    held = node.outputs[0].constant
    return [None if held is None else held.dtype or None]


def filled_shape(call: Call, node: Node, extents: Extents) -> Shapes:
    """What the input says."""
    return [extents.elements(data(node))]


def filled_type(call: Call, node: Node) -> Sequence[str | None]:
    """That of the value that it is filled with."""
    value = attribute(call, "value")
    return ["float32" if value is None else value.dtype or None]


def _filled(arrays: Arrays) -> float:
    """An element for each position."""
    return prod(abs(int(n)) for n in arrays[0].flat)


def _stepped(arrays: Arrays) -> float:
    """An element for each step."""
    start, limit, step = (array.item() for array in arrays)
    return abs(limit - start) / abs(step) if step else inf


OPERATORS: Final = (
    Operator(
        "Shape",
        lift_shape,
        shape_shape,
        always("int64"),
        shape_elements,
        makes=no_more,
        of_shape=True,
    ),
    Operator("Size", shape=one_number, types=always("int64"), of_shape=True),
    Operator("Constant", shape=constant_shape, types=constant_type),
    Operator("ConstantOfShape", shape=filled_shape, types=filled_type, makes=_filled),
    Operator("Range", makes=_stepped),
)

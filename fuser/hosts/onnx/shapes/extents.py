"""Symbolic extents, and the integer tensors that are computed from them."""

# Every rule has the signature of the table.
# ruff: noqa: ARG001

from collections.abc import Callable, Iterable
from math import gcd
from typing import Final

import numpy as np

from fuser.hosts.onnx.node import attribute, data, ints, operand, source
from fuser.ir.extents import Dim, Extent, affine
from fuser.ir.node import Node, Value

Shape = tuple[Dim, ...]

SHORT: Final = 64
"""An integer tensor of more elements is no shape."""


class Extents:
    """Symbolic extents `floor((k * base + a) / d)`, written so that equal ones have equal names.

    `numbers`: what is known of the elements of small integer tensors, which are extents as a rule.
    """

    def __init__(self) -> None:
        self.numbers: dict[Value, Shape] = {}

    def product(self, dims: Iterable[Dim], divisor: int = 1) -> Dim:
        """The product over `divisor`; None with two symbolic extents or more."""
        factor, symbol = 1, None
        for dim in dims:
            if isinstance(dim, int):
                factor *= dim
            elif dim is None or symbol is not None:
                return None
            else:
                symbol = dim
        if symbol is None:
            return factor // divisor if divisor and factor % divisor == 0 else None
        extent = Extent.parse(symbol)
        common = factor * (gcd(extent.factor, extent.add) if extent.divisor == 1 else 1)
        return affine(symbol, 0, divisor, factor) if divisor and common % divisor == 0 else None

    def elements(self, value: Value | None) -> Shape | None:
        """What is known of the elements of a short integer tensor; None where that is nothing."""
        if value is None:
            return None
        held = value.constant
        if held is None:
            return self.numbers.get(value)
        if held.size > SHORT or held.dtype not in ("int64", "int32"):
            return None
        return tuple(int(n) for n in np.asarray(held.array()).reshape(-1))


ElementRule = Callable[[Node, Extents], Shape | None]


def _shape(node: Node, extents: Extents) -> Shape | None:
    x = data(node).shape
    return None if x is None else x[attribute(node, "start", 0) : attribute(node, "end")]


def _same(node: Node, extents: Extents) -> Shape | None:
    return extents.elements(operand(node, 0))


def _gather(node: Node, extents: Extents) -> Shape | None:
    x, indices = extents.elements(data(node)), extents.elements(data(node, 1))
    if x is None or indices is None or attribute(node, "axis", 0) not in (0, -1):
        return None
    inside = all(isinstance(i, int) and -len(x) <= i < len(x) for i in indices)
    return tuple(x[i] for i in indices if isinstance(i, int)) if inside else None


def _slice(node: Node, extents: Extents) -> Shape | None:
    x = extents.elements(data(node))
    bounds = [
        ints(node, name) or extents.elements(operand(node, i)) for i, name in ((1, "starts"), (2, "ends"))
    ]
    # Steps that are not known are not steps of 1.
    step = (1,) if operand(node, 4) is None else extents.elements(operand(node, 4))
    if x is None or any(bound is None or len(bound) != 1 for bound in (*bounds, step)):
        return None
    first, last, by = (bound[0] for bound in (*bounds, step) if bound is not None)
    if not (isinstance(first, int) and isinstance(last, int) and isinstance(by, int) and by > 0):
        return None
    return x[first:last:by]


def _concat(node: Node, extents: Extents) -> Shape | None:
    result: list[Dim] = []
    for value in node.inputs:
        part = extents.elements(value)
        if part is None:
            return None
        result.extend(part)
    return tuple(result)


def _arithmetic(node: Node, extents: Extents) -> Shape | None:
    left, right = extents.elements(data(node)), extents.elements(data(node, 1))
    if left is None or right is None or not (len(left) == len(right) or 1 in (len(left), len(right))):
        return None
    n = max(len(left), len(right))
    left, right = (side * n if len(side) == 1 else side for side in (left, right))
    kind = source(node).op_type
    return tuple(_combine(kind, a, b, extents) for a, b in zip(left, right, strict=True))


def _combine(kind: str, a: Dim, b: Dim, extents: Extents) -> Dim:
    if isinstance(a, int) and not isinstance(b, int) and kind in ("Add", "Mul"):
        a, b = b, a
    if not isinstance(b, int):
        return None
    if kind == "Add":
        return affine(a, b)
    if kind == "Sub":
        return affine(a, -b)
    if kind == "Mul":
        return affine(a, factor=b) if b > 0 else None
    return affine(a, divisor=b) if b > 0 and not (isinstance(a, int) and a < 0) else None


ELEMENT_RULES: Final[dict[str, ElementRule]] = {
    **dict.fromkeys(["Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze"], _same),
    **dict.fromkeys(["Add", "Div", "Mul", "Sub"], _arithmetic),
    "Concat": _concat,
    "Gather": _gather,
    "Shape": _shape,
    "Slice": _slice,
}

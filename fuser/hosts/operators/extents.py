"""Shapes that rules infer: symbolic extents, and the integer tensors that are computed from them."""

from collections.abc import Iterable, Sequence
from math import gcd
from typing import Final

import numpy as np

from fuser.errors import Declined
from fuser.hosts.operators.call import Call, Held, data, operand
from fuser.ir.extents import Dim, Extent, affine
from fuser.ir.node import Node, Value

Shape = tuple[Dim, ...]
Shapes = Sequence[Shape | None]
"""The shapes of the outputs; of those at the end nothing may be known."""

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

    def held(self, call: Call, node: Node, name: str) -> Shape | None:
        """What is known of an attribute that lists integers, whether the graph computes it or not."""
        value = call.attributes.get(name)
        if isinstance(value, Held):
            return self.elements(operand(node, value.index))
        return None if value is None else tuple(value)


def shape_of(value: Value | None) -> Shape:
    """The shape of a value.

    Raises:
        Declined: it is not known.
    """
    if value is None or value.shape is None:
        raise Declined("a shape is not known")
    return value.shape


def broadcast(dims: Iterable[Dim]) -> Dim:
    """The extent that extents broadcast to."""
    candidates = set(dims) - {1}
    if len(candidates) <= 1:
        return candidates.pop() if candidates else 1
    # A symbolic extent beside a known one can only be that one, or 1.
    known = [dim for dim in candidates if isinstance(dim, int)]
    return known[0] if len(known) == 1 else None


def like_first(call: Call, node: Node, extents: Extents) -> Shapes:
    """Every output has the shape of the first input."""
    return [data(node).shape] * len(node.outputs)


def first_alone(call: Call, node: Node, extents: Extents) -> Shapes:
    """The first output has the shape of the first input; of the others nothing is known."""
    return [data(node).shape]


def aligned(call: Call, node: Node, extents: Extents) -> Shapes:
    """What the inputs broadcast to."""
    shapes = [shape_of(value) for value in node.inputs]
    if len(shapes) == 2 and shapes[0] == shapes[1]:
        return [shapes[0]]
    rank = max(map(len, shapes))
    filled = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    return [tuple(broadcast(dims) for dims in zip(*filled, strict=True))]

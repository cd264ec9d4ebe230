"""Shapes and element types of graphs that were traced without inputs.

Extents that are not known have names, and what an operator makes of them has a name that spells the formula:
two values with the same names have the same extents, whatever the caller feeds. A tensor that a Conv2d reads
has a batch axis. How the shape of a result follows, the records of the operators say.
"""

from collections.abc import Iterable, Sequence
from math import prod
from typing import Any, Final

import torch

from fuser.errors import Declined
from fuser.hosts.operators.call import Call, Held, operand
from fuser.hosts.operators.extents import Extents, Shape, Shapes, first_alone, like_first
from fuser.hosts.operators.operator import of_first
from fuser.hosts.torch.call import Bound
from fuser.hosts.torch.own import OPERATORS
from fuser.hosts.torch.tensor import dtype_name
from fuser.ir.extents import Dim, Extent
from fuser.ir.node import Node, Value

Types = tuple[Shape | None, str | None]

WEIGHTED: Final = frozenset({"Conv", "ConvTranspose", "Linear"})
"""They compute in one type, which their weight has."""

RESHAPED: Final = frozenset({"Reshape", "reshape_as", "interpolate"})
"""What they read beside their data says only which shape that gets."""


class TracedExtents(Extents):
    """Extents whose products have names too: the factors in order, so that H * W is W * H."""

    def product(self, dims: Iterable[Dim], divisor: int = 1) -> Dim:
        """The product over `divisor`; None where the known factors do not divide by it."""
        listed = list(dims)
        names = sorted(n for n in listed if isinstance(n, str))
        if len(names) < 2 or None in listed:
            return super().product(listed, divisor)
        factor = prod(n for n in listed if isinstance(n, int))
        factors = [n if n.replace(".", "_").isidentifier() else f"({n})" for n in names]
        whole = divisor and factor % divisor == 0
        return str(Extent("*".join(factors), factor // divisor)) if whole else None

    def held(self, call: Call, node: Node, name: str) -> Shape | None:
        """What is known of an attribute that lists integers, some of which the graph may compute."""
        value = call.attributes.get(name)
        if value is None or isinstance(value, Held):
            return super().held(call, node, name)
        found: list[Dim] = []
        for entry in value:
            held = self.elements(operand(node, entry.index)) if isinstance(entry, Held) else (entry,)
            found += (None,) if held is None else held
        return tuple(found)


def demand(bound: Bound, operands: Sequence[Value | None]) -> None:
    """Give the data of a convolution or norm the rank and channels that it must have, if not known."""
    x = operands[0] if operands else None
    if x is None or x.constant is not None or not bound.known:
        return
    if x.dtype is None and bound.kind in WEIGHTED and operands[1] is not None:
        x.dtype = operands[1].dtype
    rank, channels = _demanded(bound, operands)
    if rank is None:
        return
    shape = list(named(x, (None,) * rank if x.shape is None else x.shape))
    if len(shape) == rank and isinstance(channels, int) and not isinstance(shape[1], int):
        shape[1] = channels
    x.shape = tuple(shape)


def named(value: Value, shape: Shape) -> Shape:
    """The shape with names for the extents of which nothing is known.

    Those of what the graph is given are plain symbols: it is known what other extents follow from them.
    """
    separator = "_" if value.producer is None else "."
    return tuple(f"{value.name}{separator}{axis}" if dim is None else dim for axis, dim in enumerate(shape))


def _demanded(bound: Bound, operands: Sequence[Value | None]) -> tuple[int | None, int | None]:
    attributes, transposed = bound.call.attributes, bound.kind == "ConvTranspose"
    if (transposed or bound.kind == "Conv") and operands[1] is not None and operands[1].shape is not None:
        weight = operands[1].shape
        channels = weight[0 if transposed else 1]
        if isinstance(channels, int):
            return len(weight), channels if transposed else channels * attributes["group"]
    if (
        bound.kind == "BatchNormalization"
        and len(attributes.get("ranks", ())) == 1
        and operands[3] is not None
    ):
        (rank,), statistics = attributes["ranks"], operands[3].shape
        channels = statistics[0] if statistics else None
        return rank, channels if isinstance(channels, int) else None
    return None, None


def infer(bound: Bound, node: Node, extents: Extents) -> list[Types]:
    """Shape and element type of each result, each None where it is not known."""
    nothing: list[Types] = [(None, None)] * len(node.outputs)
    operator = OPERATORS.get(bound.kind)
    if operator is None or not node.inputs or node.inputs[0] is None:
        return nothing
    if not bound.known and operator.shape not in {like_first, first_alone}:
        return nothing
    types = operator.types(bound.call, node)
    if operator.types is of_first:
        types = [_dtype(bound, node)] * len(node.outputs)
    shapes: Shapes = [None] * len(node.outputs)
    try:
        found = operator.elements(bound.call, node, extents) if operator.elements is not None else None
        if found is not None:
            extents.numbers[node.outputs[0]] = found
        if operator.shape is None:
            return nothing
        shapes = operator.shape(bound.call, node, extents)
    except (Declined, IndexError, KeyError, TypeError, ValueError):
        pass
    return list(zip(shapes, types, strict=False))


def _dtype(bound: Bound, node: Node) -> str | None:
    """Tensors of one type give that type; a number has no say."""
    decisive = 1 if bound.kind in WEIGHTED else 0
    if decisive or bound.kind in RESHAPED:
        value = node.inputs[decisive]
        return None if value is None else value.dtype
    weighty = [
        v
        for v, o in zip(node.inputs, bound.operands, strict=False)
        if v is not None and not isinstance(o, int | float)
    ]
    types = {value.dtype for value in weighty if value.shape != () or len(weighty) == 1}
    return types.pop() if len(types) == 1 else None


def types_of(result: Any) -> Types:
    """Shape and element type of a fake tensor; symbolic extents are named by their formula."""
    if isinstance(result, torch.SymInt | int):
        return (), "int64"
    if not hasattr(result, "dtype") or not hasattr(result, "shape"):
        return None, None
    shape = tuple(n if isinstance(n, int) else str(n.node.expr) for n in result.shape)
    return shape, dtype_name(result.dtype)

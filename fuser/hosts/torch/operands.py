"""Operands of a node that is lifted: data, constants and their values."""

from typing import Any

import numpy as np

from fuser.algebra.conv import Ints
from fuser.algebra.lazy import Array
from fuser.errors import Declined, require
from fuser.ir.constant import Constant
from fuser.ir.node import Node, Value


def data(node: Node, index: int = 0) -> Value:
    """An operand that must be there.

    Raises:
        Declined: it is absent.
    """
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None:
        raise Declined(f"operand {index} is absent")
    return value


def constant(node: Node, index: int, role: str) -> Constant:
    """The constant that an operand is.

    Raises:
        Declined: it is absent, or computed from what is not known before.
    """
    value = data(node, index)
    if value.constant is None:
        raise Declined(f"the {role} {value.name!r} is not a constant")
    return value.constant


def numbers(node: Node, index: int, role: str) -> Array:
    """The values of a constant operand in float64.

    Raises:
        Declined: no constant, or a value is NaN or infinite.
    """
    values = np.asarray(constant(node, index, role).array()).astype(np.float64)
    if not np.isfinite(values).all():
        wrong = values[~np.isfinite(values)].flat[0]
        raise Declined(f"the {role} {data(node, index).name!r} holds {wrong}")
    return values


def spread(value: Any, rank: int) -> Ints:
    """A number for all axes, or one for each.

    Raises:
        Declined: an axis has no number, or one that the graph computes.
    """
    values = tuple(value) if isinstance(value, list | tuple) else (value,)
    require(all(isinstance(v, int) for v in values), f"{values} are not all numbers")
    values = values * rank if len(values) == 1 else values
    require(len(values) == rank, f"{values} for {rank} spatial axes")
    return values

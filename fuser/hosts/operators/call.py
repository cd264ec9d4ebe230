"""Which standard operator a node calls, with which attributes: all that a rule reads of the host.

Attributes have the names that the newest ONNX operator set gives them. Where a set keeps one as an input, it
is `Held` there, and may become constant later; the accessors of this file look it up either way.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from fuser.algebra.conv import Ints
from fuser.algebra.lazy import Array
from fuser.errors import Declined, require
from fuser.ir.constant import Constant
from fuser.ir.extents import Dim
from fuser.ir.node import Apply, Node, Value
from fuser.ir.ops import Sum

INT_MAX: Final = 2**31 - 1
"""Exporters write this, or the 64 bit one, for 'to the end' in Slice."""


@dataclass(frozen=True)
class Held:
    """What input `index` of the node holds, which is there; an attribute that is absent has no entry."""

    index: int


@dataclass(frozen=True, eq=False)
class Call:
    """A call of the standard operator `kind`, whose inputs are those of the node, in the standard's order.

    `refusal` says why it is not lifted though its kind could be. `overridable` are the names of inputs that
    have a value which callers may replace.
    """

    kind: str
    attributes: Mapping[str, Any] = field(default_factory=dict)
    refusal: str = ""
    overridable: frozenset[str] = frozenset()


# Inputs.


def operand(node: Node, index: int) -> Value | None:
    """An input, or None where it is absent."""
    return node.inputs[index] if index < len(node.inputs) else None


def data(node: Node, index: int = 0) -> Value:
    """An input that every valid node of the kind has.

    Raises:
        Declined: it is absent.
    """
    value = operand(node, index)
    if value is None:
        raise Declined(f"input {index} is absent")
    return value


def constant(call: Call, node: Node, index: int, role: str) -> Constant:
    """The constant that an input is.

    Raises:
        Declined: the input is absent, computed, or one that callers may override.
    """
    value = data(node, index)
    if value.constant is not None:
        return value.constant
    if value.name in call.overridable:
        raise Declined(
            f"the {role} {value.name!r} is a graph input with a default, which callers may override"
        )
    raise Declined(f"the {role} {value.name!r} is not a constant")


def numbers(call: Call, node: Node, index: int, role: str) -> Array:
    """The values of a constant input in float64.

    Raises:
        Declined: no constant, or a value is NaN or infinite.
    """
    values = np.asarray(constant(call, node, index, role).array()).astype(np.float64)
    if not np.isfinite(values).all():
        wrong = values[~np.isfinite(values)].flat[0]
        raise Declined(f"the {role} {data(node, index).name!r} holds {wrong}")
    return values


def dtype(node: Node) -> str | None:
    """The element type of the first input, or of the first output where that is not known."""
    first = operand(node, 0)
    known = first.dtype if first is not None else None
    return known or node.outputs[0].dtype


def rank_of(value: Value) -> int:
    """The number of axes.

    Raises:
        Declined: it is not known.
    """
    if value.shape is None:
        raise Declined(f"the rank of {value.name!r} is not known")
    return len(value.shape)


def channels_of(x: Value, axis: int = 1) -> int:
    """The number of channels.

    Raises:
        Declined: it is not known.
    """
    channels = x.shape[axis] if x.shape is not None and len(x.shape) > 1 else None
    if not isinstance(channels, int):
        raise Declined(f"the number of channels of {x.name!r} is not known: {channels}")
    return channels


def require_channels(x: Value, channels: int, axis: int = 1) -> None:
    """Decline where `x` is known to have other channels than an operator reads."""
    known = x.shape[axis] if x.shape is not None and len(x.shape) > 1 else None
    require(
        not isinstance(known, int) or known == channels,
        f"channels differ: {x.name!r} has {known}, the operator reads {channels}",
    )


def bias_of(call: Call, node: Node, index: int, outputs: int) -> Array:
    """One number for each output channel, 0 where the input is absent."""
    if operand(node, index) is None:
        return np.zeros(outputs)
    bias = numbers(call, node, index, "bias")
    require(bias.shape == (outputs,), f"the bias has shape {bias.shape} for {outputs} output channels")
    return bias


def same_shape(a: Sequence[Dim] | None, b: Sequence[Dim] | None) -> bool:
    """Whether two shapes are known to be equal in every axis."""
    return a is not None and b is not None and tuple(a) == tuple(b) and None not in a


def require_same_shape(terms: Sequence[Value]) -> None:
    """Decline unless all terms are known to have one shape."""
    first = terms[0]
    for other in terms[1:]:
        require(
            other is first or same_shape(first.shape, other.shape),
            f"shapes are not known to be equal: {first.shape} of {first.name!r} and {other.shape} of "
            f"{other.name!r}",
        )


NOTHING: Final = Sum((1.0,))
"""The operator that returns its input."""


def nothing(x: Value) -> Apply:
    """The operator returns `x`."""
    return Apply(NOTHING, (x,))


# Attributes.


def attribute(call: Call, name: str, default: Any = None) -> Any:
    """The value of an attribute that no operator set has as an input, or `default`: a float in float32.

    In the standard attributes are float32, and so are their defaults: an epsilon of 1e-5 is 9.99999975e-06.
    """
    if name in call.attributes:
        return call.attributes[name]
    return float(np.float32(default)) if isinstance(default, float) else default


def computed(call: Call, node: Node, *names: str) -> bool:
    """Whether the graph computes one of the attributes."""
    held = (call.attributes.get(name) for name in names)
    return any(isinstance(value, Held) and data(node, value.index).constant is None for value in held)


def ints(call: Call, node: Node, name: str, default: Ints | None = None) -> Ints | None:
    """An attribute that lists integers.

    Raises:
        Declined: the graph computes it.
    """
    value = call.attributes.get(name)
    if isinstance(value, Held):
        value = np.asarray(constant(call, node, value.index, f"list of {name}").array()).reshape(-1)
    return default if value is None else tuple(int(v) for v in value)


def number(call: Call, node: Node, name: str, default: float) -> float:
    """An attribute that is one finite number.

    Raises:
        Declined: the graph computes it, or it is NaN or infinite.
    """
    value = attribute(call, name, default)
    if isinstance(value, Held):
        held = numbers(call, node, value.index, name)
        require(held.size == 1, f"the {name} has shape {held.shape}, and is not one number")
        return float(held.reshape(()))
    require(bool(np.isfinite(value)), f"the {name} is {value}")
    return float(value)


# Pads.


def resolve_pads(
    call: Call, node: Node, size: Ints, stride: Ints, dilation: Ints, extent: Sequence[Dim] | None
) -> tuple[Ints, Ints]:
    """The pads at begin and end of each axis, `auto_pad` resolved for an input of `extent`.

    Raises:
        Declined: they depend on an extent that is not known.
    """
    mode = attribute(call, "auto_pad", "NOTSET")
    rank = len(size)
    if mode == "NOTSET":
        pads = ints(call, node, "pads") or (0,) * (2 * rank)
        require(len(pads) == 2 * rank, f"{len(pads)} pads for {rank} spatial axes")
        return pads[:rank], pads[rank:]
    if mode == "VALID":
        return (0,) * rank, (0,) * rank
    require(mode in ("SAME_UPPER", "SAME_LOWER"), f"auto_pad is {mode!r}")
    totals = []
    for axis in range(rank):
        reach = (size[axis] - 1) * dilation[axis]
        n = extent[axis] if extent is not None and axis < len(extent) else None
        if stride[axis] == 1:
            totals.append(reach)
        elif isinstance(n, int):
            totals.append(max(0, (-(-n // stride[axis]) - 1) * stride[axis] + reach + 1 - n))
        else:
            raise Declined(
                f"auto_pad {mode} with stride {stride} needs the extent of axis {axis}, which is {n}"
            )
    return halves(totals, upper=mode == "SAME_UPPER")


def halves(totals: Sequence[int], *, upper: bool) -> tuple[Ints, Ints]:
    """Pads at begin and end that are `totals` together; of an odd number the end has more where `upper`."""
    half = tuple(total // 2 for total in totals)
    rest = tuple(total - h for total, h in zip(totals, half, strict=True))
    return (half, rest) if upper else (rest, half)

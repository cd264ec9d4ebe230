"""Reading an ONNX node: attributes with their defaults, constant inputs, pads."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import onnx_ir

from fuser.algebra.conv import Ints
from fuser.algebra.lazy import Array
from fuser.errors import Declined, require
from fuser.ir.constant import Constant
from fuser.ir.extents import Dim
from fuser.ir.node import Node, Value

DTYPES: Final[dict[onnx_ir.DataType | None, str]] = {
    member: member.numpy().name for member in onnx_ir.DataType if member is not onnx_ir.DataType.UNDEFINED
}
"""The name that numpy (or ml_dtypes) has for an element type."""

INT_MAX: Final = 2**31 - 1
"""Exporters write this, or the 64 bit one, for 'to the end' in Slice."""


def source(node: Node) -> onnx_ir.Node:
    """The ONNX node behind `node`, which has one."""
    assert isinstance(node.source, onnx_ir.Node)
    return node.source


def attribute(node: Node, name: str, default: Any = None) -> Any:
    """The value of an attribute, or `default` where the node does not have it: a float in float32.

    In the standard attributes are float32, and so are their defaults: an epsilon of 1e-5 is 9.99999975e-06.
    """
    entry = source(node).attributes.get(name)
    if entry is None:
        return float(np.float32(default)) if isinstance(default, float) else default
    return entry.value


def ints(node: Node, name: str, default: Ints | None = None) -> Ints | None:
    """An attribute that lists integers."""
    value = attribute(node, name)
    return default if value is None else tuple(int(v) for v in value)


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


def constant(node: Node, index: int, role: str) -> Constant:
    """The constant that an input is.

    Raises:
        Declined: the input is absent, computed, or a graph input whose default callers may override.
    """
    value = data(node, index)
    if value.constant is not None:
        return value.constant
    host = source(node).inputs[index] if index < len(source(node).inputs) else None
    if host is not None and host.name == value.name and host.is_graph_input() and host.is_initializer():
        raise Declined(
            f"the {role} {value.name!r} is a graph input with a default, which callers may override"
        )
    raise Declined(f"the {role} {value.name!r} is not a constant")


def numbers(node: Node, index: int, role: str) -> Array:
    """The values of a constant input in float64.

    Raises:
        Declined: no constant, or a value is NaN or infinite.
    """
    return finite(np.asarray(constant(node, index, role).array(), dtype=np.float64), role, data(node, index))


def finite(values: Array, role: str, value: Value) -> Array:
    """`values`, checked.

    Raises:
        Declined: one is NaN or infinite.
    """
    if not np.isfinite(values).all():
        wrong = values[~np.isfinite(values)].flat[0]
        raise Declined(f"the {role} {value.name!r} holds {wrong}")
    return values


def integers(node: Node, index: int, role: str) -> Ints | None:
    """The values of a constant list of integers; None where the input is absent.

    Raises:
        Declined: the input is computed.
    """
    if operand(node, index) is None:
        return None
    return tuple(int(v) for v in np.asarray(constant(node, index, role).array()).reshape(-1))


def list_of(node: Node, name: str, index: int, opset: int, since: int) -> Ints | None:
    """A list of integers that is the attribute `name` before opset `since`, and input `index` from then on.

    Raises:
        Declined: the input is computed.
    """
    return ints(node, name) if opset < since else integers(node, index, name)


def bounds(node: Node, opset: int) -> tuple[Ints, Ints, Ints] | None:
    """Starts, ends and axes of a Slice; None where one is computed, or something is left out in between."""
    if any(value is not None and value.constant is None for value in node.inputs[1:]):
        return None
    starts, ends, axes = (
        list_of(node, name, index, opset, 10) for index, name in ((1, "starts"), (2, "ends"), (3, "axes"))
    )
    steps = integers(node, 4, "steps") if opset >= 10 else None
    if starts is None or ends is None or any(step != 1 for step in steps or ()):
        return None
    return starts, ends, tuple(range(len(starts))) if axes is None else axes


def dtype(node: Node) -> str | None:
    """The element type of the first input, or of the first output where that is not known."""
    first = operand(node, 0)
    known = first.dtype if first is not None else None
    return known or node.outputs[0].dtype


def resolve_pads(
    node: Node, size: Ints, stride: Ints, dilation: Ints, extent: Sequence[Dim] | None
) -> tuple[Ints, Ints]:
    """The pads at begin and end of each axis, `auto_pad` resolved for an input of `extent`.

    Raises:
        Declined: they depend on an extent that is not known.
    """
    mode = attribute(node, "auto_pad", "NOTSET")
    rank = len(size)
    if mode == "NOTSET":
        pads = ints(node, "pads") or (0,) * (2 * rank)
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
    half = tuple(total // 2 for total in totals)
    rest = tuple(total - h for total, h in zip(totals, half, strict=True))
    return (half, rest) if mode == "SAME_UPPER" else (rest, half)


def host_dtype(value: onnx_ir.Value) -> str | None:
    """The numpy name of a value's element type; None where it is unknown or no tensor."""
    kind = value.type
    return DTYPES.get(kind.dtype) if isinstance(kind, onnx_ir.TensorType) else None


def read_tensor(tensor: onnx_ir.TensorProtocol) -> Constant | None:
    """A tensor as a constant that is read when it is looked at; None for strings: they are not computed."""
    if tensor.dtype == onnx_ir.DataType.STRING:
        return None
    return Constant(tuple(tensor.shape.numpy()), DTYPES.get(tensor.dtype, ""), tensor.numpy)

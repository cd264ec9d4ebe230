"""What onnx-ir has of nodes, values and tensors, in the terms of the graph."""

from typing import Final

import onnx_ir

from fuser.ir.constant import Constant
from fuser.ir.node import Node

DTYPES: Final[dict[onnx_ir.DataType | None, str]] = {
    member: member.numpy().name for member in onnx_ir.DataType if member is not onnx_ir.DataType.UNDEFINED
}
"""The name that numpy (or ml_dtypes) has for an element type."""


def source(node: Node) -> onnx_ir.Node:
    """The ONNX node behind `node`, which has one."""
    assert isinstance(node.source, onnx_ir.Node)
    return node.source


def host_dtype(value: onnx_ir.Value) -> str | None:
    """The numpy name of a value's element type; None where it is unknown or no tensor."""
    kind = value.type
    return DTYPES.get(kind.dtype) if isinstance(kind, onnx_ir.TensorType) else None


def read_tensor(tensor: onnx_ir.TensorProtocol) -> Constant | None:
    """A tensor as a constant that is read when it is looked at; None for strings: they are not computed."""
    if tensor.dtype == onnx_ir.DataType.STRING:
        return None
    return Constant(tuple(tensor.shape.numpy()), DTYPES.get(tensor.dtype, ""), tensor.numpy)

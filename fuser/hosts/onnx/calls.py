"""Reads an ONNX node as a call of a standard operator: the only file that knows how operator sets differ."""

from typing import Any, Final

import onnx_ir

from fuser.hosts.onnx.node import DTYPES, read_tensor
from fuser.hosts.operators.call import Call, Held

OLDEST_OPSET: Final = 7
NEWEST_OPSET: Final = 28
"""The operator sets whose operators the rules are written for. Other models pass through unchanged."""

Place = tuple[int, int]

_SLICE: Final = {"starts": (1, 10), "ends": (2, 10), "axes": (3, 10), "steps": (4, 10)}
_AXES_18: Final = {"axes": (1, 18)}

# The inputs that attributes became, and the operator set that made them one; 0: it never was an attribute.
INPUTS: Final[dict[str, dict[str, Place]]] = {
    "Clip": {"min": (1, 11), "max": (2, 11)},
    "Dropout": {"ratio": (1, 12), "training_mode": (2, 12)},
    "Expand": {"shape": (1, 0)},
    "Pad": {"pads": (1, 11), "value": (2, 11), "axes": (3, 18)},
    **dict.fromkeys(
        ("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin"),
        _AXES_18,
    ),
    **dict.fromkeys(("ReduceProd", "ReduceSumSquare"), _AXES_18),
    "ReduceSum": {"axes": (1, 13)},
    "Reshape": {"shape": (1, 0)},
    "Resize": {"scales": (2, 11), "sizes": (3, 11)},
    "Slice": _SLICE,
    "Split": {"split": (1, 13)},
    "Squeeze": {"axes": (1, 13)},
    "Tile": {"repeats": (1, 0)},
    "Unsqueeze": {"axes": (1, 13)},
    "Upsample": {"scales": (1, 9)},
}
# A place that an input had in between.
EARLIER: Final[dict[str, dict[str, Place]]] = {"Resize": {"scales": (1, 10)}}


def read_call(node: onnx_ir.Node, opset: int, overridable: frozenset[str] = frozenset()) -> Call:
    """What `node`, of the default domain, calls. What the enclosing function gives it is None.

    `overridable`: the names of graph inputs that have a default.
    """
    kind = node.op_type
    attributes = {entry.name: _value(kind, entry) for entry in node.attributes.values()}
    for table in (EARLIER, INPUTS):
        for name, (index, since) in table.get(kind, {}).items():
            if opset >= since:
                attributes.pop(name, None)
                if index < len(node.inputs) and node.inputs[index] is not None:
                    attributes[name] = Held(index)
    return Call(kind, attributes, _refusal(node, opset), overridable)


def _refusal(node: onnx_ir.Node, opset: int) -> str:
    """Why the node is not lifted, whatever it computes."""
    if not OLDEST_OPSET <= opset <= NEWEST_OPSET:
        return f"opset {opset} is not one of {OLDEST_OPSET} to {NEWEST_OPSET}, which are known"
    if node.op_type == "BatchNormalization" and opset < 14:
        extra = [value.name for value in node.outputs[1:] if value.name]
        return f"the outputs {extra} ask for the statistics of the batch, as in training" if extra else ""
    return ""


def _value(kind: str, entry: onnx_ir.Attr) -> Any:
    """The value of an attribute, in no type of the host: lists as tuples, element types by numpy's name."""
    value = entry.value
    if entry.type == onnx_ir.AttributeType.TENSOR and value is not None:
        return read_tensor(value)
    if kind == "Cast" and entry.name == "to" and value is not None:
        return DTYPES.get(onnx_ir.DataType(value))
    return value

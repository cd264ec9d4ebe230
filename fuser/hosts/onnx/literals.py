"""Which numbers an ONNX node holds against positions and extents, and on which axes of its data."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import onnx_ir

from fuser.ir.constant import Constant
from fuser.ir.literals import ENDLESS, RIGID, UNIFORM, Literals, read

Constants = Sequence[Constant | None]
Axes = tuple[int, ...] | None

# Numbers in these say what a window is like, or which axis is meant: no extent changes what they do.
ALIKE: Final = frozenset(
    {"Abs", "Add", "AveragePool", "BatchNormalization", "Cast", "Ceil", "Celu", "Clip", "Concat", "Conv"}
    | {"ConvTranspose", "Div", "Dropout", "Elu", "Erf", "Exp", "Floor", "Gelu", "Gemm", "GlobalAveragePool"}
    | {"GlobalMaxPool", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Log", "LogSoftmax", "LpPool"}
    | {"MatMul", "Max", "MaxPool", "Mean", "Min", "Mish", "Mul", "Neg", "PRelu", "Pow", "Reciprocal", "Relu"}
    | {"Round", "Selu", "Sigmoid", "Sign", "Softmax", "Softplus", "Softsign", "Sqrt", "Sub", "Sum", "Swish"}
    | {"Tanh", "ThresholdedRelu", "Where"}
)

# Elements keep their order, or axes theirs: the numbers are products of extents, and places of axes.
MOVES: Final = frozenset({"Flatten", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})

WHOLE: Final = frozenset({onnx_ir.AttributeType.INT, onnx_ir.AttributeType.INTS})


@dataclass(frozen=True)
class Finder:
    """Finds the numbers of one node once its constant inputs are known."""

    node: onnx_ir.Node

    def __call__(self, constants: Constants) -> Literals:
        """The numbers in attributes and in inputs that are constants."""
        kind = self.node.op_type
        if kind in ALIKE:
            return UNIFORM
        if kind in MOVES:
            return RIGID
        held = [n for entry in self.node.attributes.values() for n in _whole(entry) if abs(n) < ENDLESS]
        find = AXES.get(kind)
        return Literals((*held, *read(constants)), find(self, constants) if find else None, rigid=True)

    def given(self, constants: Constants, index: int, name: str, default: Axes) -> Axes:
        """Integers that are an input or an attribute; `default` where absent, None where computed."""
        if index < len(self.node.inputs) and self.node.inputs[index] is not None:
            held = constants[index] if index < len(constants) else None
            return None if held is None else tuple(int(n) for n in held.array().reshape(-1))
        entry = self.node.attributes.get(name)
        if entry is None or entry.is_ref():
            return default
        return tuple(entry.value) if entry.type == onnx_ir.AttributeType.INTS else (entry.value,)


def _whole(entry: onnx_ir.Attr) -> Sequence[int]:
    if entry.is_ref() or entry.type not in WHOLE:
        return ()
    values: Any = entry.value
    return (values,) if entry.type == onnx_ir.AttributeType.INT else values


def _slice(finder: Finder, constants: Constants) -> Axes:
    """The axes that are named, or as many as there are starts."""
    axes = finder.given(constants, 3, "axes", ())
    if axes != ():
        return axes
    starts = finder.given(constants, 1, "starts", None)
    return None if starts is None else tuple(range(len(starts)))


def _pad(finder: Finder, constants: Constants) -> Axes:
    """The axes that are padded or cropped."""
    pads = finder.given(constants, 1, "pads", None)
    if pads is None:
        return None
    half = len(pads) // 2
    axes = finder.given(constants, 3, "axes", tuple(range(half)))
    if axes is None:
        return None
    return tuple(a for a, b, e in zip(axes, pads[:half], pads[half:], strict=True) if b or e)


def _one(finder: Finder, constants: Constants) -> Axes:
    """The one that is named, or the first."""
    return finder.given(constants, len(finder.node.inputs), "axis", (0,))


def _image(finder: Finder, constants: Constants) -> Axes:  # noqa: ARG001  # the signature of the table
    return 1, 2, 3


AXES: Final[dict[str, Callable[[Finder, Constants], Axes]]] = {
    "DepthToSpace": _image,
    "Gather": _one,
    "GatherElements": _one,
    "Pad": _pad,
    "ScatterElements": _one,
    "Slice": _slice,
    "SpaceToDepth": _image,
    "Split": _one,
}

"""In which inputs ONNX operators are affine, and which look at shapes alone: what regions are made of."""

from typing import Final

import onnx_ir

OF_SHAPE: Final = frozenset({"Shape", "Size"})

Inputs = tuple[frozenset[int], ...]

FIRST: Final[Inputs] = (frozenset({0}),)
PAIR: Final[Inputs] = (frozenset({0, 1}),)
EITHER: Final[Inputs] = (frozenset({0}), frozenset({1}))

# Operators that mix elements (reductions, products of matrices) are affine as well, but no region that has
# one is recognised.
_MOVES: Final = frozenset(
    {
        "DepthToSpace",
        "Expand",
        "Flatten",
        "Gather",
        "GatherElements",
        "GatherND",
        "Identity",
        "Pad",
        "Reshape",
    }
    | {"Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"}
)
_LINEAR: Final[dict[str, Inputs]] = {
    **dict.fromkeys((*_MOVES, "Div", "Neg"), FIRST),
    "Add": PAIR,
    "Mul": EITHER,
    "ScatterElements": (frozenset({0, 2}),),
    "ScatterND": (frozenset({0, 2}),),
    "Sub": PAIR,
    "Where": (frozenset({1, 2}),),
}


def linear(node: onnx_ir.Node, opset: int) -> Inputs:
    """Sets of inputs in which `node` is affine, each taken together."""
    kind = node.op_type
    if kind in {"Concat", "Sum", "Mean"}:
        return (frozenset(range(len(node.inputs))),)
    if kind == "Slice" and opset < 10:
        # Where it cuts is an attribute, which nobody sees who asks what numbers there are.
        return ()
    reduction = node.attributes.get("reduction")
    if reduction is not None and reduction.value not in {"none", "add"}:
        return ()
    return _LINEAR.get(kind, ())

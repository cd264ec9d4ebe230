"""In which inputs each ONNX operator is affine, and which look at shapes alone: what `fuser.region` grows by."""

from typing import Final

import onnx_ir

OF_SHAPE: Final = frozenset({"Shape", "Size"})

Inputs = tuple[frozenset[int], ...]

FIRST: Final[Inputs] = (frozenset({0}),)
EITHER: Final[Inputs] = (frozenset({0}), frozenset({1}))

_LINEAR: Final[dict[str, Inputs]] = {
    **dict.fromkeys(
        [
            "DepthToSpace",
            "Div",
            "Expand",
            "Flatten",
            "Gather",
            "GatherElements",
            "GatherND",
            "Identity",
            "Neg",
            "Pad",
        ],
        FIRST,
    ),
    **dict.fromkeys(
        [
            "ReduceMean",
            "ReduceSum",
            "Reshape",
            "Slice",
            "SpaceToDepth",
            "Split",
            "Squeeze",
            "Tile",
            "Transpose",
            "Trilu",
        ],
        FIRST,
    ),
    "Unsqueeze": FIRST,
    **dict.fromkeys(["Add", "Sub"], (frozenset({0, 1}),)),
    **dict.fromkeys(["MatMul", "Mul"], EITHER),
    **dict.fromkeys(["ScatterElements", "ScatterND"], (frozenset({0, 2}),)),
    "Where": (frozenset({1, 2}),),
}


def linear(node: onnx_ir.Node, opset: int) -> Inputs:
    """Sets of inputs in which `node` is affine, each taken together."""
    kind = node.op_type
    if kind in {"Concat", "Sum", "Mean"}:
        return (frozenset(range(len(node.inputs))),)
    if kind == "Einsum":
        return tuple(frozenset({i}) for i in range(len(node.inputs)))
    if kind == "Slice" and opset < 10:
        # Where it cuts is an attribute, which nobody sees who asks what numbers there are.
        return ()
    reduction = node.attributes.get("reduction")
    if reduction is not None and reduction.value not in {"none", "add"}:
        return ()
    return _LINEAR.get(kind, ())

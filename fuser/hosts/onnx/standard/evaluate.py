"""What an ONNX node computes, in numpy: for constant folding, and for the float64 oracle.

Arrays are computed in the type that they come in, so that a float32 model can be evaluated in float64. The
table holds what real models use often; everything else goes through `onnx.reference`.
"""

from collections.abc import Callable
from typing import Final

import onnx
import onnx_ir

from fuser.hosts.onnx.standard.kernel import Kernel
from fuser.hosts.onnx.standard.kernels import KERNELS
from fuser.hosts.onnx.standard.reference import NEWEST, Arrays, Reference, called

# No function of the inputs alone, or of something that is no tensor.
NOT_EVALUATED: Final = frozenset(
    {"Bernoulli", "ConcatFromSequence", "If", "ImageDecoder", "Loop", "Multinomial", "Optional"}
    | {"OptionalGetElement", "OptionalHasElement", "RandomNormal", "RandomNormalLike", "RandomUniform"}
    | {"RandomUniformLike", "RegexFullMatch", "Scan", "SequenceAt", "SequenceConstruct"}
    | {"SequenceEmpty", "SequenceErase", "SequenceInsert", "SequenceLength", "SequenceMap"}
    | {"SplitToSequence", "StringConcat", "StringNormalizer", "StringSplit"}
)


def evaluator(node: onnx_ir.Node, opset: int) -> Callable[..., Arrays] | None:
    """What computes `node`; None where that is no function of its inputs alone, or is not known here."""
    compute = KERNELS.get(node.op_type)
    if compute is not None:
        return Kernel(node, opset, compute)
    if node.op_type in NOT_EVALUATED or not onnx.defs.has(node.op_type, min(opset, NEWEST)):
        return None
    return Reference(node, opset)


def call_evaluator(model: onnx_ir.Model, node: onnx_ir.Node, opset: int) -> Callable[..., Arrays] | None:
    """What computes a call of a function of the model; None where that holds what is not evaluated."""
    inside = (part for function in called(model, node) for part in function.all_nodes())
    known = all(
        part.op_identifier() in model.functions or (part.domain == "" and part.op_type not in NOT_EVALUATED)
        for part in inside
    )
    return Reference(node, opset, model) if known else None

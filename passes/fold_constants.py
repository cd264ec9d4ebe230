"""A function of constants is a constant: f(c) = c'."""

from collections.abc import Iterator

from fuser.algebra.conv import Conv
from fuser.ir.node import Node
from fuser.ir.ops import Opaque, Sum
from fuser.rewrite.pattern import CLEAN, Candidate, rewrite


@rewrite(Opaque, Sum, Conv, stage=CLEAN)
def fold_constants(node: Node) -> Iterator[Candidate]:
    """f(constants)  ->  constant: weights and shapes that the graph computes.

    Covers weight norm, spectral norm, OREPA, DO-Conv and whatever else arranges its kernel in the graph. The
    driver stores a result only where the file does not grow by it; a larger one is still known to its
    readers, which may fold it further.

    Given:
        x: float32 [2, 4]
        c: constant float32 [4, 4]
        d: constant float32 [4, 4]
        e = 2 c - d
        y = MatMul (x, e)
        return y
    Result:
        x: float32 [2, 4]
        e: constant float32 [4, 4]
        y = MatMul (x, e)
        return y

    Declined:
        c: constant float32 [4]
        y = 2 c
        return y
        # the result is the graph output 'y'
    """
    constant = node.outputs[0].constant
    if constant is not None and node.inputs:
        yield constant

"""A kernel of low rank is computed by its factors where they are cheaper: (u v)*x = u*(v*x).

Truncated SVD and its like that were multiplied out (Jaderberg et al., BMVC 2014, for row and column
kernels); the inverse of merge_chains, and the cost says which of the two it is.
"""

from collections.abc import Iterator
from math import prod

from fuser.algebra.conv import Conv
from fuser.algebra.low_rank import factor
from fuser.ir.node import Apply, Node
from fuser.rewrite.pattern import FACTOR, Candidate, rewrite


@rewrite(Conv, stage=FACTOR)
def factor_low_rank(node: Node) -> Iterator[Candidate]:
    """conv(x, u v)  ->  conv(conv(x, v), u), with fewer channels between than u or v has.

    Dense kernels and linear layers: k x k and 1x1, 1x1 and k x k, or k x 1 and 1 x k. Ranks up to 32, exact
    up to the rounding of float64; a kernel that is low rank up to the rounding of its own dtype stays.

    Given:
        x: float32 [1, 64, 12, 12]
        y = 3x3 conv, 64 -> 64, stride (2, 2), pads (1, 1, 1, 1), bias, rank 4 (x)
        return y
    Result:
        x: float32 [1, 64, 12, 12]
        y_0 = 3x3 conv, 64 -> 4, stride (2, 2), pads (1, 1, 1, 1) (x)
        y = 1x1 conv, 4 -> 64, bias (y_0)
        return y

    Declined:
        x: float32 [1, 16]
        y = linear, 16 -> 16, rank 1 (x)
        return y
        # no gain: 32 multiply-adds, 264 bytes, 2 kernels instead of 256 multiply-adds, 1.15e+03 bytes,
        # 1 kernels
    """
    conv, source = node.op, node.inputs[0]
    assert isinstance(conv, Conv)
    assert source is not None
    found = []
    for last in splits(conv):
        factors = factor(conv, last)
        if factors is not None:
            outer, inner = factors
            weights = sum(prod(part.kernel.shape) for part in factors)
            found.append((weights, Apply(outer, (Apply(inner, (source,), extent=node.extent),), node.label)))
    for _, candidate in sorted(found, key=lambda entry: entry[0]):
        yield candidate


def splits(conv: Conv) -> list[tuple[int, ...]]:
    """Which spatial axes the second factor may have: none with a stride, which the first one profits from."""
    axes = tuple(axis for axis, size in enumerate(conv.size) if size > 1)
    singles = [(axis,) for axis in axes] if len(axes) > 1 else []
    options = [(), *([axes] if axes else []), *singles]
    return [last for last in options if all(conv.stride[axis] == 1 for axis in last)]

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

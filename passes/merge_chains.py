"""A convolution of a convolution is one convolution: k * (m * x) = (k * m) * x.

ExpandNets (Guo et al., NeurIPS 2020), DBB transform III, low-rank factors; taken only where the product is
cheaper.
"""

from collections.abc import Iterator
from math import prod

from fuser.algebra import laws
from fuser.algebra.conv import Conv
from fuser.errors import Declined
from fuser.ir.node import Apply, Node
from fuser.rewrite.pattern import MERGE, Candidate, rewrite
from passes._fold import upstream
from passes.absorb_padding import is_padding


@rewrite(Conv, stage=MERGE)
def merge_chains(node: Node) -> Iterator[Candidate]:
    """conv(conv(x, m), k)  ->  conv(x, k * m), for convolutions and linear layers, two or more in a row.

    Strides multiply, windows add up. Exact where the outer kernel sees no padding of its own, or where what
    the inner one computes outside its input is what the outer one is padded with. Factors that were made
    small on purpose (Tucker, SVD, depthwise-separable) cost less apart and stay; but a pool behind a 1x1
    convolution goes before it, where fewer positions are left to mix.

    Given:
        x: float32 [1, 4, 8, 8]
        a = 1x1 conv, 4 -> 8 (x)
        y = 3x3 conv, 8 -> 4, pads (1, 1, 1, 1), bias (a)
        return y
    Result:
        x: float32 [1, 4, 8, 8]
        y = 3x3 conv, 4 -> 4, pads (1, 1, 1, 1), bias (x)
        return y

    Declined:
        x: float32 [1, 4, 8, 8]
        a = 1x1 conv, 4 -> 8, bias (x)
        y = 3x3 conv, 8 -> 4, pads (1, 1, 1, 1) (a)
        return y
        # the border differs: the inner operator continues with 4, the outer one pads with 0 (channel 0)
    """
    assert isinstance(node.op, Conv)
    if not node.op.pointwise and not is_padding(node.op):
        if node.op.depthwise and prod(node.op.stride) > 1:
            yield from swapped(node)
        yield from upstream(node)


def swapped(node: Node) -> Iterator[Candidate]:
    """pool(conv1x1(x))  ->  conv1x1(pool(x))."""
    outer, maker = node.op, node.inputs[0].producer if node.inputs[0] is not None else None
    assert isinstance(outer, Conv)
    if maker is not None and isinstance(maker.op, Conv) and maker.op.local and not maker.op.pointwise:
        (source,) = maker.inputs
        assert source is not None
        try:
            last, first = laws.swap(outer, maker.op)
        except Declined:
            return  # upstream() has the reason
        yield Apply(last, (Apply(first, (source,), node.label, node.extent),))

"""A convolution of a convolution is one convolution: k * (m * x) = (k * m) * x.

ExpandNets (Guo et al., NeurIPS 2020), DBB transform III, low-rank factors; taken only where the product is
cheaper.
"""

from collections.abc import Iterator

from fuser.conv import Conv
from fuser.ir import Node
from fuser.rewrite import MERGE, Candidate, rewrite
from passes._fold import upstream
from passes.absorb_padding import is_padding


@rewrite(Conv, stage=MERGE)
def merge_chains(node: Node) -> Iterator[Candidate]:
    """conv(conv(x, m), k)  ->  conv(x, k * m), for convolutions and linear layers, two or more in a row.

    Strides multiply, windows add up. Exact where the outer kernel sees no padding of its own, or where what
    the inner one computes outside its input is what the outer one is padded with. Factors that were made
    small on purpose (Tucker, SVD, depthwise-separable) cost less apart and stay.
    """
    assert isinstance(node.op, Conv)
    if not node.op.pointwise and not is_padding(node.op):
        yield from upstream(node)

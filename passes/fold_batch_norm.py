"""A BatchNorm in inference is a scale and a shift per channel, and a convolution before or after takes it in.

s * (W x + b) + t = (s W) x + (s b + t), and W (s x + t) + b = (W s) x + (W t + b).
"""

from collections.abc import Iterator

from fuser.algebra.conv import Conv
from fuser.ir.node import Node
from fuser.rewrite.pattern import FOLD, Candidate, rewrite
from passes._fold import both_ways


@rewrite(Conv, stage=FOLD)
def fold_batch_norm(node: Node) -> Iterator[Candidate]:
    """batch_norm(conv(x))  ->  conv'(x), and conv(batch_norm(x))  ->  conv'(x).

    Conv, ConvTranspose and linear layers of any grouping. Forward only where it is exact: into an unpadded
    convolution, or without a shift. A BatchNorm with several readers goes forward into all of them or stays.

    Given:
        x: float32 [1, 4, 8, 8]
        a = 3x3 conv, 4 -> 8, pads (1, 1, 1, 1) (x)
        y = batch_norm (a)
        return y
    Result:
        x: float32 [1, 4, 8, 8]
        y = 3x3 conv, 4 -> 8, pads (1, 1, 1, 1), bias (x)
        return y

    Declined:
        x: float32 [1, 4, 8, 8]
        a = batch_norm (x)
        y = 3x3 conv, 4 -> 8, pads (1, 1, 1, 1) (a)
        return y
        # behind the input 'x': nothing to fold into; forward: the border differs: the inner operator
        # continues with -2, the outer one pads with 0 (channel 0)
    """
    assert isinstance(node.op, Conv)
    if node.label == "batch_norm" and node.op.pointwise:
        yield from both_ways(node)

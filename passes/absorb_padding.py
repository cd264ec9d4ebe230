"""Explicit padding joins the pads of the convolution behind it: conv_p2(pad_p1(x)) = conv_(p1 + p2)(x)."""

from collections.abc import Iterator

from fuser.algebra.conv import Conv
from fuser.ir.node import Node
from fuser.rewrite.pattern import FOLD, Candidate, rewrite
from passes._fold import downstream


@rewrite(Conv, stage=FOLD)
def absorb_padding(node: Node) -> Iterator[Candidate]:
    """conv(pad(x))  ->  conv'(x), and average_pool(pad(x)) with its padding counted.

    Constant padding of the spatial axes. A pad is a delta kernel that reads outside, so this is a
    composition; its border condition decides. Pooling by maximum has no such form: its own padding is minus
    infinity, not zero.

    Given:
        x: float32 [1, 3, 8, 8]
        a = pad (1, 1, 1, 1) (x)
        y = 3x3 conv, 3 -> 4, bias (a)
        return y
    Result:
        x: float32 [1, 3, 8, 8]
        y = 3x3 conv, 3 -> 4, pads (1, 1, 1, 1), bias (x)
        return y

    Declined:
        x: float32 [1, 3, 8, 8]
        a = pad (1, 1, 1, 1) with 2.5 (x)
        y = 3x3 conv, 3 -> 4, pads (1, 1, 1, 1) (a)
        return y
        # the border differs: the inner operator continues with 2.5, the outer one pads with 0 (channel 0)
    """
    assert isinstance(node.op, Conv)
    if is_padding(node.op):
        yield from downstream(node)


def is_padding(conv: Conv) -> bool:
    """A depthwise kernel with one tap that reads outside or crops."""
    one_tap = all(taps == 1 for taps in conv.size) and all(stride == 1 for stride in conv.stride)
    return conv.depthwise and not conv.transposed and one_tap and any(conv.begin + conv.end)

"""Taps that are zero for all channels read nothing: k*x = k'*x, k' being k without them.

A 3x3 that only has a centre, a small kernel in the middle of a large one, a dilated one written out.
"""

from collections.abc import Iterator

from fuser.algebra.conv import Conv
from fuser.algebra.narrowing import narrow
from fuser.ir.node import Apply, Node
from fuser.rewrite.pattern import NARROW, Candidate, rewrite


@rewrite(Conv, stage=NARROW)
def narrow_kernels(node: Node) -> Iterator[Candidate]:
    """conv(x, [0 k 0])  ->  conv(x, k): no rim of zeros, and dilation in the place of zeros between the taps.

    The pads shrink with the kernel. Where they would become negative the rim stays: no host crops and
    convolves at once. Taps that are close to zero stay as well.

    Given:
        x: float32 [1, 3, 8, 8]
        a = 3x3 conv, 3 -> 4, pads (1, 1, 1, 1), zero taps [0, 2] x [0, 2] (x)
        y = 5x5 conv, 4 -> 4, pads (2, 2, 2, 2), zero taps [1, 3] x [1, 3] (a)
        return y
    Result:
        x: float32 [1, 3, 8, 8]
        a = 1x1 conv, 3 -> 4 (x)
        y = 3x3 conv, 4 -> 4, dilation (2, 2), pads (2, 2, 2, 2) (a)
        return y

    Declined:
        x: float32 [1, 3, 8, 8]
        y = 3x3 conv, 3 -> 4, zero taps [0, 2] x [] (x)
        return y
        # the taps at the begin of axis 0 are zero, but without them the pad of 0 would be -1
    """
    conv, source = node.op, node.inputs[0]
    assert isinstance(conv, Conv)
    assert source is not None
    if any(size > 1 for size in conv.size):
        narrowed = narrow(conv)
        if narrowed is not conv:
            yield Apply(narrowed, (source,), node.label, node.extent)

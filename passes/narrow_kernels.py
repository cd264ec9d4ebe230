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
    """
    conv, source = node.op, node.inputs[0]
    assert isinstance(conv, Conv)
    assert source is not None
    if any(size > 1 for size in conv.size):
        narrowed = narrow(conv)
        if narrowed is not conv:
            yield Apply(narrowed, (source,), node.label, node.extent)

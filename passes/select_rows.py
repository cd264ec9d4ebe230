"""Some channels of a convolution are a smaller convolution: (k*x)[a:b] = k[a:b]*x."""

from collections.abc import Iterator

from fuser.algebra import channels
from fuser.algebra.conv import Conv
from fuser.errors import require
from fuser.ir.node import Apply, Node, Value
from fuser.ir.ops import Select
from fuser.rewrite.pattern import MERGE, Candidate, rewrite


@rewrite(Select, stage=MERGE)
def select_rows(node: Node) -> Iterator[Candidate]:
    """split(conv(x, k))  ->  conv(x, k[a:b]), conv(x, k[b:c]), and slice(conv(x, k))  ->  conv(x, k[a:b]).

    Channels that nobody reads are not computed; where all are read, smaller convolutions often save the
    copies.

    Given:
        x: float32 [1, 4, 8, 8]
        a = 3x3 conv, 4 -> 8, pads (1, 1, 1, 1) (x)
        p, q = channels 0:2, 2:8 of 8 (a)
        y = Relu (q)
        return y
    Result:
        x: float32 [1, 4, 8, 8]
        q = 3x3 conv, 4 -> 6, pads (1, 1, 1, 1) (x)
        y = Relu (q)
        return y

    Declined:
        x: float32 [1, 4, 8, 8]
        a = 1x1 conv, 4 -> 8 (x)
        y = channels 0:2 of 8, axis -1 (a)
        return y
        # channel axis differs: 1 and -1
    """
    assert isinstance(node.op, Select)
    source = node.inputs[0]
    maker = source.producer if source is not None else None
    if maker is None or not isinstance(maker.op, Conv):
        return
    require(maker.op.axis == node.op.axis, f"channel axis differs: {maker.op.axis} and {node.op.axis}")
    inner = maker.inputs[0]
    assert inner is not None
    targets: dict[Value, Apply] = {}
    for value, (first, size) in zip(node.outputs, node.op.ranges, strict=True):
        if value.users or value.is_output:
            targets[value] = Apply(channels.select(maker.op, first, size), (inner,), label=maker.label)
    if targets:
        yield targets

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

"""A kernel that is zero outside of blocks on its diagonal is a grouped one.

Group-wise pruning, convolutions of parts written side by side, per-channel maps written as dense ones.
"""

from collections.abc import Iterator

from fuser.algebra import narrowing
from fuser.algebra.conv import Conv
from fuser.errors import require
from fuser.ir.node import Apply, Node
from fuser.rewrite.pattern import NARROW, Candidate, rewrite


@rewrite(Conv, stage=NARROW)
def split_groups(node: Node) -> Iterator[Candidate]:
    """conv(x, diag(k, m))  ->  grouped conv(x, [k, m]), in as many groups as there are; depthwise in the end.

    Linear layers have no groups: a diagonal one becomes a scale, others stay.

    Given:
        x: float32 [1, 4, 8, 8]
        y = 3x3 conv, 4 -> 8, pads (1, 1, 1, 1), 2 blocks (x)
        return y
    Result:
        x: float32 [1, 4, 8, 8]
        y = 3x3 conv, 4 -> 8, groups 2, pads (1, 1, 1, 1) (x)
        return y

    Declined:
        x: float32 [8, 4]
        y = linear, 4 -> 8, 2 blocks (x)
        return y
        # 2 blocks are zero outside, but a linear layer has no groups
    """
    conv, source = node.op, node.inputs[0]
    assert isinstance(conv, Conv)
    assert source is not None
    groups = narrowing.block_groups(conv)
    if groups > conv.groups:
        scale = groups == conv.inputs == conv.outputs
        require(conv.rank > 0 or scale, f"{groups} blocks are zero outside, but a linear layer has no groups")
        yield Apply(narrowing.split_groups(conv, groups), (source,), node.label, node.extent)

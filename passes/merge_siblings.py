"""Convolutions side by side are one convolution: [k*x, m*x] = [k, m]*x, and over parts of x a grouped one.

Szegedy et al., "Going Deeper with Convolutions", CVPR 2015, read backwards; DBB transform IV.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby

from fuser.algebra import channels
from fuser.algebra.conv import Conv
from fuser.errors import Declined
from fuser.ir.node import Apply, Node, Value
from fuser.ir.ops import Concat, Select, Sum
from fuser.rewrite.pattern import MERGE, Candidate, rewrite
from passes._branch import Branch, extent_of


@rewrite(Concat, stage=MERGE)
def merge_siblings(node: Node) -> Iterator[Candidate]:
    """concat(conv(x, k), conv(x, m))  ->  conv(x, [k, m]), and grouped where they read parts of x.

    Runs of neighbours in the concatenation; what is not a convolution of the same value stays beside the
    merged one.

    Given:
        x: float32 [1, 8, 8, 8]
        a = 3x3 conv, 8 -> 4, pads (1, 1, 1, 1) (x)
        b = 3x3 conv, 8 -> 12, pads (1, 1, 1, 1) (x)
        y = concat, axis 1 (a, b)
        return y
    Result:
        x: float32 [1, 8, 8, 8]
        y = 3x3 conv, 8 -> 16, pads (1, 1, 1, 1) (x)
        return y

    Given:
        x: float32 [1, 8, 8, 8]
        p, q = channels 0:4, 4:8 of 8 (x)
        a = 3x3 conv, 4 -> 4, pads (1, 1, 1, 1) (p)
        b = 3x3 conv, 4 -> 4, pads (1, 1, 1, 1) (q)
        y = concat, axis 1 (a, b)
        return y
    Result:
        x: float32 [1, 8, 8, 8]
        y = 3x3 conv, 8 -> 8, groups 2, pads (1, 1, 1, 1) (x)
        return y

    Declined:
        x: float32 [1, 8, 8, 8]
        p, q = channels 0:4, 4:8 of 8 (x)
        a = 3x3 conv, 4 -> 4, pads (1, 1, 1, 1) (p)
        b = 3x3 conv, 4 -> 4, pads (1, 1, 1, 1) (q)
        y = concat, axis 1 (b, a)
        return y
        # the parts [(4, 4), (0, 4)] are not all 8 channels in order
    """
    assert isinstance(node.op, Concat)
    terms = [Branch(Sum((1.0,)), value) for value in node.inputs if value is not None]
    convs = [nearest(term, node.op.axis) for term in terms]
    reasons: list[str] = []
    for run in runs(convs):
        try:
            merged = merge([convs[i] for i in run])
        except Declined as reason:
            reasons.append(str(reason))
            continue
        parts: list[Value | Apply] = [
            *(t.source for t in terms[: run[0]]),
            merged,
            *(t.source for t in terms[run[-1] + 1 :]),
        ]
        yield merged if len(parts) == 1 else Apply(Concat(len(parts), node.op.axis), tuple(parts))
    if reasons:
        raise Declined("; ".join(dict.fromkeys(reasons)))


def nearest(term: Branch, axis: int) -> Branch | None:
    """The convolution that makes the term, if one does whose channels are on `axis`."""
    maker = term.source.producer
    return term.after(maker) if maker is not None and is_conv(maker.op, axis) else None


def is_conv(op: object, axis: int) -> bool:
    """Whether this is a convolution with its channels on `axis`."""
    return isinstance(op, Conv) and op.axis == axis


def runs(convs: Sequence[Branch | None]) -> Iterator[list[int]]:
    """Neighbours that read one value, or parts of one value."""
    for origin, members in groupby(range(len(convs)), key=lambda i: origin_of(convs[i])):
        run = list(members)
        if origin is not None and len(run) > 1:
            yield run


def origin_of(branch: Branch | None) -> Value | None:
    """The value that a branch reads, or reads a part of."""
    if branch is None:
        return None
    part = selection(branch)
    return branch.source if part is None else part.inputs[0]


def selection(branch: Branch) -> Node | None:
    """What selects the channels that a branch reads, if it reads some of many."""
    maker = branch.source.producer
    assert isinstance(branch.op, Conv)
    if maker is None or not isinstance(maker.op, Select) or maker.op.axis != branch.op.axis:
        return None
    return maker


def merge(branches: Sequence[Branch | None]) -> Apply:
    """One convolution for branches of one origin."""
    found = [branch for branch in branches if branch is not None]
    convs = [branch.op for branch in found if isinstance(branch.op, Conv)]
    source = found[0].source
    if all(branch.source is source for branch in found):
        extent = next((branch.extent for branch in found if branch.extent), None)
        return Branch(channels.stack(convs, extent_of(source, convs[0])), source, extent).apply
    origin = origin_of(found[0])
    assert origin is not None
    ranges = [part_of(branch) for branch in found]
    if covers(ranges):
        return Apply(channels.block_diagonal(convs), (origin,))
    raise Declined(f"the parts {[r[:2] for r in ranges]} are not all {ranges[0][2]} channels in order")


def part_of(branch: Branch) -> tuple[int, int, int]:
    """First channel and size of the part that a branch reads, and the number of channels there are."""
    part = selection(branch)
    if part is not None:
        assert isinstance(part.op, Select)
        return (*part.op.ranges[part.outputs.index(branch.source)], part.op.channels)
    assert isinstance(branch.op, Conv)
    return 0, branch.op.inputs, branch.op.inputs


def covers(ranges: Sequence[tuple[int, int, int]]) -> bool:
    """Whether the parts are all channels, each once and in order."""
    end = 0
    for first, size, _ in ranges:
        if first != end:
            return False
        end += size
    return end == ranges[0][2]

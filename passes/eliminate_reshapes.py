"""Maps of the channels do not see how the other axes are arranged: R^-1 k (R x) = k x.

Linear layers that are written for rows, and 1x1 convolutions for flat images (Kossaifi et al., "TensorLy",
JMLR 2019).
"""

from collections.abc import Iterator
from math import prod

from fuser.algebra.conv import Conv, Ints
from fuser.algebra.rows import on_axes
from fuser.errors import Declined, require
from fuser.ir.node import Apply, Node
from fuser.ir.ops import Reshape, Sum
from fuser.rewrite.pattern import FOLD, Candidate, rewrite
from passes._branch import Branch
from passes._reshape import read_by, reshape_before, sample

LARGEST_RANK = 3
"""Spatial axes of a convolution that every host has."""


@rewrite(Reshape, stage=FOLD)
def eliminate_reshapes(node: Node) -> Iterator[Candidate]:
    """reshape(conv(reshape(x)))  ->  conv'(x), where x and the result differ in channels alone.

    One or more 1x1 convolutions in groups or not, linear layers, scales and shifts. The channels may be on
    another axis of x than of its reshape, as long as as many elements lie behind them.

    Given:
        x: float32 [N, 4, 5, 6]
        a = reshape to (-1, 4, 30) (x)
        b = 1 conv, 4 -> 3 (a)
        y = reshape to (-1, 3, 5, 6) (b)
        return y
    Result:
        x: float32 [N, 4, 5, 6]
        y = 1x1 conv, 4 -> 3 (x)
        return y

    Declined:
        x: float32 [N, 4, 5, 6]
        a = reshape to (-1, 20, 6) (x)
        b = 1 conv, 20 -> 20 (a)
        y = reshape to (-1, 4, 5, 6) (b)
        return y
        # the channels of 1 conv, 20 -> 20 on (20, 6) are no axis of both (4, 5, 6) and (4, 5, 6)
    """
    value = read_by(node)
    first = reshape_before(value, channels_only=True)
    if first is None:
        return
    source = read_by(first)
    before, after = sample(source), sample(node.outputs[0])
    if len(before) != len(after) or sum(n != m for n, m in zip(before, after, strict=True)) > 1:
        return
    between = Branch(Sum((1.0,)), value).back_to(first.outputs[0])
    if isinstance(between.op, Conv):
        yield Apply(moved(between.op, sample(first.outputs[0]), before, after), (source,))
    elif before == after:
        yield source if between.op.neutral else Apply(between.op, (source,))


def moved(conv: Conv, seen: Ints, source: Ints, result: Ints) -> Conv:
    """The same map of channels for samples of shape `source`, where it was one for samples of shape `seen`.

    Raises:
        Declined: its channels are no axis of `source`, or not one of `result` as well.
    """
    behind = prod(seen[1:]) if conv.axis == 1 else 1
    for place in dict.fromkeys((0, len(source) - 1)):
        expected = (*source[:place], conv.outputs, *source[place + 1 :])
        if source[place] == conv.inputs and prod(source[place + 1 :]) == behind and result == expected:
            last = place == len(source) - 1
            rank = 0 if last else len(source) - 1
            require(rank <= LARGEST_RANK, f"{rank} spatial axes are more than {LARGEST_RANK}")
            return on_axes(conv, rank, -1 if last else 1)
    raise Declined(f"the channels of {conv} on {seen} are no axis of both {source} and {result}")

"""A map of the channels passes resizing, k (up x) = up (k x), to where there are fewer positions.

The neck of every YOLO: a 1x1 over an upsampled and a lateral image side by side (Lin et al., "Feature Pyramid
Networks for Object Detection", CVPR 2017).
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from fuser.algebra import channels
from fuser.algebra.conv import Conv
from fuser.errors import require
from fuser.ir.node import Apply, Node, Value, carry_of
from fuser.ir.ops import Concat, Sum, operation
from fuser.rewrite.pattern import MERGE, Candidate, describe_fully, rewrite
from passes._branch import channels_of


@rewrite(Conv, stage=MERGE)
def delay_upsampling(node: Node) -> Iterator[Candidate]:
    """conv1x1(concat(up(x), z))  ->  up(conv1x1(x)) + conv1x1'(z), and conv1x1(up(x))  ->  up(conv1x1(x)).

    Resizing whose weights sum to one, in any mode; only the parts that are resized go before it.

    Given:
        x: float32 [1, 64, 8, 8]
        z: float32 [1, 16, 16, 16]
        u: float32 [1, 64, 16, 16] = Resize (x)
        c = concat, axis 1 (u, z)
        y = 1x1 conv, 80 -> 16, bias (c)
        return y
    Result:
        x: float32 [1, 64, 8, 8]
        z: float32 [1, 16, 16, 16]
        u_0 = 1x1 conv, 64 -> 16 (x)
        u: float32 [1, 16, 16, 16] = Resize (u_0)
        y_0 = 1x1 conv, 16 -> 16, bias (z)
        y = u + y_0
        return y
    """
    conv, (value,) = node.op, node.inputs
    assert isinstance(conv, Conv)
    if not conv.local or conv.axis != 1 or conv.groups > 1 or value is None:
        return
    maker = value.producer
    if maker is None:
        return
    if resizes(maker):
        yield {value: before(maker, conv), node.outputs[0]: Apply(Sum((1.0,)), (value,))}
    elif isinstance(maker.op, Concat) and maker.op.axis == 1:
        yield from beside(node, maker)


def beside(node: Node, concat: Node) -> Iterator[Candidate]:
    """The parts of a concatenation that are resized, each by itself, and all others together."""
    conv = node.op
    assert isinstance(conv, Conv)
    targets: dict[Value, Apply] = {}
    terms: list[Value | Apply] = []
    rest: list[tuple[Value, Conv]] = []
    first = 0
    for value in concat.inputs:
        assert value is not None
        size = channels_of(value, 1)
        part = channels.take(conv, first, size)
        first += size
        if value.producer is not None and resizes(value.producer) and value.sole_user is concat:
            targets[value] = before(value.producer, part)
            terms.append(value)
        else:
            rest.append((value, part))
    if not targets:
        return
    require(value_once(concat), f"{describe_fully(concat)} reads a value twice")
    if rest:
        terms.append(joined(rest, conv))
    elif conv.bias.any():
        value, application = next(iter(targets.items()))
        (inner, *others) = application.inputs
        assert isinstance(inner, Apply)
        assert isinstance(inner.op, Conv)
        biased = replace(inner, op=replace(inner.op, bias=conv.bias))
        targets[value] = replace(application, inputs=(biased, *others))
    yield {**targets, node.outputs[0]: Apply(Sum((1.0,) * len(terms)), tuple(terms))}


def joined(rest: list[tuple[Value, Conv]], conv: Conv) -> Apply:
    """What is not resized: one convolution, of one value or of several side by side; it has the bias."""
    values = tuple(value for value, _ in rest)
    kernels = [part for _, part in rest]
    if len(values) == 1:
        return Apply(replace(kernels[0], bias=conv.bias), values, "conv")
    weight = np.concatenate([part.weight for part in kernels], axis=1)
    whole = replace(Conv.of(weight, conv.bias), axis=conv.axis)
    return Apply(whole, (Apply(Concat(len(values), 1), values),), "conv")


def before(resize: Node, conv: Conv) -> Apply:
    """up(conv(x)) in the place of up(x)."""
    source, *others = resize.inputs
    assert source is not None
    return Apply(resize.op, (Apply(conv, (source,), "conv"), *others), resize.label)


def resizes(node: Node) -> bool:
    """Whether the node does the same to every channel, and linearly, and is no part of the algebra itself."""
    carry = carry_of(node)
    return operation(node.op).opaque and len(node.outputs) == 1 and carry is not None and carry.alike


def value_once(concat: Node) -> bool:
    """Whether every part is another value."""
    return len(set(concat.inputs)) == len(concat.inputs)

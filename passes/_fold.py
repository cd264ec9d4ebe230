"""Folding a node into the convolutions before or behind it, for passes that differ in what they fold."""

from collections.abc import Iterator

from fuser.algebra.conv import Conv
from fuser.errors import Declined, require
from fuser.ir.node import Apply, Node, Value
from fuser.ir.ops import Sum
from fuser.rewrite.pattern import Candidate, describe, describe_fully
from passes._branch import Branch, affine, readers


def upstream(node: Node) -> Iterator[Candidate]:
    """node(f(x))  ->  f'(x), for ever longer f."""
    source = node.inputs[0]
    assert source is not None
    assert isinstance(node.op, Conv | Sum)
    for branch in Branch(node.op, source, node.extent).upstream():
        if branch.source is not source:
            yield branch.apply


def downstream(node: Node) -> Iterator[Candidate]:
    """f(node(x)), g(node(x)), ...  ->  f'(x), g'(x), ...: into every reader, so that the node vanishes."""
    targets: dict[Value, Apply] = {}
    for user in readers(node.outputs[0]):
        require(isinstance(user.op, Conv), f"{describe_fully(user)} reads it and is no convolution")
        assert isinstance(user.op, Conv)
        targets[user.outputs[0]] = Branch(user.op, node.outputs[0], user.extent).after(node).apply
    if targets:
        yield targets


def both_ways(node: Node) -> Iterator[Candidate]:
    """Upstream where that is exact and pays, else downstream; the reasons of both when neither does."""
    reasons: list[str] = []
    maker = node.inputs[0].producer if node.inputs[0] is not None else None
    if maker is None or not affine(maker):
        reasons.append(f"behind {describe_maker(node.inputs[0])}: nothing to fold into")
    else:
        try:
            yield from upstream(node)
        except Declined as reason:
            reasons.append(f"into {describe(maker)}: {reason}")
    try:
        yield from downstream(node)
    except Declined as reason:
        reasons.append(f"forward: {reason}")
    if reasons:
        raise Declined("; ".join(reasons))


def describe_maker(value: Value | None) -> str:
    """How a reason calls what makes a value."""
    if value is None or value.producer is None:
        return f"the input {value.name!r}" if value is not None else "nothing"
    return describe_fully(value.producer)

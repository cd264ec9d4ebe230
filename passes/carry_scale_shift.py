"""A scale and a shift go where a value's elements go, to whatever takes them in.

What moves elements, or treats those along an axis alike, carries them: reshapes, transpositions, resizing,
averages; a maximum and a ReLU carry a positive scale. Concat gives each part its own, a sum the scale to
every term and the shift to one (DESIGN: "a map of the channels goes where its channels go").
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from fuser.algebra import laws
from fuser.algebra.conv import Conv, scale_shift
from fuser.algebra.pointwise import Pointwise
from fuser.errors import Declined, require
from fuser.ir.node import Apply, Node, Value
from fuser.ir.ops import Concat, Sum, operation
from fuser.rewrite.pattern import FOLD, Candidate, describe, describe_fully, rewrite
from passes._branch import affine, channels_of, exact, extent_of, readers

FARTHEST = 64
"""Operators that one walk may pass: beyond any published block, and the compiler stays linear."""

NOTHING = Sum((1.0,))

Targets = dict[Value, Apply]


@rewrite(Conv, Sum, stage=FOLD)
def carry_scale_shift(node: Node) -> Iterator[Candidate]:
    """s * f(conv(x)) + t  ->  f(conv'(x)), and conv(f(s * x + t))  ->  conv'(f(x)), f moving elements.

    Also through several such operators, branches of a sum and parts of a concatenation, if all that is
    reached takes in its part.

    Given:
        x: float32 [2, 3, 8, 8]
        a = 3x3 conv, 3 -> 4, pads (1, 1, 1, 1) (x)
        b = 1x1 conv, 3 -> 4 (x)
        c = Relu (b)
        d = 1x1 conv, 4 -> 4 (c)
        e = a + d
        f = permute to (0, 2, 3, 1) (e)
        g = batch_norm, axis -1 (f)
        y = Relu (g)
        return y
    Result:
        x: float32 [2, 3, 8, 8]
        a = 3x3 conv, 3 -> 4, pads (1, 1, 1, 1), bias (x)
        b = 1x1 conv, 3 -> 4 (x)
        c = Relu (b)
        d = 1x1 conv, 4 -> 4 (c)
        e = a + d
        f = permute to (0, 2, 3, 1) (e)
        g = f
        y = Relu (g)
        return y

    Declined:
        x: float32 [1, 4, 8, 8]
        a = -2 x
        b = Relu (a)
        y = 3x3 conv, 4 -> 8, pads (1, 1, 1, 1) (b)
        return y
        # b (Relu): the scale is not positive everywhere: -2
    """
    m = own(node)
    if m is None or m.neutral:
        return
    reasons: list[str] = []
    for walk in (upstream, downstream):
        try:
            yield from walk(node, m)
        except Declined as reason:
            reasons.append(str(reason))
    if reasons:
        raise Declined("; ".join(reasons))


def own(node: Node) -> Pointwise | None:
    """The scale and shift that a node is, if it is one."""
    rank, op = node.outputs[0].rank, node.op
    if rank is None or len(node.inputs) != 1 or node.inputs[0] is None:
        return None
    if isinstance(op, Sum):
        one = np.ones((1,) * rank)
        return Pointwise(one * op.coefficients[0], one * op.offset)
    if isinstance(op, Conv) and op.pointwise:
        return Pointwise.of(op.weight.reshape(-1), op.bias, rank, op.axis)
    return None


def upstream(node: Node, m: Pointwise) -> Iterator[Candidate]:
    """Into what makes the value, through what lies between."""
    (value,) = node.inputs
    if value is None or value.producer is None or affine(value.producer):
        return
    yield {**absorbed(value, m, node), node.outputs[0]: Apply(NOTHING, (value,))}


def absorbed(value: Value, m: Pointwise, reader: Node, passed: int = 0) -> Targets:
    """What makes m(value) in the place of `value`, which only `reader` reads.

    Raises:
        Declined: something on the way does not carry it, or has other readers.
    """
    maker, inputs = value.producer, value.producer.inputs if value.producer else ()
    if maker is None or value.constant is not None or None in inputs[:1]:
        raise Declined(f"{value.name!r} is given from outside")
    require(passed < FARTHEST, f"more than {FARTHEST} operators lie between")
    others = [describe(user) for user in value.users if user is not reader and not of_shape(user)]
    others += ["the graph output"] * value.is_output
    require(not others, f"{value.name!r} is also read by {', '.join(others[:3])}")
    require(len(maker.outputs) == 1, f"{describe_fully(maker)} has {len(maker.outputs)} outputs")
    source = inputs[0]
    assert source is not None
    op = maker.op
    if isinstance(op, Conv):
        scale, shift = m.on(rank_for(op, m), op.axis, op.outputs)
        made = laws.compose(scale_shift(scale, shift, op.rank, op.axis), op)
        return {value: Apply(made, (source,), maker.label, maker.extent)}
    if isinstance(op, Sum):
        return summed(maker, m, passed + 1)
    if isinstance(op, Concat):
        return parted(maker, m, passed + 1)
    with naming(maker):
        before = operation(op).carry(maker).before(m, source.shape, value.shape)
    return {**absorbed(source, before, maker, passed + 1), value: again(maker)}


def summed(node: Node, m: Pointwise, passed: int) -> Targets:
    """s * (a x + b y + o) + t = a (s x + t') + b (s y): the scale for every term, the shift for one."""
    op, value = node.op, node.outputs[0]
    assert isinstance(op, Sum)
    terms = list(zip(op.coefficients, node.inputs, strict=True))
    shift = m.scale * op.offset + m.shift
    plain = bool((m.scale == 1).all())
    reasons: list[str] = []
    for chosen, (factor, term) in enumerate(terms):
        if not factor or term is None:
            continue
        targets: Targets = {}
        try:
            for place, (_, other) in enumerate(terms):
                if other is None or (plain and place != chosen):
                    continue
                part = shift / factor if place == chosen else np.zeros_like(m.shift)
                merge(targets, absorbed(other, Pointwise(m.scale, part).compressed(), node, passed))
        except Declined as reason:
            reasons.append(str(reason))
            if not plain:
                break
            continue
        inputs = tuple(term for _, term in terms if term is not None)
        return {**targets, value: Apply(Sum(op.coefficients), inputs)}
    raise Declined("; ".join(dict.fromkeys(reasons)) or f"{describe_fully(node)} has no term that counts")


def parted(node: Node, m: Pointwise, passed: int) -> Targets:
    """m(concat(x, y)) = concat(m_x(x), m_y(y)): each part has its own rows."""
    op, targets, first = node.op, Targets(), 0
    assert isinstance(op, Concat)
    for value in node.inputs:
        assert value is not None
        size = channels_of(value, op.axis)
        part = m.part(op.axis % m.rank, first, size)
        if not part.neutral:
            merge(targets, absorbed(value, part, node, passed))
        first += size
    return {**targets, node.outputs[0]: again(node)}


def downstream(node: Node, m: Pointwise) -> Iterator[Candidate]:
    """Into all that reads the value, through what lies between."""
    source, value = node.inputs[0], node.outputs[0]
    assert source is not None
    if all(isinstance(user.op, Conv) for user in value.users):
        return
    targets: Targets = {}
    push(value, source, m, targets)
    yield targets


def push(value: Value, instead: Value, m: Pointwise, targets: Targets) -> None:
    """Let all that reads `value`, which is m(instead), read `instead`.

    Raises:
        Declined: something that reads it neither takes it in nor carries it.
    """
    require(not value.is_output, f"{value.name!r} is a graph output")
    users = [user for user in readers(value) if not of_shape(user)]
    require(bool(users), f"nobody reads {value.name!r}")
    for user in users:
        require(len(targets) < FARTHEST, f"more than {FARTHEST} operators lie between")
        require(len(user.outputs) == 1, f"{describe_fully(user)} has {len(user.outputs)} outputs")
        require(user.outputs[0] not in targets, f"{describe_fully(user)} is reached in two ways")
        made, behind = passed_on(user, value, instead, m)
        targets[user.outputs[0]] = made
        if behind is not None:
            push(user.outputs[0], user.outputs[0], behind, targets)


def passed_on(user: Node, value: Value, instead: Value, m: Pointwise) -> tuple[Apply, Pointwise | None]:
    """What stands for a reader of m(instead), and what is left to be done to that."""
    op, result = user.op, user.outputs[0]
    inputs: Sequence[Value | None] = [instead if v is value else v for v in user.inputs]
    if isinstance(op, Conv):
        scale, shift = m.on(rank_for(op, m), op.axis, op.inputs)
        inner = scale_shift(scale, shift, op.rank, op.axis)
        made, extent = exact(laws.compose, op, inner, extent_of(value, op))
        return Apply(made, (instead,), user.label, user.extent or extent), None
    at = [index for index, v in enumerate(user.inputs) if v is value]
    if isinstance(op, Sum) and len(op.coefficients) == 1:
        one = np.ones((1,) * m.rank)
        return Apply(NOTHING, (instead,)), Pointwise(one * op.coefficients[0], one * op.offset).after(m)
    if isinstance(op, Sum):
        require(bool((m.scale == 1).all()), f"a scale does not pass {describe_fully(user)} from one term")
        factor = sum(op.coefficients[index] for index in at)
        return again(user, inputs), replace(m, shift=factor * m.shift)
    if isinstance(op, Concat):
        sizes = [channels_of(v, op.axis) for v in user.inputs if v is not None]
        none = Pointwise(np.ones_like(m.scale), np.zeros_like(m.shift))
        neutral = none.part(op.axis % m.rank, 0, 1)
        parts = [m if index in at else neutral for index in range(len(sizes))]
        return again(user, inputs), Pointwise.joined(parts, op.axis % m.rank, sizes)
    require(at == [0], f"{describe_fully(user)} reads it as input {at}")
    with naming(user):
        return again(user, inputs), operation(op).carry(user).behind(m, value.shape, result.shape)


def again(node: Node, inputs: Sequence[Value | None] = ()) -> Apply:
    """The operator as it stands, of what it reads or of `inputs`."""
    return Apply(node.op, tuple(inputs or node.inputs), node.label, node.extent)


def of_shape(node: Node) -> bool:
    """Whether it sees no elements, which are those that change."""
    return operation(node.op).of_shape


def rank_for(conv: Conv, m: Pointwise) -> int:
    """The axes of what a convolution makes or reads.

    Raises:
        Declined: the scale and shift are of a value with others.
    """
    require(conv.axis == -1 or conv.rank + 2 == m.rank, f"{m.rank} axes for {conv.rank} spatial ones")
    return m.rank


def merge(targets: Targets, more: Targets) -> None:
    """Put the targets of one branch to those of others.

    Raises:
        Declined: a value is reached in two ways.
    """
    twice = [value.name for value in more if value in targets]
    require(not twice, f"{twice} is reached in two ways")
    targets.update(more)


@contextmanager
def naming(node: Node) -> Iterator[None]:
    """A reason says at which node it holds."""
    try:
        yield
    except Declined as reason:
        raise Declined(f"{describe_fully(node)}: {reason}") from None

"""Channels between two convolutions that are constant, or that nothing reads, are not computed.

What pruning leaves behind: filters that are zero, BatchNorms with a scale of zero (Liu et al., "Network
Slimming", ICCV 2017), inputs whose weights are all zero.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fuser.algebra.conv import Conv
from fuser.algebra.lazy import Array
from fuser.algebra.narrowing import fix_inputs, require_border, take_outputs, zero_columns, zero_rows
from fuser.errors import Declined, require
from fuser.ir.interpret import evaluate
from fuser.ir.node import Apply, Node, Value
from fuser.ir.ops import Opaque, Sum
from fuser.rewrite.pattern import NARROW, Candidate, describe, describe_fully, rewrite
from passes._branch import REACH, readers

# Positions along each spatial axis on which it is seen what an operator makes of a constant channel.
EXTENT = 16


@rewrite(Conv, stage=NARROW)
def drop_channels(node: Node) -> Iterator[Candidate]:
    """conv(f(conv(x)))  ->  conv'(f(conv'(x))) with fewer channels, f being elementwise or depthwise.

    A channel goes if all that read it have zero weights for it, or if it is a constant c: an output whose
    weights are all zero is its bias, and f makes f(c) of it, which joins the bias of the convolution
    behind. Where that one reads past the border, f(c) must be what it is padded with there.

    Given:
        x: float32 [1, 3, 8, 8]
        a = 3x3 conv, 3 -> 6, pads (1, 1, 1, 1), zero outputs [1, 4] (x)
        b = Relu (a)
        y = 3x3 conv, 6 -> 2, pads (1, 1, 1, 1), zero inputs [5] (b)
        return y
    Result:
        x: float32 [1, 3, 8, 8]
        a = 3x3 conv, 3 -> 3, pads (1, 1, 1, 1) (x)
        b = Relu (a)
        y = 3x3 conv, 3 -> 2, pads (1, 1, 1, 1) (b)
        return y

    Declined:
        x: float32 [1, 3, 8, 8]
        a = 3x3 conv, 3 -> 4, pads (1, 1, 1, 1), zero outputs [2] (x)
        b = Softmax (a)
        y = 1x1 conv, 4 -> 2 (b)
        return y
        # b (Softmax) reads all channels
    """
    conv = node.op
    assert isinstance(conv, Conv)
    mixing = conv.groups == 1
    reasons: list[str] = []
    makes = mixing and zero_rows(conv).any()
    reads = (mixing or conv.depthwise) and zero_columns(conv).any()
    for concerned, maker in ((makes, itself), (reads, entry_of)):
        try:
            if concerned:
                yield from without(Coupled.behind(maker(node)))
        except Declined as reason:
            reasons.append(str(reason))
    if reasons:
        raise Declined("; ".join(dict.fromkeys(reasons)))


@dataclass
class Coupled:
    """A convolution, the operators behind it that keep channels apart, and the convolutions that end it."""

    entry: Node
    between: list[Node] = field(default_factory=list)
    exits: list[Node] = field(default_factory=list)
    reasons: dict[str, None] = field(default_factory=dict)

    @classmethod
    def behind(cls, entry: Node) -> "Coupled":
        """The coupled layers that begin with `entry`.

        Raises:
            Declined: something in it, or behind it, reads all channels as they are.
        """
        coupled = cls(entry)
        values = [entry.outputs[0]]
        for value in values:
            require(not value.is_output, f"{value.name!r} is a graph output")
            for user in readers(value):
                if user in coupled.exits or user in coupled.between:
                    continue
                if is_exit(user, entry):
                    coupled.exits.append(user)
                else:
                    require(keeps_channels(user, entry), f"{describe_fully(user)} reads all channels")
                    coupled.between.append(user)
                    values.append(user.outputs[0])
            require(
                len(coupled.between) <= REACH, f"more than {REACH} operators lie between the convolutions"
            )
        coupled.between.sort(key=lambda node: node.position)
        for node in coupled.between:
            for read in node.inputs:
                assert read is not None
                inside = read in values or (read.constant is not None and read.constant.size == 1)
                require(inside, f"{describe(node)} also reads {read.name!r}")
        return coupled

    def constants(self) -> dict[Value, Array]:
        """For each value the constants `[C]` that its channels are, NaN for those that vary."""
        conv = self.entry.op
        assert isinstance(conv, Conv)
        found = {self.entry.outputs[0]: np.where(zero_rows(conv), conv.bias, np.nan)}
        for node in self.between:
            inputs = [found[v] for v in node.inputs if v in found]
            constant = ~np.isnan(np.sum(inputs, axis=0))
            if isinstance(node.op, Conv):
                constant &= self.same_border(node, inputs[0], constant)
                result = node.op.bias + node.op.respond(np.where(constant, inputs[0], 0.0))
                constant |= zero_rows(node.op)
            else:
                result = np.full(constant.shape, np.nan)
                given = {v: found[v][constant] for v in node.inputs if v in found}
                result[constant] = seen(node, given, conv.rank) if constant.any() else ()
            found[node.outputs[0]] = np.where(constant, result, np.nan)
        return found

    def same_border(self, node: Node, constants: Array, constant: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which channels of what a convolution reads go on past the border as the constants that they are."""
        conv = node.op
        assert isinstance(conv, Conv)
        if conv.transposed:
            # The number of taps that add up differs from position to position.
            return np.asarray(constants == 0)
        if not conv.reads_outside:
            return np.ones_like(constant)
        try:
            require_border(conv, constants, constant)
        except Declined as reason:
            self.reasons[f"into {describe(node)}: {reason}"] = None
        return np.asarray(constants == conv.pad_value)

    def needed(self, constants: Mapping[Value, Array]) -> NDArray[np.bool_]:
        """The channels that an exit reads and that are not constants which it can take in."""
        needed = np.zeros(constants[self.entry.outputs[0]].shape, dtype=bool)
        for node in self.exits:
            conv, value = node.op, node.inputs[0]
            assert isinstance(conv, Conv)
            assert value is not None
            read = ~zero_columns(conv)
            constant = read & ~np.isnan(constants[value])
            needed |= read & ~(constant & self.same_border(node, constants[value], constant))
        return needed


def is_exit(node: Node, entry: Node) -> bool:
    """Whether the node mixes the channels that it reads."""
    assert isinstance(entry.op, Conv)
    return isinstance(node.op, Conv) and node.op.groups == 1 and node.op.axis == entry.op.axis


def keeps_channels(node: Node, entry: Node) -> bool:
    """Whether a channel of the result depends on that channel of what is read alone, by one rule for all."""
    op, conv = node.op, entry.op
    assert isinstance(conv, Conv)
    if any(value is None for value in node.inputs) or len(node.outputs) != 1:
        return False
    if isinstance(op, Conv):
        return op.depthwise and op.axis == conv.axis and not op.transposed
    # Pooling acts on the axes behind the channels, which are on axis 1.
    apart = isinstance(op, Opaque) and (op.elementwise or (op.homogeneous and conv.axis == 1))
    return isinstance(op, Sum) or (apart and op.evaluate is not None)


def itself(node: Node) -> Node:
    """The convolution that makes the channels that `node` makes."""
    return node


def entry_of(node: Node) -> Node:
    """The convolution that makes the channels that `node` reads.

    Raises:
        Declined: they are not made by one.
    """
    reader = node
    for _ in range(REACH):
        value = next((v for v in node.inputs if v is not None and v.constant is None), None)
        if value is None:
            raise Declined(f"channels that nothing reads come from {describe(node)} of constants")
        maker = value.producer
        if maker is None:
            raise Declined(f"channels that nothing reads come from the input {value.name!r}")
        if isinstance(maker.op, Conv) and not maker.op.depthwise:
            return maker
        require(
            keeps_channels(maker, reader),
            f"channels that nothing reads come from {describe_fully(maker)}",
        )
        node = maker
    raise Declined(f"channels that nothing reads come from more than {REACH} operators before")


def seen(node: Node, constants: Mapping[Value, Array], rank: int) -> Array:
    """What an operator that keeps channels apart makes of constants: each the whole of one sample.

    Raises:
        Declined: the result is not constant, or not finite.
    """
    spatial = (EXTENT,) * rank
    feed: list[Array] = []
    for value in node.inputs:
        assert value is not None
        if value in constants:
            column = constants[value].reshape(-1, 1, *(1,) * len(spatial))
            feed.append(np.broadcast_to(column, (len(column), 1, *spatial)).copy())
        else:
            assert value.constant is not None
            feed.append(value.constant.lazy())
    result = evaluate(node.op, feed)[0].reshape(len(next(iter(constants.values()))), -1)
    uniform = np.isfinite(result[:, 0]).all() and (result == result[:, :1]).all()
    require(bool(uniform), f"{describe_fully(node)} does not make constants of constants")
    return np.asarray(result[:, 0], dtype=np.float64)


def without(coupled: Coupled) -> Iterator[Candidate]:
    """The coupled layers without the channels that are not needed.

    Raises:
        Declined: all are needed.
    """
    entry = coupled.entry
    require(bool(coupled.exits), f"nothing reads {entry.outputs[0].name!r}")
    constants = coupled.constants()
    needed = coupled.needed(constants)
    if needed.all() and coupled.reasons:
        raise Declined("; ".join(coupled.reasons))
    # One channel stays, for there is no convolution without.
    keep = np.flatnonzero(needed) if needed.any() else np.array([0])
    if len(keep) == len(needed):
        return
    targets: dict[Value, Apply] = {}
    for node in (entry, *coupled.between):
        op = take_outputs(node.op, keep) if isinstance(node.op, Conv) else node.op
        inputs = tuple(v for v in node.inputs if v is not None)
        targets[node.outputs[0]] = Apply(op, inputs, node.label, node.extent)
    for node in coupled.exits:
        conv, value = node.op, node.inputs[0]
        assert isinstance(conv, Conv)
        assert value is not None
        fixed = np.where(zero_columns(conv), conv.pad_value, constants[value])
        fixed[keep] = np.nan
        targets[node.outputs[0]] = Apply(fix_inputs(conv, fixed), (value,), node.label, node.extent)
    yield targets

"""What the rewrites share: an affine map from a source value, grown upstream node by node."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from fuser.algebra import channels, laws
from fuser.algebra.conv import Conv, Ints, scale_shift
from fuser.errors import Declined, require
from fuser.ir.node import Apply, Node, Value
from fuser.ir.ops import Concat, Select, Sum
from fuser.rewrite.pattern import describe

# A rewrite looks at most this many nodes upstream: far enough for every published block, and the compiler
# stays linear.
REACH = 8


@dataclass(frozen=True)
class Branch:
    """`op(source)`: one convolution, or a scalar scale and shift that fits any layout.

    `extent` is set where this is exact only for inputs of that spatial extent.
    """

    op: Conv | Sum
    source: Value
    extent: Ints | None = None

    @property
    def apply(self) -> Apply:
        """What replaces the value that the branch computes."""
        return Apply(self.op, (self.source,), extent=self.extent)

    def after(self, node: Node) -> "Branch":
        """The branch with the producer of its source taken in: `op(node(x))`.

        Raises:
            Declined: the composition is not exact.
        """
        source = node.inputs[0]
        assert source is not None
        outer, inner = self.op, node.op
        if isinstance(inner, Select):
            assert isinstance(self.op, Conv)
            require(inner.axis == self.op.axis, f"channel axis differs: {inner.axis} and {self.op.axis}")
            first, _ = inner.ranges[node.outputs.index(self.source)]
            return replace(self, op=channels.widen(self.op, first, inner.channels), source=source)
        assert isinstance(inner, Conv | Sum)
        if isinstance(outer, Conv) and isinstance(inner, Conv) and outer.axis != inner.axis:
            outer, inner = without_axis(outer), without_axis(inner)
        if isinstance(outer, Sum):
            return replace(self, op=combine(outer, inner), source=source)
        if isinstance(inner, Sum):
            inner = scalar(inner, outer.inputs, outer.rank, outer.axis)
        known = extent_of(source, outer)
        op, extent = exact(laws.compose, outer, inner, known)
        require(self.extent is None or known is not None, f"the extent of {source.name!r} is not known")
        return Branch(op, source, node.extent or (extent if self.extent is None else known))

    def upstream(self) -> Iterator["Branch"]:
        """This branch, then ever longer ones, as far as the algebra and `REACH` allow.

        Raises:
            Declined: with the reason why it ends where it does, after the last one.
        """
        branch = self
        yield branch
        for _ in range(REACH):
            node = branch.source.producer
            if node is None:
                return
            if isinstance(node.op, Concat):
                source = common_source(node, branch.op)
                if source is None:
                    return
                branch = branch.across(node, source)
            elif reads_one(node, branch.op):
                branch = branch.after(node)
            else:
                return
            yield branch

    def across(self, concat: Node, source: Value) -> "Branch":
        """op(concat(a(x), b(x), ...))  ->  op_a(a(x)) + op_b(b(x)) + ...: the branch with the parts taken in.

        Raises:
            Declined: a composition is not exact, or the parts do not add up to one convolution.
        """
        assert isinstance(self.op, Conv)
        first, total = 0, None
        for value in concat.inputs:
            assert value is not None
            size = channels_of(value, self.op.axis)
            part = replace(self, op=channels.take(self.op, first, size), source=value).back_to(source)
            total = part if total is None else total + part
            first += size
        assert total is not None
        assert isinstance(total.op, Conv)
        require(first == self.op.inputs, f"{first} channels are read as {self.op.inputs}")
        return replace(total, op=replace(total.op, bias=total.op.bias + self.op.bias))

    def back_to(self, source: Value) -> "Branch":
        """The branch as a map of `source`, which is upstream."""
        branch = self
        while branch.source is not source:
            assert branch.source.producer is not None, f"{source.name} is not upstream"
            branch = branch.after(branch.source.producer)
        return branch

    def __add__(self, other: "Branch") -> "Branch":
        """a(x) + b(x), both convolutions of one source.

        Raises:
            Declined: they do not add up to one.
        """
        assert isinstance(self.op, Conv)
        assert isinstance(other.op, Conv)
        op, extent = exact(laws.add, self.op, other.op, extent_of(self.source, self.op))
        return Branch(op, self.source, self.extent or other.extent or extent)

    def like(self, conv: Conv) -> Conv:
        """The operator as a convolution on tensors such as `conv` reads."""
        return self.op if isinstance(self.op, Conv) else scalar(self.op, conv.inputs, conv.rank, conv.axis)


def common_source(concat: Node, op: Conv | Sum) -> Value | None:
    """The nearest value that all parts of a concatenation can be written in, for a convolution `op` of it."""
    assert isinstance(concat.op, Concat)
    if not isinstance(op, Conv) or op.groups > 1 or op.axis != concat.op.axis:
        return None
    common: list[Value] | None = None
    for value in concat.inputs:
        assert value is not None
        path = list(ancestors(value, op))
        common = path if common is None else [v for v in common if v in path]
        if not common:
            return None
    return common[0] if common else None


def ancestors(value: Value, op: Conv) -> Iterator[Value]:
    """The value, and those that it is an affine map of, the nearest first."""
    yield value
    for _ in range(REACH):
        node = value.producer
        if node is None or not reads_one(node, op) or node.inputs[0] is None:
            return
        value = node.inputs[0]
        yield value


def reads_one(node: Node, op: Conv | Sum) -> bool:
    """Whether `op` can take in the node, an affine map of one value."""
    return affine(node) or (isinstance(node.op, Select) and isinstance(op, Conv))


def channels_of(value: Value, axis: int) -> int:
    """The number of channels of a value.

    Raises:
        Declined: it is not known.
    """
    size = None if value.shape is None else value.shape[axis]
    require(isinstance(size, int), f"{value.name!r} has {size} channels")
    assert isinstance(size, int)
    return size


def readers(value: Value) -> list[Node]:
    """The nodes that compute with a value.

    Raises:
        Declined: a node was lifted for what it means together with what makes the value, and reads what lies
        before that; it stands for both.
    """
    for user in value.users:
        require(
            value in user.inputs, f"{describe(user)} stands for what makes {value.name!r} and itself together"
        )
    return list(value.users)


def affine(node: Node) -> bool:
    """Whether the node is an affine map of one value."""
    return isinstance(node.op, Conv) or unary(node)


def unary(node: Node) -> bool:
    """Whether the node is a scalar scale and shift."""
    return isinstance(node.op, Sum) and len(node.op.coefficients) == 1


def combine(outer: Sum, inner: Conv | Sum) -> Conv | Sum:
    """c * inner(x) + t: the scalar scale and shift joins what it follows, whatever the layout."""
    (factor,) = outer.coefficients
    if isinstance(inner, Conv):
        return laws.shift(laws.scale(inner, factor), outer.offset)
    return Sum(tuple(factor * c for c in inner.coefficients), factor * inner.offset + outer.offset)


def without_axis(op: Conv) -> Conv | Sum:
    """One number for all channels has no axis, and goes with channels on any other; all else has its own."""
    if op.pointwise and (op.weight == op.weight.flat[0]).all() and (op.bias == op.bias[0]).all():
        return Sum((float(op.weight.flat[0]),), float(op.bias[0]))
    return op


def scalar(op: Sum, channels: int, rank: int, axis: int) -> Conv:
    """A scalar scale and shift as a depthwise convolution."""
    (factor,) = op.coefficients
    return scale_shift(np.full(channels, factor), np.full(channels, op.offset), rank, axis)


def extent_of(value: Value, conv: Conv) -> Ints | None:
    """The spatial extent of a value where it is known."""
    if value.shape is None or conv.axis != 1:
        return None
    extent = tuple(dim for dim in value.shape[2:] if isinstance(dim, int))
    return extent if len(extent) == len(value.shape) - 2 == conv.rank > 0 else None


def exact(
    law: Callable[[Conv, Conv, Ints | None], Conv], a: Conv, b: Conv, extent: Ints | None
) -> tuple[Conv, Ints | None]:
    """Apply a law for every extent if it holds for every extent, else for the one that is known."""
    try:
        return law(a, b, None), None
    except Declined:
        if extent is None:
            raise
        return law(a, b, extent), extent

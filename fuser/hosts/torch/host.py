"""How torch expresses an operator: one or a few layers, elementwise operators and pads.

One description of the lowering serves both the driver, which asks whether there is one and how many kernels
it takes, and the export, which builds it.
"""

from dataclasses import replace
from typing import Protocol, TypeVar

from torch import fx

from fuser.algebra.conv import Conv, Ints, regroup
from fuser.algebra.lazy import Array
from fuser.errors import Declined, require
from fuser.ir.constant import FLOATS
from fuser.ir.node import Value
from fuser.ir.ops import Concat, Op, Permute, Reshape, Select, Sum

T = TypeVar("T")


class Emit(Protocol[T]):
    """What operators are expressed with; each method makes one kernel and returns its result."""

    def conv(self, x: T, conv: Conv, padding: Ints | str) -> T:
        """A convolution with symmetric zero padding, or with 'same' padding."""

    def average_pool(self, x: T, conv: Conv) -> T:
        """The mean of each window, padding counted."""

    def conv_transpose(self, x: T, conv: Conv, padding: Ints, output_padding: Ints) -> T:
        """A transposed convolution."""

    def linear(self, x: T, conv: Conv) -> T:
        """A dense layer on the last axis."""

    def pad(self, x: T, pads: Ints, value: float) -> T:
        """Padding by a constant, the last axis first, as `torch.nn.functional.pad` has it."""

    def scale(self, x: T, factor: Array) -> T:
        """Times a constant."""

    def shift(self, x: T, offset: Array) -> T:
        """Plus a constant."""

    def times(self, x: T, factor: float) -> T:
        """Times a number."""

    def plus(self, x: T, offset: float) -> T:
        """Plus a number."""

    def add(self, x: T, y: T, alpha: float) -> T:
        """x + alpha * y."""

    def concat(self, parts: list[T], axis: int) -> T:
        """One behind the other along an axis."""

    def select(self, x: T, axis: int, first: int, size: int) -> T:
        """A range of an axis."""

    def reshape(self, x: T, shape: Ints) -> T:
        """The same elements, the first axis what the others leave."""

    def permute(self, x: T, axes: Ints) -> T:
        """The axes in another order."""


class FxHost:
    """One fx graph behind a `Graph`: its nodes, in order, and what its values are in it."""

    def __init__(self, graph: fx.Graph) -> None:
        self.graph = graph
        self.order: list[fx.Node] = []
        self.values: dict[Value, fx.Node] = {}
        # What each node read when it was imported.
        self.inputs: dict[fx.Node, tuple[Value | None, ...]] = {}
        # Views of parameters: constants that cost nothing and stay what they are, so there is no node for
        # them.
        self.views: set[fx.Node] = set()
        # Nodes whose result may be changed unseen, and which are left as they are.
        self.pinned: frozenset[fx.Node] = frozenset()

    def require_lowerable(self, op: Op, output: Value) -> None:
        """Ask for a lowering.

        Raises:
            Declined: torch has no operator for it; the reason holds both values.
        """
        lower(op, output, [0] * _operands(op), _Count())

    def kernels(self, op: Op, output: Value) -> int:
        """The number of kernels, one for what cannot be lowered, none for a view: a range of channels."""
        if isinstance(op, Select):
            return 0
        count = _Count()
        try:
            lower(op, output, [0] * _operands(op), count)
        except Declined:
            return 1
        return max(1, count.kernels)


class _Count:
    """Counts kernels."""

    def __init__(self) -> None:
        self.kernels = 0

    def _one(self, *arguments: object) -> int:
        del arguments
        self.kernels += 1
        return 0

    def pad(self, *arguments: object) -> int:
        """A pad moves the whole input, which is more than what it saves to have one operator less."""
        del arguments
        self.kernels += 2
        return 0

    conv = average_pool = conv_transpose = linear = scale = shift = times = plus = add = _one
    concat = select = reshape = permute = _one


def _operands(op: Op) -> int:
    if isinstance(op, Sum):
        return len(op.coefficients)
    return op.parts if isinstance(op, Concat) else 1


def lower(op: Op, output: Value, inputs: list[T], to: Emit[T]) -> T:
    """Express `op` where it makes `output`, and return the result.

    Raises:
        Declined: torch has no operator for it.
    """
    if isinstance(op, Sum):
        return _sum(op, output, inputs, to)
    if isinstance(op, Concat):
        return to.concat(inputs, op.axis)
    (x,) = inputs
    if isinstance(op, Select) and len(op.ranges) == 1:
        return to.select(x, op.axis, *op.ranges[0])
    if isinstance(op, Reshape):
        return to.reshape(x, op.shape)
    if isinstance(op, Permute):
        return to.permute(x, op.axes)
    if not isinstance(op, Conv):
        raise Declined(f"{op} is not affine")
    require(
        output.dtype in FLOATS, f"the element type of {output.name!r} is {output.dtype}, not a floating one"
    )
    if op.pointwise:
        return _scale_shift(op, output, x, to)
    if op.rank == 0:
        require(op.axis == -1 or output.rank == 2, f"channels on axis 1 of a tensor with {output.rank} axes")
        return to.linear(x, regroup(op, 1))
    require(op.rank <= 3, f"torch has convolutions of at most 3 spatial axes, not {op.rank}")
    return _conv_transpose(op, x, to) if op.transposed else _conv(op, x, to)


def _scale_shift(conv: Conv, output: Value, x: T, to: Emit[T]) -> T:
    """x * scale + shift, without what is neutral."""
    rank = conv.rank
    require(
        conv.axis == -1 or output.rank in {None, rank + 2},
        f"the tensor has {output.rank} axes, the kernel is for {rank + 2}",
    )
    shape = (conv.outputs, *(1,) * rank)
    factor = conv.weight.reshape(shape)
    if (factor != 1.0).any():
        x = to.scale(x, factor)
    return to.shift(x, conv.bias.reshape(shape)) if conv.bias.any() else x


def _conv(conv: Conv, x: T, to: Emit[T]) -> T:
    """A convolution, behind an explicit pad where its padding is not symmetric or not zero."""
    value = _uniform_pad_value(conv)
    bare = _only_pads(conv)
    if not bare and conv.begin == conv.end and min(conv.begin) >= 0 and value == 0.0:
        small = all(2 * p <= k for p, k in zip(conv.begin, conv.size, strict=True))
        return to.average_pool(x, conv) if small and conv.averages else to.conv(x, conv, conv.begin)
    if not bare and _is_same(conv) and value == 0.0:
        return to.conv(x, conv, "same")
    if any(conv.begin + conv.end):
        pairs = list(zip(conv.begin, conv.end, strict=True))
        x = to.pad(x, tuple(n for pair in reversed(pairs) for n in pair), value)
    none = (0,) * conv.rank
    return x if bare else to.conv(x, replace(conv, begin=none, end=none), none)


def _is_same(conv: Conv) -> bool:
    """Whether the padding is what torch calls 'same': of an odd amount the larger part is at the end."""
    total = [step * (taps - 1) for step, taps in zip(conv.dilation, conv.size, strict=True)]
    begin, end = tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)
    return (conv.begin, conv.end) == (begin, end) and all(s == 1 for s in conv.stride)


def _only_pads(conv: Conv) -> bool:
    """Whether the operator moves and pads, and does nothing else."""
    bare = conv.depthwise and all(v == 1 for v in conv.size + conv.stride)
    return bare and not conv.bias.any() and bool((conv.weight == 1.0).all())


def _uniform_pad_value(conv: Conv) -> float:
    low, high = float(conv.pad_value.min()), float(conv.pad_value.max())
    require(low == high, f"the pad value differs between channels: {low:.6g} and {high:.6g}")
    return low


def _conv_transpose(conv: Conv, x: T, to: Emit[T]) -> T:
    """A transposed convolution; what the end crops less than the begin is `output_padding`."""
    extra = tuple(b - e for b, e in zip(conv.begin, conv.end, strict=True))
    limits = tuple(map(max, conv.stride, conv.dilation))
    require(min(conv.begin) >= 0, f"negative pads at the begin: {conv.begin}")
    require(
        all(0 <= more < limit for more, limit in zip(extra, limits, strict=True)),
        f"output_padding {extra} is negative, or not less than stride or dilation {limits}",
    )
    return to.conv_transpose(x, conv, conv.begin, extra)


def _sum(op: Sum, output: Value, inputs: list[T], to: Emit[T]) -> T:
    """A chain of additions that scale as they add; one factor in common is taken out."""
    coefficients = list(op.coefficients)
    whole = all(c == int(c) for c in (*coefficients, op.offset))
    require(
        whole or output.dtype in FLOATS,
        f"the element type of {output.name!r} is {output.dtype}, not a floating one, for {op}",
    )
    common = len(set(coefficients)) == 1 and abs(coefficients[0]) not in {0, 1}
    factor = coefficients[0] if common else 1.0
    terms = sorted(
        zip([c / factor for c in coefficients], range(len(inputs)), strict=True),
        key=lambda term: term[0] != 1.0,
    )
    first, index = terms[0]
    result = inputs[index] if first == 1.0 else to.times(inputs[index], first)
    for coefficient, index in terms[1:]:
        result = to.add(result, inputs[index], coefficient)
    if factor != 1.0:
        result = to.times(result, factor)
    return to.plus(result, op.offset) if op.offset else result

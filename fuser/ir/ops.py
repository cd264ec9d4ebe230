"""The operators of the graph. Each answers for itself what `ir/operation.py` asks.

`operation(op)` answers for any of them. A `Conv` is the algebra's, which knows arrays alone; what the graph
asks of it stands in `Convolution`, in terms of extents.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fuser.algebra.conv import Conv, Ints
from fuser.algebra.lazy import Array, Lazy, arrange
from fuser.ir.carry import CHANNELWISE, ELEMENTWISE, RESHAPE, Carry, transposition
from fuser.ir.constant import Constant
from fuser.ir.extents import Dim, Shape, nominal, positions, window
from fuser.ir.literals import Literals, anywhere
from fuser.ir.operation import Operation, Work


@dataclass(frozen=True)
class Sum(Operation):
    """`y = sum_i coefficients[i] * x_i + offset`, all inputs of one shape."""

    coefficients: tuple[float, ...]
    offset: float = 0.0

    elementwise = True

    @property
    def arity(self) -> tuple[int, int]:
        """One input for each term."""
        return len(self.coefficients), 1

    def evaluate(self, *terms: Array) -> Array:
        """The linear combination, computed directly; one that changes nothing leaves integers as they are."""
        if self.neutral:
            return terms[0]
        return sum(
            (c * x for c, x in zip(self.coefficients, terms, strict=True)), start=np.asarray(self.offset)
        )

    @property
    def neutral(self) -> bool:
        """Whether the output is the input."""
        return self.coefficients == (1.0,) and self.offset == 0.0

    def asks(self, known: Shape | None, output: Shape | None) -> Shape | None:
        """All inputs and the output have the same extents."""
        if known is None or output is None or len(known) != len(output):
            return output if known is None or output is None else known
        return tuple(m if isinstance(m, int) else n for n, m in zip(known, output, strict=True))

    def work(self, output: Shape | None, kernels: int) -> Iterator[Work]:
        """One kernel reads all terms; several write what the next one reads."""
        moved = len(self.coefficients) + 1 if kernels == 1 else 2 * kernels
        yield Work(0, prod(nominal(output or ())) * moved, kernels)

    def __str__(self) -> str:
        terms = " ".join(f"{c:+g}*x{i}" for i, c in enumerate(self.coefficients))
        return f"sum {terms}" + (f" {self.offset:+g}" if self.offset else "")


@dataclass(frozen=True)
class Concat(Operation):
    """So many parts, one behind the other along the channel axis: 1, or -1 for linear layers."""

    parts: int
    axis: int

    @property
    def channel_axis(self) -> int:
        """Its own."""
        return self.axis

    @property
    def arity(self) -> tuple[int, int]:
        """One input for each part."""
        return self.parts, 1

    def evaluate(self, *parts: Array) -> Array:
        """The concatenation, computed directly; a scalar is one channel beside the others."""
        shape = next((list(part.shape) for part in parts if part.ndim), [])
        if shape:
            shape[self.axis] = 1
        return np.concatenate(
            [part if part.ndim else np.broadcast_to(part, shape) for part in parts], axis=self.axis
        )

    def result(self, *shapes: Shape | None) -> tuple[Shape | None, ...]:
        """The channels of all parts together."""
        first = shapes[0]
        if first is None:
            return (None,)
        sizes = [None if shape is None else shape[self.axis] for shape in shapes]
        known = [size for size in sizes if isinstance(size, int)]
        return (_with(first, self.axis, sum(known) if len(known) == len(sizes) else None),)

    def __str__(self) -> str:
        return f"concat, axis {self.axis}"


@dataclass(frozen=True)
class Select(Operation):
    """Ranges of channels, `(first, size)` each, one for every output: Split, and Slice of the channels.

    `channels` is the number of channels of the input, `axis` theirs: 1, or -1 for linear layers.
    """

    ranges: tuple[tuple[int, int], ...]
    channels: int
    axis: int

    view = True

    @property
    def channel_axis(self) -> int:
        """Its own."""
        return self.axis

    @property
    def ambiguous(self) -> bool:
        """The last axis may be a spatial one."""
        return self.axis == -1

    @property
    def arity(self) -> tuple[int, int]:
        """One output for each range."""
        return 1, len(self.ranges)

    def evaluate(self, x: Array) -> tuple[Array, ...]:
        """The ranges, computed directly."""
        return tuple(np.take(x, range(first, first + size), axis=self.axis) for first, size in self.ranges)

    def result(self, *shapes: Shape | None) -> tuple[Shape | None, ...]:
        """The channels of each range."""
        (shape,) = shapes
        return tuple(None if shape is None else _with(shape, self.axis, size) for _, size in self.ranges)

    def work(self, output: Shape | None, kernels: int) -> Iterator[Work]:
        """Each range is copied; `output` is the first."""
        (part,) = super().work(output, kernels)
        yield Work(0, part.elements * sum(size for _, size in self.ranges) / self.ranges[0][1], kernels)

    def __str__(self) -> str:
        return f"channels {', '.join(f'{a}:{a + n}' for a, n in self.ranges)} of {self.channels}"


@dataclass(frozen=True)
class Reshape(Operation):
    """The same elements, in their order, as `[-1, *shape]`: every axis but the first has a known extent."""

    shape: Ints

    rigid = True

    @property
    def row(self) -> int:
        """All axes but the first."""
        return prod(self.shape)

    def evaluate(self, x: Array) -> Array:
        """The same elements."""
        return x.reshape(-1, *self.shape)

    def result(self, *shapes: Shape | None) -> tuple[Shape | None, ...]:
        """The first axis is what the others leave."""
        (shape,) = shapes
        if shape is None:
            return ((None, *self.shape),)
        first, *known = (dim if isinstance(dim, int) else None for dim in shape)
        if None in known:
            return ((None, *self.shape),)
        before = prod(n or 0 for n in known)
        if before == self.row:
            return ((shape[0], *self.shape),)
        return ((None if first is None else first * before // self.row, *self.shape),)

    def carry(self, node: Any) -> Carry:
        """Axes are split and merged."""
        del node
        return RESHAPE

    def work(self, output: Shape | None, kernels: int) -> Iterator[Work]:
        """Its elements stay where they are."""
        del output
        yield Work(0, 0, kernels)

    def __str__(self) -> str:
        return f"reshape to {(-1, *self.shape)}"


@dataclass(frozen=True)
class Permute(Operation):
    """The axes in another order: axis `i` of the output is axis `axes[i]` of the input."""

    axes: Ints

    rigid = True

    def evaluate(self, x: Array) -> Array:
        """The same elements."""
        return x.transpose(self.axes)

    def result(self, *shapes: Shape | None) -> tuple[Shape | None, ...]:
        """The extents go with their axes."""
        (shape,) = shapes
        return (None if shape is None else tuple(shape[axis] for axis in self.axes),)

    def carry(self, node: Any) -> Carry:
        """Axes change places."""
        del node
        return transposition(self.axes)

    def asks(self, known: Shape | None, output: Shape | None) -> Shape | None:
        """The extents go with their axes."""
        if known is not None or output is None:
            return None
        return tuple(output[self.axes.index(axis)] for axis in range(len(self.axes)))

    def __str__(self) -> str:
        return f"permute to {self.axes}"


@dataclass(frozen=True, eq=False)
class Opaque(Operation):
    """An operation that is not (yet known to be) affine; it keeps its place in the source.

    `evaluate` computes the outputs from the inputs (an absent optional input is None); it is None where that
    cannot be had or is not a function of the inputs alone (random numbers, control flow). `lift` gives the
    affine form once the inputs allow it, None where there is none, and raises `Declined` where the operation
    is affine in principle (a `Lift` of `ir/graph.py`). `homogeneous`: f(s * x) = s * f(x) for every s > 0,
    channel by channel, as for ReLU and max pooling. `elementwise`: every element is computed from those at
    the same position, inputs broadcast as numpy does. `linear`: sets of inputs; it is affine in those of each
    set together, all others being held fixed. `of_shape`: it looks at the shapes of its inputs alone.
    `retypes`: it gives its first input another element type and does no more, which in float64 is
    nothing. `repeats`: it makes more of its first input by repeating it. `foldable`: not so where what it
    makes of constants must stay computed: a kernel that was quantised on purpose stays quantised.
    `literals` finds the numbers that it holds, given those of its inputs that are constant. `carries`
    says of a node how it carries a scale and shift of its first input. `stays` says of a node whether, as
    things are, it has to be what it is, whatever it computes.
    """

    kind: str
    evaluate: Callable[..., tuple[NDArray[Any], ...]] | None = None
    lift: Callable[[Any], Any] | None = None
    homogeneous: bool = False
    elementwise: bool = False
    linear: tuple[frozenset[int], ...] = ()
    of_shape: bool = False
    retypes: bool = False
    repeats: bool = False
    foldable: bool = True
    literals: Callable[[Sequence[Constant | None]], Literals] = anywhere
    stays: Callable[[Any], bool] | None = None
    carries: Callable[[Any], Carry] | None = None

    opaque = True

    arity = None, None

    def moves(self, data: frozenset[int]) -> bool:
        """Whether it is affine in them, and can be evaluated to see what it does."""
        return self.evaluate is not None and bool(data) and any(data <= inputs for inputs in self.linear)

    def carry(self, node: Any) -> Carry:
        """As the source's operator does; what is homogeneous carries a positive scale of its channels."""
        if self.carries is not None:
            return self.carries(node)
        if self.homogeneous:
            return ELEMENTWISE if self.elementwise else CHANNELWISE
        return super().carry(node)

    def held(self, constants: Sequence[Any]) -> Literals:
        """The numbers that it holds."""
        return self.literals(constants)

    def result(self, *shapes: Shape | None) -> tuple[Shape | None, ...]:
        """That of the first input where positions stay; else nothing is known."""
        return shapes[:1] if self.elementwise or self.homogeneous else (None,)

    def of_constants(self, constants: Sequence[Constant | None]) -> tuple[NDArray[Any], ...]:
        """The outputs, each in the type that the source gives it."""
        assert self.evaluate is not None, "only such operators are folded"
        return self.evaluate(*(None if c is None else c.array() for c in constants))

    def __str__(self) -> str:
        return self.kind


class Convolution(Operation):
    """What the graph asks of a convolution."""

    has_kernel = True

    def __init__(self, conv: Conv) -> None:
        self.conv = conv

    def evaluate(self, x: Array) -> Array:
        """The output, computed directly."""
        return self.conv.evaluate(x)

    @property
    def elementwise(self) -> bool:
        """A scale and a shift for each channel."""
        return self.conv.pointwise

    @property
    def dense(self) -> bool:
        """One group."""
        return self.conv.groups == 1 and not self.conv.transposed

    @property
    def channel_axis(self) -> int:
        """The axis of the channels."""
        return self.conv.axis

    @property
    def rank(self) -> int:
        """The axes of the kernel."""
        return self.conv.rank

    @property
    def spans(self) -> Ints:
        """The kernel, written out, and a stride."""
        conv = self.conv
        return tuple(
            d * (k - 1) + 1 + s for k, d, s in zip(conv.size, conv.dilation, conv.stride, strict=True)
        )

    @property
    def stride(self) -> Ints:
        """Its own."""
        return self.conv.stride

    @property
    def channels_made(self) -> int:
        """As many as the kernel has rows."""
        return self.conv.outputs

    @property
    def norm(self) -> bool:
        """Whether it is a scale and a shift of each channel: two numbers, where a linear layer has one."""
        conv = self.conv
        if not (conv.pointwise and conv.kernel.at_hand and conv.bias.any()):
            return False
        return bool((conv.kernel.peek() != 1).any())

    def moves(self, data: frozenset[int]) -> bool:
        """Whether it pads, crops or skips, channel by channel."""
        del data
        conv = self.conv
        return (
            conv.depthwise and not conv.transposed and all(k == 1 for k in conv.size) and not conv.pointwise
        )

    def result(self, *shapes: Shape | None) -> tuple[Shape | None, ...]:
        """The positions of the window; an extent that is not known stays so, or follows by its symbol."""
        (shape,) = shapes
        if shape is None:
            return (None,)
        conv = self.conv
        if conv.axis == -1:
            return ((*shape[:-1], conv.outputs),)
        if not conv.transposed:
            return ((shape[0], conv.outputs, *map(window, shape[2:], conv.slack, conv.stride)),)
        known = [dim if isinstance(dim, int) else None for dim in shape[2:]]
        extents = conv.extent(tuple(n or 1 for n in known))
        made = (m if n is not None else None for n, m in zip(known, extents, strict=True))
        return ((shape[0], conv.outputs, *made),)

    def asks(self, known: Shape | None, output: Shape | None) -> Shape | None:
        """The kernel says how many axes and channels there are."""
        del output
        shape = known or (None,) * (self.conv.rank + 2)
        # What the source reads beside the data, a computed bias, may have fewer axes.
        axis = self.conv.axis % len(shape)
        return shape if isinstance(shape[axis], int) else _with(shape, axis, self.conv.inputs)

    def work(self, output: Shape | None, kernels: int) -> Iterator[Work]:
        """Each further kernel is as dear as the scale or shift that it is."""
        conv = self.conv
        at = positions(output, conv.axis)
        reads = at * prod(conv.stride) if not conv.transposed else at / prod(conv.stride)
        weights = prod(conv.kernel.shape)
        stored = weights + (conv.outputs if self.norm else 0)
        yield Work(at * weights, at * conv.outputs + reads * conv.inputs + stored, 1)
        for _ in range(kernels - 1):
            yield Work(at * conv.outputs, (2 * at + 1) * conv.outputs, 1)

    def flushed(self, below: float) -> Conv:
        """The convolution with small weights for zeros."""
        if not below:
            return self.conv

        def flush(weight: NDArray[Any]) -> NDArray[Any]:
            size = np.abs(weight.astype(np.float64))
            return np.where(size <= below * size.max(initial=0.0), 0, weight).astype(weight.dtype)

        return replace(self.conv, kernel=arrange(self.conv.kernel.shape, flush, self.conv.kernel))

    def steady(self) -> Conv:
        """Of a map of each channel by itself the factors are computed: they are as few as its bias.

        Else a long chain of such maps would compute them again, from the first, for each question at each.
        """
        if not self.conv.pointwise or self.conv.kernel.at_hand:
            return self.conv
        return self.at_hand()

    def at_hand(self) -> Conv:
        """The convolution with its kernel computed."""
        weight = self.conv.weight
        return replace(self.conv, kernel=Lazy(weight.shape, lambda: weight))


Op = Conv | Sum | Concat | Select | Reshape | Permute | Opaque


def operation(op: Op) -> Operation:
    """What may be asked of `op`."""
    return Convolution(op) if isinstance(op, Conv) else op


def _with(shape: Shape, axis: int, channels: Dim) -> Shape:
    """The shape with so many channels."""
    axis %= len(shape)
    return (*shape[:axis], channels, *shape[axis + 1 :])

"""The operator: every affine map that commutes with translation, as one class.

A `Conv` reads `x` of shape `[..., I, *extent]`, extends it past its borders with `pad_value`, and computes

    y[o, t] = bias[o] + sum_{i, j} weight[o, i, j] * x[i, stride * t + dilation * j - begin]

over the channels `i` of `o`'s group and the taps `j`. A linear layer is the case without spatial axes. With
`transposed` the roles of input and output position are exchanged (the adjoint map, ConvTranspose):

    y[o, stride * t + dilation * j - begin] += weight[o, i, j] * x[i, t]

This module knows the operator and its direct evaluation; `algebra` knows what may be done with it. Neither
knows graphs.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import product
from math import gcd, prod
from typing import Final

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from fuser.algebra.lazy import Array, Lazy, defer, known
from fuser.errors import require

Ints = tuple[int, ...]

# Elements of the unfolded input that `evaluate` holds at a time (32 MB): more of them are unfolded in slabs.
UNFOLDED: Final = 1 << 22


@dataclass(frozen=True)
class Window:
    """The input offsets that one output position reads along one axis: `first, first + step, ..., last`."""

    first: int
    last: int
    step: int

    def grid(self, other: "Window") -> int:
        """The widest step whose taps hold those of both windows: any two windows have one."""
        steps = [window.step for window in (self, other) if window.first != window.last]
        return gcd(self.first - other.first, *steps) or 1

    def __or__(self, other: "Window") -> "Window":
        return Window(min(self.first, other.first), max(self.last, other.last), self.grid(other))


@dataclass(frozen=True, eq=False)
class Conv:
    """A convolution with bias: `kernel [O, I/groups, *k]`, `bias [O]` and `pad_value [I]` in float64.

    `begin` and `end` are the pads of each axis; negative pads crop. `axis` is the channel axis of the tensors
    that it acts on: 1 with the spatial axes behind it, or -1 for a linear layer (no spatial axes).

    Equal by value, in a normal form: an axis with one tap has dilation 1, the pad value is zero where nothing
    is read outside, and without spatial axes nothing is transposed.

    Raises:
        Declined: the attributes do not fit the kernel.
    """

    kernel: Lazy
    bias: Array
    groups: int = 1
    stride: Ints = ()
    dilation: Ints = ()
    begin: Ints = ()
    end: Ints = ()
    pad_value: Array = field(default_factory=lambda: np.zeros(0))
    axis: int = 1
    transposed: bool = False

    def __post_init__(self) -> None:
        rank = len(self.kernel.shape) - 2
        require(rank >= 0, f"a kernel has the axes [O, I/groups, *k], not {list(self.kernel.shape)}")
        require(
            self.axis == 1 or (self.axis == -1 and rank == 0),
            f"channel axis {self.axis} with {rank} spatial axes",
        )
        for name, default in (("stride", 1), ("dilation", 1), ("begin", 0), ("end", 0)):
            value = getattr(self, name) or (default,) * rank
            require(len(value) == rank, f"{name} {value} does not fit the {rank} spatial axes of the kernel")
            require(default == 0 or min(value, default=1) > 0, f"{name} {value} is not positive")
            object.__setattr__(self, name, tuple(int(v) for v in value))
        require(min(self.size, default=1) > 0, f"a kernel of {self.size} has no taps")
        require(
            self.groups > 0 and self.outputs % self.groups == 0,
            f"{self.outputs} output channels do not divide into {self.groups} groups",
        )
        require(
            self.bias.shape == (self.outputs,), f"bias {self.bias.shape} for {self.outputs} output channels"
        )
        # Normal form: what has no meaning has one spelling.
        dilation = tuple(
            1 if taps == 1 else step for taps, step in zip(self.size, self.dilation, strict=True)
        )
        object.__setattr__(self, "dilation", dilation)
        object.__setattr__(self, "transposed", self.transposed and rank > 0)
        if not self.reads_outside or self.pad_value.size == 0:
            object.__setattr__(self, "pad_value", np.zeros(self.inputs))
        require(
            self.pad_value.shape == (self.inputs,),
            f"pad_value {self.pad_value.shape} for {self.inputs} channels",
        )

    @classmethod
    def of(cls, weight: Array, bias: Array | None = None, **attributes: object) -> "Conv":
        """A `Conv` from arrays that are at hand, the bias zero where there is none."""
        weight = np.asarray(weight, dtype=np.float64)
        bias = np.zeros(weight.shape[0]) if bias is None else np.asarray(bias, dtype=np.float64)
        return cls(known(weight), bias, **attributes)  # type: ignore[arg-type]  # passed through unchanged

    @property
    def weight(self) -> Array:
        """The kernel's values, `[O, I/groups, *k]`; computed anew at each access."""
        return self.kernel()

    @property
    def outputs(self) -> int:
        """Number of output channels, O."""
        return self.kernel.shape[0]

    @property
    def inputs(self) -> int:
        """Number of input channels, I."""
        return self.kernel.shape[1] * self.groups

    @property
    def size(self) -> Ints:
        """Taps along each spatial axis."""
        return self.kernel.shape[2:]

    @property
    def rank(self) -> int:
        """Number of spatial axes."""
        return len(self.size)

    @property
    def windows(self) -> tuple[Window, ...]:
        """What one output position reads, along each axis, relative to `stride * t`."""
        return tuple(
            Window(-begin, -begin + step * (taps - 1), step)
            for begin, step, taps in zip(self.begin, self.dilation, self.size, strict=True)
        )

    @property
    def slack(self) -> Ints:
        """`begin + end - (span - 1)` of each axis; the output extent is `(n + slack - 1) // stride + 1`."""
        return tuple(
            b + e - step * (taps - 1)
            for b, e, step, taps in zip(self.begin, self.end, self.dilation, self.size, strict=True)
        )

    @property
    def reads_outside(self) -> bool:
        """Whether any axis is padded. A transposed convolution never reads outside its input."""
        return not self.transposed and any(pad > 0 for pad in self.begin + self.end)

    @property
    def depthwise(self) -> bool:
        """One input channel and one output channel in each group."""
        return self.groups == self.inputs == self.outputs

    @property
    def local(self) -> bool:
        """Each output position reads the same input position alone, whatever happens to the channels."""
        return (
            not self.transposed
            and all(taps == 1 for taps in self.size)
            and all(s == 1 for s in self.stride)
            and not any(self.begin + self.end)
        )

    @property
    def pointwise(self) -> bool:
        """A per-channel scale and shift: depthwise, one tap, on every position."""
        return self.depthwise and self.local

    @property
    def averages(self) -> bool:
        """The mean of each window, padding counted as zeros. Only a kernel that is at hand is looked at."""
        taps = prod(self.size)
        bare = self.depthwise and taps > 1 and self.kernel.at_hand and not self.bias.any()
        if not bare or self.transposed or set(self.dilation) != {1} or self.pad_value.any():
            return False
        weight = self.kernel.peek()
        return bool((weight == weight.dtype.type(1.0 / taps)).all())

    def respond(self, constant: Array) -> Array:
        """The output `[O]` for an input that is everywhere `constant [I]`, the bias left out."""
        if not constant.any():
            return np.zeros(self.outputs)
        blocks = self.weight.reshape(self.groups, self.outputs // self.groups, -1)
        image = np.repeat(constant, prod(self.size)).reshape(self.groups, -1, 1)
        result: Array = np.matmul(blocks, image).reshape(-1)
        return result

    def extent(self, n: Ints) -> Ints:
        """The spatial extent of the output for an input of extent `n`."""
        axes = zip(n, self.stride, self.slack, strict=True)
        if self.transposed:
            return tuple(max(0, (m - 1) * s + 1 - slack) for m, s, slack in axes)
        return tuple(max(0, (m + slack - 1) // s + 1) for m, s, slack in axes)

    def with_axis(self, axis: int) -> "Conv":
        """The same operator on another channel axis; only possible without spatial axes."""
        return self if axis == self.axis else replace(self, axis=axis)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Conv) and (
            self.geometry == other.geometry
            and np.array_equal(self.bias, other.bias)
            and np.array_equal(self.pad_value, other.pad_value)
            and np.array_equal(self.weight, other.weight)
        )

    def __hash__(self) -> int:
        return hash(self.geometry)

    @property
    def geometry(self) -> tuple[object, ...]:
        """All that is not a number learned in training."""
        return (
            self.kernel.shape,
            self.groups,
            self.stride,
            self.dilation,
            self.begin,
            self.end,
            self.axis,
            self.transposed,
        )

    def __str__(self) -> str:
        kind = "linear" if not self.rank else "x".join(map(str, self.size)) + " conv"
        words = [("transposed " if self.transposed else "") + kind, f"{self.inputs} -> {self.outputs}"]
        if self.groups > 1:
            words.append(f"groups {self.groups}")
        for name, neutral in (("stride", 1), ("dilation", 1)):
            if any(v != neutral for v in getattr(self, name)):
                words.append(f"{name} {getattr(self, name)}")
        if any(self.begin + self.end):
            words.append(f"pads {self.begin + self.end}")
        return ", ".join(words)

    def evaluate(self, x: Array) -> Array:
        """The output for `x [N, I, *extent]` (channel axis 1) or `[..., I]` (axis -1), computed directly."""
        if self.axis == -1:
            lead = x.shape[:-1]
            flat = self.with_axis(1).evaluate(x.reshape(prod(lead), self.inputs))
            return flat.reshape(*lead, self.outputs)
        return _evaluate_transposed(self, x) if self.transposed else _evaluate(self, x)


def identity(channels: int, rank: int, axis: int = 1) -> Conv:
    """The map that changes nothing: a delta kernel for each channel."""
    return scale_shift(np.ones(channels), np.zeros(channels), rank, axis)


def scale_shift(scale: Array, shift: Array, rank: int, axis: int = 1) -> Conv:
    """`y[c] = scale[c] * x[c] + shift[c]` as a depthwise convolution with one tap."""
    channels = scale.shape[0]
    return Conv.of(scale.reshape(channels, 1, *(1,) * rank), shift, groups=channels, axis=axis)


def pad(channels: int, begin: Ints, end: Ints, value: Array | float = 0.0) -> Conv:
    """Extension (or, with negative pads, cropping) of each axis: a delta kernel that reads outside."""
    values = np.broadcast_to(np.asarray(value, dtype=np.float64), (channels,)).copy()
    return replace(identity(channels, len(begin)), begin=begin, end=end, pad_value=values)


def average_pool(channels: int, size: Ints, stride: Ints, dilation: Ints, begin: Ints, end: Ints) -> Conv:
    """The mean of each window, padding counted as zeros."""
    weight = np.full((channels, 1, *size), 1.0 / prod(size))
    return Conv.of(weight, groups=channels, stride=stride, dilation=dilation, begin=begin, end=end)


def regroup(conv: Conv, groups: int) -> Conv:
    """The same map in fewer groups, which divide those of `conv`: blocks off the diagonal are zero."""
    if groups == conv.groups:
        return conv
    require(conv.groups % groups == 0, f"{conv.groups} groups do not become {groups}")
    shape = (conv.outputs, conv.inputs // groups, *conv.size)

    def expand(weight: Array) -> Array:
        dense = np.zeros(shape)
        blocks = diagonal(dense, groups, conv.groups)
        blocks[:] = weight.reshape(blocks.shape)
        return dense

    return replace(conv, kernel=defer(shape, expand, conv.kernel), groups=groups)


def diagonal(kernel: Array, groups: int, finer: int) -> Array:
    """The part of a kernel in `groups` groups that one in `finer` groups has, to be written to.

    `[O, I/groups, *k]  ->  [groups, finer/groups, O/finer, I/finer, *k]`, a view.
    """
    outputs, inputs, *size = kernel.shape
    factor = finer // groups
    blocks = kernel.reshape(groups, factor, outputs // finer, factor, inputs // factor, *size)
    view: Array = np.einsum("gfofi...->gfoi...", blocks)
    return view


def taps(size: Ints) -> Iterator[Ints]:
    """The index of every tap of a kernel."""
    return product(*(range(n) for n in size))


def spatial(index: Iterable[int | slice], before: int = 2) -> tuple[int | slice, ...]:
    """An index of the spatial axes, all of the `before` axes in front of them."""
    return (*(slice(None),) * before, *index)


def _column(values: Array, rank: int) -> Array:
    """A value for each channel, to be broadcast over the spatial axes behind."""
    return values.reshape(-1, *(1,) * rank)


def _evaluate(conv: Conv, x: Array) -> Array:
    """One product of matrices, `[O/g, I/g * taps] @ [I/g * taps, N * positions]` in each group."""
    n, extent = x.shape[0], conv.extent(x.shape[2:])
    y = np.empty((conv.outputs, n, *extent))
    if y.size:
        kernel = conv.weight.reshape(conv.groups, conv.outputs // conv.groups, -1)
        view = _unfold(conv, _extend(conv, x))
        slab = max(1, UNFOLDED * extent[0] // view.size) if extent else 1
        for start in range(0, extent[0] if extent else 1, slab):
            part = (slice(start, start + slab),) if extent else ()
            columns = view[spatial(part, 2 + conv.rank)]
            product = np.matmul(kernel, columns.reshape(*kernel.shape[::2], -1))
            y[spatial(part)] = product.reshape(conv.outputs, *columns.shape[1 + conv.rank :])
    y += _column(conv.bias, 1 + conv.rank)
    return y.swapaxes(0, 1)


def _unfold(conv: Conv, x: Array) -> Array:
    """What each output position reads of the extended input: a view `[I, *k, N, *extent]`, nothing copied."""
    axes = tuple(range(2, 2 + conv.rank))
    span = tuple(step * (k - 1) + 1 for step, k in zip(conv.dilation, conv.size, strict=True))
    windows = sliding_window_view(x, span, axis=axes) if axes else x
    steps = (slice(None, None, step) for step in conv.stride + conv.dilation)
    return windows[spatial(steps)].transpose(1, *(axis + conv.rank for axis in axes), 0, *axes)


def _extend(conv: Conv, x: Array) -> Array:
    """`x` extended by the pads with the pad value, or cropped where a pad is negative."""
    if not any(conv.begin + conv.end):
        return x
    pads = list(zip(x.shape[2:], conv.begin, conv.end, strict=True))
    padded = np.empty((*x.shape[:2], *(n + b + e for n, b, e in pads)))
    padded[:] = _column(conv.pad_value, conv.rank)
    # Position q of the extended axis is position q - begin of the input, for those that both have.
    common = [(max(0, b), max(0, b, n + b + min(0, e))) for n, b, e in pads]
    target = tuple(slice(first, stop) for first, stop in common)
    source = tuple(slice(first - b, stop - b) for (first, stop), (_, b, _) in zip(common, pads, strict=True))
    padded[spatial(target)] = x[spatial(source)]
    return padded


def _evaluate_transposed(conv: Conv, x: Array) -> Array:
    n = x.shape[2:]
    extent = conv.extent(n)
    span = [step * (k - 1) + 1 for step, k in zip(conv.dilation, conv.size, strict=True)]
    # Everything that is ever written, and what a negative crop adds behind it.
    full = [
        max((m - 1) * s + w, b + out)
        for m, s, w, b, out in zip(n, conv.stride, span, conv.begin, extent, strict=True)
    ]
    lead = [max(0, -b) for b in conv.begin]
    y = np.zeros((x.shape[0], conv.outputs, *(f + a for f, a in zip(full, lead, strict=True))))
    columns = np.moveaxis(x, 0, 1).reshape(conv.groups, conv.inputs // conv.groups, -1)
    kernel = np.ascontiguousarray(np.moveaxis(conv.weight, (0, 1), (-2, -1)))
    for tap in taps(conv.size):
        start = [a + step * j for a, step, j in zip(lead, conv.dilation, tap, strict=True)]
        window = tuple(slice(a, a + s * m, s) for a, s, m in zip(start, conv.stride, n, strict=True))
        product = np.matmul(kernel[tap].reshape(conv.groups, -1, columns.shape[1]), columns)
        y[spatial(window)] += np.moveaxis(product.reshape(conv.outputs, x.shape[0], *n), 0, 1)
    crop = tuple(slice(a + b, a + b + m) for a, b, m in zip(lead, conv.begin, extent, strict=True))
    return y[spatial(crop)] + _column(conv.bias, conv.rank)

"""Hypothesis strategies: convolutions of every geometry with small integers in float64, which is exact."""

from dataclasses import replace

import numpy as np
from hypothesis import strategies as st

from fuser.algebra.conv import Conv, Ints
from fuser.algebra.lazy import Array

ranks = st.integers(0, 3)
seeds = st.integers(0, 2**32 - 1)


def integers(seed: int, *shape: int, largest: int = 9) -> Array:
    """Integers from -largest to largest without zero, so that no tap or channel is without effect."""
    generator = np.random.default_rng(seed)
    signs: Array = generator.choice([-1.0, 1.0], shape)
    return signs * generator.integers(1, largest + 1, shape)


@st.composite
def extents(draw: st.DrawFn, rank: int, smallest: int = 1) -> Ints:
    """The extent of each axis, smaller where there are more of them."""
    return tuple(draw(st.integers(smallest, 9 if rank < 2 else 6 if rank == 2 else 4)) for _ in range(rank))


@st.composite
def images(draw: st.DrawFn, conv: Conv, extent: Ints | None = None) -> Array:
    """An input of `conv`: one or two samples of small integers."""
    extent = draw(extents(conv.rank)) if extent is None else extent
    return integers(draw(seeds), draw(st.integers(1, 2)), conv.inputs, *extent)


@st.composite
def convs(
    draw: st.DrawFn,
    *,
    rank: int | None = None,
    inputs: int | None = None,
    outputs: int | None = None,
    taps: int = 3,
    pads: tuple[int, int] = (-2, 3),
    transposed: bool | None = False,
) -> Conv:
    """A convolution: any stride, dilation, groups and pads; `transposed` None stands for either."""
    rank = draw(ranks) if rank is None else rank
    inputs = draw(st.sampled_from([1, 2, 3, 4])) if inputs is None else inputs
    outputs = draw(st.sampled_from([1, 2, 3, 4, 6])) if outputs is None else outputs
    groups = draw(st.sampled_from([g for g in (1, 2, 3, 4) if inputs % g == outputs % g == 0]))
    conv = Conv(
        Conv.of(
            integers(draw(seeds), outputs, inputs // groups, *_axes(draw, rank, 1, taps if rank < 3 else 2))
        ).kernel,
        integers(draw(seeds), outputs) * draw(st.booleans()),
        groups=groups,
        stride=_axes(draw, rank, 1, 3),
        dilation=_axes(draw, rank, 1, 3),
        begin=_axes(draw, rank, *pads),
        end=_axes(draw, rank, *pads),
        pad_value=integers(draw(seeds), inputs) * draw(st.booleans()),
        transposed=draw(st.booleans()) if transposed is None else transposed,
    )
    return replace(conv, axis=draw(st.sampled_from([1, -1]))) if rank == 0 else conv


def _axes(draw: st.DrawFn, rank: int, lowest: int, highest: int) -> Ints:
    return tuple(draw(st.integers(lowest, highest)) for _ in range(rank))


@st.composite
def chains(draw: st.DrawFn) -> tuple[Conv, Conv]:
    """An outer convolution and an inner one that feeds it, their borders often such that they meet."""
    rank = draw(st.integers(1, 2))
    inner = draw(convs(rank=rank, taps=draw(st.sampled_from([1, 3]))))
    outer = draw(
        convs(rank=rank, inputs=inner.outputs, pads=draw(st.sampled_from([(-2, 0), (0, 3), (-2, 4)])))
    )
    if draw(st.booleans()):
        outer = replace(outer, pad_value=inner.bias + inner.respond(inner.pad_value))
    return outer, inner


@st.composite
def branches(draw: st.DrawFn, *, transposed: bool = False) -> tuple[Conv, Conv]:
    """Two convolutions of one input, usually with the same stride, output extent and pad value."""
    a = draw(convs(transposed=transposed))
    b = draw(convs(rank=a.rank, inputs=a.inputs, outputs=a.outputs, transposed=transposed))
    b = replace(b, axis=a.axis)
    if draw(st.sampled_from([True, True, True, False])):
        b = replace(b, stride=a.stride)
    if draw(st.sampled_from([True, True, True, False])):
        end = tuple(e + own - other for e, own, other in zip(b.end, a.slack, b.slack, strict=True))
        b = replace(b, end=end, pad_value=b.pad_value if draw(st.booleans()) else np.zeros(b.inputs))
    if a.reads_outside and draw(st.sampled_from([True, True, False])):
        b = replace(b, pad_value=a.pad_value)
    return a, b

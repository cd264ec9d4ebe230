"""Resampling is affine: laws of upsampling, of phases, and of channels that become space.

Nearest upsampling by r is a transposed depthwise convolution of ones with stride r and r taps, so what a
convolution makes of it is a transposed convolution; and every transposed convolution of stride r is a
convolution that computes the r phases of its result as channels (Shi et al., "Real-Time Single Image and
Video Super-Resolution Using an Efficient Sub-Pixel Convolutional Neural Network", CVPR 2016).
"""

from dataclasses import replace
from math import prod

import numpy as np

from fuser.algebra.conv import Conv, Ints, pad, spatial, taps
from fuser.algebra.lazy import Array, defer
from fuser.errors import require


def nearest(channels: int, factors: Ints) -> Conv:
    """up(x): every position becomes `factors` positions along the axes."""
    return Conv.of(np.ones((channels, 1, *factors)), groups=channels, stride=factors, transposed=True)


def upsampled(conv: Conv, factors: Ints) -> Conv:
    """conv(up(x))  ->  conv'(x), transposed: what is upsampled is never made.

    Tap j of `conv` that reads the copy v of position t writes x[t] to position r * t + v - d * j + begin. So
    the kernel has d * (k - 1) + r taps, and stands off the border by d * (k - 1) - begin: for every extent.

    Raises:
        Declined: `conv` has a stride, is transposed, or what it reads outside is not zero.
    """
    require(not conv.transposed and conv.axis == 1, f"{conv} is not what is read behind an upsampling")
    require(len(factors) == conv.rank, f"{len(factors)} factors for {conv.rank} spatial axes")
    require(all(s == 1 for s in conv.stride), f"the stride is {conv.stride}, and not 1")
    require(not conv.pad_value.any(), "what is read outside is not zero everywhere")
    reach = tuple(d * (k - 1) for d, k in zip(conv.dilation, conv.size, strict=True))
    shape = (*conv.kernel.shape[:2], *(n + r for n, r in zip(reach, factors, strict=True)))

    def spread(weight: Array) -> Array:
        made = np.zeros(shape)
        for tap in taps(conv.size):
            first = [n - d * j for n, d, j in zip(reach, conv.dilation, tap, strict=True)]
            window = (slice(a, a + r) for a, r in zip(first, factors, strict=True))
            made[spatial(window)] += weight[spatial(tap)].reshape(*shape[:2], *(1,) * conv.rank)
        return made

    return Conv(
        defer(shape, spread, conv.kernel),
        conv.bias,
        groups=conv.groups,
        stride=factors,
        begin=tuple(n - b for n, b in zip(reach, conv.begin, strict=True)),
        end=tuple(n - e for n, e in zip(reach, conv.end, strict=True)),
        transposed=True,
    )


def phases(conv: Conv) -> tuple[Conv, Conv]:
    """conv(x)  ->  crop(shuffle(conv'(x))) for a transposed `conv` of stride r: its phases, and the crop.

    Position r * P + phase of its result is position P of a channel of conv', for the taps j = r * a + phase
    alone: k / r taps, and not those in between. Channel o of the result has channels `[o, *phase]` of conv',
    as in the pixel shuffle of torch and mode CRD of ONNX's DepthToSpace.

    Raises:
        Declined: it is not transposed, or its taps are apart.
    """
    require(conv.transposed, f"{conv} is not transposed")
    require(all(d == 1 for d in conv.dilation), f"the dilation is {conv.dilation}, and not 1")
    count, stride = prod(conv.stride), conv.stride
    size = tuple(-(-k // r) for k, r in zip(conv.size, stride, strict=True))
    shape = (conv.outputs * count, conv.kernel.shape[1], *size)

    def divide(weight: Array) -> Array:
        whole = np.zeros((*weight.shape[:2], *(a * r for a, r in zip(size, stride, strict=True))))
        whole[spatial(map(slice, conv.size))] = weight
        split = whole.reshape(
            *weight.shape[:2], *(n for pair in zip(size, stride, strict=True) for n in pair)
        )
        places = range(2, split.ndim)
        ordered = split.transpose(0, *places[1::2], 1, *places[::2]).reshape(shape)
        return np.flip(ordered, axis=tuple(range(2, ordered.ndim)))

    # Whole steps that are cropped are not computed; the rest of a step is.
    steps = [divmod(b, r) for b, r in zip(conv.begin, stride, strict=True)]
    more = [a * r - k + e for a, r, k, e in zip(size, stride, conv.size, conv.end, strict=True)]
    ends = [divmod(e, r) for e, r in zip(more, stride, strict=True)]
    made = Conv(
        defer(shape, divide, conv.kernel),
        np.repeat(conv.bias, count),
        groups=conv.groups,
        begin=tuple(a - 1 - step for a, (step, _) in zip(size, steps, strict=True)),
        end=tuple(a - 1 - step for a, (step, _) in zip(size, ends, strict=True)),
    )
    crop = pad(conv.outputs, tuple(-rest for _, rest in steps), tuple(-rest for _, rest in ends))
    return made, crop


def shuffled(x: Array, factors: Ints) -> Array:
    """Channels `[C, *factors]` of each position as positions: the pixel shuffle, computed directly."""
    n, channels, *extent = x.shape
    rank, count = len(factors), prod(factors)
    split = x.reshape(n, channels // count, *factors, *extent)
    order = (0, 1, *(axis for i in range(rank) for axis in (2 + rank + i, 2 + i)))
    return split.transpose(order).reshape(
        n, channels // count, *(m * r for m, r in zip(extent, factors, strict=True))
    )


def gathered(conv: Conv, factors: Ints) -> Conv:
    """conv(unshuffle(x))  ->  conv'(x): blocks of positions that became channels `[C, *factors]` are read.

    Tap j at phase v of channel c is tap r * j + v: r * k taps and r times the stride (the Focus of YOLOv5).

    Raises:
        Declined: its taps are apart, its groups divide channels that lie beside each other, or what it reads
            outside differs within a block.
    """
    require(not conv.transposed and conv.axis == 1, f"{conv} is not what is read behind an unshuffle")
    require(len(factors) == conv.rank, f"{len(factors)} factors for {conv.rank} spatial axes")
    require(all(d == 1 for d in conv.dilation), f"the dilation is {conv.dilation}, and not 1")
    count = prod(factors)
    width = conv.kernel.shape[1]
    require(width % count == 0, f"{width} channels of a group are no blocks of {factors}")
    block = conv.pad_value.reshape(-1, count)
    require(bool((block == block[:, :1]).all()), "what is read outside differs within a block")
    shape = (
        conv.outputs,
        width // count,
        *(k * r for k, r in zip(conv.size, factors, strict=True)),
    )

    def widen(weight: Array) -> Array:
        split = weight.reshape(conv.outputs, width // count, *factors, *conv.size)
        order = (0, 1, *(axis for i in range(conv.rank) for axis in (2 + conv.rank + i, 2 + i)))
        return split.transpose(order).reshape(shape)

    def times(values: Ints) -> Ints:
        return tuple(n * r for n, r in zip(values, factors, strict=True))

    return replace(
        conv,
        kernel=defer(shape, widen, conv.kernel),
        stride=times(conv.stride),
        dilation=(1,) * conv.rank,
        begin=times(conv.begin),
        end=times(conv.end),
        pad_value=block[:, 0],
    )

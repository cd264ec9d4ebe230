"""Affine operators as every host has them: norms, linear layers, constants on either side of Mul."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fuser.algebra.conv import Conv, scale_shift
from fuser.algebra.lazy import Array, Lazy, arrange, defer
from fuser.errors import Declined, require
from fuser.ir.constant import FLOATS, Constant
from fuser.ir.extents import Dim
from fuser.ir.node import Apply, Node, Value
from fuser.ir.ops import Reshape, Sum
from fuser.recognise.region import among_images

NOTHING = Sum((1.0,))
"""The operator that returns its input."""


def nothing(x: Value) -> Apply:
    """The operator returns `x`."""
    return Apply(NOTHING, (x,))


def reshape(node: Node) -> Apply | None:
    """The first input in another shape  ->  a reshape, where all extents behind the first ones are known.

    Raises:
        Declined: one of a tensor that a convolution makes or reads is not known.
    """
    x, output = node.inputs[0], node.outputs[0]
    if x is None or x.dtype not in FLOATS or x.dtype != output.dtype:
        return None
    if x.shape is None or output.shape is None or min(len(x.shape), len(output.shape)) < 2:
        return None
    extents = tuple(dim for dim in (*x.shape[1:], *output.shape[1:]) if isinstance(dim, int) and dim > 0)
    known = len(extents) == len(x.shape) + len(output.shape) - 2
    require(
        known or not among_images(node),
        f"the extents of the reshape from {x.shape} to {output.shape} are not all known",
    )
    return Apply(Reshape(extents[len(x.shape) - 1 :]), (x,), "reshape") if known else None


def batch_norm(
    mean: Array, variance: Array, scale: Array, shift: Array, epsilon: float, rank: int, axis: int = 1
) -> Conv:
    """(x - mean) / sqrt(variance + epsilon) * scale + shift, all `[C]`, as a depthwise operator with one tap.

    Raises:
        Declined: a variance is not positive, or not each channel has one number of each kind.
    """
    shapes = [parameter.shape for parameter in (scale, shift, mean, variance)]
    require(
        len(set(shapes)) == 1 and mean.ndim == 1 and mean.size > 0,
        f"scale, shift, mean and variance have shapes {shapes}, and not one number for each channel",
    )
    spread = variance + epsilon
    if not (spread > 0).all():
        channel = int(np.flatnonzero(~(spread > 0))[0])
        raise Declined(
            f"variance + epsilon is not positive: {variance[channel]:.6g} + {epsilon:.6g} (channel {channel})"
        )
    factor = scale / np.sqrt(spread)
    return scale_shift(factor, shift - mean * factor, rank, axis)


def linear(weight: Constant, bias: Array | None, *, transposed: bool, factor: float = 1.0) -> Conv:
    """factor * x W + bias on the last axis: `W [I, O]`, or `[O, I]` where `transposed`."""
    require(len(weight.shape) == 2, f"the weight has shape {weight.shape}, and not two axes")
    require(0 not in weight.shape, f"the weight has an empty axis: {weight.shape}")
    kernel = weight.lazy if transposed else arrange(weight.shape[::-1], np.transpose, weight.lazy)
    bias = np.zeros(kernel.shape[0]) if bias is None else bias
    if factor != 1.0:
        kernel = defer(kernel.shape, lambda values: factor * values, kernel)
    return Conv(kernel, bias, axis=-1)


def conv_transpose_kernel(weight: Constant, groups: int) -> Lazy:
    """`[I, O/groups, *k]`, as frameworks store it  ->  `[O, I/groups, *k]`."""
    inputs, per_group, *size = weight.shape
    require(inputs % groups == 0, f"{inputs} input channels do not divide into {groups} groups")
    shape = (per_group * groups, inputs // groups, *size)

    def exchange(values: NDArray[Any]) -> NDArray[Any]:
        blocks = values.reshape(groups, inputs // groups, per_group, *size)
        return blocks.swapaxes(1, 2).reshape(shape)

    return arrange(shape, exchange, weight.lazy)


def with_constant(x: Value, values: Array, affine: Callable[[Array], tuple[Array, Array]]) -> Apply:
    """An operator on `x` and a constant; `affine` gives scale and shift for the constant's values.

    Raises:
        Declined: the constant is not one value, and not one value per channel, or the operator not finite.
    """
    require_fits(values.shape, x)
    require(values.size > 0, f"the constant is empty: {values.shape}")
    uniform = values.size == 1 or bool((values == values.flat[0]).all())
    with np.errstate(all="ignore"):
        scale, shift = affine(values.reshape(-1)[:1] if uniform else values.reshape(-1))
    finite = np.isfinite(scale) & np.isfinite(shift)
    worst = int(np.argmin(finite))
    require(bool(finite.all()), f"{scale[worst]:.6g} x + {shift[worst]:.6g} is not finite")
    if uniform:
        return Apply(Sum((float(scale[0]),), float(shift[0])), (x,), "scale_shift")
    rank = rank_of(x)
    axis = channel_axis(values.shape, rank, x)
    return Apply(scale_shift(scale, shift, rank - 2 if axis == 1 else 0, axis), (x,), "scale_shift")


def require_fits(shape: tuple[int, ...], x: Value) -> None:
    """Decline unless a constant of `shape` broadcasts to `x` without making it larger."""
    if not shape:
        return
    rank = rank_of(x)
    require(len(shape) <= rank, f"the constant of shape {shape} has more axes than {x.name!r}, {x.shape}")
    for n, dim in zip(reversed(shape), reversed(x.shape or ()), strict=False):
        require(n in {1, dim}, f"the constant of shape {shape} does not fit into {x.name!r}, {x.shape}")


def channel_axis(shape: tuple[int, ...], rank: int, x: Value) -> int:
    """The channel axis along which a constant varies: 1 with spatial axes behind it, or -1."""
    aligned = (1,) * (rank - len(shape)) + shape
    varying = [axis for axis, n in enumerate(aligned) if n != 1]
    if varying == [rank - 1]:
        return -1
    require(
        varying == [1], f"the constant of shape {shape} is not one value per channel of {x.name!r}, {x.shape}"
    )
    return 1


def rank_of(value: Value) -> int:
    """The number of axes.

    Raises:
        Declined: it is not known.
    """
    if value.shape is None:
        raise Declined(f"the rank of {value.name!r} is not known")
    return len(value.shape)


def same_shape(a: Sequence[Dim] | None, b: Sequence[Dim] | None) -> bool:
    """Whether two shapes are known to be equal in every axis."""
    return a is not None and b is not None and tuple(a) == tuple(b) and None not in a


def require_same_shape(terms: Sequence[Value]) -> None:
    """Decline unless all terms are known to have one shape."""
    first = terms[0]
    for other in terms[1:]:
        require(
            other is first or same_shape(first.shape, other.shape),
            f"shapes are not known to be equal: {first.shape} of {first.name!r} and {other.shape} of "
            f"{other.name!r}",
        )

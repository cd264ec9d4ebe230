"""The law of low rank: a kernel whose matrix has few independent rows is a product of two smaller ones.

A float32 kernel is of exactly low rank where its factors were multiplied without rounding: adapters in half
precision that were merged, repeated or mirrored filters, interpolation. The product of float32 factors is
low rank only up to its rounding; that is seen, and left alone.
"""

from dataclasses import replace
from math import prod
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fuser.algebra.conv import Conv, Ints
from fuser.algebra.lazy import Array, known
from fuser.algebra.narrowing import LARGEST_RANK, glimpse, is_singular
from fuser.errors import require

# Relative to the largest singular value, per row and column: what float64 arithmetic leaves of zero.
ROUNDING: Final = 8 * float(np.finfo(np.float64).eps)


def factor(conv: Conv, last: Ints = ()) -> tuple[Conv, Conv] | None:
    """conv(x)  ->  outer(inner(x)), with few channels between, exact up to the rounding of float64.

    `outer` has the spatial axes `last`, and `inner` the others: with none, conv is followed by a 1x1; with
    all, a 1x1 is followed by conv; with one of two, a row kernel by a column kernel. None where the kernel
    has no such factors that are smaller.

    Raises:
        Declined: it has, but only up to the rounding of its dtype.
    """
    if conv.groups > 1 or conv.transposed:
        return None
    first = tuple(axis for axis in range(conv.rank) if axis not in last)
    rows = conv.outputs * prod(conv.size[axis] for axis in last)
    columns = conv.inputs * prod(conv.size[axis] for axis in first)
    # Factors of rank r hold r * (rows + columns) weights.
    limit = min(LARGEST_RANK, (rows * columns - 1) // (rows + columns))
    if limit <= glimpse(conv).rank:
        return None
    order = (0, *(2 + axis for axis in last), 1, *(2 + axis for axis in first))
    corner = _corner(conv, order, limit + 1)
    if not np.isfinite(corner).all() or not is_singular(corner):
        return None
    matrix = np.ascontiguousarray(conv.weight.transpose(order)).reshape(rows, columns)
    require(bool(np.isfinite(matrix).all()), "the weight holds NaN or infinity")
    basis = row_basis(matrix, limit, conv.kernel.peek().dtype)
    if basis is None:
        return None
    inner = _inner(conv, basis.T @ matrix, last)
    # What `inner` computes of a border is what `outer` finds past its own.
    return _outer(conv, basis, inner.respond(conv.pad_value), last), inner


def _corner(conv: Conv, order: Ints, size: int) -> Array:
    """The first rows and columns of the matrix that a kernel is with its axes in `order`."""
    block = conv.kernel.peek()[:size, :size].transpose(order)
    columns = prod(block.shape[order.index(1) :])
    return np.asarray(block.reshape(-1, columns)[:size, :size], dtype=np.float64)


def row_basis(matrix: Array, limit: int, dtype: np.dtype[Any]) -> Array | None:
    """Orthonormal columns `[rows, r]`, r <= `limit`, that span those of `matrix`; None if it takes more.

    Raises:
        Declined: it takes more, but fewer span it up to the rounding of `dtype`.
    """
    # Random combinations of the columns span what all of them do (Halko et al., SIAM Review 2011).
    probe = np.random.default_rng(0).standard_normal((matrix.shape[1], limit + 8))
    image = matrix @ probe
    values = np.linalg.svd(np.linalg.qr(image, mode="r"), compute_uv=False)
    if not values[0]:
        return None
    size = max(matrix.shape)
    rank = int(np.count_nonzero(values > ROUNDING * size * values[0]))
    if rank <= limit:
        found: NDArray[np.float64] = np.linalg.svd(image, full_matrices=False)[0][:, :rank]
        rest = float(np.abs(matrix - found @ (found.T @ matrix)).max())
        if rest <= ROUNDING * size * float(np.abs(matrix).max()):
            return found
    coarse = int(np.count_nonzero(values > _epsilon(dtype) * np.sqrt(size) * values[0]))
    require(
        coarse > limit,
        f"rank {coarse} only within the rounding of {dtype}: the next singular value is "
        f"{values[min(coarse, len(values) - 1)] / values[0]:.1e} of the first",
    )
    return None


def _epsilon(dtype: np.dtype[Any]) -> float:
    return float(np.finfo(dtype).eps) if dtype.kind == "f" else 2.0**-8


def _outer(conv: Conv, basis: Array, border: Array, last: Ints) -> Conv:
    """The factor with the output channels and the axes `last`."""
    rank = basis.shape[1]
    weight = np.moveaxis(basis.reshape(conv.outputs, *(conv.size[axis] for axis in last), rank), -1, 1)
    shape = (conv.outputs, rank, *(n if axis in last else 1 for axis, n in enumerate(conv.size)))
    return _geometry(replace(conv, kernel=known(weight.reshape(shape)), pad_value=border), conv, last)


def _inner(conv: Conv, weight: Array, last: Ints) -> Conv:
    """The factor with the input channels and the other axes."""
    first = tuple(axis for axis in range(conv.rank) if axis not in last)
    shape = (len(weight), conv.inputs, *(n if axis in first else 1 for axis, n in enumerate(conv.size)))
    made = replace(conv, kernel=known(weight.reshape(shape)), bias=np.zeros(len(weight)))
    return _geometry(made, conv, first)


def _geometry(made: Conv, conv: Conv, axes: Ints) -> Conv:
    """`made` with stride, dilation and pads of `conv` along `axes`, and none along the others."""

    def along(values: Ints, neutral: int) -> Ints:
        return tuple(v if axis in axes else neutral for axis, v in enumerate(values))

    return replace(
        made,
        stride=along(conv.stride, 1),
        dilation=along(conv.dilation, 1),
        begin=along(conv.begin, 0),
        end=along(conv.end, 0),
    )

"""The law of low rank: a kernel whose matrix has few independent rows is a product of two smaller ones.

A float32 kernel is of exactly low rank where its factors were multiplied without rounding: adapters in half precision
that were merged, repeated or mirrored filters, interpolation. The product of float32 factors is low rank only up to
its rounding; that is seen, and left alone.
"""

from dataclasses import replace
from math import prod
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fuser.conv import Conv, Ints
from fuser.errors import require
from fuser.lazy import Array, known

# Larger ranks are not looked for: to rule them out would take longer than the rest of the compiler does.
LARGEST_RANK: Final = 32

# A sample is singular if it enlarges a random vector this much more than its inverse should; a full one of this size
# stays far below, one that is low rank up to the rounding of float32 far above.
SINGULAR: Final = 1e5

# Relative to the largest singular value, per row and column: what float64 arithmetic leaves of zero.
ROUNDING: Final = 8 * float(np.finfo(np.float64).eps)


def factor(conv: Conv, last: Ints = ()) -> tuple[Conv, Conv] | None:
    """conv(x)  ->  outer(inner(x)), with few channels between, exact up to the rounding of float64.

    `outer` has the spatial axes `last`, and `inner` the others: with none, conv is followed by a 1x1; with all, a 1x1
    is followed by conv; with one of two, a row kernel by a column kernel. None where the kernel has no such factors
    that are smaller.

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
    order = (0, *(2 + axis for axis in last), 1, *(2 + axis for axis in first))
    native = conv.kernel.peek()
    corner = native[: limit + 1, : limit + 1].transpose(order)
    sample = corner.reshape(-1, prod(corner.shape[1 + len(last) :]))[: limit + 1, : limit + 1]
    if limit < 1 or not is_singular(np.asarray(sample, dtype=np.float64)):
        return None
    matrix = np.ascontiguousarray(conv.weight.transpose(order)).reshape(rows, columns)
    basis = row_basis(matrix, limit, native.dtype)
    if basis is None:
        return None
    return _outer(conv, basis, last), _inner(conv, basis.T @ matrix, last)


def is_singular(sample: Array) -> bool:
    """Whether a square matrix has dependent rows, up to the rounding of float32."""
    if sample.shape[0] != sample.shape[1]:
        return True
    image = np.random.default_rng(0).standard_normal(len(sample))
    try:
        found = np.linalg.solve(sample, image)
    except np.linalg.LinAlgError:
        return True
    grown = float(np.linalg.norm(found) * np.linalg.norm(sample))
    return not grown < SINGULAR * float(np.linalg.norm(image))


def row_basis(matrix: Array, limit: int, dtype: np.dtype[Any]) -> Array | None:
    """Orthonormal columns `[rows, r]`, r at most `limit`, that span all columns of `matrix`; None if it takes more.

    Raises:
        Declined: it takes more, but fewer span it up to the rounding of `dtype`.
    """
    # Random combinations of the columns span what all columns do (Halko, Martinsson, Tropp, SIAM Review 2011).
    probe = np.random.default_rng(0).standard_normal((matrix.shape[1], limit + 8))
    basis, values, _ = np.linalg.svd(matrix @ probe, full_matrices=False)
    size = max(matrix.shape)
    rank = int(np.count_nonzero(values > ROUNDING * size * values[0]))
    if 0 < rank <= limit:
        found: NDArray[np.float64] = basis[:, :rank]
        rest = float(np.abs(matrix - found @ (found.T @ matrix)).max())
        if rest <= ROUNDING * size * float(np.abs(matrix).max()):
            return found
    coarse = int(np.count_nonzero(values > _epsilon(dtype) * np.sqrt(size) * values[0]))
    require(
        rank == 0 or coarse > limit,
        f"rank {coarse} only within the rounding of {dtype}: the next singular value is "
        f"{values[min(coarse, len(values) - 1)] / values[0]:.1e} of the first",
    )
    return None


def _epsilon(dtype: np.dtype[Any]) -> float:
    return float(np.finfo(dtype).eps) if dtype.kind == "f" else 2.0**-8


def _outer(conv: Conv, basis: Array, last: Ints) -> Conv:
    """The factor with the output channels and the axes `last`."""
    rank = basis.shape[1]
    weight = np.moveaxis(basis.reshape(conv.outputs, *(conv.size[axis] for axis in last), rank), -1, 1)
    shape = (conv.outputs, rank, *(n if axis in last else 1 for axis, n in enumerate(conv.size)))
    return _geometry(replace(conv, kernel=known(weight.reshape(shape)), pad_value=np.zeros(rank)), conv, last)


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

"""What linear operators do to forms: kernels and matrices, scales and shifts, crops, pads, choices and sums.

`shape` is that of the value, an extent that is not known being a name or None: what is said then holds for
every extent, or is declined. `where` is the channel axis with the number of spatial axes. Arrays only.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fuser.algebra.affine_forms import Form, after, plus, times
from fuser.algebra.conv import Conv, Ints, average_pool, identity, scale_shift
from fuser.algebra.lazy import Array, Lazy, defer
from fuser.errors import require

ENDLESS: Final = 1 << 30
"""Ends from here on mean the end."""
Shape = tuple[Any, ...]


def axis_of(axis: int, rank: int) -> int:
    """An axis counted from the first, negative ones being counted from the end.

    Raises:
        Declined: there is none.
    """
    require(-rank <= axis < rank, f"axis {axis} of {rank}")
    return int(axis) % rank


def place(axis: int, rank: int) -> tuple[int, int]:
    """Channel axis and number of spatial axes of a value that has its channels on `axis`.

    Raises:
        Declined: neither images nor rows have them there.
    """
    axis = axis_of(axis, rank)
    require(axis == rank - 1 or (axis == 1 and rank > 2), f"channels on axis {axis} of {rank}")
    return (1, rank - 2) if axis == 1 and rank > 2 else (-1, 0)


def affine(
    form: Form, where: tuple[int, int] | None, factor: Array, shift: Array, unit: float, depth: int
) -> Form:
    """factor * form + shift: `[C]` each, or `[1]` and nowhere for what is the same for all channels."""
    if where is None and form.place is None:
        made, rounds, unit = times(form, float(factor[0])), form.rounds + depth, max(form.unit, unit)
        bias, size = made.bias + shift, made.size + abs(shift)
        return replace(made, bias=bias, size=size, rounds=rounds, unit=unit, work=form.work + 2)
    axis, rank = where or form.place or (1, 0)
    channels = len(factor) if where else len(form.bias)
    scales, shifts = (np.broadcast_to(array, (channels,)) for array in (factor, shift))
    return after(scale_shift(scales, shifts, rank, axis), form, 2, unit, depth)


def pointwise(form: Form, shape: Shape, factor: Array, shift: Array, unit: float, depth: int) -> Form:
    """The same with arrays of one shape that are broadcast to the value's.

    Raises:
        Declined: they broadcast the value, or differ along more than its channels.
    """
    wide = [axis for axis, n in enumerate(factor.shape, start=len(shape) - factor.ndim) if n != 1]
    require(factor.ndim <= len(shape), f"{factor.shape} for {shape}")
    # Where several axes are wide, none of them is as long as all together.
    require(not wide or shape[wide[0]] == factor.size, f"{factor.shape} broadcasts {shape}")
    where = place(wide[0], len(shape)) if wide else None
    return affine(form, where, factor.reshape(-1), shift.reshape(-1), unit, depth)


def elementwise(
    kind: str, form: Form, shape: Shape, array: Array, unit: float, depth: int, *, first: bool
) -> Form:
    """Add, Sum, Sub, Mul or Div of a value and an array, which comes first or second.

    Raises:
        Declined: the array is divided by the value, or `pointwise` says no.
    """
    require(kind in {"Add", "Sum", "Sub", "Mul"} or (kind == "Div" and not first), f"{kind} by a value")
    if kind in {"Mul", "Div"}:
        return pointwise(form, shape, array if kind == "Mul" else 1 / array, 0 * array, unit, depth)
    ours, theirs = (-1.0 if kind == "Sub" and side else 1.0 for side in (first, not first))
    return pointwise(form, shape, np.full(array.shape, ours), theirs * array, unit, depth)


def total(kind: str, forms: Sequence[Form], shapes: Sequence[Shape | None], unit: float) -> Form:
    """Add, Sum, Sub or Mean of several values.

    Raises:
        Declined: it is another operator, or a law says no.
    """
    require(kind in {"Add", "Sum", "Sub", "Mean"}, f"{kind} of two values")
    whole, shape = replace(forms[0], unit=max(forms[0].unit, unit)), shapes[0]
    for form, other in zip(forms[1:], shapes[1:], strict=True):
        same = shape == other and shape is not None and None not in shape
        whole = plus(whole, times(form, -1.0 if kind == "Sub" else 1.0), same=same)
    return times(whole, 1.0 / len(forms)) if kind == "Mean" else whole


def normalised(
    form: Form, shape: Shape, arrays: Sequence[Array], epsilon: float, unit: float, depth: int
) -> Form:
    """gamma (form - mean) / sqrt(variance + epsilon) + beta, `arrays` being gamma, beta, mean, variance."""
    gamma, beta, mean, variance = arrays
    where, factor = place(1, len(shape)), gamma / np.sqrt(variance + epsilon)
    centred = affine(form, where, factor, -mean * factor, unit, depth)
    return affine(centred, where, np.ones(len(beta)), beta, unit, depth)


def geometry(
    size: Sequence[int], auto: str, stride: Ints, dilation: Ints, pads: Ints, more: Ints
) -> dict[str, Ints]:
    """The attributes of a `Conv`; `more` is what a transposed one has at the end, `auto` says which pads.

    Raises:
        Declined: that depends on the extent.
    """
    rank = len(size)
    if auto.startswith("SAME"):
        require(set(stride) <= {1} and not more, f"{auto} of stride {stride} depends on the extent")
        spans = [(k - 1) * d for k, d in zip(size, dilation or (1,) * rank, strict=True)]
        sides = [span // 2 for span in spans], [span - span // 2 for span in spans]
        pads = (*sides[auto == "SAME_LOWER"], *sides[auto == "SAME_UPPER"])
    pads, more = pads or (0,) * 2 * rank, more or (0,) * rank
    ends = tuple(pad - out for pad, out in zip(pads[rank:], more, strict=True))
    return {"stride": stride, "dilation": dilation, "begin": tuple(pads[:rank]), "end": ends}


def convolved(
    form: Form,
    weight: Lazy,
    bias: Array | None,
    unit: float,
    depth: int,
    groups: int,
    turned: bool,
    **window: Any,
) -> Form:
    """A convolution; the weight is `[O, I/groups, *k]`, of a transposed one (`turned`) `[I, O/groups, *k]`.

    Raises:
        Declined: it is none, or a law says no.
    """
    rows, columns, *size = weight.shape
    require(groups > 0 and rows % groups == 0, f"{rows} rows in {groups} groups")
    kernel, shape = weight, (columns * groups, rows // groups, *size)

    def mirrored(array: Array) -> Array:
        return array.reshape(groups, rows // groups, columns, *size).swapaxes(1, 2).reshape(shape)

    if turned:
        kernel = defer(shape, mirrored, weight)
    shift = np.zeros(kernel.shape[0]) if bias is None else bias
    conv = Conv(kernel, shift, groups=groups, transposed=turned, **geometry(size, **window))  # type: ignore[arg-type]
    return after(conv, form, prod(kernel.shape[1:]) + 1, unit, depth)


def multiplied(
    form: Form,
    matrix: Lazy,
    bias: Array | None,
    unit: float,
    depth: int,
    alpha: float = 1.0,
    beta: float = 1.0,
    *,
    turned: bool = False,
) -> Form:
    """alpha * form @ matrix + beta * bias; the matrix is `[O, I]` where it is `turned`, else `[I, O]`.

    Raises:
        Declined: the matrix or the bias is none.
    """
    require(len(matrix.shape) == 2, f"a matrix of {matrix.shape}")
    outputs, inputs = matrix.shape if turned else matrix.shape[::-1]
    shift = np.zeros(1) if bias is None else beta * bias
    one_row = shift.size == 1 or shift.shape[-1] == shift.size == outputs
    require(one_row, f"a bias of {shift.shape} for {outputs} differs between rows")
    kernel = defer((outputs, inputs), lambda array: alpha * (array if turned else array.T), matrix)
    conv = Conv(kernel, np.broadcast_to(shift.reshape(-1), (outputs,)), axis=-1)
    return after(conv, form, inputs + 3, unit, depth)


def pooled(form: Form, channels: Any, size: Sequence[int], unit: float, **window: Any) -> Form:
    """The mean of each window, padding counted.

    Raises:
        Declined: the channels are not known.
    """
    require(isinstance(channels, int), f"channels are not known: {channels}")
    mean = average_pool(channels, tuple(size), **geometry(size, **window))
    return after(mean, form, prod(size) + 1, unit, 0)


def picked(
    form: Form, where: tuple[int, int], channels: Any, rows: Sequence[int] | None, **geometry: Any
) -> Form:
    """Some of the channels, all where `rows` is None, of positions that are padded, cropped or skipped.

    Raises:
        Declined: the channels are not known, or none is left.
    """
    require(isinstance(channels, int) and (rows is None or len(rows) > 0), f"{rows} of {channels} channels")
    one = identity(channels, where[1], where[0])
    if rows is not None and list(rows) != list(range(channels)):
        kernel = np.eye(channels)[list(rows)].reshape(len(rows), channels, *(1,) * where[1])
        one = Conv.of(kernel, axis=where[0])
    return after(replace(one, **geometry), form, 0, 0.0, 0)


def chosen(form: Form, shape: Shape, axis: int, indices: NDArray[Any]) -> Form:
    """Channels by their numbers, negative ones from the end.

    Raises:
        Declined: the axis has none, or they are not known.
    """
    where, channels = place(axis, len(shape)), shape[axis]
    require(isinstance(channels, int) and indices.ndim == 1, f"{indices.shape} of {channels} channels")
    inside = bool(((-channels <= indices) & (indices < channels)).all())
    require(inside, f"channel {indices} of {channels}")
    return picked(form, where, channels, np.arange(channels)[indices].tolist())


def split(form: Form, shape: Shape, axis: int, sizes: Sequence[int] | None, many: int) -> list[Form]:
    """Channels in `many` parts, of `sizes` or of one size but for the last.

    Raises:
        Declined: the axis has none, they are not known, or the sizes are not theirs.
    """
    channels = shape[axis_of(axis, len(shape))]
    require(isinstance(channels, int), f"channels are not known: {channels}")
    ends = np.cumsum([-(-channels // many)] * many if sizes is None else sizes)
    require(sizes is None or ends[-1] == channels, f"{sizes} of {channels} channels")
    parts = np.split(np.arange(channels), ends[:-1])
    return [chosen(form, shape, axis, part) for part in parts]


def cropped(
    form: Form,
    shape: Shape,
    starts: Sequence[int],
    ends: Sequence[int],
    axes: Sequence[int] | None,
    steps: Sequence[int] | None,
) -> Form:
    """What slices of some axes leave.

    Raises:
        Declined: that depends on an extent that is not known, or they cut something else.
    """
    stops = [None if end >= ENDLESS else int(end) for end in ends]
    bounds = zip(map(int, starts), stops, map(int, [1] * len(stops) if steps is None else steps), strict=True)
    order = [axis_of(axis, len(shape)) for axis in (range(len(stops)) if axes is None else axes)]
    cuts = {axis: slice(*bound) for axis, bound in zip(order, bounds, strict=True)}
    rank = len(shape)
    where = form.place or ((-1, 0) if rank < 3 or (rank == 3 and {*cuts} == {2}) else (1, rank - 2))
    require(rank == where[1] + 2 or where[0] == -1, f"{shape} has not {where[1]} spatial axes")
    rows, begin, end, stride = None, [0] * where[1], [0] * where[1], [1] * where[1]
    for axis, cut in cuts.items():
        n, step = shape[axis], cut.step or 1
        stays = range(n)[cut] if isinstance(n, int) else None
        if stays is None:
            lasts = (cut.start or 0) >= 0 and (cut.stop is None or cut.stop < 0)
            require(lasts, f"{cut} depends on the extent {n}")
        start, stop = (cut.start or 0, cut.stop or 0) if stays is None else (stays.start, stays.stop - n)
        if axis == where[0] % rank:
            rows = list(stays or ())
        elif where[0] == 1 and axis > 1:
            require(stays != range(0), f"{cut} of {n} leaves nothing")
            begin[axis - 2], end[axis - 2], stride[axis - 2] = -start, stop, step
        else:
            require((start, stop, step) == (0, 0, 1), f"{cut} of axis {axis}")
    return picked(
        form, where, shape[where[0]], rows, begin=tuple(begin), end=tuple(end), stride=tuple(stride)
    )


def padded(form: Form, shape: Shape, pads: Sequence[int], axes: Sequence[int] | None, value: Any) -> Form:
    """Some axes, or all, extended by a constant, `pads` being those before and then those behind.

    Raises:
        Declined: an axis is none of space.
    """
    order = [axis_of(axis, len(shape)) for axis in (range(len(shape)) if axes is None else axes)]
    sides, rank = dict(zip(order, np.reshape(pads, (2, -1)).T.tolist(), strict=True)), len(shape)
    require(all(axis > 1 or not any(ends) for axis, ends in sides.items()), f"pads {sides} of {shape}")
    require(rank > 2 and isinstance(shape[1], int), f"no image: {shape}")
    begin, end = (tuple(sides.get(axis, (0, 0))[side] for axis in range(2, rank)) for side in (0, 1))
    outside = np.full(shape[1], float(value))
    return picked(form, (1, rank - 2), shape[1], None, begin=begin, end=end, pad_value=outside)


def stack(parts: Sequence[Form], shapes: Sequence[Shape], axis: int) -> Form:
    """concat(parts) along the channels: a sum in which each has zeros for the others.

    Raises:
        Declined: a law says no, or channels are not known.
    """
    where, sizes = place(axis, len(shapes[0])), [shape[axis] for shape in shapes]
    require(all(isinstance(n, int) for n in sizes), f"channels are not known: {sizes}")
    total: Form | None = None
    for part, size, end in zip(parts, sizes, np.cumsum(sizes), strict=True):
        rows = np.eye(sum(sizes))[:, end - size : end].reshape(sum(sizes), size, *(1,) * where[1])
        here = after(Conv.of(rows, axis=where[0]), part, 0, 0.0, 0)
        total = here if total is None else plus(total, here, same=True)
    assert total is not None
    return total

"""Sums of convolutions of several values, with what rounding can make of them.

A form is `sum_i conv_i(leaf_i) + bias`. Its laws are those of `algebra`, term by term; each term has beside
it the same composition of absolute values, so that two forms can be compared element by element: what is
stored rounds by `u` once for each constant, and what is computed in float64 by 2**-52 for each operation.
Arrays only: nothing here knows a graph.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any, Final

import numpy as np

from fuser.algebra import add, compose, scale
from fuser.conv import Conv, Ints, identity, scale_shift
from fuser.errors import require
from fuser.lazy import Array, defer

EPSILON: Final = 2.0**-52
FAR: Final = 2.0**40
"""Where f(FAR) - f(0) tells a slope to the last digit."""
LEAST: Final = {2.0**-24: 2.0**-150, 2.0**-11: 2.0**-25, 2.0**-8: 2.0**-134}
"""Half the smallest number of a type, by its roundoff: what rounding costs a number that is not normal."""
Term = tuple[Any, Any]
"""A factor, or a `Conv` without bias; and the same of absolute values."""


@dataclass(frozen=True, eq=False)
class Leaf:
    """A value that is no sum of convolutions: a given one, or what `operator` makes of `inputs`."""

    shape: tuple[Any, ...] | None
    operator: tuple[Any, ...] = ()
    inputs: tuple[Any, ...] = ()


@dataclass(frozen=True, eq=False)
class Form:
    """The sum of `terms`, and a bias `[C]`, or `[1]` where it is the same for all channels.

    `size` is the sum of the absolute values that the bias is made of, `work` the number of operations that
    one output takes, `rounds` how many stored constants follow one another on the way, `unit` the roundoff of
    their type. `place` is the channel axis and the number of spatial axes, None as long as all terms are
    factors. `uniform`: all terms are known to have one shape.
    """

    terms: dict[Leaf, Term]
    bias: Array = field(default_factory=lambda: np.zeros(1))
    size: Array = field(default_factory=lambda: np.zeros(1))
    place: tuple[int, int] | None = None
    work: int = 0
    rounds: int = 0
    unit: float = 0.0
    uniform: bool = True


@dataclass(frozen=True)
class Gap:
    """How far two forms are apart: `|new - old| <= slope max|leaf| + offset`, each `[C]`.

    `used` is the largest part of what rounding may do that a weight differs by. `conditions` are the values
    that were compared. `size` and `level` bound the new one: `|new| <= size max|leaf| + level`.
    """

    slope: Array
    offset: Array
    size: Array
    level: Array
    used: float = 0.0
    conditions: dict[str, Any] = field(default_factory=dict)
    leaves: tuple[Leaf, ...] = ()

    @property
    def parts(self) -> tuple[Array, Array, Array, Array]:
        """The four arrays."""
        return self.slope, self.offset, self.size, self.level


@dataclass(frozen=True)
class Alike:
    """Two leaves that stand for one another: `|new - old| <= slope m + offset`, `|old| <= size m + level`."""

    slope: float = 0.0
    offset: float = 0.0
    size: float = 1.0
    level: float = 0.0


def extent_of(leaf: Leaf, place: tuple[int, int]) -> Ints | None:
    """The spatial extent of a leaf, where it is known."""
    dims = leaf.shape[2:] if leaf.shape and place[0] == 1 else ()
    return dims if dims and all(isinstance(n, int) for n in dims) else None


def placed(form: Form, place: tuple[int, int], channels: int) -> Form:
    """The form with a `Conv` for each factor.

    Raises:
        Declined: a leaf does not have as many channels there, or may be broadcast.
    """
    if form.place is not None:
        require(form.place == place, f"channel axis and spatial axes differ: {form.place} and {place}")
        return form
    axis, rank = place
    for shape in (leaf.shape for leaf in form.terms):
        if shape is None:
            require(len(form.terms) == 1, f"a shape is not known that should have {channels} channels")
            continue
        fits = len(shape) == rank + 2 if axis == 1 else len(shape) > 1
        require(fits and shape[axis] == channels, f"{shape} does not have {channels} channels on {place}")
    one = identity(channels, rank, axis)
    terms = {leaf: scaled((one, one), term[0]) for leaf, term in form.terms.items()}
    bias, size = (np.broadcast_to(array, (channels,)) for array in (form.bias, form.size))
    return replace(form, terms=terms, bias=bias, size=size, place=place)


def scaled(term: Term, factor: float) -> Term:
    """factor * term."""
    if isinstance(term[0], Conv):
        return scale(term[0], factor), scale(term[1], abs(factor))
    return term[0] * factor, term[1] * abs(factor)


def absolute(conv: Conv, *, level: bool = False) -> Conv:
    """A bound of the operator: absolute values, the largest everywhere if `level`; no bias, zeros outside."""

    def values(weight: Array) -> Array:
        large = np.abs(weight)
        return np.full(weight.shape, large.max(initial=0.0)) if level else large

    kernel = defer(conv.kernel.shape, values, conv.kernel)
    return replace(linear(conv), kernel=kernel, pad_value=np.zeros(conv.inputs))


def linear(conv: Conv) -> Conv:
    """The operator without its bias."""
    return replace(conv, bias=np.zeros(conv.outputs))


def after(conv: Conv, form: Form, work: int, unit: float, depth: int = 1) -> Form:
    """conv(form); the kernel was rounded `depth` times, and takes `work` operations for one output.

    Of a kernel that was computed in several steps the largest weight tells how far each may be off.

    Raises:
        Declined: a law says no, or a window reads terms of different extents.
    """
    place = conv.axis, conv.rank
    form = placed(form, place, conv.inputs)
    require(form.uniform or conv.local, "a window reads terms that may have different extents")
    large = absolute(conv, level=depth > 1)
    size = np.abs(conv.bias) + large.respond(form.size) + large.respond(np.abs(conv.pad_value))
    terms: dict[Leaf, Term] = {}
    bias, outer, shift = np.zeros(conv.outputs), conv, form.bias
    for leaf, (own, most) in form.terms.items():
        extent = extent_of(leaf, place)
        whole = behind(outer, replace(own, bias=shift), extent)
        terms[leaf] = linear(whole), compose(large, most, extent)
        bias = bias + whole.bias
        # The first term carries bias and pads; the others go on as zero.
        outer, shift = replace(linear(conv), pad_value=np.zeros(conv.inputs)), np.zeros(conv.inputs)
    rounds, most_unit = form.rounds + depth, max(form.unit, unit)
    return Form(terms, bias, size, place, form.work + work, rounds, most_unit, form.uniform)


def behind(outer: Conv, inner: Conv, extent: Ints | None) -> Conv:
    """outer(inner(x)); where `inner` scales and shifts, pads are what they are in terms of x."""
    if not (outer.reads_outside and inner.pointwise and inner.bias.any() and inner.weight.all()):
        return compose(outer, inner, extent)
    level = (outer.pad_value - inner.bias) / inner.weight.reshape(-1)
    whole = compose(replace(outer, begin=(), end=()), inner)
    return replace(whole, begin=outer.begin, end=outer.end, pad_value=level)


def alike(a: Form, b: Form) -> tuple[Form, Form]:
    """Both with a `Conv` for each factor if one has any.

    Raises:
        Declined: their channels lie on different axes.
    """
    if a.place is None and b.place is not None:
        a = placed(a, b.place, len(b.bias))
    elif a.place is not None:
        b = placed(b, a.place, len(a.bias))
    return a, b


def through(leaf: Form, scale: Form) -> Form | None:
    """f(c x) as c f(x), `leaf` being f(x), where `scale` is c x with c > 0 for every channel; else None."""
    if len(scale.terms) != 1 or scale.bias.any():
        return None
    ((own, _),) = scale.terms.values()
    if not isinstance(own, Conv):
        return times(leaf, own, scale.unit, scale.rounds) if own > 0 else None
    if not own.pointwise or not (own.weight > 0).all():
        return None
    return after(own, leaf, 2, scale.unit, scale.rounds)


def line(
    form: Form, place: tuple[int, int], answers: tuple[Array, Array, Array], unit: float, depth: int
) -> Form:
    """a * form + b for each channel, given what it is at 0, at `FAR` and at `-FAR`.

    Raises:
        Declined: the three points do not lie on a line.
    """
    shift, far, near = (answer.reshape(-1) for answer in answers)
    bend = np.abs(far + near - 2 * shift)
    require(bool((bend <= 8 * EPSILON * (np.abs(far) + np.abs(near))).all()), "it bends at zero")
    factor = (far - shift) / FAR
    if form.place is not None or not ((factor == factor[0]).all() and (shift == shift[0]).all()):
        return after(scale_shift(factor, shift, place[1], place[0]), form, 8, unit, depth)
    result = times(form, float(factor[0]), unit, depth)
    bias, size = result.bias + shift[:1], result.size + np.abs(shift[:1])
    return replace(result, bias=bias, size=size, work=result.work + 2, unit=max(unit, result.unit))


def stack(parts: Sequence[Form], sizes: Sequence[int], place: tuple[int, int]) -> Form:
    """concat(parts) of `sizes` channels each: a sum in which each has zeros for the others.

    Raises:
        Declined: a law says no.
    """
    total: Form | None = None
    for part, size, end in zip(parts, sizes, np.cumsum(sizes), strict=True):
        rows = np.eye(sum(sizes))[:, end - size : end].reshape(sum(sizes), size, *(1,) * place[1])
        here = after(Conv.of(rows, axis=place[0]), part, 0, 0.0, 0)
        total = here if total is None else plus(total, here, same=True)
    assert total is not None
    return total


def read_off(x: Array, y: Array, level: Array, place: tuple[int, int]) -> Conv:
    """The convolution that makes y of x and `level` of zeros, x being 1, 2, 3, ...: padding, crop, choice.

    Where numbers that all differ come out tells stride, pads and channels; then it has to give just that.

    Raises:
        Declined: it is none.
    """
    require(y.ndim == x.ndim, f"{x.shape} becomes {y.shape}")
    axis, to = place[0] % x.ndim, np.argwhere(y != level)
    require(len(to) > 0, "nothing is left")
    start = np.stack(np.unravel_index(y[y != level].astype(np.int64) - 1, x.shape), axis=1)
    rows = np.zeros((y.shape[axis], x.shape[axis]))
    rows[to[:, axis], start[:, axis]] = 1.0
    begin, end, stride = [], [], []
    for a in range(2, 2 + place[1]):
        first, final = to[:, a].argmin(), to[:, a].argmax()
        steps = int(to[final, a] - to[first, a])
        stride.append(int(start[final, a] - start[first, a]) // steps if steps else 1)
        begin.append(int(stride[-1] * to[first, a] - start[first, a]))
        end.append((y.shape[a] - 1) * stride[-1] + 1 - x.shape[a] - begin[-1])
    require(min(stride, default=1) > 0, "an axis is reversed")
    depthwise = np.array_equal(rows, np.eye(len(rows)))
    weight = (np.ones((len(rows), 1)) if depthwise else rows).reshape(len(rows), -1, *(1,) * place[1])
    outside = np.full(x.shape[axis], level.reshape(-1)[np.abs(level).argmax()])
    geometry: dict[str, Any] = {
        "stride": tuple(stride),
        "begin": tuple(begin),
        "end": tuple(end),
        "pad_value": outside,
    }
    conv = Conv.of(weight, groups=len(rows) if depthwise else 1, axis=place[0], **geometry)
    exact = np.array_equal(conv.evaluate(x), y) and np.array_equal(conv.evaluate(0 * x), level)
    require(exact, "it is no padding, crop or choice of channels")
    return conv


def substituted(form: Form, leaf: Leaf, meaning: Form) -> Form:
    """The form with `meaning` in the place of a leaf.

    Raises:
        Declined: a law says no.
    """
    own, _ = form.terms[leaf]
    rest = replace(form, terms={other: term for other, term in form.terms.items() if other is not leaf})
    part = after(own, meaning, 0, 0.0, 0) if isinstance(own, Conv) else times(meaning, own, depth=0)
    return (
        plus(rest, part, same=form.uniform)
        if rest.terms
        else replace(
            part,
            bias=part.bias + rest.bias,
            size=part.size + rest.size,
            work=part.work + rest.work,
            rounds=part.rounds + rest.rounds,
            unit=max(part.unit, rest.unit),
        )
    )


def plus(a: Form, b: Form, *, same: bool) -> Form:
    """a + b; `same`: both are known to have one shape.

    Raises:
        Declined: a law says no.
    """
    a, b = alike(a, b)
    terms = dict(a.terms)
    for leaf, (own, most) in b.terms.items():
        if leaf in terms and a.place is not None:
            extent = extent_of(leaf, a.place)
            terms[leaf] = add(terms[leaf][0], own, extent), add(terms[leaf][1], most, extent)
        else:
            terms[leaf] = (terms[leaf][0] + own, terms[leaf][1] + most) if leaf in terms else (own, most)
    uniform = a.uniform and b.uniform and (same or bool(a.terms.keys() & b.terms.keys()))
    work, rounds, unit = max(a.work, b.work) + 1, max(a.rounds, b.rounds), max(a.unit, b.unit)
    return Form(terms, a.bias + b.bias, a.size + b.size, a.place, work, rounds, unit, uniform)


def times(form: Form, factor: float, unit: float = 0.0, depth: int = 1) -> Form:
    """factor * form."""
    terms = {leaf: scaled(term, factor) for leaf, term in form.terms.items()}
    steps = depth * (abs(factor) != 1.0)
    result = replace(form, terms=terms, bias=form.bias * factor, size=form.size * abs(factor))
    return replace(result, work=form.work + steps, rounds=form.rounds + steps, unit=max(form.unit, unit))


def difference(a: Form, b: Form, match: Callable[[Leaf, Leaf], Alike | None]) -> Gap:
    """How far `b` is from `a`, where that is no more than rounding explains; `match` says which leaves agree.

    Raises:
        Declined: it is further, or reads something else.
    """
    a, b = alike(a, b)
    require(
        a.place is None or len(a.bias) == len(b.bias), f"channels differ: {len(a.bias)} and {len(b.bias)}"
    )
    unit = max(a.unit, b.unit)
    fine = EPSILON * (a.work + b.work + 1)
    rooms = fine + unit * a.rounds, fine + unit * b.rounds
    bounds = gamma(a.work, unit), gamma(b.work, unit)
    left, used, least = dict(b.terms), 0.0, LEAST.get(unit, 0.0)
    conditions: dict[str, Any] = {}
    slope, size, level = np.zeros(1), np.zeros(1), b.size
    offset = compared(a.bias, b.bias, rooms[0] * a.size + rooms[1] * b.size + least, "bias")
    offset = offset + (fine + bounds[0]) * a.size + bounds[1] * b.size
    for leaf, term in a.terms.items():
        pairs = ((other, found) for other in left if (found := match(leaf, other)) is not None)
        other, found = next(pairs, (None, None))
        if other is None or found is None:
            require(vanishes(term), f"only the original reads {leaf.operator[1:2] or leaf.shape}")
            continue
        extent = extent_of(leaf, a.place or (1, 0))
        gap, room, most, described = _term_gap(term, left.pop(other), rooms, least, extent)
        conditions.update(described)
        used = max(used, float((gap / np.maximum(room, np.finfo(float).tiny)).max(initial=0.0)))
        loss = _rows(gap) + fine * most[0] + bounds[0] * most[0] + bounds[1] * most[1]
        with np.errstate(invalid="ignore"):
            slope = slope + loss * found.size + most[1] * found.slope
            offset = offset + loss * found.level + most[1] * found.offset
        size, level = size + most[1] * found.size, level + most[1] * found.level
    for leaf, term in left.items():
        require(vanishes(term), f"only the result reads {leaf.operator[1:2] or leaf.shape}")
    return Gap(slope, offset, size, level, used, conditions, tuple(a.terms))


def _term_gap(
    a: Term, b: Term, rooms: tuple[float, float], least: float, extent: Ints | None
) -> tuple[Array, Array, tuple[Array, Array], dict[str, Any]]:
    """|a - b| of each weight, how much rounding explains, the sums of both by row, and what was compared."""
    if not isinstance(a[0], Conv):
        old, new = (np.array([[term[0]]]) for term in (a, b))
        most = np.abs(old), np.abs(new)
        room = rooms[0] * most[0] + rooms[1] * most[1] + least
        return compared(old, new, room, "factor"), room, (most[0][0], most[1][0]), {}
    one, two = a[0], b[0]
    if one.reads_outside and two.reads_outside:
        room = rooms[0] * np.abs(one.pad_value) + rooms[1] * np.abs(two.pad_value)
        compared(one.pad_value, two.pad_value, room + least, "pad value")
        two = replace(two, pad_value=one.pad_value)
    gap = add(one, scale(two, -1.0), extent).weight
    room = add(scale(a[1], rooms[0]), scale(b[1], rooms[1]), extent).weight + least
    names = ("stride", "slack", "dilation", "begin", "end", "groups")
    conditions = {name: [getattr(one, name), getattr(two, name)] for name in names}
    most = _rows(a[1].weight), _rows(b[1].weight)
    return compared(gap, np.zeros(1), room, "weight"), room, most, conditions


def compared(a: Array, b: Array, room: Array, what: str) -> Array:
    """|a - b|.

    Raises:
        Declined: it is more than `room` somewhere.
    """
    gap = np.abs(a - b)
    over = ~(gap <= room)
    if over.any():
        at = tuple(map(int, np.argwhere(over)[int((gap - room)[over].argmax())]))
        limit = float(np.broadcast_to(room, gap.shape)[at])
        require(False, f"a {what} differs by {gap[at]:.3g}, and rounding explains {limit:.3g}, at {at}")
    return gap


def vanishes(term: Term) -> bool:
    """Whether a term is zero."""
    return not term[0].weight.any() if isinstance(term[0], Conv) else term[0] == 0.0


def gamma(operations: int, unit: float) -> float:
    """n u / (1 - n u): the relative error of n products summed in any order (Higham, 2002, section 3.1)."""
    return operations * unit / (1 - operations * unit) if operations * unit < 1 else inf


def _rows(kernel: Array) -> Array:
    return np.asarray(kernel.reshape(len(kernel), -1).sum(axis=1))

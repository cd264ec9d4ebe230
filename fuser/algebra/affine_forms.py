"""Sums of convolutions of several values, with what rounding can make of them.

A form is `sum_i conv_i(leaf_i) + bias`. Its laws are those of `algebra`, term by term; each term has beside
it the same composition of absolute values, so that two forms can be compared element by element: what is
stored rounds by `u` once for each constant, and what is computed in float64 by 2**-52 for each operation.
Arrays only: nothing here knows a graph.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any, Final

import numpy as np

from fuser.algebra.conv import Conv, Ints, identity
from fuser.algebra.laws import add, compose, scale
from fuser.algebra.lazy import Array, defer
from fuser.errors import require

EPSILON: Final = 2.0**-52
LEAST: Final = {2.0**-24: 2.0**-150, 2.0**-11: 2.0**-25, 2.0**-8: 2.0**-134}
"""Half the smallest number of a type, by its roundoff: what rounding costs a number that is not normal."""
Term = tuple[Any, Any]
"""A factor, or a `Conv` without bias; and the same of absolute values."""


@dataclass(frozen=True, eq=False)
class Leaf:
    """A value that is no sum of convolutions: a given one, or what `operator` makes of `inputs`.

    `unit` is the roundoff of its type, 0 where that is not known.
    """

    shape: tuple[Any, ...] | None
    unit: float = 0.0
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

    `conditions` are the values that were compared. `size` and `level` bound the new one:
    `|new| <= size max|leaf| + level`.
    """

    slope: Array
    offset: Array
    size: Array
    level: Array
    conditions: dict[str, Any] = field(default_factory=dict)
    leaves: tuple[Leaf, ...] = ()


@dataclass(frozen=True)
class Alike:
    """Two leaves that stand for one another: `|new - old| <= slope m + offset`, `|old| <= size m + level`.

    m is the largest of `leaves`, and of the leaf itself where there are none.
    """

    slope: float = 0.0
    offset: float = 0.0
    size: float = 1.0
    level: float = 0.0
    leaves: tuple[Leaf, ...] = ()


def as_form(value: Leaf | Form) -> Form:
    """A leaf or form as a form."""
    return value if isinstance(value, Form) else Form({value: (1.0, 1.0)}, unit=value.unit)


def plain(value: Any) -> Any:
    """A form that is no more than a leaf, and rounds nothing, as that leaf; anything else as it is."""
    if not isinstance(value, Form) or len(value.terms) != 1 or value.bias.any() or value.work:
        return value
    ((leaf, (own, _)),) = value.terms.items()
    bare = own.pointwise and bool((own.weight == 1.0).all()) if isinstance(own, Conv) else own == 1.0
    return leaf if bare else value


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
        require(len(form.bias) == channels, f"{len(form.bias)} channels where {channels} are read")
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


def scaled(term: Term, factor: float, most: float | None = None) -> Term:
    """factor * term; `most` is the sum of the absolute values that the factor is made of."""
    most = abs(factor) if most is None else most
    if isinstance(term[0], Conv):
        return scale(term[0], factor), scale(term[1], most)
    return term[0] * factor, term[1] * most


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


def after(conv: Conv, form: Form, work: int, unit: float, depth: int = 1, most: Conv | None = None) -> Form:
    """conv(form); the kernel was rounded `depth` times, and takes `work` operations for one output.

    Of a kernel that was computed in several steps the largest weight tells how far each may be off; `most`
    has the sums of the absolute values that it is made of, where it is a sum.

    Raises:
        Declined: a law says no, or a window reads terms of different extents.
    """
    place = conv.axis, conv.rank
    form = placed(form, place, conv.inputs)
    require(form.uniform or conv.local, "a window reads terms that may have different extents")
    large = most or absolute(conv, level=depth > 1)
    size = np.abs(conv.bias) + large.respond(form.size)
    terms: dict[Leaf, Term] = {}
    bias, outer, shift = np.zeros(conv.outputs), conv, form.bias
    for leaf, (own, size_of) in form.terms.items():
        extent = extent_of(leaf, place)
        whole = behind(outer, replace(own, bias=shift), extent)
        terms[leaf] = linear(whole), compose(large, size_of, extent)
        bias = bias + whole.bias
        # The first term carries bias and pads; the others go on as zero.
        outer, shift = replace(linear(conv), pad_value=np.zeros(conv.inputs)), np.zeros(conv.inputs)
    rounds, most_unit = form.rounds + depth, max(form.unit, unit)
    return Form(terms, bias, size, place, form.work + work, rounds, most_unit, form.uniform)


def behind(outer: Conv, inner: Conv, extent: Ints | None) -> Conv:
    """outer(inner(x)); where `inner` scales and shifts, pads are what they are in terms of x."""
    if not (outer.reads_outside and inner.pointwise and inner.weight.all()):
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
    ((own, most),) = scale.terms.values()
    if not isinstance(own, Conv):
        return counted(times(leaf, own, most), scale) if own > 0 else None
    if not own.pointwise or not (own.weight > 0).all():
        return None
    return counted(after(own, leaf, 0, 0.0, 0, most), scale)


def substituted(form: Form, leaf: Leaf, meaning: Form) -> Form:
    """The form with `meaning` in the place of a leaf.

    Raises:
        Declined: a law says no.
    """
    own, most = form.terms[leaf]
    rest = replace(form, terms={other: term for other, term in form.terms.items() if other is not leaf})
    conv = isinstance(own, Conv)
    part = counted(after(own, meaning, 0, 0.0, 0, most) if conv else times(meaning, own, most), form)
    if rest.terms:
        return plus(rest, part, same=form.uniform)
    return replace(part, bias=part.bias + rest.bias, size=part.size + rest.size)


def counted(part: Form, form: Form) -> Form:
    """A part of which the terms are those of a form that was computed after it."""
    work, rounds = part.work + form.work, part.rounds + form.rounds
    return replace(part, work=work, rounds=rounds, unit=max(part.unit, form.unit))


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


def times(form: Form, factor: float, most: float | None = None) -> Form:
    """factor * form, the factor being as it is: see `scaled`."""
    most = abs(factor) if most is None else most
    terms = {leaf: scaled(term, factor, most) for leaf, term in form.terms.items()}
    work = form.work + (abs(factor) != 1.0)
    return replace(form, terms=terms, bias=form.bias * factor, size=form.size * most, work=work)


def difference(a: Form, b: Form, match: Callable[[Leaf, Leaf], Alike | None]) -> Gap:
    """How far `b` is from `a`, where that is no more than rounding explains; `match` says which leaves agree.

    Raises:
        Declined: it is further, or reads something else.
    """
    a, b = alike(a, b)
    unit = max(a.unit, b.unit)
    fine = EPSILON * (a.work + b.work + 1)
    rooms = fine + unit * a.rounds, fine + unit * b.rounds
    bounds = gamma(a.work, unit), gamma(b.work, unit)
    left, least = dict(b.terms), LEAST.get(unit, 0.0)
    conditions, leaves = dict[str, Any](), dict[Leaf, None]()
    slope, size, level = np.zeros(1), np.zeros(1), b.size
    offset = compared(a.bias, b.bias, rooms[0] * a.size + rooms[1] * b.size + least, "bias")
    offset = offset + (fine + bounds[0]) * a.size + bounds[1] * b.size
    for leaf, term in a.terms.items():
        pairs = ((other, found) for other in left if (found := match(leaf, other)) is not None)
        other, found = next(pairs, (None, None))
        if other is None or found is None:
            reads = f"only the original reads {leaf.operator[1:2] or leaf.shape}"
            require(vanishes(term) and a.uniform, reads)
            continue
        extent = extent_of(leaf, a.place or (1, 0))
        gap, most, (outside, edge), described = _term_gap(term, left.pop(other), rooms, least, extent)
        conditions.update(described)
        leaves.update(dict.fromkeys(found.leaves or (leaf,)))
        loss = gap + fine * most[0] + bounds[0] * most[0] + bounds[1] * most[1]
        with np.errstate(invalid="ignore"):
            slope = slope + loss * found.size + most[1] * found.slope
            offset = offset + loss * (found.level + outside) + most[1] * (found.offset + edge)
        size, level = size + most[1] * found.size, level + most[1] * found.level
    for leaf, term in left.items():
        reads = f"only the result reads {leaf.operator[1:2] or leaf.shape}"
        require(vanishes(term) and b.uniform, reads)
    # What vanishes has a shape: that of the others, if there are any.
    require(bool(leaves), "they read nothing in common")
    return Gap(slope, offset, size, level, conditions, tuple(leaves))


def _term_gap(
    a: Term, b: Term, rooms: tuple[float, float], least: float, extent: Ints | None
) -> tuple[Array, tuple[Array, Array], tuple[float, float], dict[str, Any]]:
    """The sum by row of |a - b|, of both; the largest padding, how far it is apart; and what was compared."""
    if not isinstance(a[0], Conv):
        old, new = (np.array([term[0]]) for term in (a, b))
        most = np.array([a[1]]), np.array([b[1]])
        room = rooms[0] * most[0] + rooms[1] * most[1] + least
        return compared(old, new, room, "factor"), most, (0.0, 0.0), {}
    one, two = a[0], b[0]
    most, edge = (_rows(a[1].weight), _rows(b[1].weight)), 0.0
    outside = max(float(np.abs(conv.pad_value).max(initial=0.0)) for conv in (one, two))
    if one.reads_outside and two.reads_outside:
        room = rooms[0] * np.abs(one.pad_value) + rooms[1] * np.abs(two.pad_value)
        edge = float(compared(one.pad_value, two.pad_value, room + least, "pad value").max(initial=0.0))
        two = replace(two, pad_value=one.pad_value)
    gap = add(one, scale(two, -1.0), extent).weight
    room = add(scale(a[1], rooms[0]), scale(b[1], rooms[1]), extent).weight + least
    names = ("stride", "slack", "dilation", "begin", "end", "groups")
    conditions = {name: [getattr(one, name), getattr(two, name)] for name in names}
    return _rows(compared(gap, np.zeros(1), room, "weight")), most, (outside, edge), conditions


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

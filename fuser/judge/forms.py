"""Extents as formulas in symbols: `4*h + 1`, `floor(h / 2)`, `min(t, 512)`.

A `Form` is linear in its atoms, and an atom is a symbol or an operation on extents that is not linear. Equal
formulas are mostly written alike, so that most of what has to agree is seen to agree at once; the rest is
decided by evaluating both sides over many sizes at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

DEEPEST: Final = 40
"""Operations inside one another; what is computed in more steps is not followed."""


@dataclass(frozen=True, slots=True)
class Op:
    """What is not linear: `floor` of a quotient, `min`, `max` or `mul` of two extents."""

    kind: str
    left: Known
    right: Known
    depth: int = 0


@dataclass(frozen=True, slots=True)
class Form:
    """`sum(factor * atom) + add`; the atoms in a fixed order."""

    terms: tuple[tuple[Atom, int], ...]
    add: int = 0


Atom = str | Op
Known = int | Form
Extent = int | Form | None


def symbol(name: str) -> Form:
    """The extent of that name."""
    return Form(((name, 1),))


def _form(terms: Mapping[Atom, int], add: int) -> Known:
    kept = [(atom, factor) for atom, factor in terms.items() if factor]
    if len(kept) > 1:
        kept.sort(key=lambda term: repr(term[0]))
    return Form(tuple(kept), add) if kept else add


def _atom(kind: str, left: Known, right: Known) -> Form:
    depth = 1 + max(_depth(left), _depth(right))
    if depth > DEEPEST:
        raise ValueError(f"an extent is computed in more than {DEEPEST} steps")
    return Form(((Op(kind, left, right, depth), 1),))


def _depth(part: Known) -> int:
    if isinstance(part, int):
        return 0
    return max((atom.depth for atom, _ in part.terms if isinstance(atom, Op)), default=0)


def added(left: Known, right: Known) -> Known:
    """The sum of two."""
    if isinstance(left, int):
        left, right = right, left
    if isinstance(left, int):
        return left + right if isinstance(right, int) else right
    if isinstance(right, int):
        return Form(left.terms, left.add + right) if right else left
    terms = dict(left.terms)
    for atom, factor in right.terms:
        terms[atom] = terms.get(atom, 0) + factor
    return _form(terms, left.add + right.add)


def scaled(part: Known, factor: int) -> Known:
    """`factor` times an extent."""
    if isinstance(part, int):
        return part * factor
    return Form(tuple((a, k * factor) for a, k in part.terms), part.add * factor) if factor else 0


def multiplied(left: Known, right: Known) -> Known:
    """The product of two."""
    if isinstance(left, int):
        return scaled(right, left)
    if isinstance(right, int):
        return scaled(left, right)
    return _atom("mul", *sorted((left, right), key=repr))


def divided(part: Known, divisor: Known) -> Known:
    """The floor of a quotient, whole multiples of the divisor outside of it; by zero it is zero."""
    if part == divisor:
        return 1
    if not isinstance(divisor, int) or divisor < 1:
        return _atom("floor", part, divisor) if divisor != 0 else 0
    if isinstance(part, int):
        return part // divisor
    whole: dict[Atom, int] = {a: k // divisor for a, k in part.terms if k % divisor == 0}
    rest: dict[Atom, int] = {a: k for a, k in part.terms if k % divisor}
    if rest:
        ((atom, _),) = _atom("floor", _form(rest, part.add % divisor), divisor).terms
        whole[atom] = 1
    return _form(whole, part.add // divisor)


def least(left: Known, right: Known) -> Known:
    """The smaller one."""
    if isinstance(left, int) and isinstance(right, int):
        return min(left, right)
    return left if left == right else _merged("min", min, left, right)


def most(left: Known, right: Known) -> Known:
    """The larger one."""
    if isinstance(left, int) and isinstance(right, int):
        return max(left, right)
    return left if left == right else _merged("max", max, left, right)


def _merged(kind: str, of: Callable[[int, int], int], left: Known, right: Known) -> Form:
    """One bound for a form that has one already."""
    if isinstance(left, int):
        left, right = right, left
    if isinstance(left, Form) and isinstance(right, int) and len(left.terms) == 1 and left.terms[0][1] == 1:
        atom = left.terms[0][0]
        if isinstance(atom, Op) and atom.kind == kind and isinstance(atom.right, int):
            bound = of(atom.right, right - left.add)
            return Form(((Op(kind, atom.left, bound, atom.depth), 1),), left.add)
    return _atom(kind, left, right)


def plus(*parts: Extent) -> Extent:
    """The sum, as far as all are known."""
    return _joined(added, 0, parts)


def minus(left: Extent, right: Extent) -> Extent:
    """The difference, as far as both are known."""
    return None if left is None or right is None else added(left, scaled(right, -1))


def times(*parts: Extent) -> Extent:
    """The product, as far as all are known."""
    return _joined(multiplied, 1, parts)


def _joined(join: Callable[[Known, Known], Known], neutral: int, parts: Iterable[Extent]) -> Extent:
    total: Known = neutral
    for part in parts:
        if part is None:
            return None
        total = join(total, part)
    return total


def over(part: Extent, divisor: Extent) -> Extent:
    """The floor of the quotient, as far as both are known."""
    return None if part is None or divisor is None else divided(part, divisor)


def symbols(part: Extent) -> frozenset[str]:
    """The symbols that occur in an extent."""
    if not isinstance(part, Form):
        return frozenset()
    found: set[str] = set()
    for atom, _ in part.terms:
        found |= {atom} if isinstance(atom, str) else symbols(atom.left) | symbols(atom.right)
    return frozenset(found)


def value(part: Known, sizes: Mapping[str, Any]) -> Any:
    """The extent at the given sizes: a number, or an array of them where a size is an array."""
    if isinstance(part, int):
        return part
    total: Any = part.add
    for atom, factor in part.terms:
        total = total + factor * (sizes[atom] if isinstance(atom, str) else _value(atom, sizes))
    return total


def _value(atom: Op, sizes: Mapping[str, Any]) -> Any:
    left, right = value(atom.left, sizes), value(atom.right, sizes)
    match atom.kind:
        case "floor":
            return np.floor_divide(left, np.maximum(right, 1))
        case "min":
            return np.minimum(left, right)
        case "max":
            return np.maximum(left, right)
        case _:
            return left * right


_BUILD = {"floor": divided, "min": least, "max": most, "mul": multiplied}


def replaced(part: Known, known: Mapping[str, Known]) -> Known:
    """The extent, its symbols replaced by what they are known to be."""
    if isinstance(part, int) or known.keys().isdisjoint(symbols(part)):
        return part
    total: Known = part.add
    for atom, factor in part.terms:
        if isinstance(atom, str):
            inner: Known = known.get(atom, Form(((atom, 1),)))
        else:
            inner = _BUILD[atom.kind](replaced(atom.left, known), replaced(atom.right, known))
        total = added(total, scaled(inner, factor))
    return total


def negative(part: Known) -> bool:
    """Whether an extent is below zero whatever the sizes are."""
    if isinstance(part, int):
        return part < 0
    return part.add <= 0 and all(factor < 0 for _, factor in part.terms)


def linear(part: Known) -> Iterator[tuple[str, int]]:
    """The symbols that occur in an extent linearly and nowhere else, each with its factor."""
    if isinstance(part, Form):
        inside = [symbols(Form(((atom, 1),))) for atom, _ in part.terms if isinstance(atom, Op)]
        hidden = frozenset[str]().union(*inside)
        yield from ((a, k) for a, k in part.terms if isinstance(a, str) and a not in hidden)

"""Sizes that fit together: what a graph demands of the extents of its inputs, and numbers that satisfy it.

Every extent that is not known is a symbol. What has to agree is found by walking the graph (`Rule`s); what
can be solved for a symbol is, and the remaining symbols get the admissible number nearest to a wish, found by
evaluating the rules at all numbers up to `LIMIT` at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fuser.judge.forms import Form, Known, linear, minus, replaced, scaled, symbols, value

LIMIT: Final = 4096
"""The largest extent that is looked for: a receptive field of audio is some hundreds of samples."""

JOINT: Final = 320
"""The largest extent where two are looked for together."""

Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Rule:
    """What two extents must satisfy.

    `equal`; `alike`: equal, or one of them 1, as broadcasting wants it; `fits`: left is at most right;
    `parts`: left is a multiple of right. `when`: the outcome of a condition on values under which that is so,
    None if always.
    """

    kind: str
    left: Known
    right: Known
    when: bool | None = None

    def holds(self, sizes: Mapping[str, Any]) -> Any:
        """Whether it is satisfied, element by element where sizes are arrays."""
        left, right = value(self.left, sizes), value(self.right, sizes)
        match self.kind:
            case "equal":
                return np.equal(left, right)
            case "alike":
                return np.equal(left, right) | np.equal(left, 1) | np.equal(right, 1)
            case "fits":
                return np.less_equal(left, right)
            case _:
                return np.equal(np.remainder(left, np.maximum(right, 1)), 0)


@dataclass
class Sizes:
    """Symbols in the order of their importance, what is asked of them, and the numbers that some have."""

    order: Sequence[str]
    rules: Iterable[Rule]
    fixed: Mapping[str, int]
    ranges: Mapping[str, Bools]
    """Which of the numbers 1 to LIMIT a symbol may be, where it stands for a value."""
    known: dict[str, Known] = field(init=False)

    def __post_init__(self) -> None:
        self.known = dict(self.fixed)
        rank = {name: place for place, name in enumerate(self.order)}
        left = [rule for rule in self.rules if not self._solved(rule, rank)]
        # What was solved for has to be an extent, too.
        left += [Rule("fits", 1, form) for form in self.known.values() if isinstance(form, Form)]
        self.free = [name for name in self.order if name not in self.known]
        self._left: dict[str, list[Rule]] = {name: [] for name in self.free}
        place = {name: i for i, name in enumerate(self.free)}
        for rule in _strictest(self._now(rule) for rule in left):
            if names := symbols(rule.left) | symbols(rule.right):
                # A rule is looked at when the last of its symbols gets its number.
                self._left[max(names, key=place.__getitem__)].append(rule)
        self._alone = {name: self._by_itself(name) for name in self.free}

    def _by_itself(self, name: str) -> Bools:
        """Which of 1 to LIMIT a symbol may be as far as rules about no other say."""
        allowed = self.ranges[name].copy() if name in self.ranges else np.ones(LIMIT, bool)
        sizes = {name: np.arange(1, LIMIT + 1)}
        for rule in self._left[name]:
            if symbols(rule.left) | symbols(rule.right) == {name}:
                allowed &= rule.holds(sizes)
        return allowed

    def _now(self, rule: Rule) -> Rule:
        return Rule(rule.kind, replaced(rule.left, self.known), replaced(rule.right, self.known))

    def _solved(self, rule: Rule, rank: Mapping[str, int]) -> bool:
        """Whether a rule was used up by solving it for a symbol."""
        if rule.kind not in ("equal", "alike"):
            return False
        left, right = replaced(rule.left, self.known), replaced(rule.right, self.known)
        if rule.kind == "alike" and (isinstance(rule.left, int) or isinstance(rule.right, int)):
            return False  # 1 is admissible beside a constant, and worth a try
        difference = minus(left, right)
        assert difference is not None
        # Of those that can be solved for, one that comes out as a sum, and the least important.
        candidates = [(name, k) for name, k in linear(difference) if abs(k) == 1 and name not in self.ranges]
        if not isinstance(difference, Form) or not candidates:
            return False
        signs = {name: sum(j * k > 0 for _, j in difference.terms) for name, k in candidates}
        name, factor = max(candidates, key=lambda pair: (signs[pair[0]] == 1, rank.get(pair[0], 0)))
        rest = Form(tuple(term for term in difference.terms if term[0] != name), difference.add)
        solution = scaled(rest, -factor) if rest.terms else -factor * rest.add
        self.known = {key: replaced(old, {name: solution}) for key, old in self.known.items()}
        self.known[name] = solution
        return True

    def near(self, wishes: Mapping[str, int], *, apart: bool) -> dict[str, int]:
        """A number for every symbol, as near to the wishes as the rules admit. `apart`: no two alike.

        Where nothing satisfies the rules, they are broken: the model is what decides.
        """
        found: dict[str, int] = {}
        for name in self.free:
            allowed = self._allowed(name, found)
            if not allowed.any():
                found |= self._together(name, found, wishes)
                continue
            others = allowed.copy()
            others[[n - 1 for n in found.values() if apart and 1 < n <= LIMIT]] = False
            found[name] = _nearest(others if others.any() else allowed, wishes[name])
        return found | {name: int(value(form, found)) for name, form in self.known.items()}

    def _allowed(self, name: str, found: Mapping[str, int]) -> Bools:
        """Which of 1 to LIMIT the rules admit for a symbol, the earlier ones having their numbers."""
        sizes: dict[str, Any] = {**found, name: np.arange(1, LIMIT + 1)}
        allowed = self._alone[name].copy()
        for rule in self._left[name]:
            if symbols(rule.left) | symbols(rule.right) != {name}:
                allowed &= rule.holds(sizes)
        return allowed

    def _together(self, name: str, found: Mapping[str, int], wishes: Mapping[str, int]) -> dict[str, int]:
        """Numbers for a symbol and an earlier one, where those that are there leave it none."""
        involved = frozenset[str]().union(*(symbols(r.left) | symbols(r.right) for r in self._left[name]))
        grid = np.arange(1, JOINT + 1)
        for other in reversed([other for other in found if other in involved]):
            sizes: dict[str, Any] = {**found, name: grid[:, None], other: grid[None, :]}
            allowed = np.ones((JOINT, JOINT), bool)
            for rule in (*self._left[name], *self._left[other]):
                allowed &= rule.holds(sizes)
            if allowed.any():
                # Both move by like ratios, instead of one as far as it has to.
                far = np.log(grid[:, None] / wishes[name]) ** 2 + np.log(grid[None, :] / wishes[other]) ** 2
                row, column = np.unravel_index(np.argmin(np.where(allowed, far, np.inf)), far.shape)
                return {name: int(row) + 1, other: int(column) + 1}
        return {name: wishes[name]}

    def edges(self, name: str, kinks: Iterable[tuple[Form, int]], typical: Mapping[str, int]) -> list[int]:
        """The numbers of a symbol at which an extent reaches or exceeds a number that it is compared with."""
        sizes: dict[str, Any] = {**typical, name: np.arange(1, LIMIT + 1)}
        found: set[int] = set()
        for form, number in kinks:
            extent = np.broadcast_to(value(form, sizes), LIMIT)
            for reached in (extent >= number, extent > number):
                if reached.any() and not reached.all():
                    found.add(int(np.argmax(reached != reached[0])) + 1)
        return sorted(found)


def _strictest(rules: Iterable[Rule]) -> list[Rule]:
    """The rules, each once; of those about how large one extent must at least be, the strictest."""
    found: dict[object, Rule] = {}
    for rule in rules:
        if rule.kind == "fits" and isinstance(rule.left, int) and isinstance(rule.right, Form):
            key: object = rule.right.terms
            other = found.get(key)
            if other is not None and _room(other) <= _room(rule):
                continue
        else:
            key = rule
        found[key] = rule
    return list(found.values())


def _room(rule: Rule) -> int:
    assert isinstance(rule.left, int)
    assert isinstance(rule.right, Form)
    return rule.right.add - rule.left


def _nearest(allowed: Bools, wish: int) -> int:
    numbers = np.flatnonzero(allowed) + 1
    return int(numbers[np.argmin(np.abs(numbers - wish))])

"""What a model demands of its inputs, whatever its host: extents that fit, elements that mean something."""

from __future__ import annotations

from dataclasses import dataclass, field

from fuser.judge.forms import Extent, Form, Known, symbol, symbols
from fuser.judge.needs import SMALL, Need, Trace
from fuser.judge.sizes import Rule


@dataclass
class Demands:
    """Collected in one walk over a graph.

    `shapes`: the extents of each input, a symbol for what is not known. `elements`: the symbols of the
    elements of short integer inputs. `needs`: what is asked of elements. `kinks`: extents, and the numbers
    that they are compared with, on both sides of which a model has to be tried. `loose`: such numbers where
    nothing is known of the extent. `made`: the extents of what nodes make, those that are known. `used`:
    symbols of elements that are extents or trip counts somewhere.
    """

    shapes: dict[str, tuple[Known, ...]] = field(default_factory=dict)
    elements: dict[str, tuple[str, ...]] = field(default_factory=dict)
    needs: dict[str, Need] = field(default_factory=dict)
    rules: dict[Rule, None] = field(default_factory=dict)
    kinks: dict[tuple[Form, int], None] = field(default_factory=dict)
    loose: dict[int, None] = field(default_factory=dict)
    made: dict[tuple[Known, ...], None] = field(default_factory=dict)
    used: dict[str, None] = field(default_factory=dict)
    when: bool | None = None
    muted: bool = False
    """Inside a body that may not be run at all: what it asks for need not hold."""

    def _rule(self, kind: str, left: Extent, right: Extent) -> None:
        if left is None or right is None or left == right or self.muted:
            return
        if isinstance(left, Form) or isinstance(right, Form):
            self.rules.setdefault(Rule(kind, left, right, self.when))

    def equal(self, left: Extent, right: Extent) -> None:
        """Two extents are equal."""
        self._rule("equal", left, right)

    def alike(self, left: Extent, right: Extent) -> Extent:
        """Two extents are broadcast: equal, or one is 1. Returns what comes of them."""
        if right in (left, 1):
            return left
        if left == 1:
            return right
        self._rule("alike", left, right)
        if isinstance(right, int):
            return right
        return right if left is None else left

    def fits(self, left: Extent, right: Extent) -> None:
        """One extent is at most another."""
        self._rule("fits", left, right)

    def parts(self, whole: Extent, part: Extent) -> None:
        """One extent is a multiple of another."""
        if part != 1:
            self._rule("parts", whole, part)

    def kink(self, extent: Extent, number: Extent) -> None:
        """An extent is compared with a number."""
        if not isinstance(number, int) or not 0 < abs(number) < 2**31 - 1:
            return
        if extent is None:
            self.loose.setdefault(abs(number))
        elif isinstance(extent, Form):
            self.kinks.setdefault((extent, abs(number)))

    def extent(self, part: Extent, traces: tuple[Trace, ...]) -> None:
        """An element is an extent, a trip count or the like: small and positive."""
        for trace in traces:
            trace.within(1, SMALL)
        self.used.update(dict.fromkeys(sorted(symbols(part))))

    def largest(self, need: Need) -> tuple[Extent]:
        """The largest element of an input, as an extent."""
        if need.top is None:
            name = next(name for name, other in self.needs.items() if other is need)
            need.top = f"largest of {name}"
        return (symbol(need.top),)

    def symbols(self) -> list[str]:
        """All symbols, those of extents of inputs first."""
        found: dict[str, None] = {}
        wide = sorted(self.shapes.values(), key=lambda dims: -len(dims))
        parts = [part for dims in wide for part in dims]
        parts += [side for rule in self.rules for side in (rule.left, rule.right)]
        parts += [form for form, _ in self.kinks]
        parts += [end for need in self.needs.values() for _, *ends in need.bounds for end in ends]
        for part in parts:
            found.update(dict.fromkeys(sorted(symbols(part))))
        return list(found)

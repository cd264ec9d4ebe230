"""Samples of a model: inputs that fit together and mean something, and what the model makes of them.

Its host walks the model once for what it demands of its inputs (`judge/demands.py`). Extents that are free
are chosen on both sides of every number that they are compared with, as far as that can be
afforded, the batch too, and no two alike. Everything is drawn from a fixed seed: the same model gets the
same samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from itertools import islice
from math import prod
from typing import Any, Final

import numpy as np

from fuser.judge import inputs
from fuser.judge.compare import Outputs
from fuser.judge.demands import Demands
from fuser.judge.forms import Form, replaced, symbols, value
from fuser.judge.inputs import LARGE, SMALL, Feeds, Given, Shapes, Sizing, Spec, attempts, draw, given, guess
from fuser.judge.needs import drawn
from fuser.judge.runner import CannotRun, Runner, Trial, ran
from fuser.judge.sizes import LIMIT, Sizes

SIZINGS: Final = (Sizing(2, 64, 96, 32), Sizing(1, 75, 101, 37), Sizing(3, 96, 64, 48))
"""What free extents would be if nothing were asked of them; batch 1 is one of them, and not the only one."""

MOST_SAMPLES: Final = 5
AFFORDABLE: Final = 2**20
"""Elements of all inputs together; numbers that would need more to be exceeded are not."""

MOST_MADE: Final = 2**28
"""Elements of one value that are tried: more is made of small inputs only by a number that is a mistake."""

OTHER: Final = 5
"""An extent or an element that has no place in an image, a sequence or a batch."""

MOST_KINKS: Final = 500
"""Comparisons that are looked at, in the order of the graph."""

NEAR: Final = 64
MOST_LOOSE: Final = 4
"""Numbers that some extent is compared with, nobody knows which: so many, and up to this, for all of them."""

FARTHEST: Final = 1024
"""Numbers beyond this are not exceeded."""


@dataclass
class Samples:
    """The samples of one model.

    Args:
        demands: of the model; where the user gives inputs they are not asked for.
        inputs: the user's own, of which there is one sample; see `inputs.given`.
        count: how many are drawn; more, up to 5, where it takes them to be on both sides of every number.
        seed: of the random elements.
        sizes: extents of symbolic dimensions by name.
        shapes: whole shapes by the name of the input; extents of the others follow from them.
        order: sizes to begin with, in place of those that are best for a comparison.

    `notes` says afterwards what was not tried.
    """

    demands: Demands
    inputs: Given | None = None
    count: int = 3
    seed: int = 0
    sizes: Mapping[str, int] | None = None
    shapes: Shapes | None = None
    order: Sequence[Sizing] = ()
    notes: list[str] = field(default_factory=list, init=False)

    def of(self, runner: Runner) -> Iterator[tuple[Feeds, Outputs]]:
        """Inputs that the model runs with, and its outputs.

        Raises:
            CannotRun: it runs with none of them; the message names the shapes that were tried.
            InputError: the user's inputs, shapes or sizes do not fit the model.
        """
        if self.inputs is not None:
            feeds = given(self.inputs, runner.inputs)
            inputs.require_shapes({name: array.shape for name, array in feeds.items()}, self.shapes)
            yield feeds, runner.run(feeds)
            return
        plan = _Plan(self.demands, runner.inputs, self.seed, self.sizes, self.shapes)
        count = self.count
        if self.order:
            trials = plan.natural(self.order)
        else:
            count = max(count, min(MOST_SAMPLES, plan.levels)) if count > 1 else count
            trials = plan.trials(count)
        yield from ran(runner, trials, samples=count)
        self.notes = plan.notes


class _Plan:
    """Shapes and elements to try, in order."""

    def __init__(
        self,
        demands: Demands,
        specs: Sequence[Spec],
        seed: int,
        sizes: Mapping[str, int] | None,
        shapes: Shapes | None,
    ) -> None:
        self.demands, self.specs, self.seed = demands, specs, seed
        self.spared: dict[str, int] = {}
        self.had: list[dict[str, int]] = []
        self.given = dict(shapes or {})
        # Extents that are given by symbol, in the names that the demands use and in those of the runtime.
        stated = [self._stated(spec) for spec in specs]
        self.sizes = {**(sizes or {}), **inputs.pinned(stated, self.given)}
        # What is compared with numbers chooses first.
        kinked = frozenset[str]().union(*(symbols(form) for form, _ in demands.kinks))
        self.order = sorted(demands.symbols(), key=lambda name: name not in kinked)
        self.solver = cache(self._solver)
        # Extents of images, sequences and batches that nothing but their place gives a size.
        free = {dim for spec in stated for dim in spec.shape or () if isinstance(dim, str)}
        self._placed = [name for name in self.solver(True).free if name in free and name not in kinked]
        self.edges = self._edges()

    def _stated(self, spec: Spec) -> Spec:
        """An input with a name for every extent."""
        dims = self.demands.shapes.get(spec.name)
        if dims is None:
            return spec
        named = (n if isinstance(n, int) else str(n.terms[0][0]) for n in dims)
        return Spec(spec.name, spec.dtype, tuple(named))

    def _solver(self, outcome: bool) -> Sizes:
        """What fits together, when conditions on elements have that outcome."""
        rules = [rule for rule in self.demands.rules if rule.when in (None, outcome)]
        fixed = {name: self.sizes[name] for name in self.order if name in self.sizes}
        return Sizes([n for n in self.order if n not in fixed], rules, fixed, self._ranges())

    def _ranges(self) -> dict[str, Any]:
        """What elements may be that are extents."""
        numbers = np.arange(1, LIMIT + 1)
        ranges: dict[str, Any] = {}
        for name, need in self.demands.needs.items():
            mine = [n for n in (*self.demands.elements.get(name, ()), need.top) if n in self.demands.used]
            if mine:
                constant = [b for b in need.bounds if isinstance(b[1], int) and isinstance(b[2], int)]
                allowed = need.allowed.copy()
                for images, low, high in constant:
                    allowed &= (images >= low) & (images < high)
                ranges |= dict.fromkeys(mine, np.isin(numbers, need.candidates[allowed]))
        return {name: mask for name, mask in ranges.items() if mask.any()}

    # --- sizes ---------------------------------------------------------------------------------------------

    def _wishes(self, sizing: Sizing) -> dict[str, int]:
        """What each symbol would be if nothing were asked of it; the input with the most axes knows best."""
        wishes: dict[str, int] = {}
        stated = [spec.shape for spec in map(self._stated, self.specs) if spec.shape is not None]
        for dims in sorted(stated, key=lambda dims: -len(dims)):
            for axis, dim in enumerate(dims):
                if isinstance(dim, str):
                    wishes.setdefault(
                        dim, sizing.batch if "batch" in dim.lower() else guess(axis, dims, sizing)
                    )
        # Of extents that are one, the least: an axis of 224 that must be as long as the batch is a batch.
        for name, form in self.solver(True).known.items():
            if isinstance(form, Form) and form.add == 0 and [k for _, k in form.terms] == [1]:
                (other,) = symbols(form)
                wishes[other] = min(wishes.get(name, OTHER), wishes.get(other, OTHER))
        return {name: wishes.get(name, OTHER) for name in self.order}

    def _fitting(self, *order: Sizing) -> dict[str, int]:
        """The wishes of the first size that is admissible, or nearly; else those of the first one."""
        for sizing in order:
            wishes = self._wishes(replace(sizing, batch=order[0].batch))
            found = self.solver(True).near(wishes, apart=False)
            if all(4 * abs(found[name] - wishes[name]) <= wishes[name] for name in self._placed):
                return wishes
        return self._wishes(order[0])

    def _edges(self) -> dict[str, list[int]]:
        """For each free symbol the numbers at which a comparison changes."""
        solver = self.solver(True)
        typical = solver.near(self._fitting(SIZINGS[0], *SMALL, *LARGE), apart=True)
        about: dict[str, list[tuple[Form, int]]] = {}
        for form, number in islice(self.demands.kinks, MOST_KINKS):
            now = replaced(form, solver.known)
            for name in symbols(now):
                assert isinstance(now, Form)
                about.setdefault(name, []).append((now, number))
        # Elements that are no extents are drawn, not solved for.
        elements = {name for names in self.demands.elements.values() for name in names}
        looked = [n for n in solver.free if n in about and (n not in elements or n in self.demands.used)]
        edges = {name: solver.edges(name, about[name], typical) for name in looked}
        loose = sorted(n for n in self.demands.loose if 1 < n <= NEAR)[:MOST_LOOSE]
        for name in self._placed if loose else ():
            edges[name] = sorted({*edges.get(name, ()), *(n + more for n in loose for more in (0, 1))})
        for name, numbers in edges.items():
            far = [number for number in numbers if number > FARTHEST]
            if far:
                self._spare(name, far[0])
        return {name: [n for n in numbers if n <= FARTHEST] for name, numbers in edges.items()}

    @property
    def levels(self) -> int:
        """How many samples it takes to have every free extent on both sides of every number."""
        return 1 + max((len(edges) for edges in self.edges.values()), default=0)

    def _around(self, index: int, count: int, outcome: bool) -> dict[str, int]:
        """Sizes of one sample: beyond all numbers first, then below all, then between them."""
        solver = self.solver(outcome)
        wishes = self._fitting(SIZINGS[index % len(SIZINGS)], *SMALL, *LARGE)
        between = [1.0, 0.0, *np.linspace(0, 1, max(count, 3))[1:-1]]
        level = {
            name: round(between[index % len(between)] * len(edges)) for name, edges in self.edges.items()
        }
        while True:
            moved = dict(wishes)
            for name, place in level.items():
                edges = self.edges[name]
                low, high = (
                    edges[place - 1] if place else 1,
                    edges[place] - 1 if place < len(edges) else LIMIT,
                )
                moved[name] = min(max(wishes[name], low), high)
            sizes = solver.near(moved, apart=True)
            # The extent that was moved furthest is the first to be spared.
            costly = [name for name in level if level[name] and moved[name] > wishes[name]]
            if not costly or self._elements(sizes) <= AFFORDABLE:
                return self._other(sizes, moved)
            name = max(costly, key=lambda name: moved[name] / wishes[name])
            level[name] -= 1
            self._spare(name, self.edges[name][level[name]])

    def _other(self, sizes: dict[str, int], wishes: Mapping[str, int]) -> dict[str, int]:
        """The sizes, or others where an earlier sample had them: beyond a bound the nearest is the same."""
        for _ in range(MOST_SAMPLES):
            if sizes not in self.had:
                break
            further = {name: sizes[name] + 1 if name in self.edges else n for name, n in wishes.items()}
            sizes = self.solver(True).near(further, apart=True)
        self.had.append(sizes)
        return sizes

    def _spare(self, name: str, number: int) -> None:
        self.spared[name] = min(number, self.spared.get(name, number))

    @property
    def notes(self) -> list[str]:
        """What was not tried."""
        return [
            f"no sample had {name} at {number} or more, which would cost too much"
            for name, number in self.spared.items()
        ]

    def _elements(self, sizes: Mapping[str, int]) -> int:
        return sum(prod(shape) for shape in self._shapes(sizes).values())

    def _shapes(self, sizes: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
        unknown = inputs.bind(self.specs, SIZINGS[0], self.sizes)
        found = {
            name: tuple(max(0, int(value(extent, sizes))) for extent in dims)
            for name, dims in self.demands.shapes.items()
        }
        return {
            spec.name: self.given.get(spec.name) or found.get(spec.name, unknown[spec.name])
            for spec in self.specs
        }

    # --- trials --------------------------------------------------------------------------------------------

    def trials(self, count: int) -> Iterator[Trial]:
        """Samples on both sides of numbers; other sizes where none of them runs."""
        for index in range(max(count, len(SIZINGS))):
            outcome = index % 2 == 0
            yield self._trial(self._around(index, count, outcome), outcome, large=False)
        yield from self.natural(LARGE)

    def natural(self, order: Sequence[Sizing]) -> Iterator[Trial]:
        """Samples of the given sizes as far as they fit, then what was never looked at by the rules."""
        for index in range(len(order)):
            wishes = self._fitting(*order[index:])
            yield self._trial(self.solver(True).near(wishes, apart=False), True, large=True)
        for shapes, _ in attempts(self.specs, self.sizes, (*order, *SMALL, *LARGE)):
            whole = {**shapes, **self.given}
            yield Trial(whole, large=True, feeds=partial(self._plain, whole))

    def _trial(self, sizes: Mapping[str, int], outcome: bool, *, large: bool) -> Trial:
        return Trial(self._shapes(sizes), large, partial(self._feeds, sizes, outcome), f"outcome {outcome}")

    def _feeds(self, sizes: Mapping[str, int], outcome: bool, sample: int) -> Iterator[Feeds]:
        """Elements as they are asked for; where that is refused, as small as they can be.

        Raises:
            CannotRun: the model would make a value of them that is too large.
        """
        self._require_room(sizes)
        shapes = self._shapes(sizes)
        generator = np.random.default_rng([self.seed, sample, 1])
        known: Feeds = {}
        for spec in self.specs:
            need = self.demands.needs.get(spec.name)
            if need is None or not (need.asked or spec.dtype == "string"):
                continue
            array = drawn(need, shapes[spec.name], sizes, generator, outcome)
            for place, name in enumerate(self.demands.elements.get(spec.name, ())):
                if name in self.demands.used and name in sizes:
                    array.reshape(-1)[place] = sizes[name]
            known[spec.name] = (
                array.astype(inputs.numpy_dtype(spec.dtype)) if spec.dtype != "string" else array
            )
        yield draw(self.specs, shapes, seed=self.seed, sample=sample, known=known)
        if any("int" in spec.dtype for spec in self.specs):
            yield draw(self.specs, shapes, seed=self.seed, sample=sample, ceiling=2)

    def _require_room(self, sizes: Mapping[str, int]) -> None:
        for dims in self.demands.made:
            if all(name in sizes for form in dims for name in symbols(form)):
                try:
                    shape = [max(0, int(value(extent, sizes))) for extent in dims]
                except OverflowError as error:
                    raise CannotRun(
                        f"an extent of what is made of it has more than 64 bits: {error}"
                    ) from error
                if prod(shape) > MOST_MADE:
                    raise CannotRun(f"a value of shape {shape} is made of it, which is too large to be tried")

    def _plain(self, shapes: Shapes, sample: int) -> Iterator[Feeds]:
        """Elements by their type alone."""
        named = {
            name: zip(dims, shapes[name], strict=False)
            for name, dims in self.demands.shapes.items()
            if name in shapes
        }
        self._require_room(
            {symbol: n for pairs in named.values() for form, n in pairs for symbol in symbols(form)}
        )
        for ceiling in inputs.ceilings(self.specs):
            yield draw(self.specs, shapes, seed=self.seed, sample=sample, ceiling=ceiling)

"""What a region computes: it is evaluated on small inputs, at extents that leave nothing hidden."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import product
from math import prod
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fuser.algebra.conv import Conv, Ints
from fuser.algebra.lazy import Array
from fuser.errors import Declined, require
from fuser.ir.choices import LARGEST_BOUND, LARGEST_INPUT, choices, sides
from fuser.ir.constant import FLOATS, Constant
from fuser.ir.extents import Binding, Dim
from fuser.ir.interpret import Edge, Frame, Part, interpret
from fuser.ir.literals import ENDLESS, Literals, acting
from fuser.ir.node import Node, Value
from fuser.ir.ops import Op, operation
from fuser.ir.provenance import Provenance
from fuser.recognise.recognise import recognise

WIDEST_BORDER: Final = 8
"""How much smaller than a number in the graph an extent is looked for that it was computed from."""

MOST_NUMBERS: Final = 16
"""With more different numbers in the graph it is not looked for."""

Fixed = Mapping[int, int]


@dataclass(frozen=True, eq=False)
class Region:
    """The nodes that make the root's first output from `source`; those that are `free` carry no data."""

    root: Node
    source: Value
    path: tuple[Node, ...]
    free: tuple[Node, ...]
    provenance: Provenance

    @cached_property
    def nodes(self) -> list[Node]:
        """All of them, in graph order."""
        return sorted(dict.fromkeys((*self.path, *self.free)), key=lambda node: node.position)

    @cached_property
    def constants(self) -> list[Constant]:
        """What shapes, indices, masks and borders are made of."""
        found = (v.constant for node in self.nodes for v in node.inputs if v is not None)
        return [constant for constant in found if constant is not None]

    @cached_property
    def literals(self) -> list[Literals]:
        """What each node that carries data holds against positions and extents."""
        return [self.provenance.statement(node).literals for node in self.path]

    @cached_property
    def computed(self) -> set[int]:
        """The numbers that shapes, indices and borders are computed from; they may act on any axis."""
        found: set[int] = set()
        for value in (v for node in self.free for v in node.inputs if v is not None):
            held = value.constant
            if held is not None and held.dtype in FLOATS and held.size == 1:
                number = float(np.asarray(held.array()).reshape(()))
                found.update([int(number)] if number.is_integer() and abs(number) < ENDLESS else [])
            elif held is not None:
                found.update(n for n in held.numbers if abs(n) < ENDLESS)
        return found

    def numbers(self, axis: int) -> tuple[set[int], int]:
        """The numbers that may act on an axis, and how far those of the path reach together."""
        numbers, reach = acting(((held, len(self.shape)) for held in self.literals), axis)
        return self.computed | numbers, reach

    @property
    def shape(self) -> tuple[Dim, ...]:
        """The shape of the source."""
        return self.source.shape or ()


def meaning(region: Region) -> Conv | None:
    """What the region computes, for every extent that its source may have.

    Raises:
        Declined: it cannot be evaluated, or is almost a convolution.
    """
    evaluation = Evaluation(region)
    try:
        return _recognised(evaluation, {})
    except Unfit as error:
        unfit = error
    fixed = _pinned(evaluation)
    if fixed:
        try:
            return _recognised(evaluation, fixed)
        except Unfit as error:
            unfit = error
    if any(operation(node.op).has_kernel for node in region.path):
        raise Declined(f"what follows {region.source.name!r} cannot be evaluated: {unfit}")
    return None


def _recognised(evaluation: "Evaluation", fixed: Fixed) -> Conv | None:
    found = _recognise(evaluation, list(_trials(evaluation.region, fixed)))
    stride = max(found.stride, default=1) if found is not None else 1
    # Behind a stride a number acts as many times farther out.
    return found if stride == 1 else _recognise(evaluation, list(_trials(evaluation.region, fixed, stride)))


def _recognise(evaluation: "Evaluation", bindings: Sequence[tuple[Binding, bool]]) -> Conv | None:
    """Raises `Unfit` where a binding that is needed cannot be evaluated; others are then left out."""
    shape = evaluation.region.shape
    trials = {binding.shape(shape): (binding, needed) for binding, needed in bindings}
    for made in trials:
        require(
            prod(made) <= LARGEST_INPUT,
            f"an input of {made} is too large to try: over {LARGEST_INPUT} elements",
        )
    try:
        return recognise(lambda x: evaluation.run(x, trials[x.shape][0]), list(trials))
    except Unfit as error:
        unfit = error
        fit = [made for made, (binding, needed) in trials.items() if _fits(evaluation, binding, needed)]
    if not fit:  # extents of equal shape stand for one another, a needed one for one that is not
        raise unfit
    return recognise(lambda x: evaluation.run(x, trials[x.shape][0]), fit)


def _fits(evaluation: "Evaluation", binding: Binding, needed: bool) -> bool:
    """Whether the region can be evaluated. Where it cannot, the file itself does not run."""
    try:
        evaluation.run(np.broadcast_to(np.zeros(1), binding.shape(evaluation.region.shape)), binding)
    except Unfit:
        if needed:
            raise
        return False
    return True


def _trials(region: Region, fixed: Fixed, stride: int = 1) -> Iterator[tuple[Binding, bool]]:
    """Extents to try: those that the source has, or where they are free, on both sides of every number.

    `fixed` are axes that have one extent only, whatever their symbol says. Each comes with whether the region
    must be fit to be evaluated there.
    """
    rank = len(region.shape)
    free = [axis for axis in range(rank) if not isinstance(region.shape[axis], int) and axis not in fixed]
    plain = {axis: 2 + 3 * axis for axis in range(rank)}
    options = {}
    for axis in free:
        numbers, reach = region.numbers(axis)
        options[axis] = sides(numbers, reach * stride, plain[axis])
    taken = {dim for dim in (*region.shape, *fixed.values()) if isinstance(dim, int)}
    tried = choices(options, {axis: plain[axis] for axis in free}, taken)
    for turn, (wanted, needed) in enumerate(tried):
        yield _bound(region, {**plain, **wanted, **fixed}, parity=turn), needed


def _bound(region: Region, sizes: Fixed, parity: int = 0) -> Binding:
    return Binding.of(region.shape).bound([sizes.get(axis, 1) for axis in range(len(region.shape))], parity)


def _pinned(evaluation: "Evaluation") -> Fixed:
    """Axes with a symbol that still have one extent only, since nothing else can be evaluated.

    The legacy exporter writes such files where an extent was a number while it traced. They run for that
    extent alone, so it is the only one for which the region has to be a convolution. The extent must be one
    that the numbers in the graph were computed from, and the only such one that fits; empty where there is
    none.
    """
    region = evaluation.region
    values = {n for constant in region.constants for n in constant.shape}
    values.update(n for constant in region.constants if constant.size > 1 for n in constant.numbers)
    values = {n for n in values if 1 < n <= LARGEST_BOUND}
    spatial = [dim for dim in region.shape[2:] if not isinstance(dim, int)]
    if not spatial or len(values) > MOST_NUMBERS:
        return {}
    near = sorted({n - less for n in values for less in range(WIDEST_BORDER + 1) if n > less})
    free = [axis for axis, dim in enumerate(region.shape) if not isinstance(dim, int)]
    options = {axis: sorted(values | {1}) if axis == 0 else near for axis in free}
    fixed: dict[int, int] = {}
    best = _reached(evaluation, fixed)
    while best < len(region.nodes):
        open_axes = [axis for axis in free if axis not in fixed]
        # One axis more, or where that is not enough the batch together with another one.
        for axes in (
            [(axis,) for axis in open_axes],
            [(0, axis) for axis in open_axes if axis and 0 in open_axes],
        ):
            tried = {
                (group, sizes): _reached(evaluation, {**fixed, **dict(zip(group, sizes, strict=True))})
                for group in axes
                for sizes in product(*(options[axis] for axis in group))
            }
            farthest = max(tried.values(), default=0)
            winners = [choice for choice, reached in tried.items() if reached == farthest]
            if farthest > best and len(winners) == 1:
                break
        else:
            return {}
        best = farthest
        fixed.update(zip(*winners[0], strict=True))
    return fixed


def _reached(evaluation: "Evaluation", fixed: Fixed) -> int:
    """How many nodes can be evaluated with these extents."""
    region = evaluation.region
    binding, _ = next(_trials(region, fixed))
    made = binding.shape(region.shape)
    if prod(made) > LARGEST_INPUT:
        return 0
    try:
        evaluation.run(np.broadcast_to(np.zeros(1), made), binding)
    except Unfit as error:
        return error.reached
    return len(region.nodes)


class Unfit(Exception):
    """A region cannot be evaluated at some extents; `reached` nodes could."""

    def __init__(self, reason: str, reached: int) -> None:
        super().__init__(reason)
        self.reached = reached


class Evaluation:
    """Evaluates a region in float64, for any input and extents."""

    def __init__(self, region: Region) -> None:
        self.region = region
        self.widen = cache(Constant.wide)

    def run(self, x: NDArray[np.float64], binding: Binding) -> NDArray[np.float64]:
        """The root's output for `x` as the source.

        Raises:
            Unfit: a node cannot be evaluated.
        """
        result = self.region.root.outputs[0]
        frame = _Frame(self.region, x, binding)
        interpret(self.region.nodes, [frame], {result}, self.widen)
        return np.asarray(frame.values[result], dtype=np.float64)


class _Frame(Frame):
    """One input of a region; of values that nothing in it makes only the shape is looked at."""

    def __init__(self, region: Region, x: NDArray[np.float64], binding: Binding) -> None:
        super().__init__({region.source: x})
        self.path = frozenset(region.path)
        self.binding = binding
        self.reached = 0

    def outside(self, edge: Edge, part: Part, like: Ints) -> NDArray[Any]:
        """Something of the shape that the value has at these extents."""
        del part, like
        assert isinstance(edge, Value), "a region is made of nodes"
        return np.broadcast_to(np.zeros(1), self.binding.shape(edge.shape or ()))

    def compute(self, part: Part, op: Op, inputs: Sequence[Array | None]) -> tuple[Array, ...]:
        """The outputs, of data not empty ones."""
        made = super().compute(part, op, inputs)
        require(part not in self.path or all(np.size(array) for array in made), "nothing is left")
        self.reached += 1
        return made

    def fail(self, part: Part, error: Exception) -> None:
        """So many nodes could be evaluated."""
        assert isinstance(part, Node), "a region is made of nodes"
        raise Unfit(f"{part.name or part.op}: {error}", self.reached) from error

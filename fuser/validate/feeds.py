"""What a check feeds: for each value from outside a shape, at extents that leave nothing hidden.

Where every operator acts alike at every position, small extents tell as much as those of the source: some
beyond every window, and where an axis is free to have any, some within. Where an operator holds numbers that
positions are compared with, only the extents of the source count; an axis that is free to have any is tried
on both sides of each number. No two free axes are alike, the batch included.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import zip_longest
from math import gcd, lcm, prod
from typing import Final

from fuser.algebra.conv import Ints
from fuser.errors import require
from fuser.ir.choices import LARGEST_INPUT, choices, distinct, sides
from fuser.ir.extents import Binding, Shape, bases
from fuser.ir.literals import Literals, acting
from fuser.ir.node import Apply, Value
from fuser.ir.operation import Operation
from fuser.ir.ops import Op, operation
from fuser.ir.provenance import Statement
from fuser.validate.trial import Trial

MOST_AXES: Final = 16


@dataclass(frozen=True)
class Problem:
    """Applications that rewrites made, what the source says of what they replace, and what is fed to both."""

    applications: Sequence[Apply]
    statements: Sequence[Statement]
    fed: Sequence[Value]

    @cached_property
    def rewritten(self) -> list[Operation]:
        """The operators of the applications."""
        return [operation(part.op) for part in self.applications]

    @cached_property
    def operations(self) -> list[Operation]:
        """Those, and what statements were lifted to: only to choose extents by."""
        return [*self.rewritten, *(operation(statement.lifted) for statement in self.statements)]

    @cached_property
    def given(self) -> Ints | None:
        """The one extent that the applications are for, if there is one."""
        return next((part.extent for part in self.applications if part.extent), None)

    @cached_property
    def last(self) -> bool:
        """Whether the channels are on the last axis."""
        return {op.channel_axis for op in self.operations if op.channel_axis is not None} == {-1}

    @cached_property
    def windows(self) -> Ints:
        """How far each spatial axis is read at once, and a step further."""
        spans = [op.spans for op in self.operations]
        return tuple(max(axis) for axis in zip_longest(*spans, fillvalue=1))

    @cached_property
    def shapes(self) -> dict[Value, Shape]:
        """The shape of each value that is fed, by symbols; one that a convolution reads has a rank."""
        found: dict[Value | Apply, Shape] = {v: v.shape for v in self.fed if v.shape is not None}
        edges: list[tuple[Op, Sequence[Value | Apply | None], Value | Apply]]
        edges = [(statement.lifted, statement.inputs, statement.outputs[0]) for statement in self.statements]
        edges += [(part.op, part.inputs, part) for part in self.applications]
        for op, inputs, output in reversed(edges):
            for part in inputs:
                if part is None or (isinstance(part, Value) and part.constant is not None):
                    continue
                known = found.get(part, part.shape if isinstance(part, Value) else None)
                asked = operation(op).asks(known, found.get(output))
                if asked is not None:
                    found[part] = asked
        return {value: found[value] for value in self.fed if value in found}

    def channels(self, rank: int) -> int:
        """The axis of the channels in a value with so many axes."""
        return rank - 1 if self.last else min(1, rank - 1)

    @cached_property
    def literals(self) -> list[tuple[Literals, int]]:
        """What each statement holds, with the number of axes of its data."""
        ranks = ((statement.literals, _rank(statement)) for statement in self.statements)
        return [(held, rank) for held, rank in ranks if held.rigid or held.axes != ()]

    @cached_property
    def uniform(self) -> bool:
        """Whether every operator acts alike at every position, or holds numbers for the channels alone."""
        return all(
            held.axes is not None and bool(rank) and all(a % rank == self.channels(rank) for a in held.axes)
            for held, rank in self.literals
        ) and not any(op.rigid for op in self.rewritten)


def _rank(statement: Statement) -> int:
    """The number of axes of what a statement reads; 0 where it is not known."""
    known = (value.rank for value in (*statement.inputs[:1], *statement.outputs) if value is not None)
    return next((rank for rank in known if rank), 0)


def alike(problem: Problem, enlarged: int, *, apart: bool) -> Iterator[Trial]:
    """Small extents, for operators that act alike at every position: beyond every window, and within.

    Of samples two are enough: nothing here holds a number that a third could meet.
    """
    wide = {0: 2, **{i + 2: enlarged * n + i for i, n in enumerate(problem.windows)}}
    free = free_axes(problem) - {0}
    yield _trial(problem, _spread(wide), needed=True, apart=apart, own=False)
    if problem.given is None and free:
        narrow = {axis: 1 + place for place, axis in enumerate(sorted(free, reverse=True))}
        yield _trial(problem, _spread({**wide, **narrow}), needed=False, apart=apart, own=False)


def _spread(wanted: Mapping[int, int]) -> Mapping[int, int]:
    """Different extents, for as many axes as any value here may have."""
    return _spread_out(tuple(wanted.items()))


@cache
def _spread_out(wanted: tuple[tuple[int, int], ...]) -> Mapping[int, int]:
    known = dict(wanted)
    return distinct({**known, **{axis: 3 + axis for axis in range(MOST_AXES) if axis not in known}})


def exact(problem: Problem, *, apart: bool) -> Iterator[Trial]:
    """The extents of the source, and free axes on both sides of every number.

    Raises:
        Declined: a number is too large to try extents beyond it, or a shape is not known, or too large.
    """
    free = free_axes(problem)
    windows = {i + 2: n + i for i, n in enumerate(problem.windows)}
    plain = {axis: 2 if axis == 0 else windows.get(axis, 2 + 3 * axis) for axis in free}
    options = {axis: sides(*_numbers(problem, axis), plain[axis]) for axis in free}
    taken = {dim for shape in problem.shapes.values() for dim in shape if isinstance(dim, int)}
    for wanted, needed in choices(options, plain, taken):
        yield _trial(problem, _spread(wanted), needed=needed, apart=apart, own=True)


def free_axes(problem: Problem) -> set[int]:
    """The axes on which a value that is fed may have any extent."""
    return {
        axis
        for shape in problem.shapes.values()
        for axis, dim in enumerate(shape)
        if not isinstance(dim, int)
    }


def _numbers(problem: Problem, axis: int) -> tuple[set[int], int]:
    """The numbers that may act on an axis, and how far all of them reach together."""
    numbers, reach = acting(problem.literals, axis)
    stride = prod(max(op.stride, default=1) for op in problem.rewritten)
    return numbers, reach * min(stride, 64)


def several(problem: Problem) -> bool:
    """Whether free extents with different names lie on the same axis, and may have to be equal."""
    names = [bases(shape) for shape in problem.shapes.values()]
    axes = {axis for found in names for axis in found}
    return any(len({found[axis] for found in names if axis in found}) > 1 for axis in axes)


def _trial(problem: Problem, wanted: Mapping[int, int], *, needed: bool, apart: bool, own: bool) -> Trial:
    """Shapes for all that is fed. `own`: known extents are kept, else only the channels and ones are.

    `apart`: extents of different names differ on one axis too.

    Raises:
        Declined: a value would be too large.
    """
    wanted = {**wanted, 0: wanted[0] * _least_batch(problem)} if own else wanted
    binding = Binding.together(problem.shapes.values(), wanted, apart=apart)
    shapes = {}
    for value, dims in problem.shapes.items():
        rank = len(dims)
        shape = list(binding.shape(dims))
        for axis, dim in enumerate(dims):
            if isinstance(dim, int) and not own and axis != problem.channels(rank):
                shape[axis] = dim if dim == 1 else wanted[axis]
            if problem.given is not None and rank == len(problem.given) + 2 and axis > 1 and not own:
                shape[axis] = problem.given[axis - 2]
        size = prod(shape)
        require(size <= LARGEST_INPUT, f"{value.name!r} has {size} elements, more than {LARGEST_INPUT}")
        shapes[value] = tuple(shape)
    return Trial(shapes, needed)


def _least_batch(problem: Problem) -> int:
    """The least batch whose elements come out as whole rows of every reshape."""
    sizes = [op.row for op in problem.operations if op.row is not None]
    samples = [
        prod(dim for dim in shape[1:] if isinstance(dim, int))
        for shape in problem.shapes.values()
        if shape and not isinstance(shape[0], int)
    ]
    return lcm(*(size // gcd(size, max(sample, 1)) for size in sizes for sample in samples))

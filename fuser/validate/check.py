"""Is what a rewrite made right? Its numbers fit the dtype, and it computes what it replaced.

Two affine maps that agree on a generic input are equal (those where they agree by chance have measure
zero). So random inputs in float64, at extents that leave nothing hidden (`validate/feeds.py`), decide.
The region before is what the source says: its own operators on its own inputs, weights included, each
evaluated for what it means in the file. What they were lifted to has no part in it, nor how many rewrites
lie in between.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

import numpy as np

from fuser.algebra.conv import Conv
from fuser.algebra.lazy import Array, Lazy
from fuser.errors import Declined, require
from fuser.ir.graph import Graph
from fuser.ir.interpret import interpret
from fuser.ir.node import Apply, Node, Value
from fuser.ir.ops import Sum
from fuser.ir.provenance import Provenance, Statement
from fuser.ir.slices import is_visible, leading, supported
from fuser.validate.feeds import Problem, alike, exact, several
from fuser.validate.trial import NOTHING, Rewritten, Source, Trial

# Relative to the largest output: far above float64 rounding, far below any mistake in a kernel.
TOLERANCE: Final = 1e-9

# The same where a border is taken for what it was before the exporter rounded it (`recognise.snap`).
ROUNDING: Final = 2e-6

SAME: Final = Sum((1.0,))


def settle(graph: Graph, *, trusted: bool = False) -> None:
    """Check every node that rewrites made against the source, once; more rewrites may follow.

    Each kernel is computed for that, and is then at hand as the host will store it, for as long as there is
    room (`lazy.Shelf`); it can still be computed in float64.

    `trusted`: each rewrite was checked when it was made; then only the kernels are computed.

    Raises:
        Declined: a kernel does not fit its dtype, or computes something else.
    """
    provenance = graph.provenance
    for node in provenance.unchecked(graph.ordered()):
        value = node.outputs[0]
        precise = node.op
        held: list[Array] = []
        if isinstance(precise, Conv):
            precise = computed(precise, value, held)
            rounded = held[0].astype(np.float32) if value.dtype == "float32" else held[0]
            node.op = replace(precise, kernel=precise.kernel.holding(rounded))
        # A value that the source does not have is checked with its readers.
        if not provenance.redefined(value) and not trusted:
            made = behind(node, provenance)
            target = replace(expand(made), op=precise)
            compare({value: target}, provenance.behind(made), provenance, held)
        held.clear()
        provenance.check(node)


def check_application(graph: Graph, targets: Mapping[Value, Apply], sliced: Sequence[Node]) -> None:
    """Check one rewrite on its own, before it is made.

    Raises:
        Declined: a kernel does not fit its dtype, or the targets that others read than `sliced` differ.
    """
    for value, application in targets.items():
        for part in application.applications():
            if isinstance(part.op, Conv):
                require_numbers(part.op.weight, part.op.bias, value)
    seen = [value for value in targets if is_visible(value, sliced)]
    inner = {value: target for value, target in targets.items() if value not in seen}
    statements = [graph.provenance.statement(node) for node in sliced]
    compare({value: _inline(targets[value], inner) for value in seen}, statements, graph.provenance)


def check_equal(graph: Graph, value: Value, other: Value, sliced: Sequence[Node]) -> None:
    """Check that `other` has the elements of `value`, which `sliced` makes of it, before it stands for that.

    A value that the source does not have is checked with its readers.

    Raises:
        Declined: it has not.
    """
    provenance = graph.provenance
    if not provenance.redefined(value):
        compare({value: Apply(SAME, (other,))}, provenance.behind(sliced), provenance)


def computed(conv: Conv, value: Value, held: list[Array]) -> Conv:
    """The operator with its kernel computed, for as long as `held` has it, and its numbers checked."""
    held.append(conv.weight)
    require_numbers(held[0], conv.bias, value)
    return replace(conv, kernel=Lazy(conv.kernel.shape, lambda: held[0] if held else conv.weight))


def require_numbers(weight: Array, bias: Array, value: Value) -> None:
    """What an operator holds must be finite, and must be so in the dtype of the host as well."""
    dtype = "float32" if value.dtype in {None, "bfloat16"} else value.dtype
    largest = float(np.finfo(dtype or "float32").max)
    for name, array in (("weight", weight), ("bias", bias)):
        peak = max(float(array.max(initial=0.0)), -float(array.min(initial=0.0)))
        require(bool(np.isfinite(peak)), f"the {name} would hold {peak}")
        require(peak <= largest, f"the {name} overflows {value.dtype}: {peak:.6g} is more than {largest:.6g}")


def behind(node: Node, provenance: Provenance) -> list[Node]:
    """A made node, and before it those that lead to it from values that mean what they did in the source."""
    found = {node}
    stack = [node]
    while stack:
        read = (value for value in stack.pop().inputs if value is not None)
        makers = [value.producer for value in read if provenance.redefined(value)]
        fresh = [maker for maker in makers if maker is not None and maker not in found]
        found.update(fresh)
        stack.extend(fresh)
    return sorted(found, key=lambda node: node.position)


def expand(nodes: Sequence[Node]) -> Apply:
    """The last of `nodes` as an application to what the others do not make."""
    made: dict[Value, Apply] = {}
    for node in nodes:
        assert None not in node.inputs, "an operator that a rewrite made has all its inputs"
        inputs = tuple(made.get(value, value) for value in node.inputs if value is not None)
        made[node.outputs[0]] = Apply(node.op, inputs, extent=node.extent)
    return made[nodes[-1].outputs[0]]


def compare(
    targets: Mapping[Value, Apply],
    statements: Sequence[Statement],
    provenance: Provenance,
    held: list[Array] | None = None,
) -> None:
    """Evaluate the targets by `statements`, in order, and by their applications; the results must agree.

    `held` are kernels that the applications have at hand, and that are dropped once they have been used: a
    large one is not to lie beside those that it was made of.

    Small inputs of the check's own choice tell most; but what the applications read may depend on one another
    by the steps, or hold for the extents of the source alone. So before this says no, it looks again, with
    what the steps make, and then with those extents. Each look is a proof by itself.

    Raises:
        Declined: they differ, with both values, or cannot be compared.
    """
    reasons: list[Declined] = []
    for chained in (False, True):
        problem = _problem(targets, statements, provenance, chained=chained)
        for choose in _ways(problem):
            try:
                _compare(targets, problem, choose, held or [], chained=chained)
            except Declined as reason:
                reasons.append(reason)
            else:
                return
    raise reasons[0]


Choice = Callable[[int], Iterable[Trial]]


def _ways(problem: Problem) -> Iterator[Choice]:
    """Ways to choose extents: trials by how much they are enlarged."""
    # Extents with different names differ, unless the source cannot be evaluated so: then they are equal.
    apart = (True, False) if several(problem) else (False,)
    if problem.uniform:
        yield from (partial(alike, problem, apart=a) for a in apart)
    yield from (lambda _, a=a: exact(problem, apart=a) for a in apart)


def _problem(
    targets: Mapping[Value, Apply],
    statements: Sequence[Statement],
    provenance: Provenance,
    *,
    chained: bool,
) -> Problem:
    """`chained`: what the source makes of what the applications read is fed to these."""
    read = dict.fromkeys(leaf for target in targets.values() for leaf in target.leaves())
    made = {value for statement in statements for value in statement.outputs}
    chain = {leaf for leaf in read if leaf in made} if chained else set()
    leaves = {leaf for leaf in read if leaf not in chain}
    needed = supported(leading(statements, [*targets, *chain], leaves), leaves, provenance)
    made = {value for statement in needed for value in statement.outputs} - leaves
    inputs = dict.fromkeys(v for statement in needed for v in statement.inputs if v is not None)
    outside = dict.fromkeys((*(leaf for leaf in read if leaf in leaves), *inputs))
    fed = [value for value in outside if value not in made and value.constant is None]
    return Problem([part for target in targets.values() for part in target.applications()], needed, fed)


def _compare(
    targets: Mapping[Value, Apply], problem: Problem, choose: Choice, held: list[Array], *, chained: bool
) -> None:
    sides: list[tuple[Source, Rewritten]] = []
    failed: list[str] = []
    # A pool or a stride inside the region may leave nothing of a small input.
    for enlarged in (1, 2, 4, 8):
        sides = _run(targets, problem, choose(enlarged), held, chained=chained)
        failed = [source.failed for source, _ in sides if source.trial.needed and source.failed]
        if not failed or NOTHING not in failed[0]:
            break
    if failed:
        raise Declined(f"the region cannot be evaluated: {failed[0]}")
    rounded = any(statement.rounded for statement in problem.statements)
    tolerance = ROUNDING if rounded else TOLERANCE
    compared = [(source, rewritten) for source, rewritten in sides if not source.failed]
    assert compared, "no trial is needed"
    for source, rewritten in compared:
        require(not rewritten.refused, rewritten.refused)
        for value, target in targets.items():
            _require_equal(value, source.values[value], rewritten.values[target], tolerance)


def _run(
    targets: Mapping[Value, Apply],
    problem: Problem,
    trials: Iterable[Trial],
    held: list[Array],
    *,
    chained: bool,
) -> list[tuple[Source, Rewritten]]:
    """Evaluate both sides; without the chain the rewrite first, so that its kernel need not be kept."""
    sources = [Source(trial, set(problem.fed)) for trial in trials]
    rewritten = [Rewritten(source, linked=chained) for source in sources]
    read = {leaf for target in targets.values() for leaf in target.leaves()}
    if chained:
        interpret(problem.statements, sources, {*targets, *read})
    interpret(problem.applications, rewritten, set(targets.values()))
    held.clear()
    if not chained:
        interpret(problem.statements, sources, targets)
    return list(zip(sources, rewritten, strict=True))


def _inline(application: Apply, inner: Mapping[Value, Apply]) -> Apply:
    """The application with targets that only it sees put in their places."""
    inputs = tuple(
        _inline(inner[part] if isinstance(part, Value) else part, inner)
        if not isinstance(part, Value) or part in inner
        else part
        for part in application.inputs
    )
    return replace(application, inputs=inputs)


def _require_equal(value: Value, old: Array, new: Array, tolerance: float) -> None:
    require(old.shape == new.shape, f"{value.name}: the check gives shape {new.shape} instead of {old.shape}")
    old, new = np.asarray(old, dtype=np.float64), np.asarray(new, dtype=np.float64)
    scale = max(float(np.abs(old).max(initial=0.0)), float(np.finfo(np.float64).tiny))
    error = np.abs(old - new) / scale
    if not error.max(initial=0.0) <= tolerance:
        at = np.unravel_index(int(error.argmax()), old.shape)
        raise Declined(
            f"{value.name}: the check differs by {float(error[at]):.1e} of the output's scale: "
            f"{float(new[at]):.9g} instead of {float(old[at]):.9g} at {tuple(map(int, at))}"
        )

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
from fuser.ir.graph import Apply, Graph, Node, Step, Value
from fuser.ir.ops import Sum
from fuser.ir.replay import NOTHING, Trial, run_application, run_steps
from fuser.ir.support import supported
from fuser.validate.feeds import Problem, alike, exact, several

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
    for node in [node for node in graph.ordered() if node.origin and not node.checked]:
        value = node.outputs[0]
        precise = node.op
        held: list[Array] = []
        if isinstance(precise, Conv):
            precise = computed(precise, value, held)
            rounded = held[0].astype(np.float32) if value.dtype == "float32" else held[0]
            node.op = replace(precise, kernel=precise.kernel.holding(rounded))
        # A value that the source does not have is checked with its readers.
        if not value.redefined and not trusted:
            made = behind(node)
            target = replace(expand(made), op=precise)
            steps = [renamed(step, graph) for step in flatten(part.origin for part in made)]
            compare({value: target}, [step for step in steps if step is not None], held)
        held.clear()
        node.checked = True


def check_application(targets: Mapping[Value, Apply], region: Sequence[Node]) -> None:
    """Check one rewrite on its own, before it is made.

    Raises:
        Declined: a kernel does not fit its dtype, or the targets that others read than `region` differ.
    """
    for value, application in targets.items():
        for part in application.applications():
            if isinstance(part.op, Conv):
                require_numbers(part.op.weight, part.op.bias, value)
    members = set(region)
    seen = [v for v in targets if v.is_output or not v.users or not v.users.keys() <= members]
    inner = {value: target for value, target in targets.items() if value not in seen}
    compare({value: _inline(targets[value], inner) for value in seen}, [Step.of(node) for node in region])


def check_equal(graph: Graph, value: Value, other: Value, region: Sequence[Node]) -> None:
    """Check that `other` has the elements of `value`, which `region` makes of it, before it stands for that.

    A value that the source does not have is checked with its readers.

    Raises:
        Declined: it has not.
    """
    if value.redefined:
        return
    steps = [renamed(step, graph) for step in flatten(node.origin or Step.of(node) for node in region)]
    compare({value: Apply(SAME, (other,))}, [step for step in steps if step is not None])


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


def flatten(origin: Iterable[object]) -> list[Step]:
    """The steps of a tree of origins, each once, in graph order."""
    found: dict[Step, None] = {}
    seen: set[int] = set()
    stack = list(origin)
    while stack:
        part = stack.pop()
        if isinstance(part, Step):
            found[part] = None
        elif isinstance(part, tuple) and id(part) not in seen:
            seen.add(id(part))
            stack.extend(part)
    return sorted(found, key=lambda step: step.position)


def renamed(step: Step, graph: Graph) -> Step | None:
    """A step with the values that now stand for its own; None where it says that a value is itself."""
    if not graph.equal:
        return step
    inputs = tuple(None if value is None else graph.current(value) for value in step.inputs)
    outputs = tuple(graph.current(value) for value in step.outputs)
    return None if outputs[0] in inputs else replace(step, inputs=inputs, outputs=outputs)


def behind(node: Node) -> list[Node]:
    """A made node, and before it those that lead to it from values that mean what they did in the source."""
    found = {node}
    stack = [node]
    while stack:
        makers = [v.producer for v in stack.pop().inputs if v is not None and v.redefined]
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


def compare(targets: Mapping[Value, Apply], steps: Sequence[Step], held: list[Array] | None = None) -> None:
    """Evaluate the target values by `steps`, in order, and by their applications; the results must agree.

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
        problem = _problem(targets, steps, chained=chained)
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


def _problem(targets: Mapping[Value, Apply], steps: Sequence[Step], *, chained: bool) -> Problem:
    """`chained`: what the steps make of what the applications read is fed to these."""
    read = dict.fromkeys(leaf for target in targets.values() for leaf in target.leaves())
    made = {value for step in steps for value in step.outputs}
    chain = {leaf for leaf in read if leaf in made} if chained else set()
    leaves = {leaf for leaf in read if leaf not in chain}
    region = supported(_needed([*targets, *chain], steps, leaves), leaves)
    made = {value for step in region for value in step.outputs} - leaves
    inputs = dict.fromkeys(v for step in region for v in step.inputs if v is not None)
    outside = dict.fromkeys((*(leaf for leaf in read if leaf in leaves), *inputs))
    fed = [value for value in outside if value not in made and value.constant is None]
    return Problem([part for target in targets.values() for part in target.applications()], region, fed)


def _compare(
    targets: Mapping[Value, Apply], problem: Problem, choose: Choice, held: list[Array], *, chained: bool
) -> None:
    trials: list[Trial] = []
    failed: list[str] = []
    # A pool or a stride inside the region may leave nothing of a small input.
    for enlarged in (1, 2, 4, 8):
        trials = list(choose(enlarged))
        _run(targets, problem, trials, held, chained=chained)
        failed = [trial.failed for trial in trials if trial.needed and trial.failed]
        if not failed or NOTHING not in failed[0]:
            break
    if failed:
        raise Declined(f"the region cannot be evaluated: {failed[0]}")
    rounded = any(step.rounded for step in problem.steps)
    tolerance = ROUNDING if rounded else TOLERANCE
    compared = [trial for trial in trials if not trial.failed]
    assert compared, "no trial is needed"
    for trial in compared:
        require(not trial.refused, trial.refused)
        for value, target in targets.items():
            _require_equal(value, trial.made[value], trial.rewritten[target], tolerance)


def _run(
    targets: Mapping[Value, Apply],
    problem: Problem,
    trials: Sequence[Trial],
    held: list[Array],
    *,
    chained: bool,
) -> None:
    """Evaluate both sides; without the chain the rewrite first, so that its kernel need not be kept."""
    fed = set(problem.fed)
    if chained:
        run_steps(problem.steps, fed, trials)
    for target in targets.values():
        run_application(target, trials, linked=chained)
    held.clear()
    if not chained:
        run_steps(problem.steps, fed, trials)


def _inline(application: Apply, inner: Mapping[Value, Apply]) -> Apply:
    """The application with targets that only it sees put in their places."""
    inputs = tuple(
        _inline(inner[part] if isinstance(part, Value) else part, inner)
        if not isinstance(part, Value) or part in inner
        else part
        for part in application.inputs
    )
    return replace(application, inputs=inputs)


def _needed(targets: Iterable[Value], steps: Sequence[Step], leaves: set[Value]) -> list[Step]:
    """The steps that lead from the leaves to the targets; what is constant has no need of any."""
    makers = {value: step for step in steps for value in step.outputs}
    found: dict[Step, None] = {}
    stack = list(targets)
    while stack:
        step = makers.get(stack.pop())
        if step is not None and step not in found:
            found[step] = None
            read = (value for value in step.inputs if value is not None and value.constant is None)
            stack.extend(value for value in read if value not in leaves)
    return [step for step in steps if step in found]


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

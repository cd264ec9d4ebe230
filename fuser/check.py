"""Is what a rewrite made right? Its numbers fit the dtype, and it computes what it replaced.

Two affine maps that agree on a generic input are equal (those where they agree by chance have measure zero).
So one random input in float64, a little larger than the kernel so that both interior and border are seen,
decides. The region before is what the nodes were in the source; how many rewrites lie in between does not
matter.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from math import gcd, lcm, prod
from typing import Final

import numpy as np

from fuser.conv import Conv
from fuser.errors import Declined, require
from fuser.ir import Apply, Concat, Graph, Node, Op, Reshape, Step, Value
from fuser.lazy import Array, Lazy

# Relative to the largest output: far above float64 rounding, far below any mistake in a kernel.
TOLERANCE: Final = 1e-9

# Elements of an input that a region is tried on at its own extents, should it fail on smaller ones.
LARGEST_TRIAL: Final = 1 << 18

Feed = Callable[[Value], Array]


def check_graph(graph: Graph, *, trusted: bool = False) -> None:
    """Check every node that rewrites made against the source, and compute its kernel, once.

    `trusted`: each rewrite was checked when it was made; then only the kernels are computed.

    Raises:
        Declined: a kernel does not fit its dtype, or computes something else.
    """
    settle(graph, trusted=trusted)
    for node in graph.nodes:
        if node.origin and isinstance(node.op, Conv):
            node.op = stored(node.op)


def settle(graph: Graph, *, trusted: bool = False) -> None:
    """The same where more rewrites may follow.

    Each kernel is then at hand as the host will store it, and can still be computed in float64.

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


def computed(conv: Conv, value: Value, held: list[Array]) -> Conv:
    """The operator with its kernel computed, for as long as `held` has it, and its numbers checked."""
    held.append(conv.weight)
    require_numbers(held[0], conv.bias, value)
    return replace(conv, kernel=Lazy(conv.kernel.shape, lambda: held[0] if held else conv.weight))


def stored(conv: Conv) -> Conv:
    """The operator with its kernel as it is at hand, without what it was computed from: half the memory."""
    weight = conv.kernel.peek()
    return replace(conv, kernel=Lazy(weight.shape, lambda: weight.astype(np.float64), held=lambda: weight))


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
    what the steps make, and then with those extents.

    Raises:
        Declined: they differ, with both values, or cannot be compared.
    """
    reasons: list[Declined] = []
    for chained, own in ((False, False), (True, False), (True, True)):
        try:
            _compare(targets, steps, held or [], chained=chained, own=own)
        except Declined as reason:
            reasons.append(reason)
        else:
            return
    raise reasons[0]


def _compare(
    targets: Mapping[Value, Apply], steps: Sequence[Step], held: list[Array], *, chained: bool, own: bool
) -> None:
    """`chained`: what the steps make of what the applications read is fed to these. `own`: at own extents."""
    read = {leaf for target in targets.values() for leaf in target.leaves()}
    chain = read & {value for step in steps for value in step.outputs} if chained else set()
    leaves = read - chain
    region = _needed([*targets, *chain], steps, leaves)
    applications = [part for target in targets.values() for part in target.applications()]
    pairs: list[tuple[Value, Array, Array]] = []
    # A pool or a stride inside the region may leave nothing of a small input.
    for enlarged in (1, 2, 4, 8):
        feed = _feed(_own_shapes(region, leaves) if own else _shapes(applications, region, enlarged))
        try:
            linked = _evaluate_steps(region, feed, leaves) if chain else {}
            after = {value: _evaluate(target, feed, linked) for value, target in targets.items()}
            held.clear()
            before = linked or _evaluate_steps(region, feed, leaves)
            pairs = [(value, before[value], after[value]) for value in targets]
        except (ValueError, IndexError, KeyError) as error:
            raise Declined(f"the region cannot be evaluated: {error}") from error
        if all(old.size for _, old, _ in pairs):
            break
    for value, old, new in pairs:
        _require_equal(value, old, new)


def apply(op: Op, inputs: Sequence[Array | None]) -> tuple[Array, ...]:
    """The outputs of any operator, computed directly."""
    if op.evaluate is None:
        raise Declined(f"{op} cannot be evaluated")
    if isinstance(op, Concat):
        inputs = _with_channels(inputs, op.axis)
    result = op.evaluate(*inputs)  # type: ignore[arg-type]  # only an Opaque has absent inputs
    return result if isinstance(result, tuple) else (result,)


def _with_channels(parts: Sequence[Array | None], axis: int) -> list[Array | None]:
    """The parts of a concatenation; a scalar, a value that only this reads, is one channel beside them."""
    shape = next((list(part.shape) for part in parts if part is not None and part.ndim), [])
    if shape:
        shape[axis] = 1
    return [np.broadcast_to(part, shape) if part is not None and not part.ndim else part for part in parts]


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
    """The steps that lead from the leaves to the targets."""
    makers = {value: step for step in steps for value in step.outputs}
    found: dict[Step, None] = {}
    stack = list(targets)
    while stack:
        step = makers.get(stack.pop())
        if step is not None and step not in found:
            found[step] = None
            stack.extend(value for value in step.inputs if value is not None and value not in leaves)
    return [step for step in steps if step in found]


def _feed(shapes: Mapping[Value, tuple[int, ...]]) -> Feed:
    """Random data for each value from outside, the same at each look; what only sums read is a scalar."""
    generator = np.random.default_rng(0)
    fed: dict[Value, Array] = {}

    def feed(value: Value) -> Array:
        if value not in fed:
            random = np.asarray(generator.standard_normal(shapes.get(value, ())))
            fed[value] = random if value.constant is None else value.constant.lazy()
        return fed[value]

    return feed


def _evaluate_steps(steps: Sequence[Step], feed: Feed, leaves: set[Value]) -> dict[Value, Array]:
    made: dict[Value, Array] = {}
    for step in steps:
        inputs = [
            None if v is None else made[v] if v in made and v not in leaves else feed(v) for v in step.inputs
        ]
        made.update(zip(step.outputs, apply(step.op, inputs), strict=False))
    return made


def _evaluate(application: Apply, feed: Feed, linked: Mapping[Value, Array]) -> Array:
    made: dict[Value | Apply, Array] = {value: array for value, array in linked.items()}  # noqa: C416  # widens the key
    for part in application.applications():
        inputs = [feed(v) if isinstance(v, Value) and v not in made else made[v] for v in part.inputs]
        made[part] = apply(part.op, inputs)[0]
    return made[application]


def _require_equal(value: Value, old: Array, new: Array) -> None:
    require(old.shape == new.shape, f"{value.name}: the check gives shape {new.shape} instead of {old.shape}")
    scale = max(float(np.abs(old).max(initial=0.0)), float(np.finfo(np.float64).tiny))
    error = np.abs(old - new) / scale
    if not error.max(initial=0.0) <= TOLERANCE:
        at = np.unravel_index(int(error.argmax()), old.shape)
        raise Declined(
            f"{value.name}: the check differs by {float(error[at]):.1e} of the output's scale: "
            f"{float(new[at]):.9g} instead of {float(old[at]):.9g} at {tuple(map(int, at))}"
        )


def _shapes(
    applications: Sequence[Apply], region: Sequence[Step], enlarged: int
) -> dict[Value, tuple[int, ...]]:
    """A shape for each value from outside that reaches a convolution, through other operators too."""
    convs = [op for op in (*(a.op for a in applications), *(s.op for s in region)) if isinstance(op, Conv)]
    given = next((part.extent for part in applications if part.extent), None)
    shapes: dict[Value | Apply, tuple[int, ...]] = {}
    edges: list[tuple[Op, Sequence[Value | Apply | None], Value | Apply]]
    edges = [(step.op, step.inputs, step.outputs[0]) for step in region]
    edges += [(part.op, part.inputs, part) for part in applications]
    sizes = [prod(op.shape) for op, *_ in edges if isinstance(op, Reshape)]
    for value in (part for _, inputs, _ in edges for part in inputs if isinstance(part, Value)):
        # A reshape is for one extent, and so is then all that leads to it.
        extents = [dim for dim in (value.shape or ())[1:] if isinstance(dim, int)]
        if sizes and value.shape and len(extents) == len(value.shape) - 1:
            shapes[value] = (_batch(extents, sizes), *extents)
    for op, inputs, output in reversed(edges):
        for part in inputs:
            if part is None:
                continue
            if isinstance(op, Conv):
                shapes.setdefault(part, _shape(op, convs, given, enlarged))
            elif output in shapes:
                shapes.setdefault(part, shapes[output])
    return {value: shape for value, shape in shapes.items() if isinstance(value, Value)}


def _own_shapes(region: Sequence[Step], leaves: Iterable[Value]) -> dict[Value, tuple[int, ...]]:
    """The shapes that the source states, of two samples where it does not say how many.

    Raises:
        Declined: it does not say, or they are too large to try.
    """
    shapes: dict[Value, tuple[int, ...]] = {}
    for value in dict.fromkeys((*leaves, *(v for step in region for v in step.inputs if v is not None))):
        batch, *extents = value.shape or (None,)
        known = tuple(dim for dim in extents if isinstance(dim, int))
        require(
            value.shape is not None and len(known) == len(extents),
            f"the shape of {value.name!r} is not known",
        )
        shapes[value] = (batch if isinstance(batch, int) else 2, *known) if value.shape else ()
        size = prod(shapes[value])
        require(size <= LARGEST_TRIAL, f"{value.name!r} has {size} elements, more than {LARGEST_TRIAL}")
    return shapes


def _batch(extents: Sequence[int], sizes: Sequence[int]) -> int:
    """The least batch of samples of `extents` whose elements come out as rows of each of `sizes`."""
    return lcm(*(size // gcd(size, prod(extents)) for size in sizes))


def _shape(op: Conv, convs: Sequence[Conv], given: tuple[int, ...] | None, enlarged: int) -> tuple[int, ...]:
    if op.axis == -1:
        return (3, op.inputs)
    if given is not None:
        return (1, op.inputs, *given)
    # One more on each further axis, so that swapped axes do not pass for right.
    peers = [conv for conv in (*convs, op) if conv.rank == op.rank]
    extents = (
        enlarged
        * max(d * (k - 1) + 1 + s for c in peers for k, d, s in [(c.size[i], c.dilation[i], c.stride[i])])
        + i
        for i in range(op.rank)
    )
    return (1, op.inputs, *extents)

"""A numeric check of one rewrite at the moment when it is made: the region before against the region after.

Two affine maps that agree on a generic input are equal (those where they agree by chance have measure zero), so one random
input in float64, a little larger than the kernel so that both interior and border are seen, decides.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np

from fuser.conv import Conv
from fuser.errors import Declined
from fuser.ir import Apply, Node, Op, Value
from fuser.lazy import Array

# Relative to the largest output: far above float64 rounding, far below any mistake in a kernel.
TOLERANCE: Final = 1e-9


Feed = Callable[[Value], Array]


def probe(targets: Mapping[Value, Apply], region: Sequence[Node]) -> None:
    """Check that every target value is computed by its application as `region` (in order) computes it.

    A target that only the region reads may change; what others read may not.

    Raises:
        Declined: the two differ, with the values of both, or they cannot be compared.
    """
    applications = [part for target in targets.values() for part in target.applications()]
    # A pool or a stride inside the region may leave nothing of a small input.
    for enlarged in (1, 2, 4, 8):
        feed = _feed(_shapes(applications, region, enlarged))
        try:
            before = _evaluate_region(region, feed)
            after = _evaluate_targets(targets, feed)
            pairs = [(value, before[value], after[value]) for value in targets if _visible(value, region)]
        except ValueError as error:
            raise Declined(f"the probe cannot evaluate the region: {error}") from error
        if all(old.size for _, old, _ in pairs):
            break
    for value, old, new in pairs:
        _compare(value, old, new)


def _visible(value: Value, region: Sequence[Node]) -> bool:
    return value.is_output or not value.users or not value.users.keys() <= set(region)


def _feed(shapes: Mapping[Value, tuple[int, ...]]) -> Feed:
    """Random data for each value from outside, the same at each look; a term that only sums read is a scalar."""
    generator = np.random.default_rng(0)
    fed: dict[Value, Array] = {}

    def feed(value: Value) -> Array:
        if value not in fed:
            fed[value] = np.asarray(generator.standard_normal(shapes.get(value, ())))
        return fed[value]

    return feed


def _evaluate_region(region: Sequence[Node], feed: Feed) -> dict[Value, Array]:
    known: dict[Value, Array] = {}
    for node in region:
        inputs = [None if v is None else known[v] if v in known else feed(v) for v in node.inputs]
        known.update(zip(node.outputs, apply(node.op, inputs), strict=False))
    return known


def _evaluate_targets(targets: Mapping[Value, Apply], feed: Feed) -> dict[Value, Array]:
    """The targets, each behind those that it reads."""
    known: dict[Value, Array] = {}

    def look(value: Value) -> Array:
        if value not in targets:
            return feed(value)
        if value not in known:
            known[value] = _evaluate(targets[value], look)
        return known[value]

    return {value: look(value) for value in targets}


def _evaluate(application: Apply, feed: Feed) -> Array:
    inputs = [feed(part) if isinstance(part, Value) else _evaluate(part, feed) for part in application.inputs]
    return apply(application.op, inputs)[0]


def apply(op: Op, inputs: Sequence[Array | None]) -> tuple[Array, ...]:
    """The outputs of any operator, computed directly."""
    if op.evaluate is None:
        raise Declined(f"{op} cannot be evaluated")
    result = op.evaluate(*inputs)  # type: ignore[arg-type]  # only an Opaque has absent inputs
    return result if isinstance(result, tuple) else (result,)


def _compare(value: Value, old: Array, new: Array) -> None:
    if old.shape != new.shape:
        raise Declined(f"{value.name}: the probe gives shape {new.shape} instead of {old.shape}")
    scale = max(float(np.abs(old).max(initial=0.0)), np.finfo(np.float64).tiny)
    error = np.abs(old - new) / scale
    if not error.max(initial=0.0) <= TOLERANCE:
        at = np.unravel_index(int(error.argmax()), old.shape)
        raise Declined(
            f"{value.name}: the probe differs by {float(error[at]):.1e} of the output's scale: "
            f"{float(new[at]):.9g} instead of {float(old[at]):.9g} at {tuple(map(int, at))}"
        )


def _shapes(applications: Sequence[Apply], region: Sequence[Node], enlarged: int) -> dict[Value, tuple[int, ...]]:
    """A shape for every value from outside that reaches a convolution, through sums and elementwise operators too."""
    convs = [part.op for part in applications if isinstance(part.op, Conv)]
    given = next((part.extent for part in applications if part.extent), None)
    shapes: dict[Value | Apply, tuple[int, ...]] = {}
    edges: list[tuple[Op, Sequence[Value | Apply | None], Value | Apply]]
    edges = [(node.op, node.inputs, node.outputs[0]) for node in region]
    edges += [(part.op, part.inputs, part) for part in applications]
    for op, inputs, output in reversed(edges):
        for part in inputs:
            if part is None:
                continue
            if isinstance(op, Conv):
                shapes.setdefault(part, _shape(op, convs, given, enlarged))
            elif output in shapes:
                shapes.setdefault(part, shapes[output])
    return {value: shape for value, shape in shapes.items() if isinstance(value, Value)}


def _shape(op: Conv, convs: Sequence[Conv], given: tuple[int, ...] | None, enlarged: int) -> tuple[int, ...]:
    if op.axis == -1:
        return (3, op.inputs)
    if given is not None:
        return (1, op.inputs, *given)
    # One more on each further axis, so that a transposed kernel or swapped axes do not pass for right.
    peers = [conv for conv in (*convs, op) if conv.rank == op.rank]
    extents = (
        enlarged * max(d * (k - 1) + 1 + s for c in peers for k, d, s in [(c.size[i], c.dilation[i], c.stride[i])]) + i
        for i in range(op.rank)
    )
    return (1, op.inputs, *extents)

"""Lifting what only its meaning shows to be a convolution: borders written by index, shuffles, crops, in any spelling.

A node is lifted together with the nodes before it, as far as all of them are affine in the data: it becomes the convolution
that the region computes, of the region's one source. What the region's shapes, indices and masks are computed from are
constants and extents, no data; so it can be evaluated on small inputs, and `recognise` says what it is. As with any lifted
node, the host keeps its own nodes as long as no rewrite takes the convolution further.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fuser.conv import Conv, Ints
from fuser.errors import Declined
from fuser.extents import Binding
from fuser.ir import Apply, Concat, Constant, Dim, Node, Opaque, Select, Sum, Value
from fuser.recognise import recognise, snap

LARGEST_PATH: Final = 64
"""Nodes of a region that carry data. The largest known border has 20."""

LARGEST_REGION: Final = 1024
"""Nodes of a region in all. The legacy exporter writes 250 for one border."""

LARGEST_INPUT: Final = 1 << 22
"""Elements of an input that a region is evaluated on."""

LARGEST_BOUND: Final = 1 << 10
"""An integer in the graph may cut an axis off there; extents beyond it must be tried, and these are not."""

ENDLESS: Final = 1 << 30
"""Integers from here on mean 'to the end'."""

FLOATS: Final = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
"""Spacing of the numbers of a dtype at 1."""

Lift = Callable[[Node], Apply | Constant | None]
Env = dict[Value, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Region:
    """The nodes, in order, that make the root's first output from `source`; `free` ones carry no data."""

    root: Node
    source: Value
    path: tuple[Node, ...]
    free: tuple[Node, ...]

    @property
    def nodes(self) -> list[Node]:
        """All of them, in graph order."""
        return sorted(dict.fromkeys((*self.path, *self.free)), key=lambda node: node.position)

    def constants(self) -> Iterator[Constant]:
        """The constants that shapes, indices and masks are made of, and the values written."""
        for node in (*self.path, *self.free):
            for value in node.inputs:
                if value is not None and value.constant is not None:
                    yield value.constant


@dataclass(eq=False)
class Regions:
    """Finds and lifts the regions of one model. Each is looked at once."""

    _free: dict[Value, bool] = field(default_factory=dict)
    _found: dict[Node, Conv | Declined | None] = field(default_factory=dict)
    _regions: dict[Node, Region | None] = field(default_factory=dict)

    def lifting(self, rule: Lift | None) -> Lift:
        """`rule`, and where it gives nothing, the meaning of the node and of what is before it."""

        def lift(node: Node) -> Apply | Constant | None:
            refused: Declined | None = None
            try:
                lifted = rule(node) if rule is not None else None
            except Declined as reason:
                lifted, refused = None, reason
            if lifted is None:
                lifted = self.lift(node)
            if lifted is None and refused is not None:
                raise refused
            return lifted

        return lift

    def lift(self, node: Node) -> Apply | None:
        """The convolution that `node` computes of a value before it; None where there is none, or it is not yet time.

        Raises:
            Declined: it is almost one, with what differs.
        """
        if len(node.outputs) != 1 or node.outputs[0].dtype not in FLOATS or not self._ends(node):
            return None
        if node not in self._found:
            self._regions[node], self._found[node] = self._examine(node)
        region, found = self._regions[node], self._found[node]
        if isinstance(found, Declined):
            raise found
        if found is None or region is None or not _absorbable(found, region):
            return None
        maker = region.source.producer
        if maker is not None and isinstance(maker.op, Conv) and not maker.op.transposed:
            found = _continued(found, maker.op, FLOATS[node.outputs[0].dtype])
        return Apply(found, (region.source,), "recognised")

    def _examine(self, node: Node) -> tuple[Region | None, Conv | Declined | None]:
        reason: Declined | None = None
        for region in self._candidates(node):
            try:
                found = _meaning(region)
            except Declined as refused:
                reason = reason or refused
            else:
                if found is not None:
                    return region, found
        return None, reason

    # The region.

    def _ends(self, node: Node) -> bool:
        """Whether somebody reads the node who is not a further part of the region."""
        value = node.outputs[0]
        return value.is_output or any(not self._continues(user, value) for user in value.users)

    def _continues(self, user: Node, value: Value) -> bool:
        if isinstance(user.op, Sum | Concat | Select):
            return any(self._continues(further, v) for v in user.outputs for further in v.users)
        if not isinstance(user.op, Opaque) or value not in user.inputs:
            return True
        return user.op.of_shape or (bool(user.op.linear) and self._carriers(user) == {value})

    def _carriers(self, node: Node) -> set[Value]:
        return {value for value in node.inputs if value is not None and not self._is_free(value)}

    def _candidates(self, root: Node) -> Iterator[Region]:
        """Regions that end in `root`, for one or two sources: the farthest first, then the nearest."""
        steps = [step for step in self._walk(root) if _comparable(step[0], root.outputs[0])]
        for source, path in dict.fromkeys((*steps[-1:], *steps[:1])):
            free = self._support(source, path)
            if free is not None:
                yield Region(root, source, path, free)

    def _walk(self, root: Node) -> Iterator[tuple[Value, tuple[Node, ...]]]:
        """Each single value that all data comes through, on the way up, with the nodes behind it."""
        path: dict[Node, None] = {}
        front = dict.fromkeys(root.outputs)
        while len(path) < LARGEST_PATH:
            value = max(front, key=lambda v: v.producer.position if v.producer is not None else ())
            node = value.producer
            if node is None or not self._affine(node):
                return
            path[node] = None
            front = {v: None for v in front if v.producer is not node}
            front.update(dict.fromkeys(v for v in node.inputs if v is not None and not self._is_free(v)))
            if len(front) == 1:
                yield next(iter(front)), tuple(path)

    def _affine(self, node: Node) -> bool:
        """Whether the node is affine in its data, and only moves it or does so position by position."""
        op = node.op
        if isinstance(op, Opaque):
            data = frozenset(i for i, v in enumerate(node.inputs) if v is not None and not self._is_free(v))
            return op.evaluate is not None and bool(data) and any(data <= inputs for inputs in op.linear)
        if isinstance(op, Conv):
            return op.depthwise and not op.transposed and all(k == 1 for k in op.size) and not op.pointwise
        return True

    def _is_free(self, value: Value) -> bool:
        """Whether the value is a function of constants and extents alone."""
        stack = [value]
        while stack:
            top = stack[-1]
            known = self._known_free(top)
            if known is None:
                assert top.producer is not None
                waiting = [v for v in top.producer.inputs if v is not None and self._known_free(v) is None]
                if waiting and not any(v is not None and self._known_free(v) is False for v in top.producer.inputs):
                    stack.append(waiting[0])
                    continue
                known = all(v is None or self._known_free(v) for v in top.producer.inputs)
            self._free[top] = known
            stack.pop()
        return self._free[value]

    def _known_free(self, value: Value) -> bool | None:
        if value.constant is not None:
            return True
        if value in self._free:
            return self._free[value]
        node = value.producer
        if node is None or node.op.evaluate is None or isinstance(node.op, Conv):
            return False
        if isinstance(node.op, Opaque) and node.op.of_shape:
            return True
        return None if node.inputs else False

    def _support(self, source: Value, path: Sequence[Node]) -> tuple[Node, ...] | None:
        """The nodes that make what `path` reads besides `source`; None where something cannot be had."""
        binding = Binding.of(source.shape or ())
        made = {source, *(v for node in path for v in node.outputs)}
        found: dict[Node, None] = {}
        stack = [value for node in path for value in node.inputs if value is not None]
        while stack:
            value = stack.pop()
            node = value.producer
            if value in made or value.constant is not None or (node is not None and node in found):
                continue
            if node is None or node.op.evaluate is None or len(found) >= LARGEST_REGION:
                return None
            found[node] = None
            for read in node.inputs:
                by_shape = isinstance(node.op, Opaque) and node.op.of_shape and read is not None
                if read is not None and not (by_shape and binding.covers(read.shape)):
                    stack.append(read)
        return tuple(found)


def _comparable(source: Value, result: Value) -> bool:
    """Whether both are images: equally many axes, at least one of them spatial, channels known, one batch."""
    if source.shape is None or result.shape is None or source.dtype != result.dtype or len(source.shape) < 3:
        return False
    known = isinstance(source.shape[1], int) and isinstance(result.shape[1], int)
    return known and len(source.shape) == len(result.shape) and _may_equal(source.shape[0], result.shape[0])


def _may_equal(a: Dim, b: Dim) -> bool:
    return a == b or not (isinstance(a, int) and isinstance(b, int))


def _meaning(region: Region) -> Conv | None:
    """What the region computes, for every extent that its source may have."""
    shapes = list(_shapes(region))

    def function(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return _evaluate(region, x)

    try:
        return recognise(function, shapes)
    except (ValueError, IndexError, TypeError) as error:
        raise Declined(f"the region from {region.source.name!r} on cannot be evaluated: {error}") from error


def _shapes(region: Region) -> Iterator[Ints]:
    """Input shapes to try: the one that it has, or where extents are free, small and large, odd and even ones."""
    shape = region.source.shape or ()
    if all(isinstance(dim, int) for dim in shape[2:]):
        trials: list[list[int]] = [[0] * len(shape)]
    else:
        # A number in the graph may act only beyond some extent: x[:, :, :32] changes nothing that is smaller.
        bound = max((_largest(constant) for constant in region.constants()), default=0)
        if bound > LARGEST_BOUND:
            raise Declined(f"the graph has the number {bound}, and extents beyond {LARGEST_BOUND} are not tried")
        trials = [[2, 0, *(8 + 3 * axis for axis in range(len(shape) - 2))]]
        for axis in range(len(shape) - 2):
            if not isinstance(shape[axis + 2], int):
                trials.append([3 - axis % 2, 0, *(bound + 5 if a == axis else 5 + 2 * a for a in range(len(shape) - 2))])
    for wanted in trials:
        made = Binding.of(shape).bound(wanted).shape(shape)
        if prod(made) > LARGEST_INPUT:
            raise Declined(f"an input of {made} is too large to try, with more than {LARGEST_INPUT} elements")
        yield made


def _largest(constant: Constant) -> int:
    """The largest position that an integer, or a lone number, may stand for."""
    whole = constant.dtype.startswith(("int", "uint"))
    if not whole and constant.size != 1:
        return 0
    values = np.abs(np.asarray(constant.array(), dtype=np.float64))
    return int(values[values < ENDLESS].max(initial=0.0))


def _evaluate(region: Region, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """The root's output for `x` as the source, computed directly in float64."""
    binding = Binding.of(region.source.shape or ()).to(x.shape)
    nodes = region.nodes
    env: Env = {region.source: x}
    last = {value: node for node in nodes for value in node.inputs if value is not None}
    for node in nodes:
        inputs = [None if v is None else _operand(v, env, binding) for v in node.inputs]
        assert node.op.evaluate is not None, "only such nodes are part of a region"
        made = inputs[:1] if _nothing(node) else node.op.evaluate(*inputs)  # type: ignore[arg-type]  # absent ones
        env.update(zip(node.outputs, made if isinstance(made, (tuple, list)) else (made,), strict=False))
        for value in node.inputs:
            if value is not None and last[value] is node:
                env.pop(value, None)
    return np.asarray(env[region.root.outputs[0]], dtype=np.float64)


def _nothing(node: Node) -> bool:
    """A sum of one term returns it as it is, integers as integers."""
    return isinstance(node.op, Sum) and node.op.neutral


def _operand(value: Value, env: Env, binding: Binding) -> NDArray[Any]:
    if value in env:
        return env[value]
    if value.constant is not None:
        array = np.asarray(value.constant.array())
        return array.astype(np.float64) if value.constant.dtype in FLOATS else array
    # Only its shape is looked at.
    return np.broadcast_to(np.zeros(1), binding.shape(value.shape or ()))


def _continued(found: Conv, inner: Conv, epsilon: float) -> Conv:
    """The padding with what `inner` continues with, where that is its value but for rounding."""
    if found.rank != inner.rank or not found.reads_outside or found.inputs != inner.outputs:
        return found
    return snap(found, inner.bias + inner.respond(inner.pad_value), epsilon)


def _absorbable(conv: Conv, region: Region) -> bool:
    """Whether a neighbour may take the operator in without growing: what is dense must not stand for moved data.

    A permutation costs a copy where it stands, and as much as a 1x1 convolution in the books. So it is lifted only where a
    dense convolution beside it takes it in for nothing.
    """
    if conv.depthwise:
        return True
    if conv.outputs != conv.inputs * prod(conv.size) or conv.size != conv.stride or any(conv.begin + conv.end):
        return False
    members = set(region.nodes)
    maker = region.source.producer
    inside = all(user in members for node in region.path if node is not region.root for user in _users(node))
    if maker is not None and isinstance(maker.op, Conv):
        alone = inside and members.issuperset(region.source.users) and not region.source.is_output
        return _dense(maker.op) and alone and prod(conv.size) == 1
    users = region.root.outputs[0].users
    plain = maker is None or isinstance(maker.op, Opaque)
    return plain and bool(users) and all(isinstance(user.op, Conv) and _dense(user.op) for user in users)


def _users(node: Node) -> Iterator[Node]:
    for value in node.outputs:
        yield from value.users


def _dense(conv: Conv) -> bool:
    return conv.groups == 1 and not conv.transposed



"""Lifting what only its meaning shows to be a convolution: borders, shuffles and crops in any spelling.

A node is lifted together with the nodes before it, as far as all of them are affine in the data: it becomes
the convolution that the region computes, of the region's one source. What the region's shapes, indices and
masks are computed from are constants and extents, no data; so it can be evaluated on small inputs, and
`recognise` says what it is. As with any lifted node, the host keeps its own nodes as long as no rewrite takes
the convolution further.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Final

from fuser.algebra.conv import Conv
from fuser.errors import Declined
from fuser.ir.extents import Binding, Dim
from fuser.ir.node import Apply, Node, Value
from fuser.ir.ops import operation
from fuser.ir.provenance import ROUNDED, Provenance
from fuser.ir.slices import LARGEST_PATH, LARGEST_SLICE, backward, computed
from fuser.recognise.recognise import snap
from fuser.recognise.trials import Region, meaning

SPACING: Final = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
"""Spacing of the numbers of a dtype at 1."""

ALONE: Final = frozenset({0})


@dataclass(eq=False)
class Regions:
    """Finds the regions of one graph, and what they are. Each is looked at once."""

    provenance: Provenance
    _free: dict[Value, bool] = field(default_factory=dict)
    _found: dict[Node, Conv | Declined | None] = field(default_factory=dict)
    _regions: dict[Node, Region | None] = field(default_factory=dict)

    def lift(self, node: Node) -> Apply | None:
        """The convolution that `node` computes of a value before it; None where there is none (or not yet).

        Raises:
            Declined: it is almost one, with what differs.
        """
        value = node.outputs[0]
        spacing = SPACING.get(value.dtype or "")
        if spacing is None or len(node.outputs) != 1 or self._is_free(value) or not self._ends(node):
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
            continued = _continued(found, maker.op, spacing)
            if continued is not found:
                return Apply(continued, (region.source,), ROUNDED)
        return Apply(found, (region.source,), "recognised")

    def _examine(self, node: Node) -> tuple[Region | None, Conv | Declined | None]:
        reason: Declined | None = None
        for region in self._candidates(node):
            try:
                found = meaning(region)
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

    def _continues(self, user: Node, value: Value, depth: int = 4) -> bool:
        """Whether a region that ends in `value` would go on in `user`."""
        op = operation(user.op)
        if value not in user.inputs or op.of_shape or op.rigid:
            return True
        if op.opaque:
            return bool(op.linear) and self._carriers(user) == {value}
        return (
            op.moves(ALONE)
            and depth > 0
            and any(self._continues(n, v, depth - 1) for v in user.outputs for n in v.users)
        )

    def goes_on(self, reshape: Node) -> bool:
        """Whether a region that ends in a reshape has more than reshapes: alone they are no convolution."""
        maker: Node | None = reshape
        while maker is not None and (maker is reshape or operation(maker.op).rigid):
            value = maker.inputs[0]
            maker = None if value is None else value.producer
        return maker is not None and self._affine(maker)

    def _carriers(self, node: Node) -> set[Value]:
        return {value for value in node.inputs if value is not None and not self._is_free(value)}

    def _candidates(self, root: Node) -> Iterator[Region]:
        """Regions that end in `root`, for one or two sources: the farthest first, then the nearest."""
        result = root.outputs[0]
        steps = [(v, path) for v, path in self._walk(root) if _comparable(v, result) and _moving(path)]
        for source, path in dict.fromkeys((*steps[-1:], *steps[:1])):
            free = self._support(source, path)
            if free is not None:
                yield Region(root, source, path, free, self.provenance)

    def _walk(self, root: Node) -> Iterator[tuple[Value, tuple[Node, ...]]]:
        """Each single value that all data comes through, on the way up, with the nodes behind it."""
        path: dict[Node, None] = {}
        front = dict.fromkeys(root.outputs)
        while front and len(path) < LARGEST_PATH:
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
        op = operation(node.op)
        if not op.opaque:
            return op.moves(ALONE)
        return op.moves(
            frozenset(i for i, v in enumerate(node.inputs) if v is not None and not self._is_free(v))
        )

    def _is_free(self, value: Value) -> bool:
        """Whether the value is a function of constants and extents alone."""
        stack = [value]
        while stack:
            top = stack[-1]
            known = self._known_free(top)
            if known is None:
                assert top.producer is not None
                waiting = [v for v in top.producer.inputs if v is not None and self._known_free(v) is None]
                if waiting and not any(
                    v is not None and self._known_free(v) is False for v in top.producer.inputs
                ):
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
        if node is None or node.op.evaluate is None or operation(node.op).has_kernel:
            return False
        if operation(node.op).of_shape:
            return True
        return None if node.inputs else False

    def _support(self, source: Value, path: Sequence[Node]) -> tuple[Node, ...] | None:
        """The nodes that make what `path` reads besides `source`; None where something cannot be had."""
        binding = Binding.of(source.shape or ())
        made = {source, *(v for node in path for v in node.outputs)}

        def reads(node: Node) -> Iterator[Value]:
            by_shape = operation(node.op).of_shape
            values = (value for value in computed(node.inputs) if value not in made)
            return (value for value in values if not (by_shape and binding.covers(value.shape)))

        def maker(value: Value) -> Node | None:
            node = value.producer
            return None if node is None or node.op.evaluate is None else node

        read = (value for node in path for value in computed(node.inputs) if value not in made)
        found = backward(read, maker, reads, most=LARGEST_SLICE, closed=True)
        return None if found is None else tuple(found)


def _moving(path: Sequence[Node]) -> bool:
    """Whether some node does more than to compute with elements at the same position."""
    return not all(operation(node.op).elementwise for node in path)


def among_images(node: Node) -> bool:
    """Whether a convolution with spatial axes reads what the node makes, or makes or reads what it reads."""
    read = [value for value in node.inputs if value is not None and value.constant is None]
    near = [n for value in read for n in (value.producer, *value.users) if n is not None]
    return any(operation(n.op).rank for n in (*near, *_users(node)))


def _is_image(region: Region) -> bool:
    near = (region.source.producer, *region.source.users, *_users(region.root))
    return any(n is not None and operation(n.op).rank for n in near)


def _comparable(source: Value, result: Value) -> bool:
    """Whether both are images: equally many axes, at least one of them spatial, channels known, one batch."""
    if source.shape is None or result.shape is None or source.dtype != result.dtype:
        return False
    if len(source.shape) < 3 or len(source.shape) != len(result.shape):
        return False
    known = isinstance(source.shape[1], int) and isinstance(result.shape[1], int)
    return known and _may_equal(source.shape[0], result.shape[0])


def _may_equal(a: Dim, b: Dim) -> bool:
    return a == b or not (isinstance(a, int) and isinstance(b, int))


def _continued(found: Conv, inner: Conv, epsilon: float) -> Conv:
    """The padding with what `inner` continues with, where that is its value but for rounding."""
    if found.rank != inner.rank or not found.reads_outside or found.inputs != inner.outputs:
        return found
    return snap(found, inner.bias + inner.respond(inner.pad_value), epsilon)


def _absorbable(conv: Conv, region: Region) -> bool:
    """Whether a neighbour may take the operator in without growing by it.

    A permutation costs a copy where it stands, and as much as a 1x1 convolution in the books. So it is lifted
    only where a dense convolution beside it takes it in for nothing.
    """
    if conv.depthwise:
        # A slice of a tensor in another layout is none of the channels' business.
        return conv.reads_outside or _is_image(region)
    if (
        conv.outputs != conv.inputs * prod(conv.size)
        or conv.size != conv.stride
        or any(conv.begin + conv.end)
    ):
        return False
    members = set(region.nodes)
    maker = region.source.producer
    inside = all(user in members for node in region.path if node is not region.root for user in _users(node))
    if maker is not None and operation(maker.op).has_kernel:
        alone = inside and members.issuperset(region.source.users) and not region.source.is_output
        return operation(maker.op).dense and alone and prod(conv.size) == 1
    users = region.root.outputs[0].users
    plain = maker is None or operation(maker.op).opaque
    return plain and bool(users) and all(operation(user.op).dense for user in users)


def _users(node: Node) -> Iterator[Node]:
    for value in node.outputs:
        yield from value.users

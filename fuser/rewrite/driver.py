"""The driver: passes propose, the driver decides, edits and keeps the record.

Conditions that hold for all passes are here and nowhere else: who else reads what would vanish, graph
outputs, what the host can express, and whether the candidate pays. Whether it computes the same, and in
numbers that fit the dtype, is `check`'s to say.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from fuser.errors import Declined, VerificationError, require
from fuser.ir.constant import Constant
from fuser.ir.graph import Apply, Graph, Node, Step, Value
from fuser.ir.ops import Op, Opaque, operation
from fuser.rewrite.gain import Postponed, between, freed, require_gain, stored_bytes, vanishing
from fuser.rewrite.pattern import NARROW, Candidate, Event, Log, Plan, Rewrite, describe
from fuser.validate.check import check_application, check_equal, settle

T = TypeVar("T")

# A folded constant may add this many bytes to the file; beyond that it must not be larger than what it
# replaces.
SMALL_CONSTANT: Final = 1024


def run(graph: Graph, plan: Plan, log: Log, *, careful: bool = False) -> None:
    """Rewrite `graph` in place to a fixpoint of the passes, recording events in `log`.

    `careful` checks every rewrite when it is made, and declines what fails. Without it, weights are not
    looked at unless a condition depends on them, and `check.settle` has to follow.
    """
    # What is not finite is declined by a condition, and no warning of numpy's to those who gave the numbers.
    with np.errstate(all="ignore"):
        Driver(graph, plan, log, careful).run()


def carefully(attempt: Callable[[bool], T]) -> T:
    """What `attempt` makes, given whether to be careful: import, `run` and the check that follows.

    Each kernel is then computed and checked once, at the end. Should a check fail, all is done again with a
    check of each rewrite when it is made, so that the one that is wrong, or does not fit the dtype, is
    declined and named.

    Raises:
        VerificationError: a check fails although each rewrite was checked.
    """
    with suppress(Declined):
        return attempt(False)
    try:
        return attempt(True)
    except Declined as reason:
        raise VerificationError(f"a kernel is wrong though each rewrite of it was right: {reason}") from None


class Driver:
    """Runs passes over one graph to a fixpoint. Every applied rewrite lowers the cost, so there is an end.

    What a rewrite takes in may have other readers, and is then computed twice. Such rewrites wait until
    nothing else is left to do: a stem must not be pulled into one of its branches before the branches have
    had the chance to become one.
    """

    def __init__(self, graph: Graph, plan: Plan, log: Log, careful: bool) -> None:
        self.careful = careful
        self.graph = graph
        self.plan = plan
        self.rewrites = plan.rewrites
        self.log = log
        self.queue: deque[Node] = deque()
        self.queued: set[Node] = set()
        self.waiting: dict[Node, None] = {}
        self.patient = True

    def run(self) -> None:
        """Visit every node in order, and again whatever a rewrite may have given a new chance."""
        nodes = self.graph.ordered()
        for node in nodes:
            self._recognise(node)
        every = self.plan.rewrites
        self.rewrites = tuple(entry for entry in every if entry.stage < NARROW)
        self._enqueue(nodes)
        self._drain()
        self.patient = False
        self._enqueue([node for node in self.waiting if node in self.graph.nodes])
        self._drain()
        late = tuple(entry for entry in every if entry.stage >= NARROW)
        if late:
            # These look at weights. The check computes each kernel that a rewrite made, so it comes before.
            settle(self.graph, trusted=self.careful)
            self.rewrites = late
            for node in self.graph.ordered():
                if node in self.graph.nodes:
                    self._visit(node)
            self.rewrites = every
            self._drain()

    def _drain(self) -> None:
        while self.queue:
            node = self.queue.popleft()
            self.queued.discard(node)
            if node in self.graph.nodes:
                self._visit(node)

    def _enqueue(self, nodes: Sequence[Node]) -> None:
        fresh = [node for node in nodes if node not in self.queued]
        self.queued.update(fresh)
        self.queue.extend(fresh)

    def _visit(self, node: Node) -> None:
        self._recognise(node)
        for entry in self.rewrites:
            if isinstance(node.op, entry.roots) and self._attempt(entry, node):
                return

    def _recognise(self, node: Node) -> None:
        self._lift(node)
        self._recognise_constant(node)

    def _lift(self, node: Node) -> None:
        """Replace an opaque operator by its affine form, once its inputs allow that."""
        if not isinstance(node.op, Opaque) or node.op.lift is None:
            return
        try:
            lifted = node.op.lift(node)
        except Declined as reason:
            self._decline("lift", node, str(reason))
            return
        if isinstance(lifted, Constant):
            node.outputs[0].constant = lifted
            self._enqueue(list(node.outputs[0].users))
        elif lifted is not None:
            self.log.forget(node, "lift")
            if not self.plan.zero_below:
                # Where weights are taken for zero that are not, the source says something else on purpose.
                node.stated = node.op, node.inputs
            inputs = [self.graph.current(part) for part in lifted.inputs if isinstance(part, Value)]
            parameters = [v for v in node.inputs if v is not None and v not in inputs]
            node.op, node.label = operation(lifted.op).flushed(self.plan.zero_below), lifted.label
            self.graph.connect(node, inputs, parameters)

    def _recognise_constant(self, node: Node) -> None:
        """A function of constants is a constant: known to its readers, whether or not it pays to store it."""
        if node.op.evaluate is None or node.outputs[0].constant is not None or not node.inputs:
            return
        if not operation(node.op).foldable:
            return
        if any(value is not None and value.constant is None for value in node.inputs):
            return
        sources = [None if value is None else value.constant for value in node.inputs]
        for index, value in enumerate(node.outputs):
            if (
                value.dtype is not None
                and value.shape is not None
                and all(isinstance(d, int) for d in value.shape)
            ):
                value.constant = _computed(node.op, sources, index, value)
                self._enqueue(list(value.users))

    def _attempt(self, entry: Rewrite, node: Node) -> bool:
        """Try the candidates of one pass at one node; True if one was applied."""
        reasons: list[str] = []
        try:
            for candidate in entry.propose(node):
                try:
                    self._apply(entry, node, candidate)
                except Postponed:
                    self.waiting[node] = None
                except Declined as reason:
                    reasons.append(str(reason))
                else:
                    return True
        except Declined as reason:
            reasons.append(str(reason))
        if reasons:
            self._decline(entry.name, node, "; ".join(dict.fromkeys(reasons)))
        return False

    def _decline(self, rewrite: str, node: Node, reason: str) -> None:
        self.log.decline(Event(rewrite, describe(node), "declined", reason, graph=self.graph.name), node)

    def _apply(self, entry: Rewrite, node: Node, candidate: Candidate) -> None:
        """Decide on a candidate, and carry it out.

        Raises:
            Declined: a condition fails.
        """
        if isinstance(candidate, Value):
            removed = self._substitute(node, candidate)
        elif isinstance(candidate, Constant):
            removed = self._store(node, candidate)
        else:
            targets = {node.outputs[0]: candidate} if isinstance(candidate, Apply) else dict(candidate)
            removed = self._replace(targets)
        names = tuple(describe(gone) for gone in removed)
        self.log.applied.append(Event(entry.name, describe(node), "applied", "", names, self.graph.name))

    def _substitute(self, node: Node, other: Value) -> list[Node]:
        """Let `other` stand for the first output of `node`, which computes nothing."""
        value = node.outputs[0]
        require(
            all(not output.users and not output.is_output for output in node.outputs[1:]),
            f"{describe(node)} has a second output that is read",
        )
        # With a reshape that does nothing goes what computed its shape.
        gone = vanishing([node], {other})
        check_equal(self.graph, value, other, between([node], {other}, gone))
        if value.is_output:
            maker = other.producer
            if maker is None or other.is_output:
                source = "a graph output itself" if other.is_output else "not made by a node here"
                raise Declined(
                    f"the result is the graph output {value.name!r}, and {other.name!r} is {source}"
                )
            self._remove(gone)
            maker.outputs = tuple(value if output is other else output for output in maker.outputs)
            value.producer, other.producer = maker, None
            value.constant = other.constant
            self._rewire(other, value)
        else:
            self._remove(gone)
            self._rewire(value, other)
        return gone

    def _rewire(self, old: Value, new: Value) -> None:
        """Make every reader of `old` read `new`, its equal."""
        self.graph.replaced[old] = self.graph.equal[old] = new
        users = list(old.users)
        for user in users:
            inputs = [new if value is old else value for value in user.inputs]
            self.graph.connect(user, inputs, [new if value is old else value for value in user.parameters])
        # The maker of `new` has other readers now, which may be what it waited for.
        self._enqueue([*([new.producer] if new.producer else []), *users])

    def _store(self, node: Node, constant: Constant) -> list[Node]:
        """Replace a node by its result, if the file does not grow by it."""
        value = node.outputs[0]
        require(len(node.outputs) == 1, f"{describe(node)} has {len(node.outputs)} outputs")
        require(not value.is_output, f"the result is the graph output {value.name!r}")
        gone = vanishing([node], set())
        less = sum(stored_bytes(c) for c in freed(gone))
        grown = stored_bytes(constant)
        # A kernel is folded further: into the operator that it belongs to.
        kernel = bool(value.users) and all(operation(user.op).has_kernel for user in value.users)
        require(
            kernel or grown <= max(less, SMALL_CONSTANT),
            f"storing the result would let the file grow: {grown} bytes instead of {less}",
        )
        stored = Constant.of(np.asarray(constant.array()))
        self._remove(gone)
        value.constant = stored
        self._enqueue(list(value.users))
        return gone

    def _replace(self, targets: Mapping[Value, Apply]) -> list[Node]:
        """Let applications make the target values, if that is cheaper than what vanishes by it."""
        makers = {value: _maker(value) for value in targets}
        roots = list(dict.fromkeys(makers.values()))
        for root in roots:
            missing = [v for v in root.outputs if v not in targets and (v.users or v.is_output)]
            require(
                not missing, f"{describe(root)} has another output that is read: {[v.name for v in missing]}"
            )
        kept = {leaf for application in targets.values() for leaf in application.leaves()}
        gone = vanishing(roots, kept)
        made = {value: results(application, value) for value, application in targets.items()}
        parts = [(part.op, result) for found in made.values() for part, result in found.items()]
        require_gain(self.graph.host, parts, gone, kept, patient=self.patient)
        for op, result in parts:
            if not operation(op).opaque:
                self.graph.host.require_lowerable(op, result)
        region = between(roots, kept, gone)
        if self.careful:
            check_application(targets, region)
        origin = tuple(node.origin or Step.of(node) for node in region)
        internal = [value for value in targets if not is_visible(value, gone)]
        steps = {value: Step.of(root) for value, root in makers.items()}
        self._remove(gone)
        for value, found in made.items():
            self._build(found, makers[value], steps[value], origin)
        for value in internal:
            value.redefined = True
        self._resize(targets)
        self._revisit(targets)
        return gone

    def _build(self, made: Mapping[Apply, Value], root: Node, step: Step, origin: tuple[object, ...]) -> None:
        """Make the nodes of an application, the last one in the place of `root`, which was as `step` says."""
        for index, (part, result) in enumerate(made.items()):
            position = root.position if len(made) == 1 else (*root.position, index)
            inputs = [v if isinstance(v, Value) else made[v] for v in part.inputs]
            op = operation(part.op).steady()
            node = Node(op, inputs, [result], name=root.name, label=part.label, position=position)
            node.origin = origin
            node.extent = part.extent
            if operation(op).opaque and op is root.op:
                # The operator stays and only reads something else, so it keeps its place in the source.
                node.source, node.parameters = root.source, step.parameters
                pairs = zip(step.inputs, inputs, strict=True)
                self.graph.replaced.update(
                    {old: new for old, new in pairs if old is not None and old is not new}
                )
            self.graph.add(node)

    @staticmethod
    def _resize(targets: Iterable[Value]) -> None:
        """Fewer channels of a convolution are fewer in its result, and in what others make of that."""
        changed: dict[Value, tuple[int, int]] = {}
        for value in sorted(targets, key=lambda value: _maker(value).position):
            node = _maker(value)
            op = operation(node.op)
            passed = (changed[v] for v in node.inputs if v in changed)
            made = op.channel_axis, op.channels_made
            axis, channels = next(passed, (None, None)) if op.channels_made is None else made
            if axis is None or channels is None or value.shape is None:
                continue
            if isinstance(value.shape[axis], int) and value.shape[axis] != channels:
                axis %= len(value.shape)
                value.shape = (*value.shape[:axis], channels, *value.shape[axis + 1 :])
                changed[value] = axis, channels

    def _remove(self, nodes: Sequence[Node]) -> None:
        for node in reversed(nodes):
            read = [value for value in (*node.inputs, *node.parameters) if value is not None]
            self.graph.remove(node)
            self.log.forget(node)
            # A value with one reader left may now vanish with it, and its maker go into those that are left.
            self._enqueue([next(iter(value.users)) for value in read if len(value.users) == 1])
            self._enqueue([value.producer for value in read if value.producer is not None and value.users])

    def _revisit(self, values: Iterable[Value]) -> None:
        """What makes the values, and the neighbours, have a new chance."""
        for value in values:
            node = _maker(value)
            makers = [v.producer for v in node.inputs if v is not None and v.producer is not None]
            self._enqueue([*makers, node, *value.users])


def results(application: Apply, value: Value) -> dict[Apply, Value]:
    """What each part of an application makes, inputs first: new values, and `value` in the end.

    The shapes of new values decide what they cost, so they are as exact as those of the inputs.
    """
    made: dict[Apply, Value] = {}
    for index, part in enumerate(application.applications()):
        if part is application:
            made[part] = value
            continue
        shapes = [(v if isinstance(v, Value) else made[v]).shape for v in part.inputs]
        shape, *_ = operation(part.op).result(value.shape if shapes[0] is None else shapes[0], *shapes[1:])
        made[part] = Value(f"{value.name}_{index}", shape, value.dtype)
        made[part].redefined = True
    return made


def is_visible(value: Value, region: Sequence[Node]) -> bool:
    """Whether anybody but the nodes of `region` reads the value."""
    return value.is_output or not value.users or not value.users.keys() <= set(region)


def _maker(value: Value) -> Node:
    assert value.producer is not None, f"{value.name} has no producer"
    return value.producer


def _computed(op: Op, sources: Sequence[Constant | None], index: int, value: Value) -> Constant:
    """The constant that `op` makes of constants, computed each time it is looked at."""

    def array() -> NDArray[Any]:
        return np.asarray(operation(op).of_constants(sources)[index])

    shape = tuple(d for d in value.shape or () if isinstance(d, int))
    return Constant(shape, value.dtype or "", array)

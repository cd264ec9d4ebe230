"""The driver: a worklist. Every node is lifted, recognised, and offered to each pass, until nothing changes.

Passes propose, `decide` says what is done, `editor` does it; here is the order, and the record.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fuser.errors import Declined, VerificationError
from fuser.ir.constant import Constant
from fuser.ir.graph import Graph
from fuser.ir.node import Lift, Node, Value
from fuser.ir.ops import Op, operation
from fuser.recognise.lifting import Lifting
from fuser.rewrite.decide import Check, Decider
from fuser.rewrite.editor import Editor
from fuser.rewrite.gain import Postponed
from fuser.rewrite.pattern import NARROW, Event, Log, Plan, Rewrite, describe

T = TypeVar("T")


def run(graph: Graph, plan: Plan, log: Log, check: Check, *, careful: bool = False) -> None:
    """Rewrite `graph` in place to a fixpoint of the passes, recording events in `log`.

    `careful` has every rewrite checked when it is made, and declines what fails. Without it, weights are not
    looked at unless a condition depends on them, and `check.settle` has to follow.
    """
    # What is not finite is declined by a condition, and no warning of numpy's to those who gave the numbers.
    with np.errstate(all="ignore"):
        Driver(graph, plan, log, check, careful=careful).run()


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

    def __init__(self, graph: Graph, plan: Plan, log: Log, check: Check, *, careful: bool) -> None:
        self.careful = careful
        self.check = check
        self.graph = graph
        self.editor = Editor(graph, self._enqueue)
        self.decider = Decider(graph, self.editor, check, careful=careful)
        self.lifting = Lifting(graph.provenance)
        self.plan = plan
        self.rewrites = plan.rewrites
        self.log = log
        self.queue: deque[Node] = deque()
        self.queued: set[Node] = set()
        self.waiting: dict[Node, None] = {}

    def run(self) -> None:
        """Visit every node in order, and again whatever a rewrite may have given a new chance."""
        nodes = self.graph.ordered()
        for node in nodes:
            self._lift(node, self.lifting.by_rule)
            self._recognise_constant(node)
        for node in nodes:
            if operation(node.op).linear:
                self._lift(node, self.lifting.by_meaning)
        every = self.plan.rewrites
        self.rewrites = tuple(entry for entry in every if entry.stage < NARROW)
        self._enqueue(nodes)
        self._drain()
        self.decider.patient = False
        self._enqueue([node for node in self.waiting if node in self.graph.nodes])
        self._drain()
        late = tuple(entry for entry in every if entry.stage >= NARROW)
        if late:
            # These look at weights. The check computes each kernel that a rewrite made, so it comes before.
            self.check.settle(self.graph, trusted=self.careful)
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

    def _enqueue(self, nodes: Iterable[Node]) -> None:
        fresh = [node for node in nodes if node not in self.queued]
        self.queued.update(fresh)
        self.queue.extend(fresh)

    def _visit(self, node: Node) -> None:
        self._lift(node, self.lifting.by_meaning)
        self._recognise_constant(node)
        for entry in self.rewrites:
            if isinstance(node.op, entry.roots) and self._attempt(entry, node):
                return

    def _lift(self, node: Node, lift: Lift) -> None:
        """Replace an opaque operator by its affine form, once its inputs allow that."""
        if not operation(node.op).opaque:
            return
        try:
            lifted = lift(node)
        except Declined as reason:
            self._decline("lift", node, str(reason))
            return
        if isinstance(lifted, Constant):
            self.editor.know(node.outputs[0], lifted)
        elif lifted is not None:
            self.log.forget(node, "lift")
            below = self.plan.zero_below
            # Where weights are taken for zero that are not, the source says something else on purpose.
            self.editor.lift(node, operation(lifted.op).flushed(below), lifted, stated=not below)

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
                self.editor.know(value, _computed(node.op, sources, index, value))

    def _attempt(self, entry: Rewrite, node: Node) -> bool:
        """Try the candidates of one pass at one node; True if one was applied."""
        reasons: list[str] = []
        try:
            for candidate in entry.propose(node):
                try:
                    removed = self.decider.apply(node, candidate)
                except Postponed:
                    self.waiting[node] = None
                except Declined as reason:
                    reasons.append(str(reason))
                else:
                    self._record(entry, node, removed)
                    return True
        except Declined as reason:
            reasons.append(str(reason))
        if reasons:
            self._decline(entry.name, node, "; ".join(dict.fromkeys(reasons)))
        return False

    def _decline(self, rewrite: str, node: Node, reason: str) -> None:
        self.log.decline(Event(rewrite, describe(node), "declined", reason, graph=self.graph.name), node)

    def _record(self, entry: Rewrite, node: Node, removed: Sequence[Node]) -> None:
        for gone in removed:
            self.log.forget(gone)
        names = tuple(describe(gone) for gone in removed)
        self.log.applied.append(Event(entry.name, describe(node), "applied", "", names, self.graph.name))


def _computed(op: Op, sources: Sequence[Constant | None], index: int, value: Value) -> Constant:
    """The constant that `op` makes of constants, computed each time it is looked at."""

    def array() -> NDArray[Any]:
        return np.asarray(operation(op).of_constants(sources)[index])

    shape = tuple(d for d in value.shape or () if isinstance(d, int))
    return Constant(shape, value.dtype or "", array)

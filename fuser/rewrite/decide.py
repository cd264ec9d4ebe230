"""Whether a candidate is carried out: the conditions that hold for all passes, here and nowhere else.

Its form, who else reads what would vanish, graph outputs, what the host can express, whether it pays, and,
by the check that the flow hands in, whether it computes the same in numbers that fit the type.
"""

from collections.abc import Iterable, Mapping, Sequence
from math import prod
from typing import Final, Protocol

import numpy as np

from fuser.algebra.conv import Conv
from fuser.errors import Declined, require
from fuser.ir.constant import Constant
from fuser.ir.graph import Graph
from fuser.ir.node import Apply, Node, Value
from fuser.ir.ops import Op, operation
from fuser.ir.slices import between
from fuser.ir.spec import require_candidate
from fuser.rewrite.editor import Editor
from fuser.rewrite.gain import dead_set, freed, is_spread, item_bytes, kept_bytes, require_gain, stored_bytes
from fuser.rewrite.pattern import Candidate, describe

# A folded constant may add this many bytes to the file; beyond that it must not be larger than what it
# replaces.
SMALL_CONSTANT: Final = 1024


class Check(Protocol):
    """What says whether a rewrite is right (`validate/check.py`). Each method declines what is not."""

    def check_application(self, graph: Graph, targets: Mapping[Value, Apply], sliced: Sequence[Node]) -> None:
        """The applications make the targets, as `sliced` does, before they are put there."""

    def check_equal(self, graph: Graph, value: Value, other: Value, sliced: Sequence[Node]) -> None:
        """`other` has the elements of `value`, which `sliced` makes of it."""

    def settle(self, graph: Graph, *, trusted: bool = False) -> None:
        """Everything that rewrites made so far is right; `trusted`: only its kernels are computed."""


class Decider:
    """Decides on the candidates for one graph, and has those carried out that pass.

    `careful`: every rewrite is checked when it is made. `patient`: one that would compute something twice is
    postponed.
    """

    def __init__(self, graph: Graph, editor: Editor, check: Check, *, careful: bool) -> None:
        self.graph = graph
        self.editor = editor
        self.check = check
        self.careful = careful
        self.patient = True

    def apply(self, node: Node, candidate: Candidate) -> list[Node]:
        """Carry a candidate for `node` out; the nodes that are gone.

        Raises:
            Declined: a condition fails.
        """
        require_candidate(self.graph, node, candidate)
        if isinstance(candidate, Value):
            return self._forward(node, candidate)
        if isinstance(candidate, Constant):
            return self._store(node, candidate)
        return self._replace(
            {node.outputs[0]: candidate} if isinstance(candidate, Apply) else needed(candidate)
        )

    def _forward(self, node: Node, other: Value) -> list[Node]:
        """Let `other` stand for the first output of `node`, which computes nothing."""
        value = node.outputs[0]
        require(
            all(not output.users and not output.is_output for output in node.outputs[1:]),
            f"{describe(node)} has a second output that is read",
        )
        # With a reshape that does nothing goes what computed its shape.
        dead = dead_set([node], {other})
        self.check.check_equal(self.graph, value, other, between(dead, {other}))
        if value.is_output and (other.producer is None or other.is_output):
            source = "a graph output itself" if other.is_output else "not made by a node here"
            raise Declined(f"the result is the graph output {value.name!r}, and {other.name!r} is {source}")
        self.editor.forward(value, other, dead)
        return dead

    def _store(self, node: Node, constant: Constant) -> list[Node]:
        """Replace a node by its result, if the file does not grow by it."""
        value = node.outputs[0]
        require(len(node.outputs) == 1, f"{describe(node)} has {len(node.outputs)} outputs")
        require(not value.is_output, f"the result is the graph output {value.name!r}")
        require(
            constant is value.constant,
            f"{constant!r} is not what {value.name!r} was found to be: {value.constant!r}",
        )
        dead = dead_set([node], set())
        less = sum(stored_bytes(c) for c in freed(dead))
        grown = stored_bytes(constant)
        # A kernel is folded further: into the operator that it belongs to.
        kernel = bool(value.users) and all(operation(user.op).has_kernel for user in value.users)
        require(
            kernel or grown <= max(less, SMALL_CONSTANT),
            f"storing the result would let the file grow: {grown} bytes instead of {less}",
        )
        require_not_written_out([value], grown)
        self.editor.make_constant(value, Constant.of(np.asarray(constant.array())), dead)
        return dead

    def _replace(self, targets: Mapping[Value, Apply]) -> list[Node]:
        """Let applications make the target values, if that is cheaper than what vanishes by it."""
        roots = list(dict.fromkeys(value.producer for value in targets if value.producer is not None))
        for root in roots:
            missing = [v for v in root.outputs if v not in targets and (v.users or v.is_output)]
            require(
                not missing, f"{describe(root)} has another output that is read: {[v.name for v in missing]}"
            )
        kept = {leaf for application in targets.values() for leaf in application.leaves()}
        dead = dead_set(roots, kept)
        made = {value: results(application, value) for value, application in targets.items()}
        parts = [(part.op, result) for found in made.values() for part, result in found.items()]
        require_gain(self.graph.host, parts, dead, kept, patient=self.patient)
        read = (value for node in dead for value in node.parameters)
        require_not_written_out(read, kernel_bytes(parts))
        for op, result in parts:
            if not operation(op).opaque:
                self.graph.host.require_lowerable(op, result)
        sliced = between(dead, kept)
        if self.careful:
            self.check.check_application(self.graph, targets, sliced)
        self.editor.replace_subgraph(made, dead, sliced)
        return dead


def needed(targets: Mapping[Value, Apply]) -> dict[Value, Apply]:
    """The targets without those that only went into others when these were lifted: nobody reads them now."""
    makers = {value.producer for value in targets}
    live = [v for v in targets if v.is_output or not v.users or not makers.issuperset(v.users)]
    for value in live:  # which grows
        live.extend(leaf for leaf in targets[value].leaves() if leaf in targets and leaf not in live)
    return {value: targets[value] for value in targets if value in live}


def require_not_written_out(values: Iterable[Value], written: int) -> None:
    """Decline to write out what a file keeps small on purpose: integers that are scaled, a table expanded.

    Args:
        values: constants that are read now.
        written: bytes of what would be stored in their place.

    Raises:
        Declined: one of them is computed from half of its bytes or less, and all together from half of that.
    """
    known = [value for value in dict.fromkeys(values) if value.constant is not None]
    for value in known:
        assert value.constant is not None
        size = stored_bytes(value.constant)
        if size > SMALL_CONSTANT and 2 * kept_bytes([value]) <= size and is_spread(value):
            kept = kept_bytes(known)
            require(
                written <= max(3 * kept // 2, SMALL_CONSTANT),
                f"{value.name!r} is kept in {kept} bytes, and would be written in {written}",
            )


def kernel_bytes(parts: Iterable[tuple[Op, Value]]) -> int:
    """Bytes of the kernels of operators, given what they make."""
    kernels = ((prod(op.kernel.shape), result.dtype) for op, result in parts if isinstance(op, Conv))
    return sum(size * item_bytes(dtype) for size, dtype in kernels)


def results(application: Apply, value: Value) -> dict[Apply, Value]:
    """What each part of an application makes, inputs first: new values, and `value` in the end.

    The shapes of new values decide what they cost, so they are as exact as those of the inputs.
    """
    made: dict[Apply, Value] = {}
    for index, part in enumerate(application.applications()):
        if part is application:
            made[part] = value
            continue
        shapes = [(made[v] if isinstance(v, Apply) else v).shape for v in part.inputs if v is not None]
        shape, *_ = operation(part.op).result(value.shape if shapes[0] is None else shapes[0], *shapes[1:])
        made[part] = Value(f"{value.name}_{index}", shape, value.dtype)
    return made

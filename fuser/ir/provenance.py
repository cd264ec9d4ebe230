"""Where what is in a graph comes from: what the source says of it, and which rewrite stands for what.

A check starts from here: from statements of the source, never from what they were lifted to, nor from how
many rewrites lie in between.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from fuser.ir.literals import Literals
from fuser.ir.node import Node, Value
from fuser.ir.ops import Op, operation

ROUNDED: Final = "recognised but for its rounding"
"""The label of a border whose value the exporter rounded, taken for the one that it was meant to be."""


@dataclass(frozen=True, eq=False)
class Statement:
    """What the source says of a node: its own operator and inputs, weights included.

    `lifted` is what it was taken for: of use where extents are chosen, and never evaluated. `rounded`: it
    holds a number that its exporter rounded, so that it is equal up to the rounding of its element type.
    """

    op: Op
    inputs: tuple[Value | None, ...]
    parameters: tuple[Value, ...]
    outputs: tuple[Value, ...]
    position: tuple[int, ...]
    lifted: Op
    rounded: bool = False

    @classmethod
    def of(cls, node: Node, op: Op | None = None, inputs: Sequence[Value | None] = ()) -> "Statement":
        """The node as it is now, or with the operator and inputs that it was lifted from."""
        stated, read = (node.op, node.inputs) if op is None else (op, tuple(inputs))
        rounded = node.label == ROUNDED
        return cls(stated, read, node.parameters, node.outputs, node.position, node.op, rounded)

    @property
    def literals(self) -> Literals:
        """The numbers that the operator holds."""
        return operation(self.op).held([None if value is None else value.constant for value in self.inputs])


Origin = tuple["Statement | Origin", ...]
"""What a node that a rewrite made replaced: statements, and the origins of nodes in between, as a tree."""


@dataclass
class Provenance:
    """The provenance of every node and value of one graph.

    `successors` says which value now stands for one that a rewrite made superfluous; the exporter follows it.
    """

    successors: dict[Value, Value] = field(default_factory=dict)
    _redirected: dict[Node, Mapping[Value, Value]] = field(default_factory=dict)
    _redefined: set[Value] = field(default_factory=set)
    _stated: dict[Node, tuple[Op, tuple[Value | None, ...]]] = field(default_factory=dict)
    _origins: dict[Node, Origin] = field(default_factory=dict)
    _checked: set[Node] = field(default_factory=set)

    # Nodes.

    def state(self, node: Node) -> None:
        """Keep what the source says of a node that is about to be lifted."""
        self._stated[node] = node.op, node.inputs

    def statement(self, node: Node) -> Statement:
        """What the source says of a node; of one that a rewrite made, what it is."""
        return Statement.of(node, *self._stated.get(node, ()))

    def is_made(self, node: Node) -> bool:
        """Whether a rewrite made the node."""
        return node in self._origins

    def origin(self, nodes: Iterable[Node]) -> Origin:
        """What is behind nodes of the graph, before they go."""
        return tuple(self._origins.get(node) or self.statement(node) for node in nodes)

    def make(self, node: Node, origin: Origin) -> None:
        """Record that a rewrite made the node in place of `origin`."""
        self._origins[node] = origin

    def behind(self, nodes: Iterable[Node]) -> list[Statement]:
        """What the source says of all that the nodes stand for, in graph order.

        With the values that now stand for others; what then says that a value is itself is left out.
        """
        stated = (self._current(statement) for statement in flatten(self.origin(nodes)))
        return [statement for statement in stated if statement is not None]

    def unchecked(self, nodes: Iterable[Node]) -> list[Node]:
        """Those that rewrites made and that were not compared with the source."""
        return [node for node in nodes if node in self._origins and node not in self._checked]

    def check(self, node: Node) -> None:
        """Record that the node was compared with the source."""
        self._checked.add(node)

    # Values.

    def redefine(self, value: Value) -> None:
        """Record that a rewrite made a value, or changed what it means and its readers with it."""
        self._redefined.add(value)

    def redefined(self, value: Value) -> bool:
        """Whether a value cannot be compared with the source on its own."""
        return value in self._redefined

    def succeed(self, old: Value, new: Value) -> None:
        """Record that `new` stands for `old`, and has the same elements."""
        self.successors[old] = new

    def current(self, value: Value) -> Value:
        """The value itself, or the one that was found to be equal and stands for it now."""
        while value in self.successors:
            value = self.successors[value]
        return value

    def redirect(self, node: Node, before: Node, instead: Mapping[Value, Value]) -> None:
        """Record that `node` is the operator of `before`, and reads other values in the place of its own."""
        chained = {old: instead.get(new, new) for old, new in self.redirected(before).items()}
        self._redirected[node] = {**instead, **chained}

    def redirected(self, node: Node) -> Mapping[Value, Value]:
        """What an operator of the source reads in the place of what it read there."""
        return self._redirected.get(node, {})

    def _current(self, statement: Statement) -> Statement | None:
        if not self.successors:
            return statement
        inputs = tuple(None if value is None else self.current(value) for value in statement.inputs)
        outputs = tuple(self.current(value) for value in statement.outputs)
        return None if outputs[0] in inputs else replace(statement, inputs=inputs, outputs=outputs)


def flatten(origin: Origin) -> list[Statement]:
    """The statements of a tree of origins, each once, in graph order."""
    found: dict[Statement, None] = {}
    seen: set[int] = set()
    stack: list[Statement | Origin] = list(origin)
    while stack:
        part = stack.pop()
        if isinstance(part, Statement):
            found[part] = None
        elif id(part) not in seen:
            seen.add(id(part))
            stack.extend(part)
    return sorted(found, key=lambda statement: statement.position)

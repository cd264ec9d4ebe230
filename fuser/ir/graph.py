"""The graph that passes see: values, nodes, what could stand in a value's place. No host format is visible.

Nodes and values are equal by identity, operators by value. Uses are kept in insertion order, so that every
walk over the graph is deterministic. Only the editor (`rewrite/editor.py`) edits a graph.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from fuser.ir.constant import Constant
from fuser.ir.extents import Dim
from fuser.ir.literals import Literals
from fuser.ir.ops import Op, Opaque, operation

ROUNDED: Final = "recognised but for its rounding"
"""The label of a border whose value the exporter rounded, taken for the one that it was meant to be."""


class Value:
    """An edge: one tensor, made by `producer` or given from outside, read by `users`.

    `redefined`: a rewrite made it or changed what it means, and its readers make up for that; it cannot be
    compared with the source on its own.
    """

    __slots__ = ("constant", "dtype", "is_output", "name", "producer", "redefined", "shape", "users")

    def __init__(self, name: str, shape: tuple[Dim, ...] | None = None, dtype: str | None = None) -> None:
        self.name = name
        self.shape = shape
        self.dtype = dtype
        self.producer: Node | None = None
        self.users: dict[Node, None] = {}
        self.constant: Constant | None = None
        self.is_output = False
        self.redefined = False

    @property
    def sole_user(self) -> "Node | None":
        """The only reader, where there is one and the value is not a graph output."""
        return next(iter(self.users)) if len(self.users) == 1 and not self.is_output else None

    @property
    def rank(self) -> int | None:
        """Number of axes, where it is known."""
        return None if self.shape is None else len(self.shape)

    def __repr__(self) -> str:
        return f"Value({self.name!r}, {self.dtype}{'?' if self.shape is None else list(self.shape)})"


class Node:
    """An operator applied to values. `source` is the host's own node; a node that a rewrite made has none.

    `parameters` are the host inputs that went into the operator when it was lifted (weights, statistics): no
    longer data that the operator reads, but used for as long as the node stands. `label` says in field terms
    what the node was in the source ("batch_norm"). `position` orders nodes: it grows along the graph, and
    what a rewrite puts in a node's place gets positions that begin with that node's own. `origin` holds what
    the node replaced: steps of the source, and origins of nodes in between, as a tree. `extent` is that of
    the application that made it. `checked`: it was compared with its origin. `stated` is what the source
    says, operator and inputs, where `op` is what it was lifted to.
    """

    __slots__ = (
        "checked",
        "extent",
        "inputs",
        "label",
        "name",
        "op",
        "origin",
        "outputs",
        "parameters",
        "position",
        "source",
        "stated",
    )

    def __init__(
        self,
        op: Op,
        inputs: Sequence[Value | None],
        outputs: Sequence[Value],
        *,
        name: str = "",
        label: str = "",
        position: tuple[int, ...] = (),
        source: object = None,
    ) -> None:
        self.op = op
        self.inputs = tuple(inputs)
        self.parameters: tuple[Value, ...] = ()
        self.origin: tuple[object, ...] = ()
        self.extent: tuple[int, ...] | None = None
        self.checked = False
        self.outputs = tuple(outputs)
        self.name = name
        self.label = label
        self.position = position
        self.source = source
        self.stated: tuple[Opaque, tuple[Value | None, ...]] | None = None

    def __repr__(self) -> str:
        return f"Node({self.name!r}: {self.op})"


@dataclass(frozen=True, eq=False)
class Step:
    """A node as it was before a rewrite removed it: the source's own operator and inputs, weights included.

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
    def of(cls, node: Node) -> "Step":
        """The node as it is now."""
        op, inputs = node.stated or (node.op, node.inputs)
        return cls(op, inputs, node.parameters, node.outputs, node.position, node.op, node.label == ROUNDED)

    @property
    def literals(self) -> Literals:
        """The numbers that the operator holds."""
        return operation(self.op).held([None if value is None else value.constant for value in self.inputs])


@dataclass(frozen=True, eq=False)
class Apply:
    """An operator applied to values or to other applications: what a rewrite puts in a value's place.

    `extent` is set where the application is exact only for inputs of that spatial extent.
    """

    op: Op
    inputs: tuple["Value | Apply", ...]
    label: str = ""
    extent: tuple[int, ...] | None = None

    def leaves(self) -> Iterator[Value]:
        """The values that the application reads, in order, each once."""
        seen: dict[Value | Apply, None] = {}
        stack: list[Value | Apply] = [self]
        while stack:
            part = stack.pop()
            if part not in seen:
                seen[part] = None
                stack.extend(reversed(part.inputs) if isinstance(part, Apply) else ())
        return (part for part in seen if isinstance(part, Value))

    def applications(self) -> Iterator["Apply"]:
        """This application and the nested ones, inputs first, each once."""
        seen: set[Apply] = set()
        stack = [(self, False)]
        while stack:
            part, complete = stack.pop()
            if complete:
                yield part
            elif part not in seen:
                seen.add(part)
                stack.append((part, True))
                stack.extend((v, False) for v in reversed(part.inputs) if isinstance(v, Apply))


class Host(Protocol):
    """What a host format can express: asked by the driver, so that passes need not know."""

    def require_lowerable(self, op: Op, output: Value) -> None:
        """Raise `Declined` if the host has no operator for `op` producing `output`."""

    def kernels(self, op: Op, output: Value) -> int:
        """How many operators of the host it takes to express `op`."""


class Graph:
    """A graph of nodes.

    `captured` are values of an enclosing graph that are read here. `replaced` says which value now stands for
    one that a rewrite made superfluous; the exporter follows it. `equal` holds those of them that have the
    same elements.
    """

    def __init__(self, name: str, host: Host) -> None:
        self.name = name
        self.host = host
        self.inputs: list[Value] = []
        self.captured: list[Value] = []
        self._outputs: tuple[Value, ...] = ()
        self.nodes: dict[Node, None] = {}
        self.replaced: dict[Value, Value] = {}
        self.equal: dict[Value, Value] = {}

    def add(self, node: Node) -> Node:
        """Enter a node and its uses."""
        self.nodes[node] = None
        for value in node.outputs:
            value.producer = node
        self.connect(node, node.inputs)
        return node

    def connect(
        self, node: Node, inputs: Sequence[Value | None], parameters: Sequence[Value] | None = None
    ) -> None:
        """Make `inputs` (and `parameters`, unless None) what `node` uses, uses in step."""
        for value in (*node.inputs, *node.parameters):
            if value is not None:
                value.users.pop(node, None)
        node.inputs = tuple(inputs)
        node.parameters = node.parameters if parameters is None else tuple(parameters)
        for value in (*node.inputs, *node.parameters):
            if value is not None:
                value.users[node] = None

    def remove(self, node: Node) -> None:
        """Take a node and its uses out."""
        self.connect(node, (), ())
        del self.nodes[node]
        for value in node.outputs:
            if value.producer is node:
                value.producer = None

    def ordered(self) -> list[Node]:
        """All nodes, each behind the producers of its inputs."""
        return sorted(self.nodes, key=lambda node: node.position)

    def current(self, value: Value) -> Value:
        """The value itself, or the one that was found to be equal and stands for it now."""
        while value in self.equal:
            value = self.equal[value]
        return value

    @property
    def outputs(self) -> tuple[Value, ...]:
        """What the graph computes. Rewrites keep these values."""
        return self._outputs

    @outputs.setter
    def outputs(self, outputs: Sequence[Value]) -> None:
        self._outputs = tuple(outputs)
        for value in self._outputs:
            value.is_output = True

"""Nodes and values, and what could stand in a value's place. No host format is visible here.

Nodes and values are equal by identity, operators by value. Uses are kept in insertion order, so that every
walk over the graph is deterministic.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from fuser.errors import Declined
from fuser.ir.carry import Carry
from fuser.ir.constant import Constant
from fuser.ir.extents import Dim
from fuser.ir.ops import Op, operation


class Value:
    """An edge: one tensor, made by `producer` or given from outside, read by `users`."""

    __slots__ = ("constant", "dtype", "is_output", "name", "producer", "shape", "users")

    def __init__(self, name: str, shape: tuple[Dim, ...] | None = None, dtype: str | None = None) -> None:
        self.name = name
        self.shape = shape
        self.dtype = dtype
        self.producer: Node | None = None
        self.users: dict[Node, None] = {}
        self.constant: Constant | None = None
        self.is_output = False

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
    what a rewrite puts in a node's place gets positions that begin with that node's own. `extent` is that of
    the application that made it.
    """

    __slots__ = (
        "extent",
        "inputs",
        "label",
        "name",
        "op",
        "outputs",
        "parameters",
        "position",
        "source",
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
        self.extent: tuple[int, ...] | None = None
        self.outputs = tuple(outputs)
        self.name = name
        self.label = label
        self.position = position
        self.source = source

    def __repr__(self) -> str:
        return f"Node({self.name!r}: {self.op})"


@dataclass(frozen=True, eq=False)
class Apply:
    """An operator applied to values or to other applications: what a rewrite puts in a value's place.

    An input is None only where an operator of the source has an optional one, and it is absent. `extent` is
    set where the application is exact only for inputs of that spatial extent.
    """

    op: Op
    inputs: tuple["Value | Apply | None", ...]
    label: str = ""
    extent: tuple[int, ...] | None = None

    @property
    def outputs(self) -> tuple["Apply", ...]:
        """What it makes: itself, for those that read it."""
        return (self,)

    def leaves(self) -> Iterator[Value]:
        """The values that the application reads, in order, each once."""
        seen: dict[Value | Apply | None, None] = {}
        stack: list[Value | Apply | None] = [self]
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


Lift = Callable[[Node], Apply | Constant | None]
"""What a node is as an affine operator, once its inputs allow it, or what it makes of constants.

Raises `Declined` where it is affine in principle.
"""


def carry_of(node: Node) -> Carry | None:
    """How a node carries a scale and a shift; None where it carries none."""
    try:
        return operation(node.op).carry(node)
    except Declined:
        return None

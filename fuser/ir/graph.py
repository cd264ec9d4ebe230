"""The graph that passes see. Only the editor (`rewrite/editor.py`) edits one."""

from collections.abc import Sequence
from typing import Protocol

from fuser.ir.node import Node, Value
from fuser.ir.ops import Op
from fuser.ir.provenance import Provenance


class Host(Protocol):
    """What a host format can express: asked by the driver, so that passes need not know."""

    def require_lowerable(self, op: Op, output: Value) -> None:
        """Raise `Declined` if the host has no operator for `op` producing `output`."""

    def kernels(self, op: Op, output: Value) -> int:
        """How many operators of the host it takes to express `op`."""


class Graph:
    """A graph of nodes.

    `captured` are values of an enclosing graph that are read here.
    """

    def __init__(self, name: str, host: Host) -> None:
        self.name = name
        self.host = host
        self.inputs: list[Value] = []
        self.captured: list[Value] = []
        self._outputs: tuple[Value, ...] = ()
        self.nodes: dict[Node, None] = {}
        self.provenance = Provenance()

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

    @property
    def outputs(self) -> tuple[Value, ...]:
        """What the graph computes. Rewrites keep these values."""
        return self._outputs

    @outputs.setter
    def outputs(self, outputs: Sequence[Value]) -> None:
        self._outputs = tuple(outputs)
        for value in self._outputs:
            value.is_output = True

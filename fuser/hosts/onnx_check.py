"""The checks of an ONNX graph that is read: every name is defined once, and nothing depends on itself.

`onnx.checker` refuses operators and opsets that it does not know; here they are left alone.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import onnx

from fuser.errors import InputError

Nodes = Sequence[onnx.NodeProto]


@dataclass
class Found:
    """Whether every node is behind those whose results it reads, and the names of all `value_info`."""

    sorted: bool = True
    declared: set[str] = field(default_factory=set)


def check(model: onnx.ModelProto, where: str) -> Found:
    """Check a model called `where`.

    Raises:
        InputError: a name is defined twice or not at all, or nodes read one another's results in a cycle.
    """
    checker = _Check(where)
    missing = checker.graph(model.graph, frozenset())
    assert not missing, "names that nothing defines are refused where they are read"
    for function in model.functions:
        checker.function(function)
    return checker.found


class _Check:
    def __init__(self, where: str) -> None:
        self.where = where
        self.found = Found()

    def graph(self, graph: onnx.GraphProto, around: frozenset[str]) -> set[str]:
        """Check a graph inside a scope that has the names `around`; returns those of them that it reads."""
        inputs = [value.name for value in graph.input]
        stored = [tensor.name for tensor in graph.initializer]
        stored += [tensor.values.name for tensor in graph.sparse_initializer]
        self._once(inputs, "graph input")
        self._once(stored, "initializer")
        outputs = [value.name for value in graph.output]
        self.found.declared.update(info.name for info in graph.value_info)
        return self._nodes(graph.node, {*inputs, *stored}, around, outputs, graph.name)

    def function(self, function: onnx.FunctionProto) -> None:
        """Check a local function, which sees nothing around it."""
        self._once(function.input, f"input of the function {function.name}")
        self._nodes(function.node, set(function.input), frozenset(), function.output, function.name)

    def _once(self, names: Iterable[str], what: str) -> None:
        seen: set[str] = set()
        for name in names:
            if name in seen:
                raise self._invalid(f"two {what}s are called {name!r}")
            seen.add(name)

    def _nodes(
        self, nodes: Nodes, given: set[str], around: frozenset[str], outputs: Iterable[str], graph: str
    ) -> set[str]:
        """Check nodes that see `given` and `around`; returns what they read of `around`."""
        makers = self._makers(nodes, given)
        visible = around.union(given, makers)
        reads: list[list[int]] = []
        outer: set[str] = set()
        for index, node in enumerate(nodes):
            names = {name for name in node.input if name}
            for body in _bodies(node):
                names |= self.graph(body, visible)
            for name in sorted(names - visible):
                raise self._invalid(f"node {_label(node)} reads {name!r}, which nothing defines")
            reads.append(sorted(makers[name] for name in names if name in makers))
            self.found.sorted &= not reads[-1] or reads[-1][-1] < index
            outer |= names
        for name in outputs:
            if name not in visible:
                raise self._invalid(f"nothing makes the output {name!r} of {graph!r}")
            outer.add(name)
        if not self.found.sorted:
            self._acyclic(nodes, reads)
        return outer - given - makers.keys()

    def _makers(self, nodes: Nodes, given: set[str]) -> dict[str, int]:
        """The index of the node that makes each name."""
        makers: dict[str, int] = {}
        for index, node in enumerate(nodes):
            for name in filter(None, node.output):
                if name in given:
                    raise self._invalid(
                        f"node {_label(node)} makes {name!r}, an input or initializer of the graph"
                    )
                if name in makers:
                    other = _label(nodes[makers[name]])
                    raise self._invalid(f"node {_label(node)} makes {name!r}, and so does node {other}")
                makers[name] = index
        return makers

    def _acyclic(self, nodes: Nodes, reads: list[list[int]]) -> None:
        """Refuse a cycle. `reads` are the indices of the nodes whose results each node reads."""
        import networkx as nx

        edges = ((index, maker) for index, makers in enumerate(reads) for maker in makers)
        try:
            cycle = nx.find_cycle(nx.DiGraph(edges))
        except nx.NetworkXNoCycle:
            return
        names = " <- ".join(_label(nodes[index]) for index in (*(edge[0] for edge in cycle), cycle[0][0]))
        raise self._invalid(f"it has a cycle: {names}")

    def _invalid(self, what: str) -> InputError:
        return InputError(f"{self.where}: the graph is invalid: {what}")


def _bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == onnx.AttributeProto.GRAPHS:
            yield from attribute.graphs


def _label(node: onnx.NodeProto) -> str:
    """How a node is called in a message."""
    if node.name:
        return repr(node.name)
    return f"{node.op_type} of {node.output[0]!r}" if node.output else node.op_type

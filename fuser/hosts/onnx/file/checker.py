"""The checks of an ONNX graph that is read: every name is defined once, and nothing depends on itself.

`onnx.checker` refuses operators and opsets that it does not know; here they are left alone.
"""

from collections.abc import Hashable, Iterable, Sequence

import onnx

from fuser.errors import InputError
from fuser.hosts.onnx.file.walk import bodies

Nodes = Sequence[onnx.NodeProto]


def check(model: onnx.ModelProto, where: str) -> bool:
    """Check a model called `where`; True if every node is behind those whose results it reads.

    Raises:
        InputError: a name is defined twice or not at all, something that needs a name or a type has none, or
            nodes read one another's results in a cycle.
    """
    checker = _Check(where)
    missing = checker.graph(model.graph, frozenset())
    assert not missing, "names that nothing defines are refused where they are read"
    for function in model.functions:
        checker.function(function)
    checker.once([(f.domain, f.name, f.overload) for f in model.functions], "local functions")
    return checker.sorted


class _Check:
    def __init__(self, where: str) -> None:
        self.where = where
        self.sorted = True

    def graph(self, graph: onnx.GraphProto, around: frozenset[str]) -> set[str]:
        """Check a graph inside a scope that has the names `around`; returns those of them that it reads."""
        inputs = [value.name for value in graph.input]
        stored = [tensor.name for tensor in graph.initializer]
        stored += [tensor.values.name for tensor in graph.sparse_initializer]
        self.once(inputs, "graph inputs")
        self.once(stored, "initializers")
        if "" in stored:
            raise self._invalid(f"an initializer of {graph.name!r} has no name")
        outputs = [value.name for value in graph.output]
        return self._nodes(graph.node, {*inputs, *stored}, around, outputs, graph.name)

    def function(self, function: onnx.FunctionProto) -> None:
        """Check a local function, which sees nothing around it."""
        self.once(function.input, f"inputs of the function {function.name}")
        self._nodes(function.node, set(function.input), frozenset(), function.output, function.name)

    def once(self, names: Iterable[Hashable], what: str) -> None:
        seen: set[Hashable] = set()
        for name in names:
            if name in seen:
                raise self._invalid(f"two {what} are called {name!r}")
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
            if node.attribute:
                self._attributes(node)
                for body in bodies(node.attribute):
                    names |= self.graph(body, visible)
            for name in sorted(names - visible):
                raise self._invalid(f"node {_label(node)} reads {name!r}, which nothing defines")
            reads.append(sorted(makers[name] for name in names if name in makers))
            self.sorted &= not reads[-1] or reads[-1][-1] < index
            outer |= names
        for name in outputs:
            if name not in visible:
                raise self._invalid(f"nothing makes the output {name!r} of {graph!r}")
            outer.add(name)
        if not self.sorted:
            self._acyclic(nodes, reads)
        return outer - given - makers.keys()

    def _attributes(self, node: onnx.NodeProto) -> None:
        self.once([entry.name for entry in node.attribute], f"attributes of node {_label(node)}")
        for entry in node.attribute:
            if entry.type == onnx.AttributeProto.UNDEFINED and not entry.ref_attr_name:
                raise self._invalid(f"the attribute {entry.name!r} of node {_label(node)} has no type")

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


def _label(node: onnx.NodeProto) -> str:
    """How a node is called in a message."""
    if node.name:
        return repr(node.name)
    return f"{node.op_type} of {node.output[0]!r}" if node.output else node.op_type

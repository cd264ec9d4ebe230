"""The checks of an ONNX graph that is read: every name is defined once, and before or behind what reads it, without a cycle.

`onnx.checker` refuses operators and opsets that it does not know; here they are left alone.
"""

from collections.abc import Iterable, Iterator, Sequence

import onnx

from fuser.errors import InputError

Nodes = Sequence[onnx.NodeProto]


def is_sorted(model: onnx.ModelProto, where: str) -> bool:
    """Check a model called `where`; whether every node is behind those whose results it reads.

    Raises:
        InputError: a name is defined twice or not at all, or nodes read one another's results in a cycle.
    """
    check = _Check(where)
    missing = check.graph(model.graph, frozenset())
    assert not missing, "names that nothing defines are refused where they are read"
    for function in model.functions:
        check.function(function)
    return check.sorted


class _Check:
    def __init__(self, where: str) -> None:
        self.where = where
        self.sorted = True

    def graph(self, graph: onnx.GraphProto, around: frozenset[str]) -> set[str]:
        """Check a graph inside a scope that has the names `around`; returns those of them that it reads."""
        inputs = [value.name for value in graph.input]
        stored = [tensor.name for tensor in graph.initializer] + [
            t.values.name for t in graph.sparse_initializer
        ]
        self._once(inputs, "graph input")
        self._once(stored, "initializer")
        return self._nodes(
            graph.node, {*inputs, *stored}, around, [value.name for value in graph.output], graph.name
        )

    def function(self, function: onnx.FunctionProto) -> None:
        """Check a local function, which sees nothing around it."""
        self._once(function.input, f"input of the function {function.name}")
        self._nodes(function.node, set(function.input), frozenset(), function.output, function.name)

    def _once(self, names: Iterable[str], what: str) -> None:
        seen: set[str] = set()
        for name in names:
            if name in seen:
                raise InputError(f"{self.where}: the graph is invalid: two {what}s are called {name!r}")
            seen.add(name)

    def _nodes(
        self, nodes: Nodes, given: set[str], around: frozenset[str], outputs: Iterable[str], graph: str
    ) -> set[str]:
        """Check nodes that see `given` and `around`; returns what they read of `around`."""
        makers: dict[str, int] = {}
        for index, node in enumerate(nodes):
            for name in filter(None, node.output):
                if name in given or name in makers:
                    other = (
                        f"node {_label(nodes[makers[name]])}"
                        if name in makers
                        else "a graph input or initializer"
                    )
                    raise InputError(
                        f"{self.where}: the graph is invalid: {name!r} is made by node {_label(node)} and by {other}"
                    )
                makers[name] = index
        visible = around.union(given, makers)
        reads: list[set[str]] = []
        outer: set[str] = set()
        for index, node in enumerate(nodes):
            names = {name for name in node.input if name}
            for body in _bodies(node):
                names |= self.graph(body, visible)
            reads.append({name for name in names if name in makers and name not in given})
            self.sorted &= all(makers[name] < index for name in reads[-1])
            for name in names - given - makers.keys():
                if name not in around:
                    raise InputError(
                        f"{self.where}: the graph is invalid: node {_label(node)} reads {name!r}, which nothing defines"
                    )
                outer.add(name)
        for name in outputs:
            if name not in visible:
                raise InputError(
                    f"{self.where}: the graph is invalid: nothing makes the output {name!r} of {graph!r}"
                )
            if name not in given and name not in makers:
                outer.add(name)
        if not self.sorted:
            self._acyclic(nodes, [[makers[name] for name in sorted(names)] for names in reads])
        return outer

    def _acyclic(self, nodes: Nodes, reads: list[list[int]]) -> None:
        """Refuse a cycle. `reads` are the indices of the nodes whose results each node reads."""
        import networkx

        try:
            cycle = networkx.find_cycle(
                networkx.DiGraph((i, maker) for i, makers in enumerate(reads) for maker in makers)
            )
        except networkx.NetworkXNoCycle:
            return
        names = " <- ".join(_label(nodes[index]) for index in (*(edge[0] for edge in cycle), cycle[0][0]))
        raise InputError(f"{self.where}: the graph is invalid: it has a cycle: {names}")


def _bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == onnx.AttributeProto.GRAPHS:
            yield from attribute.graphs


def _label(node: onnx.NodeProto) -> str:
    """How a node is called in a message."""
    return (
        repr(node.name)
        if node.name
        else f"{node.op_type} of {node.output[0] if node.output else 'nothing'!r}"
    )

"""Names of values and nodes of an ONNX model: those that it uses, and fresh ones."""

from collections.abc import Iterable
from typing import Final

import onnx_ir as ir

_NAMES: Final = "graph_fuser_names"


class Names:
    """The names that a model uses, of values and of nodes; both are unique in the whole model.

    `annotations` are the tensors that quantisation annotations name: they count as read.
    """

    def __init__(self, model: ir.Model) -> None:
        self.values: set[str] = set()
        self.nodes: set[str] = set()
        self.annotations: set[str] = set()
        for graph in (model.graph, *(function.graph for function in model.functions.values())):
            self._collect(graph)

    def _collect(self, graph: ir.Graph) -> None:
        for part in (graph, *graph.subgraphs()):
            made = (output for node in part for output in node.outputs)
            for value in (*part.inputs, *part.initializers.values(), *made):
                self.values.add(value.name or "")
                self.annotations.update((value.meta.get("quant_parameter_tensor_names") or {}).values())
            self.nodes.update(node.name or "" for node in part)

    def release(self, nodes: Iterable[ir.Node], staying: Iterable[ir.Node]) -> None:
        """Give back the names of nodes that go, except those that others have as well."""
        self.nodes -= {node.name or "" for node in nodes} - {node.name or "" for node in staying}

    def fresh(self, wanted: str) -> str:
        """A name for a value."""
        return _unused(wanted or "fused", self.values)

    def fresh_node(self, wanted: str) -> str:
        """A name for a node."""
        return _unused(wanted or "fused", self.nodes)


def _unused(wanted: str, taken: set[str]) -> str:
    name = wanted
    count = 0
    while name in taken:
        count += 1
        name = f"{wanted}_{count}"
    taken.add(name)
    return name


def names_of(model: ir.Model) -> Names:
    """The names of a model, collected once."""
    if _NAMES not in model.meta:
        model.meta[_NAMES] = Names(model)
    names: Names = model.meta[_NAMES]
    return names

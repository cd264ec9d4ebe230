"""Extents that a traced graph asks for and passes on: `x.shape[2]`, `x.size(0)`, and what is built with them."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import fx

from fuser.hosts.fx_call import canonical, name_of
from fuser.ir import Dim, Value

Shape = tuple[Dim, ...]


class Sizes:
    """What the nodes that ask for extents return, as far as it is known."""

    def __init__(self, values: Mapping[fx.Node, Value]) -> None:
        self.values = values
        self.known: dict[fx.Node, Shape | Dim] = {}

    def ask(self, node: fx.Node) -> None:
        """Note what a node returns, if it asks for extents."""
        name, source = name_of(node), node.args[0] if node.args else None
        if not isinstance(source, fx.Node):
            return
        shape = self.values[source].shape if source in self.values else None
        index = node.args[1] if len(node.args) > 1 else None
        if name == "getitem" and isinstance(index, int) and isinstance(self.known.get(source), tuple):
            dims = self.known[source]
            assert isinstance(dims, tuple)
            if -len(dims) <= index < len(dims):
                self.known[node] = dims[index]
        elif shape is not None and ((name == "getattr" and index == "shape") or (name == "size" and index is None)):
            self.known[node] = shape
        elif shape is not None and name == "size" and isinstance(index, int) and -len(shape) <= index < len(shape):
            self.known[node] = shape[index]

    def made(self, node: fx.Node) -> Shape | None:
        """The shape of what is built to a size: interpolated, or reshaped."""
        kind = canonical(name_of(node))
        source = node.args[0] if node.args else None
        x = self.values.get(source) if isinstance(source, fx.Node) else None
        if kind == "interpolate" and x is not None and x.shape is not None:
            size = node.args[1] if len(node.args) > 1 else node.kwargs.get("size")
            dims = self._dims(size if isinstance(size, list | tuple) else [size])
            return (*x.shape[:2], *dims) if size is not None and len(dims) == len(x.shape) - 2 else None
        if name_of(node) in {"reshape_as", "view_as"} and isinstance(node.args[1], fx.Node):
            return self.values[node.args[1]].shape
        if kind == "reshape" and len(node.args) > 1:
            first = node.args[1]
            entries = first if isinstance(first, list | tuple) else node.args[1:]
            whole = any(isinstance(entry, fx.Node) and isinstance(self.known.get(entry, ()), tuple) for entry in entries)
            return None if whole else self._dims(entries)
        return None

    def _dims(self, entries: Sequence[Any]) -> Shape:
        dims: list[Dim] = []
        for entry in entries:
            known = self.known.get(entry) if isinstance(entry, fx.Node) else entry
            dims.append(known if isinstance(known, str) or (isinstance(known, int) and known >= 0) else None)
        return tuple(dims)

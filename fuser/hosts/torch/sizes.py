"""Extents that a traced graph asks for, `x.shape[2]` or `x.size(0)`, and what is built with them."""

import operator
from collections.abc import Mapping, Sequence
from typing import Any

from torch import fx

from fuser.hosts.torch.call import canonical
from fuser.hosts.torch.identity import name_of
from fuser.hosts.torch.shapes import product, remainder
from fuser.ir.extents import Dim, affine
from fuser.ir.node import Value

Shape = tuple[Dim, ...]


class Sizes:
    """What the nodes that ask for extents return, as far as it is known."""

    def __init__(self, values: Mapping[fx.Node, Value]) -> None:
        self.values = values
        self.known: dict[fx.Node, Shape | Dim] = {}

    def ask(self, node: fx.Node) -> None:
        """Note what a node returns, if it asks for extents or computes with them."""
        name, source = name_of(node), node.args[0] if node.args else None
        if node.op == "call_function" and any(read in self.known for read in node.all_input_nodes):
            self._compute(node)
        if not isinstance(source, fx.Node):
            return
        shape = self.values[source].shape if source in self.values else None
        index = node.args[1] if len(node.args) > 1 else None
        if name == "getitem" and isinstance(index, int) and isinstance(self.known.get(source), tuple):
            dims = self.known[source]
            assert isinstance(dims, tuple)
            if -len(dims) <= index < len(dims):
                self.known[node] = dims[index]
        elif shape is not None and (
            (name == "getattr" and index == "shape") or (name == "size" and index is None)
        ):
            self.known[node] = shape
        elif (
            shape is not None
            and name == "size"
            and isinstance(index, int)
            and -len(shape) <= index < len(shape)
        ):
            self.known[node] = shape[index]

    def _compute(self, node: fx.Node) -> None:
        """Note H * W, H + 1, H - 1 or H // 2."""
        dims = self._dims(node.args)
        if len(dims) != 2 or None in dims:
            return
        left, right = dims
        if node.target is operator.mul:
            self.known[node] = product(dims)
        elif not isinstance(right, int):
            return
        elif node.target in {operator.add, operator.sub}:
            self.known[node] = affine(left, right if node.target is operator.add else -right)
        elif node.target is operator.floordiv and right > 0:
            self.known[node] = affine(left, divisor=right)

    def made(self, node: fx.Node) -> Shape | None:
        """The shape of what is built to a size: interpolated, or reshaped."""
        kind = canonical(name_of(node))
        source = node.args[0] if node.args else None
        x = self.values.get(source) if isinstance(source, fx.Node) else None
        if kind == "interpolate" and x is not None and x.shape is not None:
            size = node.args[1] if len(node.args) > 1 else node.kwargs.get("size")
            dims = self._dims(size if isinstance(size, list | tuple) else [size])
            return (*x.shape[:2], *dims) if size is not None and len(dims) == len(x.shape) - 2 else None
        if x is not None and x.shape is not None and kind in {"permute", "transpose", "unsqueeze"}:
            return _moved(kind, x.shape, [*node.args[1:], *node.kwargs.values()])
        if name_of(node) in {"reshape_as", "view_as"} and isinstance(node.args[1], fx.Node):
            return self.values[node.args[1]].shape
        if kind == "reshape" and len(node.args) > 1:
            first = node.args[1]
            entries = first if isinstance(first, list | tuple) else node.args[1:]
            whole = any(
                isinstance(entry, fx.Node) and isinstance(self.known.get(entry, ()), tuple)
                for entry in entries
            )
            return None if whole else self._filled(x, self._dims(entries), entries)
        return None

    @staticmethod
    def _filled(x: Value | None, dims: Shape, entries: Sequence[Any]) -> Shape:
        """The shape with the extent that -1 stands for, where it follows from those of `x`."""
        if x is None or x.shape is None or -1 not in entries:
            return dims
        at = list(entries).index(-1)
        return (*dims[:at], remainder(x.shape, (*dims[:at], *dims[at + 1 :])), *dims[at + 1 :])

    def parts(self, node: fx.Node, indices: Sequence[int]) -> list[Shape] | None:
        """The shapes of those parts of a split tensor."""
        source = node.args[0] if node.args else None
        x = self.values.get(source) if isinstance(source, fx.Node) else None
        if (
            x is None
            or x.shape is None
            or canonical(name_of(node)) not in {"split", "chunk"}
            or len(node.args) < 2
        ):
            return None
        wanted = node.args[1]
        axis = node.args[2] if len(node.args) > 2 else node.kwargs.get("dim", 0)
        if not isinstance(axis, int) or not -len(x.shape) <= axis < len(x.shape):
            return None
        dims = []
        for index in indices:
            extent: Dim = None
            total = x.shape[axis]
            if isinstance(wanted, list | tuple) and isinstance(wanted[index], int):
                extent = wanted[index]
            elif isinstance(wanted, int) and isinstance(total, int):
                size = wanted if canonical(name_of(node)) == "split" else -(-total // wanted)
                extent = min(size, total - index * size)
            dims.append(extent)
        place = axis % len(x.shape)
        return [(*x.shape[:place], extent, *x.shape[place + 1 :]) for extent in dims]

    def _dims(self, entries: Sequence[Any]) -> Shape:
        dims: list[Dim] = []
        for entry in entries:
            known = self.known.get(entry) if isinstance(entry, fx.Node) else entry
            dims.append(known if isinstance(known, str) or (isinstance(known, int) and known >= 0) else None)
        return tuple(dims)


def _moved(kind: str, shape: Shape, arguments: Sequence[Any]) -> Shape | None:
    """The shape behind permute, transpose or unsqueeze."""
    flat = [n for entry in arguments for n in (entry if isinstance(entry, list | tuple) else [entry])]
    rank = len(shape)
    if not all(isinstance(n, int) and -rank - 1 <= n <= rank for n in flat):
        return None
    if kind == "unsqueeze" and len(flat) == 1:
        at = flat[0] % (rank + 1)
        return (*shape[:at], 1, *shape[at:])
    if kind == "permute" and len(flat) == rank:
        return tuple(shape[n] for n in flat)
    if kind == "transpose" and len(flat) == 2:
        order = list(range(rank))
        a, b = flat[0] % rank, flat[1] % rank
        order[a], order[b] = order[b], order[a]
        return tuple(shape[n] for n in order)
    return None

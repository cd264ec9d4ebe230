"""What works in place: in a graph each value is one thing for ever, in fx a tensor may be changed.

An operator says what it changes, by its schema or by its name. What a function is given that is not torch's
is taken to be left as it was, as torch.fx itself has it, unless it is a tensor of the module's own.
Where a change is seen through its result alone, the operator computes the same out of place, and whoever
reads the tensor later reads the result. Where the tensor has other names, views of it or the module's own
buffer, nothing is known: all that touches it stays where it is.
"""

import operator
from collections.abc import Callable, Iterator
from copy import copy
from typing import Any, Final

import torch
from torch import fx, nn

from fuser.hosts.torch.functions import kind_of, read
from fuser.hosts.torch.identity import canonical, name_of, of_torch
from fuser.hosts.torch.modules import is_plain, makes_its_own
from fuser.hosts.torch.own import FRESH

HARMLESS: Final = frozenset({"detach_", "requires_grad_"})

Modules = Callable[[fx.Node], nn.Module | None]


def resolve_effects(graph: fx.Graph, modules: Modules) -> frozenset[fx.Node]:
    """Let later readers of a tensor that is changed in place read the result of the change.

    Returns the nodes whose result may be changed unseen; they, and whoever reads them, are to be left alone.
    """
    order = {node: index for index, node in enumerate(graph.nodes)}
    views = _Views()
    pinned: set[fx.Node] = set()
    for node in graph.nodes:
        changed = list(mutated(node, modules))
        for operand in changed:
            _settle(node, operand, views, order, pinned, modules)
        for source in changed or _viewed(node, modules):
            views.join(node, source)
        pinned.update(read for read in node.all_input_nodes if read.op == "get_attr" and _may_write(node))
    for node in list(pinned):
        pinned.update(views.members(node))
    return frozenset(pinned)


def _settle(
    node: fx.Node,
    changed: fx.Node,
    views: "_Views",
    order: dict[fx.Node, int],
    pinned: set[fx.Node],
    modules: Modules,
) -> None:
    others = [other for other in views.members(changed) if other is not changed]
    seen = any(order[user] > order[node] for other in others for user in other.users)
    outside = any(other.op in {"placeholder", "get_attr"} for other in (*others, changed))
    if seen or outside or functional(node, modules) is None or node.target is operator.setitem:
        pinned.update((node, changed, *others))
        return
    # Later readers of the tensor read what it is then.
    changed.replace_all_uses_with(node, delete_user_cb=lambda user: order[user] > order[node])


class _Views:
    """Groups of nodes that may share memory."""

    def __init__(self) -> None:
        self._groups: dict[fx.Node, list[fx.Node]] = {}

    def members(self, node: fx.Node) -> list[fx.Node]:
        return self._groups.get(node, [node])

    def join(self, a: fx.Node, b: fx.Node) -> None:
        large, small = sorted((self.members(a), self.members(b)), key=len, reverse=True)
        if large is small:
            return
        large.extend(small)
        for member in (large[0], *small):
            self._groups[member] = large


def mutated(node: fx.Node, modules: Modules) -> Iterator[fx.Node]:
    """The operands that a node changes."""
    for operand in _changed(node, modules):
        if isinstance(operand, fx.Node):
            yield operand


def _changed(node: fx.Node, modules: Modules) -> Iterator[Any]:
    if node.op not in {"call_function", "call_method", "call_module"} or name_of(node) in HARMLESS:
        return
    if node.op == "call_module":
        module = modules(node)
        # Dropout that drops nothing changes nothing.
        if getattr(module, "inplace", False) is True and not isinstance(
            module, nn.modules.dropout._DropoutNd
        ):
            yield from node.args[:1]
        return
    if canonical(name_of(node)) == "batch_norm":
        bound = read(node)
        yield from bound.operands[3:] if bound.call.attributes.get("training_mode") else ()
    elif isinstance(node.target, torch._ops.OpOverload):
        yield from _written(node, node.target)
    elif isinstance(node.target, torch._ops.OpOverloadPacket):
        for overload in node.target.overloads():
            yield from _written(node, getattr(node.target, overload))
    elif not isinstance(node.target, torch._ops.HigherOrderOperator):
        if in_place_name(node) or node.kwargs.get("inplace") is True or _positional_inplace(node):
            yield from node.args[:1] or list(node.kwargs.values())[:1]
        out = node.kwargs.get("out")
        yield from out if isinstance(out, list | tuple) else [out]


def _may_write(node: fx.Node) -> bool:
    """Whether a node calls a function, or a method of an object, of which nothing is known."""
    operators = torch._ops.OperatorBase | torch._ops.OpOverloadPacket
    if isinstance(node.target, operators) or node.op not in {"call_function", "call_method"}:
        return False
    return not name_of(node) and not of_torch(node.target)


def _written(node: fx.Node, overload: Any) -> Iterator[Any]:
    """The operands that the schema of an operator says are written to."""
    arguments = overload._schema.arguments
    given = dict(zip((a.name for a in arguments), node.args, strict=False)) | dict(node.kwargs)
    for a in arguments:
        if a.name in given and a.alias_info is not None and a.alias_info.is_write:
            yield from given[a.name] if isinstance(given[a.name], list | tuple) else [given[a.name]]


def in_place_name(node: fx.Node) -> bool:
    """Whether a function or method says by its name that it changes its first operand."""
    name = name_of(node) or str(getattr(node.target, "__name__", ""))
    bare = name.strip("_")
    return (name.endswith("_") and not name.endswith("__")) or (
        name.startswith("__i") and bare[1:] in _ARITHMETIC
    )


_ARITHMETIC: Final = frozenset(
    ["add", "sub", "mul", "truediv", "floordiv", "pow", "and", "or", "xor", "matmul"]
)

# The position of `inplace` among the arguments of a function of torch.nn.functional.
_INPLACE_POSITION: Final[dict[str, int]] = {
    "relu": 1,
    "relu6": 1,
    "silu": 1,
    "mish": 1,
    "hardswish": 1,
    "hardsigmoid": 1,
    "selu": 1,
    "elu": 2,
    "celu": 2,
    "leaky_relu": 2,
    "hardtanh": 3,
}


def _positional_inplace(node: fx.Node) -> bool:
    position = _INPLACE_POSITION.get(name_of(node)) if node.op == "call_function" else None
    return position is not None and len(node.args) > position and node.args[position] is True


def aliased(node: fx.Node, modules: Modules) -> list[fx.Node]:
    """The operands that the result of a node may be, or may be a view of."""
    return list(mutated(node, modules)) or _viewed(node, modules)


def _viewed(node: fx.Node, modules: Modules) -> list[fx.Node]:
    """The same for a node that changes nothing."""
    if node.op == "call_module":
        return [] if makes_its_own(modules(node)) else list(node.all_input_nodes)
    if node.op in {"placeholder", "get_attr", "output"} or kind_of(node) in FRESH:
        return []
    if name_of(node) == "getattr" and node.args[1] in {"shape", "ndim", "dtype", "device"}:
        return []
    return list(node.all_input_nodes)


def functional(node: fx.Node, modules: Modules) -> Any:
    """What computes out of place what `node` computes in place: a target or a module, or None."""
    if node.op == "call_module":
        module = modules(node)
        return type(module) if module is not None and is_plain(module) else None
    if node.kwargs.get("inplace") is True or _positional_inplace(node):
        return node.target if name_of(node) else None
    if node.target in _OPERATORS:
        return _OPERATORS[node.target]
    bare = name_of(node).removesuffix("_")
    if bare in {"", name_of(node)}:
        return None
    if node.op == "call_method":
        return bare if hasattr(torch.Tensor, bare) else None
    if isinstance(node.target, torch._ops.OpOverload):
        return getattr(getattr(torch.ops.aten, bare, None), node.target._overloadname, None)
    function = getattr(torch, bare, None)
    return function if of_torch(function) else None


_OPERATORS: Final[dict[Any, Any]] = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
}


def make_functional(node: fx.Node, modules: Modules) -> nn.Module | None:
    """Let a node that works in place compute the same out of place.

    Returns the module to be called instead, where the node calls a module.
    """
    target = functional(node, modules)
    if node.op == "call_module":
        copied = copy(modules(node))
        assert copied is not None
        copied.inplace = False
        return copied
    if "inplace" in node.kwargs:
        node.kwargs = {**node.kwargs, "inplace": False}
    position = _INPLACE_POSITION.get(name_of(node), len(node.args))
    node.args = tuple(False if i == position else value for i, value in enumerate(node.args))
    node.target = target
    return None

"""Descriptions of results: the fake tensors that a tracer leaves at each node, kept true."""

from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

Read = Callable[[str], Any]


def described(node: fx.Node) -> Any:
    """What the tracer knows of the result: a fake tensor, or a tuple of them; None where it knows nothing."""
    return node.meta.get("val", node.meta.get("example_value"))


def refresh(graph: fx.Graph, known: set[fx.Node], read: Read) -> None:
    """Describe the nodes that are not in `known`, and again what reads a result that is not as it was.

    Only where the graph is described at all. `read` gives what a path leads to: a module or a tensor.
    """
    key = next((k for node in graph.nodes for k in ("val", "example_value") if k in node.meta), None)
    mode = fake_mode(graph)
    if key is None or mode is None:
        return
    changed: set[fx.Node] = set()
    for node in graph.nodes:
        new = node not in known
        if node.op not in {"call_function", "call_method", "call_module", "get_attr"}:
            continue
        if not new and changed.isdisjoint(node.all_input_nodes):
            continue
        before = node.meta.get(key)
        try:
            after = _describe(node, key, mode, read)
        except (RuntimeError, TypeError, ValueError, KeyError, AttributeError):
            # What cannot be evaluated here, a graph in the graph, keeps what the tracer said of it.
            if new:
                node.meta.pop(key, None)
            continue
        if new or _outline(before) != _outline(after):
            node.meta[key] = after
            changed.add(node)


def fake_mode(graph: fx.Graph) -> FakeTensorMode | None:
    """The mode that the descriptions belong to."""
    for node in graph.nodes:
        for key in ("val", "example_value"):
            if isinstance(node.meta.get(key), FakeTensor):
                return node.meta[key].fake_mode
    return None


def _describe(node: fx.Node, key: str, mode: FakeTensorMode, read: Read) -> Any:
    if node.op == "get_attr":
        return mode.from_tensor(read(str(node.target)), static_shapes=True)
    args, kwargs = fx.map_arg((node.args, node.kwargs), lambda operand: operand.meta[key])
    with mode, torch.no_grad():
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        if node.op == "call_function":
            assert callable(node.target)
            return node.target(*args, **kwargs)
        module = read(str(node.target))
        assert isinstance(module, nn.Module)
        tensors = {
            name: mode.from_tensor(tensor, static_shapes=True)
            for name, tensor in (*module.named_parameters(), *module.named_buffers())
        }
        return torch.func.functional_call(module, tensors, args, kwargs)


def _outline(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return tuple(str(n) for n in value.shape), value.dtype
    return tuple(map(_outline, value)) if isinstance(value, list | tuple) else None

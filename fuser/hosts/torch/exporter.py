"""The rewritten graph back into fx: a diff, applied in place to the fx graph that was imported.

Nodes that no rewrite touched stay as they are. What a rewrite made takes the place of what it replaced and is
named after the block that it came from.
"""

import operator
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import fx, nn

from fuser.algebra.conv import Conv
from fuser.hosts.torch.effects import aliased, make_functional, mutated
from fuser.hosts.torch.host import Emit, FxHost, lower
from fuser.ir.constant import Constant
from fuser.ir.graph import Graph
from fuser.ir.node import Node, Value
from fuser.ir.provenance import flatten


@dataclass(frozen=True)
class Block:
    """What a new node replaces, as far as its layers take after it.

    `name` is the module path that they get, `like` a parameter that they replace, `example` the node whose
    value they make.
    """

    name: str
    like: torch.Tensor | None
    trainable: bool
    channels_last: bool
    dtype: torch.dtype
    example: fx.Node


class Store(Protocol):
    """Where layers and constants are kept: modules of a GraphModule, or the state of an exported program."""

    def emit(self, graph: fx.Graph, block: Block) -> Emit[fx.Node]:
        """What makes nodes at the insertion point of the graph."""

    def constant(self, graph: fx.Graph, constant: Constant, block: Block) -> fx.Node:
        """A node for a constant that the graph computed before."""

    def module(self, name: str, module: nn.Module) -> str:
        """Keep a module; returns its path."""


def export_fx(
    graph: Graph, owner: nn.Module, tensors: Mapping[fx.Node, tuple[str, torch.Tensor]], store: Store
) -> list[fx.Node]:
    """Apply what was rewritten in `graph` to the fx graph behind it, in place.

    Returns the nodes for parameters and buffers that nobody reads any more; they are still there.
    """
    assert isinstance(graph.host, FxHost), f"{graph.name} does not come from fx"
    return _Export(graph, graph.host, owner, tensors, store).run()


class _Export:
    def __init__(
        self,
        graph: Graph,
        host: FxHost,
        owner: nn.Module,
        tensors: Mapping[fx.Node, tuple[str, torch.Tensor]],
        store: Store,
    ) -> None:
        self.graph = graph
        self.host = host
        self.modules = dict(owner.named_modules(remove_duplicate=False))
        self.tensors = tensors
        self.store = store
        self.made: dict[Value, fx.Node] = {}
        self.constants: dict[Value, fx.Node] = {}
        self.known = set(host.order)
        self.separated: dict[str, str] = {}

    def run(self) -> list[fx.Node]:
        """Make new nodes, reconnect, and remove old ones."""
        nodes = self.graph.ordered()
        alive = {node.source for node in nodes if node.source is not None}
        gone = [node for node in self.host.order if node.op.startswith("call") and node not in alive]
        gone = [node for node in gone if not self._is_part_of(node, alive)]
        read = {node: bool(node.users) for node in self.tensors}
        for node in nodes:
            if node.source is None:
                self._lower(node)
        for node in nodes:
            if isinstance(node.source, fx.Node):
                self._reconnect(node, node.source)
        for old in reversed(gone):
            if old in self.host.views and old.users:
                continue
            assert not old.users, f"{old.name} is read by {list(old.users)}, and was to be removed"
            self.host.graph.erase_node(old)
        for node in nodes:
            if isinstance(node.source, fx.Node):
                self._separate(node.source)
        return [node for node, used in read.items() if not node.users and used]

    @staticmethod
    def _is_part_of(node: fx.Node, alive: set[object]) -> bool:
        """Whether the node takes a part out of a tuple that is still made."""
        return node.target is operator.getitem and node.args[0] in alive

    def _lower(self, node: Node) -> None:
        """Insert the fx nodes for a node that a rewrite made, before the one in whose place it stands."""
        output = node.outputs[0]
        place = self.host.order[node.position[0]]
        example = self.host.values.get(output, place)
        inputs = [self._node(value, place) for value in node.inputs if value is not None]
        with self.host.graph.inserting_before(place):
            emit = self.store.emit(self.host.graph, self._block(node, example))
            self.made[output] = lower(node.op, output, inputs, emit)

    def _node(self, value: Value, place: fx.Node) -> fx.Node:
        """The fx node of a value, made now if it is a constant that has none."""
        if value in self.made:
            return self.made[value]
        node = self.host.values.get(value)
        stored = value.constant is not None and value.producer is None
        if node is not None and not (stored and node.op.startswith("call") and node not in self.host.views):
            return node
        if value not in self.constants:
            assert value.constant is not None, f"nothing makes {value.name}"
            first = min([place, *([node] if node is not None else [])], key=self.host.order.index)
            with self.host.graph.inserting_before(first):
                block = self._constant_block(value.constant, first)
                self.constants[value] = self.store.constant(self.host.graph, value.constant, block)
        return self.constants[value]

    def _reconnect(self, node: Node, source: fx.Node) -> None:
        """Let an untouched fx node read what now stands for what it read."""
        current = {value for value in (*node.inputs, *node.parameters) if value is not None}
        for old in self.host.inputs[source]:
            before = None if old is None else self.host.values.get(old)
            if old is None or before is None:
                continue
            new = self.graph.provenance.redirected(node).get(old, old)
            while new not in current and new in self.graph.provenance.successors:
                new = self.graph.provenance.successors[new]
            after = self._node(new, source)
            if after is not before:
                source.replace_input_with(before, after)

    def _separate(self, node: fx.Node) -> None:
        """An operator in place must not change what others read, its operand being another now."""
        for changed in mutated(node, self._module):
            made = changed not in self.known
            fresh = made or (changed.op.startswith("call") and not aliased(changed, self._module))
            chained = any(True for _ in mutated(changed, self._module)) and len(changed.users) == 1
            if self._was_private(node) and not (len(changed.users) == 1 and (fresh or chained)):
                module = make_functional(node, self._module)
                if module is not None:
                    path = str(node.target)
                    self.separated[path] = self.separated.get(path) or self.store.module(path, module)
                    node.target = self.separated[path]
            return

    def _was_private(self, node: fx.Node) -> bool:
        """Whether the change was seen through its result alone; all else was left as it is."""
        return node not in self.host.pinned

    def _module(self, node: fx.Node) -> nn.Module | None:
        return self.modules.get(str(node.target)) if node.op == "call_module" else None

    def _block(self, node: Node, example: fx.Node) -> Block:
        stated = flatten(self.graph.provenance.origin([node]))
        steps = [(step, self.host.order[step.position[0]]) for step in stated]
        found = [tensor for _, source in steps for tensor in self._tensors(source)]
        floats = [tensor for tensor in found if tensor.is_floating_point()]
        layers = [
            source for step, source in steps if isinstance(step.lifted, Conv) and not step.lifted.pointwise
        ]
        dtype = node.outputs[0].dtype
        assert dtype is not None, f"the element type of {node.outputs[0].name} is not known"
        return Block(
            block_name([_path(source) for source in layers] or [_path(source) for _, source in steps]),
            floats[0] if floats else None,
            any(tensor.requires_grad for tensor in floats)
            or not any(isinstance(t, nn.Parameter) for t in floats),
            any(is_channels_last(tensor) for tensor in floats),
            getattr(torch, dtype),
            example,
        )

    def _constant_block(self, constant: Constant, source: fx.Node) -> Block:
        """A constant is named after what computed it, and trained on if what it was computed from was."""
        above = [source]
        for node in above:
            above.extend(read for read in node.all_input_nodes if read not in above)
        found = [tensor for node in above for tensor in self._tensors(node)]
        trainable = any(tensor.requires_grad for tensor in found)
        dtype = getattr(torch, constant.dtype)
        return Block(
            f"{_path(source)}.computed", found[0] if found else None, trainable, False, dtype, source
        )

    def _tensors(self, source: fx.Node) -> Iterator[torch.Tensor]:
        module = self._module(source)
        if module is not None:
            yield from module.parameters()
            yield from module.buffers()
        for node in source.all_input_nodes:
            if node in self.tensors:
                yield self.tensors[node][1]


def kept(graph: Graph) -> list[fx.Node]:
    """The fx nodes that no rewrite touched, and the parameters and buffers that they read."""
    assert isinstance(graph.host, FxHost), f"{graph.name} does not come from fx"
    found = [node.source for node in graph.nodes if isinstance(node.source, fx.Node)]
    for node in found:
        stored = [n for n in node.all_input_nodes if n.op == "get_attr" or n in graph.host.views]
        given = [n for n in node.all_input_nodes if n.op == "placeholder"]
        found.extend(n for n in (*stored, *given) if n not in found)
    return found


def _path(node: fx.Node) -> str:
    """The path of the module that a node comes from."""
    if node.op == "call_module":
        return str(node.target)
    stack = node.meta.get("nn_module_stack")
    path = str(next(reversed(stack.values()))[0]) if stack else ""
    if not path.startswith("L["):
        return path or node.name
    # torch.compile has `L['self']._modules['conv']`.
    names = re.findall(r"_modules\['([^']+)'\]", path) or re.findall(
        r"\w+", re.sub(r"L\['\w+'\]\.?", "", path)
    )
    return ".".join(names) or node.name


def block_name(paths: list[str]) -> str:
    """One layer keeps its path; what several became is called `fused` in the module that holds them all."""
    distinct = list(dict.fromkeys(paths))
    if len(distinct) == 1:
        return distinct[0]
    common: list[str] = []
    for parts in zip(*(path.split(".") for path in distinct), strict=False):
        if len(set(parts)) > 1:
            break
        common.append(parts[0])
    return ".".join([*common, "fused"])


def is_channels_last(tensor: torch.Tensor) -> bool:
    """Whether a kernel lies in memory with the channels last; strides tell it of a 1x1 kernel too."""
    if tensor.ndim not in {4, 5}:
        return False
    like = torch.empty(tensor.shape, device="meta")
    return bool(tensor.stride() == channels_last(like).stride() != like.stride())


def channels_last(tensor: torch.Tensor) -> torch.Tensor:
    """A kernel of two or three spatial axes with its channels last in memory; others as they are."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    return tensor.to(memory_format=formats.get(tensor.ndim, torch.preserve_format))

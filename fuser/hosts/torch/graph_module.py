"""GraphModules: rewriting one, and building the result with tensors of its own."""

import warnings
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import fx, nn

from fuser.hosts.torch.describe import refresh
from fuser.hosts.torch.emit import ModuleEmit, computed
from fuser.hosts.torch.exporter import Block, export_fx, kept
from fuser.hosts.torch.modules import duplicate
from fuser.hosts.torch.names import Paths, node_name
from fuser.ir.constant import Constant
from fuser.ir.graph import Graph

Tensors = dict[fx.Node, tuple[str, torch.Tensor]]


def attribute(owner: nn.Module, path: str) -> Any:
    """What `path`, with dots in it, leads to."""
    found: Any = owner
    for name in path.split("."):
        found = getattr(found, name)
    return found


def read_tensors(graph: fx.Graph, owner: nn.Module) -> Tensors:
    """The parameters, buffers and constants that a graph gets from the module that owns it."""
    found: Tensors = {}
    for node in graph.nodes:
        if node.op == "get_attr":
            value = attribute(owner, str(node.target))
            if isinstance(value, torch.Tensor):
                found[node] = str(node.target), value
    return found


def copied(graph: fx.Graph) -> fx.Graph:
    """A graph that may be edited, with the signature of the given one."""
    with warnings.catch_warnings():
        # Torch warns of what its own copying does.
        warnings.filterwarnings("ignore", r".*isinstance\(treespec, LeafSpec\)", FutureWarning)
        copy: fx.Graph = deepcopy(graph)
    for old, new in zip(graph.nodes, copy.nodes, strict=True):
        # A copy renames what is called like a function of Python, and signatures go by name.
        new.name = old.name
    return copy


def export_module(
    graph: Graph, source: fx.Graph, owner: nn.Module, tensors: Tensors, name: str
) -> fx.GraphModule:
    """The rewritten graph as a GraphModule that shares no tensor with `owner`.

    Args:
        graph: the graph of passes.
        source: the fx graph behind it, which is edited and then belongs to the result.
        owner: what the fx graph was traced from.
        tensors: what its nodes for parameters and buffers stand for; inputs among them become attributes, not
        copied.
        name: the class of the result.
    """
    store = _Store(
        owner, {str(node.target) for node in kept(graph) if node.op in {"call_module", "get_attr"}}
    )
    known = set(source.nodes)
    export_fx(graph, owner, tensors, store)
    _adopt(source, tensors, store)
    for node in reversed(source.nodes):
        if node.op == "get_attr" and not node.users:
            source.erase_node(node)
    refresh(source, known, lambda path: store.added[path] if path in store.added else attribute(owner, path))
    _rename((node for node in source.nodes if node not in known), store)
    return assemble(owner, source, store.added, name)


def _adopt(source: fx.Graph, tensors: Tensors, store: "_Store") -> None:
    """Turn the inputs that stand for parameters into attributes."""
    for node, (path, tensor) in tensors.items():
        if node.op != "placeholder":
            continue
        if node.users:
            with source.inserting_before(node):
                read = store.read(source, store.keep(path, tensor))
            read.meta.update(node.meta)
            node.replace_all_uses_with(read)
        source.erase_node(node)


class _Store:
    """New layers and parameters by path. Paths of the original that are still in use are not taken."""

    def __init__(self, owner: nn.Module, kept: Iterable[str]) -> None:
        self.owner = owner
        self.paths = Paths(kept)
        self.added: dict[str, nn.Module | torch.Tensor] = {}
        self.shared: dict[str, str] = {}
        self.graph: fx.Graph | None = None

    def emit(self, graph: fx.Graph, block: Block) -> ModuleEmit:
        self.graph = graph
        return ModuleEmit(graph, block, self)

    def call(self, name: str, key: str, make: Callable[[], nn.Module], x: fx.Node) -> fx.Node:
        """A call of a layer; equal ones are made once."""
        if key not in self.shared:
            self.shared[key] = self.module(name, make())
        assert self.graph is not None
        return self.graph.call_module(self.shared[key], (x,))

    def tensor(self, name: str, tensor: nn.Parameter) -> fx.Node:
        """A read of a new parameter."""
        assert self.graph is not None
        return self.read(self.graph, self.keep(name, tensor))

    def module(self, name: str, module: nn.Module) -> str:
        """Keep a module under `name`, or one like it if that is taken."""
        return self.keep(name, module)

    def constant(self, graph: fx.Graph, constant: Constant, block: Block) -> fx.Node:
        """A read of a new parameter or buffer."""
        return self.read(graph, self.keep(block.name, computed(constant, block)))

    def keep(self, name: str, value: nn.Module | torch.Tensor) -> str:
        """Keep what is new under `name`, or one like it if that is taken."""
        path = self.paths.fresh(name)
        self.added[path] = value
        return path

    @staticmethod
    def read(graph: fx.Graph, path: str) -> fx.Node:
        """A read of an attribute."""
        # The attribute is not there before the result is built.
        return graph.create_node("get_attr", path, name=path.replace(".", "_"))


def _rename(made: Iterable[fx.Node], store: _Store) -> None:
    """Call nodes as what they call or read, now that the old nodes are gone."""
    made = [node for node in made if str(node.target) in store.added]
    used = {node.name for node in made[0].graph.nodes} if made else set()
    for node in made:
        name = node_name(str(node.target))
        if name not in used:
            used.remove(node.name)
            used.add(name)
            node.name = name


def assemble(
    owner: nn.Module, graph: fx.Graph, added: Mapping[str, nn.Module | torch.Tensor], name: str
) -> fx.GraphModule:
    """A GraphModule of copies of what the graph uses of `owner`, and of what was added.

    Tied weights stay tied.
    """
    root = nn.Module()
    memo: dict[int, Any] = {}
    persistent = set(owner.state_dict(keep_vars=True))
    volatile: list[str] = []
    targets = {str(node.target) for node in graph.nodes if node.op in {"call_module", "get_attr"}}
    # What holds others comes before them.
    for target in sorted(targets, key=lambda path: (path.count("."), path)):
        value = added[target] if target in added else duplicate(attribute(owner, target), memo)
        if isinstance(value, torch.Tensor) and not isinstance(value, nn.Parameter):
            value = value.detach()
            if target not in persistent and target not in added:
                volatile.append(target)
        _assign(root, target, value)
    graph.lint() if not added else None
    result = fx.GraphModule(root, graph, name)
    for target in volatile:
        path, _, last = target.rpartition(".")
        result.get_submodule(path)._non_persistent_buffers_set.add(last)
    result.meta.update(getattr(owner, "meta", {}))
    return result.eval()


def _assign(root: nn.Module, path: str, value: Any) -> None:
    *around, last = path.split(".")
    place = root
    for name in around:
        if not hasattr(place, name):
            place.add_module(name, nn.Module())
        place = getattr(place, name)
    if hasattr(place, last):
        return
    if isinstance(value, torch.Tensor) and not isinstance(value, nn.Parameter):
        place.register_buffer(last, value)
    else:
        setattr(place, last, value)

"""fx to the graph of passes: GraphModules of symbolic_trace, torch.export and torch.compile.

Nothing is lifted here and no weight is read. Every fx node becomes an `Opaque` that carries how to evaluate
and how to lift it; parameters and buffers become constants that are read when somebody looks at them. The fx
graph given is one that may be edited: readers of what is changed in place are redirected to the result.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import numpy as np
import torch
from torch import fx, nn

from fuser.hosts.operators.operator import Finder, Operator
from fuser.hosts.torch.call import Bound, Operand, call, unknown
from fuser.hosts.torch.describe import described
from fuser.hosts.torch.effects import resolve_effects
from fuser.hosts.torch.evaluate import evaluator, outline
from fuser.hosts.torch.functions import parts_read, read
from fuser.hosts.torch.host import FxHost
from fuser.hosts.torch.identity import canonical, name_of
from fuser.hosts.torch.lifting import COPIES, is_handed_on, lifter, refuse
from fuser.hosts.torch.modules import read_module
from fuser.hosts.torch.own import OPERATORS
from fuser.hosts.torch.shapes import TracedExtents, Types, demand, infer, named, types_of
from fuser.hosts.torch.tensor import dtype_name, is_real, read_tensor
from fuser.ir.constant import Constant
from fuser.ir.graph import Graph
from fuser.ir.literals import Literals
from fuser.ir.node import Node, Value
from fuser.ir.ops import Opaque

AUTOCAST: Final = "the graph switches autocast on or off here, so element types are not what they seem"
IN_PLACE: Final = "it touches a tensor that is changed in place and has other names"

# These return several tensors; a trace without inputs does not say so.
SEVERAL: Final = frozenset(
    {"split", "chunk", "unbind", "native_batch_norm", "inference_batch_norm", "tensor_split"}
)

# The result has as many axes as the first operand.
SAME_RANK: Final = frozenset({"Conv", "ConvTranspose", "BatchNormalization", "Linear"})

VIEWS: Final = frozenset(
    {"contiguous", "detach", "detach_", "expand", "identity", "lift_fresh_copy", "permute"}
    | {"reshape", "squeeze", "t", "transpose", "unsqueeze"}
)


def import_fx(
    graph: fx.Graph,
    owner: nn.Module,
    tensors: Mapping[fx.Node, tuple[str, torch.Tensor]],
    name: str = "main",
    examples: Sequence[object] = (),
) -> Graph:
    """The graph of passes for an fx graph.

    Args:
        graph: the fx graph, whose readers of tensors that are changed in place are redirected.
        owner: holds the modules that the graph calls.
        tensors: for each node that stands for a parameter, buffer or constant, its name and its tensor.
        name: what reports call the graph.
        examples: arguments; their ranks and element types are those of the inputs, where the graph does not
        tell.
    """
    importer = _Importer(graph, owner, tensors, name)
    return importer.run(examples)


class _Importer:
    def __init__(
        self,
        graph: fx.Graph,
        owner: nn.Module,
        tensors: Mapping[fx.Node, tuple[str, torch.Tensor]],
        name: str,
    ) -> None:
        self.source = graph
        self.owner = owner
        self.modules = dict(owner.named_modules(remove_duplicate=False))
        self.tensors = tensors
        self.host = FxHost(graph)
        self.graph = Graph(name, self.host)
        self.values: dict[fx.Node, Value] = {}
        self.stored: dict[int, Value] = {}
        self.calls: list[tuple[Bound, Node]] = []
        self.names = {id(tensor): name for name, tensor in _named_tensors(owner)}

    def run(self, examples: Sequence[object]) -> Graph:
        """Import every node."""
        self.source.owning_module = self.owner
        try:
            return self._imported(examples)
        finally:
            # New nodes are no business of what the graph was traced from.
            self.source.owning_module = None

    def _imported(self, examples: Sequence[object]) -> Graph:
        for node in self.source.nodes:
            self._ask_earlier(node)
        self.pinned = self.host.pinned = resolve_effects(
            self.source, lambda node: self.modules.get(str(node.target))
        )
        self.autocast = set(_within_autocast(self.source.nodes))
        for index, node in enumerate(self.source.nodes):
            self.host.order.append(node)
            if node.op == "output":
                self._output(node, index)
            elif node.op in {"placeholder", "get_attr"}:
                self._given(node)
            elif node not in self.values and not self._view(node):
                self._call(node, index)
        if not self.typed:
            self._illustrate(examples)
            # A value is often read before it is read by what tells its rank.
            for _ in range(2):
                self._infer()
        return self.graph

    def _ask_earlier(self, node: fx.Node) -> None:
        """Let `conv(x).ndim` read x, whose answer is the same: a question must not keep a layer alive."""
        asks = name_of(node) == "getattr" and node.args[1] == "ndim"
        if not asks and not (node.op == "call_method" and node.target == "dim"):
            return
        asked = node.args[0]
        while isinstance(asked, fx.Node) and self._read(asked).kind in SAME_RANK:
            asked = self._read(asked).operands[0]
        if isinstance(asked, fx.Node) and asked is not node.args[0]:
            node.args = (asked, *node.args[1:])

    @property
    def typed(self) -> bool:
        """Whether the tracer knows shapes that hold for whatever may be fed, as torch.export does."""
        given = [described(node) for node in self.source.nodes if node.op == "placeholder"]
        return bool(given) and any(value is not None for value in given)

    def _given(self, node: fx.Node) -> None:
        """A graph input, parameter or buffer."""
        if node in self.tensors:
            name, tensor = self.tensors[node]
            self.values[node] = self._stored(tensor, name, constant=node not in self.pinned)
            self.host.values.setdefault(self.values[node], node)
            return
        value = Value(str(node.target), *types_of(described(node)))
        self.values[node] = value
        self.host.values[value] = node
        if node.op == "placeholder":
            self.graph.inputs.append(value)

    def _stored(self, tensor: torch.Tensor, name: str, *, constant: bool = True) -> Value:
        """The value of a tensor that the model holds: the same wherever it is read, tied weights included."""
        if not constant:
            return Value(name, tuple(tensor.shape), dtype_name(tensor.dtype))
        value = self.stored.get(id(tensor))
        if value is None:
            value = Value(name, tuple(tensor.shape), dtype_name(tensor.dtype))
            if is_real(tensor):
                value.constant = read_tensor(tensor)
            self.stored[id(tensor)] = value
        return value

    def _view(self, node: fx.Node) -> bool:
        """Whether the node is only another view of a parameter, and then what it is."""
        if node.op == "call_function" and not node.all_input_nodes and self._made(node):
            return True
        if canonical(name_of(node)) not in VIEWS or len(node.all_input_nodes) != 1 or node in self.pinned:
            return False
        (read,) = node.all_input_nodes
        source = self.values[read].constant
        evaluate = evaluator(node, call("view", read), None)
        if source is None or not (read in self.host.views or read in self.tensors) or evaluate is None:
            return False
        like = outline(node, None, {read: (source.shape, source.dtype)})
        if not isinstance(like, torch.Tensor):
            return False
        value = Value(node.name, tuple(like.shape), dtype_name(like.dtype))
        value.constant = Constant(
            tuple(like.shape), dtype_name(like.dtype), lambda: evaluate(source.array())[0]
        )
        self.values[node] = value
        self.host.values[value] = node
        self.host.views.add(node)
        return True

    def _made(self, node: fx.Node) -> bool:
        """Whether the node makes a constant of nothing, as `full` and `arange` do, and then what it is."""
        evaluate = evaluator(node, call("made"), None)
        like = outline(node, None, {}) if evaluate is not None and node not in self.pinned else None
        if not isinstance(like, torch.Tensor) or evaluate is None:
            return False
        value = Value(node.name, tuple(like.shape), dtype_name(like.dtype))
        value.constant = Constant(tuple(like.shape), dtype_name(like.dtype), lambda: evaluate()[0])
        self.values[node] = value
        self.host.values[value] = node
        self.host.views.add(node)
        return True

    def _call(self, node: fx.Node, index: int) -> None:
        bound = self._read(node)
        inputs = [self._operand(operand) for operand in bound.operands]
        outputs = self._results(node)
        made = Node(
            self._operator(node, bound), inputs, outputs, name=_name(node), position=(index,), source=node
        )
        self.graph.add(made)
        self.calls.append((bound, made))
        self.host.inputs[node] = tuple(inputs)

    def _read(self, node: fx.Node) -> Bound:
        if not node.op.startswith("call"):
            return call(node.op)
        if node.op != "call_module":
            return read(node)
        module = self.modules.get(str(node.target))
        if module is None or isinstance(module, fx.GraphModule):
            return unknown(node, fx.GraphModule)
        return read_module(node, module)

    def _operator(self, node: fx.Node, bound: Bound) -> Opaque:
        rule = lifter(bound)
        if node in self.pinned or any(read in self.pinned for read in node.all_input_nodes):
            return Opaque(bound.kind, lift=refuse(IN_PLACE) if rule else None)
        if node in self.autocast:
            return Opaque(bound.kind, lift=refuse(AUTOCAST) if rule else None)
        record = OPERATORS.get(bound.kind, Operator(bound.kind))
        # Arguments of which nothing is known may be numbers that are held against any axis.
        held = bound.known or isinstance(record.literals, Literals)
        return Opaque(
            bound.kind,
            evaluate=evaluator(node, bound, self.modules.get(str(node.target))),
            lift=rule,
            stays=is_handed_on if bound.kind in COPIES else None,
            homogeneous=record.homogeneous,
            elementwise=record.elementwise,
            linear=record.linear(bound.call, len(bound.operands)),
            of_shape=record.of_shape,
            retypes=record.retypes,
            literals=Finder(record if held else None, bound.call),
            carries=record.carrying(bound.call),
        )

    def _operand(self, operand: Operand) -> Value | None:
        if operand is None:
            return None
        if isinstance(operand, fx.Node):
            return self.values[operand]
        if isinstance(operand, torch.Tensor):
            return self._stored(operand, self.names.get(id(operand), "tensor"))
        if isinstance(operand, Constant):
            value = Value("computed_weight", operand.shape, operand.dtype)
            value.constant = operand
            return value
        value = Value(str(operand), (), "float64" if isinstance(operand, float) else "int64")
        value.constant = _scalar(operand)
        return value

    def _results(self, node: fx.Node) -> list[Value]:
        """The value of a node, or of each of its parts that is read where it returns several tensors."""
        result = described(node)
        several = isinstance(result, list | tuple) or canonical(name_of(node)) in SEVERAL
        parts = parts_read(node) if several else None
        if parts is None:
            return [self._declare(node, result)]
        return [self._declare(part, described(part)) for part in parts] or [self._declare(node, None)]

    def _declare(self, node: fx.Node, result: object) -> Value:
        value = Value(node.name, *types_of(result))
        self.values[node] = value
        self.host.values[value] = node
        return value

    def _output(self, node: fx.Node, index: int) -> None:
        """What the graph returns is read by a node of its own, so that any value can stand there."""
        result = Value("output")
        read = [self.values[value] for value in node.all_input_nodes]
        self.graph.add(Node(Opaque("output"), read, [result], name="output", position=(index,), source=node))
        self.host.inputs[node] = tuple(read)
        self.graph.outputs = [result]

    def _illustrate(self, examples: Sequence[object]) -> None:
        """Give the inputs the ranks and element types of examples; their extents are not to be relied on."""
        for value, example in zip(self.graph.inputs, examples, strict=False):
            if isinstance(example, torch.Tensor):
                value.shape = named(value, (None,) * example.ndim)
                value.dtype = dtype_name(example.dtype)

    def _infer(self) -> None:
        for bound, node in self.calls:
            demand(bound, node.inputs)
        static = set(self.stored.values())
        extents = TracedExtents()
        for bound, node in self.calls:
            found = infer(bound, node, extents)
            if all(v is None or v in static or v.constant is not None for v in node.inputs):
                found[:1] = [self._outline(node, *found[:1])]
                static.add(node.outputs[0])
            for value, (shape, dtype) in zip(node.outputs, found, strict=False):
                value.shape = value.shape if shape is None else named(value, shape)
                value.dtype = value.dtype if dtype is None else dtype

    def _outline(self, node: Node, known: Types = (None, None)) -> Types:
        """The type of what the graph computes of parameters alone, found by computing it without numbers."""
        source = node.source
        assert isinstance(source, fx.Node)
        types = {}
        for operand in source.all_input_nodes:
            value = self.values[operand]
            if value.shape is None or value.dtype is None:
                return known
            types[operand] = tuple(int(n or 0) for n in value.shape), value.dtype
        result = outline(source, self.modules.get(str(source.target)), types)
        return known if result is None else types_of(result)


def _scalar(number: float) -> Constant:
    return Constant.of(np.asarray(number))


def _name(node: fx.Node) -> str:
    return str(node.target) if node.op == "call_module" else node.name


def _named_tensors(owner: nn.Module) -> Sequence[tuple[str, torch.Tensor]]:
    return [*owner.named_parameters(remove_duplicate=False), *owner.named_buffers(remove_duplicate=False)]


def _within_autocast(nodes: Iterable[fx.Node]) -> Iterator[fx.Node]:
    """The nodes between one that switches autocast and the one that switches it back, both included."""
    depth = 0
    for node in nodes:
        name = getattr(node.target, "__name__", "")
        depth += "enter_autocast" in name
        if depth:
            yield node
        depth -= "exit_autocast" in name

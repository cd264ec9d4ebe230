"""The rewritten graph back into ONNX: a diff, applied in place to the model that was imported.

Nodes that no rewrite touched stay as they are, with their names and metadata. What a rewrite made takes the
place, and the output name, of what it replaced; new tensors get names that the model does not use.
"""

from collections.abc import Hashable, Iterable, Iterator
from typing import Any, Final

import ml_dtypes
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from fuser.hosts.onnx.file.walk import graphs_in
from fuser.hosts.onnx.host import OnnxHost, Step, Weight, plan
from fuser.hosts.onnx.names import Names, names_of
from fuser.ir.constant import Constant
from fuser.ir.graph import Graph
from fuser.ir.node import Node, Value

# Notes that the exports of the graphs of one model leave for one another.
_SUCCESSOR: Final = "graph_fuser_successor"
_REMOVED: Final = "graph_fuser_removed"


def export_graph(graph: Graph) -> None:
    """Apply what was rewritten in `graph` to the ONNX model behind it, in place."""
    host = graph.host
    assert isinstance(host, OnnxHost), f"{graph.name} does not come from ONNX"
    owner = host.graph.graph if isinstance(host.graph, ir.Function) else host.graph
    # The body of a node that is gone is gone with it.
    if _REMOVED not in owner.meta:
        _Export(graph, host, owner).run()


class _Export:
    def __init__(self, graph: Graph, host: OnnxHost, owner: ir.Graph) -> None:
        self.graph = graph
        self.host = host
        self.owner = owner
        self.names = names_of(host.model)
        # Functions have no initializers; before IR version 4 an initializer had to be a graph input.
        self.as_nodes = isinstance(host.graph, ir.Function) or host.model.ir_version < 4
        self.originals = list(owner)
        self.given = {output.name for node in self.originals for output in node.outputs}
        # Where the next node goes that stands for the original one of that index.
        self.anchors: dict[int, ir.Node] = {}
        # The positions of nodes that stay where they are, by that index.
        self.staying: dict[int, tuple[int, ...]] = {}
        self.candidates: dict[ir.Value, None] = {}
        # New tensors, by what they were made of.
        self.stored: dict[Hashable, list[tuple[Constant, ir.Value]]] = {}

    def run(self) -> None:
        """Make new nodes, reconnect, remove old ones, and then what only those used."""
        nodes = self.graph.ordered()
        staying = {node: _source(node) for node in nodes if node.source is not None and self._stays(node)}
        remaining = set(staying.values())
        gone = [node for node in self.originals if node not in remaining]
        self.names.release(gone, remaining)
        self.staying = {node.position[0]: node.position for node in staying}
        for node in nodes:
            if node.source is None:
                self._lower(node)
            elif node not in staying:
                staying[node] = self._move(node)
        for old in self.graph.provenance.successors:
            self._reconnect(old)
        for node, made in staying.items():
            self._rewire(node, made)
        self._remove(gone)
        self._remove_unused()
        self._restate()
        if self.owner is self.host.model.graph:
            self._complete()

    def _stays(self, node: Node) -> bool:
        """Whether an ONNX node still makes the values that it made."""
        pairs = zip(node.outputs, _source(node).outputs, strict=True)
        return all(self.host.values.get(value) is output for value, output in pairs)

    def _move(self, node: Node) -> ir.Node:
        """Insert a node in the place of the ONNX node of `node`, which makes other values now.

        Its bodies go over: what is taken out is detached from all that it reads, and must not have them.
        Other attributes it keeps, for constants may be computed by it when the file is written.
        """
        source = _source(node)
        attributes = list(source.attributes.values())
        for attribute in attributes:
            if next(graphs_in(attribute), None) is not None:
                source.attributes.pop(attribute.name)
        made = ir.Node(
            source.domain,
            source.op_type,
            source.inputs,
            attributes,
            overload=source.overload,
            num_outputs=len(source.outputs),
            name=self.names.fresh_node(source.name) if source.name else source.name,
            doc_string=source.doc_string,
            metadata_props=dict(source.metadata_props),
            device_configurations=source.device_configurations,
        )
        made.meta.update(source.meta)  # with what the source said of it
        for value, output in zip(node.outputs, made.outputs, strict=True):
            self._produce(value, output)
        self._insert(node.position[0], made)
        return made

    def _lower(self, node: Node) -> None:
        """Insert the ONNX nodes for a node that a rewrite made."""
        output = node.outputs[0]
        index = node.position[0]
        if node.position < self.staying.get(index, ()):
            index -= 1  # it is read by the original one, which stays where it is
        base = node.name or output.name
        results: dict[Step, ir.Value] = {}
        steps = plan(node.op, output, self.host.opset).steps()
        for step in steps:
            last = step is steps[-1]
            made = ir.Node(
                "",
                step.kind,
                [self._operand(part, node, results) for part in step.operands],
                [_attribute(name, value) for name, value in step.attributes.items()],
                name=self.names.fresh_node(base if last else f"{base}_{step.kind.lower()}"),
            )
            made.outputs[0].name = None if last else self.names.fresh(f"{output.name}_{step.kind.lower()}")
            results[step] = made.outputs[0]
            if last:
                self._produce(output, made.outputs[0])
            self._insert(index, made)

    def _operand(
        self, part: "int | Step | Weight | None", node: Node, results: dict[Step, ir.Value]
    ) -> ir.Value | None:
        if isinstance(part, int):
            value = node.inputs[part]
            return None if value is None else self._value(value)
        if isinstance(part, Step):
            return results[part]
        if part is None:
            return None
        dtype = part.dtype or node.outputs[0].dtype
        assert dtype is not None, f"the dtype of {node.outputs[0].name} is not known"
        name = f"{node.name or node.outputs[0].name}_fused_{part.role}"
        constant = Constant(part.shape, dtype, part.compute)
        statements = self.graph.provenance.behind([node])
        read = [v for s in statements for v in s.inputs if v is not None and v.constant is not None]
        largest = max(read, key=lambda v: v.constant.size if v.constant else 0, default=None)
        # What is made of the same weights may be the same.
        alike = self.stored.setdefault((part.role, part.shape, dtype, largest), [])
        known = next((value for other, value in alike if _equal(constant, other)), None)
        if known is None:
            known = self._constant(name, constant)
            alike.append((constant, known))
        return known

    def _value(self, value: Value) -> ir.Value:
        """The ONNX value of a value, made now if it is a constant that has none."""
        known = self._known(value)
        if known is not None:
            return known
        assert value.constant is not None, f"nothing makes {value.name}"
        made = self._constant(value.name, value.constant)
        self.host.values[value] = made
        return made

    def _known(self, value: Value) -> ir.Value | None:
        known = self.host.values.get(value)
        return None if known is None else _latest(known)

    def _constant(self, name: str, constant: Constant) -> ir.Value:
        """A new initializer or, where there are none, a Constant node at the head of the graph."""
        tensor = _tensor(constant)
        name = self.names.fresh(name)
        tensor.name = name
        if self.as_nodes:
            node = ir.Node(
                "", "Constant", (), [ir.AttrTensor("value", tensor)], name=self.names.fresh_node(name)
            )
            node.outputs[0].name = name
            self._insert(-1, node)
            return node.outputs[0]
        value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=tensor.shape, const_value=tensor)
        self.owner.register_initializer(value)
        return value

    def _insert(self, index: int, node: ir.Node) -> None:
        """Put a node behind the original one of that index (-1: before all), and behind what is there."""
        if index in self.anchors:
            self.owner.insert_after(self.anchors[index], node)
        elif index >= 0:
            self.owner.insert_after(self.originals[index], node)
        else:
            self.owner.insert_before(self.originals[0], node)
        self.anchors[index] = node

    def _produce(self, value: Value, made: ir.Value) -> None:
        """Let `made` be the ONNX value of `value`, under the name that it had."""
        old = self._known(value)
        self.host.values[value] = made
        if old is None:
            made.name = self.names.fresh(value.name)
            return
        _succeed(old, made)

    def _reconnect(self, old: Value) -> None:
        """Let every reader of an eliminated value, in bodies as well, read the one that stands for it."""
        before = self._known(old)
        if before is None or old.producer is not None or old.users:
            return
        new = self._final(old)
        if self._known(new) is None and new.constant is None:
            return  # it vanished later, and with it all that read it
        after = self._value(new)
        if after is not before:
            _make_visible(after, [use.node for use in before.uses()], self.names)
            before.replace_all_uses_with(after, replace_graph_outputs=True)
            before.meta[_SUCCESSOR] = after

    def _final(self, value: Value) -> Value:
        """What stands for a value in the end."""
        successors = self.graph.provenance.successors
        for _ in successors:
            if value not in successors:
                break
            value = successors[value]
        assert value not in successors, f"{value.name} was replaced in a circle"
        return value

    def _rewire(self, node: Node, made: ir.Node) -> None:
        """Let an ONNX node read what its node reads, where others still read the old value.

        `made` reads its inputs in the order of the node's inputs and parameters.
        """
        read = [self._value(value) for value in (*node.inputs, *node.parameters) if value is not None]
        stale = [value for value in dict.fromkeys(made.inputs) if value is not None and value not in read]
        if not stale:
            return
        missing = [value for value in dict.fromkeys(read) if value not in made.inputs]
        known = {_latest(host): value for value, host in self.host.values.items()}
        redirected = self.graph.provenance.redirected(node)
        for old in stale:
            own = known.get(old)
            new = None if own is None else self._known(self._final(redirected.get(own, own)))
            if new is None or new not in read:
                assert missing, f"{made.name} reads {old.name}, which {node.name} does not"
                new = missing.pop(0)
            for index, value in enumerate(made.inputs):
                if value is old:
                    made.replace_input_with(index, new)

    def _restate(self) -> None:
        """Give values that mean something else than in the source a name that is not the source's.

        State their shapes as well: they may have fewer channels.
        """
        made = (value for node in self.graph.nodes for value in node.outputs)
        for value in filter(self.graph.provenance.redefined, made):
            known = self._known(value)
            if known is None:
                continue
            if known.name in self.given and known.name not in self.names.annotations:
                known.name = self.names.fresh(f"{known.name}_fused")
            if known.shape is not None and value.shape is not None and len(known.shape) == len(value.shape):
                dims = [
                    n if isinstance(n, int) else old for n, old in zip(value.shape, known.shape, strict=True)
                ]
                if dims != list(known.shape):
                    known.shape = ir.Shape(dims)

    def _complete(self) -> None:
        """State what is known of the shape of an output of the model, where the source has left it out.

        The standard wants one. Extents that the file has no symbol for are left open.
        """
        symbols = {dim for value in self.graph.inputs for dim in value.shape or ()}
        for value in self.graph.outputs:
            known = self._known(value)
            if known is None or known.shape is not None or value.shape is None:
                continue
            if isinstance(known.type, ir.TensorType):
                known.shape = ir.Shape(
                    [dim if isinstance(dim, int) or dim in symbols else None for dim in value.shape]
                )

    def _remove(self, gone: list[ir.Node]) -> None:
        """Take out nodes that a rewrite removed; what was computed and is still read becomes a constant."""
        for node in gone:
            self.candidates.update(dict.fromkeys(_detach(node)))
        stored = {
            _latest(known): value
            for value, known in self.host.values.items()
            if value.constant is not None and value.producer is None
        }
        for output in (output for node in gone for output in node.outputs):
            if output.uses() or output.is_graph_output():
                assert output in stored, f"{output.name} is read and nothing makes it"
                self._store(stored[output], output)
        self.owner.remove(gone)

    def _store(self, value: Value, old: ir.Value) -> None:
        """Make the constant that `value` is now, under the name that it had."""
        assert value.constant is not None
        self.host.values[value] = self._constant(value.name, value.constant)
        _succeed(old, self.host.values[value])

    def _remove_unused(self) -> None:
        """Remove initializers and Constant nodes that only removed nodes read, in graphs around as well."""
        for value in self.candidates:
            if value.uses() or value.is_graph_output() or value.name in self.names.annotations:
                continue
            producer = value.producer()
            if value.is_initializer() and value.graph is not None:
                if not value.is_graph_input():
                    value.graph.initializers.pop(value.name or "")
            elif producer is not None and producer.op_type == "Constant" and producer.graph is not None:
                producer.graph.remove(producer)


def _latest(value: ir.Value) -> ir.Value:
    """The value that now stands for one of the imported model."""
    while _SUCCESSOR in value.meta:
        value = value.meta[_SUCCESSOR]
    return value


def _succeed(old: ir.Value, new: ir.Value) -> None:
    """Let `new` have the name, readers, type and notes of `old`."""
    new.name, new.doc_string = old.name, old.doc_string
    # What callers see is stated as it was, or not at all. A scalar has a shape: an empty one, which is false.
    if old.type is not None or old.is_graph_output():
        new.type = old.type
    if old.shape is not None or old.is_graph_output():
        new.shape = old.shape
    new.metadata_props.update(old.metadata_props)
    new.meta.update(old.meta)
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    old.meta[_SUCCESSOR] = new


def _make_visible(value: ir.Value, readers: Iterable[ir.Node], names: Names) -> None:
    """Rename what hides `value` in the bodies from which it will be read."""
    for reader in readers:
        body = reader.graph
        if body is None or body is value.graph:
            continue
        for other in (*body.inputs, *body.initializers.values(), *(v for node in body for v in node.outputs)):
            if other.name == value.name and other is not value:
                other.name = names.fresh(other.name or "")


def _source(node: Node) -> ir.Node:
    assert isinstance(node.source, ir.Node), f"{node.name} does not come from ONNX"
    return node.source


def _detach(node: ir.Node) -> Iterator[ir.Value]:
    """Let a node, and the bodies in it, read nothing any more; yields what they read."""
    for body in (body for attribute in node.attributes.values() for body in graphs_in(attribute)):
        body.meta[_REMOVED] = True
        for inner in body:
            yield from _detach(inner)
    for index, value in enumerate(node.inputs):
        if value is not None:
            yield value
            node.replace_input_with(index, None)


def _attribute(name: str, value: Any) -> ir.Attr:
    if isinstance(value, tuple):
        return ir.AttrInt64s(name, value)
    if isinstance(value, str):
        return ir.AttrString(name, value)
    return ir.AttrFloat32(name, value) if isinstance(value, float) else ir.AttrInt64(name, value)


def _tensor(constant: Constant) -> ir.LazyTensor:
    """A tensor whose values are computed, and rounded once, when the file is written."""
    dtype = _numpy_type(constant.dtype)

    def evaluate() -> ir.TensorProtocol:
        return ir.Tensor(rounded(constant.array(), dtype).reshape(constant.shape))

    return ir.LazyTensor(evaluate, ir.DataType.from_numpy(dtype), ir.Shape(constant.shape))


def _equal(a: Constant, b: Constant) -> bool:
    """Whether two constants of one type are stored as the same numbers."""
    dtype = _numpy_type(a.dtype)
    return np.array_equal(rounded(a.array(), dtype), rounded(b.array(), dtype))


def _numpy_type(name: str) -> np.dtype[Any]:
    return np.dtype(getattr(ml_dtypes, name)) if hasattr(ml_dtypes, name) else np.dtype(name)


def rounded(array: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """The nearest values in `dtype`.

    float64 to bfloat16 goes through float32, whose result is forced to be odd where it is not exact: then the
    second rounding sees on which side of a tie the value was.
    """
    if dtype != ml_dtypes.bfloat16 or array.dtype != np.float64:
        return array.astype(dtype, copy=False)
    single = array.astype(np.float32)
    bits = single.view(np.uint32)
    inexact = single != array
    # Truncate towards zero first: a value that was rounded away from zero is one unit too large.
    bits = np.where(inexact & (np.abs(single) > np.abs(array)), bits - 1, bits)
    odd = np.where(inexact & np.isfinite(array), bits | 1, bits).astype(np.uint32)
    return odd.view(np.float32).reshape(array.shape).astype(dtype)

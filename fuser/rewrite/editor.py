"""The only one that edits a graph: what is lifted, known, forwarded and replaced.

Each verb leaves a valid graph (`ir/spec.py`) and keeps the provenance of what it changes. What may be done
is not decided here.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

from fuser.ir.constant import Constant
from fuser.ir.graph import Graph
from fuser.ir.node import Apply, Node, Value, carry_of
from fuser.ir.ops import Op, operation
from fuser.ir.provenance import Origin, Statement
from fuser.ir.slices import is_visible

Revisit = Callable[[Iterable[Node]], None]


class Editor:
    """Edits one graph; `revisit` is told of the nodes that an edit may have given a new chance."""

    def __init__(self, graph: Graph, revisit: Revisit) -> None:
        self.graph = graph
        self.provenance = graph.provenance
        self.revisit = revisit

    def lift(self, node: Node, op: Op, application: Apply, *, stated: bool) -> None:
        """Let a node be `op` of what an application reads; where it is `stated`, the source still counts."""
        if stated:
            self.provenance.state(node)
        read = [self.provenance.current(part) for part in application.inputs if isinstance(part, Value)]
        parameters = [value for value in node.inputs if value is not None and value not in read]
        node.op, node.label = op, application.label
        self.graph.connect(node, read, parameters)
        self.edited()

    def know(self, value: Value, constant: Constant) -> None:
        """Let a value be known to its readers, while its maker stays."""
        value.constant = constant
        self.revisit(value.users)

    def make_constant(self, value: Value, constant: Constant, dead: Sequence[Node]) -> None:
        """Let a value be a constant, and take out what made it."""
        self._remove(dead)
        value.constant = constant
        self.revisit(value.users)
        self.edited()

    def forward(self, value: Value, other: Value, dead: Sequence[Node]) -> None:
        """Let all that read `value` read `other`, its equal, and take out what made it.

        The values that a graph puts out stay: such a one is then made by what made `other`.
        """
        self._remove(dead)
        if value.is_output:
            maker = other.producer
            assert maker is not None, f"{other.name} is made by no node"
            maker.outputs = tuple(value if output is other else output for output in maker.outputs)
            value.producer, other.producer = maker, None
            value.constant = other.constant
            self._read_instead(other, value)
        else:
            self._read_instead(value, other)
        self.edited()

    def replace_subgraph(
        self, made: Mapping[Value, Mapping[Apply, Value]], dead: Sequence[Node], sliced: Sequence[Node]
    ) -> None:
        """Let applications make values, given what each part of them makes, and take out what is `dead`.

        `sliced` is all that lies between these values and what the applications read.
        """
        makers = {value: value.producer for value in made}
        origin = self.provenance.origin(sliced)
        internal = [value for value in made if not is_visible(value, dead)]
        stated = {
            value: self.provenance.statement(root) for value, root in makers.items() if root is not None
        }
        self._remove(dead)
        for value, parts in made.items():
            root = makers[value]
            assert root is not None, f"{value.name} is made by no node"
            self._build(parts, root, stated[value], origin)
        for value in internal:
            self.provenance.redefine(value)
        self._resize(made)
        for value in made:
            assert value.producer is not None, "it was just made"
            read = (v.producer for v in value.producer.inputs if v is not None)
            self.revisit([*(maker for maker in read if maker is not None), value.producer, *value.users])
        self.edited()

    def edited(self) -> None:
        """The graph is valid; tests look whether it is."""

    def _build(self, parts: Mapping[Apply, Value], root: Node, stated: Statement, origin: Origin) -> None:
        """Make the nodes of an application, the last one in the place of `root`, stated as it was."""
        for index, (part, result) in enumerate(parts.items()):
            position = root.position if len(parts) == 1 else (*root.position, index)
            inputs = [parts[v] if isinstance(v, Apply) else v for v in part.inputs]
            op = operation(part.op).steady()
            node = Node(op, inputs, [result], name=root.name, label=part.label, position=position)
            node.extent = part.extent
            self.provenance.make(node, origin)
            if result not in root.outputs:
                self.provenance.redefine(result)
            if operation(op).opaque:
                # The operator stays and only reads something else, so it keeps its place in the source.
                node.source, node.parameters = root.source, stated.parameters
                pairs = zip(stated.inputs, inputs, strict=True)
                instead = {a: b for a, b in pairs if a is not None and b is not None and a is not b}
                self.provenance.redirect(node, root, instead)
            self.graph.add(node)

    @staticmethod
    def _resize(values: Iterable[Value]) -> None:
        """Fewer channels of a convolution are fewer in its result, and in what others make of that."""
        changed: dict[Value, tuple[int, int]] = {}
        made = [(value, value.producer) for value in values if value.producer is not None]
        for value, node in sorted(made, key=lambda pair: pair[1].position):
            op = operation(node.op)
            passed = (changed[v] for v in node.inputs if v in changed)
            axis, channels = op.channel_axis, op.channels_made
            if channels is None:
                axis, channels = next(passed, _alike(node))
            if axis is None or channels is None or value.shape is None:
                continue
            if isinstance(value.shape[axis], int) and value.shape[axis] != channels:
                changed[value] = axis, channels
                axis %= len(value.shape)
                value.shape = (*value.shape[:axis], channels, *value.shape[axis + 1 :])

    def _read_instead(self, old: Value, new: Value) -> None:
        """Make every reader of `old` read `new`, its equal."""
        self.provenance.succeed(old, new)
        users = list(old.users)
        for user in users:
            inputs = [new if value is old else value for value in user.inputs]
            self.graph.connect(user, inputs, [new if value is old else value for value in user.parameters])
        # The maker of `new` has other readers now, which may be what it waited for.
        self.revisit([*([new.producer] if new.producer else []), *users])

    def _remove(self, dead: Sequence[Node]) -> None:
        for node in reversed(dead):
            read = [value for value in (*node.inputs, *node.parameters) if value is not None]
            self.graph.remove(node)
            # A value with one reader left may now vanish with it, and its maker go into those that are left.
            self.revisit([next(iter(value.users)) for value in read if len(value.users) == 1])
            self.revisit([value.producer for value in read if value.producer is not None and value.users])


def _alike(node: Node) -> tuple[int | None, int | None]:
    """The channels of what a node makes that does the same to every channel of what it reads."""
    read = node.inputs[0] if node.inputs else None
    channels = read.shape[1] if read is not None and read.shape is not None and len(read.shape) > 2 else None
    carry = carry_of(node)
    return (1, channels) if isinstance(channels, int) and carry is not None and carry.alike else (None, None)

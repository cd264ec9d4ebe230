"""What a valid graph is, and what a valid candidate is for a place in one.

Forms only: whether a candidate computes the same is the check's to say, and whether it pays the driver's.
"""

from collections.abc import Iterable, Mapping

from fuser.errors import Declined, require
from fuser.ir.constant import Constant
from fuser.ir.graph import Graph
from fuser.ir.node import Apply, Node, Value
from fuser.ir.ops import operation


def require_valid(graph: Graph) -> None:
    """Values are made once, before they are read, and know who makes and who reads them.

    Raises:
        Declined: they do not; the reason names the node and the value.
    """
    for node in graph.nodes:
        for value in node.outputs:
            maker = value.producer
            require(maker is node, f"{node!r} makes {value.name!r}, which says that {maker!r} does")
        for value in _read(node):
            require(node in value.users, f"{node!r} reads {value.name!r}, which does not know of it")
            maker = value.producer
            require(
                maker is None or maker in graph.nodes,
                f"{node!r} reads {value.name!r}, and what makes that is gone: {maker!r}",
            )
            require(
                maker is None or maker.position < node.position,
                f"{node!r} at {node.position} reads {value.name!r}, which is made later: {maker!r}",
            )
        for value in (*_read(node), *node.outputs):
            gone = next((user for user in value.users if user not in graph.nodes), None)
            require(gone is None, f"{value.name!r} is said to be read by what is gone: {gone!r}")
        inputs, outputs = operation(node.op).arity
        require(
            inputs in (None, len(node.inputs)),
            f"{node!r} has {len(node.inputs)} values where {inputs} are due: {node.inputs}",
        )
        # What the source has beside them, and nobody reads, need not be made.
        made = [value for value in node.outputs[outputs:] if value.users or value.is_output]
        require(
            outputs is None or (len(node.outputs) >= outputs and not made),
            f"{node!r} has {len(node.outputs)} values where {outputs} are due: {node.outputs}",
        )
    for value in graph.outputs:
        require(value.is_output, f"the output {value.name!r} does not say that it is one")
        maker = value.producer
        require(
            maker is None or maker in graph.nodes, f"what makes the output {value.name!r} is gone: {maker!r}"
        )


def require_candidate(graph: Graph, node: Node, candidate: object) -> None:
    """A candidate has a form that can stand in the place of what `node` makes.

    Raises:
        Declined: it has not.
    """
    if isinstance(candidate, Value):
        value = node.outputs[0]
        require(candidate is not value, f"{value.name!r} cannot stand for itself")
        _require_before(graph, [candidate], node)
        require(
            None in (candidate.dtype, value.dtype) or candidate.dtype == value.dtype,
            f"{candidate.name!r} is {candidate.dtype}, and {value.name!r} is {value.dtype}",
        )
    elif isinstance(candidate, Apply):
        _require_applications(graph, {node.outputs[0]: candidate})
    elif isinstance(candidate, Mapping):
        _require_applications(graph, candidate)
    else:
        require(
            isinstance(candidate, Constant), f"{candidate!r} is nothing that can stand in a value's place"
        )


def _require_applications(graph: Graph, targets: Mapping[object, object]) -> None:
    require(bool(targets), "nothing is to be replaced")
    for value, application in targets.items():
        if not isinstance(value, Value) or not isinstance(application, Apply):
            raise Declined(f"{application!r} cannot make {value!r}: a mapping has applications for values")
        maker = value.producer
        if maker is None or maker not in graph.nodes:
            raise Declined(f"{value.name!r} is made by no operator that could be replaced")
        for part in application.applications():
            inputs, outputs = operation(part.op).arity
            require(
                inputs in (None, len(part.inputs)) and (operation(part.op).opaque or None not in part.inputs),
                f"{part.op} is applied to {len(part.inputs)} inputs, not {inputs}",
            )
            require(outputs in (None, 1), f"{part.op} has {outputs} outputs, and an application one")
            _require_place(part, application, maker)
        _require_before(graph, application.leaves(), maker)


def _require_place(part: Apply, application: Apply, maker: Node) -> None:
    """An operator of the source stays where it is: no host makes another one of it."""
    if operation(part.op).opaque:
        require(
            part is application and part.op is maker.op and len(maker.outputs) == 1,
            f"{part.op} is an operator of the source: it can make the value that it makes there of something "
            f"else, and no other one",
        )
        require(
            len(part.inputs) == len(maker.inputs),
            f"{part.op} reads {len(maker.inputs)} values in the source, not {len(part.inputs)}",
        )


def _require_before(graph: Graph, leaves: Iterable[Value], node: Node) -> None:
    """What is to be read there is made before."""
    for leaf in leaves:
        maker = leaf.producer
        known = leaf.constant is not None or bool(leaf.users) or leaf in graph.inputs
        require(
            known if maker is None else maker in graph.nodes,
            f"{leaf.name!r} is no value of the graph any more",
        )
        require(
            maker is None or maker.position < node.position,
            f"{leaf.name!r} is made behind what would read it: {maker!r} and {node!r}",
        )


def _read(node: Node) -> list[Value]:
    return [value for value in (*node.inputs, *node.parameters) if value is not None]

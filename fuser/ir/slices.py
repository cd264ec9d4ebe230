"""Backward slices: what leads to some values, as far back as one asks."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Final, TypeVar

from fuser.ir.constant import FLOATS
from fuser.ir.node import Node, Value
from fuser.ir.ops import operation
from fuser.ir.provenance import Provenance, Statement

N = TypeVar("N")

LARGEST_SLICE: Final = 1024
"""Nodes of a slice that has to be known in full. The legacy exporter writes 250 for one border."""

LARGEST_PATH: Final = 64
"""Those of them that carry data. The largest known border has 20."""

MOST_SURVIVORS: Final = 64
"""Nodes that others still read and that a check may have to follow; more than any rewrite looks at."""


def producer(value: Value) -> Node | None:
    """The node that makes a value."""
    return value.producer


def backward(
    values: Iterable[Value],
    maker: Callable[[Value], N | None],
    reads: Callable[[N], Iterable[Value]],
    *,
    known: Collection[N] = (),
    most: int | None = None,
    closed: bool = False,
) -> dict[N, None] | None:
    """What makes the values, and what makes that, the nearest first; `reads` says where it goes on.

    `known` members are not entered. A `closed` slice is None where something has no maker, or where there are
    more than `most` members; another ends there.
    """
    found: dict[N, None] = {}
    stack = list(values)
    while stack:
        node = maker(stack.pop())
        if node is not None and (node in found or node in known):
            continue
        if node is None or len(found) == most:
            if closed:
                return None
            if node is None:
                continue
            break
        found[node] = None
        stack.extend(reads(node))
    return found


def between(dead: Collection[Node], leaves: Collection[Value]) -> list[Node]:
    """A dead set, and what others still read between the leaves and its end, in graph order."""

    def reads(node: Node) -> Iterator[Value]:
        return (value for value in node.inputs if value is not None and value not in leaves)

    read = (value for node in dead for value in reads(node))
    found = backward(read, producer, reads, known=set(dead), most=MOST_SURVIVORS)
    assert found is not None, "only a closed slice may be None"
    return sorted((*dead, *found), key=lambda node: node.position)


def leading(
    statements: Iterable[Statement], targets: Iterable[Value], leaves: Collection[Value]
) -> list[Statement]:
    """The statements that lead from the leaves to the targets; what is constant has no need of any."""
    listed = list(statements)
    makers = {value: statement for statement in listed for value in statement.outputs}
    found = backward(
        targets,
        makers.get,
        lambda statement: (value for value in computed(statement.inputs) if value not in leaves),
    )
    assert found is not None, "only a closed slice may be None"
    return [statement for statement in listed if statement in found]


def supported(
    statements: Iterable[Statement], leaves: Collection[Value], provenance: Provenance
) -> list[Statement]:
    """The statements, in order behind those that make what they read of leaves, of constants and of extents.

    A node that was lifted for what it means together with others reads the last of these; and what a reshape
    to a computed shape reads is made by nodes that may stand elsewhere in the graph. What nothing makes of
    what is known stays to be fed.
    """
    listed = list(statements)
    known = {value for statement in listed for value in statement.outputs}.union(leaves)
    found: dict[Node, Statement] = {}
    for statement in listed:
        for value in _data(statement):
            if value not in known:
                more = _behind(value, known, provenance)
                found.update(more)
                known.update(v for made in more.values() for v in made.outputs)
    return sorted((*listed, *found.values()), key=lambda statement: statement.position) if found else listed


def is_visible(value: Value, nodes: Iterable[Node]) -> bool:
    """Whether anybody but these nodes reads the value."""
    return value.is_output or not value.users or not value.users.keys() <= set(nodes)


def computed(values: Iterable[Value | None]) -> Iterator[Value]:
    """Those of the values that are not constant."""
    return (value for value in values if value is not None and value.constant is None)


def _data(statement: Statement) -> Iterator[Value]:
    """What a statement reads that is no constant, and more than a shape."""
    return iter(()) if operation(statement.op).of_shape else computed(statement.inputs)


def _behind(value: Value, known: Collection[Value], provenance: Provenance) -> Mapping[Node, Statement]:
    """The nodes that make a value of what is known; none where something else comes in."""
    found: dict[Node, Statement] = {}
    carrying = 0

    def maker(value: Value) -> Node | None:
        nonlocal carrying
        node = value.producer
        if node is None or node in found:
            return node
        if provenance.is_made(node) or carrying >= LARGEST_PATH:
            return None
        found[node] = provenance.statement(node)
        carrying += value.dtype in FLOATS
        return node

    def reads(node: Node) -> Iterator[Value]:
        return (value for value in _data(found[node]) if value not in known)

    whole = backward([value], maker, reads, most=LARGEST_SLICE, closed=True)
    return {} if whole is None else found

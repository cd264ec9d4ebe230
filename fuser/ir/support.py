"""What else the steps of a region read, as far as it follows from what is fed: shapes, indices, borders.

A node that was lifted for what it means together with others (`recognise/region.py`) reads the last of
these; and what a Reshape to a computed shape reads is made by nodes that may stand elsewhere in the
graph.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import Final

from fuser.ir.constant import FLOATS
from fuser.ir.graph import Node, Step, Value
from fuser.ir.ops import operation

LARGEST_REGION: Final = 1024
"""Nodes of a region in all. The legacy exporter writes 250 for one border."""

LARGEST_PATH: Final = 64
"""Those that carry data. The largest known border has 20."""


def supported(steps: Sequence[Step], leaves: Collection[Value]) -> list[Step]:
    """The steps, in order behind those that make what they read of `leaves`, of constants and of extents.

    What nothing makes of these stays to be fed.
    """
    known = {value for step in steps for value in step.outputs}.union(leaves)
    found: dict[Node, Step] = {}
    for step in steps:
        for value in _data(step):
            if value not in known:
                more = _behind(value, known)
                found.update(more)
                known.update(v for made in more.values() for v in made.outputs)
    if not found:
        return list(steps)
    return sorted((*steps, *found.values()), key=lambda step: step.position)


def _data(step: Step) -> Iterator[Value]:
    """What a step reads that is no constant, and more than a shape."""
    if not operation(step.op).of_shape:
        yield from (value for value in step.inputs if value is not None and value.constant is None)


def _behind(value: Value, known: Collection[Value]) -> dict[Node, Step]:
    """The nodes that make a value of what is known; none where something else comes in."""
    found: dict[Node, Step] = {}
    carrying = 0
    stack = [value]
    while stack:
        top = stack.pop()
        node = top.producer
        if top in known or (node is not None and node in found):
            continue
        if node is None or node.origin or len(found) >= LARGEST_REGION or carrying >= LARGEST_PATH:
            return {}
        found[node] = Step.of(node)
        carrying += top.dtype in FLOATS
        stack.extend(_data(found[node]))
    return found

"""Values that no layer computes with: strings, sequences, optional values, indices that are fed."""

from collections.abc import Callable

import numpy as np

from tests.fuzz.flow import coarsest, made_like
from tests.fuzz.layers import LAYERS
from tests.fuzz.net import FLOATS, Net, Value


def labels(net: Net, x: Value) -> None:  # noqa: ARG001  # every operation is asked with a value
    """Strings: a table of labels, and what is moved of them."""
    places = net.model.places
    table = net.constant(np.array([b"cat", b"dog", b"\xc3\xa4", b""], dtype=object))
    rows = net.pick((1, 2, 3))
    made = net.add("Gather", [table, net.whole(*range(rows))], [(rows,)] * places, "string", axis=0)
    if net.chance(0.5):
        net.add("Identity", [made], made.shapes)
    if net.chance(0.3):
        net.add("Reshape", [made, net.whole(1, rows)], [(1, rows)] * places)


def listed(net: Net, x: Value) -> None:
    """A sequence of two values, from which one is taken, or which are joined again."""
    if x.dtype != "float32" or not x.rank:
        return
    other = net.pick([value for value in net.values if value.like(x)])
    made = net.node("SequenceConstruct", [x, other], [(x.dtype, x.shapes)], wrapped="sequence")[0]
    if net.chance(0.6):
        net.add("SequenceAt", [made, net.constant(np.array(net.pick((0, 1, -1)), np.int64))], x.shapes)
    if net.chance(0.4):
        shapes = [(2 * shape[0], *shape[1:]) for shape in x.shapes]
        if net.fits(shapes):
            net.add("ConcatFromSequence", [made], shapes, axis=0)
    if net.chance(0.3):
        net.add("SequenceLength", [made], [()] * net.model.places, "int64")


def parts(net: Net, x: Value) -> None:
    """The channels as a sequence, of which one is taken."""
    channels = x.fixed(1) if x.rank > 2 and x.dtype == "float32" else None
    if channels is None:
        return
    one = [(shape[0], 1, *shape[2:]) for shape in x.shapes]
    made = net.node(
        "SplitToSequence", [x, net.constant(np.array(1, np.int64))], [(None, one)], wrapped="sequence", axis=1
    )
    net.add("SequenceAt", [made[0], net.constant(np.array(channels - 1, np.int64))], one)


def looked_up(net: Net, x: Value) -> None:
    """Rows of a table by an index that is fed."""
    if net.depth or x.dtype not in FLOATS or any(value.dtype == "int64" for value in net.inputs):
        return
    index = net.given(
        "int64", tuple((shape[0],) for shape in x.shapes) if x.rank else ((2,),) * net.model.places
    )
    table = net.weight(x, 4, net.pick((2, 3)))
    width = net.weights[-1].dims[1] if net.weights and net.weights[-1].name == table else None
    if width is None:
        return
    shapes = [(*shape, width) for shape in index.shapes]
    net.add("Gather", [table, index], shapes, x.dtype, axis=0)


def perhaps(net: Net, x: Value) -> None:
    """An optional value, made or fed, and what is in it, or something else where nothing is."""
    if net.model.opset < 15 or x.dtype not in FLOATS:
        return
    if not net.depth and net.chance(0.6) and not any(value.wrapped for value in net.inputs):
        held = net.given(x.dtype, x.shapes, "optional")
    else:
        held = net.node("Optional", [x], [(x.dtype, x.shapes)], wrapped="optional")[0]
    there = net.add("OptionalHasElement", [held], [()] * net.model.places, "bool")
    with_it, without = net.body(), net.body()
    with_it.add("OptionalGetElement", [held], x.shapes, x.dtype)
    bodies = {"then_branch": with_it, "else_branch": without}
    for body in bodies.values():
        body.grow(LAYERS, net.pick((1, 2)))
    graphs = {name: body.graph(name, [made_like(body, x)]) for name, body in bodies.items()}
    coarse = max(coarsest(net, body) for body in bodies.values())
    net.node("If", [there], [(x.dtype, x.shapes)], coarse=coarse, **graphs)


EDGES: tuple[Callable[[Net, Value], None], ...] = (labels, listed, parts, perhaps, looked_up)

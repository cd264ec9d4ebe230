import numpy as np
import pytest

from fuser.algebra.conv import Conv, identity
from fuser.ir.node import Value
from passes.eliminate_no_ops import eliminate_no_ops
from tests.graphs import Builder, operators, optimize, relu


def test_scalar_and_per_channel_no_ops_vanish() -> None:
    b = Builder(1, 3, 4, 4)
    y = b.add(relu, b.add(identity(3, 2), b.sum(b.add(relu, b.x))))
    graph = b.finish(y)
    optimize(graph, eliminate_no_ops)
    assert operators(graph) == ["Relu", "Relu"]


def test_a_graph_output_keeps_its_name() -> None:
    b = Builder(1, 3, 4, 4)
    inner = b.add(relu, b.x)
    kept = b.add(relu, inner)
    out = b.sum(inner)
    graph = b.finish(out, kept)
    optimize(graph, eliminate_no_ops)
    assert operators(graph) == ["Relu", "Relu"]
    assert graph.outputs == (out, kept)
    assert [node.inputs[0] for node in graph.ordered()] == [b.x, out]


@pytest.mark.parametrize("other_output", [False, True])
def test_between_an_input_and_an_output_it_stays(other_output: bool) -> None:
    b = Builder(1, 3)
    source: Value = b.add(relu, b.x) if other_output else b.x
    out = b.sum(source)
    graph = b.finish(out, *([source] if other_output else []))
    events = optimize(graph, eliminate_no_ops)
    reason = "is a graph output itself" if other_output else "'x' is not made by a node here"
    assert [event.status for event in events] == ["declined"]
    assert reason in events[0].reason


@pytest.mark.parametrize(
    "op",
    [
        Conv.of(np.full((3, 1, 1, 1), 2.0), groups=3),
        Conv.of(np.ones((3, 1, 1, 1)), np.array([0.0, 0, 1]), groups=3),
        Conv.of(np.ones((3, 1, 1, 1)), groups=3, stride=(2, 2)),
        Conv.of(np.ones((3, 1, 1, 1)), groups=3, begin=(1, 0)),
        Conv.of(np.ones((3, 3, 1, 1))),
    ],
    ids=["scale", "shift", "stride", "pads", "dense"],
)
def test_what_does_something_stays(op: Conv) -> None:
    b = Builder(1, 3, 5, 5)
    graph = b.finish(b.add(relu, b.add(op, b.add(relu, b.x))))
    assert optimize(graph, eliminate_no_ops) == []
    assert len(graph.nodes) == 3

"""What holds for all passes: a candidate for one output of a node must not take the others away."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from fuser.ir.constant import Constant
from fuser.ir.node import Apply, Node
from fuser.ir.ops import Opaque, Sum
from fuser.rewrite.pattern import CLEAN, Candidate, rewrite
from tests.graphs import Builder, operators, optimize

NOTHING = Sum((1.0,))
both = Opaque("Both", lambda x: (x, 2 * x))
CANDIDATES: dict[str, Callable[[Node], Any]] = {
    "n0 has a second output that is read": lambda node: node.inputs[0],
    "n0 has 2 outputs": lambda _: Constant.of(np.zeros((1, 2))),
    "n0 has another output that is read: ['second']": lambda node: Apply(
        NOTHING, tuple(v for v in node.inputs if v)
    ),
}


@pytest.mark.parametrize("reason", CANDIDATES)
def test_a_second_output_that_is_read(reason: str) -> None:
    @rewrite(Opaque, stage=CLEAN)
    def first_alone(node: Node) -> Iterator[Candidate]:
        yield CANDIDATES[reason](node)

    b = Builder(1, 2)
    first = b.add(both, b.x)
    node = first.producer
    assert node is not None
    second = b.input("second", (1, 2))
    b.graph.inputs.remove(second)
    node.outputs = (first, second)
    second.producer = node
    graph = b.finish(b.sum(first, second))
    (event,) = optimize(graph, first_alone)
    assert (event.status, event.reason) == ("declined", reason)
    assert operators(graph) == ["Both", "sum +1*x0 +1*x1"]


@pytest.mark.parametrize("array", [np.zeros(7), np.zeros((1, 2)), np.array(["a"])])
def test_a_constant_that_nobody_found_is_not_believed(array: Any) -> None:
    """A pass may have stored what a value was found to be, and nothing else."""

    @rewrite(Opaque, stage=CLEAN)
    def zeros(_: Node) -> Iterator[Candidate]:
        """f(x)  ->  0."""
        yield Constant.of(array)

    b = Builder(1, 2)
    inner = b.add(Opaque("Relu", lambda x: (x,)), b.x)
    graph = b.finish(b.add(Opaque("Tanh", lambda x: (x,)), inner))
    event, *_ = optimize(graph, zeros)
    assert event.status == "declined"
    assert "is not what 'v0' was found to be: None" in event.reason

import numpy as np

from fuser.ir.node import Node, Value
from fuser.ir.ops import Opaque, Sum
from passes.fold_constants import fold_constants
from tests.graphs import Builder, optimize

double = Opaque("Double", lambda x: (2 * x,))
tile = Opaque("Tile", lambda x: (np.tile(x, 1000),))
noise = Opaque("Noise", None)


def read(graph_value: Value) -> list[float]:
    assert graph_value.constant is not None
    return [float(v) for v in graph_value.constant.array().ravel()]


def test_a_chain_of_constants_is_computed() -> None:
    b = Builder(2)
    c = b.constant(np.array([1.0, 2.0]))
    weight = b.add(double, b.add(double, c))
    graph = b.finish(b.sum(b.x, weight))
    optimize(graph, fold_constants)
    assert [node.op for node in graph.ordered()] == [Sum((1.0, 1.0))]
    assert read(weight) == [4.0, 8.0]


def test_a_result_that_would_let_the_file_grow_is_known_but_not_stored() -> None:
    b = Builder(2000)
    c = b.constant(np.array([1.0, 2.0]))
    tiled = b.add(tile, c, shape=(2000,))
    graph = b.finish(b.sum(b.x, tiled))
    (event,) = optimize(graph, fold_constants)
    assert event.reason == "storing the result would let the file grow: 8000 bytes instead of 8"
    assert len(graph.nodes) == 2
    assert tiled.constant is not None


def test_what_is_no_function_of_its_inputs_stays() -> None:
    b = Builder(2)
    c = b.constant(np.array([1.0, 2.0]))
    graph = b.finish(b.sum(b.x, b.x))
    graph.add(Node(noise, [c], [Value("n", (2,), "float32")], name="noise", position=(9,)))
    before = dict(graph.nodes)
    from fuser.rewrite.driver import run
    from fuser.rewrite.pattern import Log, Plan
    from fuser.validate import check

    log = Log()
    run(graph, Plan((fold_constants,)), log, check)
    assert graph.nodes == before
    assert log.events == []


def test_a_graph_output_stays_computed() -> None:
    b = Builder(2)
    graph = b.finish(b.add(double, b.constant(np.array([1.0, 2.0]))))
    (event,) = optimize(graph, fold_constants)
    assert event.reason == "the result is the graph output 'v0'"

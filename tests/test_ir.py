from typing import Any
from unittest.mock import create_autospec

import numpy as np
import pytest

from fuser.algebra.conv import Conv, identity
from fuser.algebra.lazy import Array
from fuser.ir.constant import Constant
from fuser.ir.extents import Shape
from fuser.ir.graph import Graph, Host
from fuser.ir.interpret import evaluate
from fuser.ir.node import Apply, Node, Value
from fuser.ir.ops import Concat, Op, Opaque, Permute, Reshape, Select, Sum, operation


def relu(name: str, x: Value, position: int = 0) -> Node:
    return Node(Opaque("Relu"), [x], [Value(f"{name}.out")], name=name, position=(position,))


@pytest.fixture
def graph() -> Graph:
    return Graph("main", create_autospec(Host))


def test_nodes_and_values_are_equal_by_identity() -> None:
    assert Value("x") != Value("x")
    x = Value("x")
    assert relu("a", x) != relu("a", x)
    assert Opaque("Relu") != Opaque("Relu")


def test_operators_are_equal_by_value() -> None:
    assert Sum((1.0, 2.0), 3.0) == Sum((1.0, 2.0), 3.0)
    assert identity(2, 1) == identity(2, 1)


def test_uses_are_kept_in_insertion_order(graph: Graph) -> None:
    x = Value("x")
    nodes = [graph.add(relu(str(i), x)) for i in range(20)]
    assert list(x.users) == nodes
    assert [node.outputs[0].producer for node in nodes] == nodes


def test_connect_moves_the_uses(graph: Graph) -> None:
    x, y = Value("x"), Value("y")
    node = graph.add(Node(Sum((1.0, 1.0)), [x, x], [Value("z")]))
    graph.connect(node, [x, None, y])
    assert node.inputs == (x, None, y)
    assert list(x.users) == [node]
    assert list(y.users) == [node]
    graph.connect(node, [y])
    assert not x.users


def test_remove_takes_node_and_uses_out(graph: Graph) -> None:
    x = Value("x")
    first = graph.add(relu("a", x))
    second = graph.add(relu("b", first.outputs[0]))
    graph.remove(second)
    assert list(graph.nodes) == [first]
    assert not first.outputs[0].users
    assert second.outputs[0].producer is None


def test_remove_leaves_an_output_that_another_node_took_over(graph: Graph) -> None:
    x, y = Value("x"), Value("y")
    old = graph.add(Node(Opaque("Relu"), [x], [y]))
    new = graph.add(Node(Opaque("Relu"), [x], [y]))
    graph.remove(old)
    assert y.producer is new
    assert list(x.users) == [new]


def test_nodes_are_ordered_by_position(graph: Graph) -> None:
    x = Value("x")
    positions: list[tuple[int, ...]] = [(2,), (0,), (1, 1), (1,), (1, 0)]
    for position in positions:
        graph.add(Node(Opaque("Relu"), [x], [Value("y")], position=position))
    assert [node.position for node in graph.ordered()] == sorted(positions)


def test_outputs_know_that_they_are(graph: Graph) -> None:
    x, y = Value("x"), Value("y")
    graph.outputs = [y]
    assert graph.outputs == (y,)
    assert (x.is_output, y.is_output) == (False, True)


def test_the_sole_user_of_a_value(graph: Graph) -> None:
    x = Value("x")
    assert x.sole_user is None
    node = graph.add(Node(Sum((1.0, 1.0)), [x, x], [Value("y")]))
    assert x.sole_user is node
    graph.outputs = [x]
    assert x.sole_user is None
    graph.add(relu("a", node.outputs[0]))
    graph.add(relu("b", node.outputs[0]))
    assert node.outputs[0].sole_user is None


def test_parameters_are_uses(graph: Graph) -> None:
    x, weight, scale = Value("x"), Value("weight"), Value("scale")
    node = graph.add(relu("a", x))
    graph.connect(node, [x], [weight])
    assert (node.parameters, list(weight.users)) == ((weight,), [node])
    graph.connect(node, [x])
    assert node.parameters == (weight,)
    graph.connect(node, [x], [scale])
    assert not weight.users
    graph.remove(node)
    assert not scale.users


def test_a_constant_is_not_read_before_its_values_are_needed() -> None:
    looks = []

    def read() -> np.ndarray[Any, Any]:
        looks.append(1)
        return np.ones((2, 3), dtype=np.float16)

    constant = Constant((2, 3), "float16", read)
    assert constant.size == 6
    lazy = constant.lazy
    assert repr(constant) == "Constant(float16[2, 3])"
    assert not looks
    assert lazy().dtype == np.float64
    assert len(looks) == 1


def test_a_constant_of_an_array() -> None:
    constant = Constant.of(np.zeros((0, 3), dtype=np.int64))
    assert (constant.shape, constant.dtype, constant.size) == ((0, 3), "int64", 0)
    assert Constant.of(np.ones((), dtype=np.float32)).size == 1


def test_sum_is_the_linear_combination() -> None:
    a, b = np.array([1.0, 2.0]), np.array([10.0, 20.0])
    assert np.array_equal(Sum((2.0, -1.0), 0.5).evaluate(a, b), [-7.5, -15.5])
    assert str(Sum((2.0, -1.0), 0.5)) == "sum +2*x0 -1*x1 +0.5"


@pytest.mark.parametrize(
    ("op", "neutral"),
    [
        (Sum((1.0,)), True),
        (Sum((1.0,), 1.0), False),
        (Sum((-1.0,)), False),
        (Sum((1.0, 1.0)), False),
    ],
)
def test_a_sum_of_one_term_as_it_is_changes_nothing(op: Sum, neutral: bool) -> None:
    assert op.neutral is neutral


def test_an_application_knows_its_leaves_and_parts_inputs_first() -> None:
    x, y = Value("x"), Value("y")
    first = Apply(Sum((2.0,)), (x,))
    second = Apply(Sum((1.0, 1.0)), (y, first))
    whole = Apply(Sum((1.0, 1.0)), (second, x))
    assert list(whole.leaves()) == [y, x]
    assert list(whole.applications()) == [first, second, whole]


def test_reprs_say_what_is_known() -> None:
    value = Value("x", (1, "N", None), "float32")
    assert repr(value) == "Value('x', float32[1, 'N', None])"
    assert repr(Value("x")) == "Value('x', None?)"
    assert (value.rank, Value("x").rank) == (3, None)
    assert repr(relu("a", value)) == "Node('a': Relu)"


X = np.arange(120.0).reshape(2, 4, 3, 5)
SHAPES: dict[Op, tuple[Array, ...]] = {
    Sum((1.0, 2.0)): (X, X),
    Concat(2, 1): (X, X[:, :1]),
    Concat(3, -1): (X, X, X),
    Select(((0, 1), (1, 3)), 4, 1): (X,),
    Reshape((6, 2)): (X,),
    Reshape((2, 10, 3)): (X,),
    Permute((0, 3, 1, 2)): (X,),
    Conv.of(np.ones((2, 4, 3, 2)), begin=(1, 0), end=(2, 0), stride=(2, 1)): (X,),
    Conv.of(np.ones((2, 4, 3, 2)), stride=(2, 1), transposed=True): (X,),
    Conv.of(np.ones((2, 5)), axis=-1): (X,),
    Opaque("Relu", lambda x: (np.maximum(x, 0.0),), elementwise=True): (X,),
}


@pytest.mark.parametrize("op", SHAPES, ids=str)
def test_the_shape_of_a_result_is_what_evaluating_it_gives(op: Op) -> None:
    inputs = SHAPES[op]
    shapes = [array.shape for array in inputs]
    made = [array.shape for array in evaluate(op, inputs)]
    assert list(operation(op).result(*shapes)) == made
    unknown = [(None, *shape[1:]) for shape in shapes]
    for found, shape in zip(operation(op).result(*unknown), made, strict=True):
        assert found is not None
        assert found[1:] == shape[1:] or isinstance(op, Permute)
        assert len(found) == len(shape)
        assert all(n in (m, None) for n, m in zip(found, shape, strict=True))


@pytest.mark.parametrize("op", SHAPES, ids=str)
def test_of_unknown_shapes_no_wrong_one_follows(op: Op) -> None:
    inputs = SHAPES[op]
    for found, array in zip(operation(op).result(*(None for _ in inputs)), evaluate(op, inputs), strict=True):
        assert found is None or all(n in (m, None) for n, m in zip(found, array.shape, strict=True))


@pytest.mark.parametrize("op", SHAPES, ids=str)
def test_what_follows_for_an_input_is_true_of_it(op: Op) -> None:
    first, *_ = SHAPES[op]
    result, *_ = evaluate(op, SHAPES[op])
    follows = operation(op).asks(None, result.shape)
    if isinstance(op, Sum | Permute | Opaque):
        assert follows == first.shape
    if isinstance(op, Conv):
        assert follows == ((None, 5) if op.axis == -1 else (None, 4, None, None))


@pytest.mark.parametrize("known", [("n",), (3,), (), None, ("n", 4), (2, None, 3, 5)])
def test_a_convolution_takes_any_shape_that_its_node_may_read(known: Shape | None) -> None:
    """A bias that is computed is read beside the data, and has fewer axes than these."""
    asked = operation(identity(4, 2)).asks(known, None)
    assert asked is not None
    assert len(asked) == len(known or range(4))
    pairs = zip(known or (), asked, strict=False)
    assert all(old == new for old, new in pairs if isinstance(old, int))


def test_the_numbers_of_constants_are_computed_in_the_type_of_the_first() -> None:
    held = [Constant.of(np.array([1, 2])), Constant.of(np.array([0.5, 0.5]))]
    (array,) = operation(Sum((1.0, 3.0))).of_constants(held)
    assert (array.dtype.name, array.tolist()) == ("int64", [2, 3])

"""What a valid graph is; candidates of a wrong form are declined with a reason, whatever a pass yields."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
import pytest

import fuser
from fuser.algebra import laws
from fuser.algebra.conv import Conv
from fuser.errors import Declined
from fuser.ir.constant import Constant
from fuser.ir.graph import Graph
from fuser.ir.node import Apply, Node, Value
from fuser.ir.ops import Concat, Opaque, Select, Sum
from fuser.ir.spec import require_valid
from fuser.rewrite.pattern import CLEAN, FOLD, Candidate, Plan, rewrite
from tests.graphs import Builder, operators, optimize, relu
from tests.small_models import normal, parsed

NOTHING = Sum((1.0,))
tanh = Opaque("Tanh", lambda x: (np.tanh(x),))


def chain() -> tuple[Graph, Node, Node]:
    """x -> Relu -> Tanh -> sum."""
    b = Builder(1, 2)
    first = b.add(relu, b.x)
    graph = b.finish(b.sum(b.add(tanh, first)))
    one, two, _ = graph.ordered()
    return graph, one, two


def detached(graph: Graph, one: Node, two: Node) -> None:
    del graph
    one.outputs[0].producer = two


def unknown_reader(graph: Graph, one: Node, two: Node) -> None:
    del graph
    one.outputs[0].users.pop(two)


def gone(graph: Graph, one: Node, two: Node) -> None:
    del two
    del graph.nodes[one]


def gone_reader(graph: Graph, one: Node, two: Node) -> None:
    del two
    stranger = Node(relu, [one.inputs[0]], [Value("s")])
    graph.inputs[0].users[stranger] = None


def later(graph: Graph, one: Node, two: Node) -> None:
    del graph
    one.position = two.position


def too_many(graph: Graph, one: Node, two: Node) -> None:
    (last,) = (user for user in two.outputs[0].users)
    graph.connect(last, [*last.inputs, one.outputs[0]])


def unsaid(graph: Graph, one: Node, two: Node) -> None:
    del one, two
    graph.outputs[0].is_output = False


BROKEN: dict[str, Callable[[Graph, Node, Node], None]] = {
    r"Node\('n0': Relu\) makes 'v0', which says that Node\('n1': Tanh\) does": detached,
    r"Node\('n1': Tanh\) reads 'v0', which does not know of it": unknown_reader,
    r"reads 'v0', and what makes that is gone: Node\('n0': Relu\)": gone,
    r"'x' is said to be read by what is gone: Node\('': Relu\)": gone_reader,
    r"at \(1,\) reads 'v0', which is made later": later,
    r"Node\('n2': sum \+1\*x0\) has 2 values where 1 are due": too_many,
    r"the output 'v2' does not say that it is one": unsaid,
}


@pytest.mark.parametrize("reason", BROKEN)
def test_what_is_no_valid_graph(reason: str) -> None:
    graph, one, two = chain()
    require_valid(graph)
    BROKEN[reason](graph, one, two)
    with pytest.raises(Declined, match=reason):
        require_valid(graph)


def test_an_output_that_nothing_makes_any_more() -> None:
    graph, *_ = chain()
    (last,) = (node for node in graph.nodes if node.outputs[0].is_output)
    del graph.nodes[last]
    graph.connect(last, ())
    with pytest.raises(Declined, match=r"what makes the output 'v2' is gone: Node\('n2'"):
        require_valid(graph)


def behind(node: Node) -> Value:
    (user,) = node.outputs[0].users
    return user.outputs[0]


def read(node: Node) -> Value:
    value = node.inputs[0]
    assert value is not None
    return value


double = Sum((2.0,))
CANDIDATES: dict[str, Callable[[Node], Any]] = {
    "None is nothing that can stand in a value's place": lambda _: None,
    "'Relu' is nothing that can stand in a value's place": lambda node: str(node.op),
    "'v0' cannot stand for itself": lambda node: node.outputs[0],
    "'v1' is made behind what would read it: Node('n1': Tanh) and Node('n0': Relu)": behind,
    "'i' is int64, and 'v0' is float32": lambda node: typed(read(node)),
    "'gone' is no value of the graph any more": lambda _: Value("gone", (1, 2), "float32"),
    "nothing is to be replaced": lambda _: {},
    "'x' is made by no operator that could be replaced": lambda node: {
        read(node): Apply(double, (read(node),))
    },
    "Value('x', float32[1, 2]) cannot make Value('v0', float32[1, 2]): a mapping has applications for "
    "values": (lambda node: {node.outputs[0]: read(node)}),
    "sum +2*x0 is applied to 2 inputs, not 1": lambda node: Apply(double, (read(node), read(node))),
    "concat, axis 1 is applied to 1 inputs, not 2": lambda node: Apply(Concat(2, 1), (read(node),)),
    "channels 0:1, 1:2 of 2 has 2 outputs, and an application one": lambda node: Apply(
        Select(((0, 1), (1, 1)), 2, 1), (read(node),)
    ),
    "Tanh is an operator of the source: it can make the value that it makes there of something else, and no "
    "other one": lambda node: Apply(tanh, (read(node),)),
    "Relu is an operator of the source: it can make the value that it makes there of something else, and no "
    "other one": lambda node: Apply(double, (Apply(relu, (read(node),)),)),
    "Relu reads 1 values in the source, not 2": lambda node: Apply(relu, (read(node), read(node))),
    "'v1' is made behind what would read it: Node('n1': Tanh) and Node('n0': Relu) ": lambda node: Apply(
        double, (behind(node),)
    ),
}


def typed(like: Value) -> Value:
    value = Value("i", like.shape, "int64")
    value.constant = Constant.of(np.zeros((1, 2), np.int64))
    return value


@pytest.mark.parametrize("reason", CANDIDATES)
@pytest.mark.parametrize("careful", [False, True])
def test_a_candidate_of_a_wrong_form_is_declined(reason: str, careful: bool) -> None:
    @rewrite(Opaque, stage=CLEAN)
    def wrong(node: Node) -> Iterator[Candidate]:
        if node.op is relu:
            yield CANDIDATES[reason](node)

    graph, *_ = chain()
    (event,) = optimize(graph, wrong, careful=careful)
    assert (event.status, event.reason) == ("declined", reason.strip())
    assert operators(graph) == ["Relu", "Tanh", "sum +1*x0"]


def transposed() -> onnx.ModelProto:
    """conv(transpose(s * x)): the scale could pass the transpose."""
    return parsed(
        "g (float[N,4,H,W] x) => (float[a,b,c,d] y) "
        "{ u = Mul (x, s) t = Transpose <perm = [0,1,3,2]> (u) y = Conv (t, w) }",
        s=np.linspace(0.5, 2, 4).reshape(1, 4, 1, 1), w=normal(4, 4, 1, 1),
    )  # fmt: skip


def scaled(node: Node) -> Iterator[tuple[Node, Node]]:
    """The transpose before a convolution, and the scale before that."""
    maker = read(node).producer
    if maker is not None and isinstance(maker.op, Opaque) and maker.op.kind == "Transpose":
        before = read(maker).producer
        if before is not None and isinstance(before.op, Conv):
            yield maker, before


@rewrite(Conv, stage=FOLD)
def scale_within(node: Node) -> Iterator[Candidate]:
    """conv(transpose(s * x))  ->  conv'(transpose(x)), as one application."""
    for transpose, scale in scaled(node):
        assert isinstance(node.op, Conv)
        assert isinstance(scale.op, Conv)
        moved = Apply(transpose.op, (read(scale),))
        yield Apply(laws.compose(node.op, scale.op), (moved,))


@rewrite(Conv, stage=FOLD)
def scale_along(node: Node) -> Iterator[Candidate]:
    """conv(transpose(s * x))  ->  conv'(transpose(x)), the transpose still making what it makes."""
    for transpose, scale in scaled(node):
        assert isinstance(node.op, Conv)
        assert isinstance(scale.op, Conv)
        between = transpose.outputs[0]
        yield {
            between: Apply(transpose.op, (read(scale),)),
            node.outputs[0]: Apply(laws.compose(node.op, scale.op), (between,)),
        }


@pytest.mark.parametrize(
    ("candidate", "kinds"),
    [(scale_within, ["Mul", "Transpose", "Conv"]), (scale_along, ["Transpose", "Conv"])],
    ids=["within", "along"],
)
def test_a_scale_passes_an_operator_of_the_source_that_stays_where_it_is(
    candidate: Any, kinds: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = transposed()
    monkeypatch.setattr("fuser.compiler.select", lambda *_: Plan((candidate,)))
    result, report = fuser.optimize(model, return_report=True)
    assert [node.op_type for node in result.graph.node] == kinds
    assert fuser.verify(model, result).ok
    declined = [event.reason for event in report.declined if event.rewrite == candidate.name]
    assert bool(declined) == (kinds[0] == "Mul")
    assert all(reason.startswith("Transpose is an operator of the source") for reason in declined)

"""Backward slices: what is in them, and when there is none."""

from collections.abc import Iterator

import pytest

from fuser.ir.node import Node, Value
from fuser.ir.ops import Sum
from fuser.ir.provenance import Provenance
from fuser.ir.slices import backward, between, leading, producer, supported
from tests.graphs import Builder, relu


def reads(node: Node) -> Iterator[Value]:
    return (value for value in node.inputs if value is not None)


def names(nodes: object) -> list[str]:
    assert isinstance(nodes, list | dict)
    return [node.name for node in nodes]


@pytest.fixture
def diamond() -> Builder:
    """n0 = relu(x); n1, n2 of n0; n3 = n1 + n2; n4 = relu(n3); n5 = relu(n1)."""
    b = Builder(1, 2)
    first = b.add(relu, b.x)
    left, right = b.add(relu, first), b.add(relu, first)
    total = b.sum(left, right)
    b.finish(b.add(relu, total), b.add(relu, left))
    return b


def test_what_makes_a_value_the_nearest_first(diamond: Builder) -> None:
    end, _ = diamond.graph.outputs
    assert names(backward([end], producer, reads)) == ["n4", "n3", "n2", "n0", "n1"]


def test_a_closed_slice_has_a_maker_for_everything(diamond: Builder) -> None:
    end, _ = diamond.graph.outputs
    first = diamond.graph.ordered()[0].outputs[0]
    assert backward([end], producer, reads, closed=True) is None

    def behind_first(node: Node) -> Iterator[Value]:
        return (value for value in reads(node) if value is not first)

    found = backward([end], producer, behind_first, closed=True)
    assert names(found) == ["n4", "n3", "n2", "n1"]


@pytest.mark.parametrize(("most", "closed", "count"), [(5, False, 5), (2, False, 2), (4, True, None)])
def test_a_slice_has_an_end(diamond: Builder, most: int, closed: bool, count: int | None) -> None:
    end, _ = diamond.graph.outputs
    first = diamond.graph.ordered()[0]

    def reads_on(node: Node) -> Iterator[Value]:
        return iter(()) if node is first else reads(node)

    found = backward([end], producer, reads_on, most=most, closed=closed)
    assert (None if found is None else len(found)) == count


def test_known_members_are_not_entered(diamond: Builder) -> None:
    end, _ = diamond.graph.outputs
    *_, total, last, _ = diamond.graph.ordered()
    assert names(backward([end], producer, reads, known={total})) == ["n4"]
    assert last.name == "n4"


def test_between_is_the_dead_set_and_what_others_still_read(diamond: Builder) -> None:
    first, _, right, total, *_ = diamond.graph.ordered()
    assert names(between([right, total], {first.outputs[0]})) == ["n1", "n2", "n3"]
    assert names(between([right, total], {diamond.x})) == ["n0", "n1", "n2", "n3"]


def test_only_the_statements_that_lead_to_the_targets(diamond: Builder) -> None:
    nodes = diamond.graph.ordered()
    provenance = Provenance()
    statements = [provenance.statement(node) for node in nodes]
    first, left, *_ = (node.outputs[0] for node in nodes)
    found = leading(statements, [left], set())
    assert [statement.outputs[0].name for statement in found] == ["v0", "v1"]
    assert [s.outputs[0].name for s in leading(statements, [left], {first})] == ["v1"]


def test_what_is_made_of_what_is_known_need_not_be_fed(diamond: Builder) -> None:
    first, left, right, total, *_ = diamond.graph.ordered()
    provenance = Provenance()
    end = provenance.statement(total)
    made = supported([end], {first.outputs[0]}, provenance)
    assert [statement.outputs[0].name for statement in made] == ["v1", "v2", "v3"]
    # Where something else comes in, nothing of it is of use.
    provenance.make(right, provenance.origin([right]))
    found = supported([end], {first.outputs[0]}, provenance)
    assert [statement.outputs[0].name for statement in found] == ["v1", "v3"]
    assert left.op == right.op


def test_the_provenance_of_what_is_made_twice_over() -> None:
    b = Builder(1, 2)
    x = b.x
    b.finish(b.sum(b.sum(x, coefficients=[2.0]), coefficients=[3.0]))
    one, two = b.graph.ordered()
    provenance = b.graph.provenance
    provenance.make(two, provenance.origin([one, two]))
    three = Node(Sum((6.0,)), [x], [Value("z")], position=(2,))
    provenance.make(three, provenance.origin([two]))
    assert [statement.op for statement in provenance.behind([three])] == [Sum((2.0,)), Sum((3.0,))]
    assert provenance.unchecked([one, two, three]) == [two, three]
    provenance.check(two)
    assert provenance.unchecked([one, two, three]) == [three]


def test_what_says_that_a_value_is_itself_is_left_out() -> None:
    b = Builder(1, 2)
    same = b.sum(b.x)
    b.finish(b.add(relu, same))
    one, two = b.graph.ordered()
    provenance = b.graph.provenance
    provenance.succeed(same, b.x)
    (statement,) = provenance.behind([one, two])
    assert (str(statement.op), statement.inputs) == ("Relu", (b.x,))
    assert provenance.current(same) is b.x
    three = Node(two.op, two.inputs, two.outputs)
    provenance.redirect(three, two, {same: b.x})
    assert provenance.current(b.x) is b.x
    assert provenance.redirected(three) == {same: b.x}
    other = b.input("other", (1, 2))
    four = Node(two.op, two.inputs, two.outputs)
    provenance.redirect(four, three, {b.x: other})
    assert provenance.redirected(four) == {same: other, b.x: other}

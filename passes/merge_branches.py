"""A sum of convolutions of one input is one convolution: k*x + m*x = (k + m)*x.

Ding et al., "RepVGG", CVPR 2021, and "Diverse Branch Block", CVPR 2021, transforms II and VI.
"""

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations

from fuser.algebra.conv import Conv
from fuser.errors import Declined
from fuser.ir.node import Apply, Node, Value
from fuser.ir.ops import Sum
from fuser.rewrite.pattern import MERGE, Candidate, rewrite
from passes._branch import Branch, combine


@rewrite(Sum, stage=MERGE)
def merge_branches(node: Node) -> Iterator[Candidate]:
    """a * conv(x, k) + b * conv(x, m) + c * x + y  ->  conv(x, a * k + b * m + c * delta) + y.

    Sums of any arity and order, nested, with Sub and scalars. Each kernel is embedded in the union of the
    windows; the identity is a delta kernel on the centre tap. Where merging all terms does not pay, pairs are
    tried.

    Given:
        x: float32 [1, 8, 8, 8]
        a = 3x3 conv, 8 -> 8, pads (1, 1, 1, 1) (x)
        b = 1x1 conv, 8 -> 8, bias (x)
        y = a + b + x
        return y
    Result:
        x: float32 [1, 8, 8, 8]
        y = 3x3 conv, 8 -> 8, pads (1, 1, 1, 1), bias (x)
        return y

    Declined:
        x: float32 [1, 4, 3, 3]
        a = 3x3 conv, 4 -> 4 (x)
        b = 1x1 conv, 4 -> 4, stride (3, 3) (x)
        y = a + b
        return y
        # 3x3 conv, 4 -> 4 and 1x1 conv, 4 -> 4, stride (3, 3): stride differs: (1, 1) and (3, 3)
    """
    if any(inner(node, user) for user in node.outputs[0].users):
        return
    terms, offset = flatten(node)
    if len(terms) < len(node.inputs):
        # One value more than once: its coefficients add up.
        yield Apply(Sum(tuple(coefficient(term) for term in terms), offset), tuple(t.source for t in terms))
    chains = [reach(term) for term in terms]
    reasons: list[str] = []
    for source in sources(chains):
        routes = {i: branch for i, chain in enumerate(chains) for branch in chain if branch.source is source}
        for members, total in clusters(routes, reasons):
            yield together(total, without(terms, members), offset)
            for a, b in combinations(members, 2) if len(members) > 2 else ():
                yield together(members[a] + members[b], without(terms, (a, b)), offset)
    if reasons:
        raise Declined("; ".join(dict.fromkeys(reasons)))


def inner(node: Node, user: Node) -> bool:
    """Whether `node` is a part of the tree of sums that `user` belongs to: it is judged there, as a whole."""
    return isinstance(node.op, Sum) and isinstance(user.op, Sum) and node.outputs[0].sole_user is user


def flatten(node: Node) -> tuple[list[Branch], float]:
    """The terms of a tree of sums, each value once with its coefficient, and the constant part."""
    coefficients: dict[Value, float] = {}
    offset = 0.0
    stack = [(node, 1.0)]
    while stack:
        tree, factor = stack.pop()
        assert isinstance(tree.op, Sum)
        offset += factor * tree.op.offset
        for value, coefficient in zip(tree.inputs, tree.op.coefficients, strict=True):
            assert value is not None
            if value.producer is not None and inner(value.producer, tree):
                stack.append((value.producer, factor * coefficient))
            else:
                coefficients[value] = coefficients.get(value, 0.0) + factor * coefficient
    return [Branch(Sum((c,)), value) for value, c in coefficients.items()], offset


def reach(term: Branch) -> list[Branch]:
    """The term written as a map of each value upstream, the nearest first."""
    found: list[Branch] = []
    longer = term.upstream()
    while True:
        try:
            found.append(next(longer))
        except (Declined, StopIteration):
            return found


def sources(chains: Sequence[Sequence[Branch]]) -> list[Value]:
    """The values that at least two terms can be written in, the most shared first, then the nearest."""
    count: dict[Value, int] = {}
    distance: dict[Value, int] = {}
    for chain in chains:
        for steps, branch in enumerate(chain):
            count[branch.source] = count.get(branch.source, 0) + 1
            distance[branch.source] = distance.get(branch.source, 0) + steps
    shared = [source for source, terms in count.items() if terms > 1]
    return sorted(shared, key=lambda source: (-count[source], distance[source]))


def clusters(routes: Mapping[int, Branch], reasons: list[str]) -> list[tuple[dict[int, Branch], Branch]]:
    """Groups of terms, as convolutions, that add up to one; `reasons` receives why a term did not join."""
    groups: list[tuple[dict[int, Branch], Branch]] = []
    like = next((branch.op for branch in routes.values() if isinstance(branch.op, Conv)), None)
    if like is None:
        return []
    for i, branch in routes.items():
        term = replace(branch, op=branch.like(like))
        for index, (members, total) in enumerate(groups):
            try:
                groups[index] = ({**members, i: term}, total + term)
            except Declined as reason:
                reasons.append(f"{total.op} and {term.op}: {reason}")
            else:
                break
        else:
            groups.append(({i: term}, term))
    return [group for group in groups if len(group[0]) > 1]


def without(terms: Sequence[Branch], members: Container[int]) -> list[Branch]:
    """The other terms."""
    return [term for i, term in enumerate(terms) if i not in members]


def together(merged: Branch, rest: Sequence[Branch], offset: float) -> Apply:
    """The merged branch, the constant part in its bias, plus the terms that stay."""
    shifted = replace(merged, op=combine(Sum((1.0,), offset), merged.op)).apply
    if not rest:
        return shifted
    return Apply(
        Sum((*(coefficient(term) for term in rest), 1.0)), (*(term.source for term in rest), shifted)
    )


def coefficient(term: Branch) -> float:
    """The factor of a term of a sum."""
    assert isinstance(term.op, Sum)
    return term.op.coefficients[0]

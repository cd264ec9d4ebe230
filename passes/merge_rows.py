"""At one extent a convolution is a matrix on rows: R^-1 a (R x) + k x = R^-1 (a + R k R^-1) (R x).

Ding et al., "RepMLP", arXiv 2105.01883: its fully-connected layer takes in the convolutions beside it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations, product
from math import prod

from fuser.algebra import laws
from fuser.algebra.conv import Conv
from fuser.algebra.rows import as_matrix, on_axes
from fuser.errors import Declined, require
from fuser.ir.node import Apply, Node, Value
from fuser.ir.ops import Reshape, Sum
from fuser.rewrite.pattern import MERGE, Candidate, rewrite
from passes._branch import Branch, scalar
from passes._reshape import read_by, reshape_before, sample
from passes.merge_branches import coefficient, flatten, inner, reach, without


@dataclass(frozen=True)
class Term:
    """A term of a sum as `last(branch(first(source)))`, the reshapes where there are any."""

    branch: Branch
    source: Value
    first: Reshape | None
    last: Reshape | None

    @property
    def on_rows(self) -> bool:
        """Whether it is a map of whole samples, each of them the channels of one position."""
        op, seen = self.branch.op, sample(self.branch.source)
        return isinstance(op, Conv) and op.local and seen == (op.inputs, *(1,) * op.rank)

    def matrix(self) -> Conv:
        """The map as one of rows."""
        op, shape = self.branch.op, sample(self.branch.source)
        if isinstance(op, Sum):
            return scalar(op, prod(shape), 0, 1)
        if op.axis == 1:
            return as_matrix(op, shape[1:])
        require(len(shape) == 1, f"a linear layer acts on {shape}, on each of its positions alone")
        return op.with_axis(1)


@rewrite(Sum, stage=MERGE)
def merge_rows(node: Node) -> Iterator[Candidate]:
    """reshape(conv(reshape(x), a)) + conv(x, k)  ->  reshape(conv(reshape(x), a + matrix(k))).

    `a` is a linear layer or a 1x1 convolution of samples that are flattened. The other term is whatever one
    convolution can say, x itself included, flattened or not. A pair at a time: `merge_branches` has
    added up what it can.

    Given:
        x: float32 [N, 3, 4, 5]
        a = reshape to (-1, 60, 1, 1) (x)
        b = 1x1 conv, 60 -> 60, groups 3 (a)
        c = reshape to (-1, 3, 4, 5) (b)
        d = 3x3 conv, 3 -> 3, groups 3, pads (1, 1, 1, 1) (x)
        y = c + d
        return y
    Result:
        x: float32 [N, 3, 4, 5]
        y_0 = reshape to (-1, 60, 1, 1) (x)
        y_1 = 1x1 conv, 60 -> 60, groups 3 (y_0)
        y = reshape to (-1, 3, 4, 5) (y_1)
        return y

    Declined:
        x: float32 [1, 3, H, 5]
        a = reshape to (-1, 60) (x)
        b = linear, 60 -> 60 (a)
        c = reshape to (-1, 3, 4, 5) (b)
        y = c + x
        return y
        # the extents of 'x' are not known: (1, 3, 'H', 5)
    """
    if any(inner(node, user) for user in node.outputs[0].users):
        return
    terms, offset = flatten(node)
    if not any(reshape_before(term.source) for term in terms):
        return
    forms = [list(written(term)) for term in terms]
    reasons: list[str] = []
    for i, j in permutations(range(len(terms)), 2):
        rest = without(terms, (i, j))
        for a, b in filter(fit, product(forms[i], forms[j])):
            try:
                total = add(a, b, offset)
            except Declined as reason:
                reasons.append(f"{a.branch.op} and {b.branch.op}: {reason}")
                continue
            coefficients = (*(coefficient(term) for term in rest), 1.0)
            yield Apply(Sum(coefficients), (*(term.source for term in rest), total)) if rest else total
    if reasons:
        raise Declined("; ".join(dict.fromkeys(reasons)))


def written(term: Branch) -> Iterator[Term]:
    """The term as a map of each value upstream, seen through a reshape at either end."""
    last, value = through(term.source)
    for branch in reach(Branch(term.op, value)):
        yield Term(branch, branch.source, None, last)
        first, source = through(branch.source)
        if first is not None:
            yield Term(branch, source, first, last)


def through(value: Value) -> tuple[Reshape | None, Value]:
    """The reshape that makes the value and what that reads, or the value itself."""
    maker = value.producer
    if maker is None or not isinstance(maker.op, Reshape):
        return None, value
    return maker.op, read_by(maker)


def fit(pair: tuple[Term, Term]) -> bool:
    """Whether the first is a map of the rows of what both read, and there is a reshape to see through."""
    a, b = pair
    reshaped = any(reshape is not None for reshape in (a.first, a.last, b.first, b.last))
    return a.source is b.source and reshaped and a.on_rows


def add(a: Term, b: Term, offset: float) -> Apply:
    """a + b + offset in the form of `a`.

    Raises:
        Declined: they do not add up to one matrix.
    """
    like = a.branch.op
    assert isinstance(like, Conv)
    total = laws.shift(laws.add(a.matrix(), b.matrix()), offset)
    rows: Value | Apply = a.source if a.first is None else Apply(a.first, (a.source,))
    result = Apply(on_axes(total, like.rank, like.axis), (rows,))
    return result if a.last is None else Apply(a.last, (result,))

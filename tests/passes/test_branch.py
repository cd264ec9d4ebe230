"""An affine map that is grown upstream ends where it would be another map."""

import numpy as np
import pytest

from fuser.algebra.conv import Conv
from fuser.errors import Declined
from fuser.ir.ops import Concat, Select
from passes._branch import Branch, readers
from tests.graphs import Builder, random_conv


def test_what_holds_at_one_extent_is_not_taken_to_an_extent_that_is_not_known() -> None:
    b = Builder(1, 2, "h", "w")
    inner = b.add(random_conv(2, 2, 1, 1, bias=False), b.x, shape=(1, 2, 6, 6))
    branch = Branch(random_conv(2, 2, 3, 3), inner, extent=(6, 6))
    (node,) = b.graph.nodes
    with pytest.raises(Declined, match="the extent of 'x' is not known"):
        branch.after(node)
    everywhere = Branch(branch.op, inner).after(node)
    assert (everywhere.source, everywhere.extent) == (b.x, None)


def test_a_selection_of_another_axis_is_not_taken_in() -> None:
    b = Builder(4, 6)
    part = b.add(Select(((0, 4),), 4, axis=1), b.x, shape=(4, 4))
    (node,) = b.graph.nodes
    rows = Conv.of(np.ones((2, 4)), axis=-1)
    with pytest.raises(Declined, match="channel axis differs: 1 and -1"):
        Branch(rows, part).after(node)


def test_parts_that_are_fewer_than_what_is_read() -> None:
    b = Builder(1, 2, 6, 6)
    parts = [b.add(random_conv(2, 2, 1, 1, bias=False, seed=seed), b.x) for seed in (1, 2)]
    whole = b.add(Concat(2, axis=1), *parts, shape=(1, 5, 6, 6))
    branch = Branch(random_conv(5, 3, 3, 3), whole)
    with pytest.raises(Declined, match="4 channels are read as 5"):
        branch.across(list(b.graph.nodes)[-1], b.x)


def test_what_was_lifted_together_with_its_maker_is_no_reader() -> None:
    """It has the value as a parameter: it stands for the maker and for itself, and reads what lies before."""
    b = Builder(1, 2, 6, 6)
    first = b.add(random_conv(2, 2, 1, 1), b.x)
    second = b.add(random_conv(2, 2, 1, 1), first)
    node = second.producer
    assert node is not None
    b.finish(second)
    assert readers(first) == [node]
    b.graph.connect(node, [b.x], [first])
    with pytest.raises(Declined, match="n1 stands for what makes 'v0' and itself together"):
        readers(first)

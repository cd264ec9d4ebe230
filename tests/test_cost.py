"""Estimates where extents are not known."""

import pytest

from fuser.algebra.conv import average_pool, pad
from fuser.ir.extents import Dim, nominal
from fuser.ir.node import Value
from fuser.ir.ops import Op, operation
from fuser.rewrite.cost import operator_cost
from tests.laws import UP, conv


def result_shape(op: Op, shape: tuple[Dim, ...]) -> tuple[Dim, ...] | None:
    (found,) = operation(op).result(shape)
    return found


def test_extents_follow_from_an_image_of_224() -> None:
    assert nominal(("batch", 3, "height", "(height + 3)//4")) == [1, 3, 224, 56]
    assert nominal((None, 3, None, "a - b")) == [1, 3, 28, 28]
    assert nominal(("N", 3, 17, "(h - 500)//2")) == [1, 3, 17, 1]


def test_shapes_of_results_keep_their_symbols() -> None:
    assert result_shape(average_pool(4, (2, 2), (2, 2), (1, 1), (0, 0), (0, 0)), ("N", 4, "h", 9)) == (
        "N",
        4,
        "h//2",
        4,
    )
    assert result_shape(pad(4, (1,), (2,)), ("N", 4, "(h + 1)//2")) == ("N", 4, "(h + 7)//2")
    assert result_shape(UP, (1, 2, None)) == (1, 2, None)
    assert result_shape(UP, (1, 2, 5)) == (1, 2, 11)


@pytest.mark.parametrize(("extent", "positions"), [("h", 224), ("h//32", 7), (None, 28)])
def test_multiply_adds_at_the_nominal_size(extent: str | None, positions: int) -> None:
    cost = operator_cost(conv(4, 3, 1), Value("y", ("N", 4, extent), "float32"), 1)
    assert cost.multiply_adds == 12 * positions

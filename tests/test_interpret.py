"""One interpreter: what it keeps, what it asks for, what it does where an operator fails."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fuser.errors import Declined
from fuser.ir.constant import Constant
from fuser.ir.interpret import Edge, Frame, Part, interpret
from fuser.ir.node import Apply
from fuser.ir.ops import Opaque, Sum
from tests.graphs import Builder, random_conv, relu


class Stopping(Frame):
    """Stops at the first failure, and takes zeros for what it does not know."""

    def __init__(self, values: Any = None) -> None:
        super().__init__(values)
        self.reason = ""

    @property
    def stopped(self) -> bool:
        return bool(self.reason)

    def outside(self, edge: Edge, part: Part, like: tuple[int, ...]) -> NDArray[Any]:  # noqa: ARG002
        return np.zeros(like)

    def fail(self, part: Part, error: Exception) -> None:
        self.reason = f"{part.op}: {error}"


def test_only_what_is_kept_outlives_its_last_use() -> None:
    b = Builder(1, 2, 5)
    first = b.add(random_conv(2, 2, 3), b.x)
    second = b.add(relu, first)
    end = b.sum(second, first)
    graph = b.finish(end)
    x = np.arange(10.0).reshape(1, 2, 5)
    for keep in ({end}, {end, second}, {end, b.x}):
        frame = Frame({b.x: x})
        interpret(graph.ordered(), [frame], keep)
        assert set(frame.values) == keep


def test_frames_go_side_by_side_and_stop_alone() -> None:
    def fail(x: NDArray[Any]) -> tuple[NDArray[Any]]:
        if x.size > 2:
            raise ValueError("too large")
        return (x,)

    b = Builder(1, "n")
    end = b.sum(b.add(Opaque("Picky", fail), b.x), coefficients=[2.0])
    frames = [Stopping({b.x: np.ones((1, n))}) for n in (2, 3)]
    interpret(b.finish(end).ordered(), frames, {end})
    assert [frame.reason for frame in frames] == ["", "Picky: too large"]
    assert frames[0].values[end].tolist() == [[2.0, 2.0]]
    assert end not in frames[1].values


def test_constants_are_widened_once_for_all_frames() -> None:
    seen: list[Constant] = []

    def widen(constant: Constant) -> NDArray[Any]:
        seen.append(constant)
        return constant.wide()

    b = Builder(1, 2)
    held = b.constant(np.ones((1, 2)))
    end = b.sum(b.x, held)
    frames = [Frame({b.x: np.full((1, 2), float(n))}) for n in range(3)]
    interpret(b.finish(end).ordered(), frames, {end}, widen)
    assert [frame.values[end].tolist() for frame in frames] == [[[n + 1.0] * 2] for n in range(3)]
    assert seen == [held.constant]


def test_applications_are_evaluated_as_nodes_are() -> None:
    b = Builder(1, 2)
    inner = Apply(Sum((2.0,)), (b.x,))
    outer = Apply(Sum((1.0, 1.0)), (inner, b.x))
    frame = Frame({b.x: np.ones((1, 2))})
    interpret(outer.applications(), [frame], {outer})
    assert frame.values[outer].tolist() == [[3.0, 3.0]]


def test_what_nothing_makes_is_asked_for() -> None:
    b = Builder(1, 2)
    other = b.input("other", (1, 2))
    end = b.sum(b.x, other)
    frame = Stopping({b.x: np.ones((1, 2))})
    interpret(b.finish(end).ordered(), [frame], {end})
    assert frame.values[end].tolist() == [[1.0, 1.0]]
    with pytest.raises(Declined, match="nothing makes Value"):
        interpret(b.graph.ordered(), [Frame({b.x: np.ones((1, 2))})], {end})

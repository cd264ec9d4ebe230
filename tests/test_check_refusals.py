"""What a rewrite made is refused where its numbers do not fit, where it differs, or where nobody can tell."""

from typing import Any

import numpy as np
import pytest

from fuser.algebra.conv import Conv
from fuser.errors import Declined
from fuser.ir.interpret import evaluate
from fuser.ir.node import Apply, Node, Value
from fuser.ir.ops import Opaque, Sum
from fuser.ir.provenance import Provenance, Statement
from fuser.validate.check import compare, computed
from fuser.validate.trial import Trial
from tests.graphs import Builder


def step(op: Any, x: Value, **declared: Any) -> Statement:
    b = Builder(1, 2, 6)
    node = b.add(op, x, **declared).producer
    assert isinstance(node, Node)
    return Statement.of(node)


@pytest.mark.parametrize(
    ("peak", "reason"), [(1e300, "overflows float32: 1e.300 is more"), (np.inf, "hold inf")]
)
@pytest.mark.parametrize("name", ["weight", "bias"])
def test_numbers_that_the_element_type_does_not_hold(name: str, peak: float, reason: str) -> None:
    numbers = {"weight": np.ones((1, 1, 1)), "bias": np.ones(1)}
    numbers[name] *= peak
    with pytest.raises(Declined, match=rf"the {name} .*{reason}"):
        computed(Conv.of(**numbers), Value("y", (1, 1, 6), "float32"), [])


def test_a_region_that_fails_is_not_compared() -> None:
    def fail(_: object) -> Any:
        raise ValueError("no such axis")

    x = Value("x", (1, 2, 6), "float32")
    before = step(Opaque("Fails", fail), x)
    with pytest.raises(Declined, match="the region cannot be evaluated: Fails: no such axis"):
        compare({before.outputs[0]: Apply(Sum((1.0,)), (x,))}, [before], Provenance())


def test_a_rewrite_that_fails_is_refused() -> None:
    def fail(_: object) -> Any:
        raise ValueError("no such axis")

    x = Value("x", (1, 2, 6), "float32")
    before = step(Sum((1.0,)), x)
    with pytest.raises(Declined, match="the rewrite cannot be evaluated: no such axis"):
        compare({before.outputs[0]: Apply(Opaque("Fails", fail), (x,))}, [before], Provenance())


@pytest.mark.parametrize("shape", [(1, 2, 6), ("n", 2, 6), ("n", 2, 3, 4), (2, 3, "h"), ("n", 5, "h", "w")])
def test_a_region_must_run_beyond_all_its_numbers_whatever_extents_are_taken(shape: Any) -> None:
    """One that fails at every extent is not accepted unseen."""

    def fail(_: object) -> Any:
        raise ValueError("no such axis")

    x = Value("x", shape, "float32")
    before = step(Opaque("Fails", fail), x, shape=shape)
    with pytest.raises(Declined, match="the region cannot be evaluated: Fails: no such axis"):
        compare({before.outputs[0]: Apply(Sum((1.0,)), (x,))}, [before], Provenance())


@pytest.mark.parametrize("shape", [(1, 2, 6), ("n", 2, 6), ("n", 2, "h", "w")])
def test_a_region_that_leaves_nothing_is_not_compared(shape: Any) -> None:
    """Two results without elements are equal, which says nothing of others."""
    x = Value("x", shape, "float32")
    before = step(Opaque("Empties", lambda x: (x[:, :0],)), x, shape=shape)
    same = Apply(Opaque("Drops", lambda x: (x[:, 2:],)), (x,))
    with pytest.raises(Declined, match="the region cannot be evaluated: Empties: nothing is left of the ext"):
        compare({before.outputs[0]: same}, [before], Provenance())


def test_an_operator_without_evaluation_is_named() -> None:
    with pytest.raises(Declined, match="Mystery cannot be evaluated"):
        evaluate(Opaque("Mystery"), [np.zeros(2)])


def test_another_shape_is_another_result() -> None:
    x = Value("x", (1, 2, 6), "float32")
    narrow, wide = (Conv.of(np.ones((2, 2, size))) for size in (2, 3))
    before = step(narrow, x)
    with pytest.raises(Declined, match=r"v0: the check gives shape \(1, 2, \d\) instead of \(1, 2, \d\)"):
        compare({before.outputs[0]: Apply(wide, (x,))}, [before], Provenance())


def test_an_input_too_large_to_try_is_not_made() -> None:
    x = Value("x", (1, 1 << 12, 1 << 12), "float32")
    same = Apply(Sum((1.0,)), (x,))
    before = step(Opaque("Gate", lambda x: (x,)), x)
    with pytest.raises(Declined, match=r"'x' has \d+ elements, more than 4194304"):
        compare({before.outputs[0]: same}, [before], Provenance())


def test_how_far_and_how_often_is_tried_in_small() -> None:
    """A short list of whole numbers may be the pads or repeats of every axis, and their product is made."""
    pads, indices = Value("n", (8,), "int64"), Value("i", ("N", 40), "int64")
    trial = Trial({pads: (8,), indices: (7, 40)}, needed=True)
    x = trial.feed(Value("x", None, "float32"), (2, 3, 9, 10))
    assert np.pad(x, trial.feed(pads).reshape(2, 4).T).size < 10**6
    assert np.tile(x, trial.feed(pads)[:4]).size < 10**7
    assert len(np.unique(trial.feed(indices))) > 50

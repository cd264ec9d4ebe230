"""Concat, Split and Slice of channels, against onnxruntime."""

from typing import Any

import numpy as np
import pytest

from fuser.errors import Declined
from fuser.ir.ops import Concat, Select
from tests.hosts.onnx_models import Array, imported, integers, lift, lifted, only, run, single

INT = np.int64


@pytest.mark.parametrize(
    ("shape", "axis", "place"), [((2, 3, 4, 5), 1, 1), ((2, 3, 4), -1, -1), ((2, 3), 1, -1)]
)
def test_concat(shape: tuple[int, ...], axis: int, place: int) -> None:
    feeds = {"x": integers(0, *shape), "b": integers(1, *shape)}
    model = single("Concat", ["x", "b"], given={"x": shape, "b": shape}, axis=axis)
    application = lifted(model)
    assert application.op == Concat(2, place)
    assert isinstance(application.op, Concat)
    np.testing.assert_array_equal(application.op.evaluate(*feeds.values()), run(model, feeds)[0])


@pytest.mark.parametrize(
    ("opset", "constants", "attributes", "ranges"),
    [
        (11, {}, {"axis": 1, "split": [2, 4]}, ((0, 2), (2, 4))),
        (11, {}, {"axis": 1}, ((0, 3), (3, 3))),
        (13, {"s": np.array([5, 1], INT)}, {"axis": -3}, ((0, 5), (5, 1))),
        (18, {}, {"axis": 1, "num_outputs": 2}, ((0, 3), (3, 3))),
    ],
)
def test_split(opset: int, constants: dict[str, Array], attributes: Any, ranges: Any) -> None:
    feeds = {"x": integers(0, 2, 6, 3, 3)}
    model = single(
        "Split",
        ["x", *constants],
        given={"x": (2, 6, 3, 3)},
        constants=constants,
        opset=opset,
        outputs=("y", "z"),
        **attributes,
    )
    application = lifted(model)
    assert application.op == Select(ranges, 6, 1)
    assert isinstance(application.op, Select)
    for part, expected in zip(application.op.evaluate(feeds["x"]), run(model, feeds), strict=True):
        np.testing.assert_array_equal(part, expected)


@pytest.mark.parametrize(("start", "end"), [(1, 4), (-5, -1), (2, 2**62), (-99, 3)])
def test_slice(start: int, end: int) -> None:
    feeds = {"x": integers(0, 2, 6, 3, 3)}
    constants: dict[str, Array] = {"s": np.array([start]), "e": np.array([end]), "a": np.array([1])}
    model = single("Slice", ["x", *constants], given={"x": (2, 6, 3, 3)}, constants=constants)
    application = lifted(model)
    assert isinstance(application.op, Select)
    (part,) = application.op.evaluate(feeds["x"])
    np.testing.assert_array_equal(part, run(model, feeds)[0])


@pytest.mark.parametrize(("kind", "attributes"), [("Concat", {"axis": 2}), ("Concat", {"axis": 0})])
def test_other_axes_stay(kind: str, attributes: Any) -> None:
    shape = (2, 3, 4, 5)
    model = single(kind, ["x", "b"], given={"x": shape, "b": shape}, **attributes)
    assert lift(only(imported(model))) is None


def test_an_empty_slice_declines() -> None:
    constants: dict[str, Array] = {"s": np.array([4]), "e": np.array([2]), "a": np.array([1])}
    model = single("Slice", ["x", *constants], given={"x": (2, 6, 3, 3)}, constants=constants)
    with pytest.raises(Declined, match="the slice 4:2 of 6 channels is empty"):
        lifted(model)


def test_an_unknown_number_of_channels_declines() -> None:
    model = single("Split", ["x"], given={"x": ("n", "c", 3, 3)}, outputs=("y", "z"), axis=1)
    with pytest.raises(Declined, match="the number of channels of 'x' is not known: c"):
        lifted(model)


def test_parts_that_do_not_add_up_decline() -> None:
    model = single(
        "Split", ["x"], opset=11, given={"x": (2, 6, 3, 3)}, outputs=("y", "z"), axis=1, split=[2, 3]
    )
    with pytest.raises(Declined, match=r"the parts \(2, 3\) do not add up to 6 channels"):
        lifted(model)

"""Sums, scales, shifts and operators that change nothing: lifted where exact, else declined or left alone."""

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from fuser.algebra.conv import Conv
from fuser.errors import Declined
from fuser.ir.node import Apply
from fuser.ir.ops import Sum
from tests.hosts.onnx_models import (
    Array,
    apply,
    imported,
    integers,
    lift,
    lifted,
    model_of,
    only,
    run,
    single,
)


def agree(model: Any, feeds: dict[str, Array], kind: type) -> None:
    (expected, *_) = run(model, feeds)
    application = lifted(model)
    assert isinstance(application.op, kind)
    np.testing.assert_array_equal(apply(application, feeds), expected)


# The shape of x, that of the constant, and the channel axis along which it varies.
FITTING = [
    ((2, 3, 4, 5), (3, 1, 1), 1),
    ((2, 3, 4, 5), (1, 3, 1, 1), 1),
    ((2, 3, 4, 5), (5,), -1),
    ((2, 3, 4, 5), (1, 1, 1, 5), -1),
    ((2, 3, 4), (3, 1), 1),
    ((2, 3, 4), (4,), -1),
    ((2, 3), (3,), -1),
    ((2, 3), (1, 3), -1),
    ((2, 3, 4, 5, 2), (3, 1, 1, 1), 1),
]


@pytest.mark.parametrize("kind", ["Add", "Sub", "Mul", "Div"])
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize(("shape", "constant", "axis"), FITTING)
def test_constant_of_each_channel(
    kind: str, first: bool, shape: tuple[int, ...], constant: tuple[int, ...], axis: int
) -> None:
    x, values = (
        integers(0, *shape),
        np.exp2(np.arange(np.prod(constant)) % 4).reshape(constant).astype(np.float32),
    )
    order = ["c", "x"] if first else ["x", "c"]
    model = single(kind, order, given={"x": shape}, constants={"c": values})
    if kind == "Div" and first:
        assert lift(only(imported(model))) is None
        return
    agree(model, {"x": x}, Conv)
    application = lifted(model)
    assert isinstance(application.op, Conv)
    assert application.op.axis == axis
    assert application.label == "scale_shift"


@pytest.mark.parametrize("kind", ["Add", "Sub", "Mul", "Div"])
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("constant", [(), (1,), (1, 1, 1), (3, 1, 1), (4,), (2, 3, 4, 4)])
def test_uniform_constant(kind: str, first: bool, constant: tuple[int, ...]) -> None:
    order = ["c", "x"] if first else ["x", "c"]
    constants = {"c": np.full(constant, 2.0, np.float32)}
    model = single(kind, order, given={"x": (2, 3, 4, 4)}, constants=constants)
    if kind == "Div" and first:
        assert lift(only(imported(model))) is None
    else:
        agree(model, {"x": integers(0, 2, 3, 4, 4)}, Sum)


def test_scalar_constant_needs_no_rank() -> None:
    model = model_of(
        [*single("NonZero", ["x"]).graph.node, *single("Mul", ["x", "c"], outputs=["z"]).graph.node],
        given={"x": None},  # type: ignore[dict-item]  # no shape at all
        constants={"c": np.array(3, np.float32)},
    )
    node = list(imported(model).nodes)[1]
    application = lift(node)
    assert application is not None
    assert application.op == Sum((3.0,))  # type: ignore[union-attr]  # an application


def test_constant_along_the_width_is_not_per_channel() -> None:
    """[W] with W = C: taken for per-channel by another tool, with 140 % error."""
    model = single("Mul", ["x", "c"], given={"x": (1, 4, 4, 4)}, constants={"c": integers(3, 4)})
    agree(model, {"x": integers(0, 1, 4, 4, 4)}, Conv)
    op = lifted(model).op
    assert isinstance(op, Conv)
    assert op.axis == -1


def test_two_tensors() -> None:
    given = {"a": ("n", 2, "h"), "b": ("n", 2, "h")}
    feeds = {"a": integers(0, 1, 2, 3), "b": integers(1, 1, 2, 3)}
    agree(single("Add", ["a", "b"], given=given), feeds, Sum)
    agree(single("Sub", ["a", "b"], given=given), feeds, Sum)
    assert lift(only(imported(single("Mul", ["a", "b"], given=given)))) is None
    assert lift(only(imported(single("Div", ["a", "b"], given=given)))) is None


@pytest.mark.parametrize("kind", ["Sum", "Mean"])
def test_many_terms_with_a_literal_zero(kind: str) -> None:
    given = dict.fromkeys(["a", "b", "c"], (2, 3))
    feeds = {name: 4 * integers(i, 2, 3) for i, name in enumerate(given)}
    constants = {"k": np.zeros((1,), np.float32)}
    agree(single(kind, ["a", "k", "b", "c"], given=given, constants=constants), feeds, Sum)


def test_negation() -> None:
    agree(single("Neg", ["x"], given={"x": (2, 3)}), {"x": integers(0, 2, 3)}, Sum)


@pytest.mark.parametrize(
    ("reason", "kind", "shape", "constant"),
    [
        ("the constant of shape (2, 3) is not one value per channel of 'x', (2, 3)", "Mul", (2, 3), (2, 3)),
        ("the constant of shape (1, 1, 3) has more axes than 'x', (2, 3)", "Add", (2, 3), (1, 1, 3)),
        ("the constant of shape (3,) does not fit into 'x', (2, 1)", "Add", (2, 1), (3,)),
        ("the constant of shape (3,) does not fit into 'x', (2, 'c')", "Mul", (2, "c"), (3,)),
        (
            "the constant of shape (4, 4) is not one value per channel of 'x', (2, 3, 4, 4)",
            "Mul",
            (2, 3, 4, 4),
            (4, 4),
        ),
        (
            "the constant of shape (2, 1, 1) is not one value per channel of 'x', (2, 3, 4)",
            "Sub",
            (2, 3, 4),
            (2, 1, 1),
        ),
    ],
)
def test_constants_that_do_not_fit(reason: str, kind: str, shape: Any, constant: tuple[int, ...]) -> None:
    model = single(kind, ["x", "c"], given={"x": shape}, constants={"c": integers(0, *constant)})
    with pytest.raises(Declined) as declined:
        lifted(model)
    assert str(declined.value) == reason


def test_a_constant_that_does_not_fit_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    node = only(imported(single("Mul", ["x", "c"], given={"x": (2, 1)}, constants={"c": integers(0, 9)})))
    assert node.inputs[1] is not None
    assert node.inputs[1].constant is not None
    monkeypatch.setattr(node.inputs[1].constant, "array", lambda: pytest.fail("the constant was read"))
    with pytest.raises(Declined, match="does not fit"):
        lift(node)


def test_values_that_cannot_be_folded() -> None:
    given = {"x": (2, 3)}
    zero = {"c": np.array([1, 0, 2], np.float32)}
    with pytest.raises(Declined, match="'c' holds 0, which cannot divide"):
        lifted(single("Div", ["x", "c"], given=given, constants=zero))
    infinite = {"c": np.array([1, np.inf, 2], np.float32)}
    with pytest.raises(Declined, match="the constant 'c' holds inf"):
        lifted(single("Mul", ["x", "c"], given=given, constants=infinite))


def test_terms_that_cannot_be_added() -> None:
    with pytest.raises(
        Declined, match=r"shapes are not known to be equal: \(2, 3\) of 'a' and \(2, 1\) of 'b'"
    ):
        lifted(single("Add", ["a", "b"], given={"a": (2, 3), "b": (2, 1)}))
    with pytest.raises(Declined, match="the term 'c' of 3 is a constant that is not uniform"):
        lifted(single("Sum", ["a", "b", "c"], given={"a": (3,), "b": (3,)}, constants={"c": integers(0, 3)}))
    with pytest.raises(Declined, match=r"shapes are not known to be equal: \(3,\) of 'a' and \(1,\) of 'b'"):
        lifted(single("Sum", ["a", "b"], given={"a": (3,), "b": (1,)}))
    empty = {"c": np.ones(0, np.float32)}
    with pytest.raises(Declined, match="the term 'c' of 2 is a constant that is not uniform"):
        lifted(single("Sum", ["a", "c"], given={"a": (1,)}, constants=empty))
    larger = {"c": np.ones((2, 3), np.float32)}
    with pytest.raises(Declined, match=r"the constant of shape \(2, 3\) has more axes than 'a', \(3,\)"):
        lifted(single("Sum", ["a", "b", "c"], given={"a": (3,), "b": (3,)}, constants=larger))
    unknown = single("Add", ["a", "b"], given={"a": (2, None), "b": (2, None)})
    with pytest.raises(Declined, match="shapes are not known to be equal"):
        lifted(unknown)


def test_overridable_constant_is_an_input_like_any() -> None:
    model = single("Add", ["x", "c"], given={"x": (2, 3), "c": (3,)}, constants={"c": integers(0, 3)})
    with pytest.raises(
        Declined, match=r"shapes are not known to be equal: \(2, 3\) of 'x' and \(3,\) of 'c'"
    ):
        lifted(model)


INT = np.int64
NOTHING: list[Any] = [
    ("Identity", {}, {}, 17),
    ("Dropout", {}, {}, 7),
    ("Dropout", {}, {"ratio": 0.5}, 10),
    ("Dropout", {"r": np.array(0.5, np.float32), "t": np.array(False)}, {}, 13),
    ("Cast", {}, {"to": TensorProto.FLOAT}, 17),
    ("Reshape", {"s": np.array([2, 3, 4], INT)}, {}, 17),
    ("Reshape", {"s": np.array([0, -1, 4], INT)}, {}, 17),
    ("Squeeze", {}, {}, 11),
    ("Squeeze", {"a": np.zeros(0, INT)}, {}, 13),
    ("Unsqueeze", {"a": np.zeros(0, INT)}, {}, 13),
    ("Expand", {"s": np.array([1, 3, 1], INT)}, {}, 17),
    ("Tile", {"r": np.array([1, 1, 1], INT)}, {}, 17),
    ("Slice", {}, {"starts": [0], "ends": [2**31 - 1], "axes": [1]}, 7),
    (
        "Slice",
        {"s": np.array([0, 0], INT), "e": np.array([2**63 - 1, 3], INT), "a": np.array([-1, 1], INT)},
        {},
        13,
    ),
    ("Transpose", {}, {"perm": [0, 1, 2]}, 17),
    ("Pad", {"p": np.zeros(6, INT)}, {"mode": "reflect"}, 17),
    ("Concat", {}, {"axis": 1}, 17),
    ("Split", {}, {"axis": 1}, 13),
    ("Max", {}, {}, 13),
    ("Min", {}, {}, 13),
    ("Sum", {}, {}, 13),
    ("LeakyRelu", {}, {"alpha": 1.0}, 17),
    ("PRelu", {"s": np.ones((3, 1), np.float32)}, {}, 17),
    ("Clip", {}, {}, 13),
    ("Clip", {}, {}, 7),
    ("Mul", {"c": np.ones((3, 1), np.float32)}, {}, 17),
    ("Sub", {"c": np.zeros((4,), np.float32)}, {}, 17),
]


@pytest.mark.parametrize(("kind", "constants", "attributes", "opset"), NOTHING)
def test_what_changes_nothing(kind: str, constants: dict[str, Array], attributes: Any, opset: int) -> None:
    given = {"x": (2, 3, 4)}
    model = single(kind, ["x", *constants], opset=opset, given=given, constants=constants, **attributes)
    agree(model, {"x": integers(0, 2, 3, 4)}, Sum)
    op = lifted(model).op
    assert isinstance(op, Sum)
    assert op.neutral


@pytest.mark.parametrize("kind", ["Identity", "Transpose", "Concat", "Reshape"])
def test_nothing_is_done_to_integers_either(kind: str) -> None:
    options: dict[str, dict[str, Any]] = {"Transpose": {"perm": [0, 1]}, "Concat": {"axis": 0}}
    attributes = options.get(kind, {})
    constants = {"s": np.array([0, 0], INT)} if kind == "Reshape" else {}
    inputs = ["x", *constants]
    model = single(
        kind, inputs, given={"x": ("n", 3)}, constants=constants, type_=TensorProto.INT32, **attributes
    )
    assert lifted(model).op == Sum((1.0,))


SOMETHING: list[Any] = [
    ("Cast", {}, {"to": TensorProto.DOUBLE}),
    ("Reshape", {"s": np.array([3, 2, 4], INT)}, {}),
    ("Reshape", {"s": np.array([-1, 4], INT)}, {}),
    ("Unsqueeze", {"a": np.array([0], INT)}, {}),
    ("Expand", {"s": np.array([2, 2, 3, 4], INT)}, {}),
    ("Tile", {"r": np.array([1, 2, 1], INT)}, {}),
    ("Slice", {"s": np.array([0], INT), "e": np.array([2], INT), "a": np.array([1], INT)}, {}),
    ("Slice", {"s": np.array([-1], INT), "e": np.array([-9], INT), "a": np.array([1], INT),
               "k": np.array([-1], INT)}, {}),
    ("Transpose", {}, {"perm": [1, 0, 2]}),
    ("Transpose", {}, {}),
    ("LeakyRelu", {}, {"alpha": 0.9}),
    ("PRelu", {"s": np.array([1, 1, 1, 0.9], np.float32)}, {}),
    ("Clip", {"l": np.array(0, np.float32)}, {}),
    ("Flatten", {}, {}),
    ("Relu", {}, {}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "constants", "attributes"), SOMETHING)
def test_what_changes_something(kind: str, constants: dict[str, Array], attributes: Any) -> None:
    model = single(kind, ["x", *constants], given={"x": (2, 3, 4)}, constants=constants, **attributes)
    result = lift(only(imported(model)))
    assert result is None or (isinstance(result, Apply) and result.op != Sum((1.0,)))


def test_dropout_in_training_declines() -> None:
    constants = {"r": np.array(0.5, np.float32), "t": np.array(True)}
    with pytest.raises(Declined, match="training_mode is true"):
        lifted(single("Dropout", ["x", *constants], given={"x": (2, 3)}, constants=constants))


def test_dropout_whose_mask_is_read_declines() -> None:
    model = single("Dropout", ["x"], given={"x": (2, 3)}, outputs=["y", "mask"])
    with pytest.raises(Declined, match="the mask 'mask' is read"):
        lifted(model)


def test_identity_of_a_sequence_is_left_alone() -> None:
    nodes = [
        *single("SequenceConstruct", ["x"], outputs=["s"]).graph.node,
        *single("Identity", ["s"]).graph.node,
    ]
    node = list(imported(model_of(nodes, given={"x": (2, 3)})).nodes)[1]
    assert lift(node) is None

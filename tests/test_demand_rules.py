"""Rules of extents say nothing where they have nothing to go by."""

from typing import Any

import pytest
from onnx import helper

from fuser.hosts.onnx.demands.demands import demands_of
from fuser.hosts.onnx.demands.shapes import SHAPES
from fuser.hosts.onnx.demands.tensors import Call, Tensor, Unknown, known
from fuser.judge.demands import Demands

IMAGE = Tensor((None, 3, 8, 9))


def test_what_is_known_is_of_its_kind() -> None:
    assert known((1, "n"), tuple) == (1, "n")
    for value, kind in ((None, tuple), ("n", int), (None, int)):
        with pytest.raises(Unknown):
            known(value, kind)


@pytest.mark.parametrize(
    ("kind", "inputs", "attributes"),
    [
        ("Relu", [Tensor()], {}),
        ("Reshape", [IMAGE, Tensor((2,))], {}),
        ("Reshape", [IMAGE, None], {}),
        ("Expand", [IMAGE, Tensor((2,))], {}),
        ("Tile", [IMAGE, Tensor((4,))], {}),
        ("Pad", [IMAGE, Tensor((8,))], {}),
        ("Pad", [IMAGE, Tensor((4,), elements=(0, 1, 0, 1)), None, Tensor((2,))], {}),
        ("GatherND", [IMAGE, Tensor((2, None))], {}),
        ("Resize", [IMAGE, None, None, Tensor((2,), elements=(16, 18))], {"axes": [2, 3]}),
        ("Resize", [IMAGE, None, Tensor((4,))], {}),
        ("MatMul", [Tensor(), IMAGE], {}),
        ("Einsum", [IMAGE, IMAGE], {"equation": "...ij,...kj->...ik"}),
        ("Einsum", [IMAGE, IMAGE], {"equation": "abij,abkj"}),
    ],
)
def test_what_nothing_is_known_of(kind: str, inputs: list[Tensor | None], attributes: dict[str, Any]) -> None:
    given = {name: helper.make_attribute(name, value) for name, value in attributes.items()}
    with pytest.raises(Unknown):
        SHAPES[kind](Call(kind, inputs, given, 1, 18, Demands()))


def test_what_is_no_model_demands_nothing_that_could_be_told() -> None:
    with pytest.raises(TypeError, match="a int is no ONNX model"):
        demands_of(3)

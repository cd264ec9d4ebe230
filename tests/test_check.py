"""The check starts from what the source says: it notices a lift that is wrong."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import fuser
from fuser.algebra.conv import Conv
from fuser.hosts.operators.call import Call
from fuser.hosts.operators.catalogue import OPERATORS
from fuser.ir.node import Apply, Node
from tests.small_models import normal, parsed

Damage = Callable[[Conv], Conv]

NORM = {
    "s": np.linspace(0.5, 1.5, 4),
    "b": normal(4, seed=1),
    "m": normal(4, seed=2),
    "v": np.linspace(0.5, 2, 4),
}
BODY = {
    "Conv": "a = Conv <pads = [1,1,1,1]> (x, w) y = BatchNormalization (a, s, b, m, v)",
    "BatchNormalization": "a = Conv <pads = [1,1,1,1]> (x, w) y = BatchNormalization (a, s, b, m, v)",
    "AveragePool": "a = AveragePool <kernel_shape = [2,2], count_include_pad = 1, pads = [1,1,1,1]> (x) "
    "c = Conv (a, w) y = BatchNormalization (c, s, b, m, v)",
    "Pad": "a = Pad (x, p) c = Conv (a, w) y = BatchNormalization (c, s, b, m, v)",
    "ConvTranspose": "a = ConvTranspose <strides = [2,2]> (x, w) y = BatchNormalization (a, s, b, m, v)",
}
DAMAGES: dict[str, Damage] = {
    "factor": lambda conv: replace(conv, kernel=Conv.of(conv.weight * 1.01).kernel),
    "bias": lambda conv: replace(conv, bias=conv.bias + 0.01),
    "shifted": lambda conv: replace(conv, begin=conv.end, end=tuple(n + 1 for n in conv.begin)),
}


@pytest.mark.parametrize("image", ["N,4,H,W", "1,4,9,8"])
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", BODY)
def test_a_wrong_lift_is_no_rewrite(
    kind: str, damage: str, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = OPERATORS[kind].lift
    assert rule is not None

    def wrong(call: Call, node: Node) -> Any:
        lifted = rule(call, node)
        assert isinstance(lifted, Apply)
        assert isinstance(lifted.op, Conv)
        return Apply(DAMAGES[damage](lifted.op), lifted.inputs, lifted.label)

    pads = np.array([0, 0, 1, 1, 0, 0, 1, 1])
    model = parsed(
        f"g (float[{image}] x) => (float[a,b,c,d] y) {{ {BODY[kind]} }}", w=normal(4, 4, 3, 3), p=pads, **NORM
    )
    assert fuser.optimize(model, return_report=True)[1].applied
    monkeypatch.setitem(OPERATORS, kind, replace(OPERATORS[kind], lift=wrong))
    result, report = fuser.optimize(model, return_report=True)
    monkeypatch.undo()
    for event in report.applied:
        assert kind not in {node.op_type for node in model.graph.node if node.output[0] in event.removed}
    assert kind in {node.op_type for node in result.graph.node}
    assert fuser.verify(model, result).ok


@pytest.mark.parametrize("shape", ["N,3,8,8", "N,3,H,W", "N,3,8,W"])
@pytest.mark.parametrize("last", [1, 2, 4])
def test_a_slice_of_the_batch_is_none_of_everything(shape: str, last: int) -> None:
    model = parsed(
        f"g (float[{shape}] x) => (float[a,b,c,d] y) {{ s = Slice (x, zero, last, zero) y = Conv (s, w) }}",
        w=normal(4, 3, 3, 3), zero=np.array([0]), last=np.array([last]),
    )  # fmt: skip
    result, report = fuser.optimize(model, return_report=True)
    assert [node.op_type for node in result.graph.node] == ["Slice", "Conv"]
    assert report.applied == []


def test_a_crop_of_rows_beside_a_pad_of_columns_is_no_pad() -> None:
    model = parsed(
        "g (float[N,3,H,16] x) => (float[a,b,c,d] y) { s = Slice (x, zero, three, two) p = Pad (s, pads) "
        "y = Relu (p) }",
        zero=np.array([0]), two=np.array([2]), three=np.array([3]), pads=np.array([0, 0, 0, 1, 0, 0, 0, 1]),
    )  # fmt: skip
    assert [node.op_type for node in fuser.optimize(model).graph.node] == ["Slice", "Pad", "Relu"]


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("crop", [0, 1, 2])
def test_what_reads_a_pad_that_another_stands_for_is_proposed_once(value: float, crop: int) -> None:
    model = parsed(
        "g (float[N,3,8,8] x) => (float[a,b,c,d] y) { p = Pad (x, pads, value) "
        "s = Slice (p, first, end, axes) y = Conv (s, w) }",
        pads=np.array([0, 0, 0, 0, 0, 0, 1, 1]), value=np.array(value), first=np.array([crop, crop]),
        end=np.array([2**40, 2**40]), axes=np.array([2, 3]), w=normal(4, 3, 3, 3),
    )  # fmt: skip
    result, report = fuser.optimize(model, return_report=True)
    assert not [event for event in report.declined if "the check" in event.reason]
    assert fuser.verify(model, result).ok
    assert fuser.optimize(result).SerializeToString() == result.SerializeToString()


@pytest.mark.parametrize("value", [0.5, 1.0, -3.0])
@pytest.mark.parametrize("shape", ["N,3,8,8", "1,3,H,W", "2,3,9,8"])
def test_a_pad_with_a_value_is_no_gain_over_itself(value: float, shape: str) -> None:
    model = parsed(
        f"g (float[{shape}] x) => (float[a,b,c,d] y) {{ p = Pad (x, pads, value) y = Conv (p, w) }}",
        pads=np.array([0, 0, 1, 1, 0, 0, 1, 1]), value=np.array(value), w=normal(4, 3, 3, 3),
    )  # fmt: skip
    result, report = fuser.optimize(model, return_report=True)
    assert report.applied == []
    assert result.SerializeToString() == fuser.optimize(result).SerializeToString()


@pytest.mark.parametrize(
    "nodes",
    [
        "s = Shape (x) c = Cast <to = 7> (s) d = Add (c, c) y = Cast <to = 1> (d)",
        "b = Cast <to = 9> (x) i = Identity (b) n = Not (i) y = Cast <to = 1> (n)",
        """f = Constant <value_ints = [0]> () l = Constant <value_ints = [160]> ()
        a = Constant <value_ints = [1]> () r = Relu (x) i = Slice (r, f, l, a) y = Mul (i, i)""",
    ],
    ids=["whole numbers", "truth values", "channels of an image of any extent"],
)
def test_what_changes_nothing_goes_whatever_its_type(nodes: str) -> None:
    """Numbers of the channels do not act on other axes because a Constant node holds them."""
    before = parsed(f"g (float[N,160,H,W] x) => (float[] y) {{ {nodes} }}")
    before.graph.output[0].type.tensor_type.ClearField("shape")
    kinds = [node.op_type for node in fuser.optimize(before).graph.node if node.op_type != "Constant"]
    assert not {"Identity", "Slice"} & set(kinds)
    assert kinds.count("Cast") <= 2 - ("Shape" in kinds)

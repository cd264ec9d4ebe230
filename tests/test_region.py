"""Regions of ONNX graphs that are lifted for what they mean."""

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import ModelProto, helper, numpy_helper

from fuser.algebra.conv import Conv, pad
from fuser.hosts.onnx.importer import import_model
from fuser.ir.node import Node
from fuser.ir.ops import Reshape
from fuser.rewrite.driver import run
from fuser.rewrite.pattern import Log, Plan
from fuser.validate import check
from tests.small_models import Array, normal, parsed

FREE = "N,4,H,W"
VALUES = np.array([0.5, -1.25, 3.0, 0.75])


def lifted(model: ModelProto) -> tuple[Node, list[str]]:
    """What makes the first output once everything is lifted, and why what was not."""
    graph, log = import_model(onnx_ir.from_proto(model))[0], Log()
    run(graph, Plan(()), log, check)
    node = graph.outputs[0].producer
    assert node is not None
    return node, [event.reason for event in log.events if event.rewrite == "lift"]


def conv_of(model: ModelProto) -> Conv:
    node, reasons = lifted(model)
    assert isinstance(node.op, Conv), reasons
    return node.op


def integers(*values: int) -> Array:
    return np.array(values, dtype=np.int64)


def border(shape: str, *, last: int = -1, written: int = 1, values: Array = VALUES) -> ModelProto:
    """Pad, then ScatterND over rows and columns whose indices come from the shape, as exporters write it."""
    return parsed(
        f"""g (float[{shape}] x) => (float[a,b,c,d] y) {{
        p = Pad (x, pads)
        s = Shape (p)
        n = Gather (s, i0)
        h = Gather (s, i2)
        w = Gather (s, i3)
        hr = Range (zero, h, one)
        wr = Range (zero, w, one)
        r0 = Gather (hr, first)
        r1 = Gather (hr, last)
        c0 = Gather (wr, first)
        c1 = Gather (wr, last)
        n1 = Unsqueeze (n, axis0)
        h1 = Unsqueeze (h, axis0)
        w1 = Unsqueeze (w, axis0)
        rowshape = Concat <axis = 0> (rows, n1, w1)
        columnshape = Concat <axis = 0> (rows, h1, n1)
        row = Expand (rowvalue, rowshape)
        column = Expand (rowvalue, columnshape)
        a0 = Transpose <perm = [2, 1, 0, 3]> (p)
        a1 = ScatterND (a0, r0, row)
        a2 = ScatterND (a1, r1, row)
        b0 = Transpose <perm = [3, 1, 0, 2]> (a2)
        b1 = ScatterND (b0, c0, column)
        b2 = ScatterND (b1, c1, column)
        y = Transpose <perm = [3, 1, 2, 0]> (b2)
    }}""",
        pads=integers(0, 0, 1, 1, 0, 0, 1, 1),
        i0=np.array(0), i2=np.array(2), i3=np.array(3), zero=np.array(0), one=np.array(1),
        first=integers(*range(written)).reshape(-1, 1), last=integers(last).reshape(-1, 1),
        axis0=integers(0), rows=integers(1, 4), rowvalue=values.reshape(1, 4, 1, 1),
    )  # fmt: skip


@pytest.mark.parametrize("shape", [FREE, "2,4,H,W", "N,4,9,8", "2,4,9,8", "N,4,H,8"])
def test_border_by_index(shape: str) -> None:
    expected = pad(4, (1, 1), (1, 1), VALUES.astype(np.float32))
    assert conv_of(border(shape)) == expected


@pytest.mark.parametrize("shape", [FREE, "2,4,9,8"])
def test_wrong_row_is_named_with_both_values(shape: str) -> None:
    node, reasons = lifted(border(shape, last=-2))
    assert not isinstance(node.op, Conv)
    assert any("channel 0 holds" in reason and "gives" in reason for reason in reasons), reasons


def test_row_counted_from_the_start_is_the_last_one_for_one_extent_only() -> None:
    assert isinstance(lifted(border("2,4,8,8", last=9))[0].op, Conv)
    node, reasons = lifted(border(FREE, last=9))
    assert not isinstance(node.op, Conv)
    assert any("channel 0 holds" in reason or "cannot be evaluated" in reason for reason in reasons), reasons


def where(shape: str, mask: str) -> ModelProto:
    return parsed(
        f"""g (float[{shape}] x, float[4] u) => (float[a,b,c,d] y) {{
            p = Pad (x, pads)
            m = {mask}
            y = Where (m, value, p)
        }}""",
        pads=integers(0, 0, 1, 0, 0, 0, 0, 0),
        value=VALUES.reshape(4, 1, 1),
        inside=np.arange(7).reshape(7, 1) < 1,
        limit=np.array(0.0),
    )


def test_border_by_mask() -> None:
    assert conv_of(where("N,4,6,8", "Identity (inside)")) == pad(4, (1, 0), (0, 0), VALUES.astype(np.float32))


def test_what_fits_no_extent_behind_a_convolution_is_named() -> None:
    """Masks of seven and of five rows."""
    model = parsed(
        """g (float[N,4,H,W] x) => (float[a,b,c,d] y) {
            p = Pad (x, pads)
            w = Where (seven, value, p)
            y = Where (five, value, w)
        }""",
        pads=integers(0, 0, 1, 0, 0, 0, 0, 0),
        value=VALUES.reshape(4, 1, 1),
        seven=np.arange(7).reshape(7, 1) < 1,
        five=np.arange(5).reshape(5, 1) < 1,
    )
    _, reasons = lifted(model)
    assert any("what follows 'x' cannot be evaluated" in reason for reason in reasons), reasons


def test_a_mask_that_depends_on_data_is_not_affine() -> None:
    node, _ = lifted(where("N,4,6,4", "Greater (u, limit)"))
    assert not isinstance(node.op, Conv)


def sliced(
    shape: str, starts: list[int], ends: list[int], steps: list[int] | None = None, read: str = "x"
) -> ModelProto:
    return parsed(
        f"""g (float[{shape}] x) => (float[a,b,c,d] y, float[e,f,g,h] z) {{
            y = Slice ({read}, starts, ends, axes, steps)
            z = Conv (x, w)
        }}""",
        starts=integers(*starts),
        ends=integers(*ends),
        axes=integers(2, 3),
        steps=integers(*(steps or [1, 1])),
        w=normal(3, 4, 1, 1),
    )


@pytest.mark.parametrize("shape", [FREE, "2,4,9,8"])
def test_crop(shape: str) -> None:
    assert conv_of(sliced(shape, [1, 0], [2**40, -2])) == pad(4, (-1, 0), (0, -2))


def test_stride() -> None:
    conv = conv_of(sliced(FREE, [0, 1], [2**40, 2**40], [2, 1]))
    assert (conv.depthwise, conv.stride, conv.begin, conv.end[1]) == (True, (2, 1), (0, -1), 0)


def test_a_crop_to_a_fixed_extent_is_one_where_the_extent_is_known() -> None:
    assert conv_of(sliced("N,4,40,8", [0, 0], [32, 8])) == pad(4, (0, 0), (-8, 0))
    node, _ = lifted(sliced(FREE, [0, 0], [32, 2**40]))
    assert not isinstance(node.op, Conv)


def test_numbers_beyond_what_is_tried_decline() -> None:
    _, reasons = lifted(sliced(FREE, [0, 0], [5000, 2**40]))
    assert any("the graph has the number 5000" in reason for reason in reasons), reasons


def test_large_inputs_decline() -> None:
    _, reasons = lifted(sliced("64,4,400,400", [1, 0], [2**40, 2**40]))
    assert any("too large to try" in reason for reason in reasons), reasons


def shuffle(batch: str, *, groups: int = 1, relu: bool = False) -> ModelProto:
    graph = f"""g (float[{batch},4,6,5] x) => (float[a,b,c,d] y) {{
        u = Conv <group = {groups}> (x, w)
        v = {"Relu (u)" if relu else "Identity (u)"}
        r = Reshape (v, apart)
        t = Transpose <perm = [0, 2, 1, 3, 4]> (r)
        s = Reshape (t, together)
        y = Conv <group = {groups}> (s, w)
    }}"""
    n = -1 if batch == "N" else int(batch)
    return parsed(
        graph,
        w=normal(4, 4 // groups, 1, 1),
        apart=integers(n, 2, 2, 6, 5),
        together=integers(n, 4, 6, 5),
    )


@pytest.mark.parametrize("batch", ["N", "1", "3"])
@pytest.mark.parametrize("relu", [False, True])
def test_shuffle_beside_dense_convolutions(batch: str, relu: bool) -> None:
    node, _ = lifted(shuffle(batch, relu=relu))
    value = node.inputs[0]
    assert value is not None
    assert value.producer is not None
    permutation = np.eye(4)[[0, 2, 1, 3]].reshape(4, 4, 1, 1)
    # Without Relu it is lifted for the convolution before it, with Relu for the one behind it.
    assert value.producer.op == Conv.of(permutation)


@pytest.mark.parametrize("relu", [False, True])
def test_shuffle_beside_grouped_convolutions_stays(relu: bool) -> None:
    node, _ = lifted(shuffle("N", groups=2, relu=relu))
    value = node.inputs[0]
    assert value is not None
    assert value.producer is not None
    assert not isinstance(value.producer.op, Conv)


def test_permutation_by_gather() -> None:
    model = parsed(
        f"g (float[{FREE}] x) => (float[a,b,c,d] y) "
        "{ r = Relu (x) s = Gather <axis = 1> (r, i) y = Conv (s, w) }",
        i=integers(3, 2, 1, 0),
        w=normal(4, 4, 1, 1),
    )
    node, _ = lifted(model)
    value = node.inputs[0]
    assert value is not None
    assert value.producer is not None
    assert value.producer.op == Conv.of(np.eye(4)[::-1].reshape(4, 4, 1, 1))


def test_the_value_of_a_border_snaps_to_what_the_convolution_before_it_continues_with() -> None:
    bias = np.array([0.1, 0.2, 0.3, 0.4])
    model = border(FREE, values=bias)
    model.graph.node[0].input[0] = "c"
    model.graph.node.insert(0, helper.make_node("Conv", ["x", "kernel", "bias"], ["c"]))
    nearly = np.nextafter(bias.astype(np.float32), 1)
    for name, array in (("kernel", normal(4, 4, 1, 1).astype(np.float32)), ("bias", nearly)):
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    np.testing.assert_array_equal(conv_of(model).pad_value, nearly.astype(float))


def test_a_reshape_that_closes_no_region_is_one() -> None:
    model = parsed(
        "g (float[N,4,3,2] x) => (float[a,b,c] y) { u = Conv (x, w) y = Reshape (u, s) }",
        w=normal(4, 4, 1, 1), s=integers(0, 4, -1),
    )  # fmt: skip
    node, reasons = lifted(model)
    assert (node.op, reasons) == (Reshape((4, 6)), [])


def test_a_reshape_beside_a_convolution_says_what_is_not_known() -> None:
    model = parsed(
        "g (float[N,4,3,W] x) => (float[a,b,c] y) { u = Conv (x, w) y = Reshape (u, s) }",
        w=normal(4, 4, 1, 1), s=integers(0, 4, -1),
    )  # fmt: skip
    _, (reason,) = lifted(model)
    assert reason.startswith("the extents of the reshape from ('N', 4, 3, 'W') to ('N', 4, ")
    assert reason.endswith("are not all known")


def test_each_region_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from fuser.recognise import region, trials

    seen: list[Node] = []

    def meaning(found: trials.Region) -> Conv | None:
        seen.append(found.root)
        return trials.meaning(found)

    monkeypatch.setattr(region, "meaning", meaning)
    lifted(border(FREE))
    assert len(seen) == len(set(seen)) == 1


def test_networks_without_such_operators_are_not_evaluated(monkeypatch: pytest.MonkeyPatch) -> None:
    from fuser.recognise import region

    def fail(_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(region, "meaning", fail)
    lifted(parsed(
        "g (float[N,4,H,W] x) => (float[a,b,c,d] y) "
        "{ u = Conv (x, w) r = Relu (u) m = Tanh (u) t = Mul (r, m) y = Add (t, x) }", w=normal(4, 4, 1, 1),
    ))  # fmt: skip


@pytest.mark.parametrize("batch", ["N", "2"])
def test_what_can_be_evaluated_at_no_extent_is_left_as_it_is(batch: str) -> None:
    """The constant inside the function is float32, and stays that in float64: the reference refuses it."""
    model = onnx.parser.parse_model(f"""<ir_version: 8, opset_import: ["": 17, "local": 1]>
        g (float[{batch},2,4,5] x) => (float[m,2,4,5] y) <float one = {{1}}> {{
            s = Shape (x)
            e = Expand (one, s)
            f = local.half (e)
            y = Concat <axis = 0> (f, x)
        }}
        <domain: "local", opset_import: ["": 17]>
        half (a) => (b) {{
            c = Constant <value = float {{0.5}}> ()
            b = Mul (a, c)
        }}""")
    node, reasons = lifted(model)
    assert not isinstance(node.op, Conv)
    assert not reasons

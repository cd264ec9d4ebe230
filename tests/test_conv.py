from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

import fuser.algebra.conv
from fuser.algebra.conv import Conv, Window, average_pool, diagonal, identity, pad, regroup, scale_shift, taps
from fuser.algebra.lazy import Array, Lazy
from fuser.errors import Declined
from tests.direct import dense, direct, unclipped
from tests.strategies import convs, images, integers, seeds

LENGTHS = st.integers(1, 4)


def equal(conv: Conv, x: Array) -> bool:
    """Whether `evaluate` gives the definition, on the channel axis that the operator has."""
    if conv.axis == -1:
        return np.array_equal(conv.evaluate(x), direct(conv.with_axis(1), x))
    return np.array_equal(conv.evaluate(x), direct(conv, x))


# --- evaluation ---


@given(st.data())
def test_evaluate_is_the_definition(data: st.DataObject) -> None:
    conv = data.draw(convs(transposed=None))
    x = data.draw(images(conv))
    assert equal(conv, x)
    assert conv.evaluate(x).shape[2:] == conv.extent(x.shape[2:])
    assert conv.extent(x.shape[2:]) == tuple(max(0, m) for m in unclipped(conv, x.shape[2:]))


@given(st.data())
def test_evaluate_in_slabs(data: st.DataObject) -> None:
    conv = data.draw(convs(rank=2))
    x = data.draw(images(conv))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fuser.algebra.conv, "UNFOLDED", data.draw(st.integers(1, 200)))
        assert equal(conv, x)


@given(convs(rank=0), seeds)
def test_linear_acts_on_the_last_axis(conv: Conv, seed: int) -> None:
    conv = conv.with_axis(-1)
    x = integers(seed, 2, 3, conv.inputs)
    expected = np.einsum("oi,bti->bto", dense(conv), x) + conv.bias
    assert np.array_equal(conv.evaluate(x), expected)
    assert np.array_equal(conv.evaluate(x[0, 0]), expected[0, 0])
    assert conv.evaluate(x[:0]).shape == (0, 3, conv.outputs)


@pytest.mark.parametrize("transposed", [False, True])
def test_nothing_in_nothing_out(transposed: bool) -> None:
    conv = Conv.of(integers(0, 2, 3, 3, 3), begin=(1, 1), end=(1, 1), transposed=transposed)
    assert conv.evaluate(np.zeros((0, 3, 4, 4))).shape == (0, 2, 4, 4)
    assert conv.evaluate(np.zeros((1, 3, 0, 4))).shape == (1, 2, 0, 4)


def test_an_empty_input_may_have_a_padded_output() -> None:
    conv = Conv.of(np.ones((1, 1, 3)), begin=(2,), end=(2,), pad_value=np.array([5.0]))
    assert np.array_equal(conv.evaluate(np.zeros((1, 1, 0))), [[[15, 15]]])


def test_any_layout_and_dtype_of_the_input_will_do() -> None:
    conv = Conv.of(integers(0, 4, 3, 3, 3), begin=(1, 1), end=(1, 1))
    x = integers(1, 3, 5, 4, 2).transpose(3, 0, 1, 2)
    assert equal(conv, x)
    assert np.array_equal(conv.evaluate(x.astype(np.float32)), conv.evaluate(x))


def test_the_input_is_not_written_to() -> None:
    x = integers(0, 1, 2, 5)
    x.setflags(write=False)
    for conv in (identity(2, 1), pad(2, (1,), (1,)), average_pool(2, (2,), (1,), (1,), (0,), (0,))):
        conv.evaluate(x)


RUNTIME_CASES: list[tuple[bool, int, int, int, dict[str, Any]]] = [
    # transposed, rank, groups, extent, attributes of the ONNX operator
    (False, 1, 1, 7, {"pads": [1, 2], "strides": [2], "dilations": [2]}),
    (False, 2, 1, 6, {"pads": [0, 1, 2, 1], "strides": [2, 1]}),
    (False, 2, 2, 6, {"pads": [1, 1, 1, 1], "dilations": [1, 2]}),
    (False, 3, 4, 4, {"pads": [1, 0, 1, 1, 1, 0]}),
    (True, 1, 1, 5, {"pads": [1, 0], "strides": [3]}),
    (True, 1, 2, 5, {"strides": [3], "output_padding": [2]}),
    (True, 2, 1, 4, {"pads": [1, 0, 2, 1], "strides": [2, 3], "output_padding": [1, 0]}),
    (True, 2, 2, 4, {"pads": [1, 1, 1, 1], "strides": [2, 2], "dilations": [2, 1], "output_padding": [1, 1]}),
    (True, 2, 4, 4, {"pads": [1, 1, 1, 1], "strides": [2, 1]}),
    (True, 3, 1, 3, {"pads": [1, 1, 1, 1, 1, 1], "strides": [2, 2, 2]}),
]


@pytest.mark.parametrize(("transposed", "rank", "groups", "extent", "attributes"), RUNTIME_CASES)
def test_evaluate_is_what_onnxruntime_computes(
    transposed: bool, rank: int, groups: int, extent: int, attributes: dict[str, Any]
) -> None:
    outputs, inputs = 8, 4
    weight, bias = integers(0, outputs, inputs // groups, *(3,) * rank), integers(1, outputs)
    x = integers(2, 2, inputs, *(extent,) * rank)
    pads = attributes.get("pads", [0] * 2 * rank)
    more = attributes.get("output_padding", [0] * rank)
    conv = Conv.of(
        weight,
        bias,
        groups=groups,
        stride=attributes.get("strides", ()),
        dilation=attributes.get("dilations", ()),
        begin=pads[:rank],
        end=[end - extra for end, extra in zip(pads[rank:], more, strict=True)],
        transposed=transposed,
    )
    if transposed:  # [O, I/g, *k] -> [I, O/g, *k]
        blocks = weight.reshape(groups, outputs // groups, inputs // groups, *(3,) * rank)
        weight = blocks.swapaxes(1, 2).reshape(inputs, outputs // groups, *(3,) * rank)
    kind = "ConvTranspose" if transposed else "Conv"
    node = helper.make_node(kind, ["x", "w", "b"], ["y"], group=groups, **attributes)
    assert np.array_equal(conv.evaluate(x), run(node, x=x, w=weight, b=bias))
    assert equal(conv, x)


def run(node: onnx.NodeProto, **feeds: Array) -> Array:
    """One ONNX operator in onnxruntime; float32 holds small integers exactly."""
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, a.shape) for name, a in feeds.items()]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "g", inputs, [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {name: a.astype(np.float32) for name, a in feeds.items()})
    return np.asarray(y, dtype=np.float64)


# --- windows and derived quantities ---


@given(st.data())
def test_the_windows_are_what_an_output_position_reads(data: st.DataObject) -> None:
    conv = data.draw(convs(rank=1, inputs=1, outputs=1, taps=4))
    (window,), (dilation,), (k,) = conv.windows, conv.dilation, conv.size
    read = [dilation * j - conv.begin[0] for j in range(k)]
    assert read == list(range(window.first, window.last + 1, window.step))


@given(
    st.tuples(st.integers(-9, 9), LENGTHS, LENGTHS),
    st.tuples(st.integers(-9, 9), LENGTHS, LENGTHS),
)
def test_the_union_holds_both_windows_on_the_widest_grid(
    a: tuple[int, int, int], b: tuple[int, int, int]
) -> None:
    offsets = [range(first, first + step * count, step) for first, step, count in (a, b)]
    u, v = (Window(taps[0], taps[-1], taps.step) for taps in offsets)
    union = u | v
    assert union == v | u
    held = {*offsets[0], *offsets[1]}
    grid = range(union.first, union.last + 1, union.step)
    assert held <= set(grid)
    assert (union.first, union.last) == (min(held), max(held))
    wider = (range(union.first, union.last + 1, step) for step in range(union.step + 1, 40))
    assert len(held) == 1 or not any(held <= set(grid) for grid in wider)


@given(st.data())
def test_respond_is_the_output_for_a_constant_image(data: st.DataObject) -> None:
    conv = data.draw(convs(rank=1, pads=(0, 0)))
    constant = data.draw(st.booleans()) * integers(data.draw(seeds), conv.inputs)
    image = np.broadcast_to(constant[:, None], (1, conv.inputs, 9))
    response = conv.respond(constant) + conv.bias
    assert np.array_equal(
        direct(conv, image)[0], np.broadcast_to(response[:, None], (conv.outputs, *conv.extent((9,))))
    )


def test_respond_to_zero_does_not_look_at_the_weights() -> None:
    def compute() -> Array:
        raise AssertionError

    conv = Conv(Lazy((2, 3, 3), compute), np.ones(2))
    assert np.array_equal(conv.respond(np.zeros(3)), np.zeros(2))


@pytest.mark.parametrize(
    ("conv", "depthwise", "local"),
    [
        (scale_shift(np.ones(4), np.ones(4), 2), True, True),
        (Conv.of(np.ones((4, 1, 1, 1)), groups=2), False, True),
        (Conv.of(np.ones((4, 1, 3, 3)), groups=4), True, False),
        (Conv.of(np.ones((8, 1, 1, 1)), groups=4), False, True),
        (Conv.of(np.ones((4, 1, 1)), groups=4, stride=(2,)), True, False),
        (Conv.of(np.ones((4, 1, 1)), groups=4, begin=(1,)), True, False),
        (Conv.of(np.ones((4, 1, 1)), groups=4, end=(-1,)), True, False),
        (Conv.of(np.ones((4, 1, 1)), groups=4, transposed=True), True, False),
        (Conv.of(np.ones((4, 4)), axis=-1), False, True),
    ],
)
def test_kinds(conv: Conv, depthwise: bool, local: bool) -> None:
    assert (conv.depthwise, conv.local, conv.pointwise) == (depthwise, local, depthwise and local)


# --- makers ---


@given(st.integers(1, 4), st.integers(0, 3), seeds)
def test_the_identity_changes_nothing(channels: int, rank: int, seed: int) -> None:
    x = integers(seed, 2, channels, *(3,) * rank)
    assert np.array_equal(identity(channels, rank).evaluate(x), x)


@pytest.mark.parametrize(("channels", "groups"), [(6, 1), (6, 2), (6, 3), (6, 6), (8, 4)])
def test_the_identity_of_a_grouped_convolution(channels: int, groups: int) -> None:
    weight = regroup(identity(channels, 2), groups).weight
    expected = np.zeros((channels, channels // groups, 1, 1))
    for i in range(channels):
        expected[i, i % (channels // groups)] = 1
    assert np.array_equal(weight, expected)


@given(st.integers(1, 4), st.integers(0, 2), seeds)
def test_scale_shift_is_per_channel(channels: int, rank: int, seed: int) -> None:
    scale, shift, x = (
        integers(seed, channels),
        integers(seed + 1, channels),
        integers(seed, 2, channels, *(3,) * rank),
    )
    column = (channels, *(1,) * rank)
    conv = scale_shift(scale, shift, rank)
    assert conv.pointwise
    assert np.array_equal(conv.evaluate(x), scale.reshape(column) * x + shift.reshape(column))


def test_scale_shift_on_the_last_axis() -> None:
    x = integers(0, 2, 5, 3)
    conv = scale_shift(np.array([1.0, 2, 3]), np.array([4.0, 5, 6]), 0, axis=-1)
    assert np.array_equal(conv.evaluate(x), x * [1, 2, 3] + [4, 5, 6])


@given(st.integers(-2, 3), st.integers(-2, 3), st.integers(-2, 3), st.integers(-2, 3))
def test_pad_extends_and_crops(top: int, left: int, bottom: int, right: int) -> None:
    x = integers(0, 1, 2, 4, 5)
    value = np.array([7.0, 8.0])
    padded = np.stack([np.pad(x[0, c], 3, constant_values=value[c]) for c in range(2)])[None]
    expected = padded[:, :, 3 - top : 3 + 4 + bottom, 3 - left : 3 + 5 + right]
    assert np.array_equal(pad(2, (top, left), (bottom, right), value).evaluate(x), expected)


def test_a_scalar_pad_value_serves_all_channels() -> None:
    assert np.array_equal(pad(3, (1,), (0,), 2.0).pad_value, [2, 2, 2])
    assert not pad(3, (-1,), (0,), 2.0).pad_value.any()


def test_average_pool_counts_the_padding() -> None:
    x = 4 * integers(0, 1, 2, 6, 6)
    pool = average_pool(2, (2, 2), (2, 2), (1, 1), (1, 1), (1, 1))
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    assert np.array_equal(pool.evaluate(x), padded.reshape(1, 2, 4, 2, 4, 2).mean(axis=(3, 5)))


@given(st.data())
def test_fewer_groups_compute_the_same(data: st.DataObject) -> None:
    conv = data.draw(convs(rank=data.draw(st.integers(0, 2)), transposed=None))
    groups = data.draw(st.sampled_from([g for g in (1, 2, 3, 4) if conv.groups % g == 0]))
    regrouped = regroup(conv, groups)
    assert regrouped.groups == groups
    assert np.array_equal(dense(regrouped), dense(conv))
    assert equal(regrouped, data.draw(images(conv)))


def test_more_groups_are_refused() -> None:
    with pytest.raises(Declined, match="2 groups do not become 4"):
        regroup(Conv.of(np.ones((4, 2)), groups=2), 4)


def test_the_diagonal_is_a_view() -> None:
    kernel = np.zeros((4, 4, 3))
    diagonal(kernel, 1, 2)[:] = 1
    assert np.array_equal(kernel[..., 0], [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]])


def test_taps_are_indexed_in_order() -> None:
    assert list(taps((2, 2))) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert list(taps(())) == [()]


# --- equality, normal form, refusals ---


@given(convs(transposed=None))
def test_equal_by_value(conv: Conv) -> None:
    twin = replace(conv, kernel=Conv.of(conv.weight.copy()).kernel, bias=conv.bias.copy())
    assert conv == twin
    assert hash(conv) == hash(twin)
    assert conv != replace(conv, bias=conv.bias + 1)
    assert conv != replace(conv, kernel=Conv.of(conv.weight + 1).kernel)
    assert conv != "conv"


@pytest.mark.parametrize(
    "change",
    [
        {"stride": (2, 1)},
        {"dilation": (1, 2)},
        {"begin": (0, 1)},
        {"end": (0, -1)},
        {"pad_value": np.array([0.0, 1.0])},
        {"transposed": True},
    ],
)
def test_every_attribute_counts(change: dict[str, Any]) -> None:
    conv = Conv.of(np.ones((2, 2, 3, 3)), begin=(1, 1), end=(1, 1))
    assert conv != replace(conv, **change)


def test_one_tap_has_no_dilation() -> None:
    conv = Conv.of(np.ones((1, 1, 1, 3)), dilation=(3, 2))
    assert conv.dilation == (1, 2)
    assert conv == Conv.of(np.ones((1, 1, 1, 3)), dilation=(1, 2))


def test_a_pad_value_that_nothing_reads_is_zero() -> None:
    conv = Conv.of(np.ones((1, 1, 3)), begin=(-1,), end=(0,), pad_value=np.ones(1))
    assert conv == Conv.of(np.ones((1, 1, 3)), begin=(-1,))
    assert not replace(conv, transposed=True, begin=(1,)).reads_outside


def test_without_spatial_axes_nothing_is_transposed() -> None:
    assert Conv.of(np.ones((2, 2)), transposed=True) == Conv.of(np.ones((2, 2)))


def test_the_channel_axis_is_part_of_the_value() -> None:
    conv = identity(2, 0)
    assert conv.with_axis(1) is conv
    assert conv.with_axis(-1) == identity(2, 0, axis=-1) != conv


REFUSALS: list[tuple[dict[str, Any], str]] = [
    ({"stride": (1,)}, r"stride \(1,\) does not fit the 2 spatial axes"),
    ({"begin": (1, 1, 1)}, r"begin \(1, 1, 1\) does not fit the 2 spatial axes"),
    ({"stride": (0, 1)}, r"stride \(0, 1\) is not positive"),
    ({"dilation": (1, -1)}, r"dilation \(1, -1\) is not positive"),
    ({"groups": 3}, "4 output channels do not divide into 3 groups"),
    ({"groups": 0}, "4 output channels do not divide into 0 groups"),
    ({"bias": np.zeros(3)}, r"bias \(3,\) for 4 output channels"),
    ({"begin": (1, 1), "pad_value": np.zeros(3)}, r"pad_value \(3,\) for 2 channels"),
    ({"axis": -1}, "channel axis -1 with 2 spatial axes"),
    ({"axis": 2}, "channel axis 2 with 2 spatial axes"),
]


@pytest.mark.parametrize(("change", "reason"), REFUSALS)
def test_attributes_that_do_not_fit_are_refused(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(Declined, match=reason):
        Conv.of(np.ones((4, 2, 3, 3)), **change)


def test_a_kernel_without_taps_or_channels_is_refused() -> None:
    with pytest.raises(Declined, match=r"a kernel of \(3, 0\) has no taps"):
        Conv.of(np.ones((4, 2, 3, 0)))
    with pytest.raises(Declined, match=r"a kernel has the axes \[O, I/groups, \*k\], not \[4\]"):
        Conv.of(np.ones(4))


@pytest.mark.parametrize(
    ("conv", "words"),
    [
        (Conv.of(np.ones((4, 2)), axis=-1), "linear, 2 -> 4"),
        (
            Conv.of(np.ones((4, 1, 3, 3)), groups=2, stride=(2, 2), begin=(1, 1), end=(1, 0)),
            "3x3 conv, 2 -> 4, groups 2, stride (2, 2), pads (1, 1, 1, 0)",
        ),
        (
            Conv.of(np.ones((4, 2, 2)), dilation=(2,), transposed=True),
            "transposed 2 conv, 2 -> 4, dilation (2,)",
        ),
    ],
)
def test_a_convolution_describes_itself_in_field_terms(conv: Conv, words: str) -> None:
    assert str(conv) == words

"""The float64 kernels of windows and norms against onnxruntime, over all that their attributes may say."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir
import onnxruntime
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import helper

from fuser.errors import Declined
from fuser.hosts.onnx.standard import windows as onnx_windows
from fuser.hosts.onnx.standard.evaluate import evaluator
from fuser.hosts.onnx.standard.kernel import Kernel

Draw = Callable[..., Any]
Case = tuple[dict[str, Any], list[np.ndarray]]

onnxruntime.set_default_logger_severity(4)


def run(kind: str, attributes: dict[str, Any], arrays: list[np.ndarray], opset: int = 21) -> Any:
    """What onnxruntime makes of one node, None where it refuses."""
    names = [f"i{k}" for k in range(len(arrays))]
    node = helper.make_node(kind, names, ["y"], **attributes)
    values = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for name, a in zip(names, arrays, strict=True)
    ]
    made = helper.make_tensor_value_info("y", helper.np_dtype_to_tensor_dtype(arrays[0].dtype), None)
    graph = helper.make_graph([node], "g", values, [made])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        return session.run(None, dict(zip(names, arrays, strict=True)))[0]
    except Exception:  # noqa: BLE001  # whatever the runtime does not take is no case
        return None


def ours(kind: str, attributes: dict[str, Any], arrays: list[np.ndarray], opset: int = 21) -> Any:
    """What the table's own kernel makes of it in float64; the reference does not step in."""
    node = onnx_ir.serde.deserialize_node(helper.make_node(kind, [], ["y"], **attributes))
    kernel = evaluator(node, opset)
    assert isinstance(kernel, Kernel)
    return kernel.compute(kernel, *(a.astype(np.float64) for a in arrays))


def agree(kind: str, attributes: dict[str, Any], arrays: list[np.ndarray], opset: int = 21) -> bool:
    """Whether both computed something, which then is equal; a case that the runtime refuses is none."""
    expected = run(kind, attributes, arrays, opset)
    if expected is None or not expected.size:
        return False
    actual = ours(kind, attributes, arrays, opset)
    assert actual is not NotImplemented, (attributes, [a.shape for a in arrays])
    assert actual.shape == expected.shape, (attributes, [a.shape for a in arrays])
    assert actual.dtype == np.float64
    np.testing.assert_allclose(
        actual, expected, rtol=1e-4, atol=1e-5 * max(1.0, float(np.abs(expected).max(initial=0)))
    )
    return True


def drawn(draw: Draw, *shape: int) -> np.ndarray:
    return np.random.default_rng(draw(st.integers(0, 99))).standard_normal(shape).astype(np.float32)


def axes(draw: Draw, rank: int, low: int, high: int) -> list[int]:
    found: list[int] = draw(st.lists(st.integers(low, high), min_size=rank, max_size=rank))
    return found


def padded(draw: Draw, attributes: dict[str, Any], most: list[int]) -> None:
    """Explicit pads, or what a rule makes of them."""
    rule = draw(st.sampled_from(["none", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER", "pads", "pads"]))
    if rule == "pads":
        attributes["pads"] = [draw(st.integers(0, m)) for m in most * 2]
    elif rule != "none":
        attributes["auto_pad"] = rule


@st.composite
def convolutions(draw: Draw) -> Case:
    rank = draw(st.integers(1, 3))
    size, group = axes(draw, rank, 1, 4), draw(st.sampled_from([1, 1, 2, 3]))
    inputs, outputs = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    attributes: dict[str, Any] = {"group": group}
    if draw(st.booleans()):
        attributes["strides"] = axes(draw, rank, 1, 3)
    if draw(st.booleans()):
        attributes["dilations"] = axes(draw, rank, 1, 3)
    if draw(st.booleans()):
        attributes["kernel_shape"] = size
    padded(draw, attributes, [3] * rank)
    x = drawn(draw, draw(st.integers(0, 2)), inputs * group, *axes(draw, rank, 3, 11))
    arrays = [x, drawn(draw, outputs * group, inputs, *size)]
    return attributes, [*arrays, *([drawn(draw, outputs * group)] if draw(st.booleans()) else [])]


@st.composite
def transposed(draw: Draw) -> Case:
    attributes, (x, w, *bias) = draw(convolutions())
    group = attributes["group"]
    w = drawn(draw, x.shape[1], len(w) // group, *w.shape[2:])
    rank = x.ndim - 2
    strides = attributes.get("strides", [1] * rank)
    dilations = attributes.get("dilations", [1] * rank)
    attributes.pop("kernel_shape", None)
    form = draw(st.sampled_from(["plain", "padding", "shape"]))
    if form == "padding":
        attributes["output_padding"] = [
            draw(st.integers(0, max(s, d) - 1)) for s, d in zip(strides, dilations, strict=True)
        ]
    if form == "shape":
        attributes["output_shape"] = [
            n * s + draw(st.integers(0, 1)) for n, s in zip(x.shape[2:], strides, strict=True)
        ]
    return attributes, [x, w, *bias]


@st.composite
def pools(draw: Draw) -> Case:
    rank = draw(st.integers(1, 3))
    size = axes(draw, rank, 1, 4)
    attributes: dict[str, Any] = {"kernel_shape": size}
    if draw(st.booleans()):
        attributes["strides"] = axes(draw, rank, 1, 3)
    if draw(st.booleans()):
        attributes["ceil_mode"] = 1
    padded(draw, attributes, [k - 1 for k in size])
    if attributes.get("auto_pad", "").startswith("SAME"):
        strides = attributes.get("strides", [1] * rank)
        assume(all(s <= k + 1 for s, k in zip(strides, size, strict=True)))
    elif draw(st.booleans()):
        attributes["dilations"] = axes(draw, rank, 1, 2)
    image = axes(draw, rank, 4, 11)
    # A window that does not fit makes nothing that the standard defines.
    reach = [(k - 1) * d for k, d in zip(size, attributes.get("dilations", [1] * rank), strict=True)]
    assume(all(r < n for r, n in zip(reach, image, strict=True)))
    return attributes, [drawn(draw, 2, 3, *image)]


@settings(max_examples=200)
@given(convolutions())
def test_conv(case: Case) -> None:
    assume(agree("Conv", *case))


@settings(max_examples=200)
@given(transposed())
def test_conv_transpose(case: Case) -> None:
    assume(agree("ConvTranspose", *case))


@settings(max_examples=200)
@given(pools(), st.booleans())
def test_average_pool(case: Case, counted: bool) -> None:
    attributes, arrays = case
    assume(agree("AveragePool", attributes | {"count_include_pad": int(counted)}, arrays))


@settings(max_examples=200)
@given(pools())
def test_max_pool(case: Case) -> None:
    assume(agree("MaxPool", *case))


@pytest.mark.parametrize("attributes", [{"dilations": [2]}, {"strides": [4]}])
def test_what_the_runtime_and_the_standard_pad_differently_is_not_evaluated(
    attributes: dict[str, Any],
) -> None:
    x = np.ones((1, 1, 6), np.float32)
    with pytest.raises(Declined, match="mean different things"):
        ours("MaxPool", {"kernel_shape": [2], "auto_pad": "SAME_UPPER"} | attributes, [x])


@pytest.mark.parametrize("opset", [7, 9, 13, 15])
@pytest.mark.parametrize("rank", [2, 3, 4, 5])
@pytest.mark.parametrize("epsilon", [None, 1e-3, 0.1])
def test_batch_normalization(opset: int, rank: int, epsilon: float | None) -> None:
    generator = np.random.default_rng(rank)
    x = generator.standard_normal((2, 3, *range(4, 2 + rank)))
    parameters = [*generator.standard_normal((3, 3)), generator.random(3) * 1e-4]
    attributes = {} if epsilon is None else {"epsilon": epsilon}
    arrays = [np.asarray(a, np.float32) for a in (x, *parameters)]
    assert agree("BatchNormalization", attributes, arrays, opset)


def test_the_default_epsilon_is_a_float32_number() -> None:
    """In a double model, with a variance that is nothing beside it, the digits of epsilon are seen."""
    arrays = [np.full((1, 1, 2), 1.0), *(np.array([c]) for c in (1.0, 0.0, 0.0, 1e-12))]
    expected = run("BatchNormalization", {}, arrays, 15)
    actual = ours("BatchNormalization", {}, arrays, 15)
    np.testing.assert_allclose(actual, expected, rtol=1e-14)
    assert not np.allclose(actual, 1 / np.sqrt(1e-5 + 1e-12), rtol=1e-10, atol=0)


def test_statistics_of_each_element() -> None:
    """`spatial` 0 of the first opsets, which runtimes do not have any more."""
    generator = np.random.default_rng(0)
    x, scale, bias, mean, variance = (generator.random((2, 3, 4)), *generator.random((4, 3, 4)))
    expected = scale * (x - mean) / np.sqrt(variance + 1e-3) + bias
    actual = ours("BatchNormalization", {"spatial": 0, "epsilon": 1e-3}, [x, scale, bias, mean, variance], 7)
    np.testing.assert_allclose(actual, expected, rtol=1e-6)


@pytest.mark.parametrize("group", [1, 4, 64])
def test_large_images_are_laid_out_in_parts(group: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However few taps fit beside each other, the sum is the same."""
    generator = np.random.default_rng(0)
    arrays = [
        generator.standard_normal(s).astype(np.float32) for s in ((2, 64, 20, 20), (64, 64 // group, 3, 3))
    ]
    whole = ours("Conv", {"group": group}, arrays)
    monkeypatch.setattr(onnx_windows, "COLUMNS", 2 * 64 * 18 * 18 * 8 * 4)
    np.testing.assert_allclose(ours("Conv", {"group": group}, arrays), whole, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_type_that_comes_in_comes_out(dtype: type) -> None:
    arrays: list[np.ndarray] = [np.ones((1, 2, 4), dtype), np.full((2, 2, 3), 0.1, dtype)]
    node = onnx_ir.serde.deserialize_node(helper.make_node("Conv", [], ["y"]))
    kernel = evaluator(node, 21)
    assert kernel is not None
    assert kernel(*arrays)[0].dtype == dtype

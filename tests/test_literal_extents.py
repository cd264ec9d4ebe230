"""Literal numbers against symbolic axes: what comes out computes the same on both sides of every number.

The networks are invented, and judged by onnxruntime alone, at extents of its own choice.
"""

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import fuser

CHANNELS = 3
FREE = (0, 2, 3)
"""Batch, height and width have symbols for their extents."""

TRIED = 24
"""Extents that each network is compared at: half of them fit it, or more."""

Draw = st.DrawFn


class Network:
    """A network under construction: nodes, constants, the numbers in them, and the value made last."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.numbers = {1}
        self.last = "x"

    def constant(self, values: Any, dtype: Any = np.int64) -> str:
        array = np.asarray(values, dtype=dtype)
        if array.dtype == np.int64:
            self.numbers.update(int(abs(n)) for n in array.reshape(-1) if abs(n) < 100)
        self.constants.append(numpy_helper.from_array(array, f"c{len(self.constants)}"))
        return self.constants[-1].name

    def add(self, kind: str, *inputs: str, outputs: int = 1, take: int = 0, **attributes: Any) -> None:
        names = [f"v{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, [self.last, *inputs], names, **attributes))
        self.last = names[take]

    def model(self) -> onnx.ModelProto:
        given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", CHANNELS, "H", "W"])
        made = helper.make_tensor_value_info(self.last, TensorProto.FLOAT, [None] * 4)
        graph = helper.make_graph(self.nodes, "literal", [given], [made], self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def crop(net: Network, draw: Draw) -> None:
    """x[..., a:b:s], from either end."""
    axis, first = draw(st.sampled_from(FREE)), draw(st.integers(0, 3))
    last = draw(st.one_of(st.integers(2, 9), st.just(2**40), st.integers(-3, -1)))
    bounds = [net.constant([n]) for n in (first, last, axis, draw(st.sampled_from([1, 1, 2])))]
    net.add("Slice", *bounds)


def pad(net: Network, draw: Draw) -> None:
    """Zeros, or another value, or a crop, on some axes."""
    pads = np.zeros(8, dtype=np.int64)
    for axis in draw(st.sets(st.sampled_from(FREE), min_size=1, max_size=2)):
        pads[[axis, axis + 4]] = draw(st.tuples(st.integers(-2, 3), st.integers(-2, 3)))
    net.add("Pad", net.constant(pads), net.constant(draw(st.sampled_from([0, 0, 1])), np.float32))


def gather(net: Network, draw: Draw) -> None:
    """Some positions of an axis, by their index."""
    first = draw(st.integers(0, 2))
    indices = np.arange(first, first + draw(st.integers(1, 5)))
    net.add("Gather", net.constant(indices), axis=draw(st.sampled_from(FREE)))


def split(net: Network, draw: Draw) -> None:
    """One of the halves of an axis, or one of two parts of fixed sizes."""
    axis, sizes = draw(st.sampled_from(FREE)), draw(st.sampled_from([(), (2, 3), (4, 4)]))
    net.add(
        "Split", *([net.constant(sizes)] * bool(sizes)), outputs=2, take=draw(st.integers(0, 1)), axis=axis
    )


def reshape(net: Network, draw: Draw) -> None:
    """The same elements as images of another size, and perhaps as before."""
    extents = draw(
        st.sampled_from([(-1, CHANNELS, 4, 4), (0, 0, -1, 2), (2, CHANNELS, -1, 4), (-1, 3, 1, 1)])
    )
    net.add("Reshape", net.constant(extents))


def expand(net: Network, draw: Draw) -> None:
    """An axis of one position repeated."""
    shape = [1, 1, 1, 1]
    shape[draw(st.sampled_from(FREE))] = draw(st.integers(2, 5))
    net.add("Expand", net.constant(shape))


def conv(net: Network, draw: Draw) -> None:
    """A convolution with random weights."""
    size, stride, pads = draw(st.integers(1, 3)), draw(st.sampled_from([1, 1, 2])), draw(st.integers(0, 1))
    weight = np.random.default_rng(len(net.nodes)).normal(size=(CHANNELS, CHANNELS, size, size))
    bias = [net.constant([0.5, -1.0, 2.0], np.float32)] * draw(st.integers(0, 1))
    net.add("Conv", net.constant(weight, np.float32), *bias, pads=[pads] * 4, strides=[stride] * 2)


def scale(net: Network, draw: Draw) -> None:
    """A factor for each channel."""
    net.add(
        "Mul", net.constant(np.array(draw(st.sampled_from([[2], [1, 2, 3]]))).reshape(-1, 1, 1), np.float32)
    )


LITERAL = (crop, crop, pad, pad, gather, split, reshape, expand)


@st.composite
def networks(draw: Draw) -> Network:
    """Up to three operators with literal numbers, around convolutions."""
    net = Network()
    for step in (*draw(st.lists(st.sampled_from((*LITERAL, conv, scale)), min_size=1, max_size=4)), conv):
        step(net, draw)
    return net


def runner(model: onnx.ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def extents(net: Network) -> list[tuple[int, int, int]]:
    """Batch, height and width, each next to a number of the network, or beyond all of them together."""
    random = np.random.default_rng(0)
    near = sorted({n + d for n in net.numbers for d in (-1, 0, 1) if n + d > 0} | {sum(net.numbers) + 5})
    return [(int(n), int(h), int(w)) for n, h, w in random.choice(near, (TRIED, 3))]


def require_equal(net: Network) -> None:
    """Wherever the source runs, the result does, and computes the same."""
    source = net.model()
    try:
        before = runner(source)
    except ort.capi.onnxruntime_pybind11_state.Fail:
        assume(False)  # some numbers fit no extent at all
    after = runner(fuser.optimize(source))
    for n, h, w in extents(net):
        x = np.random.default_rng(0).normal(size=(n, CHANNELS, h, w)).astype(np.float32)
        try:
            (old,) = before.run(None, {"x": x})
        except Exception:  # noqa: BLE001  # what the source refuses is nobody's business
            continue
        if old.size:
            (new,) = after.run(None, {"x": x})
            assert new.shape == old.shape, f"{x.shape}: {new.shape} instead of {old.shape}"
            np.testing.assert_allclose(new, old, rtol=0, atol=2e-5 * max(1.0, float(np.abs(old).max())))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(networks())
def test_equal_on_both_sides_of_every_number(net: Network) -> None:
    require_equal(net)

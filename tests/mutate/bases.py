"""Models to mutate: small, and of every kind that a file may be of."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from onnx import helper, numpy_helper, parser

from tests.fuzz.networks import Network

HEAD: Final = '<ir_version: 8, opset_import: ["": 17, "local": 1], metadata_props: ["author": "somebody"]>'
NETWORKS: Final = 40
"""So many random networks are bases too."""


def _weighted(text: str, seed: int = 0, **shapes: tuple[int, ...]) -> onnx.ModelProto:
    """The model of a text with normal weights of some shapes."""
    model = parser.parse_model(f"{HEAD} {text}")
    random = np.random.default_rng(seed)
    for name, shape in shapes.items():
        array = random.uniform(0.2, 1.0, shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    return model


def block() -> onnx.ModelProto:
    """A block of branches: convolutions, norms, a pool and what follows them."""
    return _weighted(
        """g (float[N,4,8,8] x) => (float[N,5] y) {
            a = Conv <pads = [1,1,1,1]> (x, w, b)
            n = BatchNormalization <epsilon = 0.01> (a, s, s, s, s)
            p = Conv (x, v)
            q = AveragePool <kernel_shape = [3,3], pads = [1,1,1,1], count_include_pad = 1> (x)
            t = Sum (n, p, q)
            r = Relu (t)
            u = ConvTranspose <strides = [2,2]> (r, m)
            k = MaxPool <kernel_shape = [2,2], strides = [2,2]> (u)
            f = GlobalAveragePool (k)
            h = Flatten (f)
            y = Gemm <transB = 1, alpha = 0.5> (h, l, c) }""",
        w=(4, 4, 3, 3), b=(4,), s=(4,), v=(4, 4, 1, 1), m=(4, 3, 2, 2), l=(5, 3), c=(5,),
    )  # fmt: skip


def axes() -> onnx.ModelProto:
    """What is computed from shapes, and literal numbers on axes."""
    return _weighted(
        """g (float[N,4,8,W] x) => (float[N,K] y, float[M,4,D] z)
        <int64[1] zero = {0}, int64[1] one = {1}, int64[1] two = {2}, int64[1] six = {6},
         int64[1] rest = {-1},
         int64[4] ones = {1,1,1,1}, int64 start = {0}, int64 step = {100},
         int64[3] flat = {-1,4,8}, int64[2] halves = {2,2},
         int64[8] pads = {0,0,1,0,0,0,0,2}, float[4] scales = {1,1,2,2}> {
            s = Shape (x)
            n = Gather (s, zero)
            target = Concat <axis = 0> (n, rest)
            c = Slice (x, one, six, two)
            p = Pad (c, pads)
            i = Conv (p, w)
            u = Resize <mode = "nearest"> (i, , scales)
            j, k = Split <axis = 1> (u, halves)
            t = Transpose <perm = [0,2,3,1]> (j)
            o = Expand (k, one)
            e = Tile (t, ones)
            v = Reshape (e, target)
            y = Softmax (v)
            shape = ConstantOfShape <value = float[1] {2.0}> (target)
            count = Size (shape)
            d = Range (start, count, step)
            q = Cast <to = 1> (d)
            a = Reshape (x, flat)
            z = Relu (a) }""",
        w=(4, 4, 1, 1),
    )  # fmt: skip


def flow() -> onnx.ModelProto:
    """If, Loop and Scan that capture, and a function of two calls."""
    return _weighted(
        """g (float[N,3] x, bool c) => (float[N,3] y, float[N,3] z) {
            n = Constant <value_int = 3> ()
            t = Constant <value = bool {1}> ()
            i = If (c) <
                then_branch = a () => (float[N,3] p) { h = MatMul (x, w) p = Add (h, b) },
                else_branch = d () => (float[N,3] q) { q = Neg (x) }>
            o = Loop (n, t, i) <body = e (int64 at, bool go, float[N,3] was) => (bool on, float[N,3] is) {
                on = Identity (go) is = Mul (was, b) }>
            y = local.layer <slope = 0.2> (o, w)
            s = local.layer <slope = 0.3> (x, w)
            z = Scan (s) <num_scan_inputs = 1, body = f (float[3] row) => (float[3] sum) {
                sum = Add (row, b) }> }
        <domain: "local", opset_import: ["": 17]> layer <slope> (u, v) => (k) {
            l = MatMul (u, v)
            k = LeakyRelu <alpha: float = @slope> (l) }""",
        w=(3, 3), b=(3,),
    )  # fmt: skip


def quantised() -> onnx.ModelProto:
    """Weights in eight bits, and nodes that quantise."""
    model = _weighted(
        """g (float[N,3,6,6] x) => (float[N,4,6,6] y)
        <float scale = {0.02}, uint8 zero = {128}, int8 none = {0}> {
            q = QuantizeLinear (x, scale, zero)
            d = DequantizeLinear (q, scale, zero)
            k = DequantizeLinear (w8, scale, none)
            a = Conv <pads = [1,1,1,1]> (d, k)
            m = Cast <to = 1> (w8)
            e = Mul (m, scale)
            b = Conv <pads = [1,1,1,1]> (x, e)
            y = Add (a, b) }"""
    )
    kernel = np.random.default_rng(0).integers(-100, 100, (4, 3, 3, 3)).astype(np.int8)
    model.graph.initializer.append(numpy_helper.from_array(kernel, "w8"))
    model.graph.quantization_annotation.add(tensor_name="a").quant_parameter_tensor_names.add(
        key="SCALE_TENSOR", value="scale"
    )
    return model


def foreign() -> onnx.ModelProto:
    """Strings, a sequence, a sparse constant, and an initializer that may be overridden."""
    model = _weighted(
        """g (float[2,3] x, float[3,3] w) => (float[4,3] y, string[2] z, float[2,3] u) {
            m = MatMul (x, w)
            s = SequenceConstruct (m, x)
            y = ConcatFromSequence <axis = 0> (s)
            i = Constant <value_ints = [1,0]> ()
            z = Gather (names, i)
            u = Mul (m, k) }""",
        w=(3, 3),
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array(["cat", "dog"], dtype=object), "names"))
    sparse = helper.make_sparse_tensor(
        helper.make_tensor("", onnx.TensorProto.FLOAT, [2], [1.0, 2.0]),
        helper.make_tensor("at", onnx.TensorProto.INT64, [2], [0, 4]),
        [2, 3],
    )
    model.graph.node.insert(0, helper.make_node("Constant", [], ["k"], sparse_value=sparse))
    return model


BASES: Final[tuple[Callable[[], onnx.ModelProto], ...]] = (block, axes, flow, quantised, foreign)


def base(index: int) -> onnx.ModelProto:
    """One of the bases above, or of the random networks behind them."""
    return BASES[index]() if index < len(BASES) else Network(index).proto


def external(model: onnx.ModelProto, folder: Path) -> bytes:
    """The model with its weights in a file beside it."""
    onnx.save(model, folder / "base.onnx", save_as_external_data=True, location="weights", size_threshold=0)
    return (folder / "base.onnx").read_bytes()

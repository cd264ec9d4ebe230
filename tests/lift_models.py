"""Small models in which each lift rule takes part, those included that it must decline: `damage_lifts`."""

from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray

from tests.small_models import normal, parsed

IMAGE: Final = "g (float[N,4,9,8] x) => (float[a,b,c,d] y)"
FIXED: Final = "g (float[1,4,9,8] x) => (float[a,b,c,d] y)"
ROWS: Final = "g (float[N,6] x) => (float[a,b] y)"
TOKENS: Final = "g (float[N,5,6] x) => (float[a,b,c] y)"

NORM: Final = {
    "s": normal(4, seed=1),
    "t": normal(4, seed=2),
    "m": normal(4, seed=3),
    "v": np.linspace(0.3, 2, 4),
}
CONV: Final = {"w": normal(4, 4, 3, 3), "b": normal(4, seed=5)}
POINT: Final = {"p": normal(4, 4, 1, 1, seed=6)}
LINE: Final = {"k": normal(6, 6, seed=7), "l": normal(6, 6, seed=8), "r": normal(6, seed=9)}

# What stands between two convolutions 1x1 of four channels: it is lifted, or else wrong to lift.
BETWEEN: Final = [
    "BatchNormalization (a, s, t, m, v)",
    "BatchNormalization <epsilon = 0.3> (a, s, t, m, v)",
    "Mul (a, c)", "Mul (c, a)", "Add (a, c)", "Add (c, a)", "Sub (a, c)", "Sub (c, a)",
    "Div (a, c)", "Div (c, a)",
    "Mul (a, one)", "Sub (one, a)", "Sub (a, one)", "Div (a, one)", "Div (one, a)",
    "Mul (a, places)", "Add (a, places)", "Mul (a, columns)", "Add (a, columns)",
    "Neg (a)", "Identity (a)", "Dropout (a)", "Cast <to = 1> (a)", "Clip (a)", "Clip (a, one)",
    "Max (a)", "Min (a)",
    "Max (a, one)", "Sum (a, one, a)", "Mean (a, one)", "Mean (a, a, x)", "Sum (a, places)", "Sum (a, x, a)",
    "LeakyRelu <alpha = 1.0> (a)", "LeakyRelu <alpha = 0.5> (a)", "PRelu (a, ones)", "PRelu (a, c)",
    "Transpose <perm = [0,1,2,3]> (a)", "Transpose <perm = [0,1,3,2]> (a)",
    "Pad (a, none)", "Pad (a, around)", "Pad (a, around, one)", "Pad (a, inside)", "Pad (a, batch)",
    'Pad <mode = "reflect"> (a, around)', "Slice (a, zero, four, first)", "Slice (a, zero, two, first)",
    "Slice (a, two, five, second)", "Slice (a, minus, four, first)", "Slice (a, zero, four, first, two)",
    "Reshape (a, same)", "Reshape (a, turned)", "Concat <axis = 1> (a)", "Concat <axis = 1> (a, x)",
    "Concat <axis = -3> (x, a)", "Concat <axis = 2> (a, x)", "Concat <axis = 0> (a, x)", "Expand (a, single)",
    "AveragePool <kernel_shape = [2,2]> (a)", "AveragePool <kernel_shape = [3,2], strides = [2,2]> (a)",
    "AveragePool <kernel_shape = [3,3], pads = [1,1,1,1]> (a)",
    "AveragePool <kernel_shape = [3,3], pads = [1,0,1,2], count_include_pad = 1> (a)",
    "AveragePool <kernel_shape = [3,3], strides = [2,2], ceil_mode = 1> (a)",
    "AveragePool <kernel_shape = [2,2], strides = [2,2], ceil_mode = 1, count_include_pad = 1> (a)",
    'AveragePool <kernel_shape = [3,3], auto_pad = "SAME_UPPER", count_include_pad = 1> (a)',
    'AveragePool <kernel_shape = [2,2], auto_pad = "SAME_LOWER"> (a)',
    'AveragePool <kernel_shape = [2,3], auto_pad = "VALID"> (a)',
]  # fmt: skip

FEWER_OR_MORE: Final = (
    "Concat",
    "Pad (a, batch)",
    "Slice (a, zero, two",
    "Slice (a, minus",
    "Slice (a, zero, four, first, two",
)
"""What has not four channels for a convolution behind it."""

INTEGERS: Final[dict[str, Any]] = {
    "none": [0] * 8, "around": [0, 0, 1, 2, 0, 0, 2, 1], "inside": [0, 0, -1, 0, 0, 0, 1, -2],
    "batch": [0, 1, 0, 0, 0, 0, 0, 0], "zero": [0], "two": [2], "four": [4], "five": [5], "minus": [-3],
    "first": [1], "second": [2], "same": [0, 4, 9, 8], "single": [1, 1, 1, 1], "turned": [0, 4, 8, 9],
}  # fmt: skip
FLOATS: Final = {
    "c": normal(1, 4, 1, 1, seed=4) + 3, "one": np.array(0.7), "ones": np.ones((1, 1, 1, 1)),
    "places": normal(1, 1, 9, 8, seed=10) + 3, "columns": normal(8, seed=11) + 3,
}  # fmt: skip

DEPTHWISE: Final = "q = Conv <pads = [1,1,1,1], group = 4> (h, d)"
COUNTED: Final = "kernel_shape = [3,3], pads = [1,1,1,1], count_include_pad = 1"
CUBE: Final = "g (float[N,4,4,5,3] x) => (float[a,b,c,d,e] y)"

# Linear operators by themselves; merged with what stands beside or behind them.
WHOLE: Final = [
    (IMAGE, "y = Conv <pads = [1,2,2,0], strides = [2,1]> (h, w, b)"),
    (IMAGE, "y = Conv <dilations = [2,1], group = 2> (h, w2)"),
    (IMAGE, 'y = Conv <auto_pad = "SAME_UPPER", strides = [2,2]> (h, w, b)'),
    (IMAGE, 'y = Conv <auto_pad = "SAME_LOWER", strides = [2,3]> (h, w)'),
    (IMAGE, 'y = Conv <auto_pad = "VALID"> (h, w)'),
    (IMAGE, "y = ConvTranspose <strides = [2,3], pads = [1,0,0,1]> (h, w, b)"),
    (IMAGE, "y = ConvTranspose <strides = [2,2], output_padding = [1,0], group = 2> (h, w2)"),
    (IMAGE, "y = ConvTranspose <strides = [2,2], dilations = [2,1], output_shape = [18,16]> (h, w)"),
    (IMAGE, 'y = ConvTranspose <strides = [2,2], auto_pad = "SAME_UPPER"> (h, w)'),
    (IMAGE, 'y = ConvTranspose <strides = [2,2], auto_pad = "SAME_LOWER"> (h, w)'),
    (IMAGE, "q = Conv <pads = [1,1,1,1]> (h, w) y = Add (q, h)"),
    (IMAGE, "q = Conv <pads = [1,1,1,1]> (h, w) z = Conv (h, p) y = Sub (q, z)"),
    (IMAGE, f"{DEPTHWISE} z = AveragePool <kernel_shape = [3,3], pads = [1,1,1,1]> (h) y = Add (q, z)"),
    (IMAGE, f"{DEPTHWISE} z = AveragePool <{COUNTED}> (h) y = Sum (q, z, h)"),
    (IMAGE, "q = Conv (h, p) z, u = Split <axis = 1> (q, halves) o = Neg (z) y = Concat <axis = 1> (u, o)"),
    (ROWS, "q = Gemm <alpha = 0.5, beta = 2.0> (x, k, r) y = Gemm <transB = 1> (q, l)"),
    (ROWS, "q = Gemm <transB = 1> (x, k, one) y = MatMul (q, l)"),
    (ROWS, "q = MatMul (x, k) n = BatchNormalization (q, s6, t6, m6, v6) y = Gemm (n, l, r)"),
    (ROWS, "q = MatMul (x, k) z = Add (q, r) y = Gemm (z, l)"),
    ("g (float[6,6] x) => (float[a,b] y)", "q = MatMul (k, x) y = MatMul (q, l)"),
    ("g (float[6,6] x) => (float[a,b] y)", "q = Gemm <transA = 1> (x, k) y = MatMul (q, l)"),
    ("g (float[6,6] x) => (float[a,b] y)", "q = MatMul (x, k) y = Gemm (q, l, k)"),
    (TOKENS, "q = MatMul (x, k) z = Mul (q, r) y = MatMul (z, l)"),
    (TOKENS, "q = MatMul (x, k) z = Mul (q, tokens) y = MatMul (z, l)"),
    (TOKENS, "f = Reshape (x, flat) q = MatMul (f, k) z = Reshape (q, back) y = MatMul (z, l)"),
    ("g (float[N,4,9] x) => (float[a,b,c] y)", "q = Conv <pads = [1,0]> (x, w1) y = Mul (q, c3)"),
    ("g (float[N,4,9] x) => (float[a,b,c] y)", "q = Conv (x, w1) y = BatchNormalization (q, s, t, m, v)"),
    (CUBE, "q = Conv (x, w3) y = BatchNormalization (q, s, t, m, v)"),
]  # fmt: skip
EXTRA: Final = {
    "w2": normal(4, 2, 3, 3, seed=12), "d": normal(4, 1, 3, 3, seed=13), "w1": normal(4, 4, 3, seed=14),
    "w3": normal(4, 4, 2, 2, 1, seed=15), "c3": normal(4, 1, seed=20), "tokens": normal(5, 1, seed=16),
    "s6": normal(6, seed=17), "t6": normal(6, seed=18), "m6": normal(6, seed=19),
    "v6": np.linspace(0.2, 1, 6),
}  # fmt: skip
SHAPES: Final[dict[str, Any]] = {"halves": [1, 3], "flat": [-1, 6], "back": [-1, 5, 6]}


def _built(graph: str, lines: str) -> onnx.ModelProto:
    """The model of these lines, with the weights that they read."""
    weights: dict[str, NDArray[Any]] = {**NORM, **CONV, **POINT, **LINE, **FLOATS, **EXTRA}
    weights |= {name: np.array(value, np.int64) for name, value in {**INTEGERS, **SHAPES}.items()}
    read = {name.strip(" ,()") for name in lines.replace("(", " ").replace(")", " ").split()}
    used = {name: array for name, array in weights.items() if name in read}
    return parsed(f"{graph} {{ {lines} }}", **used)


def models() -> list[onnx.ModelProto]:
    """Every model, the same each time; the first ones come from what stands between convolutions."""
    found: list[onnx.ModelProto] = []
    for operator in BETWEEN:
        found.extend(
            _built(graph, f"a = Conv (x, p) h = {operator} y = Relu (h)") for graph in (IMAGE, FIXED)
        )
        if not operator.startswith(FEWER_OR_MORE):
            found.append(_built(IMAGE, f"a = Relu (x) h = {operator} y = Conv (h, w, b)"))
    for graph, lines in WHOLE:
        first = "h = Relu (x) " if graph == IMAGE else ""
        found.append(_built(graph, first + lines))
        if graph == IMAGE:
            behind = lines.replace("y = ", "e = ") + " y = BatchNormalization (e, s, t, m, v)"
            found.append(_built(graph, first + behind))
    return found

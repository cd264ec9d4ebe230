"""Small ONNX models from text, for the tests of what runs and compares models."""

from typing import Any

import numpy as np
import onnx.parser
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper

Array = NDArray[Any]


def parsed(graph: str, **weights: Array) -> ModelProto:
    """The model `graph` is the text of; float weights become float32."""
    model = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["": 17]> {graph}')
    for name, array in weights.items():
        single = array.astype(np.float32) if array.dtype == np.float64 else array
        model.graph.initializer.append(numpy_helper.from_array(single, name))
    return model


def normal(*shape: int, seed: int = 0) -> Array:
    """Random weights, the same each time."""
    return np.random.default_rng(seed).standard_normal(shape)


def convnet(*, image: str = "N,3,H,W", shift: float = 0.0, **weights: Array) -> ModelProto:
    """Two convolutions with a BatchNorm between them; weights by name replace those that it has."""
    own = {
        "w1": normal(4, 3, 3, 3) / 5,
        "scale": np.linspace(0.5, 1.5, 4),
        "bias": normal(4, seed=1),
        "mean": normal(4, seed=2),
        "var": np.linspace(0.5, 2, 4),
        "w2": normal(5, 4, 3, 3, seed=3) / 6,
        "b2": normal(5, seed=4) + shift,
    }
    return parsed(
        f"""g (float[{image}] x) => (float[a,b,c,d] y) {{
            h = Conv <pads = [1,1,1,1]> (x, w1)
            n = BatchNormalization (h, scale, bias, mean, var)
            r = Relu (n)
            y = Conv <pads = [1,1,1,1], strides = [2,2]> (r, w2, b2)
        }}""",
        **own | weights,
    )

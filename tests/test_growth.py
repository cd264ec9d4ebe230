"""A file does not grow by what is stored twice, or by what it keeps small on purpose."""

from typing import Any

import numpy as np
import onnx
import pytest

import fuser
from tests.small_models import normal, parsed


def sizes(model: onnx.ModelProto) -> int:
    return sum(len(tensor.SerializeToString()) for tensor in model.graph.initializer)


def two_branches(*, alike: bool) -> onnx.ModelProto:
    """Two images through one convolution and norm, or through norms of their own."""
    other = "s, b, m, v" if alike else "s, b2, m, v"
    return parsed(
        f"""g (float[N,4,H,W] l, float[N,4,H,W] r) => (float[N,6,H,W] y) {{
            a = Conv <pads = [1,1,1,1]> (l, w) p = BatchNormalization (a, s, b, m, v) p2 = Relu (p)
            c = Conv <pads = [1,1,1,1]> (r, w) q = BatchNormalization (c, {other}) q2 = Relu (q)
            y = Sub (p2, q2) }}""",
        w=normal(6, 4, 3, 3),
        **{name: normal(6, seed=i) for i, name in enumerate(("s", "b", "m", "b2")[: 3 if alike else 4])},
        v=np.abs(normal(6, seed=9)) + 0.5,
    )


def test_branches_that_share_their_weights_share_what_is_made_of_them() -> None:
    source = two_branches(alike=True)
    result = fuser.optimize(source, verify=True)
    assert [node.op_type for node in result.graph.node] == ["Conv", "Relu", "Conv", "Relu", "Sub"]
    assert len(result.graph.initializer) == 2
    assert sizes(result) < sizes(source)


def test_only_what_is_equal_is_shared() -> None:
    result = fuser.optimize(two_branches(alike=False), verify=True)
    assert len(result.graph.initializer) == 3  # one kernel, two biases


WEIGHTS = {
    "integers": (
        "w = Cast <to = 1> (k)",
        {"k": np.arange(-100, 100, dtype=np.int8).reshape(8, 25).repeat(4, 0)},
    ),
    "scaled integers": (
        "f = Cast <to = 1> (k) w = Mul (f, z)",
        {"k": np.arange(-100, 100, dtype=np.int8).reshape(8, 25).repeat(4, 0), "z": np.array(0.01)},
    ),
    "half precision": ("w = Cast <to = 1> (k)", {"k": normal(32, 25).astype(np.float16)}),
    "a row for all": ("w = Expand (k, e)", {"k": normal(1, 25), "e": np.array([32, 25])}),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_that_are_kept_small_are_not_written_out(name: str) -> None:
    text, constants = WEIGHTS[name]
    made: dict[str, Any] = {key: np.asarray(array) for key, array in constants.items()}
    source = parsed(
        f"g (float[N,32] x) => (float[N,25] y) {{ {text} a = MatMul (x, w) b = Mul (a, s) y = Relu (b) }}",
        s=np.linspace(0.5, 1.5, 25),
        **made,
    )
    result, report = fuser.optimize(source, verify=True, return_report=True)
    assert sizes(result) <= sizes(source)
    reasons = " ".join(event.reason for event in report.events)
    assert "is kept in" in reasons
    assert "would be written in 3200" in reasons

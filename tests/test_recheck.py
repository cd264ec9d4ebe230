"""Pairs of graphs that are near to one another, and do not compute the same: none is proved."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

from fuser.hosts.onnx.certificate.recheck import Region, prove
from tests.small_models import parsed


def seeded() -> Any:
    """What the reference of ONNX draws for a seed; every runtime draws something else."""
    node = helper.make_node("RandomNormal", [], ["a"], shape=[4], seed=1.0)
    graph = helper.make_graph([node], "g", [], [helper.make_tensor_value_info("a", 1, [4])])
    (array,) = ReferenceEvaluator(helper.make_model(graph)).run(None, {})
    return array


CONSTANTS: dict[str, Any] = {
    "w": np.arange(16.0).reshape(4, 4, 1, 1),
    "one": np.ones((1, 4, 1, 1)),
    "same": np.ones((4, 4, 1, 1)),
    "m": np.arange(16.0).reshape(4, 4),
    "b": np.arange(1.0, 5.0),
    "none": np.zeros((4, 4, 1, 1)),
    "nothing": np.array([0.0]),
    "drawn": seeded(),
    "half": np.array([0.5]),
    "ratio": np.array(0.5),
    "two": np.array([2.0]),
    "int2": np.array([2]),
    "yes": np.array(True),
    "no": np.array(False),
    "far": np.array([9]),
}
IMAGES = "g (float[N,4,H,4] x, float[N,4,H,4] z) => (float[a,b,c,d] y)"
ROWS = "g (int64[N,4] i, float[N,4] x) => (float[N,4] y)"
BOTH = "g (float[N,4] x) => (float[N,4] y, float[N,4] t)"
NORMAL, CHOICE, DROPS = "RandomNormalLike (x)", "Bernoulli (x)", "Dropout (x, ratio, yes)"
TWO, ONE = "y = Identity (a) t = Identity (other)", "y = Identity (a) t = Identity (a)"
PAIRS: dict[str, tuple[str, str, str]] = {
    "only the original reads": (IMAGES, "s = Add (x, z) y = Conv (s, w)", "y = Conv (x, w)"),
    "only the result reads": (IMAGES, "y = Conv (x, w)", "s = Add (x, z) y = Conv (s, w)"),
    "channels": (IMAGES, "y = Conv (x, same)", "y = Conv (x, one)"),
    "what vanishes, and is all": (IMAGES, "y = Conv (x, none, b)", "y = Conv (z, none, b)"),
    "what vanishes, and broadcasts": (
        "g (float[N,1,H,4] x, float[N,4,H,4] z) => (float[a,b,c,d] y)",
        "n = Mul (z, nothing) y = Add (x, n)",
        "y = Identity (x)",
    ),
    "what vanishes, and would broadcast": (
        "g (float[N,1,H,4] x, float[N,4,H,4] z) => (float[a,b,c,d] y)",
        "y = Identity (x)",
        "n = Mul (z, nothing) y = Add (x, n)",
    ),
    "bias on another axis": (
        IMAGES,
        "c = Conv (x, w, b) r = MatMul (z, m) y = Add (c, r)",
        "k = Conv (x, w) p = MatMul (z, m) q = Add (p, b) y = Add (k, q)",
    ),
    "a constant": (ROWS, "y = Add (half, two)", "y = Sub (two, half)"),
    "a constant for a value": (ROWS, "y = Add (half, two)", "y = Add (x, two)"),
    "a value for a constant": (ROWS, "y = Add (x, two)", "y = Add (half, two)"),
    "a division of integers": (
        "g (int64[N,4] i) => (int64[N,4] y)",
        "y = Identity (i)",
        "h = Div (i, int2) y = Mul (h, int2)",
    ),
    "an operator of others": (ROWS, "y = Add (x, two)", "y = others.Add (x, two)"),
    "random numbers": (BOTH, f"a = {NORMAL} other = {NORMAL} {TWO}", f"a = {NORMAL} {ONE}"),
    "a random choice": (BOTH, f"a = {CHOICE} other = {CHOICE} {TWO}", f"a = {CHOICE} {ONE}"),
    "what is dropped in training": (BOTH, f"a = {DROPS} other = {DROPS} {TWO}", f"a = {DROPS} {ONE}"),
    "random constants": (
        ROWS,
        "a = RandomNormal <shape = [4], seed = 1.0> () y = Add (x, a)",
        "y = Add (x, drawn)",
    ),
    "a value that is not known": (
        ROWS,
        "e = Identity (x) h, mask = Dropout (e, ratio, no) f = Cast <to = 1> (mask) y = Add (f, two)",
        "k, left = Dropout (x, ratio, no) c = Cast <to = 1> (left) y = Add (c, half)",
    ),
    "a shape": (
        "g (float[2,4] x) => (int64[a] y)",
        "s = Shape (x) y = Identity (s)",
        "s = Shape (x) y = Neg (s)",
    ),
    "what cannot be computed": (
        ROWS,
        "a = Gather (two, far) y = Add (x, a)",
        "a = Gather (half, far) y = Add (x, a)",
    ),
}


def regions(tmp_path: Path, signature: str, *bodies: str) -> list[Region]:
    paths = [tmp_path / name for name in ("a.onnx", "b.onnx")]
    for body, path in zip(bodies, paths, strict=True):
        model = parsed(f"{signature} {{ {body} }}", **CONSTANTS)
        model.opset_import.add(domain="others", version=1)
        onnx.save(model, path)
    return prove(*paths)


@pytest.mark.parametrize("what", PAIRS)
def test_what_differs_is_not_proved(what: str, tmp_path: Path) -> None:
    signature, a, b = PAIRS[what]
    assert any(region.reason for region in regions(tmp_path, signature, a, b))


@pytest.mark.parametrize("what", PAIRS)
def test_what_is_the_same_is_proved(what: str, tmp_path: Path) -> None:
    signature, *both = PAIRS[what]
    for body in both:
        assert not any(region.reason for region in regions(tmp_path, signature, body, body))

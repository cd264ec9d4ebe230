"""Maps of the channels before resizing, in ONNX files."""

import numpy as np
import onnx
import pytest

import fuser
from tests.small_models import normal, parsed

MODES = {
    "nearest": 'mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor"',
    "linear": 'mode = "linear"',
    "cubic": 'mode = "cubic", coordinate_transformation_mode = "align_corners"',
}


def neck(text: str, factor: float = 2, lateral: str = "1,8,16,16") -> onnx.ModelProto:
    made = parsed(
        f"g (float[1,32,8,8] x, float[{lateral}] z) => (float[1,A,B,C] y) {{ {text} }}",
        w=normal(8, 40, 1, 1),
        k=normal(8, 32, 1, 1),
        t=normal(8, 64, 1, 1),
        c=normal(8, 40, 3, 3),
        b=normal(8, seed=2),
    )
    scales = np.array([1, 1, factor, factor], np.float32)
    made.graph.initializer.append(onnx.numpy_helper.from_array(scales, "r"))
    used = {name for node in made.graph.node for name in node.input}
    kept = [tensor for tensor in made.graph.initializer if tensor.name in used]
    del made.graph.initializer[:]
    made.graph.initializer.extend(kept)
    return made


def kinds(model: onnx.ModelProto) -> list[str]:
    result = fuser.optimize(model, verify=True)
    assert fuser.optimize(result) == result
    return [node.op_type for node in result.graph.node]


@pytest.mark.parametrize("mode", MODES)
def test_the_neck_of_a_detector(mode: str) -> None:
    text = f"u = Resize <{MODES[mode]}> (x, , r) g = Concat <axis = 1> (u, z) a = Conv (g, w, b) y = Relu (a)"
    assert kinds(neck(text)) == ["Conv", "Resize", "Conv", "Add", "Relu"]


@pytest.mark.parametrize("factor", [2, 3])
def test_a_resized_image_by_itself(factor: int) -> None:
    made = neck(f"u = Resize <{MODES['nearest']}> (x, , r) a = Conv (u, k, b) y = Relu (a)", factor)
    assert kinds(made) == ["Conv", "Resize", "Relu"]


def test_two_resized_images_and_no_other() -> None:
    text = f"""p = Relu (x) u = Resize <{MODES["nearest"]}> (x, , r) v = Resize <{MODES["linear"]}> (p, , r)
        g = Concat <axis = 1> (u, v) a = Conv (g, t, b) y = Relu (a)"""
    assert sorted(kinds(neck(text))) == ["Add", "Conv", "Conv", "Relu", "Relu", "Resize", "Resize"]


@pytest.mark.parametrize(
    "rest",
    [
        "g = Concat <axis = 1> (u, z) a = Conv <pads = [1,1,1,1]> (g, c) y = Relu (a)",
        "g = Concat <axis = 1> (u, z) a = Conv (g, w) s = Relu (g) q = Conv (s, w) y = Add (a, q)",
        "g = Concat <axis = 1> (z, u, z) a = Relu (g) y = GlobalMaxPool (a)",
    ],
)
def test_what_others_read_or_what_looks_around_stays(rest: str) -> None:
    made = neck(f"u = Resize <{MODES['nearest']}> (x, , r) {rest}")
    assert kinds(made) == [node.op_type for node in made.graph.node]


def test_a_smaller_image_is_mapped_after_it_is_made() -> None:
    made = neck(f"u = Resize <{MODES['nearest']}> (x, , r) a = Conv (u, k, b) y = Relu (a)", 0.5)
    assert kinds(made) == ["Resize", "Conv", "Relu"]


def test_a_crop_with_a_value_of_its_own_stays() -> None:
    text = (
        'u = Resize <mode = "linear", coordinate_transformation_mode = "tf_crop_and_resize", '
        "extrapolation_value = 3.0> (x, f, r) a = Conv (u, k, b) y = Relu (a)"
    )
    made = neck(text)
    region = np.array([0, 0, -0.5, 0, 1, 1, 1, 1.5], np.float32)
    made.graph.initializer.append(onnx.numpy_helper.from_array(region, "f"))
    assert kinds(made) == ["Resize", "Conv", "Relu"]

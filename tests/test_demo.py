"""The model of the demo is what it says, and the main job works on it."""

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import fuser
from fuser.demo import build_repvgg, build_repvgg_a0


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    return build_repvgg_a0()


def operators(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def test_it_is_repvgg_a0_in_training_form(model: onnx.ModelProto) -> None:
    onnx.checker.check_model(model, full_check=True)
    kinds = operators(model)
    assert (kinds["Conv"], kinds["BatchNormalization"], kinds["Relu"]) == (44, 61, 22)
    # As many as timm's repvgg_a0 has, the running statistics included.
    assert sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer) == 9_132_616


def test_no_statistic_is_trivial(model: onnx.ModelProto) -> None:
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        assert np.isfinite(values).all(), tensor.name
        assert not np.isin(values, (0, 1)).any(), tensor.name
        assert not tensor.name.endswith(".var") or (values > 0).all()


def test_the_same_seed_gives_the_same_model() -> None:
    first, second, other = (build_repvgg(((4, 2),), 3, seed=seed).SerializeToString() for seed in (0, 0, 1))
    assert first == second != other


def test_the_output_depends_on_the_image(model: onnx.ModelProto) -> None:
    """A random network tends to give one and the same answer, and a check on that would see little."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    images = np.random.default_rng(0).normal(size=(2, 3, 160, 160)).astype(np.float32)
    (logits,) = session.run(None, {"image": images})
    assert 0.1 < logits.std() < 100
    assert np.abs(logits[0] - logits[1]).max() > 0.1 * logits.std()


def test_one_convolution_per_block_is_left(model: onnx.ModelProto) -> None:
    result, report = fuser.optimize(model, return_report=True)
    assert operators(result) == {"Conv": 22, "Relu": 22, "GlobalAveragePool": 1, "Flatten": 1, "Gemm": 1}
    assert report.before.multiply_adds == 1_512_581_120
    assert report.after.multiply_adds == 1_361_451_008
    assert fuser.verify(model, result, samples=1).ok

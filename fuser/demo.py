"""The main job without a download: RepVGG-A0 in training form, built here, collapsed, verified and timed.

Ding et al., "RepVGG: Making VGG-style ConvNets Great Again", CVPR 2021.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

    from fuser.report import Report

STAGES: Final = ((48, 1), (48, 2), (96, 4), (192, 14), (1280, 1))
"""Channels and blocks of each stage. The first block of a stage has stride 2."""

CLASSES: Final = 1000


def demonstrate() -> Report:
    """Build the model in a temporary directory, optimize, verify and time it."""
    import onnx

    import fuser

    with tempfile.TemporaryDirectory(prefix="graph-fuser-") as folder:
        source, result = Path(folder, "repvgg_a0.onnx"), Path(folder, "repvgg_a0.fused.onnx")
        onnx.save(build_repvgg_a0(), source)
        return fuser.optimize_file(source, result, verify=True, bench=True)


def build_repvgg_a0(seed: int = 0) -> onnx.ModelProto:
    """RepVGG-A0 as it is trained: 44 convolutions, 61 BatchNorms; random weights, all statistics generic.

    Input `image [batch, 3, height, width]`, output `logits [batch, 1000]`, both float32. The same seed gives the same model.
    """
    return _Builder(seed).model()


class _Builder:
    """Nodes and weights of the model, block by block."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def model(self) -> onnx.ModelProto:
        from onnx import TensorProto, helper

        x, channels = "image", 3
        for stage, (width, blocks) in enumerate(STAGES):
            for index in range(blocks):
                x = self.block(f"stage{stage}.{index}", x, channels, width, stride=1 if index else 2)
                channels = width
        x = self.node("GlobalAveragePool", "pool", [x])
        x = self.node("Flatten", "flatten", [x], axis=1)
        weight = self.weight("head.weight", self.random.normal(0, channels**-0.5, (CLASSES, channels)))
        bias = self.weight("head.bias", self.random.normal(0, 0.1, CLASSES))
        self.node("Gemm", "head", [x, weight, bias], output="logits", transB=1)
        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, "height", "width"])
        logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES])
        graph = helper.make_graph(self.nodes, "repvgg_a0", [image], [logits], self.weights)
        opset = helper.make_opsetid("", 17)
        return helper.make_model(graph, opset_imports=[opset], ir_version=8, producer_name="graph-fuser demo")

    def block(self, name: str, x: str, inputs: int, outputs: int, stride: int) -> str:
        """relu(bn(conv3x3(x)) + bn(conv1x1(x)) + bn(x)), the last term where the shape allows it."""
        branches = [
            self.batch_norm(f"{name}.{kind}.norm", self.conv(f"{name}.{kind}", x, (outputs, inputs, k, k), stride), outputs)
            for kind, k in (("dense", 3), ("pointwise", 1))
        ]
        if inputs == outputs and stride == 1:
            branches.append(self.batch_norm(f"{name}.identity.norm", x, outputs))
        total, *rest = branches
        for index, branch in enumerate(rest):
            total = self.node("Add", f"{name}.add{index}", [total, branch])
        return self.node("Relu", f"{name}.relu", [total])

    def conv(self, name: str, x: str, shape: tuple[int, int, int, int], stride: int) -> str:
        # This scale keeps the second moment of what a convolution reads.
        weight = self.random.normal(0, np.prod(shape[1:]) ** -0.5, shape)
        size = shape[2]
        return self.node(
            "Conv",
            name,
            [x, self.weight(f"{name}.weight", weight)],
            kernel_shape=[size, size],
            strides=[stride, stride],
            pads=[size // 2] * 4,
        )

    def batch_norm(self, name: str, x: str, channels: int) -> str:
        """Statistics as after training, not as initialised: nothing is 0 or 1, so that no mistake stays hidden."""
        statistics = {
            "scale": self.random.uniform(0.5, 1.5, channels) * 0.6,  # the sum of three such branches keeps the scale
            "bias": self.random.normal(0, 0.3, channels),
            "mean": self.random.normal(0, 0.3, channels),
            "var": self.random.uniform(0.5, 2.0, channels),
        }
        parameters = [self.weight(f"{name}.{key}", value) for key, value in statistics.items()]
        return self.node("BatchNormalization", name, [x, *parameters], epsilon=1e-5)

    def weight(self, name: str, values: NDArray[np.float64]) -> str:
        from onnx import numpy_helper

        self.weights.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def node(self, kind: str, name: str, inputs: list[str], *, output: str = "", **attributes: object) -> str:
        from onnx import helper

        output = output or f"{name}.out"
        self.nodes.append(helper.make_node(kind, inputs, [output], name=name, **attributes))
        return output

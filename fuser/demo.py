"""The main job without a download: RepVGG-A0 in training form, built here, collapsed, verified and timed.

Ding et al., "RepVGG: Making VGG-style ConvNets Great Again", CVPR 2021.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fuser.algebra.conv import Conv
from fuser.algebra.lazy import Array

if TYPE_CHECKING:
    import onnx

    from fuser.report.report import Report

STAGES: Final = ((48, 1), (48, 2), (96, 4), (192, 14), (1280, 1))
"""Channels and blocks of each stage. The first block of a stage has stride 2."""

CLASSES: Final = 1000

EPSILON: Final = 1e-5


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

    Input `image [batch, 3, height, width]`, output `logits [batch, 1000]`, both float32.
    """
    return build_repvgg(STAGES, CLASSES, seed)


def build_repvgg(stages: Sequence[tuple[int, int]], classes: int, seed: int = 0) -> onnx.ModelProto:
    """A RepVGG of any size: `stages` gives channels and blocks of each."""
    return _Builder(seed).model(stages, classes)


@dataclass(frozen=True)
class _Tensor:
    """A value of the graph, and what it holds `[N, C, H, W]` for one random image."""

    name: str
    sample: Array

    @property
    def channels(self) -> int:
        """Number of channels."""
        return int(self.sample.shape[1])


class _Builder:
    """Nodes and weights of the model, block by block."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def model(self, stages: Sequence[tuple[int, int]], classes: int) -> onnx.ModelProto:
        """The whole network."""
        from onnx import TensorProto, helper

        x = _Tensor("image", self.random.normal(size=(1, 3, 224, 224)))
        for stage, (width, blocks) in enumerate(stages):
            for index in range(blocks):
                x = self.block(f"stage{stage}.{index}", x, width, stride=1 if index else 2)
        pooled = self.node("GlobalAveragePool", "pool", [x.name])
        features = self.node("Flatten", "flatten", [pooled], axis=1)
        weight = self.weight("head.weight", self.random.normal(0, x.channels**-0.5, (classes, x.channels)))
        bias = self.weight("head.bias", self.random.normal(0, 0.1, classes))
        self.node("Gemm", "head", [features, weight, bias], output="logits", transB=1)
        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, "height", "width"])
        logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", classes])
        graph = helper.make_graph(self.nodes, "repvgg", [image], [logits], self.weights)
        opset = helper.make_opsetid("", 17)
        return helper.make_model(graph, opset_imports=[opset], ir_version=8, producer_name="graph-fuser demo")

    def block(self, name: str, x: _Tensor, width: int, stride: int) -> _Tensor:
        """relu(bn(conv3x3(x)) + bn(conv1x1(x)) + bn(x)), the last term where the shape allows it."""
        branches = [
            self.batch_norm(f"{name}.{kind}.norm", self.conv(f"{name}.{kind}", x, width, size, stride))
            for kind, size in (("dense", 3), ("pointwise", 1))
        ]
        if x.channels == width and stride == 1:
            branches.append(self.batch_norm(f"{name}.identity.norm", x))
        total = branches[0].name
        for index, branch in enumerate(branches[1:]):
            total = self.node("Add", f"{name}.add{index}", [total, branch.name])
        sample = np.sum([branch.sample for branch in branches], axis=0)
        return _Tensor(self.node("Relu", f"{name}.relu", [total]), np.maximum(sample, 0))

    def conv(self, name: str, x: _Tensor, width: int, size: int, stride: int) -> _Tensor:
        """A convolution without bias, as it stands in front of a BatchNorm."""
        weight = self.random.normal(0, (x.channels * size**2) ** -0.5, (width, x.channels, size, size))
        pads = (size // 2, size // 2)
        output = self.node(
            "Conv",
            name,
            [x.name, self.weight(f"{name}.weight", weight)],
            kernel_shape=[size, size],
            strides=[stride, stride],
            pads=pads * 2,
        )
        return _Tensor(
            output, Conv.of(weight, stride=(stride, stride), begin=pads, end=pads).evaluate(x.sample)
        )

    def batch_norm(self, name: str, x: _Tensor) -> _Tensor:
        """Statistics near those of `x`, as after training. Nothing is 0 or 1, which would hide mistakes."""
        n = x.channels
        deviation = x.sample.std(axis=(0, 2, 3))
        parameters = {
            "scale": self.random.uniform(0.5, 1.5, n) * np.where(self.random.random(n) < 0.1, -1, 1),
            "bias": self.random.normal(0, 0.3, n),
            "mean": x.sample.mean(axis=(0, 2, 3)) + self.random.normal(0, 0.3, n) * deviation,
            "var": self.random.uniform(0.5, 2.0, n) * deviation**2,
        }
        inputs = [x.name, *(self.weight(f"{name}.{key}", value) for key, value in parameters.items())]
        scale, bias, mean, variance = (value.reshape(n, 1, 1) for value in parameters.values())
        output = self.node("BatchNormalization", name, inputs, epsilon=EPSILON)
        return _Tensor(output, (x.sample - mean) / np.sqrt(variance + EPSILON) * scale + bias)

    def weight(self, name: str, values: Array) -> str:
        """Enter an initializer; returns its name."""
        from onnx import numpy_helper

        self.weights.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def node(self, kind: str, name: str, inputs: list[str], *, output: str = "", **attributes: Any) -> str:
        """Enter a node; returns the name of its output."""
        from onnx import helper

        output = output or f"{name}.out"
        self.nodes.append(helper.make_node(kind, inputs, [output], name=name, **attributes))
        return output

"""How a design is put to the test: built with generic weights, exported in each form, optimised, evaluated.

The reference is the torch module itself in double precision, which knows nothing of ONNX or of us.
"""

import io
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fuser.hosts.onnx.judge.oracle import Oracle

Arrays = list[NDArray[Any]]
EXPORTERS: Final = ("preserve", "legacy", "dynamo")

# Largest error of an output relative to its largest magnitude, everything computed in float64. The weights
# were rounded to float32: by us once, by an exporter that folds in float32 once more.
LIMIT: Final = 1e-6


@dataclass(frozen=True, eq=False)
class Case:
    """A design: how to build it, and what must be left of it.

    `after` counts the operators that are left (Constant is none). `reason` is what the report must say, where
    something is legal but must stay, or looks alike but is not legal. `dynamic`: batch and extents are
    symbolic in the export, and the numbers are compared at a second shape. `exporters` can export it.
    """

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    after: Mapping[str, int]
    reason: str = ""
    dynamic: bool = False
    exporters: Sequence[str] = EXPORTERS

    def module(self) -> nn.Module:
        """The module in evaluation mode, the same weights each time."""
        with torch.random.fork_rng():
            torch.manual_seed(zlib.crc32(self.name.encode()))
            module = self.build().eval()
            randomise(module)
        return module

    def inputs(self, grown: int = 0) -> Tensor:
        """A generic input; each axis but the channels longer by `grown`."""
        shape = [n + grown * (axis != 1) for axis, n in enumerate(self.shape)]
        return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def randomise(module: nn.Module) -> None:
    """Give every parameter and statistic that is born as 0 or 1 a generic value: 0 and 1 hide mistakes."""
    for part in module.modules():
        if getattr(part, "running_mean", None) is not None:
            nn.init.normal_(part.running_mean, 0, 0.5)
            nn.init.uniform_(part.running_var, 0.5, 2)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.numel() > 1 and bool((parameter == parameter.flatten()[0]).all()):
                parameter.copy_(torch.rand_like(parameter) + 0.5)
                parameter.mul_(torch.randint_like(parameter, 2) * 2 - 1)
            elif parameter.numel() == 1 and parameter.item() in {0, 1}:
                parameter.copy_(torch.rand_like(parameter) + 0.3)
    for part in module.modules():
        if hasattr(part, "settle"):
            part.settle()  # a design that is about particular values


@cache
def _keep_operators() -> None:
    """Let the exporter read its table of operators once, not at each call: half of the time of a call."""
    with suppress(ImportError, AttributeError):  # not public, and only a matter of time
        from torch.onnx._internal.exporter import _registration as registration

        registry = registration.ONNXRegistry
        registry.from_torchlib = staticmethod(cache(registry.from_torchlib))


def export(module: nn.Module, x: Tensor, exporter: str, *, dynamic: bool = False) -> onnx.ModelProto:
    """The module as ONNX with input `x` and outputs `y0`, ...; if `dynamic`, only the channels are fixed."""
    with torch.no_grad():
        names = [f"y{i}" for i, _ in enumerate(_listed(module(x)))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the exporters say about themselves
        return _export(deepcopy(module), x, exporter, names, dynamic=dynamic)


def _export(
    module: nn.Module, x: Tensor, exporter: str, names: list[str], *, dynamic: bool
) -> onnx.ModelProto:
    axes = [axis for axis in range(x.ndim) if axis != 1] if dynamic else []
    if exporter == "dynamo":
        _keep_operators()
        free = dict.fromkeys(axes, torch.export.Dim.DYNAMIC)
        program = torch.onnx.export(
            module, (x,), dynamo=True, opset_version=20, verbose=False, input_names=["x"], output_names=names,
            dynamic_shapes=(free,) if free else None,
        )  # fmt: skip
        model: onnx.ModelProto = program.model_proto
        return model
    preserve = exporter == "preserve"
    modes = torch.onnx.TrainingMode
    buffer = io.BytesIO()
    torch.onnx.export(
        module, (x,), buffer, dynamo=False, opset_version=17, input_names=["x"], output_names=names,
        dynamic_axes={"x": {axis: f"d{axis}" for axis in axes}} if axes else None,
        training=modes.PRESERVE if preserve else modes.EVAL,
        do_constant_folding=not preserve,
    )  # fmt: skip
    return onnx.load_from_string(buffer.getvalue())


def expected(module: nn.Module, x: Tensor) -> Arrays:
    """What the module computes, in double precision."""
    with torch.no_grad():
        return [y.numpy() for y in _listed(deepcopy(module).double()(x.double()))]


def evaluate(model: onnx.ModelProto, x: Tensor) -> Arrays:
    """What the file computes, in float64; its outputs in the order of the file."""
    results = Oracle(model, Path()).evaluate({model.graph.input[0].name: x.double().numpy()})
    return [results[value.name] for value in model.graph.output]


def run(model: onnx.ModelProto, x: Tensor) -> Arrays:
    """What onnxruntime computes, its own optimisations off."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    outputs: Arrays = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    return outputs


def error(found: Sequence[NDArray[Any]], wanted: Sequence[NDArray[Any]]) -> float:
    """The largest difference, each output relative to its largest magnitude; infinite where shapes differ."""
    if [a.shape for a in found] != [b.shape for b in wanted]:
        return float("inf")
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(found, wanted, strict=True))


def operators(model: onnx.ModelProto) -> dict[str, int]:
    """Nodes by operator; Constant does no work."""
    return dict(sorted(Counter(n.op_type for n in model.graph.node if n.op_type != "Constant").items()))


def _listed(y: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return y if isinstance(y, tuple) else (y,)

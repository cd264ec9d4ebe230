"""Files that other optimisers silently get wrong come out right here; each docstring says what they do."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from onnx.helper import make_node
from torch import Tensor, nn

import fuser
from tests.hosts.onnx_models import model_of
from tests.hosts.onnx_models import run as run_feeds
from tests.zoo.harness import EXPORTERS, LIMIT, Case, error, evaluate, expected, export, operators, run
from tests.zoo.layers import conv_norm
from tests.zoo.test_traps import conv, norm, norm_node, weights
from tests.zoo.traps import Fixed

IMAGE = (2, 5, 9, 8)


def compare(
    name: str, build: Callable[[], nn.Module], exporter: str, after: dict[str, int], shape: Any = IMAGE
) -> None:
    """Structure, then numbers against the module in double precision, then a runtime, its optimiser off."""
    case = Case(name, build, shape, after)
    module, x = case.module(), case.inputs()
    result = fuser.optimize(export(module, x, exporter))
    assert operators(result) == dict(sorted(after.items()))
    assert error(evaluate(result, x), expected(module, x)) <= LIMIT
    assert error(run(result, x), expected(module, x)) <= 1e-5


# How each exporter writes a clamp from above.
CLAMP = {"preserve": "Clip", "legacy": "Clip", "dynamo": "Min"}
exporters = pytest.mark.parametrize("exporter", EXPORTERS)


@exporters
def test_padding_before_a_max_pool(exporter: str) -> None:
    """onnxruntime, onnxoptimizer: the zeros of the Pad become the -inf of the pool."""

    def forward(m: Any, x: Tensor) -> Tensor:
        return F.max_pool2d(F.pad(m.conv(x).clamp(max=-1), [1] * 4), 3, 2)

    pooled = partial(Fixed, forward, conv=nn.Conv2d(5, 7, 3))
    compare("pad_max_pool", pooled, exporter, {"Conv": 1, CLAMP[exporter]: 1, "Pad": 1, "MaxPool": 1})


@exporters
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_norm_behind_a_transposed_convolution(exporter: str, groups: int) -> None:
    """Inductor scales the wrong axis where both channels are equal; torch's own fusion fails with groups."""

    def up() -> nn.Module:
        return nn.Sequential(nn.ConvTranspose2d(6, 6, 3, 2, 1, 1, groups), nn.BatchNorm2d(6))

    compare(f"transposed_{groups}", up, exporter, {"ConvTranspose": 1}, (2, 6, 5, 4))


@exporters
def test_a_constant_times_a_transposed_convolution(exporter: str) -> None:
    """The same error, 24 to 44 %, without a norm."""

    def forward(m: Any, x: Tensor) -> Tensor:
        return m.norm.weight.view(1, -1, 1, 1) * m.up(x)

    up = partial(Fixed, forward, up=nn.ConvTranspose2d(5, 5, 3, 2), norm=nn.BatchNorm2d(5))
    compare("transposed_scale", up, exporter, {"ConvTranspose": 1})


@exporters
def test_a_module_used_twice(exporter: str) -> None:
    """torch.fx folds the norm into the shared convolution twice, 26 to 95 % error."""

    def forward(m: Any, x: Tensor) -> Tensor:
        return m.second(m.conv(m.first(m.conv(x)).relu()))

    norms = {"first": nn.BatchNorm2d(5), "second": nn.BatchNorm2d(5)}
    twice = partial(Fixed, forward, conv=nn.Conv2d(5, 5, 3, padding=1), **norms)
    compare("twice", twice, exporter, {"Conv": 2, "Relu": 1})


@exporters
def test_one_norm_behind_one_of_two_uses(exporter: str) -> None:
    """The same where only one use has a norm: the other must keep the weight as it is."""

    def forward(m: Any, x: Tensor) -> Tensor:
        return m.conv(m.norm(m.conv(x)).relu())

    once = partial(Fixed, forward, conv=nn.Conv2d(5, 5, 3, padding=1), norm=nn.BatchNorm2d(5))
    compare("once", once, exporter, {"Conv": 2, "Relu": 1})


@exporters
def test_a_constant_along_the_width(exporter: str) -> None:
    """onnxslim takes [W] for per-channel where W is the number of channels, 140 % error."""

    def forward(m: Any, x: Tensor) -> Tensor:
        return m.norm.weight * m.conv(x)

    row = partial(Fixed, forward, conv=nn.Conv2d(5, 8, 3, padding=1), norm=nn.BatchNorm2d(8))
    compare("row", row, exporter, {"Conv": 1, "Mul": 1})


def test_a_norm_in_training_mode() -> None:
    """onnxscript folds it, though it computes with the statistics of its batch."""
    constants = weights(w=(7, 5, 3, 3)) | norm("n", 7)
    node = norm_node("n", "a", "y", training_mode=1)
    node.output.extend(["mean", "var"])
    model = model_of([conv("x", "w", "a"), node], given={"x": IMAGE}, constants=constants)
    result = fuser.optimize(model)
    assert operators(result) == {"BatchNormalization": 1, "Conv": 1}
    x = np.random.default_rng(1).standard_normal(IMAGE).astype(np.float32)
    y = F.conv2d(torch.from_numpy(x), torch.from_numpy(constants["w"]))
    wanted = F.batch_norm(
        y,
        None,
        None,
        torch.from_numpy(constants["n_scale"]),
        torch.from_numpy(constants["n_bias"]),
        training=True,
    )
    assert error(run_feeds(result, {"x": x}), [wanted.numpy()]) <= 1e-5


def test_two_convolutions_that_share_a_weight() -> None:
    """onnxscript gives both fused weights one name, and the file is invalid."""
    constants = weights(w=(5, 5, 3, 3)) | norm("n", 5) | norm("m", 5)
    nodes = [
        conv("x", "w", "a", pads=[1, 1, 1, 1]),
        norm_node("n", "a", "b"),
        make_node("Relu", ["b"], ["c"]),
        conv("c", "w", "d", pads=[1, 1, 1, 1]),
        norm_node("m", "d", "y", epsilon=0.5),
    ]
    model = model_of(nodes, given={"x": IMAGE}, constants=constants)
    result = fuser.optimize(model)
    assert len({tensor.name for tensor in result.graph.initializer}) == len(result.graph.initializer)
    assert operators(result) == {"Conv": 2, "Relu": 1}
    x = np.random.default_rng(1).standard_normal(IMAGE).astype(np.float32)
    assert error(run_feeds(result, {"x": x}), run_feeds(model, {"x": x})) <= 1e-5


@exporters
def test_padding_before_a_pool_that_pads(exporter: str) -> None:
    """onnxoptimizer merges a Pad into the uncounted pads of an AveragePool: 17 % error."""

    def forward(m: Any, x: Tensor) -> Tensor:
        return F.avg_pool2d(F.pad(m.conv(x), [1] * 4), 3, 1, 1, count_include_pad=False)

    pooled = partial(Fixed, forward, conv=conv_norm(5, 7, 3))
    compare("pad_average_pool", pooled, exporter, {"Conv": 1, "Pad": 1, "AveragePool": 1})

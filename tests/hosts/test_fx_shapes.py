"""Extents of graphs that were traced without inputs: what they are called says what they are."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx.passes.shape_prop import ShapeProp

from fuser.hosts.torch.front import trace
from fuser.hosts.torch.graph_module import copied, read_tensors
from fuser.hosts.torch.importer import import_fx
from fuser.ir.extents import Dim
from fuser.ir.node import Node
from tests.hosts.fx_models import Net

EXTENTS = [(2, 6, 9, 8), (3, 6, 12, 7)]


def conv(m: Any, x: Tensor) -> Tensor:
    return m.conv(m.strided(x))


def transposed(m: Any, x: Tensor) -> Tensor:
    return m.conv(m.transposed(m.strided(x)))


def pooled(m: Any, x: Tensor) -> Tensor:
    return F.max_pool2d(F.avg_pool2d(m.conv(x), 3, 1, 1), 2)


def rounded_up(m: Any, x: Tensor) -> Tensor:
    return F.max_pool2d(F.max_pool2d(m.conv(x), 3, 2, ceil_mode=True), 3, 2, 1, ceil_mode=True)


def padded(m: Any, x: Tensor) -> Tensor:
    return F.pad(m.conv(x), (1, 2, 0, 3))


def cropped(m: Any, x: Tensor) -> Tensor:
    return m.conv(x)[:, :, 1:-2, ::2]


def tokens(m: Any, x: Tensor) -> Tensor:
    y = m.conv(x)
    batch, channels, height, width = y.shape
    z = y.view(batch, channels, height * width).transpose(1, 2)
    return z + y.flatten(2).transpose(1, 2)


def filled(m: Any, x: Tensor) -> Tensor:
    y = m.conv(x)
    return y.reshape(y.shape[0], 2, -1, y.shape[2], y.shape[3]).reshape(-1, 3, y.shape[-1])


def resized(m: Any, x: Tensor) -> Tensor:
    y = m.conv(x)
    return F.interpolate(y, size=(y.shape[2] // 2, y.shape[3] + 1))


CASES = [conv, transposed, pooled, rounded_up, padded, cropped, tokens, filled, resized]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_names_are_formulas(case: Callable[..., Tensor]) -> None:
    parts = {
        "conv": nn.Conv2d(6, 6, 3, padding=1),
        "strided": nn.Conv2d(6, 6, 3, stride=2, padding=1),
        "transposed": nn.ConvTranspose2d(6, 6, 3, stride=2, padding=1, output_padding=1),
    }
    module = trace(Net(case, **parts).eval())
    graph = import_fx(copied(module.graph), module, read_tensors(module.graph, module))
    for extents in EXTENTS:
        ShapeProp(module).propagate(torch.randn(extents))
        actual = {node.name: node.meta.get("tensor_meta") for node in module.graph.nodes}
        symbols = {f"x_{axis}": extent for axis, extent in enumerate(extents)}
        for node in (n for n in graph.ordered() if is_image(n)):
            (value,) = node.outputs
            assert value.shape is not None, node.name
            assert tuple(extent(dim, symbols) for dim in value.shape) == actual[value.name].shape


def is_image(node: Node) -> bool:
    return str(node.op) not in {"size", "getitem", "Mul", "floordiv", "Add", "output"} or (
        node.outputs[0].shape not in {None, ()}
    )


def extent(dim: Dim, symbols: dict[str, int]) -> int:
    return int(eval(str(dim), {}, symbols))


def test_an_extent_that_is_not_known_has_a_name_of_its_own() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        return m.conv(x)[:, :, :3] + 1

    module = trace(Net(forward, conv=nn.Conv2d(6, 6, 3)).eval())
    graph = import_fx(copied(module.graph), module, read_tensors(module.graph, module))
    cut, added = (node.outputs[0].shape for node in graph.ordered()[1:3])
    assert cut == added
    assert cut is not None
    assert cut[2] == "getitem.2"

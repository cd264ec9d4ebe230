"""Operators that torch has none for are not lowered; the reason holds both values."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import fx

from fuser.algebra.conv import Conv
from fuser.errors import Declined
from fuser.hosts.torch.emit import AtenEmit, ModuleEmit
from fuser.hosts.torch.exporter import Block
from fuser.hosts.torch.host import FxHost, lower
from fuser.ir.node import Value
from fuser.ir.ops import Op, Opaque, Permute, Sum


def kernel(*shape: int, **attributes: Any) -> Conv:
    return Conv.of(np.arange(1.0, 1 + np.prod(shape)).reshape(shape), **attributes)


REFUSALS: dict[str, tuple[Op, int, str]] = {
    "Relu is not affine": (Opaque("Relu"), 4, "float32"),
    "the element type of 'y' is int64, not a floating one": (kernel(2, 2, 1), 3, "int64"),
    "the element type of 'y' is int64, not a floating one, for": (Sum((0.5,)), 3, "int64"),
    "channels on axis 1 of a tensor with 3 axes": (kernel(2, 2), 3, "float32"),
    "torch has convolutions of at most 3 spatial axes, not 4": (kernel(2, 2, 1, 1, 1, 3), 6, "float32"),
    "the tensor has 3 axes, the kernel is for 4": (kernel(2, 1, 1, 1, groups=2), 3, "float32"),
    "the pad value differs between channels: 0 and 1": (
        kernel(2, 2, 3, begin=(1,), end=(1,), pad_value=np.array([0.0, 1.0])), 3, "float32",
    ),
    "negative pads at the begin: (-1,)": (
        kernel(2, 2, 3, begin=(-1,), end=(-1,), transposed=True), 3, "float32",
    ),
    "output_padding (-1,) is negative, or not less than stride or dilation (2,)": (
        kernel(2, 2, 3, begin=(0,), end=(1,), stride=(2,), transposed=True), 3, "float32",
    ),
    "output_padding (2,) is negative, or not less than stride or dilation (2,)": (
        kernel(2, 2, 3, begin=(1,), end=(-1,), stride=(2,), transposed=True), 3, "float32",
    ),
}  # fmt: skip


@pytest.mark.parametrize("reason", REFUSALS)
def test_refusals(reason: str) -> None:
    op, rank, dtype = REFUSALS[reason]
    host = FxHost(fx.Graph())
    output = Value("y", (None,) * rank, dtype)
    with pytest.raises(Declined) as declined:
        host.require_lowerable(op, output)
    assert reason in str(declined.value)
    assert host.kernels(op, output) == 1


@pytest.mark.parametrize("axes", [(0, 2, 3, 1), (3, 0, 1, 2)])
@pytest.mark.parametrize("form", [ModuleEmit, AtenEmit])
def test_axes_are_put_in_another_order(form: Any, axes: tuple[int, ...]) -> None:
    graph = fx.Graph()
    x = graph.placeholder("x")
    block = Block("", None, trainable=False, channels_last=False, dtype=torch.float32, example=x)
    options = {"training": True} if form is AtenEmit else {}
    output = Value("y", (None,) * 4, "float32")
    graph.output(lower(Permute(axes), output, [x], form(graph, block, None, **options)))
    data = torch.arange(24.0).reshape(1, 2, 3, 4)
    expected = Permute(axes).evaluate(data.numpy())
    np.testing.assert_array_equal(fx.GraphModule(torch.nn.Module(), graph)(data).numpy(), expected)
    assert FxHost(fx.Graph()).kernels(Permute(axes), output) == 1

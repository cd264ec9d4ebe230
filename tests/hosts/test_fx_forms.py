"""Every kind of graph: aten before and after decomposition, modules, functions, methods."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.hosts.fx_models import FORMS, Net, call, captured, error, generic, optimize, repvgg

Case = tuple[Callable[[], nn.Module], tuple[int, ...], dict[str, int]]
IMAGE = (2, 6, 9, 8)


def conv(inputs: int = 6, outputs: int = 6, size: int = 3, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, **{"padding": size // 2, **options})


def functional() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        y = F.conv2d(x, m.weight, m.bias, padding=1)
        return F.batch_norm(
            y, m.norm.running_mean, m.norm.running_var, m.norm.weight, m.norm.bias, False, 0.1, 1e-3
        )

    weight, bias = nn.Parameter(torch.randn(6, 6, 3, 3)), nn.Parameter(torch.randn(6))
    return Net(forward, weight=weight, bias=bias, norm=nn.BatchNorm2d(6))


def computed() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        weight = m.weight * m.gain.view(-1, 1, 1, 1) + m.other.sum(1, keepdim=True)
        return m.norm(F.conv2d(x, weight, padding=1))

    shape = (6, 6, 3, 3)
    parts = {"weight": torch.randn(shape), "gain": torch.randn(6), "other": torch.randn(shape)}
    return Net(
        forward, norm=nn.BatchNorm2d(6), **{name: nn.Parameter(value) for name, value in parts.items()}
    )


def scales() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        return (2.0 - m.conv(x)) / m.gain.view(1, -1, 1, 1) + m.shift[None, :, None, None] - 1

    return Net(
        forward, conv=conv(size=1), gain=nn.Parameter(torch.rand(6) + 0.5), shift=nn.Parameter(torch.randn(6))
    )


def with_alpha() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        return torch.add(m.a(x), m.b(x), alpha=0.3).sub(m.c(x), alpha=2)

    return Net(forward, a=conv(), b=conv(size=1), c=conv(size=5))


def repmixer() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        return x + m.gamma * (m.norm3(m.conv3(x)) + m.norm1(m.conv1(x)) + m.skip(x) - m.norm(x))

    norms = {name: nn.BatchNorm2d(6) for name in ("norm3", "norm1", "skip", "norm")}
    gamma = nn.Parameter(torch.randn(6, 1, 1))
    return Net(forward, conv3=conv(groups=6), conv1=conv(size=1, groups=6), gamma=gamma, **norms)


def lora() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        return m.base(x) + 0.5 * (x @ m.down) @ m.up

    base, down, up = nn.Linear(10, 20), torch.randn(10, 2), torch.randn(2, 20)
    return Net(forward, base=base, down=nn.Parameter(down), up=nn.Parameter(up))


def levit() -> nn.Module:
    """A BatchNorm of the last axis, as LeViT has it."""

    def forward(m: Any, x: Tensor) -> Tensor:
        y = m.linear(x)
        return m.norm(y.flatten(0, 1)).reshape_as(y)

    return Net(forward, linear=nn.Linear(10, 6, bias=False), norm=nn.BatchNorm1d(6))


def tied() -> nn.Module:
    first, second = conv(), conv()
    second.weight = first.weight
    return nn.Sequential(first, nn.BatchNorm2d(6), nn.ReLU(), second, nn.BatchNorm2d(6))


CASES: dict[str, Case] = {
    "repvgg": (repvgg, IMAGE, {"Conv": 1}),
    "repvgg_grouped": (lambda: repvgg(6, 3), IMAGE, {"Conv": 1}),
    "repmixer": (repmixer, IMAGE, {"Conv": 1}),
    "functional": (functional, IMAGE, {"Conv": 1}),
    "computed_weight": (computed, IMAGE, {"Conv": 1}),
    "scales": (scales, IMAGE, {"Conv": 1}),
    "alpha": (with_alpha, IMAGE, {"Conv": 1}),
    "tied": (tied, IMAGE, {"Conv": 2}),
    "conv1d": (lambda: nn.Sequential(nn.Conv1d(4, 6, 3), nn.BatchNorm1d(6)), (2, 4, 9), {"Conv": 1}),
    "conv3d": (lambda: nn.Sequential(nn.Conv3d(4, 6, 2), nn.BatchNorm3d(6)), (1, 4, 5, 4, 3), {"Conv": 1}),
    "same": (lambda: nn.Sequential(conv(size=4, padding="same"), nn.BatchNorm2d(6)), IMAGE, {"Conv": 1}),
    "transposed": (
        lambda: nn.Sequential(nn.ConvTranspose2d(6, 6, 3, 2, 1, output_padding=1), nn.BatchNorm2d(6)),
        IMAGE,
        {"ConvTranspose": 1},
    ),
    "transposed_grouped": (
        lambda: nn.Sequential(nn.ConvTranspose2d(6, 9, 3, 2, 1, groups=3), nn.BatchNorm2d(9)),
        IMAGE,
        {"ConvTranspose": 1},
    ),
    "transposed_depthwise": (
        lambda: nn.Sequential(nn.ConvTranspose2d(6, 6, 3, groups=6, bias=False), nn.BatchNorm2d(6)),
        IMAGE,
        {"ConvTranspose": 1},
    ),
    "dropout": (lambda: nn.Sequential(conv(), nn.Dropout(0.5), nn.BatchNorm2d(6)), IMAGE, {"Conv": 1}),
    "no_affine": (lambda: nn.Sequential(conv(), nn.BatchNorm2d(6, affine=False)), IMAGE, {"Conv": 1}),
    "weight_norm": (
        lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(conv()), nn.BatchNorm2d(6)),
        IMAGE,
        {"Conv": 1},
    ),
    "spectral_norm": (
        lambda: nn.Sequential(nn.utils.parametrizations.spectral_norm(conv()), nn.BatchNorm2d(6)),
        IMAGE,
        {"Conv": 1},
    ),
    "channels_last": (
        lambda: nn.Sequential(conv(), nn.BatchNorm2d(6)).to(memory_format=torch.channels_last),
        IMAGE,
        {"Conv": 1},
    ),
    "lora": (lora, (4, 7, 10), {"Linear": 1}),
    "levit": (levit, (4, 7, 10), {"Linear": 1}),
    "linear": (lambda: nn.Sequential(nn.Linear(10, 6), nn.BatchNorm1d(6)), (4, 10), {"Linear": 1}),
}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", CASES)
def test_collapses_and_computes_the_same(name: str, form: str) -> None:
    build, shape, layers = CASES[name]
    module = generic(build())
    x = torch.randn(shape)
    outcome = optimize(captured(module, x, form), x)
    assert outcome.layers == layers
    assert error(call(outcome.call, x), call(module, x)) < 1e-6
    assert optimize(outcome.result, x).applied == []


@pytest.mark.parametrize("form", FORMS)
def test_dynamic_shapes_stay_dynamic(form: str) -> None:
    module = generic(repvgg())
    free = torch.export.Dim.DYNAMIC
    shapes = None if form == "symbolic" else ({0: free, 2: free, 3: free},)
    outcome = optimize(captured(module, torch.randn(IMAGE), form, shapes))
    assert outcome.layers == {"Conv": 1}
    for shape in (IMAGE, (3, 6, 5, 12)):
        x = torch.randn(shape)
        assert error(call(outcome.call, x), call(module, x)) < 1e-6


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("form", FORMS)
def test_dtype_stays(form: str, dtype: torch.dtype) -> None:
    module = generic(repvgg()).to(dtype)
    x = torch.randn(IMAGE, dtype=dtype)
    outcome = optimize(captured(module, x, form))
    assert outcome.layers == {"Conv": 1}
    found = call(outcome.call, x)
    assert found.dtype == dtype
    assert error(found.float(), call(module, x).float()) < 8 * torch.finfo(dtype).eps


@pytest.mark.parametrize("form", ["symbolic", "export"])
def test_channels_last_kernels_stay_so(form: str) -> None:
    module = generic(nn.Sequential(conv(), nn.BatchNorm2d(6))).to(memory_format=torch.channels_last)
    outcome = optimize(captured(module, torch.randn(IMAGE), form))
    (weight,) = (tensor for tensor in outcome.call.parameters() if tensor.ndim == 4)
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.is_contiguous()

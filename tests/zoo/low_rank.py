"""Factors: legal to multiply out, worth it where the ranks are high or a branch absorbs the result."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo.harness import Case
from tests.zoo.layers import Total, conv_norm


def svd(inputs: int, rank: int, outputs: int) -> nn.Module:
    """A linear layer as two, the truncated singular value decomposition of its matrix."""
    return nn.Sequential(nn.Linear(inputs, rank, bias=False), nn.Linear(rank, outputs))


def tucker(inputs: int, first: int, second: int, outputs: int, stride: int = 1) -> nn.Module:
    """C1, C3 with stride and pads, C1 + b (arXiv 1511.06530)."""
    return nn.Sequential(
        nn.Conv2d(inputs, first, 1, bias=False),
        nn.Conv2d(first, second, 3, stride, 1, bias=False),
        nn.Conv2d(second, outputs, 1),
    )


def cp(inputs: int, rank: int, outputs: int, stride: int = 1) -> nn.Module:
    """C1, dw 3x1, dw 1x3, C1 + b (arXiv 1412.6553)."""
    return nn.Sequential(
        nn.Conv2d(inputs, rank, 1, bias=False),
        nn.Conv2d(rank, rank, (3, 1), (stride, 1), (1, 0), groups=rank, bias=False),
        nn.Conv2d(rank, rank, (1, 3), (1, stride), (0, 1), groups=rank, bias=False),
        nn.Conv2d(rank, outputs, 1),
    )


class TensorCP(nn.Module):
    """The same as a tensor library writes it: 1x1 as Conv1d on the flat image, weights as a Mul."""

    def __init__(self, inputs: int, rank: int, outputs: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.ones(rank))
        self.into = nn.Parameter(torch.randn(rank, inputs) / inputs**0.5)
        self.rows = nn.Parameter(torch.randn(rank, 3))
        self.columns = nn.Parameter(torch.randn(rank, 3))
        self.out = nn.Parameter(torch.randn(outputs, rank) / rank**0.5)
        self.bias = nn.Parameter(torch.randn(outputs))

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        rank, outputs = self.weights.shape[0], self.out.shape[0]
        y = F.conv1d(x.reshape(batch, channels, -1), self.into.unsqueeze(2))
        y = y.reshape(batch, rank, height, width)
        y = F.conv2d(y, self.rows.view(rank, 1, 3, 1), padding=(1, 0), groups=rank)
        y = F.conv2d(y, self.columns.view(rank, 1, 1, 3), padding=(0, 1), groups=rank)
        y = y.reshape(batch, rank, -1) * self.weights.view(1, -1, 1)
        y = F.conv1d(y, self.out.unsqueeze(2), self.bias)
        return y.reshape(batch, outputs, height, width)


class LoRA(nn.Module):
    """x W + b + s (x A) B: an adapter of low rank beside the layer (arXiv 2106.09685)."""

    def __init__(self, inputs: int, rank: int, outputs: int) -> None:
        super().__init__()
        self.base = nn.Linear(inputs, outputs)
        self.down = nn.Linear(inputs, rank, bias=False)
        self.up = nn.Linear(rank, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + 0.5 * self.up(self.down(x))


class DoRA(nn.Module):
    """x (m * (W + s B A) / |W + s B A|): the same in weight space, with a norm (arXiv 2402.09353)."""

    def __init__(self, inputs: int, rank: int, outputs: int) -> None:
        super().__init__()
        self.base = nn.Linear(inputs, outputs)
        self.a = nn.Parameter(torch.randn(rank, inputs))
        self.b = nn.Parameter(torch.randn(outputs, rank))
        self.magnitude = nn.Parameter(torch.ones(outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.base.weight + 0.5 * self.b @ self.a
        weight = self.magnitude * weight / weight.norm(dim=1, keepdim=True)
        return F.linear(x, weight, self.base.bias)


def lora_conv(channels: int, rank: int) -> nn.Module:
    """C3 x + C1(C3 x) through a small rank."""
    adapter = nn.Sequential(
        nn.Conv2d(channels, rank, 3, padding=1, bias=False), nn.Conv2d(rank, channels, 1, bias=False)
    )
    return Total(nn.Conv2d(channels, channels, 3, padding=1), adapter)


def separable(channels: int, outputs: int) -> nn.Module:
    """BN(dw3), BN(C1) without an activation between."""
    return nn.Sequential(conv_norm(channels, channels, 3, groups=channels), conv_norm(channels, outputs, 1))


LINEAR = {"MatMul": 1, "Add": 1}

CASES = (
    Case("svd", lambda: svd(512, 64, 384), (1, 196, 512), {"MatMul": 2, "Add": 1}, reason="no gain"),
    Case("svd_high_rank", lambda: svd(29, 25, 31), (2, 9, 29), LINEAR),
    Case("tucker", lambda: tucker(64, 17, 19, 64), (1, 64, 28, 28), {"Conv": 3}, reason="no gain"),
    Case("tucker_high_rank", lambda: tucker(7, 13, 14, 9), (2, 7, 9, 8), {"Conv": 1}),
    Case("tucker_stride", lambda: tucker(7, 13, 14, 9, stride=2), (2, 7, 9, 8), {"Conv": 1}),
    Case(
        "tucker_absorbed",
        lambda: Total(conv_norm(64, 64, 3), tucker(64, 17, 19, 64)),
        (1, 64, 28, 28),
        {"Conv": 1},
    ),
    Case("cp", lambda: cp(64, 31, 64), (1, 64, 28, 28), {"Conv": 3}, reason="no gain"),
    Case("cp_stride", lambda: cp(64, 31, 64, stride=2), (1, 64, 28, 28), {"Conv": 3}, reason="no gain"),
    Case("cp_tensor", lambda: TensorCP(64, 31, 64), (1, 64, 28, 28), {"Conv": 3}, reason="no gain"),
    Case("cp_tensor_high_rank", lambda: TensorCP(7, 13, 9), (2, 7, 9, 8), {"Conv": 1}),
    Case("lora", lambda: LoRA(29, 4, 31), (2, 9, 29), LINEAR),
    Case("lora_rows", lambda: LoRA(29, 4, 31), (9, 29), {"Gemm": 1}),
    Case("lora_conv", lambda: lora_conv(7, 3), (2, 7, 9, 8), {"Conv": 1}),
    Case("dora", lambda: DoRA(29, 4, 31), (2, 9, 29), LINEAR),
    Case("separable", lambda: separable(64, 96), (1, 64, 28, 28), {"Conv": 2}, reason="no gain"),
)

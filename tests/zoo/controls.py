"""Blocks in which little or nothing is to be gained: what is left alone is as much a result."""

import torch
from torch import Tensor, nn

from tests.zoo.harness import Case
from tests.zoo.layers import SqueezeExcite, Total, conv_norm


def resnet(channels: int) -> nn.Module:
    body = nn.Sequential(conv_norm(channels, channels, 3), nn.ReLU(), conv_norm(channels, channels, 3))
    return nn.Sequential(Total(body, nn.Identity()), nn.ReLU())


def efficientnet(channels: int) -> nn.Module:
    hidden = 3 * channels
    body = nn.Sequential(
        conv_norm(channels, hidden, 1),
        nn.ReLU(),
        conv_norm(hidden, hidden, 3, groups=hidden),
        nn.ReLU(),
        SqueezeExcite(hidden, 4),
        conv_norm(hidden, channels, 1),
    )
    return Total(body, nn.Identity())


class ConvNeXt(nn.Module):
    """x + gamma * L(gelu(L(LN(dw7 x)))), channels last in between: gamma folds into the last L."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.expand = nn.Linear(channels, 4 * channels)
        self.project = nn.Linear(4 * channels, channels)
        self.gamma = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.gamma * self.project(self.expand(y).relu())
        return x + y.permute(0, 3, 1, 2)


class InceptionNeXt(nn.Module):
    """Split, dw3, dw 1x11, dw 11x1 beside an untouched part, Concat: one 11 x 11 is legal, and slower."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        part = channels // 8
        self.sizes = [channels - 3 * part, part, part, part]
        self.square = nn.Conv2d(part, part, 3, padding=1, groups=part)
        self.flat = nn.Conv2d(part, part, (1, 11), padding=(0, 5), groups=part)
        self.upright = nn.Conv2d(part, part, (11, 1), padding=(5, 0), groups=part)

    def forward(self, x: Tensor) -> Tensor:
        same, square, flat, upright = x.split(self.sizes, dim=1)
        return torch.cat([same, self.square(square), self.flat(flat), self.upright(upright)], dim=1)


class StarNet(nn.Module):
    """x + dw7(BN(C1(relu6(C1 y) * C1 y))), y = BN(dw7 x): a 1x1 with a bias, then a padded dw7."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = 3 * channels
        self.first = conv_norm(channels, channels, 7, groups=channels)
        self.left = nn.Conv2d(channels, hidden, 1)
        self.right = nn.Conv2d(channels, hidden, 1)
        self.mix = conv_norm(hidden, channels, 1)
        self.second = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        star = nn.functional.relu6(self.left(y)) * self.right(y)
        return x + self.second(self.mix(star))


CASES = (
    Case("resnet", lambda: resnet(7), (2, 7, 9, 8), {"Conv": 2, "Relu": 2, "Add": 1}, dynamic=True),
    Case(
        "efficientnet",
        lambda: efficientnet(7),
        (2, 7, 9, 8),
        {"Conv": 5, "Relu": 3, "ReduceMean": 1, "Sigmoid": 1, "Mul": 1, "Add": 1},
    ),
    Case(
        "convnext",
        lambda: ConvNeXt(7),
        (2, 7, 9, 8),
        {"Conv": 1, "Transpose": 2, "LayerNormalization": 1, "MatMul": 2, "Add": 3, "Relu": 1},
    ),
    Case(
        "inception_next",
        lambda: InceptionNeXt(48),
        (1, 48, 56, 56),
        {"Split": 1, "Conv": 3, "Concat": 1},
        reason="no gain",
    ),
    Case("starnet", lambda: StarNet(16), (1, 16, 28, 28), {"Conv": 5, "Clip": 1, "Mul": 1, "Add": 1}),
)

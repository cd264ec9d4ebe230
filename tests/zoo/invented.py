"""Blocks that nobody published: trees of the same operations, drawn at random. No rule can know them."""

import random

import torch
from torch import Tensor, nn

from tests.zoo.harness import EXPORTERS, Case
from tests.zoo.layers import Scaled, Total, conv_norm

SIZES = (1, 3, 5, (1, 3), (5, 1))


class Difference(nn.Module):
    """left(x) - c * right(x), c a weight of each channel."""

    def __init__(self, left: nn.Module, right: nn.Module, channels: int) -> None:
        super().__init__()
        self.left = left
        self.right = right
        self.scale = nn.Parameter(torch.ones(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.left(x) - self.scale * self.right(x)


def leaf(draw: random.Random, channels: int, stride: int) -> nn.Module:
    """One operation, or a chain whose borders are exact."""
    groups = draw.choice([1, 2, channels])
    plain = conv_norm(channels, channels, draw.choice(SIZES), stride=stride, groups=groups)
    mix = nn.Conv2d(
        channels, 9, 1, bias=False
    )  # without a bias, so that padding behind it is padding before it
    after = nn.Conv2d(9, channels, 3, stride, 1, bias=draw.random() < 0.5)
    wide = nn.Conv2d(channels, 9, 1, padding=1)  # with all the pads, so that a bias does no harm
    return draw.choice(
        [
            plain,
            conv_norm(channels, channels, 3, stride=stride, dilation=2),
            nn.Sequential(nn.AvgPool2d(3, stride, 1), nn.BatchNorm2d(channels)),
            nn.Sequential(mix, after),
            nn.Sequential(wide, nn.Conv2d(9, channels, 3, stride)),
            nn.Sequential(conv_norm(channels, 9, 3, stride=stride), nn.Conv2d(9, channels, 1)),
            nn.BatchNorm2d(channels) if stride == 1 else plain,
            nn.Identity() if stride == 1 else plain,
        ]
    )


def tree(draw: random.Random, channels: int, stride: int, depth: int) -> nn.Module:
    """Sums, differences, scalars and norms over one another, leaves at the bottom."""
    if not depth:
        return leaf(draw, channels, stride)
    parts = [tree(draw, channels, stride, depth - 1) for _ in range(draw.randint(2, 3))]
    total = draw.choice([Total(*parts), Difference(parts[0], parts[1], channels)])
    return draw.choice(
        [
            total,
            Scaled(total),
            nn.Sequential(total, nn.BatchNorm2d(channels)),
            nn.Sequential(total, nn.Conv2d(channels, channels, 1)),
            Total(total, conv_norm(channels, channels, 3, stride=stride)),
        ]
    )


def invent(seed: int) -> nn.Module:
    draw = random.Random(seed)
    block = tree(draw, 6, 1 + seed % 2, 2)
    # A sum of nothing but norms and identities would be no convolution.
    return Total(block, conv_norm(6, 6, 3, stride=1 + seed % 2))


def _case(seed: int) -> Case:
    # Two of the slow exports are enough: what differs from block to block is not the exporter.
    exporters = EXPORTERS if seed < 2 else EXPORTERS[:2]
    dynamic = seed % 3 == 0
    return Case(
        f"invented_{seed}",
        lambda: invent(seed),
        (2, 6, 13, 12),
        {"Conv": 1},
        dynamic=dynamic,
        exporters=exporters,
    )


CASES = tuple(_case(seed) for seed in range(8))

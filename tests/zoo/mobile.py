"""Small networks for phones: depthwise mixers, ghosts, and the blocks of PP-LCNet."""

import torch
from torch import Tensor, nn

from tests.zoo.harness import Case
from tests.zoo.layers import Total, conv_norm
from tests.zoo.repvgg import activated


class RepMixer(nn.Module):
    """x + gamma * (BN(dw3 x) + BN(dw1 x) + BN(x) - BN'(x)) (FastViT, arXiv 2303.14189)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        three = conv_norm(channels, channels, 3, groups=channels)
        self.mixer = Total(three, conv_norm(channels, channels, 1, groups=channels), nn.BatchNorm2d(channels))
        self.norm = nn.BatchNorm2d(channels)
        self.gamma = nn.Parameter(torch.ones(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.gamma * (self.mixer(x) - self.norm(x))


def rep_cpe(channels: int) -> nn.Module:
    """dw7 x + b + x: FastViT's positional encoding."""
    return Total(nn.Conv2d(channels, channels, 7, padding=3, groups=channels), nn.Identity())


def patch_embed(channels: int) -> nn.Module:
    """BN(C7 s2 x) + BN(C3 s2 x), one group for each input channel, twice as many channels out."""
    seven = conv_norm(channels, 2 * channels, 7, stride=2, groups=channels)
    return Total(seven, conv_norm(channels, 2 * channels, 3, stride=2, groups=channels))


def repvit(channels: int, *, outer: bool = True) -> nn.Module:
    """BN( BN(dw3 x) + (dw1 x + b) + x ) (arXiv 2307.09283)."""
    one = nn.Conv2d(channels, channels, 1, groups=channels)
    mixer = Total(conv_norm(channels, channels, 3, groups=channels), one, nn.Identity())
    return nn.Sequential(mixer, nn.BatchNorm2d(channels)) if outer else mixer


def repvit_block(channels: int) -> nn.Module:
    """The mixer, then x + BN(C1(relu(BN(C1 x))))."""
    hidden = 2 * channels
    expand = nn.Sequential(conv_norm(channels, hidden, 1), nn.ReLU(), conv_norm(hidden, channels, 1))
    return nn.Sequential(repvit(channels), Total(nn.Identity(), expand))


def repghost(inputs: int, channels: int, *, identity: bool) -> nn.Module:
    """u = relu(BN(C1 x)); relu(BN(dw3 u) + BN(u) [+ u]) (arXiv 2211.06088)."""
    also = [nn.Identity()] if identity else []
    ghost = Total(conv_norm(channels, channels, 3, groups=channels), nn.BatchNorm2d(channels), *also)
    return nn.Sequential(conv_norm(inputs, channels, 1), nn.ReLU(), ghost, nn.ReLU())


class GhostV3(nn.Module):
    """a = relu(3 x BN(C1 x)); b = relu(3 x BN(dw3 a) + BN(dw1 a) + BN(a)); Concat (arXiv 2404.11202)."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.primary = Total(*(conv_norm(inputs, channels, 1) for _ in range(3)))
        self.cheap = Total(
            *(conv_norm(channels, channels, 3, groups=channels) for _ in range(3)),
            conv_norm(channels, channels, 1, groups=channels),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        a = self.primary(x).relu()
        return torch.cat([a, self.cheap(a).relu()], dim=1)


class Affine(nn.Module):
    """s * x + t, both learned scalars."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.shift = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x + self.shift


def lcnet_v3(channels: int) -> nn.Module:
    """A sum of branches, s * . + t, hard-swish, s' * . + t', a padded depthwise (PP-OCRv4)."""
    branches = (
        nn.BatchNorm2d(channels),
        conv_norm(channels, channels, 1, groups=channels),
        *(conv_norm(channels, channels, 3, groups=channels) for _ in range(4)),
    )
    following = conv_norm(channels, channels, 3, groups=channels)
    return nn.Sequential(Total(*branches), Affine(), nn.Hardswish(), Affine(), following)


def lcnet_v2(channels: int, stride: int) -> nn.Module:
    """BN(dw5 x) + BN(dw3 x) [+ BN(dw1 x)]."""
    sizes = (5, 3, 1) if stride == 1 else (5, 3)
    return Total(*(conv_norm(channels, channels, size, stride=stride, groups=channels) for size in sizes))


def vanilla(slope: float) -> nn.Module:
    """C1, BN, LeakyReLU(slope), C1, BN: linear at the end of training only (VanillaNet, arXiv 2305.12972)."""
    first = conv_norm(5, 9, 1, bias=True)
    return nn.Sequential(first, nn.LeakyReLU(slope), conv_norm(9, 7, 1, bias=True))


class RIFormer(nn.Module):
    """(dw1 n + b) - n after a GroupNorm n: folds into the norm's scale and shift (arXiv 2304.05659)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, channels)
        self.affine = nn.Conv2d(channels, channels, 1, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(x)
        return self.affine(normed) - normed


GROUP_NORM = {"Reshape": 2, "InstanceNormalization": 1, "Mul": 1, "Add": 1}

CASES = (
    Case("fastvit_mixer", lambda: RepMixer(7), (2, 7, 9, 8), {"Conv": 1}, dynamic=True),
    Case("fastvit_cpe", lambda: rep_cpe(5), (2, 5, 9, 8), {"Conv": 1}),
    Case("fastvit_embed", lambda: patch_embed(5), (2, 5, 9, 8), {"Conv": 1}),
    Case("repvit", lambda: activated(repvit(7)), (2, 7, 9, 8), {"Conv": 1, "Relu": 1}),
    Case("repvit_plain", lambda: repvit(7, outer=False), (2, 7, 9, 8), {"Conv": 1}),
    Case("repvit_block", lambda: repvit_block(7), (2, 7, 9, 8), {"Conv": 3, "Relu": 1, "Add": 1}),
    Case("repghost", lambda: repghost(5, 7, identity=False), (2, 5, 9, 8), {"Conv": 2, "Relu": 2}),
    Case("repghost_identity", lambda: repghost(5, 7, identity=True), (2, 5, 9, 8), {"Conv": 2, "Relu": 2}),
    Case(
        "ghostnet_v3", lambda: GhostV3(5, 7), (2, 5, 9, 8), {"Conv": 2, "Relu": 2, "Concat": 1}, dynamic=True
    ),
    Case("lcnet_v3", lambda: lcnet_v3(7), (2, 7, 9, 8), {"Conv": 2, "HardSwish": 1, "Add": 1}),
    Case("lcnet_v2", lambda: lcnet_v2(7, 1), (2, 7, 9, 8), {"Conv": 1}),
    Case("lcnet_v2_stride", lambda: lcnet_v2(7, 2), (2, 7, 9, 8), {"Conv": 1}),
    Case("vanilla", lambda: vanilla(1.0), (2, 5, 9, 8), {"Conv": 1}),
    Case("vanilla_halfway", lambda: vanilla(0.9), (2, 5, 9, 8), {"Conv": 2, "LeakyRelu": 1}),
    Case("riformer", lambda: RIFormer(6), (2, 6, 9, 8), GROUP_NORM),
)

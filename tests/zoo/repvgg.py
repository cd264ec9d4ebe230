"""RepVGG and its children: a sum of parallel convolutions and the identity, each with a norm."""

import torch
from torch import Tensor, nn

from tests.zoo.harness import Case
from tests.zoo.layers import Scaled, SqueezeExcite, Total, conv_norm


def repvgg(inputs: int, outputs: int, *, stride: int = 1, groups: int = 1) -> nn.Module:
    """BN(C3 x) + BN(C1 x) + BN(x), the last only where the shape stays (arXiv 2101.03697)."""
    same = [nn.BatchNorm2d(inputs)] if inputs == outputs and stride == 1 else []
    three = conv_norm(inputs, outputs, 3, stride=stride, groups=groups)
    one = conv_norm(inputs, outputs, 1, stride=stride, groups=groups)
    return Total(three, one, *same)


def repvgg_net() -> nn.Module:
    return nn.Sequential(
        repvgg(3, 8, stride=2),
        nn.ReLU(),
        repvgg(8, 8, groups=4),
        nn.ReLU(),
        repvgg(8, 9, stride=2),
        nn.ReLU(),
    )


def qarepvgg(inputs: int, outputs: int, *, stride: int = 1) -> nn.Module:
    """BN( BN(C3 x) + C1 x + x ): a norm over a sum of norms (arXiv 2212.01593)."""
    same = [nn.Identity()] if inputs == outputs and stride == 1 else []
    one = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
    return nn.Sequential(
        Total(conv_norm(inputs, outputs, 3, stride=stride), one, *same), nn.BatchNorm2d(outputs)
    )


def qarepvgg_nas(channels: int) -> nn.Module:
    """The same in YOLO-NAS: the 1x1 has a bias and a learned scalar."""
    one = Scaled(nn.Conv2d(channels, channels, 1))
    return nn.Sequential(
        Total(conv_norm(channels, channels, 3), one, nn.Identity()), nn.BatchNorm2d(channels)
    )


def qarepvgg_pooled(channels: int) -> nn.Module:
    """The same in YOLOv6 V2: with an average pool beside."""
    branches = (
        conv_norm(channels, channels, 3),
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.Identity(),
        nn.AvgPool2d(3, 1, 1),
    )
    return nn.Sequential(Total(*branches), nn.BatchNorm2d(channels))


def mobileone(
    inputs: int, outputs: int, size: int, *, stride: int = 1, groups: int = 1, copies: int = 4
) -> nn.Module:
    """copies x BN(Ck x), + BN(C1 x) if k > 1, + BN(x) where the shape stays (arXiv 2206.04040)."""
    branches: list[nn.Module] = [
        conv_norm(inputs, outputs, size, stride=stride, groups=groups) for _ in range(copies)
    ]
    if size > 1:
        branches.append(conv_norm(inputs, outputs, 1, stride=stride, groups=groups))
    if inputs == outputs and stride == 1:
        branches.append(nn.BatchNorm2d(inputs))
    return Total(*branches)


def mobileone_pair(channels: int, outputs: int, stride: int) -> nn.Module:
    return nn.Sequential(
        mobileone(channels, channels, 3, stride=stride, groups=channels),
        nn.ReLU(),
        mobileone(channels, outputs, 1),
        nn.ReLU(),
    )


def gated(block: nn.Module, channels: int) -> nn.Module:
    return nn.Sequential(block, SqueezeExcite(channels, 3), nn.ReLU())


def activated(block: nn.Module) -> nn.Module:
    return nn.Sequential(block, nn.ReLU())


class LearnedIdentity(nn.Module):
    """BN( BN(C3 x) + BN(x) + gamma * x ), gamma a learned weight of each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv_norm(channels, channels, 3)
        self.skip = nn.BatchNorm2d(channels)
        self.gamma = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.outer = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.outer(self.conv(x) + self.skip(x) + self.gamma * x)
        return out


ONE = {"Conv": 1, "Relu": 1}
GATED = {"Conv": 3, "ReduceMean": 1, "Relu": 2, "Sigmoid": 1, "Mul": 1}

CASES = (
    Case("repvgg", lambda: activated(repvgg(7, 7)), (2, 7, 9, 8), ONE),
    Case("repvgg_stride", lambda: activated(repvgg(5, 7, stride=2)), (2, 5, 9, 8), ONE),
    Case("repvgg_grouped", lambda: activated(repvgg(12, 12, groups=4)), (2, 12, 7, 8), ONE),
    Case("repvgg_grouped_stride", lambda: activated(repvgg(8, 12, stride=2, groups=4)), (2, 8, 9, 8), ONE),
    Case("repvgg_gated", lambda: gated(repvgg(7, 7), 7), (2, 7, 9, 8), GATED),
    Case("repvgg_net", repvgg_net, (1, 3, 17, 14), {"Conv": 3, "Relu": 3}, dynamic=True),
    Case("repvgg_learned_identity", lambda: LearnedIdentity(5), (2, 5, 7, 8), {"Conv": 1}),
    Case("qarepvgg", lambda: activated(qarepvgg(7, 7)), (2, 7, 9, 8), ONE, dynamic=True),
    Case("qarepvgg_stride", lambda: activated(qarepvgg(5, 7, stride=2)), (2, 5, 9, 8), ONE),
    Case("qarepvgg_nas", lambda: activated(qarepvgg_nas(7)), (2, 7, 9, 8), ONE),
    Case("qarepvgg_pooled", lambda: activated(qarepvgg_pooled(7)), (2, 7, 9, 8), ONE),
    Case("mobileone", lambda: activated(mobileone(7, 7, 3, groups=7)), (2, 7, 9, 8), ONE),
    Case("mobileone_stem", lambda: activated(mobileone(3, 7, 3, stride=2)), (2, 3, 9, 8), ONE),
    Case("mobileone_pointwise", lambda: activated(mobileone(7, 7, 1)), (2, 7, 9, 8), ONE),
    Case(
        "mobileone_pair", lambda: mobileone_pair(7, 9, 2), (2, 7, 9, 8), {"Conv": 2, "Relu": 2}, dynamic=True
    ),
    Case("mobileone_gated", lambda: gated(mobileone(7, 7, 3, groups=7), 7), (2, 7, 9, 8), GATED),
)

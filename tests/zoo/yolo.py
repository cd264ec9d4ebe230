"""Detectors: the blocks of YOLO and of its relatives."""

import torch
from torch import Tensor, nn

from tests.zoo.harness import Case
from tests.zoo.layers import Scaled, Total, conv_norm
from tests.zoo.repvgg import ONE, activated, repvgg


def with_silu(block: nn.Module) -> nn.Module:
    return nn.Sequential(block, nn.SiLU())


def repvgg_dw(channels: int) -> nn.Module:
    """BN(dw7 x) + BN(dw3 x), no identity (YOLOv10)."""
    seven = conv_norm(channels, channels, 7, groups=channels)
    return Total(seven, conv_norm(channels, channels, 3, groups=channels))


class BottleRep(nn.Module):
    """relu(repvgg(relu(repvgg x))) + alpha * x: the skip joins last (YOLOv6, arXiv 2209.02976)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            activated(repvgg(channels, channels)), activated(repvgg(channels, channels))
        )
        self.skip = Scaled(nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.skip(x)


class ChannelScale(nn.Module):
    """s[c] * x[c] [+ t[c]]."""

    def __init__(self, channels: int, *, bias: bool = False) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))
        self.shift = nn.Parameter(torch.zeros(channels)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        y = x * self.scale.view(1, -1, 1, 1)
        return y if self.shift is None else y + self.shift.view(1, -1, 1, 1)


def linear_add(channels: int) -> nn.Module:
    """BN( s3 * C3 x + s1 * C1 x + s0 * x ) (YOLOv6)."""
    three = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
    one = nn.Conv2d(channels, channels, 1, bias=False)
    total = Total(
        nn.Sequential(three, ChannelScale(channels)),
        nn.Sequential(one, ChannelScale(channels, bias=True)),
        ChannelScale(channels),
    )
    return nn.Sequential(total, nn.BatchNorm2d(channels))


class Implicit(nn.Module):
    """m * C1(x + a): implicit knowledge of the detection head (YOLOv7, arXiv 2207.02696)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.add = nn.Parameter(torch.zeros(1, inputs, 1, 1))
        self.conv = nn.Conv2d(inputs, outputs, 1)
        self.multiply = nn.Parameter(torch.ones(1, outputs, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.multiply * self.conv(self.add + x)


class RepConvN(nn.Module):
    """BN(C3 x) + BN(C1 x) + BN(x), or a literal 0 in place of the last (YOLOv9)."""

    def __init__(self, inputs: int, outputs: int, *, identity: bool, groups: int = 1) -> None:
        super().__init__()
        self.three = conv_norm(inputs, outputs, 3, groups=groups)
        self.one = conv_norm(inputs, outputs, 1, groups=groups)
        self.norm = nn.BatchNorm2d(inputs) if identity else None

    def forward(self, x: Tensor) -> Tensor:
        skip = 0 if self.norm is None else self.norm(x)
        return self.three(x) + self.one(x) + skip


def weighted(channels: int) -> nn.Module:
    """BN(C3 x) + alpha * BN(C1 x) (PP-YOLOE)."""
    return Total(conv_norm(channels, channels, 3), Scaled(conv_norm(channels, channels, 1)))


SILU = {"Conv": 1, "Sigmoid": 1, "Mul": 1}

CASES = (
    Case("yolov10_dw", lambda: with_silu(repvgg_dw(7)), (2, 7, 9, 8), SILU, dynamic=True),
    Case("yolov6_bottle", lambda: BottleRep(7), (2, 7, 9, 8), {"Conv": 2, "Relu": 2, "Mul": 1, "Add": 1}),
    Case("yolov6_linear_add", lambda: activated(linear_add(7)), (2, 7, 9, 8), ONE),
    Case("yolov7", lambda: with_silu(repvgg(7, 7)), (2, 7, 9, 8), SILU),
    Case("yolov7_grouped", lambda: with_silu(repvgg(6, 6, groups=3)), (2, 6, 9, 8), SILU),
    Case("yolov7_implicit", lambda: Implicit(7, 9), (2, 7, 5, 6), {"Conv": 1}, dynamic=True),
    Case("yolov9_identity", lambda: with_silu(RepConvN(7, 7, identity=True)), (2, 7, 9, 8), SILU),
    Case("yolov9_zero", lambda: with_silu(RepConvN(6, 9, identity=False, groups=3)), (2, 6, 9, 8), SILU),
    Case("rtdetr", lambda: with_silu(Total(conv_norm(7, 7, 3), conv_norm(7, 7, 1))), (2, 7, 9, 8), SILU),
    Case("pp_yoloe", lambda: with_silu(weighted(7)), (2, 7, 9, 8), SILU),
)

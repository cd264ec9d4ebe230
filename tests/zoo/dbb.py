"""Diverse branches: chains of 1x1, pooling and k x k, the border padded with a value, side by side."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo.harness import Case
from tests.zoo.layers import Total, conv_norm
from tests.zoo.repvgg import ONE, activated


def border(x: Tensor, pad: int, value: Tensor) -> Tensor:
    """`x` padded on all four sides with a value of each channel, written as the authors do: by assignment."""
    value = value.view(1, -1, 1, 1)
    x = F.pad(x, [pad] * 4)
    x[:, :, 0:pad, :] = value
    x[:, :, -pad:, :] = value
    x[:, :, :, 0:pad] = value
    x[:, :, :, -pad:] = value
    return x


class NormAndPad(nn.Module):
    """BN(x), padded with what BN makes of 0."""

    def __init__(self, channels: int, pad: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.pad = pad

    def forward(self, x: Tensor) -> Tensor:
        norm = self.norm
        deviation = torch.sqrt(norm.running_var + norm.eps)
        of_zero = norm.bias.detach() - norm.running_mean * norm.weight.detach() / deviation
        return border(norm(x), self.pad, of_zero)


class IdentityOneByOne(nn.Module):
    """C1 with the identity added to its kernel; its groups have as many outputs as inputs."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 1, groups=groups, bias=False)
        width = channels // groups
        rows = torch.arange(channels)
        identity = torch.zeros(channels, width, 1, 1)
        identity[rows, rows % width] = 1
        self.register_buffer("identity", identity)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.conv.weight + self.identity, groups=self.conv.groups)


def dbb(inputs: int, outputs: int, size: int = 3, *, stride: int = 1, groups: int = 1) -> nn.Module:
    """BN(Ck x) + BN(C1 x) + [C1, BN, pad, AvgPool, BN] + [C1, BN, pad, Ck, BN] (arXiv 2103.13425)."""
    pad = size // 2
    pooled = nn.Sequential(
        nn.Conv2d(inputs, outputs, 1, groups=groups, bias=False),
        NormAndPad(outputs, pad),
        nn.AvgPool2d(size, stride),
        nn.BatchNorm2d(outputs),
    )
    chain = nn.Sequential(
        IdentityOneByOne(inputs, groups),
        NormAndPad(inputs, pad),
        conv_norm(inputs, outputs, size, stride=stride, padding=0, groups=groups),
    )
    own = conv_norm(inputs, outputs, size, stride=stride, groups=groups)
    return Total(own, conv_norm(inputs, outputs, 1, stride=stride, groups=groups), pooled, chain)


def dbb_depthwise(channels: int, stride: int) -> nn.Module:
    """The depthwise form: nothing to mix, so the pool pads by itself."""
    pooled = nn.Sequential(nn.AvgPool2d(3, stride, 1), nn.BatchNorm2d(channels))
    own = conv_norm(channels, channels, 3, stride=stride, groups=channels)
    return Total(own, conv_norm(channels, channels, 1, stride=stride, groups=channels), pooled)


class ACNet(nn.Module):
    """BN(Ck x) + BN(C kx1 x) + BN(C 1xk x); with fewer pads the thin ones read a slice (1908.03930)."""

    def __init__(
        self, inputs: int, outputs: int, size: int, padding: int, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.crop = max(0, size // 2 - padding)
        thin = max(0, padding - size // 2)
        self.square = conv_norm(inputs, outputs, size, stride=stride, padding=padding, groups=groups)
        upright, flat = (padding, thin), (thin, padding)
        self.upright = conv_norm(inputs, outputs, (size, 1), stride=stride, padding=upright, groups=groups)
        self.flat = conv_norm(inputs, outputs, (1, size), stride=stride, padding=flat, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        c = self.crop
        upright = x[:, :, :, c:-c] if c else x
        flat = x[:, :, c:-c, :] if c else x
        return self.square(x) + self.upright(upright) + self.flat(flat)


CASES = (
    Case("acnet", lambda: activated(ACNet(5, 7, 3, 1)), (2, 5, 9, 8), ONE, dynamic=True),
    Case("acnet_stride", lambda: activated(ACNet(5, 7, 3, 1, stride=2)), (2, 5, 9, 8), ONE),
    Case("acnet_grouped", lambda: activated(ACNet(6, 9, 3, 1, groups=3)), (2, 6, 9, 8), ONE),
    Case("acnet_sliced", lambda: activated(ACNet(5, 7, 3, 0)), (2, 5, 9, 8), ONE),
    Case("acnet_sliced_5", lambda: activated(ACNet(5, 7, 5, 1, stride=2)), (2, 5, 11, 10), ONE),
    Case("acnet_wide", lambda: activated(ACNet(5, 7, 3, 2)), (2, 5, 9, 8), ONE),
    Case("dbb", lambda: activated(dbb(5, 7)), (2, 5, 9, 8), ONE),
    Case("dbb_stride", lambda: activated(dbb(5, 7, stride=2)), (2, 5, 9, 8), ONE),
    Case("dbb_grouped", lambda: activated(dbb(6, 8, groups=2)), (2, 6, 9, 8), ONE),
    Case(
        "dbb_grouped_8",
        lambda: activated(dbb(16, 16, groups=8)),
        (1, 16, 7, 8),
        ONE,
        exporters=("dynamo",),
    ),
    Case("dbb_5", lambda: activated(dbb(5, 7, 5)), (2, 5, 11, 10), ONE, exporters=("dynamo",)),
    # The legacy exporter fixes the extents of a border in the file, whatever it was told.
    Case("dbb_dynamic", lambda: activated(dbb(5, 7)), (2, 5, 9, 8), ONE, dynamic=True, exporters=("dynamo",)),
    Case("dbb_depthwise", lambda: activated(dbb_depthwise(7, 1)), (2, 7, 9, 8), ONE),
    Case("dbb_depthwise_stride", lambda: activated(dbb_depthwise(7, 2)), (2, 7, 9, 8), ONE),
)

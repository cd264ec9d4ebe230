"""Weights that are computed in the graph: whatever the formula, the result is a constant."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo.harness import Case
from tests.zoo.layers import Total, conv_norm


class OREPA(nn.Module):
    """C3 whose kernel is a weighted sum of branches multiplied out, BN (arXiv 2204.00826)."""

    def __init__(self, inputs: int, outputs: int, groups: int = 1) -> None:
        super().__init__()
        width = inputs // groups
        self.groups = groups
        self.origin = nn.Parameter(torch.randn(outputs, width, 3, 3))
        self.average = nn.Parameter(torch.randn(outputs, width, 1, 1))
        self.first = nn.Parameter(torch.randn(groups, width, width))
        self.second = nn.Parameter(torch.randn(outputs, width, 3, 3))
        self.vector = nn.Parameter(torch.randn(3, outputs))
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        outputs, width = self.origin.shape[:2]
        grouped = self.second.view(self.groups, outputs // self.groups, width, 3, 3)
        chain = torch.einsum("gti,gothw->goihw", self.first, grouped).reshape(outputs, width, 3, 3)
        average = torch.einsum("oihw,hw->oihw", self.average, torch.full((3, 3), 1 / 9, dtype=x.dtype))
        parts = (self.origin, average, chain)
        weight = sum(
            torch.einsum("oihw,o->oihw", part, v) for part, v in zip(parts, self.vector, strict=True)
        )
        out: Tensor = self.norm(F.conv2d(x, weight, padding=1, groups=self.groups))
        return out


class DOConv(nn.Module):
    """C3 whose kernel is a mix of nine for each input channel (DO-Conv, arXiv 2006.12030)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.randn(outputs, inputs, 9))
        self.depth = nn.Parameter(torch.randn(inputs, 9, 9))
        self.register_buffer("diagonal", torch.eye(9).repeat(inputs, 1, 1))
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        outputs, inputs = self.mix.shape[:2]
        weight = torch.einsum("ims,ois->oim", self.depth + self.diagonal, self.mix)
        out: Tensor = self.norm(F.conv2d(x, weight.reshape(outputs, inputs, 3, 3), padding=1))
        return out


class Normed(nn.Module):
    """C3 with a kernel that is normalised in one of three ways, then scaled."""

    def __init__(self, inputs: int, outputs: int, how: str) -> None:
        super().__init__()
        self.how = how
        self.direction = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.gain = nn.Parameter(torch.ones(outputs, 1, 1, 1))
        self.bias = nn.Parameter(torch.randn(outputs))
        self.register_buffer("left", F.normalize(torch.randn(outputs), dim=0))
        self.register_buffer("right", F.normalize(torch.randn(9 * inputs), dim=0))

    def weight(self) -> Tensor:
        v = self.direction
        if self.how == "weight":
            return v / v.pow(2).sum((1, 2, 3), keepdim=True).sqrt()
        if self.how == "spectral":
            return v / torch.dot(self.left, torch.mv(v.reshape(v.shape[0], -1), self.right))
        centred = v - v.mean((1, 2, 3), keepdim=True)
        return centred / (centred.var((1, 2, 3), keepdim=True, unbiased=False) + 1e-5).sqrt()

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.gain * self.weight(), self.bias, padding=1)


class Rotated(nn.Module):
    """C3 whose kernel is one filter in four rotations: the lifting layer of a group-equivariant network."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.filter = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.randn(outputs))

    def forward(self, x: Tensor) -> Tensor:
        upright, flat = self.filter, self.filter.transpose(2, 3)
        turned = [upright, flat.flip(2), upright.flip((2, 3)), flat.flip(3)]
        weight = torch.stack(turned, 1).flatten(0, 1)
        return F.conv2d(x, weight, self.bias.repeat_interleave(4), padding=1)


def _case(name: str, build: type[nn.Module], *arguments: object) -> Case:
    return Case(name, lambda: build(5, 7, *arguments), (2, 5, 9, 8), {"Conv": 1})


CASES = (
    _case("orepa", OREPA),
    Case("orepa_grouped", lambda: OREPA(6, 8, groups=2), (2, 6, 9, 8), {"Conv": 1}),
    Case("orepa_beside", lambda: Total(OREPA(5, 7), conv_norm(5, 7, 1)), (2, 5, 9, 8), {"Conv": 1}),
    _case("do_conv", DOConv),
    _case("weight_norm", Normed, "weight"),
    _case("spectral_norm", Normed, "spectral"),
    _case("weight_standardised", Normed, "standard"),
    _case("group_equivariant", Rotated),
)

"""Chains without activation: expanded on purpose in training, one convolution afterwards."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo.dbb import border
from tests.zoo.harness import Case
from tests.zoo.layers import Total

SOBEL = ((1.0, 0.0, -1.0), (2.0, 0.0, -2.0), (1.0, 0.0, -1.0))
SOBEL_X = torch.tensor(SOBEL)
LAPLACIAN = torch.tensor(((0.0, 1.0, 0.0), (1.0, -4.0, 1.0), (0.0, 1.0, 0.0)))


def expand_cl(size: int, stride: int, padding: int) -> nn.Module:
    """C1 with all the pads and a bias, Ck without pads, C1 (ExpandNets, arXiv 1811.10495)."""
    wide = 20
    return nn.Sequential(
        nn.Conv2d(5, wide, 1, padding=padding), nn.Conv2d(wide, wide, size, stride), nn.Conv2d(wide, 7, 1)
    )


def expand_ck(layers: int) -> nn.Module:
    """A k x k as so many 3x3, all padding on the first."""
    wide = [5, *[16] * (layers - 1), 7]
    pads = [layers] + [0] * (layers - 1)
    return nn.Sequential(*(nn.Conv2d(wide[i], wide[i + 1], 3, padding=pads[i]) for i in range(layers)))


def sesr(inputs: int, outputs: int, size: int) -> nn.Module:
    """C1(Ck x) [+ x] (arXiv 2103.09404)."""
    expand = nn.Conv2d(inputs, 32, size, padding=size // 2, bias=False)
    chain = nn.Sequential(expand, nn.Conv2d(32, outputs, 1))
    return Total(chain, nn.Identity()) if inputs == outputs else chain


class Padded(nn.Module):
    """C1 x + b, padded with b."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return border(self.conv(x), 1, self.conv.bias)


class Edge(nn.Module):
    """A fixed 3x3 filter, scaled for each channel, plus a bias."""

    def __init__(self, channels: int, filter_: Tensor) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.randn(channels, 1, 1, 1))
        self.bias = nn.Parameter(torch.randn(channels))
        self.register_buffer("mask", filter_.expand(channels, 1, 3, 3).clone())

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.scale * self.mask, self.bias, groups=self.mask.shape[0])


def ecb(inputs: int, outputs: int, *, identity: bool) -> nn.Module:
    """C3 x + [C1, pad with b, C3] + 3 x [C1, pad with b, edge filter] [+ x], PReLU (ECBSR, ACM MM 2021)."""
    edges = [
        nn.Sequential(Padded(inputs, outputs), Edge(outputs, mask))
        for mask in (SOBEL_X, SOBEL_X.T, LAPLACIAN)
    ]
    chain = nn.Sequential(Padded(inputs, 2 * outputs), nn.Conv2d(2 * outputs, outputs, 3))
    also = [nn.Identity()] if identity else []
    total = Total(nn.Conv2d(inputs, outputs, 3, padding=1), chain, *edges, *also)
    return nn.Sequential(total, nn.PReLU(outputs))


CASES = (
    Case("expand_cl", lambda: expand_cl(3, 1, 1), (2, 5, 9, 8), {"Conv": 1}, dynamic=True),
    Case("expand_cl_stride", lambda: expand_cl(3, 2, 1), (2, 5, 9, 8), {"Conv": 1}),
    Case("expand_cl_5", lambda: expand_cl(5, 1, 2), (2, 5, 9, 8), {"Conv": 1}),
    Case("expand_ck_5", lambda: expand_ck(2), (2, 5, 9, 8), {"Conv": 1}),
    Case("expand_ck_7", lambda: expand_ck(3), (2, 5, 11, 10), {"Conv": 1}),
    Case("sesr", lambda: sesr(7, 7, 3), (2, 7, 9, 8), {"Conv": 1}, dynamic=True),
    Case("sesr_ends", lambda: sesr(1, 8, 5), (2, 1, 9, 8), {"Conv": 1}),
    Case(
        "ecb",
        lambda: ecb(5, 7, identity=False),
        (2, 5, 9, 8),
        {"Conv": 1, "PRelu": 1},
        exporters=("dynamo",),
    ),
    Case("ecb_identity", lambda: ecb(5, 5, identity=True), (2, 5, 9, 8), {"Conv": 1, "PRelu": 1}),
)

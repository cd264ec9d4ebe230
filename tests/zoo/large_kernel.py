"""Large depthwise kernels with small ones beside them."""

from torch import Tensor, nn

from tests.zoo.harness import Case
from tests.zoo.layers import SqueezeExcite, Total, conv_norm
from tests.zoo.repvgg import GATED, activated

# Kernel and dilation of the branches beside a 13 x 13.
DILATED = ((5, 1), (7, 2), (3, 3), (3, 4), (3, 5))


def replk(channels: int, size: int) -> nn.Module:
    """BN(dwK x) + BN(dw5 x) (RepLKNet, arXiv 2203.06717)."""
    large = conv_norm(channels, channels, size, groups=channels)
    return Total(large, conv_norm(channels, channels, 5, groups=channels))


class RepLKBlock(nn.Module):
    """x + BN(C1 relu(large(relu(BN(C1 BN(x)))))): the first norm stands before an unpadded 1x1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = channels + 2
        self.norm = nn.BatchNorm2d(channels)
        self.expand = conv_norm(channels, hidden, 1)
        self.large = replk(hidden, 13)
        self.project = conv_norm(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.expand(self.norm(x)).relu()
        return x + self.project(self.large(hidden).relu())


def unireplk(channels: int) -> nn.Module:
    """BN( BN(dw13 x) + sum of BN(dw k dilation r x) ), SE (UniRepLKNet, arXiv 2311.15599)."""
    branches = [conv_norm(channels, channels, size, groups=channels, dilation=step) for size, step in DILATED]
    mixer = Total(conv_norm(channels, channels, 13, groups=channels), *branches)
    return nn.Sequential(mixer, nn.BatchNorm2d(channels), SqueezeExcite(channels, 3), nn.ReLU())


def slak(channels: int, size: int) -> nn.Module:
    """BN(dw Kx5 x) + BN(dw 5xK x) + BN(dw5 x) (arXiv 2207.03620)."""
    shapes = ((size, 5), (5, size), (5, 5))
    return Total(*(conv_norm(channels, channels, shape, groups=channels) for shape in shapes))


CASES = (
    Case("replk_31", lambda: activated(replk(5, 31)), (1, 5, 33, 32), {"Conv": 1, "Relu": 1}),
    Case(
        "replk_block", lambda: RepLKBlock(5), (2, 5, 15, 14), {"Conv": 3, "Relu": 2, "Add": 1}, dynamic=True
    ),
    Case("unireplk", lambda: unireplk(5), (2, 5, 15, 16), GATED),
    # The 5x5 lies within either of the others and is free there; the two thin ones are cheaper than 51 x 51.
    Case("slak", lambda: slak(5, 51), (1, 5, 32, 30), {"Conv": 2, "Add": 1}, reason="no gain"),
)

"""What the designs are made of: the few shapes of branch that all of them share."""

import torch
from torch import Tensor, nn

Size = int | tuple[int, int]


def conv_norm(
    inputs: int,
    outputs: int,
    size: Size,
    *,
    stride: int = 1,
    padding: Size | None = None,
    groups: int = 1,
    dilation: int = 1,
    bias: bool = False,
) -> nn.Sequential:
    """BN(C x), padded to keep the extent unless told otherwise."""
    if padding is None:
        wide = (size, size) if isinstance(size, int) else size
        padding = (wide[0] // 2 * dilation, wide[1] // 2 * dilation)
    conv = nn.Conv2d(inputs, outputs, size, stride, padding, dilation, groups, bias)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


class Total(nn.Module):
    """branch(x) + branch(x) + ..., as an author writes it: from left to right."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        first, *rest = self.branches
        total = first(x)
        for branch in rest:
            total = total + branch(x)
        return total


class Scaled(nn.Module):
    """alpha * inner(x), alpha a learned scalar."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.alpha = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.alpha * self.inner(x)


class SqueezeExcite(nn.Module):
    """x * sigmoid(C1(relu(C1(mean x)))): a gate, so not affine."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, hidden, 1)
        self.expand = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        squeezed = x.mean((2, 3), keepdim=True)
        return x * self.expand(self.reduce(squeezed).relu()).sigmoid()

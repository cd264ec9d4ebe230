"""Linear layers: heads, chains, and the convolution that is written as a matrix."""

from torch import Tensor, nn

from tests.zoo.harness import Case
from tests.zoo.layers import Total, conv_norm


def norm_linear(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.BatchNorm1d(inputs), nn.Linear(inputs, outputs))


class Distilled(nn.Module):
    """(L(BN x) + L'(BN' x)) / 2: the two heads of RepViT."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.head = norm_linear(inputs, outputs)
        self.teacher = norm_linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return (self.head(x) + self.teacher(x)) / 2


class RepMLP(nn.Module):
    """BN(grouped C1 of the rows) + sum of BN(dw k x) at a fixed extent (arXiv 2105.01883)."""

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        self.extent = height, width
        rows = channels * height * width
        self.full = conv_norm(rows, rows, 1, groups=channels)
        self.local = Total(*(conv_norm(channels, channels, size, groups=channels) for size in (1, 3)))

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        rows = self.full(x.reshape(-1, channels * self.extent[0] * self.extent[1], 1, 1))
        return rows.reshape(-1, channels, *self.extent) + self.local(x)


class Partitions(nn.Module):
    """The same for channel groups of the partitions of an image, as in RepMLPNet (arXiv 2112.11081)."""

    def __init__(self, channels: int, shared: int, size: int) -> None:
        super().__init__()
        self.channels, self.shared, self.size = channels, shared, size
        rows = shared * size * size
        self.full = conv_norm(rows, rows, 1, groups=shared)
        self.local = Total(*(conv_norm(shared, shared, k, groups=shared) for k in (1, 3)))

    def forward(self, x: Tensor) -> Tensor:
        size, (height, width) = self.size, x.shape[2:]
        grid = height // size, width // size
        parts = x.reshape(-1, self.channels, grid[0], size, grid[1], size).permute(0, 2, 4, 1, 3, 5)
        rows = self.full(parts.reshape(-1, self.shared * size * size, 1, 1))
        image = self.local(parts.reshape(-1, self.shared, size, size))
        split = -1, *grid, self.shared, size, size
        y = (rows.reshape(split) + image.reshape(split)).reshape(-1, *grid, self.channels, size, size)
        return y.permute(0, 3, 1, 4, 2, 5).reshape(-1, self.channels, height, width)


def embedding(channels: int, height: int, width: int, outputs: int) -> nn.Module:
    """BN, Dropout, flatten, L, BN behind the last activation: the head of ArcFace (arXiv 1801.07698)."""
    return nn.Sequential(
        nn.ReLU(),
        nn.BatchNorm2d(channels),
        nn.Dropout(0.4),
        nn.Flatten(),
        nn.Linear(channels * height * width, outputs),
        nn.BatchNorm1d(outputs),
    )


LINEAR = {"MatMul": 1, "Add": 1}

CASES = (
    Case("repvit_head", lambda: Distilled(29, 11), (5, 29), {"Gemm": 1}),
    Case("linear_norm", lambda: nn.Sequential(nn.Linear(9, 12), nn.BatchNorm1d(12)), (5, 9), {"Gemm": 1}),
    Case("linear_chain", lambda: nn.Sequential(nn.Linear(9, 20), nn.Linear(20, 7)), (5, 9), {"Gemm": 1}),
    Case("linear_chain_tokens", lambda: nn.Sequential(nn.Linear(9, 20), nn.Linear(20, 7)), (2, 5, 9), LINEAR),
    Case("linear_skip", lambda: Total(nn.Linear(9, 9), nn.Identity()), (2, 5, 9), LINEAR),
    Case("repmlp", lambda: RepMLP(3, 4, 5), (2, 3, 4, 5), {"Reshape": 2, "Conv": 1}),
    Case(
        "repmlp_skip", lambda: Total(RepMLP(3, 4, 5), nn.Identity()), (2, 3, 4, 5), {"Reshape": 2, "Conv": 1}
    ),
    Case(
        "repmlp_partitions",
        lambda: Partitions(6, 2, 4),
        (2, 6, 8, 12),
        {"Reshape": 5, "Transpose": 2, "Conv": 1},
    ),
    Case("embedding", lambda: embedding(5, 4, 3, 7), (2, 5, 4, 3), {"Relu": 1, "Reshape": 1, "Gemm": 1}),
)

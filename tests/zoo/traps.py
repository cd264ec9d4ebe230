"""What looks alike and is not, and what looks different and is the same: cases in which others go wrong."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.zoo.dbb import border
from tests.zoo.harness import Case
from tests.zoo.layers import SqueezeExcite, Total, conv_norm


class Fixed(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Any, Tensor], Any], **parts: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        result: Tensor | tuple[Tensor, ...] = self.function(self, x)
        return result


def conv3(inputs: int = 5, outputs: int = 5, **attributes: Any) -> nn.Module:
    return nn.Conv2d(inputs, outputs, 3, **{"padding": 1, **attributes})


def conv1(inputs: int = 5, outputs: int = 5, **attributes: Any) -> nn.Module:
    return nn.Conv2d(inputs, outputs, 1, **attributes)


def sum_tree() -> nn.Module:
    """0 + a - (b - (-c)) + 0.5 * (d + x / 4), as sum([...]) begins."""

    def forward(m: Any, x: Tensor) -> Tensor:
        return sum([m.a(x), 0, -(m.b(x) - (-m.c(x)))]) + 0.5 * (m.d(x) + x / 4)

    return Fixed(forward, a=conv_norm(5, 5, 3), b=conv1(), c=nn.BatchNorm2d(5), d=conv_norm(5, 5, (1, 3)))


def doubled() -> nn.Module:
    """x + x is 2 * x, also where something else reads it than the sum."""

    def forward(m: Any, x: Tensor) -> Tensor:
        return m.one(x + x) + m.three(x)

    return Fixed(forward, one=conv1(), three=conv3())


def reflected() -> nn.Module:
    """Reflect padding is no convolution: only the 1x1 and the identity join."""
    return Total(conv3(padding_mode="reflect"), conv1(), nn.Identity())


def late_gate() -> nn.Module:
    """BN( SE( BN(C3 x) + BN(C1 x) ) ): the gate keeps the norm from folding."""
    return nn.Sequential(
        Total(conv_norm(5, 5, 3), conv_norm(5, 5, 1)), SqueezeExcite(5, 3), nn.BatchNorm2d(5)
    )


def early_gate() -> nn.Module:
    """SE( BN(C3 x) ) + BN(C1 x) + BN(x): the gated branch does not belong to the sum."""
    gated = nn.Sequential(conv_norm(5, 5, 3), SqueezeExcite(5, 3))
    return Total(gated, conv_norm(5, 5, 1), nn.BatchNorm2d(5))


def padded_one() -> nn.Module:
    """A 1x1 with pads of its own beside a 3x3 with more."""
    return Total(conv_norm(5, 7, 3, padding=2), conv_norm(5, 7, 1, padding=1))


def uneven() -> nn.Module:
    """Explicit uneven padding in front of one branch; the strided 1x1 beside is aligned with it."""

    def forward(m: Any, x: Tensor) -> Tensor:
        return m.three(F.pad(x, (0, 1, 0, 1))) + m.one(x)

    return Fixed(forward, three=conv_norm(5, 7, 3, stride=2, padding=0), one=conv_norm(5, 7, 1, stride=2))


def dilated() -> nn.Module:
    """A dilated 3x3 keeps its dilation, and the 1x1 joins its centre tap."""
    return Total(conv_norm(5, 7, 3, dilation=2), conv_norm(5, 7, 1))


def even() -> nn.Module:
    """Even kernels: a 2x2 with dilation 2 is the corners of a 3x3, a 4x4 padded by 2 and 1 has no centre."""

    def forward(m: Any, x: Tensor) -> Tensor:
        return m.corners(x) + m.three(x) + m.four(F.pad(x, (2, 1, 1, 2)))

    corners = nn.Conv2d(5, 5, 2, padding=1, dilation=2)
    return Fixed(forward, corners=corners, three=conv_norm(5, 5, 3), four=nn.Conv2d(5, 5, 4))


def tapped(channels: int) -> nn.Module:
    """A term of the sum is an output itself, so merging it would compute it twice."""

    def forward(m: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        y = m.three(x)
        return y, (y + m.one(x)).relu()

    return Fixed(forward, three=conv_norm(channels, channels, 3), one=conv_norm(channels, channels, 1))


def auxiliary() -> nn.Module:
    """The sum is read by two heads: one convolution, two readers."""

    def forward(m: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        y = m.three(x) + m.one(x) + x
        return y.relu(), y.sigmoid()

    return Fixed(forward, three=conv_norm(5, 5, 3), one=conv_norm(5, 5, 1))


def same_input() -> nn.Module:
    """One input behind Identity, Dropout, and Reshape and Transpose that change nothing."""

    def forward(m: Any, x: Tensor) -> Tensor:
        turned = x.permute(0, 2, 3, 1).permute(0, 3, 1, 2)
        flat = x.reshape(x.shape[0], 5, -1).reshape(x.shape)
        return m.a(m.drop(x)) + m.b(m.same(x)) + m.c(turned) + m.d(flat)

    parts = {name: conv_norm(5, 5, size) for name, size in zip("abcd", (3, 1, 3, 1), strict=True)}
    return Fixed(forward, drop=nn.Dropout(0.5), same=nn.Identity(), **parts)


def plain_norms() -> nn.Module:
    """Norms with epsilons of their own, and without scale and shift."""
    three = nn.Sequential(conv3(bias=False), nn.BatchNorm2d(5, eps=0.1))
    one = nn.Sequential(conv1(bias=False), nn.BatchNorm2d(5, affine=False, eps=0.02))
    return Total(three, one, nn.BatchNorm2d(5, eps=0.3, affine=False))


def norm_behind_reshape() -> nn.Module:
    """Between the convolution and the norm the channels become others: four images of half the channels."""

    def forward(m: Any, x: Tensor) -> Tensor:
        y = m.conv(x)
        return m.norm(y.reshape(y.shape[0], y.shape[1] // 2, 2 * y.shape[2], y.shape[3]))

    return Fixed(forward, conv=conv3(5, 6), norm=nn.BatchNorm2d(3))


class DeadNorm(nn.BatchNorm2d):
    """The last norm of a residual block as it is initialised: scale 0."""

    def settle(self) -> None:
        nn.init.zeros_(self.weight)


def dead() -> nn.Module:
    """x + 0 * C3(...) + b: what is left is a shift."""
    body = nn.Sequential(conv_norm(5, 7, 3), nn.ReLU(), conv3(7, 5, bias=False), DeadNorm(5))
    return Total(body, nn.Identity())


def shifted_border() -> nn.Module:
    """C1 + b under a zero-padded C3: right inside, wrong at the border, so it must stay."""
    return nn.Sequential(conv1(5, 7), conv3(7, 5))


def padded_twice() -> nn.Module:
    """A 'same' C3 under a 'same' C3 is no 5x5 at the border."""
    return nn.Sequential(conv3(5, 4, bias=False), conv3(4, 5, bias=False))


def other_border() -> nn.Module:
    """The border is padded with another value than the one in front continues with."""

    def forward(m: Any, x: Tensor) -> Tensor:
        return m.three(border(m.one(x), 1, m.norm.bias))

    return Fixed(forward, one=conv1(5, 7), three=conv3(7, 5, padding=0), norm=nn.BatchNorm2d(7))


def three_sides() -> nn.Module:
    """The border is written on three sides only; the fourth stays 0."""

    def forward(m: Any, x: Tensor) -> Tensor:
        y = F.pad(m.one(x), [1] * 4)
        value = m.one.bias.view(1, -1, 1, 1)
        y[:, :, 0:1, :] = value
        y[:, :, -1:, :] = value
        y[:, :, :, 0:1] = value
        return m.three(y)

    return Fixed(forward, one=conv1(5, 7), three=conv3(7, 5, padding=0))


def uniform_border() -> nn.Module:
    """The border as a constant Pad of one value, which is the bias of the 1x1 in front."""

    class Uniform(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = conv1(5, 7, bias=False)
            self.three = conv3(7, 5, padding=0)

        def forward(self, x: Tensor) -> Tensor:
            return self.three(F.pad(self.one(x) + 0.75, [1] * 4, value=0.75))

    return Uniform()


def stacked() -> nn.Module:
    """Affine branches side by side, then a 1x1: Concat stacks the kernels."""

    def forward(m: Any, x: Tensor) -> Tensor:
        return m.mix(torch.cat([m.a(x), m.b(x), x], dim=1))

    return Fixed(forward, a=conv_norm(5, 4, 3), b=conv_norm(5, 3, 1), mix=conv1(12, 6))


def halved() -> nn.Module:
    """Split, a convolution for each half, Concat: a grouped convolution."""

    def forward(m: Any, x: Tensor) -> Tensor:
        a, b = x.chunk(2, dim=1)
        return torch.cat([m.a(a), m.b(b)], dim=1)

    return Fixed(forward, a=conv_norm(3, 4, 3), b=conv_norm(3, 4, 3))


def shuffled() -> nn.Module:
    """A channel shuffle between two 1x1: a permutation of the kernel."""

    def forward(m: Any, x: Tensor) -> Tensor:
        y = m.a(x)
        n, c, h, w = y.shape
        y = y.reshape(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return m.b(y)

    return Fixed(forward, a=conv1(5, 8), b=conv1(8, 6))


def positive_scale() -> nn.Module:
    """A scale that is positive passes through ReLU and MaxPool into the next convolution."""

    def forward(m: Any, x: Tensor) -> Tensor:
        scale = m.norm.weight.abs().view(1, -1, 1, 1)
        return m.after(F.max_pool2d(scale * m.before(x).relu(), 2))

    return Fixed(forward, before=conv3(5, 7), after=conv3(7, 5), norm=nn.BatchNorm2d(7))


def negative_scale() -> nn.Module:
    """A scale with negative values does not pass through MaxPool."""

    def forward(m: Any, x: Tensor) -> Tensor:
        return m.after(F.max_pool2d(m.norm.weight.view(1, -1, 1, 1) * m.before(x).relu(), 2))

    return Fixed(forward, before=conv3(5, 7), after=conv3(7, 5), norm=nn.BatchNorm2d(7))


def pooled_uncounted() -> nn.Module:
    """AveragePool without its padding counted: at the border it is no convolution."""
    return Total(conv_norm(5, 5, 3), nn.AvgPool2d(3, 1, 1, count_include_pad=False))


def norm_first() -> nn.Module:
    """BN before an unpadded convolution folds forward; before a padded one only its scale would."""
    return nn.Sequential(nn.BatchNorm2d(5), conv3(5, 7, padding=0))


def volumes() -> nn.Module:
    """RepVGG in three dimensions."""
    three = nn.Sequential(nn.Conv3d(3, 3, 3, padding=1, bias=False), nn.BatchNorm3d(3))
    return Total(three, nn.Sequential(nn.Conv3d(3, 3, 1, bias=False), nn.BatchNorm3d(3)), nn.BatchNorm3d(3))


def signals() -> nn.Module:
    """RepVGG in one dimension."""
    five = nn.Sequential(nn.Conv1d(5, 5, 5, padding=2, bias=False), nn.BatchNorm1d(5))
    return Total(five, nn.Sequential(nn.Conv1d(5, 5, 1, bias=False), nn.BatchNorm1d(5)), nn.BatchNorm1d(5))


def transposed() -> nn.Module:
    """C1, ConvTranspose, BN, C1: one transposed convolution, the first 1x1 without a bias."""
    up = nn.ConvTranspose2d(7, 6, 4, 2, 1)
    return nn.Sequential(conv1(5, 7, bias=False), up, nn.BatchNorm2d(6), conv1(6, 4))


IMAGE = (2, 5, 9, 8)
CONV = {"Conv": 1}
GATE = {"ReduceMean": 1, "Relu": 1, "Sigmoid": 1, "Mul": 1}

CASES = (
    Case("sum_tree", sum_tree, IMAGE, CONV),
    Case("doubled", doubled, IMAGE, CONV),
    Case("reflected", reflected, IMAGE, {"Pad": 1, "Conv": 2, "Add": 1}),
    Case("late_gate", late_gate, IMAGE, {"Conv": 3, **GATE, "BatchNormalization": 1}),
    Case("early_gate", early_gate, IMAGE, {"Conv": 4, **GATE, "Add": 1}),
    Case("padded_one", padded_one, IMAGE, CONV),
    Case("uneven", uneven, (2, 5, 8, 10), CONV),
    Case("dilated", dilated, IMAGE, CONV),
    Case("even", even, IMAGE, CONV),
    Case("tapped", lambda: tapped(64), (1, 64, 28, 28), {"Conv": 2, "Add": 1, "Relu": 1}, reason="no gain"),
    Case("auxiliary", auxiliary, IMAGE, {"Conv": 1, "Relu": 1, "Sigmoid": 1}),
    Case("same_input", same_input, IMAGE, CONV),
    Case("plain_norms", plain_norms, IMAGE, CONV),
    Case("norm_behind_reshape", norm_behind_reshape, IMAGE, {"Conv": 1, "Reshape": 1}),
    Case("dead", dead, IMAGE, {"Add": 1}),
    Case("shifted_border", shifted_border, IMAGE, {"Conv": 2}, reason="border"),
    Case("padded_twice", padded_twice, IMAGE, {"Conv": 2}, reason="border"),
    Case("uniform_border", uniform_border, IMAGE, CONV),
    Case("stacked", stacked, IMAGE, CONV),
    Case("halved", halved, (2, 6, 9, 8), CONV),
    Case("shuffled", shuffled, IMAGE, CONV),
    Case("positive_scale", positive_scale, IMAGE, {"Conv": 2, "Relu": 1, "MaxPool": 1}),
    Case("negative_scale", negative_scale, IMAGE, {"Conv": 2, "Relu": 1, "MaxPool": 1, "Mul": 1}),
    Case(
        "pooled_uncounted", pooled_uncounted, IMAGE, {"Conv": 1, "AveragePool": 1, "Add": 1}, reason="count"
    ),
    Case("norm_first", norm_first, IMAGE, CONV),
    Case("volumes", volumes, (2, 3, 5, 6, 4), CONV),
    Case("signals", signals, (2, 5, 11), CONV),
    Case("transposed", transposed, (2, 5, 5, 6), {"ConvTranspose": 1}),
)
# How much of these borders is left depends on how they are written; that they stay right is what counts.
UNCOUNTED = (Case("other_border", other_border, IMAGE, {}), Case("three_sides", three_sides, IMAGE, {}))

"""Every kind of graph: aten before and after decomposition, modules, functions, methods."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fuser.errors import InputError
from tests.hosts.fx_models import FORMS, Net, call, captured, error, generic, optimize, repvgg

Case = tuple[Callable[[], nn.Module], tuple[int, ...], dict[str, int]]
IMAGE = (2, 6, 9, 8)


def conv(inputs: int = 6, outputs: int = 6, size: int = 3, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, **{"padding": size // 2, **options})


def functional() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        y = F.conv2d(x, m.weight, m.bias, padding=1)
        return F.batch_norm(
            y, m.norm.running_mean, m.norm.running_var, m.norm.weight, m.norm.bias, False, 0.1, 1e-3
        )

    weight, bias = nn.Parameter(torch.randn(6, 6, 3, 3)), nn.Parameter(torch.randn(6))
    return Net(forward, weight=weight, bias=bias, norm=nn.BatchNorm2d(6))


def computed() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        weight = m.weight * m.gain.view(-1, 1, 1, 1) + m.other.sum(1, keepdim=True)
        return m.norm(F.conv2d(x, weight, padding=1))

    shape = (6, 6, 3, 3)
    parts = {"weight": torch.randn(shape), "gain": torch.randn(6), "other": torch.randn(shape)}
    return Net(
        forward, norm=nn.BatchNorm2d(6), **{name: nn.Parameter(value) for name, value in parts.items()}
    )


def scales() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        return (2.0 - m.conv(x)) / m.gain.view(1, -1, 1, 1) + m.shift[None, :, None, None] - 1

    return Net(
        forward, conv=conv(size=1), gain=nn.Parameter(torch.rand(6) + 0.5), shift=nn.Parameter(torch.randn(6))
    )


def with_alpha() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        return torch.add(m.a(x), m.b(x), alpha=0.3).sub(m.c(x), alpha=2)

    return Net(forward, a=conv(), b=conv(size=1), c=conv(size=5))


def repmixer() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        return x + m.gamma * (m.norm3(m.conv3(x)) + m.norm1(m.conv1(x)) + m.skip(x) - m.norm(x))

    norms = {name: nn.BatchNorm2d(6) for name in ("norm3", "norm1", "skip", "norm")}
    gamma = nn.Parameter(torch.randn(6, 1, 1))
    return Net(forward, conv3=conv(groups=6), conv1=conv(size=1, groups=6), gamma=gamma, **norms)


def lora() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        return m.base(x) + 0.5 * (x @ m.down) @ m.up

    base, down, up = nn.Linear(10, 20), torch.randn(10, 2), torch.randn(2, 20)
    return Net(forward, base=base, down=nn.Parameter(down), up=nn.Parameter(up))


def levit() -> nn.Module:
    """A BatchNorm of the last axis, as LeViT has it."""

    def forward(m: Any, x: Tensor) -> Tensor:
        y = m.linear(x)
        return m.norm(y.flatten(0, 1)).reshape_as(y)

    return Net(forward, linear=nn.Linear(10, 6, bias=False), norm=nn.BatchNorm1d(6))


def subsampled() -> nn.Module:
    """Every other position of a grid, as LeViT's attention has it: extents that a trace has to work out."""

    def forward(m: Any, x: Tensor) -> Tensor:
        batch, _, channels = x.shape
        y = m.linear(x.view(batch, 6, 4, channels)[:, ::2, ::2].reshape(batch, -1, channels))
        return m.norm(y.flatten(0, 1)).reshape_as(y)

    return Net(forward, linear=nn.Linear(10, 6, bias=False), norm=nn.BatchNorm1d(6))


def windowed() -> nn.Module:
    """Extents of which a trace knows nothing but that they are equal."""

    def forward(m: Any, x: Tensor) -> Tensor:
        y = m.linear(x[:, :5])
        return m.norm(y.flatten(0, 1)).reshape_as(y)

    return Net(forward, linear=nn.Linear(10, 6, bias=False), norm=nn.BatchNorm1d(6))


def tokens() -> nn.Module:
    """A linear layer of an image turned to tokens: decompositions repeat its weight for each image."""

    def forward(m: Any, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        y = m.linear(x.reshape(batch, channels, height * width).permute(0, 2, 1))
        return m.norm(y.flatten(0, 1)).reshape_as(y)

    return Net(forward, linear=nn.Linear(6, 5, bias=False), norm=nn.BatchNorm1d(5))


def heads() -> nn.Module:
    """Parts of one convolution, each a view of its result."""

    def forward(m: Any, x: Tensor) -> Tensor:
        q, k, v = m.norm(m.qkv(x)).split([4, 4, 6], dim=1)
        return v * (q * k).sum(1, keepdim=True).sigmoid()

    return Net(forward, qkv=conv(6, 14, 1, bias=False), norm=nn.BatchNorm2d(14))


def tied() -> nn.Module:
    first, second = conv(), conv()
    second.weight = first.weight
    return nn.Sequential(first, nn.BatchNorm2d(6), nn.ReLU(), second, nn.BatchNorm2d(6))


CASES: dict[str, Case] = {
    "repvgg": (repvgg, IMAGE, {"Conv": 1}),
    "repvgg_grouped": (lambda: repvgg(6, 3), IMAGE, {"Conv": 1}),
    "repmixer": (repmixer, IMAGE, {"Conv": 1}),
    "functional": (functional, IMAGE, {"Conv": 1}),
    "computed_weight": (computed, IMAGE, {"Conv": 1}),
    "scales": (scales, IMAGE, {"Conv": 1}),
    "alpha": (with_alpha, IMAGE, {"Conv": 1}),
    "tied": (tied, IMAGE, {"Conv": 2}),
    "conv1d": (lambda: nn.Sequential(nn.Conv1d(4, 6, 3), nn.BatchNorm1d(6)), (2, 4, 9), {"Conv": 1}),
    "conv3d": (lambda: nn.Sequential(nn.Conv3d(4, 6, 2), nn.BatchNorm3d(6)), (1, 4, 5, 4, 3), {"Conv": 1}),
    "same": (lambda: nn.Sequential(conv(size=4, padding="same"), nn.BatchNorm2d(6)), IMAGE, {"Conv": 1}),
    "transposed": (
        lambda: nn.Sequential(nn.ConvTranspose2d(6, 6, 3, 2, 1, output_padding=1), nn.BatchNorm2d(6)),
        IMAGE,
        {"ConvTranspose": 1},
    ),
    "transposed_grouped": (
        lambda: nn.Sequential(nn.ConvTranspose2d(6, 9, 3, 2, 1, groups=3), nn.BatchNorm2d(9)),
        IMAGE,
        {"ConvTranspose": 1},
    ),
    "transposed_depthwise": (
        lambda: nn.Sequential(nn.ConvTranspose2d(6, 6, 3, groups=6, bias=False), nn.BatchNorm2d(6)),
        IMAGE,
        {"ConvTranspose": 1},
    ),
    "dropout": (lambda: nn.Sequential(conv(), nn.Dropout(0.5), nn.BatchNorm2d(6)), IMAGE, {"Conv": 1}),
    "no_affine": (lambda: nn.Sequential(conv(), nn.BatchNorm2d(6, affine=False)), IMAGE, {"Conv": 1}),
    "weight_norm": (
        lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(conv()), nn.BatchNorm2d(6)),
        IMAGE,
        {"Conv": 1},
    ),
    "spectral_norm": (
        lambda: nn.Sequential(nn.utils.parametrizations.spectral_norm(conv()), nn.BatchNorm2d(6)),
        IMAGE,
        {"Conv": 1},
    ),
    "channels_last": (
        lambda: nn.Sequential(conv(), nn.BatchNorm2d(6)).to(memory_format=torch.channels_last),
        IMAGE,
        {"Conv": 1},
    ),
    "lora": (lora, (4, 7, 10), {"Linear": 1}),
    "levit": (levit, (4, 7, 10), {"Linear": 1}),
    "subsampled": (subsampled, (2, 24, 10), {"Linear": 1}),
    "windowed": (windowed, (2, 7, 10), {"Linear": 1}),
    "tokens": (tokens, IMAGE, {"Linear": 1}),
    "heads": (heads, IMAGE, {"Conv": 1}),
    "head": (
        lambda: nn.Sequential(nn.BatchNorm1d(10), nn.Dropout(0.5), nn.Linear(10, 6)),
        (4, 10),
        {"Linear": 1},
    ),
    "linear": (lambda: nn.Sequential(nn.Linear(10, 6), nn.BatchNorm1d(6)), (4, 10), {"Linear": 1}),
}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", CASES)
def test_collapses_and_computes_the_same(name: str, form: str) -> None:
    build, shape, layers = CASES[name]
    module = generic(build())
    x = torch.randn(shape)
    outcome = optimize(captured(module, x, form), x)
    assert outcome.layers == layers
    assert error(call(outcome.call, x), call(module, x)) < 1e-6
    assert optimize(outcome.result, x).applied == []


@pytest.mark.parametrize(
    ("weight", "shape", "reason"),
    [
        (torch.randn(2, 10, 5), (2, 7, 10), "of (2, 10, 5), has matrices that differ"),
        (torch.randn(10, 5).repeat(2, 1, 1), (7, 10), "of (7, 10), is repeated to (2, 7, 5)"),
        (torch.randn(3, 7), (2, 7, 10), "is on the left: a map of the last axis but one"),
    ],
)
def test_products_that_are_no_layer_say_why(weight: Tensor, shape: tuple[int, ...], reason: str) -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        return m.weight @ x if m.weight.ndim == 2 else x @ m.weight

    x = torch.randn(shape)
    module = Net(forward, weight=nn.Parameter(weight)).eval()
    outcome = optimize(captured(module, x, "export"))
    assert reason in outcome.reasons
    assert error(call(outcome.call, x), call(module, x)) == 0


@pytest.mark.parametrize("form", FORMS)
def test_dynamic_shapes_stay_dynamic(form: str) -> None:
    module = generic(repvgg())
    free = torch.export.Dim.DYNAMIC
    shapes = None if form == "symbolic" else ({0: free, 2: free, 3: free},)
    outcome = optimize(captured(module, torch.randn(IMAGE), form, shapes))
    assert outcome.layers == {"Conv": 1}
    for shape in (IMAGE, (3, 6, 5, 12)):
        x = torch.randn(shape)
        assert error(call(outcome.call, x), call(module, x)) < 1e-6


@pytest.mark.parametrize("form", ["export", "program", "decomposed"])
def test_reshapes_around_maps_of_channels_and_of_rows(form: str) -> None:
    """R^-1 C1 (R x) is C1 x; R^-1 L (R x) + C3 x is R^-1 L' (R x), for any batch."""
    module = Net(
        lambda m, x: m.flat(x.flatten(2)).unflatten(2, (4, 5)),
        flat=nn.Conv1d(3, 6, 1),
    )
    rows = Net(
        lambda m, x: m.full(x.flatten(1)).view(-1, 6, 4, 5) + m.local(x),
        full=nn.Linear(60, 120),
        local=conv(3, 6),
    )
    for each, layers in ((module, {"Conv": 1}), (rows, {"Linear": 1})):
        outcome = optimize(
            captured(generic(each), torch.randn(2, 3, 4, 5), form, ({0: torch.export.Dim.DYNAMIC},))
        )
        assert outcome.layers == layers
        assert outcome.operators["reshape"] + outcome.operators["flatten"] == 2 * ("Linear" in layers)
        for batch in (2, 5):
            x = torch.randn(batch, 3, 4, 5)
            assert error(call(outcome.call, x), call(each, x)) < 1e-6


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("form", FORMS)
def test_dtype_stays(form: str, dtype: torch.dtype) -> None:
    module = generic(repvgg()).to(dtype)
    x = torch.randn(IMAGE, dtype=dtype)
    outcome = optimize(captured(module, x, form))
    assert outcome.layers == {"Conv": 1}
    found = call(outcome.call, x)
    assert found.dtype == dtype
    assert error(found.float(), call(module, x).float()) < 8 * torch.finfo(dtype).eps


@pytest.mark.parametrize("layers", ["one", "small"])
@pytest.mark.parametrize("form", FORMS)
def test_channels_last_kernels_stay_so(form: str, layers: str) -> None:
    def small(m: Any, x: Tensor) -> Tensor:
        return m.depthwise(x) + m.pointwise(x)

    parts = {"depthwise": conv(groups=6), "pointwise": conv(size=1)}
    module = nn.Sequential(conv(), nn.BatchNorm2d(6)) if layers == "one" else Net(small, **parts)
    outcome = optimize(
        captured(generic(module).to(memory_format=torch.channels_last), torch.randn(IMAGE), form)
    )
    (weight,) = (tensor for tensor in outcome.call.parameters() if tensor.ndim == 4)
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.is_contiguous()


@pytest.mark.parametrize("form", FORMS)
def test_a_copy_that_sets_the_layout_stays(form: str) -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        batch, channels = x.size(0), x.size(1)
        y = (x.permute(0, 2, 3, 1).contiguous() + 1).view(
            batch, -1, channels
        )  # which x itself has no view as
        return m.norm(m.linear(y).transpose(1, 2))

    module = generic(Net(forward, linear=nn.Linear(6, 5), norm=nn.BatchNorm1d(5)))
    x = torch.randn(IMAGE)
    outcome = optimize(captured(module, x, form), x)
    assert error(call(outcome.call, x), call(module, x)) < 1e-6


def casting(m: Any, x: Tensor) -> Tensor:
    y = m.norm(m.conv(x))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return m.after(m.conv(y))


def test_autocast_within_is_refused_where_the_trace_would_lose_it() -> None:
    module = generic(Net(casting, conv=conv(), norm=nn.BatchNorm2d(6), after=nn.BatchNorm2d(6)))
    with pytest.raises(InputError, match="switches autocast on or off, which would be lost"):
        captured(module, torch.randn(IMAGE), "symbolic")


@pytest.mark.parametrize("form", ["export", "program"])
def test_what_lies_outside_of_autocast_is_rewritten(form: str) -> None:
    module = generic(Net(casting, conv=conv(), norm=nn.BatchNorm2d(6), after=nn.BatchNorm2d(6)))
    x = torch.randn(IMAGE)
    outcome = optimize(captured(module, x, form))
    assert outcome.applied == ["fold_batch_norm"]
    assert error(call(outcome.call, x), call(module, x)) < 0.02  # in bfloat16


def test_a_graph_that_switches_autocast_is_left_alone_there() -> None:
    class Switching(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = conv(), torch.nn.BatchNorm2d(6)
            self.last, self.after = torch.nn.Conv2d(6, 6, 1), torch.nn.BatchNorm2d(6)

        def forward(self, x: Tensor) -> Tensor:
            token = torch.amp.autocast_mode._enter_autocast("cpu", torch.bfloat16, True, True)
            y = self.norm(self.conv(x))
            torch.amp.autocast_mode._exit_autocast(token)
            return self.after(self.last(y.float()))

    module = generic(Switching())
    graph = torch.fx.Graph()
    x = graph.placeholder("x")
    enter = graph.call_function(torch.amp.autocast_mode._enter_autocast, ("cpu", torch.bfloat16, True, True))
    inside = graph.call_module("norm", (graph.call_module("conv", (x,)),))
    graph.call_function(torch.amp.autocast_mode._exit_autocast, (enter,))
    wide = graph.call_method("float", (inside,))
    graph.output(graph.call_module("after", (graph.call_module("last", (wide,)),)))
    image = torch.randn(IMAGE)
    outcome = optimize(torch.fx.GraphModule(module, graph), image)
    assert not torch.is_autocast_enabled("cpu")  # what is read is not run
    assert "switches autocast on or off here" in outcome.reasons
    assert outcome.layers == {"BatchNorm": 1, "Conv": 2}
    assert error(call(outcome.call, image), call(module, image)) < 0.02

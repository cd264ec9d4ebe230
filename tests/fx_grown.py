# ruff: noqa: ARG005  # every step takes the module, whether or not it has layers of its own
"""Random modules of torch for `tests.fuzz_fx`: what operators compute, in every way in which people write it.

A module grows by one random step after the other, each tried on an example as it is added. Among the steps
are functions, classes and operators of the user's own that are called as torch's, layers called as keywords,
changes in place, views, other element types.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

aten = torch.ops.aten
Step = Callable[[nn.Module, list[Any]], Any]

NAMES: tuple[str, ...] = (
    *("in", "class", "None", "0", "1", "a b", "x-y", "def", "type", "torch", "conv", "fused", "computed"),
    *("weight", "scale", "relu", "neg", "self", "getattr", "print", "lambda", "0_1", "conv_1", "é", 'q"'),
)
PLAIN: tuple[str, ...] = (
    "a",
    "b",
    "conv",
    "fused",
    "computed",
    "scale",
    "shift",
    "0",
    "1",
    "weight_1",
    "relu",
    "neg",
)


@fx.wrap
def neg(x: Tensor) -> Tensor:
    """Not torch's."""
    return x.abs()


@fx.wrap
def relu(x: Tensor) -> Tensor:
    """Not torch's."""
    return x * 0.5 + 1


@fx.wrap
def mul(x: Tensor, y: Any) -> Tensor:
    """Not torch's."""
    return x + y


@fx.wrap
def identity(x: Tensor) -> Tensor:
    """Not an identity."""
    return x.sin()


@fx.wrap
def contiguous(x: Tensor) -> Tensor:
    """Not the same values."""
    return x.cos()


@fx.wrap
def counted(x: Tensor, counter: Tensor) -> Tensor:
    """Counts in a tensor that it is given."""
    return x * counter.add_(1)


@dataclass
class Box:
    """An object of the user's whose methods are called as those of tensors."""

    value: Tensor

    def mul(self, by: float) -> "Box":
        """Not a product."""
        return Box(self.value + by)

    def contiguous(self) -> Tensor:
        """Not the same values."""
        return self.value.cos()


@fx.wrap
def box(x: Tensor) -> Box:
    """An object around a tensor."""
    return Box(x)


class Conv2d(nn.Conv2d):
    """Another forward."""

    def forward(self, x: Tensor) -> Tensor:
        """Twice the convolution, plus 1."""
        return super().forward(x) * 2 + 1


class Identity(nn.Identity):
    """Another forward."""

    def forward(self, x: Tensor) -> Tensor:
        """Not the same values."""
        return x.tanh()


@torch.library.custom_op("graph_fuser_fuzz::mul", mutates_args=())
def custom_mul(x: Tensor, y: float) -> Tensor:
    """Not a product."""
    return x + y


@torch.library.custom_op("graph_fuser_fuzz::add_", mutates_args=("x",))
def custom_add(x: Tensor, y: float) -> None:
    """A product, in place."""
    x.mul_(y)


custom_mul.register_fake(lambda x, *_: torch.empty_like(x))
custom_add.register_fake(lambda *_: None)
own = torch.ops.graph_fuser_fuzz


class Grown(nn.Module):
    """A module whose forward is a list of steps; what it returns is built of their results."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleDict()
        self.steps: list[Step] = []
        self.finish: Callable[[list[Any]], Any] = list

    def forward(self, x: Tensor, *, gain: Tensor) -> Any:
        """Run the steps on an image and a factor."""
        values = [x, gain]
        for step in self.steps:
            values.append(step(self, values))
        return self.finish(values)


@dataclass
class Net:
    """A module that grows, and the values that it has for an example of batch 2."""

    random: np.random.Generator
    names: tuple[str, ...] = NAMES
    symbolic: bool = True
    module: Grown = field(default_factory=Grown)
    values: list[Tensor] = field(default_factory=list)

    def pick(self, choices: Any) -> Any:
        """One of some."""
        return choices[int(self.random.integers(len(choices)))]

    def one(self, forms: list[Step]) -> Step:
        """One way of doing a step."""
        return forms[int(self.random.integers(len(forms)))]

    def tensor(self, *shape: int) -> Tensor:
        """A constant; now and then some of it is zero."""
        array = self.random.standard_normal(shape)
        if array.ndim > 1 and self.random.random() < 0.2:
            array[self.random.random(shape[:2]) < 0.4] = 0.0
        return torch.from_numpy(np.asarray(array))

    def place(self, keep: Callable[[nn.Module, str], None]) -> tuple[str, str]:
        """Keep something under a name that is free, in a part of the module that may be new."""
        owners = [
            name
            for name, part in self.module.named_modules()
            if type(part) is nn.ModuleDict and not name.endswith("parametrizations")  # those are torch's own
        ]
        while True:
            owner, name = self.pick(owners), self.pick(self.names)
            if self.random.random() < 0.1:
                name += str(self.random.integers(100))
            part = self.module.get_submodule(owner)
            if name in part._modules or hasattr(part, name):
                continue
            if self.random.random() < 0.2:
                part.add_module(name, nn.ModuleDict())
                owners.append(f"{owner}.{name}")
                continue
            keep(part, name)
            return owner, name

    def parameter(self, *shape: int, buffer: bool = False) -> Callable[[nn.Module], Tensor]:
        """A new parameter, or buffer."""
        tensor = self.tensor(*shape)

        def keep(part: nn.Module, name: str) -> None:
            if buffer:
                part.register_buffer(name, tensor)
            else:
                part.register_parameter(name, nn.Parameter(tensor))

        owner, name = self.place(keep)
        return lambda m: getattr(m.get_submodule(owner), name)

    def layer(self, layer: nn.Module) -> Callable[[nn.Module], Any]:
        """A new layer with random numbers in it."""
        for tensor in (*layer.parameters(), *layer.buffers()):
            if tensor.is_floating_point():
                tensor.data = self.tensor(*tensor.shape)
        if isinstance(getattr(layer, "running_var", None), Tensor):
            layer.running_var.abs_().add_(0.5)
        owner, name = self.place(lambda part, name: part.add_module(name, layer.eval()))
        return lambda m: m.get_submodule(f"{owner}.{name}")


Operation = Callable[[Net, int], Step | None]


def conv(net: Net, i: int) -> Step | None:
    """A convolution: a module, a function, a subclass, an operator, hooked or not."""
    x = net.values[i]
    if x.ndim != 4 or min(x.shape[2:]) < 3:
        return None
    size, stride, pad = net.pick((1, 1, 2, 3)), net.pick((1, 1, 2)), net.pick((0, 1))
    groups = net.pick((1, 1, x.shape[1]))
    outputs = x.shape[1] if groups > 1 else int(net.random.integers(1, 5))
    form = net.pick(("module", "module", "module", "function", "operator", "own", "hooked", "norm", "bound"))
    shape = (outputs, x.shape[1] // groups, size, size)
    if form in {"function", "operator"}:
        weight, bias = net.parameter(*shape), net.parameter(outputs)
        if form == "operator":
            geometry = ([stride] * 2, [pad] * 2, [1, 1], groups)
            return lambda m, v: aten.conv2d.default(v[i], weight(m), bias(m), *geometry)
        return lambda m, v: F.conv2d(
            v[i], weight(m) * 2, bias=bias(m), stride=stride, padding=pad, groups=groups
        )
    kind = Conv2d if form == "own" else nn.Conv2d
    made = kind(x.shape[1], outputs, size, stride, pad, groups=groups, bias=net.pick((True, False)))
    layer = net.layer(made)
    if form == "hooked":
        made.register_forward_hook(lambda *call: call[-1] * 2)
    if form == "norm":
        nn.utils.parametrizations.weight_norm(made)
    if form == "bound":
        made.forward = partial(_twice, made)  # type: ignore[method-assign]  # what some people do
    return lambda m, v: layer(m)(v[i])


def _twice(layer: nn.Conv2d, x: Tensor) -> Tensor:
    return layer._conv_forward(x, layer.weight, layer.bias) * 2


def norm(net: Net, i: int) -> Step | None:
    """A BatchNorm as a module or a function."""
    x = net.values[i]
    if x.ndim not in {2, 3, 4}:
        return None
    kind = nn.BatchNorm2d if x.ndim == 4 else nn.BatchNorm1d
    layer = net.layer(kind(x.shape[1], eps=net.pick((1e-5, 1e-2)), affine=net.pick((True, True, False))))
    if net.random.random() < 0.7:
        return lambda m, v: layer(m)(v[i])

    def step(m: nn.Module, v: list[Any]) -> Tensor:
        n = layer(m)
        return F.batch_norm(v[i], n.running_mean, n.running_var, n.weight, n.bias, False, 0.1, n.eps)

    return step


def dense(net: Net, i: int) -> Step | None:
    """A linear layer on the last axis."""
    x = net.values[i]
    outputs = int(net.random.integers(1, 6))
    form = net.pick(("module", "function", "matmul", "addmm"))
    if x.ndim < 2 or (form == "addmm" and x.ndim != 2):
        return None
    if form == "module":
        layer = net.layer(nn.Linear(x.shape[-1], outputs))
        return lambda m, v: layer(m)(v[i])
    weight, bias = net.parameter(outputs, x.shape[-1]), net.parameter(outputs)
    if form == "matmul":
        return lambda m, v: v[i] @ weight(m).t() + bias(m)
    if form == "addmm":
        return lambda m, v: torch.addmm(bias(m), v[i], weight(m).t(), beta=0.5, alpha=2)
    return lambda m, v: F.linear(v[i], weight(m), bias=bias(m))


def constant(net: Net, i: int) -> Step:
    """Arithmetic with a number or with a constant for each channel."""
    x = net.values[i]
    c = net.pick((2, 0.5, -1.0, 1, 0))
    channels = (x.shape[1], *(1,) * (x.ndim - 2)) if x.ndim > 1 else ()
    buffer = net.pick((True, False))
    p = net.parameter(*channels, buffer=buffer) if channels else (lambda m: c)
    forms: list[Step] = [
        lambda m, v: v[i] * c,
        lambda m, v: c - v[i],
        lambda m, v: v[i] / (c or 3),
        lambda m, v: -v[i],
        lambda m, v: torch.neg(v[i]),
        lambda m, v: torch.add(v[i], p(m), alpha=2),
        lambda m, v: torch.add(input=v[i], other=p(m)),
        lambda m, v: v[i].mul(p(m)),
        lambda m, v: p(m) * v[i],
        lambda m, v: v[i].sub(p(m), alpha=c),
        lambda m, v: torch.rsub(v[i], c),
        lambda m, v: v[i] - p(m),
        lambda m, v: aten.mul.Tensor(v[i], p(m)),
        lambda m, v: aten.add(v[i], p(m)),
        lambda m, v: torch.div(v[i], c or 2, rounding_mode=net_mode),
        lambda m, v: v[i] ** 2,
        lambda m, v: torch.pow(v[i].abs() + 1, p(m)),
        lambda m, v: torch.clamp(v[i], min=p(m)),
    ]
    net_mode = net.pick((None, "floor", "trunc"))
    return net.one(forms)


def together(net: Net, i: int) -> Step | None:
    """Two values that fit: a sum, a difference, a product, a concatenation."""
    x = net.values[i]
    j = net.pick([k for k, y in enumerate(net.values) if y.shape == x.shape])
    forms: list[Step] = [
        lambda m, v: v[i] + v[j],
        lambda m, v: torch.add(v[i], v[j], alpha=0.5),
        lambda m, v: v[i] - v[j],
        lambda m, v: aten.sub.Tensor(v[i], v[j]),
        lambda m, v: v[i].add(v[j]),
        lambda m, v: torch.where(v[j] > 0, v[i], v[j]),
        lambda m, v: torch.where(input=v[i], condition=v[j] > 0, other=v[j]),
        lambda m, v: v[i] * v[j].sigmoid(),
        lambda m, v: torch.stack([v[i], v[j]]).sum(0),
    ]
    if x.ndim > 1:
        forms += [
            lambda m, v: torch.cat([v[i], v[j]], 1),
            lambda m, v: torch.cat((v[i], v[j]), dim=-1),
            lambda m, v: torch.cat([v[i]], 1),
        ]
    return net.one(forms)


def bend(net: Net, i: int) -> Step:
    """Something that is not linear, out of place or in place."""
    slope = net.pick((0.1, 1.0))
    forms: list[Step] = [
        lambda m, v: v[i].relu(),
        lambda m, v: F.relu(v[i]),
        lambda m, v: torch.relu(v[i]),
        lambda m, v: torch.sigmoid(v[i]),
        lambda m, v: F.leaky_relu(v[i], slope),
        lambda m, v: F.hardtanh(v[i]),
        lambda m, v: F.silu(v[i]),
        lambda m, v: v[i].clamp(min=0),
        lambda m, v: torch.atan2(v[i], v[i] + 3),
        lambda m, v: aten.relu.default(v[i]),
        lambda m, v: v[i].sign() * v[i],
    ]
    kind = net.pick((nn.ReLU, nn.Sigmoid, nn.Hardswish, partial(nn.ReLU, inplace=True)))
    return net.one(forms) if net.random.random() < 0.7 else _module(net, i, kind())


def _module(net: Net, i: int, made: nn.Module) -> Step:
    layer = net.layer(made)
    if net.random.random() < 0.15:
        made.register_forward_pre_hook(lambda *call: (call[-1][0] + 1,))
    return lambda m, v: layer(m)(v[i])


def in_place(net: Net, i: int) -> Step:
    """A tensor that is changed."""
    c = net.pick((2.0, -1.0, 0.5))
    forms: list[Step] = [
        lambda m, v: F.relu(v[i], inplace=True),
        lambda m, v: F.relu(v[i], True),
        lambda m, v: v[i].relu_(),
        lambda m, v: torch.relu_(v[i]),
        lambda m, v: v[i].mul_(c),
        lambda m, v: v[i].add_(c),
        lambda m, v: aten.add_.Tensor(v[i], c),
        lambda m, v: F.leaky_relu(v[i], 0.1, inplace=True),
        lambda m, v: v[i].clamp_(min=0),
        lambda m, v: torch.add(v[i], c, out=torch.empty_like(v[i])),
    ]
    return net.one(forms)


def foreign(net: Net, i: int) -> Step:
    """What is called as something of torch and is not."""
    c = net.pick((2.0, -1.0, 0.5))
    own_identity = Identity()
    forms: list[Step] = [
        lambda m, v: neg(v[i]),
        lambda m, v: relu(v[i]),
        lambda m, v: mul(v[i], c),
        lambda m, v: identity(v[i]),
        lambda m, v: own.mul(v[i], c),
        lambda m, v: own.mul.default(v[i], c),
        lambda m, v: box(v[i]).mul(c).contiguous(),
        lambda m, v: box(v[i]).contiguous(),
        lambda m, v: contiguous(v[i]),
        lambda m, v: _after(own.add_(v[i], c), v[i]),
    ]
    if net.random.random() < 0.2:
        return _module(net, i, own_identity)
    return net.one(forms if net.symbolic else forms[4:6])


def _after(done: Any, x: Tensor) -> Tensor:
    """The tensor, once something was done."""
    del done
    return x + 0


def view(net: Net, i: int) -> Step | None:
    """The same elements in another shape, or some of them."""
    x = net.values[i]
    if x.ndim < 2:
        return None
    n = x.shape[1]
    forms: list[Step] = [
        lambda m, v: v[i].flatten(1),
        lambda m, v: v[i].reshape(v[i].shape[0], -1),
        lambda m, v: torch.flatten(v[i], 1).view(v[i].size(0), *x.shape[1:]),
        lambda m, v: v[i].reshape(v[i].size(0), n, -1),
        lambda m, v: v[i].transpose(1, -1),
        lambda m, v: v[i].unsqueeze(1).squeeze(1),
        lambda m, v: v[i].unsqueeze(1),
        lambda m, v: v[i].reshape(v[i].shape),
        lambda m, v: v[i].view_as(v[i]),
        lambda m, v: v[i].contiguous(),
        lambda m, v: v[i].clone(),
        lambda m, v: v[i].detach(),
        lambda m, v: v[i].expand(v[i].shape[0], *x.shape[1:]),
        lambda m, v: v[i][:, : max(1, n // 2)],
        lambda m, v: v[i][:, n // 2 :, ...],
        lambda m, v: v[i][..., 1:] if x.shape[-1] > 1 else v[i][:],
        lambda m, v: v[i].narrow(1, 0, (n + 1) // 2),
        lambda m, v: v[i].chunk(2, 1)[0],
        lambda m, v: torch.split(v[i], [1, n - 1], dim=1)[0] if n > 1 else v[i],
        lambda m, v: v[i].flip(1),
        lambda m, v: F.pad(v[i], (1, 0)),
        lambda m, v: v[i].mean(-1, keepdim=True),
        lambda m, v: v[i].sum(1, keepdim=True),
        lambda m, v: v[i].amax(-1) if x.ndim > 2 else v[i],
        lambda m, v: v[i] * v[i].shape[1] + v[i].ndim,
    ]
    return net.one(forms)


def still(net: Net, i: int) -> Step:
    """What changes nothing in evaluation mode."""
    forms: list[Step] = [
        lambda m, v: F.dropout(v[i], 0.5, training=m.training),
        lambda m, v: v[i].to(torch.float64),
        lambda m, v: v[i].to(v[i].dtype),
        lambda m, v: v[i] * 1 + 0,
    ]
    kind = net.pick((nn.Identity, nn.Dropout))
    return net.one(forms) if net.random.random() < 0.6 else _module(net, i, kind())


def other_type(net: Net, i: int) -> Step:
    """Another element type, and back."""
    narrow = net.pick((torch.float32, torch.float16, torch.bfloat16))
    layer = net.layer(nn.Conv2d(net.values[i].shape[1], 2, 1)) if net.values[i].ndim == 4 else None
    if layer is not None and net.random.random() < 0.5:
        layer(net.module).to(narrow)
        return lambda m, v: layer(m)(v[i].to(narrow)).double()
    forms: list[Step] = [
        lambda m, v: v[i].to(narrow).to(torch.float64),
        lambda m, v: (v[i].float() * 2 + 1).double(),
        lambda m, v: v[i].to(torch.int64) * 2 + v[i],
        lambda m, v: v[i] * (v[i] > 0),
        lambda m, v: (v[i] > 0).to(v[i]),
    ]
    return net.one(forms)


def pool(net: Net, i: int) -> Step | None:
    """A pool of images."""
    x = net.values[i]
    if x.ndim != 4 or min(x.shape[2:]) < 3:
        return None
    pad, counted = net.pick((0, 1)), net.pick((True, False))
    made = nn.AvgPool2d(
        2, net.pick((1, 2)), pad, count_include_pad=counted, ceil_mode=net.pick((True, False))
    )
    forms: list[Step] = [
        lambda m, v: F.avg_pool2d(v[i], 2, padding=pad, count_include_pad=counted),
        lambda m, v: F.max_pool2d(v[i], 2, stride=1),
        lambda m, v: F.adaptive_avg_pool2d(v[i], 1),
        lambda m, v: F.interpolate(v[i], scale_factor=2.0),
    ]
    return net.one(forms) if net.random.random() < 0.6 else _module(net, i, made)


def count(net: Net, i: int) -> Step | None:
    """A buffer that counts calls; where buffers are not traced, the trace would count."""
    if net.names is PLAIN:
        return None
    buffer = net.parameter(1, buffer=True)
    if net.symbolic and net.random.random() < 0.5:
        return lambda m, v: counted(v[i], buffer(m)) - buffer(m)
    return lambda m, v: v[i] * buffer(m).add_(1.0)


OPERATIONS: tuple[Operation, ...] = (
    conv, conv, conv, conv, norm, norm, norm, dense, constant, constant, together, together,
    bend, bend, in_place, foreign, view, view, still, other_type, pool, count,
)  # fmt: skip

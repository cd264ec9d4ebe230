"""Small modules of torch for the tests of the fx host, and the four ways in which a graph comes of them."""

from collections import Counter
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from fuser.compiler import rewrite
from fuser.hosts.torch.drafts import draft_of
from fuser.hosts.torch.front import capture, export, trace
from fuser.rewrite.pattern import Event, select

FORMS = ("symbolic", "export", "program", "decomposed")


class Net(nn.Module):
    """A module whose forward is a function of it and its input."""

    def __init__(self, call: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        self.call = call
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Tensor) -> Any:
        return self.call(self, x)


def generic(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module in evaluation mode, with statistics, scales and biases that are not 0 and 1."""
    torch.manual_seed(seed)
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.running_mean is not None:
            nn.init.normal_(part.running_mean, 0, 0.5)
            nn.init.uniform_(part.running_var, 0.5, 2)
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.affine:
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias)
        elif getattr(part, "bias", None) is not None:
            nn.init.normal_(part.bias)
    return module.eval()


def repvgg(channels: int = 6, groups: int = 1) -> nn.Module:
    """BN(C3 x) + BN(C1 x) + BN(x), ReLU."""
    return Net(
        lambda m, x: m.act(m.norm3(m.conv3(x)) + m.norm1(m.conv1(x)) + m.skip(x)),
        conv3=nn.Conv2d(channels, channels, 3, padding=1, groups=groups, bias=False),
        norm3=nn.BatchNorm2d(channels),
        conv1=nn.Conv2d(channels, channels, 1, groups=groups, bias=False),
        norm1=nn.BatchNorm2d(channels),
        skip=nn.BatchNorm2d(channels),
        act=nn.ReLU(inplace=True),
    )


@dataclass(frozen=True)
class Outcome:
    """What became of a module in one form."""

    result: fx.GraphModule | ExportedProgram
    call: Any
    operators: Counter[str]
    events: Sequence[Event]

    @property
    def layers(self) -> dict[str, int]:
        """Convolutions, linear layers and norms that are left."""
        names = {"conv": "Conv", "transpose": "ConvTranspose", "linear": "Linear", "norm": "BatchNorm"}
        return {names[kind]: n for kind, n in sorted(self.operators.items()) if kind in names}

    @property
    def applied(self) -> list[str]:
        """The rewrites that were made."""
        return [event.rewrite for event in self.events if event.status == "applied"]

    @property
    def reasons(self) -> str:
        """Why others were not."""
        return "\n".join(event.reason for event in self.events)


def captured(
    module: nn.Module, x: Tensor, form: str, dynamic_shapes: Any = None
) -> nn.Module | ExportedProgram:
    """The module as one of the four kinds of graph."""
    if form == "symbolic":
        return trace(module)
    if form == "export":
        return capture(module, (x,), dynamic_shapes)
    program = export(module, (x,), dynamic_shapes)
    return program if form == "program" else program.run_decompositions()


def optimize(
    source: nn.Module | ExportedProgram, x: Tensor | None = None, passes: Sequence[str] | None = None
) -> Outcome:
    """Optimize, and look at what is left."""
    draft = draft_of(source, None if x is None else (x,))
    events = rewrite(draft, select(passes), "").events
    result = draft.result()
    assert isinstance(result, fx.GraphModule | ExportedProgram)
    call = result.module() if isinstance(result, ExportedProgram) else result
    return Outcome(result, call, operators(result), events)


def operators(model: Any) -> Counter[str]:
    """Calls by kind, however they are written; what guards inputs is left out."""
    found: Counter[str] = Counter()
    for node in model.graph.nodes:
        if node.op == "call_module" and str(node.target) != "_guards_fn":
            found[_kind(type(model.get_submodule(node.target)).__name__)] += 1
        elif node.op in {"call_function", "call_method"}:
            name = getattr(node.target, "__name__", str(node.target)).partition(".")[0]
            transposed = name == "convolution" and len(node.args) > 6 and node.args[6]
            found["transpose" if transposed else _kind(name)] += 1
    return found


def _kind(name: str) -> str:
    name = name.lower().strip("_")
    for kind, words in {
        "transpose": ("convtranspose", "conv_transpose"),
        "conv": ("conv",),
        "linear": ("linear", "addmm", "matmul", "mm"),
        "norm": ("batchnorm", "batch_norm", "native_batch_norm"),
    }.items():
        if name.startswith(words):
            return kind
    return name


def callable_of(source: nn.Module | ExportedProgram) -> Any:
    """What runs a graph."""
    return source.module() if isinstance(source, ExportedProgram) else source


def outputs(result: Any) -> list[Tensor]:
    """The tensors in a result, in order."""
    return [leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, Tensor)]


def error(result: Any, expected: Any) -> float:
    """The largest difference, each output relative to its largest magnitude."""
    assert pytree.tree_structure(result) == pytree.tree_structure(expected)
    pairs = list(zip(outputs(result), outputs(expected), strict=True))
    assert all(a.shape == b.shape and a.dtype == b.dtype for a, b in pairs)
    return max(
        float((a - b).detach().double().abs().max() / b.detach().double().abs().max()) for a, b in pairs
    )


def call(module: Callable[..., Any], x: Tensor) -> Any:
    """The result for a copy of the input, which the module may change."""
    with torch.no_grad():
        return module(deepcopy(x))

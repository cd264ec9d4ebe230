"""Calls of modules, read as calls of functions are: their tensors become operands."""

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import Any, Final

import torch
from torch import fx, nn
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from fuser.hosts.torch.arguments import Arguments
from fuser.hosts.torch.call import (
    Bound,
    Operand,
    adaptive_pool,
    batch_norm,
    call,
    conv,
    dropout,
    pad,
    pool,
    unknown,
)
from fuser.hosts.torch.identity import title
from fuser.hosts.torch.tensor import dtype_name, read_tensor
from fuser.ir.constant import Constant

UNARY_MODULES: Final[dict[type[nn.Module], str]] = {
    nn.CELU: "celu",
    nn.ELU: "elu",
    nn.GELU: "gelu",
    nn.GroupNorm: "group_norm",
    nn.Hardsigmoid: "hardsigmoid",
    nn.Hardswish: "HardSwish",
    nn.Hardtanh: "hardtanh",
    nn.LayerNorm: "layer_norm",
    nn.LogSigmoid: "logsigmoid",
    nn.LogSoftmax: "log_softmax",
    nn.Mish: "Mish",
    nn.PReLU: "prelu",
    nn.ReLU: "Relu",
    nn.ReLU6: "relu6",
    nn.SELU: "Selu",
    nn.SiLU: "Swish",
    nn.Sigmoid: "Sigmoid",
    nn.Softmax: "softmax",
    nn.Softplus: "softplus",
    nn.Softsign: "Softsign",
    nn.Tanh: "Tanh",
}
DROPOUTS: Final = (
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.Dropout3d,
    nn.AlphaDropout,
    nn.FeatureAlphaDropout,
)
CONVS: Final = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED: Final = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
NORMS: Final[dict[type[nn.Module], tuple[int, ...]]] = {
    nn.BatchNorm1d: (2, 3),
    nn.BatchNorm2d: (4,),
    nn.BatchNorm3d: (5,),
    nn.SyncBatchNorm: (),
}
PADS: Final = tuple(getattr(nn, f"{kind}Pad{n}d") for kind in ("Constant", "Zero") for n in (1, 2, 3))
POOLS: Final = {
    "AveragePool": (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
    "MaxPool": (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d),
}
ADAPTIVE_POOLS: Final = {
    "AdaptiveAveragePool": (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
    "AdaptiveMaxPool": (nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
}

FRESH: Final = (
    *CONVS,
    *TRANSPOSED,
    *NORMS,
    *(kind for kinds in (*POOLS.values(), *ADAPTIVE_POOLS.values()) for kind in kinds),
    nn.GroupNorm,
    nn.LayerNorm,
    nn.Linear,
)


def read_module(node: fx.Node, module: nn.Module) -> Bound:
    """The call of a module: its tensors become operands."""
    nodes = tuple(node.all_input_nodes)
    if len(nodes) == 1 and node.args == nodes and not node.kwargs:
        found = _known(module, nodes[0])
        hook = _hooked(module)
        if found is not None and not hook:
            return found
        if found is not None:
            # What comes out may be anything, but the reason is worth telling.
            return call(title(type(module)), *nodes, *tensors_of(module), refusal=hook)
    return unknown(node, type(module), tensors_of(module))


def tensors_of(module: nn.Module) -> Iterator[torch.Tensor]:
    """Every parameter and buffer of a module."""
    yield from module.parameters()
    yield from module.buffers()


def duplicate(part: Any, memo: dict[int, Any] | None = None) -> Any:
    """A deep copy of a module or tensor, with what a hook computed of its parameters: torch copies none."""
    memo = {} if memo is None else memo
    modules = list(part.modules()) if isinstance(part, nn.Module) else []
    for value in (part, *(value for module in modules for value in vars(module).values())):
        if isinstance(value, torch.Tensor) and not value.is_leaf:
            memo.setdefault(id(value), value.detach().clone())
    made = deepcopy(part, memo)
    for module in modules:
        if isinstance(module, fx.GraphModule):
            _call_alike(module, memo[id(module)], memo)
    return made


def _call_alike(module: fx.GraphModule, copy: nn.Module, memo: dict[int, Any]) -> None:
    """Give a copy the hooks and the `forward` of the original: the copies that torch makes have neither."""
    wanted = set(map(id, hooks_of(module)))
    for name in ("_forward_pre_hooks", "_forward_hooks"):
        hooks = {key: hook for key, hook in getattr(module, name).items() if id(hook) in wanted}
        getattr(copy, name).update(deepcopy(hooks, memo))
        for flag in FLAGS:
            flags = getattr(module, name + flag, {})
            getattr(copy, name + flag, {}).update({key: flags[key] for key in hooks if key in flags})
    if "forward" in vars(module):
        copy.forward = deepcopy(module.forward, memo)


FLAGS: Final = ("_with_kwargs", "_always_called")
"""Of torch's tables that say how a hook is called, what follows the name of the table that holds it."""

CALL: Final = ("forward", "__call__", "_call_impl", "_wrapped_call_impl")


def _same(module: nn.Module, kind: type[nn.Module], *methods: str) -> bool:
    """Whether the module does what `kind` does; a subclass may only add what does not compute.

    Nor may the module have a `forward` of its own.
    """
    return isinstance(module, kind) and all(
        getattr(type(module), method) is getattr(kind, method) and method not in vars(module)
        for method in (*CALL, *methods)
    )


def makes_its_own(module: nn.Module | None) -> bool:
    """Whether the result is a tensor of its own, and neither the operand nor a view of it."""
    return module is not None and not _hooked(module) and any(_same(module, kind) for kind in FRESH)


def is_plain(module: nn.Module) -> bool:
    """Whether a module computes as torch defines it, the same whenever it is called in evaluation mode."""
    defined = getattr(type(module).forward, "__globals__", {}).get("__name__", "")
    random = isinstance(module, nn.FractionalMaxPool2d | nn.FractionalMaxPool3d)
    own = any(method in vars(module) for method in CALL)
    return str(defined).startswith("torch.nn.") and not own and not random and not _hooked(module)


COMPUTE: Final = (WeightNorm, SpectralNorm, BasePruningMethod)
"""Hooks that compute a weight of other parameters, and do nothing else."""


CHECKS: Final = "torch.export."
"""Where the hooks are defined that refuse the inputs that a program was not exported for."""


def hooks_of(module: nn.Module) -> list[Any]:
    """The hooks that may change what a call computes. Those that only compute a weight are known."""
    hooks = (*module._forward_pre_hooks.values(), *module._forward_hooks.values())
    return [
        hook
        for hook in hooks
        if not isinstance(hook, COMPUTE) and not str(getattr(hook, "__module__", "")).startswith(CHECKS)
    ]


def added_to(module: nn.Module) -> str:
    """What was added to the call of a module from outside of its class; nothing where nothing was."""
    for hook in hooks_of(module):
        return f"a forward hook, {getattr(hook, '__qualname__', type(hook).__name__)}"
    return "a forward of its own" if "forward" in vars(module) else ""


def _hooked(module: nn.Module) -> str:
    """Why a module cannot be replaced: hooks would be lost."""
    return f"the module has {added_to(module)}, which would be lost" if hooks_of(module) else ""


def _tensor(module: nn.Module, name: str) -> Operand:
    """A parameter or buffer of a module; what a parametrisation or hook computes is read on demand."""
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, WeightNorm) and hook.name == name:
            return _computed(partial(hook.compute_weight, module))
        if isinstance(hook, SpectralNorm) and hook.name == name:
            return _computed(partial(hook.compute_weight, module, do_power_iteration=False))
        if isinstance(hook, BasePruningMethod) and hook._tensor_name == name:
            return _computed(partial(hook.apply_mask, module))
    if parametrize.is_parametrized(module, name):
        return _computed(lambda: getattr(module, name))
    tensor = getattr(module, name)
    assert tensor is None or isinstance(tensor, torch.Tensor), f"{name} is a {type(tensor).__name__}"
    return tensor


def _computed(compute: Callable[[], torch.Tensor]) -> Constant:
    with torch.no_grad():
        like = compute()

    def array() -> Any:
        with torch.no_grad():
            return read_tensor(compute()).array()

    return Constant(tuple(like.shape), dtype_name(like.dtype), array)


def _known(module: nn.Module, x: fx.Node) -> Bound | None:
    """The call of a module whose mathematics is known."""
    for rule in (_identity, _unary, _conv, _norm, _linear, _pad, _pool):
        found = rule(module, x)
        if found is not None:
            return found
    return None


def _given(module: nn.Module, *names: str) -> Arguments:
    """What a module was made with, of what it has."""
    return Arguments({name: getattr(module, name) for name in names if hasattr(module, name)}, {})


def _identity(module: nn.Module, x: fx.Node) -> Bound | None:
    if _same(module, nn.Identity):
        return call("Identity", x)
    if any(_same(module, kind) for kind in DROPOUTS):
        return dropout(x, _given(module, "p", "training"))
    if _same(module, nn.Flatten):
        return call("flatten", x, start=module.start_dim, end=module.end_dim)
    if _same(module, nn.LeakyReLU):
        return call("LeakyRelu", x, alpha=module.negative_slope)
    return None


def _unary(module: nn.Module, x: fx.Node) -> Bound | None:
    name = UNARY_MODULES.get(type(module))
    return call(name, x, *tensors_of(module)) if name is not None and _same(module, type(module)) else None


def _conv(module: nn.Module, x: fx.Node) -> Bound | None:
    plain = any(_same(module, kind, "_conv_forward") for kind in CONVS)
    transposed = any(_same(module, kind, "_output_padding") for kind in TRANSPOSED)
    if not plain and not transposed:
        return None
    operands = (x, _tensor(module, "weight"), _tensor(module, "bias"))
    given = _given(module, "stride", "padding", "dilation", "groups", "output_padding")
    found = conv(len(module.kernel_size), operands, given, transposed=transposed)
    padded = any(module._reversed_padding_repeated_twice) if plain else False
    if not padded or module.padding_mode == "zeros":
        return found
    return replace(found, call=replace(found.call, refusal=f"padding_mode is {module.padding_mode!r}"))


def _norm(module: nn.Module, x: fx.Node) -> Bound | None:
    for kind, ranks in NORMS.items():
        if _same(module, kind, "_check_input_dim"):
            names = ("weight", "bias", "running_mean", "running_var")
            operands = (x, *(_tensor(module, name) for name in names))
            return batch_norm(operands, _given(module, "training", "eps"), ranks=ranks)
    return None


def _linear(module: nn.Module, x: fx.Node) -> Bound | None:
    if not _same(module, nn.Linear):
        return None
    return call("Linear", x, _tensor(module, "weight"), _tensor(module, "bias"))


def _pad(module: nn.Module, x: fx.Node) -> Bound | None:
    if not any(_same(module, kind) for kind in PADS):
        return None
    return pad(x, Arguments({"pad": module.padding, "value": getattr(module, "value", 0.0)}, {}))


def _pool(module: nn.Module, x: fx.Node) -> Bound | None:
    names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
    for kind, classes in POOLS.items():
        for rank, cls in enumerate(classes, start=1):
            if _same(module, cls):
                given = _given(module, *names, "count_include_pad", "divisor_override")
                return pool(kind, rank, x, given)
    for kind, classes in ADAPTIVE_POOLS.items():
        for rank, cls in enumerate(classes, start=1):
            if _same(module, cls):
                return adaptive_pool(kind, rank, x, _given(module, "output_size"))
    return None

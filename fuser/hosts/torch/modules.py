"""Calls of modules in the same normal form as calls of functions: their tensors become operands."""

from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial
from typing import Any, Final

import torch
from torch import fx, nn
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from fuser.hosts.torch.call import Call, Operand, unknown
from fuser.hosts.torch.identity import title
from fuser.hosts.torch.tensor import dtype_name, read_tensor
from fuser.ir.constant import Constant

UNARY_MODULES: Final[dict[type[nn.Module], str]] = {
    nn.CELU: "celu",
    nn.ELU: "elu",
    nn.GELU: "gelu",
    nn.GroupNorm: "group_norm",
    nn.Hardsigmoid: "hardsigmoid",
    nn.Hardswish: "hardswish",
    nn.Hardtanh: "hardtanh",
    nn.LayerNorm: "layer_norm",
    nn.LeakyReLU: "leaky_relu",
    nn.LogSigmoid: "logsigmoid",
    nn.LogSoftmax: "log_softmax",
    nn.Mish: "mish",
    nn.PReLU: "prelu",
    nn.ReLU: "relu",
    nn.ReLU6: "relu6",
    nn.SELU: "selu",
    nn.SiLU: "silu",
    nn.Sigmoid: "sigmoid",
    nn.Softmax: "softmax",
    nn.Softplus: "softplus",
    nn.Softsign: "softsign",
    nn.Tanh: "tanh",
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
AVERAGE_POOLS: Final = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
MAX_POOLS: Final = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
ADAPTIVE_POOLS: Final = tuple(
    getattr(nn, f"Adaptive{kind}Pool{n}d") for kind in ("Avg", "Max") for n in (1, 2, 3)
)

FRESH: Final = (
    *CONVS,
    *TRANSPOSED,
    *NORMS,
    *AVERAGE_POOLS,
    *MAX_POOLS,
    *ADAPTIVE_POOLS,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.Linear,
)


def normalise_module(node: fx.Node, module: nn.Module) -> Call:
    """The normal form of a call of a module."""
    nodes = tuple(node.all_input_nodes)
    if len(nodes) == 1 and node.args == nodes and not node.kwargs:
        call = _known(module, nodes[0])
        hook = _hooked(module)
        if call is not None and not hook:
            return call
        if call is not None:
            # What comes out may be anything, but the reason is worth telling.
            return Call(title(type(module)), (*nodes, *tensors_of(module)), refusal=hook)
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


def _known(module: nn.Module, x: fx.Node) -> Call | None:
    """The normal form of a module whose mathematics is known."""
    for rule in (_identity, _unary, _conv, _norm, _linear, _pad, _pool):
        call = rule(module, x)
        if call is not None:
            return call
    return None


def _identity(module: nn.Module, x: fx.Node) -> Call | None:
    if _same(module, nn.Identity):
        return Call("identity", (x,))
    if any(_same(module, kind) for kind in DROPOUTS):
        return Call("dropout", (x,), {"p": module.p, "training": module.training})
    if _same(module, nn.Flatten):
        return Call("flatten", (x,), {"start_dim": module.start_dim, "end_dim": module.end_dim})
    return None


def _unary(module: nn.Module, x: fx.Node) -> Call | None:
    name = UNARY_MODULES.get(type(module))
    if name is None or not _same(module, type(module)):
        return None
    attributes = {"negative_slope": module.negative_slope} if name == "leaky_relu" else {}
    return Call(name, (x, *tensors_of(module)), attributes)


def _conv(module: nn.Module, x: fx.Node) -> Call | None:
    plain = any(_same(module, kind, "_conv_forward") for kind in CONVS)
    transposed = any(_same(module, kind, "_output_padding") for kind in TRANSPOSED)
    if not plain and not transposed:
        return None
    attributes = {
        name: getattr(module, name)
        for name in ("stride", "padding", "dilation", "groups", "transposed", "output_padding")
    }
    padded = any(module._reversed_padding_repeated_twice) if plain else False
    refusal = f"padding_mode is {module.padding_mode!r}" if padded and module.padding_mode != "zeros" else ""
    return Call("conv", (x, _tensor(module, "weight"), _tensor(module, "bias")), attributes, refusal)


def _norm(module: nn.Module, x: fx.Node) -> Call | None:
    for kind, ranks in NORMS.items():
        if _same(module, kind, "_check_input_dim"):
            names = ("weight", "bias", "running_mean", "running_var")
            attributes = {"eps": module.eps, "training": module.training, "ranks": ranks}
            return Call("batch_norm", (x, *(_tensor(module, name) for name in names)), attributes)
    return None


def _linear(module: nn.Module, x: fx.Node) -> Call | None:
    if not _same(module, nn.Linear):
        return None
    return Call("linear", (x, _tensor(module, "weight"), _tensor(module, "bias")))


def _pad(module: nn.Module, x: fx.Node) -> Call | None:
    if not any(_same(module, kind) for kind in PADS):
        return None
    return Call(
        "pad", (x,), {"pad": module.padding, "mode": "constant", "value": getattr(module, "value", 0.0)}
    )


def _pool(module: nn.Module, x: fx.Node) -> Call | None:
    for kinds, names in (
        (AVERAGE_POOLS, ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad")),
        (MAX_POOLS, ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")),
        (ADAPTIVE_POOLS, ("output_size",)),
    ):
        for kind in kinds:
            if _same(module, kind):
                attributes = {name: getattr(module, name) for name in names}
                attributes["divisor_override"] = getattr(module, "divisor_override", None)
                name = kind.__name__.replace("Pool", "_pool").replace("Adaptive", "adaptive_").lower()
                return Call(name, (x,), attributes)
    return None

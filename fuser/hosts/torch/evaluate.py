"""Evaluation of single fx nodes on arrays: of constants in the graph, and for checks in float64."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx, nn
from torch.nn.utils import parametrize

from fuser.hosts.torch.call import Bound
from fuser.hosts.torch.describe import described
from fuser.hosts.torch.identity import draws, name_of, of_torch, title
from fuser.hosts.torch.modules import is_plain, tensors_of
from fuser.hosts.torch.tensor import to_numpy, to_torch, torch_dtype

Evaluate = Callable[..., tuple[NDArray[Any], ...]]


def evaluator(node: fx.Node, bound: Bound, module: nn.Module | None) -> Evaluate | None:
    """What computes the outputs of a node; None where they are not a function of its operands alone."""
    if not idle(bound) and not repeatable(node, module):
        return None

    def evaluate(*arrays: NDArray[Any] | None) -> tuple[NDArray[Any], ...]:
        known = dict(zip(bound.operands, arrays, strict=True))
        tensors = {
            operand: int(array) if is_extent(operand) else to_torch(array)
            for operand, array in known.items()
            if isinstance(operand, fx.Node) and array is not None
        }
        try:
            with torch.no_grad():
                result = _run(node, module, tensors)
        except (RuntimeError, TypeError, IndexError, KeyError) as error:
            raise ValueError(f"{node.name} cannot be evaluated: {error}") from error
        return _arrays(node, result)

    return evaluate


def idle(bound: Bound) -> bool:
    """Whether a call that may draw random numbers draws none: dropout outside training."""
    return bound.kind == "Dropout" and bound.call.attributes.get("training_mode") is False


def repeatable(node: fx.Node, module: nn.Module | None) -> bool:
    """Whether a node computes the same of the same operands: of torch alone, drawing no random numbers."""
    if node.op == "call_module":
        return module is not None and is_plain(module)
    if isinstance(node.target, torch._ops.OpOverload | torch._ops.OpOverloadPacket):
        known = title(node.target).startswith("torch::")
    else:
        known = name_of(node) != "" or of_torch(node.target)
    return known and not draws(node) and not switches_autocast(node)


def switches_autocast(node: fx.Node) -> bool:
    """Whether the node changes what torch computes afterwards: to run it would change this process."""
    return "autocast" in getattr(node.target, "__name__", "")


def _run(node: fx.Node, module: nn.Module | None, tensors: Mapping[fx.Node, torch.Tensor | int]) -> Any:
    args, kwargs = fx.map_arg((node.args, node.kwargs), lambda n: tensors[n])
    if kwargs.get("device") is not None:
        kwargs = {**kwargs, "device": "cpu"}
    if node.op == "call_method":
        return getattr(args[0], str(node.target))(*args[1:], **kwargs)
    if node.op == "call_function":
        assert callable(node.target)
        return node.target(*args, **kwargs)
    assert module is not None, f"there is no module {node.target}"
    if any(True for _ in tensors_of(module)) or getattr(module, "inplace", False):
        # What computes a weight of its own, which takes nothing, computes it in its own type.
        first = next((tensor for tensor in tensors.values() if isinstance(tensor, torch.Tensor)), None)
        module = _converted(module, first.dtype if first is not None and first.is_floating_point() else None)
    return module(*args, **kwargs)


def _converted(module: nn.Module, dtype: torch.dtype | None) -> nn.Module:
    """A copy of the module that computes in `dtype`, of what it holds too, and changes nothing in place.

    A weight that the module computes is computed in the module's own type: that is the weight that it has.
    """

    def convert(held: Any) -> Any:
        if isinstance(held, torch.Tensor):
            return held.detach().to("cpu", dtype if held.is_floating_point() else None)
        return held

    module = with_its_weights(module)
    made: nn.Module = object.__new__(type(module))
    made.__dict__.update({name: convert(held) for name, held in module.__dict__.items()})
    made._parameters = {
        name: None if held is None else nn.Parameter(convert(held), requires_grad=False)
        for name, held in module._parameters.items()
    }
    made._buffers = {name: convert(held) for name, held in module._buffers.items()}
    made._modules = {
        name: None if part is None else _converted(part, dtype) for name, part in module._modules.items()
    }
    if hasattr(made, "inplace"):
        made.inplace = False
    return made


def with_its_weights(module: nn.Module) -> nn.Module:
    """The module with what parametrisations and torch's own hooks compute in their place."""
    hooks = {k: h for k, h in module._forward_pre_hooks.items() if type(h).__module__.startswith("torch.nn.")}
    computed = list(module.parametrizations) if parametrize.is_parametrized(module) else []
    if not hooks and not computed:
        return module
    made: nn.Module = object.__new__(type(module).__bases__[0] if computed else type(module))
    made.__dict__.update(module.__dict__)
    made._parameters = dict(module._parameters)
    made._modules = {name: part for name, part in module._modules.items() if name != "parametrizations"}
    made._parameters.update({name: nn.Parameter(getattr(module, name).detach()) for name in computed})
    made._forward_pre_hooks = type(module._forward_pre_hooks)()
    made._forward_pre_hooks.update(
        {key: hook for key, hook in module._forward_pre_hooks.items() if key not in hooks}
    )
    for hook in hooks.values():
        hook(made, ())
    return made


def is_extent(node: fx.Node) -> bool:
    """Whether the result is a number, such as an extent, and no tensor."""
    return isinstance(described(node), torch.SymInt | int)


def _arrays(node: fx.Node, result: Any) -> tuple[NDArray[Any], ...]:
    if isinstance(result, torch.Tensor):
        return (to_numpy(result),)
    if isinstance(result, int | float):
        return (np.asarray(result),)
    if isinstance(result, list | tuple):
        # Only the parts that are read are outputs of the node.
        read = sorted(
            {user.args[1] for user in node.users if len(user.args) > 1 and isinstance(user.args[1], int)}
        )
        return tuple(to_numpy(result[index]) for index in read)
    raise ValueError(f"{node.name} returns a {type(result).__name__}")


def outline(
    node: fx.Node, module: nn.Module | None, types: dict[fx.Node, tuple[tuple[int, ...], str]]
) -> Any:
    """What the result of a node is like, for operands of known types; None where that fails."""
    if switches_autocast(node):
        return None
    tensors = {
        operand: torch.empty(shape, dtype=torch_dtype(dtype), device="meta")
        for operand, (shape, dtype) in types.items()
    }
    try:
        with torch.no_grad():
            result = _run(node, None if module is None else deepcopy(module).to("meta"), tensors)
    except (RuntimeError, TypeError, IndexError, KeyError, AssertionError, NotImplementedError):
        return None
    return result

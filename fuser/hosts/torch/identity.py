"""What a node of fx calls, told by identity: the function, the overload, the class, a method of a tensor.

What something is called says nothing: a user's function may be called `neg`, an operator of another library
`mul`, a class `Conv2d`, a method of the user's own object `add`.
"""

import operator
from functools import cache
from types import BuiltinFunctionType, FunctionType
from typing import Any, Final
from weakref import WeakKeyDictionary

import torch
from torch import fx, nn

from fuser.hosts.torch.describe import described

_ARITHMETIC: Final = {
    **{name: name for name in ("add", "sub", "mul", "matmul", "floordiv", "pow", "lshift", "rshift")},
    "truediv": "div",
    "mod": "remainder",
    "and_": "bitwise_and",
    "or_": "bitwise_or",
    "xor": "bitwise_xor",
}
OPERATORS: Final[dict[Any, str]] = {
    **{getattr(operator, name): kind for name, kind in _ARITHMETIC.items()},
    **{getattr(operator, f"i{name.strip('_')}"): f"{kind}_" for name, kind in _ARITHMETIC.items()},
    **{getattr(operator, name): name for name in ("neg", "pos", "abs", "invert", "getitem")},
    **{getattr(operator, name): name for name in ("lt", "le", "gt", "ge", "eq", "ne")},
    operator.setitem: "setitem_",
    getattr: "getattr",
}
"""What Python's own operators are called where operands are tensors, `add_` what works in place."""

RENAMED: Final = {
    "_threshold": "threshold",
    "log_sigmoid": "logsigmoid",
}
"""Functions of torch.nn.functional that are not called as the operator, or take its arguments otherwise."""

ALIASES: Final = {
    "_adaptive_avg_pool2d": "adaptive_avg_pool2d",
    "_adaptive_avg_pool3d": "adaptive_avg_pool3d",
    "_convolution": "convolution",
    "_log_softmax": "log_softmax",
    "_native_batch_norm_legit": "native_batch_norm",
    "_native_batch_norm_legit_no_training": "inference_batch_norm",
    "_softmax": "softmax",
    "max_pool2d_with_indices": "max_pool2d",
    "max_pool3d_with_indices": "max_pool3d",
    "_to_copy": "to",
    "_unsafe_view": "reshape",
    "split_with_sizes": "split",
    "alias": "identity",
    "alpha_dropout": "dropout",
    "concat": "cat",
    "divide": "div",
    "dsmm": "mm",
    "dropout1d": "dropout",
    "dropout2d": "dropout",
    "dropout3d": "dropout",
    "feature_alpha_dropout": "dropout",
    "feature_dropout": "dropout",
    "multiply": "mul",
    "negative": "neg",
    "subtract": "sub",
    "true_divide": "div",
    "view": "reshape",
}
"""Names that torch has for the same operator, or for one that differs in what we do not look at."""

QUANTIZED: Final = frozenset({"quantized", "quantized_decomposed", "torchao"})
"""Libraries of operators whose values stand for others, scaled and shifted."""

_NO_TENSOR: Final = frozenset(
    {"dim", "element_size", "get_device", "is_complex", "is_contiguous", "is_floating_point", "item"}
    | {"ndimension", "nelement", "numel", "numpy", "size", "storage_offset", "stride", "tolist", "type"}
)
"""Methods of a tensor that return something else."""

_PARTS: Final = frozenset({"T", "mT", "H", "mH", "data", "real", "imag", "grad"})
"""Attributes of a tensor that are tensors."""

# Functions of Python that draw numbers without an operator of their name that says so.
_DRAW: Final = frozenset({"gumbel_softmax", "dropout1d", "dropout2d", "dropout3d"}) | {
    f"fractional_max_pool{n}d{more}" for n in (2, 3) for more in ("", "_with_indices")
}


def of_torch(function: Any) -> bool:
    """Whether torch defines a function; one that wraps it and took its name and module is not torch's."""
    if isinstance(function, FunctionType):
        return str(function.__globals__.get("__name__")).split(".")[0] == "torch"
    return isinstance(function, BuiltinFunctionType) and function in _builtins()


@cache
def _builtins() -> frozenset[object]:
    found = (*vars(torch).values(), *vars(torch._C._nn).values())
    return frozenset(entry for entry in found if isinstance(entry, BuiltinFunctionType))


@cache
def functions() -> dict[Any, str]:
    """Every function that has the name of an operator, and the name.

    Names are the functions' own: somebody may have put another one in the place that has the name.
    """
    found = dict(OPERATORS)
    for owner, renamed in ((nn.functional, RENAMED), (torch, {}), (torch._C._nn, RENAMED)):
        for function in vars(owner).values():
            if of_torch(function):
                found.setdefault(function, renamed.get(function.__name__, function.__name__))
    return found


def _known_function(target: Any) -> str:
    """The name of a function of torch or Python's arithmetic; other objects may be equal to anything."""
    return functions().get(target, "") if isinstance(target, FunctionType | BuiltinFunctionType) else ""


def name_of(node: fx.Node) -> str:
    """What a function or method is called, `add_` for one that works in place; empty if it is not torch's."""
    if node.op == "call_method":
        name = str(node.target)
        return name if hasattr(torch.Tensor, name) and is_tensor(_receiver(node)) else ""
    if node.op != "call_function":
        return ""
    if isinstance(node.target, torch._ops.OpOverload):
        return _overload(node.target)
    if isinstance(node.target, torch._ops.OpOverloadPacket):
        namespace, _, name = node.target._qualified_op_name.partition("::")
        return name if namespace == "aten" else ""
    return _known_function(node.target)


def canonical(name: str) -> str:
    """The name behind a name; what works in place computes what the others compute."""
    bare = name[:-1] if name.endswith("_") and not name.endswith("__") else name
    return ALIASES.get(bare, bare)


@cache
def _overload(overload: Any) -> str:
    """The name of an aten operator of tensors: there are namesakes on lists, numbers and strings."""
    namespace, _, name = overload._schema.name.partition("::")
    written = "out" in overload._overloadname.split("_") or overload._overloadname == "no_stats"
    arguments = overload._schema.arguments
    of_tensors = bool(arguments) and _is_tensor_type(arguments[0].type)
    return name if namespace == "aten" and of_tensors and not written else ""


def _is_tensor_type(kind: Any) -> bool:
    while hasattr(kind, "getElementType"):
        kind = kind.getElementType()
    return isinstance(kind, torch.TensorType)


def title(target: Any) -> str:
    """The name of a function, operator or class of which nothing is known, never one that an operator has.

    `mylib::mul`, `my.module::neg`; what is torch's own is `torch::atan2`.
    """
    if isinstance(target, str):
        return f"method::{target}"
    name = str(getattr(target, "__name__", type(target).__name__))
    if isinstance(target, torch._ops.OpOverload | torch._ops.OpOverloadPacket):
        namespace, _, name = str(
            getattr(target, "_qualified_op_name", None) or target._schema.name
        ).partition("::")
    elif _known_function(target) or of_torch(target):
        namespace = "torch"
    else:
        namespace = str(getattr(target, "__module__", None) or "python")
    namespace = "torch" if namespace == "aten" or namespace.startswith("torch.nn.") else namespace
    return f"{namespace}::{name}"


def is_quantized(target: Any) -> bool:
    """Whether an operator or a class of modules computes with quantized values."""
    if isinstance(target, torch._ops.OpOverload | torch._ops.OpOverloadPacket):
        return title(target).partition("::")[0] in QUANTIZED
    parts = target.__module__.split(".") if isinstance(target, type) else [""]
    return parts[0] in {"torch", "torchao"} and "quantized" in parts


def _receiver(node: fx.Node) -> Any:
    """What a method is called on."""
    return node.args[0] if node.args else node.kwargs.get("self")


_known: WeakKeyDictionary[fx.Node, bool] = WeakKeyDictionary()


def is_tensor(value: Any) -> bool:
    """Whether a node makes a tensor, or several, as far as the graph tells; inputs are taken for tensors.

    What a function, class or method makes that is not torch's may be anything.
    """
    chain: list[fx.Node] = []
    while isinstance(value, fx.Node) and value not in _known:
        chain.append(value)
        value = _decided_by(value)
    verdict = _known[value] if isinstance(value, fx.Node) else bool(value)
    _known.update(dict.fromkeys(chain, verdict))
    return verdict


def _decided_by(node: fx.Node) -> fx.Node | bool:
    """Whether the node makes a tensor, or the node that it makes one of, or a part of one, if that is one."""
    told = described(node)
    if told is not None:
        return isinstance(told, torch.Tensor | list | tuple)
    if node.op == "call_method":
        known = hasattr(torch.Tensor, str(node.target)) and str(node.target) not in _NO_TENSOR
        return _node(_receiver(node)) if known else False
    if node.op == "call_function":
        return _function_decided_by(node)
    if node.op == "call_module":
        owner = node.graph.owning_module
        return owner is None or of_torch(type(owner.get_submodule(str(node.target))).forward)
    # An input may be annotated as something else.
    return not isinstance(node.type, type) or issubclass(node.type, torch.Tensor)


def _function_decided_by(node: fx.Node) -> fx.Node | bool:
    if isinstance(node.target, torch._ops.OpOverload):
        return all(_is_tensor_type(result.type) for result in node.target._schema.returns)
    if node.target is getattr:
        return _node(node.args[0]) if node.args[1] in _PARTS else False
    if _known_function(node.target) in OPERATORS.values():
        return _node(next(iter(node.all_input_nodes), False))
    return name_of(node) != ""


def _node(value: Any) -> fx.Node | bool:
    return value if isinstance(value, fx.Node) else isinstance(value, torch.Tensor)


def draws(node: fx.Node) -> bool:
    """Whether a node draws random numbers, as far as its name or operator tells."""
    if isinstance(node.target, torch._ops.OpOverload):
        random, name = torch.Tag.nondeterministic_seeded in node.target.tags, node.target._opname
    else:
        name = node.target if isinstance(node.target, str) else str(getattr(node.target, "__name__", ""))
        random = _drawn(name)
    # Attention that drops nothing, which is its default.
    exact = name == "scaled_dot_product_attention" and len(node.args) < 5 and not node.kwargs.get("dropout_p")
    return random and not exact


@cache
def _drawn(name: str) -> bool:
    packet = getattr(torch.ops.aten, name, None)
    if name in _DRAW or not isinstance(packet, torch._ops.OpOverloadPacket):
        return name in _DRAW
    overloads = (getattr(packet, overload) for overload in packet.overloads())
    return any(torch.Tag.nondeterministic_seeded in overload.tags for overload in overloads)

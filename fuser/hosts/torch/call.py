"""fx nodes in one normal form, whether aten operators, functions of torch, methods or modules.

A `Call` says what is computed (`kind`), of which operands, with which attributes. The arguments of an
operator have the same order in all ways of writing it, so one signature serves them all.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final, TypeAlias

import torch
from torch import fx

from fuser.hosts.torch.identity import is_quantized, name_of, title
from fuser.ir.constant import Constant

Operand: TypeAlias = fx.Node | torch.Tensor | Constant | float | int | None
"""A node, a tensor that a module holds, a constant that it computes, or a number."""

CONVS: Final = ("conv1d", "conv2d", "conv3d")
TRANSPOSED: Final = ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
AVERAGE_POOLS: Final = ("avg_pool1d", "avg_pool2d", "avg_pool3d")
MAX_POOLS: Final = ("max_pool1d", "max_pool2d", "max_pool3d")
ADAPTIVE_POOLS: Final = tuple(f"adaptive_{kind}_pool{n}d" for kind in ("avg", "max") for n in (1, 2, 3))

UNARY: Final = frozenset(
    {"abs", "ceil", "celu", "clamp", "clamp_max", "clamp_min", "cos", "elu", "erf", "exp", "floor"}
    | {"gelu", "group_norm", "hardsigmoid", "hardswish", "hardtanh", "layer_norm", "leaky_relu"}
    | {"log", "log_softmax", "logsigmoid", "mish", "pow", "prelu", "reciprocal", "relu", "relu6"}
    | {"round", "rsqrt", "selu", "sigmoid", "sign", "silu", "sin", "softmax", "softplus", "softsign"}
    | {"sqrt", "square", "tanh", "threshold"}
)
"""The result has the shape of the first operand, and is a tensor of its own."""

HOMOGENEOUS: Final = frozenset(("relu", "leaky_relu", "prelu", *AVERAGE_POOLS, *MAX_POOLS, *ADAPTIVE_POOLS))
"""f(s * x) = s * f(x) for s > 0, channel by channel, in the first operand."""


@dataclass(frozen=True, eq=False)
class Call:
    """What a node computes: `kind` in canonical words, of `operands`, with attributes by name.

    The first operand is the data. `refusal` says why the node is not lifted although its kind could be.
    """

    kind: str
    operands: tuple[Operand, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    refusal: str = ""


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
    "reshape_as": "reshape",
    "subtract": "sub",
    "true_divide": "div",
    "view": "reshape",
    "view_as": "reshape",
}

_GEOMETRY: Final = "stride=1 padding=0"
_NORM: Final = "momentum=0.1 eps=1e-05 cudnn_enabled=True"
_POOL: Final = "input|self kernel_size stride=None padding=0"
_AVERAGE: Final = "ceil_mode=False count_include_pad=True divisor_override=None"

SIGNATURES: Final[dict[str, str]] = {
    **dict.fromkeys(CONVS, f"input weight bias=None {_GEOMETRY} dilation=1 groups=1"),
    **dict.fromkeys(TRANSPOSED, f"input weight bias=None {_GEOMETRY} output_padding=0 groups=1 dilation=1"),
    "convolution": "input weight bias stride padding dilation transposed output_padding groups "
    "benchmark=False deterministic=False cudnn_enabled=True allow_tf32=True",
    "batch_norm": f"input weight bias running_mean running_var training=False {_NORM}",
    "native_batch_norm": f"input weight bias running_mean running_var training=False {_NORM}",
    "inference_batch_norm": f"input weight bias running_mean running_var {_NORM}",
    "functional_batch_norm": f"input running_mean running_var weight=None bias=None training=False {_NORM}",
    "linear": "input weight bias=None",
    "addmm": "bias|input|self mat1 mat2 beta=1 alpha=1",
    **dict.fromkeys(("matmul", "mm", "bmm"), "input|self other|mat2|tensor2"),
    **dict.fromkeys(("add", "sub", "rsub"), "input|self other alpha=1"),
    "mul": "input|self other",
    "div": "input|self other rounding_mode=None",
    "neg": "input|self",
    "pad": "input|self pad mode='constant' value=None",
    "constant_pad_nd": "input|self pad value=0",
    **dict.fromkeys(AVERAGE_POOLS, f"{_POOL} {_AVERAGE}"),
    **dict.fromkeys(MAX_POOLS, f"{_POOL} dilation=1 ceil_mode=False return_indices=False"),
    **dict.fromkeys(ADAPTIVE_POOLS, "input|self output_size"),
    "dropout": "input p=0.5 training|train=True",
    "identity": "input|self",
    "leaky_relu": "input|self negative_slope=0.01",
    "clamp": "input|self min=None max=None",
    "cat": "tensors dim|axis=0",
    "getitem": "input index",
    "slice": "input|self dim=0 start=None end=None step=1",
    "narrow": "input|self dim start length",
    "split": "input|tensor|self split_size|split_size_or_sections|split_sizes dim=0",
    "chunk": "input|self chunks dim=0",
    "flatten": "input|self start_dim=0 end_dim=-1",
    "mean": "input|self dim=None keepdim=False",
    "to": "input|self dtype|device|other=None",
}


def canonical(name: str) -> str:
    """The kind behind a name; what works in place computes what the others compute."""
    bare = name[:-1] if name.endswith("_") and not name.endswith("__") else name
    return ALIASES.get(bare, bare)


def normalise(node: fx.Node) -> Call:
    """The normal form of a call of a function or method.

    What is not known reads all its operands, has no attributes, and a title that no kind has.
    """
    kind = canonical(name_of(node))
    if not kind:
        return unknown(node, node.target)
    if kind not in SIGNATURES:
        # Operands are told by their place, which those that are given by name do not have.
        ordered = len(node.all_input_nodes) < 2 or not _reads(node.kwargs)
        return Call(kind, tuple(node.all_input_nodes)) if ordered else unknown(node, node.target)
    arguments = bind(node, SIGNATURES[kind])
    if arguments is None:
        return unknown(node, node.target)
    build = BUILDERS.get(kind, _data)
    call = build(kind, arguments)
    known = {operand for operand in call.operands if isinstance(operand, fx.Node)}
    if known.issuperset(node.all_input_nodes):
        return call
    # An attribute that the graph computes: a kernel size, a factor.
    return Call(kind, tuple(node.all_input_nodes), refusal="an attribute is computed in the graph")


def unknown(node: fx.Node, target: Any, tensors: Iterable[torch.Tensor] = ()) -> Call:
    """A call of which nothing is known but what it reads, `tensors` of a module among it."""
    refusal = "it computes with quantized values, which are left as they are" if is_quantized(target) else ""
    return Call(title(target), (*node.all_input_nodes, *tensors), refusal=refusal)


def _reads(arguments: Any) -> bool:
    """Whether a node is among the arguments."""
    found: list[fx.Node] = []
    fx.map_arg(arguments, found.append)
    return bool(found)


def bind(node: fx.Node, signature: str) -> dict[str, Any] | None:
    """The arguments of a node by name; None where they do not fit.

    A signature lists names in order: what is called `input|self` may have either name, `alpha=1` has a
    default.
    """
    found: dict[str, Any] = {}
    keywords = {name: value for name, value in node.kwargs.items() if name != "inplace"}
    parts = signature.split()
    for index, part in enumerate(parts):
        names, _, default = part.partition("=")
        spellings = names.split("|")
        given = [name for name in spellings if name in keywords]
        if index < len(node.args):
            found[spellings[0]] = node.args[index]
        elif given:
            found[spellings[0]] = keywords.pop(given[0])
        elif default:
            found[spellings[0]] = _default(default)
        else:
            return None
    extra = [value for value in node.args[len(parts) :] if value is not None and value is not False]
    return None if extra or any(value is not None for value in keywords.values()) else found


@cache
def _default(text: str) -> Any:
    known = {"None": None, "True": True, "False": False, "'constant'": "constant"}
    if text in known:
        return known[text]
    return float(text) if "." in text or "e" in text else int(text)


def _conv(kind: str, a: dict[str, Any]) -> Call:
    operands = (a.pop("input"), a.pop("weight"), a.pop("bias"))
    a.setdefault("transposed", kind in TRANSPOSED)
    a.setdefault("output_padding", 0)
    return Call("conv", operands, a)


def _batch_norm(kind: str, a: dict[str, Any]) -> Call:
    del kind
    names = ("input", "weight", "bias", "running_mean", "running_var")
    operands = tuple(a.pop(name) for name in names)
    return Call("batch_norm", operands, {"training": False} | a)


def _binary(kind: str, a: dict[str, Any]) -> Call:
    left, right = a.pop("input"), a.pop("other")
    if kind == "rsub":
        refusal = "" if a["alpha"] == 1 else f"alpha is {a['alpha']}"
        return Call("sub", (right, left), a, refusal)
    return Call(kind, (left, right), a)


def _addmm(kind: str, a: dict[str, Any]) -> Call:
    return Call(kind, (a.pop("mat1"), a.pop("mat2"), a.pop("bias")), a)


def _data(kind: str, a: dict[str, Any]) -> Call:
    return Call(kind, (a.pop("input"),), a)


def _operands(kind: str, a: dict[str, Any]) -> Call:
    return Call(kind, tuple(a.values()))


def _constant_pad(kind: str, a: dict[str, Any]) -> Call:
    del kind
    return Call("pad", (a.pop("input"),), a | {"mode": "constant"})


def _cat(kind: str, a: dict[str, Any]) -> Call:
    tensors = a.pop("tensors")
    return Call(kind, tuple(tensors) if isinstance(tensors, list | tuple) else (tensors,), a)


def _to(kind: str, a: dict[str, Any]) -> Call:
    x, target = a.pop("input"), a.pop("dtype")
    return Call(kind, (x, target) if isinstance(target, fx.Node) else (x,), {"target": target})


BUILDERS: Final[dict[str, Callable[[str, dict[str, Any]], Call]]] = {
    **dict.fromkeys((*CONVS, *TRANSPOSED, "convolution"), _conv),
    **dict.fromkeys(
        ("batch_norm", "native_batch_norm", "inference_batch_norm", "functional_batch_norm"), _batch_norm
    ),
    **dict.fromkeys(("add", "sub", "rsub", "mul", "div"), _binary),
    **dict.fromkeys(("linear", "matmul", "mm", "bmm"), _operands),
    "addmm": _addmm,
    "cat": _cat,
    "constant_pad_nd": _constant_pad,
    "to": _to,
}

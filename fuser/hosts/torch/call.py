"""Which operator of the standard an fx node calls, and of what: aten operators, functions, methods, modules.

Read when a node is imported; what comes later has the `Call`, which knows nothing of torch. What the standard
has no operator for keeps torch's name, in small letters as none of the standard's: `roll`, and `torch::roll`
where nothing is known of it but what it reads.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

import torch
from torch import fx

from fuser.algebra.conv import Ints
from fuser.errors import Declined, require
from fuser.hosts.operators.call import INT_MAX, Call, Held
from fuser.hosts.torch.arguments import Arguments, bind
from fuser.hosts.torch.identity import canonical, is_quantized, name_of, title
from fuser.hosts.torch.tensor import dtype_name
from fuser.ir.graph import Constant

Operand: TypeAlias = fx.Node | torch.Tensor | Constant | float | int | None
"""A node, a tensor that a module holds, a constant that it computes, or a number."""


@dataclass(frozen=True, eq=False)
class Bound:
    """A call, and what it is of: operands in the standard's order, the data first, None where one is absent.

    `known`: they are, and so are its attributes; else it is only known what the call reads.
    """

    call: Call
    operands: tuple[Operand, ...]
    known: bool = True

    @property
    def kind(self) -> str:
        """The operator."""
        return self.call.kind


def call(kind: str, *operands: Operand, refusal: str = "", **attributes: Any) -> Bound:
    """A call in one line."""
    return Bound(Call(kind, attributes, refusal), operands)


def kind_of(node: fx.Node) -> str:
    """The operator that a function or method is by its name; its arguments may say that it is another."""
    name = canonical(name_of(node))
    return KINDS.get(name, name)


def read(node: fx.Node) -> Bound:
    """The call of a function or method.

    What is not known reads all its operands, has no attributes but its numbers, and a title that no kind has.
    """
    name = canonical(name_of(node))
    if not name:
        return unknown(node, node.target)
    rule = RULES.get(name)
    if rule is None:
        # Operands are told by their place, which those that are given by name do not have.
        ordered = len(node.all_input_nodes) < 2 or not any(True for _ in _nodes(node.kwargs))
        found = _bare(node, KINDS.get(name, name)) if ordered else unknown(node, node.target)
        return replace(found, known=ordered)
    arguments = bind(node)
    if arguments is None:
        return unknown(node, node.target)
    try:
        found = rule(name, arguments, node)
    except Declined as reason:
        return _bare(node, KINDS[name], refusal=str(reason))
    if found is None or not arguments.plain:
        return unknown(node, node.target)
    known = {operand for operand in found.operands if isinstance(operand, fx.Node)}
    if known.issuperset(node.all_input_nodes):
        return found
    # An attribute that the graph computes: a kernel size, a factor.
    return _bare(node, found.kind, refusal="an attribute is computed in the graph")


def unknown(node: fx.Node, target: Any, tensors: Iterable[torch.Tensor] = ()) -> Bound:
    """A call of which nothing is known but what it reads, `tensors` of a module among it."""
    refusal = "it computes with quantized values, which are left as they are" if is_quantized(target) else ""
    return _bare(node, title(target), *tensors, refusal=refusal)


def _bare(node: fx.Node, kind: str, *tensors: torch.Tensor, refusal: str = "") -> Bound:
    held = _numbers((node.args, node.kwargs))
    return Bound(Call(kind, held, refusal), (*node.all_input_nodes, *tensors), known=False)


def _numbers(part: Any) -> dict[str, Any]:
    """The whole numbers in arguments as an attribute, where there are some."""
    numbers = tuple(_whole(part))
    return {"numbers": numbers} if numbers else {}


def _whole(part: Any) -> Iterator[int]:
    """The whole numbers in arguments, however deep."""
    if isinstance(part, slice):
        part = (part.start, part.stop, part.step)
    if isinstance(part, dict):
        part = tuple(part.values())
    if isinstance(part, list | tuple):
        for inner in part:
            yield from _whole(inner)
    elif isinstance(part, int) and not isinstance(part, bool):
        yield part


def _nodes(arguments: Any) -> Iterator[fx.Node]:
    """The nodes among arguments."""
    found: list[fx.Node] = []
    fx.map_arg(arguments, found.append)
    yield from found


def parts_read(node: fx.Node) -> list[fx.Node] | None:
    """The readers that take a part each of what a node returns, by part; None where one reads it whole."""
    parts = [
        user for user in node.users if canonical(name_of(user)) == "getitem" and isinstance(user.args[1], int)
    ]
    if len(parts) < len(node.users) or len({user.args[1] for user in parts}) < len(parts):
        return None
    return sorted(parts, key=lambda user: int(str(user.args[1])))


# One number for all axes, or one for each.


def spread(value: Any, rank: int) -> Ints:
    """A number for all axes, or one for each.

    Raises:
        Declined: an axis has no number, or one that the graph computes.
    """
    values = tuple(value) if isinstance(value, list | tuple) else (value,)
    require(all(isinstance(v, int) for v in values), f"{values} are not all numbers")
    values = values * rank if len(values) == 1 else values
    require(len(values) == rank, f"{values} for {rank} spatial axes")
    return values


def axes_of(value: Any) -> Ints | None:
    """Axes, one or several; None for all of them."""
    return tuple(value) if isinstance(value, list | tuple) else None if value is None else (value,)


# What modules and functions have in common.


def conv(rank: int, operands: tuple[Operand, ...], a: Arguments, *, transposed: bool = False) -> Bound:
    """A convolution of so many spatial axes."""
    strides, dilations = spread(a.take("stride", 1), rank), spread(a.take("dilation", 1), rank)
    padding, extra = a.take("padding", 0), a.take("output_padding", 0)
    attributes = {"strides": strides, "dilations": dilations, "group": a.take("groups", 1)}
    if transposed:
        attributes["output_padding"] = spread(extra, rank)
    if padding == "same":
        require(all(s == 1 for s in strides), f"padding is 'same' with stride {strides}")
        attributes["auto_pad"] = "SAME_UPPER"
    else:
        attributes["pads"] = spread(0 if padding == "valid" else padding, rank) * 2
    return call("ConvTranspose" if transposed else "Conv", *operands, **attributes)


def batch_norm(operands: tuple[Operand, ...], a: Arguments, **more: Any) -> Bound:
    """A norm of data, scale, shift, mean and variance; `more` is what a class says of its data."""
    training, bare = a.take("training", False), operands[3] is None
    refusal = "there are no running statistics: those of the batch are used" if bare and not training else ""
    attributes = {"epsilon": a.take("eps"), "training_mode": training, **more}
    return call("BatchNormalization", *operands, refusal=refusal, **attributes)


def dropout(x: Operand, a: Arguments) -> Bound:
    """Dropout of any kind: outside training it returns what it is given."""
    ratio, training = a.take("p"), a.take("training")
    return call("Dropout", x, ratio=ratio, training_mode=training and ratio != 0)


def pad(x: Operand, a: Arguments) -> Bound:
    """Pads of the last axis, then of the one before it; the standard has all begins, then all ends."""
    pads, mode, value = a.take("pad"), a.take("mode", "constant"), a.take("value")
    numbers = isinstance(pads, list | tuple) and all(isinstance(p, int) for p in pads)
    require(numbers, f"pads are not numbers: {pads}")
    begin, end = tuple(pads[0::2]), tuple(pads[1::2])
    axes = tuple(range(-1, -len(begin) - 1, -1))
    return call("Pad", x, pads=begin + end, axes=axes, mode=mode, value=value or 0.0)


def pool(kind: str, rank: int, x: Operand, a: Arguments) -> Bound | None:
    """A pool of so many spatial axes."""
    size, stride, padding = a.take("kernel_size"), a.take("stride"), a.take("padding", 0)
    attributes = {
        "kernel_shape": spread(size, rank),
        "strides": spread(size if stride in (None, [], ()) else stride, rank),
        "pads": spread(padding, rank) * 2,
        "ceil_mode": a.take("ceil_mode", False),
    }
    if kind == "MaxPool":
        # The indices are no values of what is pooled.
        several = a.take("return_indices", False)
        return None if several else call(kind, x, **attributes, dilations=spread(a.take("dilation", 1), rank))
    divisor = a.take("divisor_override")
    refusal = "" if divisor is None else f"divisor_override is {divisor}"
    return call(kind, x, refusal=refusal, **attributes, count_include_pad=a.take("count_include_pad", True))


def adaptive_pool(kind: str, rank: int, x: Operand, a: Arguments) -> Bound:
    """A pool to so many positions of each axis; None for as many as there are."""
    size = a.take("output_size")
    return call(kind, x, output_size=tuple(size) if isinstance(size, list | tuple) else (size,) * rank)


# Functions, methods and operators.

Rule = Callable[[str, Arguments, fx.Node], Bound | None]


def _conv(name: str, a: Arguments, _: fx.Node) -> Bound:
    operands = (a.take("input"), a.take("weight"), a.take("bias"))
    given = [a.values.get(key, 0) for key in ("stride", "padding", "dilation", "output_padding")]
    # What may be of any rank lists its numbers.
    rank = max(len(v) for v in given if isinstance(v, list | tuple)) if name == "convolution" else _rank(name)
    return conv(rank, operands, a, transposed=a.take("transposed", name.startswith("conv_transpose")))


def _rank(name: str) -> int:
    """Of `avg_pool2d`, 2."""
    return int(name[-2])


def _batch_norm(_: str, a: Arguments, __: fx.Node) -> Bound:
    names = ("input", "weight", "bias", "running_mean", "running_var")
    return batch_norm(tuple(map(a.take, names)), a)


def _linear(_: str, a: Arguments, __: fx.Node) -> Bound:
    return call("Linear", a.take("input"), a.take("weight"), a.take("bias"))


def _addmm(_: str, a: Arguments, __: fx.Node) -> Bound:
    operands = (a.take("mat1"), a.take("other"), a.take("input"))
    return call("Gemm", *operands, alpha=a.take("alpha", 1), beta=a.take("beta", 1))


def _binary(name: str, a: Arguments, _: fx.Node) -> Bound:
    operands = (a.take("input"), a.take("other"))
    kind, alpha, rounding = KINDS[name], a.take("alpha", 1), a.take("rounding_mode")
    refusal = "" if rounding is None else f"rounding_mode is {rounding!r}"
    if name == "rsub":
        operands = operands[::-1]
        refusal = "" if alpha == 1 else f"alpha is {alpha}"
    require(isinstance(alpha, int | float | fx.Node), f"alpha is not a number: {alpha}")
    return call(kind, *operands, refusal=refusal, **({} if alpha == 1 else {"alpha": alpha}))


def _pair(name: str, a: Arguments, _: fx.Node) -> Bound:
    return call(KINDS[name], a.take("input"), a.take("other"))


def _unary(name: str, a: Arguments, _: fx.Node) -> Bound:
    return call(KINDS[name], a.take("input"))


def _pad(_: str, a: Arguments, __: fx.Node) -> Bound:
    return pad(a.take("input"), a)


def _pool(name: str, a: Arguments, _: fx.Node) -> Bound | None:
    return pool(KINDS[name], _rank(name), a.take("input"), a)


def _adaptive_pool(name: str, a: Arguments, _: fx.Node) -> Bound:
    return adaptive_pool(KINDS[name], _rank(name), a.take("input"), a)


def _dropout(_: str, a: Arguments, __: fx.Node) -> Bound:
    return dropout(a.take("input"), a)


def _leaky_relu(_: str, a: Arguments, __: fx.Node) -> Bound:
    return call("LeakyRelu", a.take("input"), alpha=a.take("negative_slope"))


def _clip(_: str, a: Arguments, __: fx.Node) -> Bound:
    return call("Clip", a.take("input"), min=a.take("min"), max=a.take("max"))


def _concat(_: str, a: Arguments, __: fx.Node) -> Bound:
    tensors = a.take("tensors")
    operands = tuple(tensors) if isinstance(tensors, list | tuple) else (tensors,)
    return call("Concat", *operands, axis=a.take("dim"))


def _getitem(_: str, a: Arguments, __: fx.Node) -> Bound:
    """Indexing: by slices, on either side of `...`, it is a Slice."""
    x, index = a.take("input"), a.take("index")
    entries = list(index) if isinstance(index, tuple) else [index]
    behind = len(entries) - entries.index(Ellipsis) - 1 if Ellipsis in entries else 0
    front = entries[: len(entries) - behind - (Ellipsis in entries)]
    placed = [*enumerate(front), *((n - behind, entries[n - behind]) for n in range(behind))]
    if not all(isinstance(entry, slice) for _, entry in placed):
        return call("getitem", x, index=index, **_numbers(index))
    cut = [(axis, entry) for axis, entry in placed if entry != slice(None)]
    bounds = [(entry.start, entry.stop, entry.step) for _, entry in cut]
    return _slice(x, tuple(axis for axis, _ in cut), bounds)


def _slice(x: Operand, axes: Ints, bounds: Iterable[tuple[Any, Any, Any]]) -> Bound:
    """A range of each of some axes, begins and ends None where they are those of the axis."""
    ranges = [
        (0 if first is None else first, INT_MAX if end is None else end, 1 if step is None else step)
        for first, end, step in bounds
    ]
    starts, ends, steps = zip(*ranges, strict=True) if ranges else ((), (), ())
    return call("Slice", x, starts=starts, ends=ends, axes=axes, steps=steps)


def _range(_: str, a: Arguments, __: fx.Node) -> Bound:
    bounds = (a.take("start"), a.take("end"), a.take("step"))
    return _slice(a.take("input"), (a.take("dim"),), [bounds])


def _narrow(_: str, a: Arguments, __: fx.Node) -> Bound:
    x, dim, start, length = (a.take(name) for name in ("input", "dim", "start", "length"))
    if not isinstance(start, int) or not isinstance(length, int) or start < 0:
        return call("narrow", x, axis=dim, start=start, length=length)
    return _slice(x, (dim,), [(start, start + length, 1)])


def _split(name: str, a: Arguments, node: fx.Node) -> Bound:
    """A split: of its parts, the node has those for outputs that somebody reads, `parts`."""
    x, axis = a.take("input"), a.take("dim")
    parts = parts_read(node)
    read = None if parts is None else tuple(part.args[1] for part in parts)
    if name == "chunk":
        return call("Split", x, axis=axis, parts=read, num_outputs=a.take("chunks"))
    size = a.take("split_size")
    listed = isinstance(size, list | tuple)
    refusal = "a part is empty" if 0 in (size if listed else (size,)) else ""
    return call("Split", x, refusal=refusal, axis=axis, parts=read, **{"split" if listed else "size": size})


def _reshape(_: str, a: Arguments, __: fx.Node) -> Bound:
    """To a shape that may be computed in the graph; no 0 in it keeps an axis."""
    x, shape = a.take("input"), a.take("shape", a.take("size"))
    entries = shape if isinstance(shape, list | tuple) else (shape,)
    held, operands = _held(entries)
    return call("Reshape", x, *operands, shape=held, allowzero=1)


def _held(entries: Iterable[Any]) -> tuple[tuple[Any, ...] | None, list[fx.Node]]:
    """Numbers, those that the graph computes held in operands behind the first; None where one is neither."""
    operands: list[fx.Node] = []
    found: list[int | Held] = []
    for entry in entries:
        if isinstance(entry, fx.Node):
            operands += [] if entry in operands else [entry]
            found.append(Held(1 + operands.index(entry)))
        elif isinstance(entry, int):
            found.append(entry)
        else:
            return None, operands
    return tuple(found), operands


def _permute(_: str, a: Arguments, __: fx.Node) -> Bound:
    return call("Transpose", a.take("input"), perm=tuple(a.take("dims")))


def _transpose(_: str, a: Arguments, __: fx.Node) -> Bound:
    return call("transpose", a.take("input"), axes=(a.take("dim0"), a.take("dim1")))


def _unsqueeze(_: str, a: Arguments, __: fx.Node) -> Bound:
    return call("Unsqueeze", a.take("input"), axes=(a.take("dim"),))


def _interpolate(_: str, a: Arguments, __: fx.Node) -> Bound:
    """Of all that it is given, what tells the size of the result."""
    x, size = a.take("input"), a.take("size")
    a.values.clear()
    held, operands = _held(size if isinstance(size, list | tuple) else (size,))
    return call("interpolate", x, *operands, size=held)


def _along(name: str, a: Arguments, _: fx.Node) -> Bound:
    x, axis, index = a.take("input"), a.take("dim"), a.take("index")
    return (
        call(name, x, index, axis=axis)
        if isinstance(index, fx.Node)
        else call(name, x, axis=axis, index=index)
    )


def _getattr(_: str, a: Arguments, __: fx.Node) -> Bound:
    return call("size" if a.take("name") == "shape" else "getattr", a.take("input"))


def _size(_: str, a: Arguments, __: fx.Node) -> Bound:
    return call("size", a.take("input"), axis=a.take("dim"))


def _flatten(_: str, a: Arguments, __: fx.Node) -> Bound:
    return call("flatten", a.take("input"), start=a.take("start_dim"), end=a.take("end_dim"))


def _mean(_: str, a: Arguments, __: fx.Node) -> Bound:
    axes = axes_of(a.take("dim"))
    return call("ReduceMean", a.take("input"), axes=axes, keepdims=a.take("keepdim", False))


def _to(_: str, a: Arguments, __: fx.Node) -> Bound | None:
    """A cast, where it is to a type that is known; to a device or to the type of another tensor it is not."""
    x = a.take("input")
    wanted = [value for name in ("dtype", "device", "other") if (value := a.take(name)) is not None]
    if len(wanted) != 1:
        return None
    (target,) = wanted
    if isinstance(target, torch.dtype):
        return call("Cast", x, to=dtype_name(target))
    return call("to", x, target) if isinstance(target, fx.Node) else call("to", x)


RANKS: Final = (1, 2, 3)
_RULES: Final[tuple[tuple[str, Rule, tuple[str, ...]], ...]] = (
    ("Add", _binary, ("add",)),
    ("Sub", _binary, ("sub", "rsub")),
    ("Mul", _binary, ("mul",)),
    ("Div", _binary, ("div",)),
    ("Neg", _unary, ("neg",)),
    ("Conv", _conv, (*(f"conv{n}d" for n in RANKS), "convolution")),
    ("ConvTranspose", _conv, tuple(f"conv_transpose{n}d" for n in RANKS)),
    ("BatchNormalization", _batch_norm, ("batch_norm", "native_batch_norm", "inference_batch_norm")),
    ("Linear", _linear, ("linear",)),
    ("Gemm", _addmm, ("addmm",)),
    ("MatMul", _pair, ("matmul", "mm", "bmm")),
    ("Pad", _pad, ("pad", "constant_pad_nd")),
    ("AveragePool", _pool, tuple(f"avg_pool{n}d" for n in RANKS)),
    ("MaxPool", _pool, tuple(f"max_pool{n}d" for n in RANKS)),
    ("AdaptiveAveragePool", _adaptive_pool, tuple(f"adaptive_avg_pool{n}d" for n in RANKS)),
    ("AdaptiveMaxPool", _adaptive_pool, tuple(f"adaptive_max_pool{n}d" for n in RANKS)),
    ("Dropout", _dropout, ("dropout",)),
    ("Identity", _unary, ("identity",)),
    ("LeakyRelu", _leaky_relu, ("leaky_relu",)),
    ("Clip", _clip, ("clamp",)),
    ("Concat", _concat, ("cat",)),
    ("getitem", _getitem, ("getitem",)),
    ("Slice", _range, ("slice",)),
    ("Slice", _narrow, ("narrow",)),
    ("Split", _split, ("split", "chunk")),
    ("flatten", _flatten, ("flatten",)),
    ("Reshape", _reshape, ("reshape",)),
    ("reshape_as", _pair, ("reshape_as", "view_as")),
    ("Transpose", _permute, ("permute",)),
    ("transpose", _transpose, ("transpose",)),
    ("Unsqueeze", _unsqueeze, ("unsqueeze",)),
    ("interpolate", _interpolate, ("interpolate",)),
    ("index_select", _along, ("index_select",)),
    ("select", _along, ("select",)),
    ("floordiv", _pair, ("floordiv",)),
    ("size", _size, ("size",)),
    ("getattr", _getattr, ("getattr",)),
    ("ReduceMean", _mean, ("mean",)),
    ("to", _to, ("to",)),
)
RULES: Final = {name: rule for _, rule, names in _RULES for name in names}
KINDS: Final = {
    **{name: kind for kind, _, names in _RULES for name in names},
    # These have no attributes, here and there.
    **{name.lower(): name for name in ("Abs", "Ceil", "Erf", "Exp", "Floor", "Log", "Mish", "Reciprocal")},
    **{name.lower(): name for name in ("HardSwish", "Relu", "Selu", "Sigmoid", "Sign", "Softsign", "Sqrt")},
    "silu": "Swish",
    "tanh": "Tanh",
}
"""The operators of the standard that names of torch stand for."""

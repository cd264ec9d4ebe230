"""Calls of aten operators, functions and methods of torch: a rule for each name.

A rule takes what it knows of the arguments, and says which operator of the standard this is, with which
attributes. What it leaves has to be as nobody gives it, or nothing is known of the call.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any, Final

import torch
from torch import fx

from fuser.algebra.conv import Ints
from fuser.errors import Declined, require
from fuser.hosts.operators.call import INT_MAX, Held
from fuser.hosts.torch.arguments import Arguments, bind
from fuser.hosts.torch.call import (
    Bound,
    Operand,
    adaptive_pool,
    bare,
    batch_norm,
    call,
    conv,
    dropout,
    numbers_in,
    pad,
    pool,
    unknown,
)
from fuser.hosts.torch.identity import canonical, name_of
from fuser.hosts.torch.tensor import dtype_name


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
    # Without a rule operands are told by their place, which those that are given by name do not have.
    if rule is None and (len(node.all_input_nodes) < 2 or not any(True for _ in _nodes(node.kwargs))):
        return replace(bare(node, KINDS.get(name, name)), known=True)
    arguments = None if rule is None else bind(node)
    if rule is None or arguments is None:
        return unknown(node, node.target)
    try:
        found = rule(name, arguments, node)
    except Declined as reason:
        return bare(node, KINDS[name], refusal=str(reason))
    if found is None or not arguments.plain:
        return unknown(node, node.target)
    known = {operand for operand in found.operands if isinstance(operand, fx.Node)}
    if known.issuperset(node.all_input_nodes):
        return found
    # An attribute that the graph computes: a kernel size, a factor.
    return bare(node, found.kind, refusal="an attribute is computed in the graph")


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


Rule = Callable[[str, Arguments, fx.Node], Bound | None]


def _conv(name: str, a: Arguments, _: fx.Node) -> Bound:
    operands = (a.take("input"), a.take("weight"), a.take("bias"))
    given = [a.values.get(key, 0) for key in ("stride", "padding", "dilation", "output_padding")]
    # What may be of any rank lists its numbers.
    listed = max((len(v) for v in given if isinstance(v, list | tuple)), default=1)
    rank = listed if name == "convolution" else _rank(name)
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
        return call("getitem", x, index=index, **numbers_in(index))
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
    return call("Transpose", a.take("input"), perm=axes_of(a.take("dims")))


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


def axes_of(value: Any) -> Ints | None:
    """Axes, one or several; None for all of them."""
    return tuple(value) if isinstance(value, list | tuple) else None if value is None else (value,)


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

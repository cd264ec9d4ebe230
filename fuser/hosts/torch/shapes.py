"""Shapes and element types of graphs that were traced without inputs.

Extents that are not known have names, and what an operator makes of them has a name that spells the formula:
two values with the same names have the same extents, whatever the caller feeds. A tensor that a Conv2d reads
has a batch axis.
"""

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any, Final

import torch

from fuser.errors import Declined
from fuser.hosts.torch.call import ADAPTIVE_POOLS, AVERAGE_POOLS, MAX_POOLS, UNARY, Call
from fuser.hosts.torch.operands import spread
from fuser.hosts.torch.tensor import dtype_name
from fuser.ir.extents import Dim, Extent, affine, window
from fuser.ir.node import Value

Shape = tuple[Dim, ...]
Types = tuple[Shape | None, str | None]


def demand(call: Call, operands: Sequence[Value | None]) -> None:
    """Give the data of a convolution or norm the rank and channels that it must have, if not known."""
    x = operands[0] if operands else None
    if x is None or x.constant is not None:
        return
    if x.dtype is None and call.kind in {"conv", "linear"} and operands[1] is not None:
        # They compute in one type.
        x.dtype = operands[1].dtype
    rank, channels = _demanded(call, operands)
    if rank is None:
        return
    shape = list(named(x, (None,) * rank if x.shape is None else x.shape))
    if len(shape) == rank and isinstance(channels, int) and not isinstance(shape[1], int):
        shape[1] = channels
    x.shape = tuple(shape)


def named(value: Value, shape: Shape) -> Shape:
    """The shape with names for the extents of which nothing is known.

    Those of what the graph is given are plain symbols: it is known what other extents follow from them.
    """
    separator = "_" if value.producer is None else "."
    return tuple(f"{value.name}{separator}{axis}" if dim is None else dim for axis, dim in enumerate(shape))


def _demanded(call: Call, operands: Sequence[Value | None]) -> tuple[int | None, int | None]:
    if call.kind == "conv" and operands[1] is not None and operands[1].shape is not None:
        weight = operands[1].shape
        channels = weight[0 if call.attributes["transposed"] else 1]
        if isinstance(channels, int):
            return len(weight), channels if call.attributes["transposed"] else channels * call.attributes[
                "groups"
            ]
    if call.kind == "batch_norm" and len(call.attributes.get("ranks", ())) == 1 and operands[3] is not None:
        (rank,), statistics = call.attributes["ranks"], operands[3].shape
        channels = statistics[0] if statistics else None
        return rank, channels if isinstance(channels, int) else None
    return None, None


def infer(call: Call, operands: Sequence[Value | None]) -> Types:
    """Shape and element type of the result, each None where it is not known."""
    x = operands[0] if operands else None
    if x is None:
        return None, None
    dtype = _dtype(call, operands)
    rule = RULES.get(call.kind)
    if call.kind in UNARY or rule is None:
        return (x.shape, x.dtype) if call.kind in UNARY | SAME else (None, None)
    try:
        return rule(call, operands), dtype
    except (Declined, IndexError, KeyError, TypeError):
        return None, dtype


SAME: Final = frozenset({"identity", "dropout", "batch_norm", "neg"})


def _dtype(call: Call, operands: Sequence[Value | None]) -> str | None:
    """Tensors of one type give that type; a number has no say. A convolution reads what its weight is."""
    if call.kind in {"conv", "linear"}:
        return operands[1].dtype if operands[1] is not None else None
    weighty = [
        v
        for v, o in zip(operands, call.operands, strict=False)
        if v is not None and not isinstance(o, int | float)
    ]
    types = {value.dtype for value in weighty if value.shape != () or len(weighty) == 1}
    return types.pop() if len(types) == 1 else None


def _conv(call: Call, operands: Sequence[Value | None]) -> Shape | None:
    x, weight = operands[0], operands[1]
    assert x is not None, "a convolution has an input"
    assert weight is not None, "a convolution has a weight"
    if x.shape is None or weight.shape is None or len(x.shape) != len(weight.shape):
        return None
    a = call.attributes
    size = tuple(int(n) for n in weight.shape[2:] if isinstance(n, int))
    stride, dilation = spread(a["stride"], len(size)), spread(a["dilation"], len(size))
    reach = [d * (k - 1) for k, d in zip(size, dilation, strict=True)]
    if a["transposed"]:
        pads, extra = spread(a["padding"], len(size)), spread(a["output_padding"], len(size))
        more = [r - 2 * p + e for r, p, e in zip(reach, pads, extra, strict=True)]
        channels: Dim = int(weight.shape[1] or 0) * a["groups"]
        grown = zip(x.shape[2:], stride, more, strict=True)
        return (x.shape[0], channels, *(affine(n, 1 + rest - s, factor=s) for n, s, rest in grown))
    total = reach if a["padding"] == "same" else [0] * len(size)
    if a["padding"] not in {"same", "valid"}:
        total = [2 * p for p in spread(a["padding"], len(size))]
    slack = (t - r for t, r in zip(total, reach, strict=True))
    return (x.shape[0], weight.shape[0], *map(window, x.shape[2:], slack, stride))


def product(dims: Sequence[Dim]) -> Dim:
    """The extent of axes that become one. The order of factors is of no account, so H * W is W * H."""
    if None in dims:
        return None
    factor = prod(n for n in dims if isinstance(n, int))
    names = sorted(n for n in dims if isinstance(n, str))
    if len(names) < 2:
        return affine(names[0], factor=factor) if names else factor
    factors = [n if n.replace(".", "_").isidentifier() else f"({n})" for n in names]
    return str(Extent("*".join(factors), factor))


def remainder(shape: Shape, dims: Sequence[Dim]) -> Dim:
    """The extent that is left of `shape` beside axes of `dims`; None where they do not divide it by name."""
    left = list(shape)
    for name in dims:
        if isinstance(name, str) and name in left:
            left.remove(name)
        elif not isinstance(name, int):
            return None
    whole = prod(n for n in left if isinstance(n, int))
    taken = prod(n for n in dims if isinstance(n, int))
    if None in left or taken == 0 or whole % taken:
        return None
    return product([whole // taken, *(n for n in left if isinstance(n, str))])


def _pool(call: Call, operands: Sequence[Value | None]) -> Shape | None:
    a, x = call.attributes, operands[0]
    rank = int(call.kind[-2])
    if x is None or x.shape is None or len(x.shape) != rank + 2 or a.get("return_indices"):
        return None
    size = spread(a["kernel_size"], rank)
    stride = size if a["stride"] in (None, [], ()) else spread(a["stride"], rank)
    pads, dilation = spread(a["padding"], rank), spread(a.get("dilation", 1), rank)
    extents: list[Dim] = []
    for n, s, k, p, d in zip(x.shape[2:], stride, size, pads, dilation, strict=True):
        reach = d * (k - 1)
        # A window more, where one begins inside; one that begins in the padding behind does not count.
        more = s - 1 if a["ceil_mode"] else 0
        extents.append(window(n, 2 * p - reach + more, s) if not more or p + s <= reach + 1 else None)
    return (*x.shape[:2], *extents)


def _adaptive(call: Call, operands: Sequence[Value | None]) -> Shape | None:
    x, rank = operands[0], int(call.kind[-2])
    if x is None or x.shape is None or len(x.shape) != rank + 2:
        return None
    wanted = call.attributes["output_size"]
    sizes = tuple(wanted) if isinstance(wanted, list | tuple) else (wanted,) * rank
    return (*x.shape[:2], *(n if size is None else size for n, size in zip(x.shape[2:], sizes, strict=True)))


def _linear(call: Call, operands: Sequence[Value | None]) -> Shape | None:
    del call
    x, weight = operands[0], operands[1]
    if x is None or x.shape is None or weight is None or not weight.shape:
        return None
    return (*x.shape[:-1], weight.shape[0])


def _matmul(call: Call, operands: Sequence[Value | None]) -> Shape | None:
    del call
    x, weight = operands[0], operands[1]
    if x is None or x.shape is None or weight is None or weight.shape is None or len(weight.shape) < 2:
        return None
    if len(weight.shape) > 2 and weight.shape[:-2] != x.shape[:-2]:
        return None
    return (*x.shape[:-1], weight.shape[-1])


def _broadcast(call: Call, operands: Sequence[Value | None]) -> Shape | None:
    del call
    shapes = [value.shape for value in operands if value is not None]
    if any(shape is None for shape in shapes):
        return None
    rank = max(len(shape) for shape in shapes if shape is not None)
    aligned = [(1,) * (rank - len(shape)) + shape for shape in shapes if shape is not None]
    return tuple(_joint(dims) for dims in zip(*aligned, strict=True))


def _joint(dims: Sequence[Dim]) -> Dim:
    varying = {dim for dim in dims if dim != 1}
    if len(varying) > 1:
        # One of them is 1 or they are equal: a known extent beyond 1 decides, two names do not.
        known = [dim for dim in varying if isinstance(dim, int)]
        return known[0] if len(known) == 1 and None not in varying else None
    return varying.pop() if varying else 1


def _pad(call: Call, operands: Sequence[Value | None]) -> Shape | None:
    x, pads = operands[0], call.attributes["pad"]
    if x is None or x.shape is None:
        return None
    shape = list(x.shape)
    for index in range(len(pads) // 2):
        axis = len(shape) - 1 - index
        shape[axis] = affine(shape[axis], pads[2 * index] + pads[2 * index + 1])
    return tuple(shape)


def _cat(call: Call, operands: Sequence[Value | None]) -> Shape | None:
    shapes = [value.shape for value in operands if value is not None and value.shape is not None]
    if len(shapes) != len(operands) or len({len(shape) for shape in shapes}) != 1:
        return None
    axis = call.attributes["dim"] % len(shapes[0])
    first = list(shapes[0])
    extents = [shape[axis] for shape in shapes]
    first[axis] = sum(int(n or 0) for n in extents) if all(isinstance(n, int) for n in extents) else None
    return tuple(first)


def _flatten(call: Call, operands: Sequence[Value | None]) -> Shape | None:
    x = operands[0]
    if x is None or x.shape is None:
        return None
    rank = len(x.shape)
    start, end = call.attributes["start_dim"] % rank, call.attributes["end_dim"] % rank
    return (*x.shape[:start], product(x.shape[start : end + 1]), *x.shape[end + 1 :])


def _getitem(call: Call, operands: Sequence[Value | None]) -> Shape | None:
    """Indexing by slices, numbers and None."""
    x, index = operands[0], call.attributes["index"]
    if x is None or x.shape is None:
        return None
    entries = list(index) if isinstance(index, tuple) else [index]
    count = sum(entry is not None and entry is not Ellipsis for entry in entries)
    if Ellipsis in entries:
        at = entries.index(Ellipsis)
        entries[at : at + 1] = [slice(None)] * (len(x.shape) - count)
    dims, result = list(x.shape), list[Dim]()
    for entry in entries:
        if entry is None:
            result.append(1)
            continue
        n = dims.pop(0)
        if isinstance(entry, slice):
            result.append(_sliced(n, entry))
        elif not isinstance(entry, int):
            return None
    return (*result, *dims)


def _sliced(n: Dim, entry: slice) -> Dim:
    if entry == slice(None) or (entry.start in {None, 0} and entry.stop is None and entry.step in {None, 1}):
        return n
    start, stop, step = entry.start or 0, entry.stop, entry.step
    if n is None or not all(isinstance(v, int | None) for v in (start, stop, step)):
        return None
    if isinstance(n, int):
        return len(range(*entry.indices(n)))
    step = step or 1
    inside = step > 0 and start >= 0 and (stop is None or stop < 0)
    return affine(n, (stop or 0) - start + step - 1, step) if inside else None


def _mean(call: Call, operands: Sequence[Value | None]) -> Shape | None:
    x, dims = operands[0], call.attributes["dim"]
    if x is None or x.shape is None or dims is None:
        return None
    axes = {axis % len(x.shape) for axis in (dims if isinstance(dims, list | tuple) else [dims])}
    if call.attributes["keepdim"]:
        return tuple(1 if axis in axes else n for axis, n in enumerate(x.shape))
    return tuple(n for axis, n in enumerate(x.shape) if axis not in axes)


def _same(call: Call, operands: Sequence[Value | None]) -> Shape | None:
    del call
    return operands[0].shape if operands[0] is not None else None


RULES: Final[Mapping[str, Callable[[Call, Sequence[Value | None]], Shape | None]]] = {
    **dict.fromkeys((*AVERAGE_POOLS, *MAX_POOLS), _pool),
    **dict.fromkeys(ADAPTIVE_POOLS, _adaptive),
    **dict.fromkeys(SAME, _same),
    **dict.fromkeys(("add", "sub", "mul", "div"), _broadcast),
    **dict.fromkeys(("matmul", "mm", "bmm"), _matmul),
    "cat": _cat,
    "conv": _conv,
    "flatten": _flatten,
    "getitem": _getitem,
    "linear": _linear,
    "mean": _mean,
    "pad": _pad,
}


def types_of(result: Any) -> Types:
    """Shape and element type of a fake tensor; symbolic extents are named by their formula."""
    if isinstance(result, torch.SymInt | int):
        return (), "int64"
    if not hasattr(result, "dtype") or not hasattr(result, "shape"):
        return None, None
    shape = tuple(n if isinstance(n, int) else str(n.node.expr) for n in result.shape)
    return shape, dtype_name(result.dtype)

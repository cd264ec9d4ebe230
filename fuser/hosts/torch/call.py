"""Which operator of the standard an fx node calls, and of what: a `Call`, bound to torch's operands.

Read when a node is imported; what comes later has the `Call`, which knows nothing of torch. What the standard
has no operator for keeps torch's name, in small letters as none of the standard's: `roll`, and `torch::roll`
where nothing is known of it but what it reads.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import fx

from fuser.algebra.conv import Ints
from fuser.errors import require
from fuser.hosts.operators.call import Call
from fuser.hosts.torch.arguments import Arguments
from fuser.hosts.torch.identity import is_quantized, title
from fuser.ir.constant import Constant

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


def unknown(node: fx.Node, target: Any, tensors: Iterable[torch.Tensor] = ()) -> Bound:
    """A call of which nothing is known but what it reads, `tensors` of a module among it."""
    refusal = "it computes with quantized values, which are left as they are" if is_quantized(target) else ""
    return bare(node, title(target), *tensors, refusal=refusal)


def bare(node: fx.Node, kind: str, *tensors: torch.Tensor, refusal: str = "") -> Bound:
    """A call of which only the kind is known, and what it reads."""
    held = numbers_in((node.args, node.kwargs))
    return Bound(Call(kind, held, refusal), (*node.all_input_nodes, *tensors), known=False)


def numbers_in(part: Any) -> dict[str, Any]:
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

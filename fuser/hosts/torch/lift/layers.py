"""Lifting: the affine form of each fx node, where it has one.

A rule looks at a call whose weights are constants and returns the operator applied to the inputs that remain,
or None where the call computes nothing affine. Where it is affine in principle but a condition fails, it
declines with the reason and both values.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from fuser.algebra.conv import Conv, Ints, average_pool, pad
from fuser.algebra.lazy import Array
from fuser.errors import Declined, require
from fuser.hosts.lifting import (
    batch_norm,
    conv_transpose_kernel,
    linear,
    nothing,
    rank_of,
    require_same_shape,
    same_shape,
    with_constant,
)
from fuser.hosts.torch.call import AVERAGE_POOLS, Call
from fuser.hosts.torch.lift.same import SAME, Rule
from fuser.hosts.torch.operands import constant, data, numbers, spread
from fuser.ir.constant import FLOATS, Constant
from fuser.ir.node import Apply, Node, Value
from fuser.ir.ops import Opaque, Sum


@dataclass(frozen=True, eq=False)
class Lifter:
    """The rule for one call."""

    call: Call
    rule: Rule
    floating: bool

    def __call__(self, node: Node) -> Apply | None:
        """The affine form of `node`, None if it has none.

        Raises:
            Declined: it is affine in principle, but a condition fails.
        """
        if node.inputs and all(value is None or value.constant is not None for value in node.inputs):
            return None
        lifted = self.rule(self.call, node)
        if lifted is not None and self.floating:
            (x, *_), output = lifted.inputs, node.outputs[0]
            assert isinstance(x, Value)
            if x.dtype is not None and x.dtype not in FLOATS:
                return None
            require(x.dtype is not None, f"the element type of {x.name!r} is not known")
            require(x.dtype == output.dtype, f"the element type changes from {x.dtype} to {output.dtype}")
        return lifted


def lifter(call: Call) -> Callable[[Node], Apply | None] | None:
    """What lifts the call; None where it is never affine."""
    if call.refusal:
        return refuse(call.refusal)
    if call.kind in RULES:
        return Lifter(call, RULES[call.kind], floating=True)
    return Lifter(call, SAME[call.kind], floating=False) if call.kind in SAME else None


def refuse(reason: str) -> Callable[[Node], Apply | None]:
    """What declines every time, unless all is known."""

    def decline(node: Node) -> Apply | None:
        if node.inputs and all(value is None or value.constant is not None for value in node.inputs):
            return None
        raise Declined(reason)

    return decline


def lift_conv(call: Call, node: Node) -> Apply:
    """Convolutions of any rank. Weight `[O, I/groups, *k]`, that of transposed ones `[I, O/groups, *k]`."""
    a = call.attributes
    x, weight = data(node), constant(node, 1, "weight")
    require(len(weight.shape) >= 3 and 0 not in weight.shape, f"the weight has shape {weight.shape}")
    require(
        x.rank in {None, len(weight.shape)},
        f"ranks differ: {x.name!r} has shape {x.shape}, the weight {weight.shape}",
    )
    size = weight.shape[2:]
    groups, transposed = int(a["groups"]), bool(a["transposed"])
    stride, dilation = spread(a["stride"], len(size)), spread(a["dilation"], len(size))
    begin, end = _pads(a["padding"], size, stride, dilation)
    if transposed:
        # The output is longer by `output_padding`, so that much less is cut off its end.
        extra = spread(a["output_padding"], len(size))
        end = tuple(e - more for e, more in zip(end, extra, strict=True))
    kernel = conv_transpose_kernel(weight, groups) if transposed else weight.lazy
    conv = Conv(
        kernel,
        _bias(node, 2, kernel.shape[0]),
        groups=groups,
        stride=stride,
        dilation=dilation,
        begin=begin,
        end=end,
        transposed=transposed,
    )
    _require_channels(x, 1, conv.inputs)
    return Apply(conv, (x,), "conv_transpose" if transposed else "conv")


def _pads(padding: Any, size: Ints, stride: Ints, dilation: Ints) -> tuple[Ints, Ints]:
    if padding == "valid":
        return (0,) * len(size), (0,) * len(size)
    if padding == "same":
        require(all(s == 1 for s in stride), f"padding is 'same' with stride {stride}")
        total = [d * (k - 1) for k, d in zip(size, dilation, strict=True)]
        return tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)
    pads = spread(padding, len(size))
    return pads, pads


def _bias(node: Node, index: int, outputs: int) -> Array:
    if node.inputs[index] is None:
        return np.zeros(outputs)
    bias = numbers(node, index, "bias")
    require(bias.shape == (outputs,), f"the bias has shape {bias.shape} for {outputs} output channels")
    return bias


def _require_channels(x: Value, axis: int, channels: int) -> None:
    known = x.shape[axis] if x.shape is not None and len(x.shape) > 1 else None
    require(
        not isinstance(known, int) or known == channels,
        f"channels differ: {x.name!r} has {known}, the operator reads {channels}",
    )


def lift_batch_norm(call: Call, node: Node) -> Apply:
    """(x - mean) / sqrt(var + eps) * weight + bias  ->  a scale and a shift of each channel."""
    a = call.attributes
    x = data(node)
    require(not a["training"], "training is True: the statistics are those of the batch")
    require(node.inputs[3] is not None, "there are no running statistics: those of the batch are used")
    mean, variance = numbers(node, 3, "mean"), numbers(node, 4, "variance")
    weight = np.ones_like(mean) if node.inputs[1] is None else numbers(node, 1, "weight")
    bias = np.zeros_like(mean) if node.inputs[2] is None else numbers(node, 2, "bias")
    rank = rank_of(x)
    require(rank >= 2, f"{x.name!r} has no channel axis: {x.shape}")
    norm = batch_norm(mean, variance, weight, bias, float(a["eps"]), rank - 2, -1 if rank == 2 else 1)
    _require_channels(x, 1, norm.inputs)
    return Apply(norm, (x,), "batch_norm")


def lift_linear(call: Call, node: Node) -> Apply:
    """x W^T + b on the last axis. Weight `[O, I]`."""
    del call
    weight = constant(node, 1, "weight")
    require(len(weight.shape) == 2, f"the weight has shape {weight.shape}, and not two axes")
    x = data(node)
    require(x.rank != 1, f"{x.name!r} has one axis, and a linear layer needs two")
    _require_channels(x, -1, weight.shape[1])
    return Apply(linear(weight, _bias(node, 2, weight.shape[0]), transposed=True), (x,), "linear")


def lift_matmul(call: Call, node: Node) -> Apply | None:
    """x W  ->  a linear layer on the last axis of x; W may be repeated for each x of a batch."""
    del call
    left, right = data(node), data(node, 1)
    weight = _matrix(right)
    if weight is None:
        require(
            left.constant is None,
            f"the constant {left.name!r} is on the left: a map of the last axis but one",
        )
        require(right.constant is None, f"{right.name!r}, of {right.shape}, has matrices that differ")
        return None
    require(rank_of(left) >= 2, f"{left.name!r} has one axis, and a linear layer needs two")
    output = node.outputs[0]
    require(
        right.rank == 2 or same_shape(left.shape and left.shape[:-1], output.shape and output.shape[:-1]),
        f"{left.name!r}, of {left.shape}, is repeated to {output.shape}",
    )
    return Apply(linear(weight, None, transposed=False), (left,), "linear")


def _matrix(value: Value) -> Constant | None:
    """The constant matrix that a tensor is, or that it repeats."""
    maker = value.producer
    while maker is not None and isinstance(maker.op, Opaque) and maker.op.kind == "expand":
        source = data(maker)
        if source.shape is None or value.shape is None or source.shape[-2:] != value.shape[-2:]:
            return None
        value, maker = source, source.producer
    weight = value.constant
    if weight is None or len(weight.shape) == 2:
        return weight
    matrices = np.asarray(weight.array()).reshape(-1, *weight.shape[-2:])
    if not len(matrices) or not bool((matrices == matrices[0]).all()):
        return None
    return Constant(weight.shape[-2:], weight.dtype, lambda: weight.array().reshape(matrices.shape)[0])


def lift_addmm(call: Call, node: Node) -> Apply | None:
    """beta * b + alpha * x W  ->  a linear layer."""
    x, beta, alpha = data(node), call.attributes["beta"], call.attributes["alpha"]
    if x.constant is not None or data(node, 1).constant is None:
        return None
    weight = constant(node, 1, "weight")
    require(len(weight.shape) == 2, f"the weight has shape {weight.shape}, and not two axes")
    bias, columns = constant(node, 2, "addend"), weight.shape[1]
    require(
        bias.shape in {(columns,), (1, columns), (1,), ()},
        f"the addend has shape {bias.shape}, and differs from row to row of {columns}",
    )
    row = np.broadcast_to(float(beta) * numbers(node, 2, "addend").reshape(-1), (columns,)).copy()
    return Apply(linear(weight, row, transposed=False, factor=float(alpha)), (x,), "linear")


def lift_add(call: Call, node: Node) -> Apply:
    """x + alpha * y, and the same with a constant on either side."""
    return _sum(node, 1.0, _number(call.attributes["alpha"]))


def lift_sub(call: Call, node: Node) -> Apply:
    """x - alpha * y, and the same with a constant on either side."""
    return _sum(node, 1.0, -_number(call.attributes["alpha"]))


def _number(value: Any) -> float:
    require(isinstance(value, int | float), f"alpha is not a number: {value}")
    return float(value)


def _sum(node: Node, a: float, b: float) -> Apply:
    """a * x + b * y."""
    left, right = data(node), data(node, 1)
    if left.constant is None and right.constant is None:
        require_same_shape((left, right))
        require(left.dtype == right.dtype, f"element types differ: {left.dtype} and {right.dtype}")
        return Apply(Sum((a, b)), (left, right), "sum")
    index = 0 if left.constant is not None else 1
    x, scale, factor = (right, b, a) if index == 0 else (left, a, b)
    return with_constant(x, numbers(node, index, "constant"), lambda c: (np.full_like(c, scale), factor * c))


def lift_mul(call: Call, node: Node) -> Apply | None:
    """x * c, c * x  ->  a scale of each channel."""
    del call
    left, right = data(node), data(node, 1)
    if left.constant is None and right.constant is None:
        return None
    index = 0 if left.constant is not None else 1
    x = right if index == 0 else left
    return with_constant(x, numbers(node, index, "constant"), lambda c: (c, np.zeros_like(c)))


def lift_div(call: Call, node: Node) -> Apply | None:
    """x / c  ->  a scale of each channel."""
    if data(node, 1).constant is None:
        return None
    rounding = call.attributes["rounding_mode"]
    require(rounding is None, f"rounding_mode is {rounding!r}")
    divisor = numbers(node, 1, "divisor")
    require(bool(divisor.all()), f"{data(node, 1).name!r} holds 0, which cannot divide")
    return with_constant(data(node), divisor, lambda c: (1.0 / c, np.zeros_like(c)))


def lift_neg(call: Call, node: Node) -> Apply:
    """-x  ->  a sum of one term."""
    del call
    return Apply(Sum((-1.0,)), (data(node),), "sum")


def lift_pad(call: Call, node: Node) -> Apply | None:
    """Padding of spatial axes by a constant  ->  a delta kernel that reads outside."""
    a, x = call.attributes, data(node)
    pads, mode = a["pad"], a["mode"]
    require(mode == "constant", f"the mode is {mode!r}")
    require(
        isinstance(pads, list | tuple) and all(isinstance(p, int) for p in pads),
        f"pads are not numbers: {pads}",
    )
    if not any(pads):
        return nothing(x)
    rank, spatial = rank_of(x), len(pads) // 2
    require(rank >= 3, f"{x.name!r} has no spatial axes: {x.shape}")
    require(
        spatial <= rank - 2 or not any(pads[2 * (rank - 2) :]),
        f"pads {list(pads)} touch the batch or channel axis",
    )
    channels = x.shape[1] if x.shape else None
    if not isinstance(channels, int):
        raise Declined(f"the number of channels of {x.name!r} is not known: {channels}")
    # The last axis comes first.
    pairs = [(pads[2 * i], pads[2 * i + 1]) if i < spatial else (0, 0) for i in reversed(range(rank - 2))]
    value = float(a["value"] or 0.0)
    require(bool(np.isfinite(value)), f"the pad value is {value}")
    begin, end = tuple(b for b, _ in pairs), tuple(e for _, e in pairs)
    return Apply(pad(channels, begin, end, value), (x,), "pad")


def lift_average_pool(call: Call, node: Node) -> Apply:
    """AveragePool whose divisor is the same everywhere  ->  a depthwise kernel of equal taps."""
    a, x = call.attributes, data(node)
    rank = int(call.kind[-2])
    require(x.rank == rank + 2, f"{x.name!r} has shape {x.shape}, and the pool {rank} spatial axes")
    size = spread(a["kernel_size"], rank)
    stride = spread(a["stride"], rank) if a["stride"] not in (None, [], ()) else size
    pads = spread(a["padding"], rank)
    require(not any(pads) or bool(a["count_include_pad"]), f"count_include_pad is False with pads {pads}")
    require(a.get("divisor_override") is None, f"divisor_override is {a.get('divisor_override')}")
    channels = x.shape[1] if x.shape else None
    if not isinstance(channels, int):
        raise Declined(f"the number of channels of {x.name!r} is not known: {channels}")
    pool = average_pool(channels, size, stride, (1,) * rank, pads, pads)
    if a["ceil_mode"]:
        extent = x.shape[2:] if x.shape else ()
        axes = zip(extent, pool.slack, stride, strict=True)
        fits = all(isinstance(n, int) and (n + slack - 1) % s == 0 for n, slack, s in axes)
        require(fits, f"ceil_mode is True, and windows may be cut off: extent {extent}, stride {stride}")
    return Apply(pool, (x,), "average_pool")


RULES: Final[dict[str, Rule]] = {
    **dict.fromkeys(AVERAGE_POOLS, lift_average_pool),
    "add": lift_add,
    "addmm": lift_addmm,
    "batch_norm": lift_batch_norm,
    "bmm": lift_matmul,
    "conv": lift_conv,
    "div": lift_div,
    "linear": lift_linear,
    "matmul": lift_matmul,
    "mm": lift_matmul,
    "mul": lift_mul,
    "neg": lift_neg,
    "pad": lift_pad,
    "sub": lift_sub,
}

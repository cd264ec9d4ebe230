"""Lifting: the affine form of each ONNX operator, where it has one.

A rule looks at a node whose weights are constants and returns the operator applied to the inputs that
remain, or None where the node computes nothing affine. Where the node is affine in principle but a
condition fails, it declines with the reason and both values. The rules for sums, scales and operators that
change nothing are in `onnx_lift_sums`.
"""

# Every rule has the signature of the table.
# ruff: noqa: ARG001

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fuser.algebra.conv import Conv, Ints, average_pool, pad
from fuser.algebra.lazy import Array, arrange
from fuser.errors import Declined, require
from fuser.hosts.lifting import batch_norm, linear, nothing, rank_of, reshape
from fuser.hosts.onnx.lift.channels import lift_concat, lift_slice, lift_split
from fuser.hosts.onnx.lift.sums import SUMS
from fuser.hosts.onnx.node import (
    attribute,
    constant,
    data,
    dtype,
    finite,
    integers,
    ints,
    numbers,
    operand,
    resolve_pads,
)
from fuser.ir.constant import FLOATS, Constant
from fuser.ir.node import Apply, Node

OLDEST_OPSET: Final = 7
NEWEST_OPSET: Final = 28
"""The operator sets whose operators the rules are written for. Other models pass through unchanged."""

# These compute with numbers that are not integers; of the others some change nothing whatever the type.
FLOATING: Final = frozenset(
    {
        "Add",
        "AveragePool",
        "BatchNormalization",
        "Conv",
        "ConvTranspose",
        "Div",
        "Gemm",
        "MatMul",
        "Mean",
        "Mul",
        "Neg",
    }
    | {"Sub", "Sum"}
)

Rule = Callable[[Node, int], Apply | Constant | None]


@dataclass(frozen=True)
class Lifter:
    """The rule of one operator at one opset."""

    rule: Rule
    opset: int
    floating: bool

    def __call__(self, node: Node) -> Apply | Constant | None:
        """The affine form of `node`, None if it has none.

        Raises:
            Declined: it is affine in principle, but a condition fails.
        """
        require(
            OLDEST_OPSET <= self.opset <= NEWEST_OPSET,
            f"opset {self.opset} is not one of {OLDEST_OPSET} to {NEWEST_OPSET}, which are known",
        )
        if node.inputs and all(value is None or value.constant is not None for value in node.inputs):
            return None
        if self.floating:
            name = dtype(node)
            require(name is not None, f"the element type of {node.outputs[0].name!r} is not known")
            if name not in FLOATS:
                return None
        return self.rule(node, self.opset)


@cache
def lifter(kind: str, opset: int) -> Lifter | None:
    """What lifts the operator `kind` of the default domain; None where it is never affine."""
    rule = RULES.get(kind)
    return None if rule is None else Lifter(rule, opset, kind in FLOATING)


def lift_conv(node: Node, opset: int) -> Apply:
    """Conv  ->  the operator itself, `auto_pad` resolved. Kernel `[O, I/groups, *k]`."""
    x, weight = data(node), constant(node, 1, "weight")
    size, stride, dilation = _geometry(node, weight)
    begin, end = resolve_pads(node, size, stride, dilation, x.shape[2:] if x.shape else None)
    require(all(p >= 0 for p in begin + end), f"a pad is negative: {begin + end}")
    conv = Conv(
        weight.lazy,
        _bias(node, 2, weight.shape[0]),
        groups=attribute(node, "group", 1),
        stride=stride,
        dilation=dilation,
        begin=begin,
        end=end,
    )
    _require_channels(node, conv.inputs)
    return Apply(conv, (x,), "conv")


def lift_conv_transpose(node: Node, opset: int) -> Apply:
    """ConvTranspose  ->  the mirrored operator. ONNX kernel `[I, O/groups, *k]`, ours `[O, I/groups, *k]`."""
    x, weight = data(node), constant(node, 1, "weight")
    groups = attribute(node, "group", 1)
    size, stride, dilation = _geometry(node, weight)
    require(
        weight.shape[0] % groups == 0, f"{weight.shape[0]} input channels do not divide into {groups} groups"
    )
    begin, end = _transposed_pads(node, size, stride, dilation)
    inputs, outputs = weight.shape[0], weight.shape[1] * groups
    shape = (outputs, inputs // groups, *size)

    def exchange(values: NDArray[Any]) -> NDArray[Any]:
        blocks = values.reshape(groups, inputs // groups, outputs // groups, *size)
        return blocks.swapaxes(1, 2).reshape(shape)

    conv = Conv(
        arrange(shape, exchange, weight.lazy),
        _bias(node, 2, outputs),
        groups=groups,
        stride=stride,
        dilation=dilation,
        begin=begin,
        end=end,
        transposed=True,
    )
    _require_channels(node, inputs)
    return Apply(conv, (x,), "conv_transpose")


def _geometry(node: Node, weight: Constant) -> tuple[Ints, Ints, Ints]:
    """Size, stride and dilation of a kernel, checked against its attribute and its input."""
    require(len(weight.shape) >= 3, f"the weight has shape {weight.shape}, and no spatial axes")
    require(0 not in weight.shape, f"the weight has an empty axis: {weight.shape}")
    size = weight.shape[2:]
    x = data(node)
    require(
        x.shape is None or len(x.shape) == len(weight.shape),
        f"ranks differ: {x.name!r} has shape {x.shape}, the weight {weight.shape}",
    )
    stated = ints(node, "kernel_shape") or size
    require(stated == size, f"kernel_shape is {stated}, and the weight has shape {weight.shape}")
    stride = ints(node, "strides") or (1,) * len(size)
    dilation = ints(node, "dilations") or (1,) * len(size)
    for name, values in (("strides", stride), ("dilations", dilation)):
        require(len(values) == len(size) and min(values) > 0, f"{name} is {values} for a kernel of {size}")
    return size, stride, dilation


def _bias(node: Node, index: int, outputs: int) -> Array:
    if operand(node, index) is None:
        return np.zeros(outputs)
    bias = numbers(node, index, "bias")
    require(bias.shape == (outputs,), f"the bias has shape {bias.shape} for {outputs} output channels")
    return bias


def _require_channels(node: Node, channels: int) -> None:
    x = data(node)
    known = x.shape[1] if x.shape is not None and len(x.shape) > 1 else None
    require(
        not isinstance(known, int) or known == channels,
        f"channels differ: {x.name!r} has {known}, the operator reads {channels}",
    )


def _transposed_pads(node: Node, size: Ints, stride: Ints, dilation: Ints) -> tuple[Ints, Ints]:
    """Pads of a transposed convolution; `output_padding` extends the output: it is taken off the end."""
    rank = len(size)
    extra = ints(node, "output_padding") or (0,) * rank
    span = tuple((k - 1) * d + 1 for k, d in zip(size, dilation, strict=True))
    mode = attribute(node, "auto_pad", "NOTSET")
    wanted = ints(node, "output_shape")
    if wanted is not None:
        x = data(node)
        extent = None if x.shape is None else x.shape[2:]
        if extent is None or not all(isinstance(n, int) for n in extent):
            raise Declined(f"output_shape {wanted} needs a known extent, which is {extent}")
        wanted = wanted[-rank:]
        full = [s * (int(n or 0) - 1) + w for s, n, w in zip(stride, extent, span, strict=True)]
        total = tuple(f + e - w for f, e, w in zip(full, extra, wanted, strict=True))
    elif mode in ("SAME_UPPER", "SAME_LOWER"):
        total = tuple(w + e - s for w, e, s in zip(span, extra, stride, strict=True))
    else:
        begin, end = resolve_pads(node, size, stride, dilation, None)
        return begin, tuple(e - more for e, more in zip(end, extra, strict=True))
    require(min(total) >= 0, f"the kernel spans {span} and cannot fill the output: pads of {total} in all")
    half = tuple(t // 2 for t in total)
    rest = tuple(t - h for t, h in zip(total, half, strict=True))
    begin, end = (half, rest) if mode == "SAME_UPPER" else (rest, half)
    return begin, tuple(e - more for e, more in zip(end, extra, strict=True))


def lift_gemm(node: Node, opset: int) -> Apply:
    """alpha * A B + beta * C  ->  a linear layer, kernel `[N, K]`, alpha and beta folded into it."""
    require(not attribute(node, "transA", 0), "transA is 1: the first operand is transposed")
    alpha, beta = attribute(node, "alpha", 1.0), attribute(node, "beta", 1.0)
    weight = constant(node, 1, "weight")
    transposed = bool(attribute(node, "transB", 0))
    bias = np.zeros(weight.shape[0 if transposed else 1])
    if operand(node, 2) is not None:
        bias = beta * _row(node, bias.shape[0])
    return Apply(linear(weight, bias, transposed=transposed, factor=alpha), (data(node),), "linear")


def _row(node: Node, outputs: int) -> Array:
    """The third operand of Gemm as one row, the same for every row of the result."""
    addend = constant(node, 2, "addend")
    allowed = all(n == 1 for n in addend.shape[:-1]) and addend.shape[-1:] in ((), (1,), (outputs,))
    require(allowed, f"the addend has shape {addend.shape}, and differs from row to row of {outputs}")
    values = numbers(node, 2, "addend").reshape(-1)
    return np.broadcast_to(values, (outputs,)).copy()


def lift_matmul(node: Node, opset: int) -> Apply | None:
    """x W  ->  a linear layer on the last axis of x."""
    left, right = data(node), data(node, 1)
    if left.constant is None and right.constant is None:
        return None
    require(
        left.constant is None, f"the constant {left.name!r} is on the left: a map of the last axis but one"
    )
    weight = constant(node, 1, "weight")
    require(len(weight.shape) == 2, f"the constant has shape {weight.shape}, and not two axes")
    require(rank_of(left) >= 2, f"{left.name!r} has {rank_of(left)} axis, and a linear layer needs two")
    return Apply(linear(weight, None, transposed=False), (left,), "linear")


def lift_batch_normalization(node: Node, opset: int) -> Apply:
    """(x - mean) / sqrt(var + eps) * scale + shift  ->  a scale and a shift of each channel."""
    x = data(node)
    require(
        not attribute(node, "training_mode", 0), "training_mode is 1: the statistics are those of the batch"
    )
    require(
        attribute(node, "spatial", 1) == 1, "spatial is 0: the statistics differ from position to position"
    )
    extra = [value.name for value in node.outputs[1:] if value.name]
    require(
        not extra or opset >= 14, f"the outputs {extra} ask for the statistics of the batch, as in training"
    )
    scale, shift, mean, variance = (
        numbers(node, index, role)
        for index, role in ((1, "scale"), (2, "shift"), (3, "mean"), (4, "variance"))
    )
    epsilon = float(attribute(node, "epsilon", 1e-5))
    rank = rank_of(x)
    require(rank >= 2, f"{x.name!r} has {rank} axis, and no channel axis")
    spatial, axis = (rank - 2, 1) if rank > 2 else (0, -1)
    norm = batch_norm(mean, variance, scale, shift, epsilon, spatial, axis)
    _require_channels(node, norm.inputs)
    return Apply(norm, (x,), "batch_norm")


def lift_pad(node: Node, opset: int) -> Apply | None:
    """Pad of spatial axes with a constant  ->  a delta kernel that reads outside; negative pads crop."""
    x = data(node)
    rank = rank_of(x)
    pads = _pads(node, opset, rank)
    if not any(pads):
        return nothing(x)
    if dtype(node) not in FLOATS:
        return None
    mode = attribute(node, "mode", "constant")
    require(mode == "constant", f"mode is {mode!r}, not 'constant'")
    require(rank >= 3, f"{x.name!r} has {rank} axes, and none of them is spatial")
    begin, end = pads[:rank], pads[rank:]
    require(not any(begin[:2] + end[:2]), f"pads the batch or channel axis: {pads}")
    channels = x.shape[1] if x.shape is not None else None
    if not isinstance(channels, int):
        raise Declined(f"the number of channels of {x.name!r} is not known: {channels}")
    for axis, n in enumerate((x.shape or ())[2:], start=2):
        crop = min(begin[axis], 0) + min(end[axis], 0)
        require(not isinstance(n, int) or n + crop >= 0, f"crops {-crop} of {n} positions on axis {axis}")
    return Apply(pad(channels, begin[2:], end[2:], _pad_value(node, opset)), (x,), "pad")


def _pads(node: Node, opset: int, rank: int) -> Ints:
    """The pads at the begin of every axis, then at the end of every axis."""
    given = ints(node, "pads") if opset < 11 else integers(node, 1, "list of pads")
    if given is None:
        raise Declined("pads are absent")
    axes = integers(node, 3, "list of axes") if opset >= 18 else None
    count = rank if axes is None else len(axes)
    require(len(given) == 2 * count, f"{len(given)} pads for {count} axes")
    if axes is None:
        return given
    pads = [0] * (2 * rank)
    for position, axis in enumerate(axes):
        pads[axis % rank] = given[position]
        pads[rank + axis % rank] = given[count + position]
    return tuple(pads)


def _pad_value(node: Node, opset: int) -> float:
    if opset < 11:
        value = np.asarray(float(attribute(node, "value", 0.0)))
        return float(finite(value, "pad value of", data(node)))
    return float(numbers(node, 2, "pad value").reshape(())) if operand(node, 2) is not None else 0.0


def lift_average_pool(node: Node, opset: int) -> Apply:
    """AveragePool whose divisor is the same everywhere  ->  a depthwise kernel of equal taps."""
    x = data(node)
    size = ints(node, "kernel_shape") or ()
    require(bool(size) and rank_of(x) == len(size) + 2, f"kernel_shape is {size} for {x.name!r} of {x.shape}")
    stride = ints(node, "strides") or (1,) * len(size)
    dilation = ints(node, "dilations") or (1,) * len(size)
    extent = x.shape[2:] if x.shape else ()
    _require_plain_auto_pad(node, size, stride, dilation)
    begin, end = resolve_pads(node, size, stride, dilation, extent)
    require(
        not any(begin + end) or attribute(node, "count_include_pad", 0) == 1,
        f"count_include_pad is 0 with pads {begin + end}: the divisor differs at the border",
    )
    channels = x.shape[1] if x.shape else None
    if not isinstance(channels, int):
        raise Declined(f"the number of channels of {x.name!r} is not known: {channels}")
    pool = average_pool(channels, size, stride, dilation, begin, end)
    if attribute(node, "ceil_mode", 0):
        fits = all(
            isinstance(n, int) and (n + slack - 1) % s == 0
            for n, slack, s in zip(extent, pool.slack, stride, strict=True)
        )
        require(fits, f"ceil_mode is 1, and windows may be cut off: extent {extent}, stride {stride}")
    return Apply(pool, (x,), "average_pool")


def _require_plain_auto_pad(node: Node, size: Ints, stride: Ints, dilation: Ints) -> None:
    """Decline where onnxruntime departs from the letter of the standard for a padded pool."""
    if str(attribute(node, "auto_pad", "NOTSET")).startswith("SAME"):
        require(all(d == 1 for d in dilation), f"auto_pad with dilation {dilation}: runtimes differ")
        plain = all(k >= s for k, s in zip(size, stride, strict=True))
        require(plain, f"auto_pad with stride {stride} beyond the kernel {size}: runtimes differ")


def lift_shape(node: Node, opset: int) -> Constant | None:
    """Shape of a tensor whose extents are all known  ->  a constant."""
    x = data(node)
    start, end = attribute(node, "start", 0), attribute(node, "end")
    dims = None if x.shape is None else x.shape[start:end]
    if dims is None or not all(isinstance(n, int) for n in dims):
        return None
    shape: NDArray[Any] = np.array([int(n or 0) for n in dims], dtype=np.int64)
    return Constant.of(shape)


def lift_reshape(node: Node, opset: int) -> Apply | None:
    """Reshape, Flatten, Squeeze or Unsqueeze  ->  the same elements in another shape."""
    return reshape(node)


def either(first: Rule, second: Rule) -> Rule:
    """The rule that applies; the first one says whether nothing happens at all."""
    return lambda node, opset: first(node, opset) or second(node, opset)


RULES: Final[dict[str, Rule]] = {
    **SUMS,
    "AveragePool": lift_average_pool,
    "BatchNormalization": lift_batch_normalization,
    "Concat": either(SUMS["Concat"], lift_concat),
    "Conv": lift_conv,
    "ConvTranspose": lift_conv_transpose,
    "Flatten": either(SUMS["Flatten"], lift_reshape),
    "Gemm": lift_gemm,
    "MatMul": lift_matmul,
    "Pad": lift_pad,
    "Reshape": either(SUMS["Reshape"], lift_reshape),
    "Shape": lift_shape,
    "Slice": either(SUMS["Slice"], lift_slice),
    "Split": either(SUMS["Split"], lift_split),
    "Squeeze": either(SUMS["Squeeze"], lift_reshape),
    "Unsqueeze": either(SUMS["Unsqueeze"], lift_reshape),
}

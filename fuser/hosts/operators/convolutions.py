"""Windows that move over an image: convolutions and pools."""

from typing import Any, Final

from numpy.typing import NDArray

from fuser.algebra.conv import Conv, Ints, average_pool
from fuser.algebra.lazy import Lazy, arrange
from fuser.errors import require
from fuser.hosts.operators.call import (
    Call,
    attribute,
    bias_of,
    channels_of,
    constant,
    data,
    halves,
    ints,
    operand,
    rank_of,
    require_channels,
    resolve_pads,
)
from fuser.hosts.operators.extents import Extents, Shape, Shapes, shape_of
from fuser.hosts.operators.operator import Operator, and_then
from fuser.ir.carry import Carry, apart_from, spatial
from fuser.ir.constant import Constant
from fuser.ir.extents import Dim, affine, window
from fuser.ir.literals import UNIFORM
from fuser.ir.node import Apply, Node


def lift_conv(call: Call, node: Node) -> Apply:
    """Conv  ->  the operator itself, `auto_pad` resolved. Kernel `[O, I/groups, *k]`."""
    x, weight = data(node), constant(call, node, 1, "weight")
    size, stride, dilation = _geometry(call, node, weight)
    begin, end = resolve_pads(call, node, size, stride, dilation, x.shape[2:] if x.shape else None)
    require(all(p >= 0 for p in begin + end), f"a pad is negative: {begin + end}")
    conv = Conv(
        weight.lazy,
        bias_of(call, node, 2, weight.shape[0]),
        groups=attribute(call, "group", 1),
        stride=stride,
        dilation=dilation,
        begin=begin,
        end=end,
    )
    require_channels(x, conv.inputs)
    return Apply(conv, (x,), "conv")


def lift_conv_transpose(call: Call, node: Node) -> Apply:
    """ConvTranspose  ->  the mirrored operator. Kernel `[I, O/groups, *k]`, ours `[O, I/groups, *k]`."""
    x, weight = data(node), constant(call, node, 1, "weight")
    groups = attribute(call, "group", 1)
    size, stride, dilation = _geometry(call, node, weight)
    kernel = conv_transpose_kernel(weight, groups)
    begin, end = _transposed_pads(call, node, size, stride, dilation)
    conv = Conv(
        kernel,
        bias_of(call, node, 2, kernel.shape[0]),
        groups=groups,
        stride=stride,
        dilation=dilation,
        begin=begin,
        end=end,
        transposed=True,
    )
    require_channels(x, weight.shape[0])
    return Apply(conv, (x,), "conv_transpose")


def conv_transpose_kernel(weight: Constant, groups: int) -> Lazy:
    """`[I, O/groups, *k]`, as frameworks store it  ->  `[O, I/groups, *k]`."""
    inputs, per_group, *size = weight.shape
    require(inputs % groups == 0, f"{inputs} input channels do not divide into {groups} groups")
    shape = (per_group * groups, inputs // groups, *size)

    def exchange(values: NDArray[Any]) -> NDArray[Any]:
        blocks = values.reshape(groups, inputs // groups, per_group, *size)
        return blocks.swapaxes(1, 2).reshape(shape)

    return arrange(shape, exchange, weight.lazy)


def _geometry(call: Call, node: Node, weight: Constant) -> tuple[Ints, Ints, Ints]:
    """Size, stride and dilation of a kernel, checked against its attribute and its input."""
    require(len(weight.shape) >= 3, f"the weight has shape {weight.shape}, and no spatial axes")
    require(0 not in weight.shape, f"the weight has an empty axis: {weight.shape}")
    size = weight.shape[2:]
    x = data(node)
    require(
        x.shape is None or len(x.shape) == len(weight.shape),
        f"ranks differ: {x.name!r} has shape {x.shape}, the weight {weight.shape}",
    )
    stated = ints(call, node, "kernel_shape") or size
    require(stated == size, f"kernel_shape is {stated}, and the weight has shape {weight.shape}")
    stride, dilation = _steps(call, node, len(size))
    for name, values in (("strides", stride), ("dilations", dilation)):
        require(len(values) == len(size) and min(values) > 0, f"{name} is {values} for a kernel of {size}")
    return size, stride, dilation


def _steps(call: Call, node: Node, rank: int) -> tuple[Ints, Ints]:
    """Stride and dilation."""
    ones = (1,) * rank
    return ints(call, node, "strides") or ones, ints(call, node, "dilations") or ones


def _transposed_pads(call: Call, node: Node, size: Ints, stride: Ints, dilation: Ints) -> tuple[Ints, Ints]:
    """Pads of a transposed convolution; `output_padding` extends the output: it is taken off the end."""
    extra = ints(call, node, "output_padding") or (0,) * len(size)
    span = tuple((k - 1) * d + 1 for k, d in zip(size, dilation, strict=True))
    mode = attribute(call, "auto_pad", "NOTSET")
    full = _full(call, node, span, stride)
    if full is None:
        begin, end = resolve_pads(call, node, size, stride, dilation, None)
    else:
        total = tuple(f + e for f, e in zip(full, extra, strict=True))
        reason = f"the kernel spans {span} and cannot fill the output: pads of {total} in all"
        require(min(total) >= 0, reason)
        begin, end = halves(total, upper=mode == "SAME_UPPER")
    return begin, tuple(e - more for e, more in zip(end, extra, strict=True))


def _full(call: Call, node: Node, span: Ints, stride: Ints) -> Ints | None:
    """By how much the windows cover more than is asked for; None where pads are given.

    Raises:
        Declined: an extent is asked for, and that of the input is not known.
    """
    wanted = ints(call, node, "output_shape")
    if wanted is None:
        same = attribute(call, "auto_pad", "NOTSET") in ("SAME_UPPER", "SAME_LOWER")
        return tuple(w - s for w, s in zip(span, stride, strict=True)) if same else None
    extent = shape_of(data(node))[2:]
    known = [n for n in extent if isinstance(n, int)]
    require(len(known) == len(extent), f"output_shape {wanted} needs a known extent, which is {extent}")
    covered = (s * (n - 1) + w for s, n, w in zip(stride, known, span, strict=True))
    return tuple(c - w for c, w in zip(covered, wanted[-len(span) :], strict=True))


def lift_average_pool(call: Call, node: Node) -> Apply:
    """AveragePool whose divisor is the same everywhere  ->  a depthwise kernel of equal taps."""
    x = data(node)
    size = ints(call, node, "kernel_shape") or ()
    require(bool(size) and rank_of(x) == len(size) + 2, f"kernel_shape is {size} for {x.name!r} of {x.shape}")
    stride, dilation = _steps(call, node, len(size))
    extent = x.shape[2:] if x.shape else ()
    _require_plain_auto_pad(call, size, stride, dilation)
    begin, end = resolve_pads(call, node, size, stride, dilation, extent)
    require(
        not any(begin + end) or attribute(call, "count_include_pad", 0) == 1,
        f"count_include_pad is 0 with pads {begin + end}: the divisor differs at the border",
    )
    pool = average_pool(channels_of(x), size, stride, dilation, begin, end)
    if attribute(call, "ceil_mode", 0):
        fits = all(
            isinstance(n, int) and (n + slack - 1) % s == 0
            for n, slack, s in zip(extent, pool.slack, stride, strict=True)
        )
        require(fits, f"ceil_mode is 1, and windows may be cut off: extent {extent}, stride {stride}")
    return Apply(pool, (x,), "average_pool")


def _require_plain_auto_pad(call: Call, size: Ints, stride: Ints, dilation: Ints) -> None:
    """Decline where onnxruntime departs from the letter of the standard for a padded pool."""
    if str(attribute(call, "auto_pad", "NOTSET")).startswith("SAME"):
        require(all(d == 1 for d in dilation), f"auto_pad with dilation {dilation}: runtimes differ")
        plain = all(k >= s for k, s in zip(size, stride, strict=True))
        require(plain, f"auto_pad with stride {stride} beyond the kernel {size}: runtimes differ")


def conv_shape(call: Call, node: Node, extents: Extents) -> Shapes:
    """Batch, output channels, positions of the window."""
    x, weight = shape_of(data(node)), shape_of(data(node, 1))
    size = _size(x, weight)
    return [(x[0], weight[0], *_windows(call, node, x[2:], size))]


def _size(x: Shape, weight: Shape) -> Ints:
    """The extents of a kernel, which fits the data.

    Raises:
        Declined: it does not, or they are not known.
    """
    size = tuple(n for n in weight[2:] if isinstance(n, int))
    require(len(size) == len(x) - 2, f"the kernel of {weight} is not one for {x}")
    return size


def pool_shape(call: Call, node: Node, extents: Extents) -> Shapes:
    """Batch, channels, positions of the window; the indices of MaxPool have the same shape."""
    x = shape_of(data(node))
    size = ints(call, node, "kernel_shape") or ()
    require(len(size) == len(x) - 2, f"the kernel of {size} does not fit {x}")
    auto_pad = attribute(call, "auto_pad", "NOTSET")
    if set(ints(call, node, "dilations") or (1,)) != {1} and "SAME" in auto_pad:
        # Runtimes differ on what the same extent is.
        return [(*x[:2], *(None,) * len(size))] * len(node.outputs)
    return [(*x[:2], *_windows(call, node, x[2:], size))] * len(node.outputs)


def _windows(call: Call, node: Node, extent: Shape, size: Ints) -> list[Dim]:
    stride, dilation = _steps(call, node, len(size))
    if attribute(call, "auto_pad", "NOTSET") in ("SAME_UPPER", "SAME_LOWER"):
        return [affine(n, s - 1, s) for n, s in zip(extent, stride, strict=True)]
    begin, end = resolve_pads(call, node, size, stride, dilation, extent)
    slack = [b + e - (k - 1) * d for b, e, k, d in zip(begin, end, size, dilation, strict=True)]
    result = [window(n, t, s) for n, t, s in zip(extent, slack, stride, strict=True)]
    if attribute(call, "ceil_mode", 0):
        # Runtimes differ on a last window that begins in the padding; what divides evenly has none.
        fits = [
            isinstance(n, int) and (n + t - 1) % s == 0 for n, t, s in zip(extent, slack, stride, strict=True)
        ]
        return [dim if ok or s == 1 else None for dim, ok, s in zip(result, fits, stride, strict=True)]
    return result


def conv_asks(call: Call, node: Node) -> Shapes:
    """As many axes as the kernel has, and its channels."""
    weight = operand(node, 1)
    if weight is None or weight.shape is None or len(weight.shape) < 3:
        return []
    inside = weight.shape[0] if call.kind == "ConvTranspose" else weight.shape[1]
    groups = 1 if call.kind == "ConvTranspose" else int(attribute(call, "group", 1))
    channels = affine(inside, factor=groups)
    return [(None, channels, *(None,) * (len(weight.shape) - 2))]


def conv_transpose_shape(call: Call, node: Node, extents: Extents) -> Shapes:
    """Batch, output channels, and what the windows cover."""
    x, weight = shape_of(data(node)), shape_of(data(node, 1))
    size = _size(x, weight)
    rank, channels = len(size), extents.product([weight[1], attribute(call, "group", 1)])
    stride, dilation = _steps(call, node, rank)
    wanted = ints(call, node, "output_shape")
    if wanted is not None:
        return [(x[0], channels, *wanted[-rank:])]
    if attribute(call, "auto_pad", "NOTSET") in ("SAME_UPPER", "SAME_LOWER"):
        return [(x[0], channels, *(affine(n, factor=s) for n, s in zip(x[2:], stride, strict=True)))]
    begin, end = resolve_pads(call, node, size, stride, dilation, x[2:])
    extra = ints(call, node, "output_padding") or (0,) * rank
    more = [
        (k - 1) * d + 1 - s - b - e + o
        for k, d, s, b, e, o in zip(size, dilation, stride, begin, end, extra, strict=True)
    ]
    return [(x[0], channels, *(affine(n, m, 1, s) for n, m, s in zip(x[2:], more, stride, strict=True)))]


def global_pool_shape(call: Call, node: Node, extents: Extents) -> Shapes:
    """Every spatial axis becomes 1."""
    x = shape_of(data(node))
    return [(*x[:2], *(1,) * (len(x) - 2))]


_POOLED: Final = apart_from(spatial, "pooled")


def largest(call: Call, node: Node) -> Carry:
    """A positive scale and a shift of each channel: padding is never the largest."""
    return Carry(_POOLED, _POOLED, positive=True)


def mean(call: Call, node: Node) -> Carry:
    """A scale of each channel, and a shift where no padding is counted: then weights sum to one."""
    padded = attribute(call, "count_include_pad", 0) and (
        any(ints(call, node, "pads") or ()) or attribute(call, "ceil_mode", 0)
    )
    same = str(attribute(call, "auto_pad", "NOTSET")).startswith("SAME")
    return Carry(_POOLED, _POOLED, shifts=not (padded or same))


def _global(kind: str) -> Operator:
    rule = mean if kind == "GlobalAveragePool" else largest
    return Operator(kind, shape=global_pool_shape, literals=UNIFORM, homogeneous=True, carries=rule)


OPERATORS: Final = (
    Operator("Conv", lift_conv, conv_shape, literals=UNIFORM, floating=True, asks=conv_asks),
    Operator(
        "ConvTranspose",
        lift_conv_transpose,
        conv_transpose_shape,
        literals=UNIFORM,
        floating=True,
        asks=conv_asks,
    ),
    Operator(
        "AveragePool",
        lift_average_pool,
        pool_shape,
        literals=UNIFORM,
        floating=True,
        homogeneous=True,
        carries=mean,
    ),
    Operator(
        "MaxPool",
        None,
        pool_shape,
        and_then("int64"),
        literals=UNIFORM,
        homogeneous=True,
        carries=largest,
    ),
    Operator("LpPool", literals=UNIFORM),
    _global("GlobalAveragePool"),
    _global("GlobalMaxPool"),
)

"""Products of matrices: linear layers, where one factor is constant."""

from typing import Final

import numpy as np

from fuser.algebra.conv import Conv
from fuser.algebra.lazy import Array, arrange, defer
from fuser.errors import require
from fuser.hosts.operators.call import (
    Call,
    attribute,
    constant,
    data,
    numbers,
    operand,
    rank_of,
)
from fuser.hosts.operators.extents import Extents, Shapes, broadcast, shape_of
from fuser.hosts.operators.operator import Operator
from fuser.ir.constant import Constant
from fuser.ir.literals import UNIFORM
from fuser.ir.node import Apply, Node


def lift_gemm(call: Call, node: Node) -> Apply:
    """alpha * A B + beta * C  ->  a linear layer, kernel `[N, K]`, alpha and beta folded into it."""
    require(not attribute(call, "transA", 0), "transA is 1: the first operand is transposed")
    alpha, beta = attribute(call, "alpha", 1.0), attribute(call, "beta", 1.0)
    weight = constant(call, node, 1, "weight")
    require(len(weight.shape) == 2, f"the weight has shape {weight.shape}, and not two axes")
    transposed = bool(attribute(call, "transB", 0))
    bias = np.zeros(weight.shape[0 if transposed else 1])
    if operand(node, 2) is not None:
        bias = beta * _row(call, node, bias.shape[0])
    return Apply(linear(weight, bias, transposed=transposed, factor=alpha), (data(node),), "linear")


def _row(call: Call, node: Node, outputs: int) -> Array:
    """The third operand of Gemm as one row, the same for every row of the result."""
    addend = constant(call, node, 2, "addend")
    allowed = all(n == 1 for n in addend.shape[:-1]) and addend.shape[-1:] in ((), (1,), (outputs,))
    require(allowed, f"the addend has shape {addend.shape}, and differs from row to row of {outputs}")
    values = numbers(call, node, 2, "addend").reshape(-1)
    return np.broadcast_to(values, (outputs,)).copy()


def lift_matmul(call: Call, node: Node) -> Apply | None:
    """x W  ->  a linear layer on the last axis of x."""
    left, right = data(node), data(node, 1)
    if left.constant is None and right.constant is None:
        return None
    require(
        left.constant is None, f"the constant {left.name!r} is on the left: a map of the last axis but one"
    )
    weight = constant(call, node, 1, "weight")
    require(len(weight.shape) == 2, f"the constant has shape {weight.shape}, and not two axes")
    require(rank_of(left) >= 2, f"{left.name!r} has {rank_of(left)} axis, and a linear layer needs two")
    return Apply(linear(weight, None, transposed=False), (left,), "linear")


def linear(weight: Constant, bias: Array | None, *, transposed: bool, factor: float = 1.0) -> Conv:
    """factor * x W + bias on the last axis: `W [I, O]`, or `[O, I]` where `transposed`."""
    require(len(weight.shape) == 2, f"the weight has shape {weight.shape}, and not two axes")
    require(0 not in weight.shape, f"the weight has an empty axis: {weight.shape}")
    kernel = weight.lazy if transposed else arrange(weight.shape[::-1], np.transpose, weight.lazy)
    bias = np.zeros(kernel.shape[0]) if bias is None else bias
    if factor != 1.0:
        kernel = defer(kernel.shape, lambda values: factor * values, kernel)
    return Conv(kernel, bias, axis=-1)


def gemm_asks(call: Call, node: Node) -> Shapes:
    """Two matrices."""
    weight = operand(node, 1)
    if weight is None or weight.shape is None or len(weight.shape) != 2 or attribute(call, "transA", 0):
        return [(None, None)]
    return [(None, weight.shape[1 if attribute(call, "transB", 0) else 0])]


def gemm_shape(call: Call, node: Node, extents: Extents) -> Shapes:
    """Rows of A, columns of B."""
    a, b = shape_of(data(node)), shape_of(data(node, 1))
    return [(a[1 if attribute(call, "transA", 0) else 0], b[0 if attribute(call, "transB", 0) else 1])]


def matmul_shape(call: Call, node: Node, extents: Extents) -> Shapes:
    """Matrix product of the last two axes, broadcasting of the others."""
    a, b = shape_of(data(node)), shape_of(data(node, 1))
    if len(a) < 2 or len(b) < 2:
        return [(*a[:-1], *b[:-2], *b[len(b) :])] if len(a) >= 2 else [(*b[:-2], *b[-1:] * (len(b) > 1))]
    rank = max(len(a), len(b)) - 2
    lead = [(1,) * (rank - len(s) + 2) + s[:-2] for s in (a, b)]
    return [(*(broadcast(dims) for dims in zip(*lead, strict=True)), a[-2], b[-1])]


OPERATORS: Final = (
    Operator("Gemm", lift_gemm, gemm_shape, literals=UNIFORM, floating=True, asks=gemm_asks),
    Operator("MatMul", lift_matmul, matmul_shape, literals=UNIFORM, floating=True),
)

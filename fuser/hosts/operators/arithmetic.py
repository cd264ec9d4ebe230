"""Two or more tensors, element by element: sums, scales and shifts, and what is not affine."""

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from fuser.algebra.conv import scale_shift
from fuser.algebra.lazy import Array
from fuser.errors import require
from fuser.hosts.operators.call import Call, attribute, data, nothing, numbers, rank_of, require_same_shape
from fuser.hosts.operators.extents import Extents, Shape, aligned
from fuser.hosts.operators.operator import (
    EITHER,
    FIRST,
    PAIR,
    Inputs,
    LiftRule,
    Operator,
    all_inputs,
    always,
    broadcasting,
    in_inputs,
    of_input,
)
from fuser.ir.extents import Dim, affine
from fuser.ir.literals import UNIFORM
from fuser.ir.node import Apply, Node, Value
from fuser.ir.ops import Sum


def lift_add(call: Call, node: Node) -> Apply:
    """x + c  ->  a shift of each channel; x + y  ->  a sum; torch has x + alpha * y as well."""
    return _weighted(call, node, 1.0, float(attribute(call, "alpha", 1.0)))


def lift_sub(call: Call, node: Node) -> Apply:
    """x - c, c - x  ->  a shift of each channel (and a sign); x - y  ->  a sum; torch has x - alpha * y."""
    return _weighted(call, node, 1.0, -float(attribute(call, "alpha", 1.0)))


def _weighted(call: Call, node: Node, a: float, b: float) -> Apply:
    """a * x + b * y."""
    factor, scale = (a, b) if data(node).constant is not None else (b, a)
    return _binary(call, node, lambda c: (np.full_like(c, scale), factor * c), (a, b))


def lift_mul(call: Call, node: Node) -> Apply | None:
    """x * c, c * x  ->  a scale of each channel."""
    if data(node).constant is None and data(node, 1).constant is None:
        return None
    return _binary(call, node, lambda c: (c, np.zeros_like(c)), None)


def lift_div(call: Call, node: Node) -> Apply | None:
    """x / c  ->  a scale of each channel."""
    if data(node, 1).constant is None:
        return None

    def invert(c: Array) -> tuple[Array, Array]:
        require(bool(c.all()), f"{data(node, 1).name!r} holds 0, which cannot divide")
        return 1.0 / c, np.zeros_like(c)

    return _binary(call, node, invert, None)


def lift_neg(call: Call, node: Node) -> Apply:
    """-x  ->  a sum of one term."""
    return Apply(Sum((-1.0,)), (data(node),), "sum")


def lift_sum(call: Call, node: Node) -> Apply:
    """Sum of any number of tensors of one shape; terms that are uniform constants become the offset."""
    return _nary(call, node, 1.0)


def lift_mean(call: Call, node: Node) -> Apply:
    """Mean of any number of tensors of one shape."""
    return _nary(call, node, 1.0 / len(node.inputs))


def lift_extremum(call: Call, node: Node) -> Apply | None:
    """Max or Min of one tensor  ->  that tensor."""
    return nothing(data(node)) if len(node.inputs) == 1 else None


def _binary(
    call: Call,
    node: Node,
    affine: Callable[[Array], tuple[Array, Array]],
    signs: tuple[float, float] | None,
) -> Apply:
    """Two operands: `affine` gives scale and shift of one where the other is constant; `signs` their sum."""
    left, right = data(node), data(node, 1)
    index = 0 if left.constant is not None else 1
    x, c = (right, left) if index == 0 else (left, right)
    if c.constant is None:
        assert signs is not None, "a product of two tensors is not affine"
        require_same_shape((left, right))
        return Apply(Sum(signs), (left, right), "sum")
    # Before its values are read, which may be many.
    require_fits(c.constant.shape, x)
    return with_constant(x, numbers(call, node, index, "constant"), affine)


def _nary(call: Call, node: Node, factor: float) -> Apply:
    """Sum or Mean: uniform constants into the offset, the rest added."""
    terms: list[Value] = []
    offset = 0.0
    for index in range(len(node.inputs)):
        value = data(node, index)
        if value.constant is None:
            terms.append(value)
            continue
        values = numbers(call, node, index, "constant").reshape(-1)
        require(
            values.size > 0 and bool((values == values[0]).all()),
            f"the term {value.name!r} of {len(node.inputs)} is a constant that is not uniform",
        )
        offset += float(values[0])
    require_same_shape(terms)
    for index in range(len(node.inputs)):
        held = data(node, index).constant
        if held is not None:
            require_fits(held.shape, terms[0])
    return Apply(Sum((factor,) * len(terms), offset * factor), tuple(terms), "sum")


def with_constant(x: Value, values: Array, affine: Callable[[Array], tuple[Array, Array]]) -> Apply:
    """An operator on `x` and a constant; `affine` gives scale and shift for the constant's values.

    Raises:
        Declined: the constant is not one value, and not one value per channel, or the operator not finite.
    """
    require_fits(values.shape, x)
    require(values.size > 0, f"the constant is empty: {values.shape}")
    uniform = values.size == 1 or bool((values == values.flat[0]).all())
    with np.errstate(all="ignore"):
        scale, shift = affine(values.reshape(-1)[:1] if uniform else values.reshape(-1))
    finite = np.isfinite(scale) & np.isfinite(shift)
    worst = int(np.argmin(finite))
    require(bool(finite.all()), f"{scale[worst]:.6g} x + {shift[worst]:.6g} is not finite")
    if uniform:
        return Apply(Sum((float(scale[0]),), float(shift[0])), (x,), "scale_shift")
    rank = rank_of(x)
    axis = varying_axis(values.shape, rank, x)
    return Apply(scale_shift(scale, shift, rank - 2 if axis == 1 else 0, axis), (x,), "scale_shift")


def require_fits(shape: tuple[int, ...], x: Value) -> None:
    """Decline unless a constant of `shape` broadcasts to `x` without making it larger."""
    if not shape:
        return
    rank = rank_of(x)
    require(len(shape) <= rank, f"the constant of shape {shape} has more axes than {x.name!r}, {x.shape}")
    for n, dim in zip(reversed(shape), reversed(x.shape or ()), strict=False):
        require(n in {1, dim}, f"the constant of shape {shape} does not fit into {x.name!r}, {x.shape}")


def varying_axis(shape: tuple[int, ...], rank: int, x: Value) -> int:
    """The channel axis along which a constant varies: 1 with spatial axes behind it, or -1."""
    aligned = (1,) * (rank - len(shape)) + shape
    varying = [axis for axis, n in enumerate(aligned) if n != 1]
    if varying == [rank - 1]:
        return -1
    require(
        varying == [1], f"the constant of shape {shape} is not one value per channel of {x.name!r}, {x.shape}"
    )
    return 1


def elements(call: Call, node: Node, extents: Extents) -> Shape | None:
    """Extents that are computed from extents."""
    left, right = extents.elements(data(node)), extents.elements(data(node, 1))
    if left is None or right is None or not (len(left) == len(right) or 1 in (len(left), len(right))):
        return None
    n = max(len(left), len(right))
    left, right = (side * n if len(side) == 1 else side for side in (left, right))
    return tuple(_combine(call.kind, a, b) for a, b in zip(left, right, strict=True))


def _combine(kind: str, a: Dim, b: Dim) -> Dim:
    if isinstance(a, int) and not isinstance(b, int) and kind in ("Add", "Mul"):
        a, b = b, a
    if not isinstance(b, int):
        return None
    if kind == "Add":
        return affine(a, b)
    if kind == "Sub":
        return affine(a, -b)
    if kind == "Mul":
        return affine(a, factor=b) if b > 0 else None
    return affine(a, divisor=b) if b > 0 and not (isinstance(a, int) and a < 0) else None


def _joined(kind: str, lift: LiftRule | None = None, **facts: Any) -> Operator:
    """Every element from those at the same position."""
    return Operator(kind, lift, aligned, literals=UNIFORM, elementwise=True, **facts)


def _affine(kind: str, lift: LiftRule, inputs: Inputs) -> Operator:
    """What is computed of extents as well."""
    facts = {"elements": elements, "makes": broadcasting, "floating": True}
    return _joined(kind, lift, linear=in_inputs(inputs), **facts)


COMPARISONS: Final = ("And", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Or", "Xor")

OPERATORS: Final = (
    _affine("Add", lift_add, PAIR),
    _affine("Sub", lift_sub, PAIR),
    _affine("Mul", lift_mul, EITHER),
    _affine("Div", lift_div, FIRST),
    _joined("Neg", lift_neg, linear=in_inputs(FIRST), floating=True),
    _joined("Sum", lift_sum, linear=all_inputs, floating=True),
    _joined("Mean", lift_mean, linear=all_inputs, floating=True),
    _joined("Max", lift_extremum),
    _joined("Min", lift_extremum),
    _joined("Pow"),
    Operator("Mod", shape=aligned, makes=broadcasting),
    Operator(
        "Where",
        shape=aligned,
        types=of_input(1),
        linear=in_inputs((frozenset({1, 2}),)),
        literals=UNIFORM,
        makes=broadcasting,
    ),
    Operator("Equal", shape=aligned, types=always("bool"), makes=broadcasting),
    *(Operator(kind, shape=aligned, types=always("bool")) for kind in COMPARISONS),
    *(Operator(kind, shape=aligned) for kind in ("BitwiseAnd", "BitwiseOr", "BitwiseXor")),
)

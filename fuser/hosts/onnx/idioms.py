"""Activations that exporters spell out and runtimes put together again: what closes one stays where it is.

onnxruntime computes `x * (1 + erf(x / sqrt(2))) * 0.5` as one Gelu. Moving the 0.5 into the convolution
behind is exact, and made RepViT 1.2 times slower there: with the pattern goes the fused kernel.
"""

from typing import Final

from fuser.errors import require
from fuser.ir.node import Node, Value
from fuser.ir.ops import Opaque, Sum

# The factor behind `x * g(x)`, by the operator that makes g what it is: Gelu by erf and by tanh.
CLOSING: Final = {"Erf": 0.5, "Tanh": 0.5}

# From `x` to `g(x)`: a scale, a shift, the operator itself, and for the tanh form a cube.
LONGEST_GATE: Final = 8


def require_no_closing(node: Node, op: object) -> None:
    """Decline to lift the scale that closes an activation.

    Raises:
        Declined: with the operator that gives it away.
    """
    if not isinstance(op, Sum) or len(op.coefficients) != 1 or op.offset:
        return
    (factor,) = op.coefficients
    for product in (value.producer for value in node.inputs if value is not None):
        for kind in gates(product):
            require(
                abs(factor - CLOSING.get(kind, 0.0)) > 1e-4,
                f"the factor {factor:.6g} closes an activation by {kind}, which runtimes compute as one",
            )


def gates(product: Node | None) -> set[str]:
    """The operators between `x` and `g(x)` of a product `x * g(x)`; none where it is no such product."""
    if product is None or not isinstance(product.op, Opaque) or product.op.kind != "Mul":
        return set()
    factors = variable(product)
    if len(factors) != 2:
        return set()
    return path(factors[0], factors[1]) | path(factors[1], factors[0])


def path(value: Value, start: Value) -> set[str]:
    """The operators on the way from `start` to `value`; none if there is no such way."""
    kinds: set[str] = set()
    for _ in range(LONGEST_GATE):
        if value is start:
            return kinds
        maker = value.producer
        if maker is None:
            return set()
        inputs = variable(maker)
        if not inputs:
            return set()
        if isinstance(maker.op, Opaque):
            kinds.add(maker.op.kind)
        # The cube of the tanh form reads x more than once; any way back to it will do.
        value = start if start in inputs else inputs[0]
    return set()


def variable(node: Node) -> list[Value]:
    """The inputs that are not constant."""
    return [value for value in node.inputs if value is not None and value.constant is None]

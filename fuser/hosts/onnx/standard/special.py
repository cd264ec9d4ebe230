"""Kernels that `onnx.reference` computes element by element: erf, Resize, and indices of single elements.

Its erf is float32 whatever the input, off by 3e-8, where float64 is to decide. On [1, 32, 28, 28] it takes
24 ms to 0.1 for ScatterElements, 1.6 to 0.1 for GatherElements, 2.6 to 0.7 for Resize (onnx 1.23).
"""

# Every kernel has the signature of the table.
# ruff: noqa: ARG001

import math
from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fuser.hosts.onnx.standard.kernel import Kernel

Array = NDArray[Any]

STEP: Final = 1 / 64
"""Between the points that erf is developed around; at half of it the last term is below 1e-18."""

LAST: Final = 6.0
"""From here on erf is 1 in float64."""


@cache
def _developed() -> Array:
    """Coefficients `[power, point]` of the Taylor series of erf around multiples of `STEP` up to `LAST`.

    The derivative of order n + 1 is 2 / sqrt(pi) exp(-x^2) (-1)^n H_n(x), H_n being Hermite's polynomials.
    """
    x = np.arange(round(LAST / STEP) + 1) * STEP
    slope = 2 / math.sqrt(math.pi) * np.exp(-x * x)
    hermite = [np.ones_like(x), 2 * x]
    rows = [np.array([math.erf(point) for point in x]), slope]
    for n in range(1, 8):
        rows.append(slope * (-1.0) ** n * hermite[n] / math.factorial(n + 1))
        hermite.append(2 * x * hermite[n] - 2 * n * hermite[n - 1])
    return np.array(rows)


def erf(node: Kernel, x: Array) -> Any:
    """2 / sqrt(pi) times the integral of exp(-t^2) from 0 to x, within 2e-16."""
    size = np.minimum(np.abs(x.astype(np.float64)), LAST)
    whole = np.nan_to_num(size)
    point = np.rint(whole / STEP).astype(np.intp)
    offset = size - point * STEP
    table = _developed()
    result = table[-1][point]
    for row in table[-2::-1]:
        result = result * offset + row[point]
    return np.copysign(result, x).astype(x.dtype)


def gelu(node: Kernel, x: Array) -> Any:
    """x / 2 (1 + erf(x / sqrt(2))), or its approximation by tanh."""
    if node.attribute("approximate", "none") == "tanh":
        inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
        return (x / 2 * (1 + np.tanh(inner))).astype(x.dtype)
    return (x / 2 * (1 + erf(node, x / math.sqrt(2)))).astype(x.dtype)


def gather_elements(node: Kernel, x: Array, indices: Array) -> Array:
    """Elements of x, each by its own index along an axis."""
    axis = node.attribute("axis", 0)
    around = tuple(slice(n) if a != axis % x.ndim else slice(None) for a, n in enumerate(indices.shape))
    return np.take_along_axis(x[around], indices, axis=axis)


def scatter_elements(node: Kernel, x: Array, indices: Array, updates: Array) -> Any:
    """x with elements replaced, each by its own index along an axis."""
    if node.attribute("reduction", "none") != "none":
        return NotImplemented
    axis = node.attribute("axis", 0)
    result = np.array(x)
    around = tuple(slice(n) if a != axis % x.ndim else slice(None) for a, n in enumerate(indices.shape))
    np.put_along_axis(result[around], indices, updates, axis=axis)
    return result


def resize(node: Kernel, x: Array, *rest: Array | None) -> Any:
    """Nearest neighbours by whole factors, and linear interpolation; all else is left to the reference."""
    scales = rest[0] if node.opset < 11 and rest else rest[1] if len(rest) > 1 else None
    sizes = rest[2] if len(rest) > 2 else None
    rare = ("axes", "antialias", "exclude_outside", "keep_aspect_ratio_policy")
    if any(node.attribute(name) for name in rare) or (scales is None and sizes is None):
        return NotImplemented
    if sizes is not None and sizes.size:
        made = sizes.tolist()
        factors = [m / n for m, n in zip(made, x.shape, strict=True)]
    else:
        factors = [] if scales is None else [float(f) for f in scales]
        made = [math.floor(f * n) for f, n in zip(factors, x.shape, strict=False)]
    mode = node.attribute("mode", "nearest")
    if len(factors) != x.ndim or node.opset < 10:
        return NotImplemented
    return _linear(node, x, factors, made) if mode == "linear" else _repeated(node, x, factors, mode)


def _repeated(node: Kernel, x: Array, factors: list[float], mode: str) -> Any:
    transform = node.attribute("coordinate_transformation_mode", "half_pixel")
    rounding = node.attribute("nearest_mode", "round_prefer_floor")
    # With whole factors all of these repeat each element.
    plain = (transform == "half_pixel" and "round" in rounding) or (
        transform == "asymmetric" and rounding == "floor"
    )
    if not plain or mode != "nearest" or any(f != int(f) or f < 1 for f in factors):
        return NotImplemented
    for axis, factor in enumerate(factors):
        x = np.repeat(x, int(factor), axis=axis) if factor != 1 else x
    return x


def _linear(node: Kernel, x: Array, factors: list[float], made: list[int]) -> Any:
    """Between the two nearest elements, axis by axis."""
    transform = node.attribute("coordinate_transformation_mode", "half_pixel")
    if node.opset < 11 or x.dtype.kind != "f":
        return NotImplemented
    for axis, (factor, count) in enumerate(zip(factors, made, strict=True)):
        if count == x.shape[axis] and factor == 1:
            continue
        places = _places(transform, np.arange(count), factor, x.shape[axis], count)
        if places is None:
            return NotImplemented
        low = np.floor(places)
        share = (places - low).reshape(-1, *[1] * (x.ndim - axis - 1))
        first, second = (
            np.take(x, np.clip(low + k, 0, x.shape[axis] - 1).astype(np.intp), axis) for k in (0, 1)
        )
        x = (first * (1 - share) + second * share).astype(x.dtype)
    return x


def _places(transform: str, made: Array, factor: float, extent: int, count: int) -> Array | None:
    """Where the elements of the result lie between those of the source."""
    if transform == "half_pixel" or (transform == "pytorch_half_pixel" and count > 1):
        return (made + 0.5) / factor - 0.5
    if transform == "pytorch_half_pixel":
        return made * 0.0
    if transform == "align_corners":
        return made * ((extent - 1) / (count - 1) if count > 1 else 0.0)
    return made / factor if transform == "asymmetric" else None

"""Functions of each element: what becomes of the elements of inputs, and of extents that are elements.

The rules of `onnx/demands/values.py` for what is computed element by element.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray

from fuser.hosts.onnx.demands.tensors import SHORT, Call, Dims, Span, Tensor
from fuser.judge.forms import Extent, Known, added, least, minus, most, over, plus, scaled, times
from fuser.judge.needs import HUGE, Trace

Array = NDArray[Any]

_KINDS: Final = onnx.TensorProto


def leave(call: Call) -> None:
    """What was followed up to here is not followed further."""
    for tensor in call.inputs:
        for trace in tensor.traces if tensor is not None else ():
            trace.leaves()


def _cast(call: Call) -> Callable[[Array], Array]:
    to = call.attribute("to", _KINDS.UNDEFINED)
    if to in (_KINDS.STRING, _KINDS.UNDEFINED):
        return lambda x: x
    kind = np.dtype(np.float32) if to == _KINDS.BFLOAT16 else onnx.helper.tensor_dtype_to_np_dtype(to)
    return lambda x: (
        np.nan_to_num(x).astype(kind) if kind.kind in "iu" and x.dtype.kind == "f" else x.astype(kind)
    )


def _clip(call: Call) -> Callable[[Array], Array]:
    low, high = (call.attribute(n, call.input(i).number) for i, n in ((1, "min"), (2, "max")))
    return lambda x: x if low is None and high is None else np.clip(x, low, high).astype(x.dtype)


def _divide(a: Array, b: Array) -> Array:
    if a.dtype.kind in "iu":
        return np.asarray(np.where(b == 0, 0, a // np.where(b == 0, 1, b)), a.dtype)
    return np.asarray(np.where(np.abs(b) < 1e-3, np.nan, a / b), a.dtype)


def _mod(a: Array, b: Array) -> Array:
    return np.asarray(np.where(b == 0, 0, np.mod(a, np.where(b == 0, 1, b))), a.dtype)


def _log(x: Array) -> Array:
    # Near zero it is nothing to compare with.
    return np.log(np.where(x < 1e-3, np.nan, x))


UNARY: Final[dict[str, Callable[[Array], Array]]] = {
    "Abs": np.abs,
    "Acosh": np.arccosh,
    "Asin": np.arcsin,
    "Acos": np.arccos,
    "Atanh": np.arctanh,
    "Ceil": np.ceil,
    "Exp": np.exp,
    "Floor": np.floor,
    "Log": _log,
    "Neg": np.negative,
    "Not": np.logical_not,
    "Reciprocal": lambda x: _divide(np.ones_like(x), x),
    "Relu": lambda x: np.maximum(x, 0),
    "Round": np.round,
    "Sign": np.sign,
    "Sqrt": np.sqrt,
}
BINARY: Final[dict[str, Callable[[Array, Array], Array]]] = {
    "Add": np.add,
    "And": np.logical_and,
    "Div": _divide,
    "Equal": np.equal,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
    "Less": np.less,
    "LessOrEqual": np.less_equal,
    "Max": np.maximum,
    "Min": np.minimum,
    "Mod": _mod,
    "Mul": np.multiply,
    "Or": np.logical_or,
    "Pow": np.power,
    "Sub": np.subtract,
    "Xor": np.logical_xor,
}
COMPARED: Final = frozenset({"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"})
EXTENTS: Final[dict[str, Callable[[Known, Known], Extent]]] = {
    "Add": plus,
    "Div": over,
    "Max": most,
    "Min": least,
    "Mul": times,
    "Sub": minus,
}


def unary(call: Call, made: list[Tensor]) -> None:
    """A function of each element."""
    x, out = call.input(0), made[0]
    prepare = {"Cast": _cast, "Clip": _clip}.get(call.kind)
    function = UNARY[call.kind] if prepare is None else prepare(call)
    # The logarithm of a mask is a mask, whose zeros are closed.
    log = call.kind == "Log"
    out.traces = tuple(t.through(np.log if log and t.need.whole else function) for t in x.traces)
    if call.kind in ("Cast", "Floor"):
        out.elements = x.elements
    if call.kind in ("Cast", "Clip", "Floor", "Relu"):
        out.span = x.span
    if call.kind == "Neg" and x.elements is not None:
        out.elements = tuple(times(n, -1) for n in x.elements)
    if x.array is not None and x.array.dtype.kind in "biuf" and x.array.size <= SHORT:
        with np.errstate(all="ignore"):
            _constant(out, np.asarray(function(x.array)))


def binary(call: Call, made: list[Tensor]) -> None:
    """A function of pairs of elements."""
    a, b, out = call.input(0), call.input(1), made[0]
    if len(call.inputs) != 2:
        leave(call)
        return
    function = BINARY[call.kind]
    if a.array is not None and b.array is not None and max(a.array.size, b.array.size) <= SHORT:
        with np.errstate(all="ignore"):
            _constant(out, np.asarray(function(a.array, b.array)))
        return
    if call.kind in ("Add", "Mul") and a.span is None and b.span is not None:
        a, b = b, a
    out.traces = _traced(call, a, b, function)
    if call.kind in COMPARED:
        _compared(call, a, b, out)
    elif call.kind in EXTENTS:
        _extents(call, a, b, out)


def _traced(call: Call, a: Tensor, b: Tensor, function: Callable[[Array, Array], Array]) -> tuple[Trace, ...]:
    """What elements of inputs become beside a number, themselves, or elements of other inputs."""
    if not a.traces and not b.traces:
        return ()
    if (n := b.number) is not None:
        return tuple(t.through(lambda x: function(x, np.asarray(n).astype(x.dtype))) for t in a.traces)
    if (m := a.number) is not None:
        return tuple(t.through(lambda x: function(np.asarray(m).astype(x.dtype), x)) for t in b.traces)
    if len(a.traces) == len(b.traces) == 1 and a.traces[0].need is b.traces[0].need:
        other = b.traces[0].images
        return (a.traces[0].through(lambda x: function(x, other)),)
    if call.kind in COMPARED and (a.span is not None or b.span is not None):
        return ()
    if a.traces and b.traces:
        # Each is followed while the other does not matter.
        neutral = 0 if call.kind in ("Or", "Max") else 1
        beside, before = b.traces[0].of(neutral), a.traces[0].of(neutral)
        return (
            *(t.through(lambda x: function(x, beside)) for t in a.traces),
            *(t.through(lambda x: function(before, x)) for t in b.traces),
        )
    if call.kind in ("And", "Or", "Min", "Max"):
        return a.traces + b.traces
    if call.kind == "Div":
        for trace in b.traces:
            trace.through(lambda x: _divide(np.ones_like(x), x))
    leave(call)
    return ()


def _compared(call: Call, a: Tensor, b: Tensor, out: Tensor) -> None:
    """Both outcomes are wanted: of elements, and of extents."""
    for trace in out.traces:
        trace.both()
    for one, other in ((a, b), (b, a)):
        if one.span is not None:
            for trace in other.traces:
                trace.within(1, added(one.span.high, 1))
    if a.elements is None or b.elements is None:
        return
    pairs = _paired(a.elements, b.elements)
    for left, right in pairs:
        call.demands.kink(left, right)
        call.demands.kink(right, left)
    outcomes = [_equal(left, right) for left, right in pairs]
    if call.kind == "Equal" and None not in outcomes:
        _constant(out, np.array(outcomes, bool))


def _paired(a: Dims, b: Dims) -> list[tuple[Extent, Extent]]:
    n = max(len(a), len(b))
    left, right = (side * n if len(side) == 1 else side for side in (a, b))
    return list(zip(left, right, strict=False))


def _equal(left: Extent, right: Extent) -> bool | None:
    """Whether two elements are equal; None where that depends on sizes. No extent is negative."""
    if left is not None and left == right:
        return True
    if isinstance(left, int) and isinstance(right, int):
        return False
    return False if any(isinstance(n, int) and n < 0 for n in (left, right)) else None


def _extents(call: Call, a: Tensor, b: Tensor, out: Tensor) -> None:
    if call.kind == "Mul" and a.elements is not None and (part := _part(b)) is not None:
        out.elements = tuple(over(x, part) for x in a.elements)
    elif a.elements is not None and (b.elements is not None or b.number is not None):
        out.elements = tuple(_combined(call.kind, x, y) for x, y in _paired(a.elements, _numbers(b)))
    elif b.elements is not None and a.number is not None:
        out.elements = tuple(_combined(call.kind, x, y) for x, y in _paired(_numbers(a), b.elements))
    if a.span is not None:
        out.span = _moved(call.kind, a.span, b)


def _moved(kind: str, span: Span, other: Tensor) -> Span | None:
    """Positions with an offset, or times a mask."""
    if kind == "Mul":
        return span if other.traces and span.low == 0 else None
    alone = other.elements[0] if other.elements is not None and len(other.elements) == 1 else _whole(other)
    if alone is None or kind not in ("Add", "Sub"):
        return None
    return span.moved(alone if kind == "Add" else scaled(alone, -1))


def _whole(tensor: Tensor) -> Any:
    number = tensor.number
    return int(number) if number is not None and np.isfinite(number) and number == int(number) else None


def _numbers(tensor: Tensor) -> Dims:
    if tensor.elements is not None:
        return tensor.elements
    return (_whole(tensor),)


def _part(tensor: Tensor) -> int | None:
    """k, where a tensor is 1/k: that is how sizes are halved."""
    number = tensor.number
    inverse = 1 / float(number) if number is not None and 0 < number < 1 else 0.5
    return round(inverse) if abs(inverse - round(inverse)) < 1e-4 else None


def _combined(kind: str, x: Extent, y: Extent) -> Extent:
    return None if x is None or y is None else EXTENTS[kind](x, y)


def _constant(out: Tensor, array: Array) -> None:
    """Note that a tensor is known."""
    known = Tensor.of(array)
    out.array, out.elements = known.array, known.elements


def where(call: Call, made: list[Tensor]) -> None:
    """One of two, by a condition."""
    condition, a, b = (call.input(i) for i in range(3))
    out = made[0]
    left, right = a.number, b.number
    if condition.array is not None and a.elements is not None and b.elements is not None:
        yes = tuple(int(n) for n in condition.array.reshape(-1))
        chosen = zip(_paired(yes, a.elements), _paired(yes, b.elements), strict=True)
        out.elements = tuple(x if one else y for (one, x), (_, y) in chosen)
    elif left is not None and right is not None:
        out.traces = tuple(t.through(lambda c: np.where(c, left, right)) for t in condition.traces)
    else:
        for trace in condition.traces:
            for number, closes in ((left, True), (right, False)):
                if number is not None and not isinstance(number, str) and not number > -HUGE:
                    trace.opens(trace.images.astype(bool) == closes)
        out.traces = a.traces + b.traces

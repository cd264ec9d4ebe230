"""One rule per operator: what its elements were computed from, and what it demands of those that it reads.

Most operators have no rule: elements of inputs leave there what can be followed (`Trace.leaves`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray

from fuser.forms import Extent, Known, added, least, minus, most, over, plus, scaled, times
from fuser.hosts.onnx_tensors import SHORT, Call, Dims, Span, Tensor
from fuser.needs import HUGE, Trace

Rule = Callable[[Call, list[Tensor]], None]
Array = NDArray[Any]

_KINDS: Final = onnx.TensorProto


def leave(call: Call) -> None:
    """What was followed up to here is not followed further."""
    for tensor in call.inputs:
        for trace in tensor.traces if tensor is not None else ():
            trace.leaves()


# --- element by element ------------------------------------------------------------------------------------


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
    "Sqrt": lambda x: np.sqrt(x),
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
    function = (
        {"Cast": _cast, "Clip": _clip}[call.kind](call) if call.kind in ("Cast", "Clip") else UNARY[call.kind]
    )
    # The logarithm of a mask is a mask, whose zeros are closed.
    masks = call.kind == "Log"
    out.traces = tuple(t.through(np.log if masks and t.need.whole else function) for t in x.traces)
    if call.kind in ("Cast", "Floor"):
        out.elements, out.span = x.elements, x.span
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
    """What elements of inputs become beside a number, beside themselves, or beside elements of other inputs."""
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
    if a.elements is not None and (b.elements is not None or b.number is not None):
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
    return int(number) if number is not None and number == int(number) else None


def _numbers(tensor: Tensor) -> Dims:
    if tensor.elements is not None:
        return tensor.elements
    number = tensor.number
    if number is None or number == 0 or not np.isfinite(number):
        return (None,)
    # Times one half is divided by two, which is how sizes are halved.
    return (
        int(number) if number == int(number) else -round(1 / number) if (1 / number).is_integer() else None,
    )


def _combined(kind: str, x: Extent, y: Extent) -> Extent:
    if x is None or y is None:
        return None
    if kind == "Mul" and isinstance(y, int) and y < -1:
        return over(x, -y)
    return EXTENTS[kind](x, y)


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


# --- elements that move ------------------------------------------------------------------------------------


def keep(call: Call, made: list[Tensor]) -> None:
    """The same elements in another arrangement."""
    x = call.input(0)
    for out in made[:1] if call.kind not in ("Split",) else made:
        out.traces, out.span = x.traces, x.span
        if call.kind in ("Identity", "Reshape", "Squeeze", "Unsqueeze"):
            out.elements = x.elements
        if x.array is not None and (x.array.size == 1 or call.kind == "Identity"):
            out.array = x.array
    _sized(call)


def _sized(call: Call) -> None:
    """Inputs that are extents, bounds or counts."""
    for index in EXTENT_INPUTS.get(call.kind, ()):
        tensor = call.input(index)
        for element in tensor.elements or (None,):
            call.demands.extent(element, tensor.traces)


def slice_(call: Call, made: list[Tensor]) -> None:
    """A part of the elements."""
    keep(call, made)
    x = call.input(0)
    if x.elements is not None and len(made[0].dims or ()) == 1:
        bounds = [call.listed(name, i) for name, i in (("starts", 1), ("ends", 2), ("steps", 4))]
        first, last, step = (part[0] if part else 1 for part in bounds)
        if isinstance(first, int) and isinstance(last, int) and isinstance(step, int):
            made[0].elements = x.elements[first:last:step]


def gather(call: Call, made: list[Tensor]) -> None:
    """Elements at indices, which are below the extent of the table."""
    x, indices = call.input(0), call.input(1)
    axis = call.attribute("axis", 0)
    if x.dims:
        _indexes(call, indices, x.dims[axis % len(x.dims)])
    made[0].traces, made[0].span = x.traces, x.span
    if x.elements is not None and indices.elements is not None:
        if all(isinstance(i, int) and -len(x.elements) <= i < len(x.elements) for i in indices.elements):
            made[0].elements = tuple(x.elements[i] for i in indices.elements if isinstance(i, int))


def _indexes(call: Call, indices: Tensor, extent: Extent) -> None:
    if extent is None:
        return
    for trace in indices.traces:
        trace.within(0, extent)
    if indices.span is not None:
        indices.span.require()
        call.demands.fits(indices.span.high, extent)
    for index in indices.elements or ():
        if index is not None and not (isinstance(index, int) and index < 0):
            call.demands.fits(plus(index, 1), extent)
            call.demands.kink(extent, index if index else None)


def gather_nd(call: Call, made: list[Tensor]) -> None:
    """Elements at tuples of indices."""
    x, indices = call.input(0), call.input(1)
    depth = (indices.dims or (None,))[-1]
    batch = call.attribute("batch_dims", 0)
    if x.dims is not None and isinstance(depth, int):
        for extent in x.dims[batch : batch + depth]:
            _indexes(call, indices, extent)
    made[0].traces = x.traces


def scatter(call: Call, made: list[Tensor]) -> None:
    """Elements put at indices."""
    x = call.input(0)
    if call.kind == "ScatterND":
        gather_nd(call, made)
    elif x.dims:
        _indexes(call, call.input(1), x.dims[call.attribute("axis", 0) % len(x.dims)])
    made[0].traces = x.traces + call.input(2).traces


def one_hot(call: Call, made: list[Tensor]) -> None:
    """Indices below the depth."""
    depth = call.input(1)
    if depth.elements:
        _indexes(call, call.input(0), depth.elements[0])
    _sized(call)


def concat(call: Call, made: list[Tensor]) -> None:
    """All elements of all."""
    parts = [tensor for tensor in call.inputs if tensor is not None]
    for part in parts:
        if part.span is not None:
            part.span.require()
    made[0].traces = tuple(trace for part in parts for trace in part.traces)
    listed = [part.elements for part in parts]
    if all(
        elements is not None and (p.dims or ()) == (len(elements),)
        for p, elements in zip(parts, listed, strict=True)
    ):
        made[0].elements = tuple(e for elements in listed for e in elements or ())


# --- elements that are made --------------------------------------------------------------------------------


def shape(call: Call, made: list[Tensor]) -> None:
    """Extents as elements."""
    made[0].elements = call.dims(0)[call.attribute("start", 0) : call.attribute("end")]


def size(call: Call, made: list[Tensor]) -> None:
    """The number of elements as one."""
    made[0].elements = (times(*call.dims(0)),)


def range_(call: Call, made: list[Tensor]) -> None:
    """Numbers from start below limit."""
    ends = [call.input(i).elements for i in range(2)]
    _sized(call)
    start, limit = (end[0] if end else None for end in ends)
    if start is not None and limit is not None:
        made[0].span = Span(start, limit)


def filled(call: Call, made: list[Tensor]) -> None:
    """One number everywhere."""
    held = call.attribute("value")
    number = onnx.numpy_helper.to_array(held) if held is not None else np.zeros(1, np.float32)
    _sized(call)
    made[0].array = number
    dims = made[0].dims or ()
    if number.dtype.kind in "iu" and len(dims) == 1 and isinstance(dims[0], int) and dims[0] <= SHORT:
        made[0].elements = (int(number[0]),) * dims[0]


def counted(call: Call, made: list[Tensor]) -> None:
    """CumSum: of ones and zeros, numbers up to the extent."""
    x, axis = call.input(0), call.input(1).number
    if x.dims and axis is not None and x.traces and (extent := x.dims[int(axis) % len(x.dims)]) is not None:
        made[0].span = Span(0, added(extent, 1), x.traces)


def largest(call: Call, made: list[Tensor]) -> None:
    """ReduceMax: still an element of the input; it may be an extent, and then has a symbol."""
    x, out = call.input(0), made[0]
    out.traces = x.traces
    if call.kind == "ReduceMax" and len(x.traces) == 1 and x.traces[0].images is x.traces[0].need.candidates:
        out.elements = call.demands.largest(x.traces[0].need)


def total(call: Call, made: list[Tensor]) -> None:
    """ReduceSum and ReduceProd of extents."""
    x = call.input(0)
    if x.elements is not None:
        made[0].elements = (plus(*x.elements) if call.kind == "ReduceSum" else times(*x.elements),)
    elif call.kind == "ReduceSum" and x.dims and all(t.images.dtype.kind in "iub" for t in x.traces):
        extent = times(*x.dims) if call.listed("axes", 1) is None else _reduced(x.dims, call.listed("axes", 1))
        made[0].span = Span(0, added(extent, 1), x.traces) if extent is not None and x.traces else None
    else:
        leave(call)


def _reduced(dims: Dims, axes: Dims | None) -> Extent:
    return times(*(dims[axis] for axis in axes or () if isinstance(axis, int)))


def position(call: Call, made: list[Tensor]) -> None:
    """ArgMax and ArgMin: places of an axis."""
    x = call.input(0)
    if x.dims and (extent := x.dims[call.attribute("axis", 0) % len(x.dims)]) is not None:
        made[0].span = Span(0, extent)
    leave(call)


def lengths(call: Call, made: list[Tensor]) -> None:
    """Recurrent networks and ReverseSequence: lengths are at least 1 and at most the time."""
    x, index = call.input(0), 1 if call.kind == "ReverseSequence" else 4
    axis = 1 if call.attribute("layout", 0) else call.attribute("time_axis", 0)
    if x.dims and (time := x.dims[axis]) is not None:
        for trace in call.input(index).traces:
            trace.within(1, added(time, 1))
    if call.kind == "ReverseSequence":
        made[0].traces = x.traces
    else:
        leave(call)


def sized(call: Call, made: list[Tensor]) -> None:
    """Operators that take extents, bounds or counts, and compute something else."""
    _sized(call)
    for index, tensor in enumerate(call.inputs):
        if tensor is not None and index not in EXTENT_INPUTS[call.kind]:
            for trace in tensor.traces:
                trace.leaves()


EXTENT_INPUTS: Final[dict[str, Sequence[int]]] = {
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "OneHot": (1,),
    "Pad": (1,),
    "Range": (0, 1),
    "Resize": (2, 3),
    "Slice": (1, 2),
    "Split": (1,),
    "Tile": (1,),
    "TopK": (1,),
}
VALUES: Final[dict[str, Rule]] = {
    **dict.fromkeys([*UNARY, "Cast", "Clip"], unary),
    **dict.fromkeys(BINARY, binary),
    **dict.fromkeys(
        [
            "Dropout",
            "Expand",
            "Flatten",
            "Identity",
            "Pad",
            "Reshape",
            "Split",
            "Squeeze",
            "Tile",
            "Transpose",
            "Trilu",
            "Unsqueeze",
        ],
        keep,
    ),
    **dict.fromkeys(["GRU", "LSTM", "RNN", "ReverseSequence"], lengths),
    **dict.fromkeys(["ReduceMax", "ReduceMin"], largest),
    **dict.fromkeys(["ReduceProd", "ReduceSum"], total),
    **dict.fromkeys(["ArgMax", "ArgMin"], position),
    **dict.fromkeys(["Scatter", "ScatterElements", "ScatterND"], scatter),
    **dict.fromkeys(["Resize", "TopK"], sized),
    **dict.fromkeys(["Gather", "GatherElements"], gather),
    "Concat": concat,
    "ConstantOfShape": filled,
    "CumSum": counted,
    "GatherND": gather_nd,
    "OneHot": one_hot,
    "Range": range_,
    "Shape": shape,
    "Size": size,
    "Slice": slice_,
    "Where": where,
}

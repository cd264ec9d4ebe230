"""One rule per operator: what its elements were computed from, and what it demands of those that it reads.

Most operators have no rule: elements of inputs leave there what can be followed (`Trace.leaves`).
"""

# Every rule has the signature of the table.
# ruff: noqa: ARG001

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import onnx

from fuser.hosts.onnx.demands.elements import BINARY, UNARY, binary, leave, unary, where
from fuser.hosts.onnx.demands.tensors import SHORT, Call, Dims, Span, Tensor
from fuser.judge.forms import Extent, added, plus, times

Rule = Callable[[Call, list[Tensor]], None]


# --- elements that move ------------------------------------------------------------------------------------


def keep(call: Call, made: list[Tensor]) -> None:
    """The same elements in another arrangement."""
    x = call.input(0)
    for out in made if call.kind == "Split" else made[:1]:
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
        # One that is no number is not followed.
        made[0].elements = tuple(x.elements[i] if isinstance(i, int) else None for i in indices.elements)


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
            call.demands.kink(extent, index)


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
        extent = (
            times(*x.dims) if call.listed("axes", 1) is None else _reduced(x.dims, call.listed("axes", 1))
        )
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


def ordered(call: Call, made: list[Tensor]) -> None:
    """TopK: elements, and their places."""
    x = call.input(0)
    _sized(call)
    made[0].traces = x.traces
    if x.dims and (extent := x.dims[call.attribute("axis", -1) % len(x.dims)]) is not None:
        made[1].span = Span(0, extent)


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
    **dict.fromkeys(["Gather", "GatherElements"], gather),
    "Concat": concat,
    "ConstantOfShape": filled,
    "CumSum": counted,
    "GatherND": gather_nd,
    "OneHot": one_hot,
    "Range": range_,
    "Shape": shape,
    "Size": size,
    "Resize": sized,
    "Slice": slice_,
    "TopK": ordered,
    "Where": where,
}

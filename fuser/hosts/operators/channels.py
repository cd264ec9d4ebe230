"""What arranges parts of a tensor: Concat, Split and Slice, of channels above all; Gather and Scatter."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Final

from fuser.algebra.conv import Ints
from fuser.errors import Declined, require
from fuser.hosts.operators.call import (
    INT_MAX,
    Call,
    attribute,
    channels_of,
    computed,
    data,
    dtype,
    ints,
    nothing,
    same_shape,
)
from fuser.hosts.operators.extents import Extents, Shape, Shapes, like_first, shape_of
from fuser.hosts.operators.operator import (
    FIRST,
    Arrays,
    Constants,
    Inputs,
    Operator,
    all_inputs,
    held_ints,
    in_inputs,
    no_more,
)
from fuser.ir.constant import FLOATS
from fuser.ir.extents import Dim, affine
from fuser.ir.literals import UNIFORM
from fuser.ir.node import Apply, Node, Value
from fuser.ir.ops import Concat, Select


def lift_concat(call: Call, node: Node) -> Apply | None:
    """Concat of channels; of one tensor  ->  that tensor."""
    if len(node.inputs) == 1:
        return nothing(data(node))
    parts = [value for value in node.inputs if value is not None]
    axis = channel_axis(parts, int(attribute(call, "axis", 1)))
    if axis is None or dtype(node) not in FLOATS:
        return None
    return Apply(Concat(len(parts), axis), tuple(parts))


def lift_split(call: Call, node: Node) -> Apply | None:
    """Split of channels; into one part  ->  x. Torch has those `parts` for outputs that somebody reads."""
    x = data(node)
    read = attribute(call, "parts", tuple(range(len(node.outputs))))
    if len(node.outputs) == 1 and "parts" not in call.attributes:
        return nothing(x)
    axis = channel_axis([x], int(attribute(call, "axis", 0)))
    if axis is None or read is None or dtype(node) not in FLOATS:
        return None
    channels = channels_of(x, axis)
    given = _sizes(call, node, channels)
    require(sum(given) == channels, f"the parts {given} do not add up to {channels} channels")
    ranges = tuple(zip(accumulate((0, *given)), given, strict=False))
    return Apply(Select(tuple(ranges[part] for part in read), channels, axis), (x,))


def _sizes(call: Call, node: Node, extent: int) -> Ints:
    """The extents of the parts; the last one is smaller where they do not come out even (opset 18)."""
    given = ints(call, node, "split")
    if given is not None:
        return given
    if "parts" not in call.attributes:
        count = len(node.outputs)
        size = -(-extent // count)
        return (*(size,) * (count - 1), extent - size * (count - 1))
    # Torch says how large they are, or how many there are at most.
    size = attribute(call, "size", -(-extent // attribute(call, "num_outputs", 1)))
    return tuple(min(size, extent - first) for first in range(0, extent, size))


def lift_slice(call: Call, node: Node) -> Apply | None:
    """Slice of everything  ->  x; of neighbouring channels, all else left whole  ->  these channels."""
    x, found = data(node), bounds(call, node)
    if found is None:
        return None
    if same_shape(x.shape, node.outputs[0].shape) or _takes_all(x, *found):
        return nothing(x)
    if len(found[0]) != 1:
        return None
    ((start,), (stop,), (place,)) = found
    axis = channel_axis([x], place)
    if axis is None or dtype(node) not in FLOATS:
        return None
    channels = channels_of(x, axis)
    first, end = clamp(start, channels), clamp(stop, channels)
    require(end > first, f"the slice {start}:{stop} of {channels} channels is empty")
    return Apply(Select(((first, end - first),), channels, axis), (x,))


def bounds(call: Call, node: Node) -> tuple[Ints, Ints, Ints] | None:
    """Starts, ends and axes of a Slice; None where one is computed, or something is left out in between."""
    if computed(call, node, "starts", "ends", "axes", "steps"):
        return None
    starts, ends, axes, steps = (ints(call, node, name) for name in ("starts", "ends", "axes", "steps"))
    if starts is None or ends is None or any(step != 1 for step in steps or ()):
        return None
    return starts, ends, tuple(range(len(starts))) if axes is None else axes


def _takes_all(x: Value, starts: Ints, ends: Ints, axes: Ints) -> bool:
    """Whether a slice takes all that there is."""
    dims = [
        x.shape[axis] if x.shape is not None and -len(x.shape) <= axis < len(x.shape) else None
        for axis in axes
    ]
    return all(start == 0 for start in starts) and all(
        end >= INT_MAX or (isinstance(dim, int) and end >= dim) for end, dim in zip(ends, dims, strict=True)
    )


def clamp(index: int, extent: int) -> int:
    """An index of a slice, which may count from the end and lie outside."""
    return min(max(index + extent if index < 0 else index, 0), extent)


def channel_axis(parts: Sequence[Value], axis: int) -> int | None:
    """1 for the channels of an image, -1 for those of a linear layer, None for another axis."""
    ranks: set[int | None] = {part.rank for part in parts}
    rank = ranks.pop()
    if ranks or rank is None or not -rank <= axis < rank:
        return None
    place = axis % rank
    if place == rank - 1:
        return -1
    return 1 if place == 1 else None


def concat_shape(call: Call, node: Node, extents: Extents) -> Shapes:
    """Extents of one axis added."""
    shapes = [shape_of(value) for value in node.inputs]
    axis = attribute(call, "axis", 1) % len(shapes[0])
    known = [shape[axis] for shape in shapes]
    numbers = [n for n in known if isinstance(n, int)]
    symbols = [n for n in known if not isinstance(n, int)]
    total = sum(numbers) if not symbols else affine(symbols[0], sum(numbers)) if len(symbols) == 1 else None
    rest = [next((n for n in dims if isinstance(n, int)), dims[0]) for dims in zip(*shapes, strict=True)]
    return [(*rest[:axis], total, *rest[axis + 1 :])]


def split_shape(call: Call, node: Node, extents: Extents) -> Shapes:
    """One axis in parts."""
    x = shape_of(data(node))
    axis = attribute(call, "axis", 0) % len(x)
    n, read = x[axis], attribute(call, "parts", range(len(node.outputs)))
    if read is None:
        return []
    sizes = _sizes(call, node, n) if isinstance(n, int) else ints(call, node, "split")
    return [(*x[:axis], None if sizes is None else sizes[part], *x[axis + 1 :]) for part in read]


def slice_shape(call: Call, node: Node, extents: Extents) -> Shapes:
    """A range of each axis."""
    x = shape_of(data(node))
    starts, ends, axes = (ints(call, node, name) for name in ("starts", "ends", "axes"))
    if starts is None or ends is None:
        raise Declined("the range is absent")
    axes = tuple(range(len(starts))) if axes is None else axes
    steps = ints(call, node, "steps") or (1,) * len(starts)
    result = list(x)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        result[axis] = _range(x[axis], start, end, step)
    return [tuple(result)]


def _range(n: Dim, start: int, end: int, step: int) -> Dim:
    if isinstance(n, int):
        stop = None if step < 0 and end < -n else end
        return len(range(*slice(start if step > 0 or start < n else None, stop, step).indices(n)))
    if step < 1 or start < 0:
        return None
    if end >= INT_MAX:
        # What is cut off must be there; an empty result is no network's intent.
        return affine(n, step - 1 - start, step)
    return affine(n, end - start + step - 1, step) if end < 0 else None


def gather_shape(call: Call, node: Node, extents: Extents) -> Shapes:
    """The indices in place of an axis."""
    x, indices = shape_of(data(node)), shape_of(data(node, 1))
    axis = attribute(call, "axis", 0) % len(x)
    return [(*x[:axis], *indices, *x[axis + 1 :])]


def concat_elements(call: Call, node: Node, extents: Extents) -> Shape | None:
    """Those of all parts."""
    result: list[Dim] = []
    for value in node.inputs:
        part = extents.elements(value)
        if part is None:
            return None
        result.extend(part)
    return tuple(result)


def slice_elements(call: Call, node: Node, extents: Extents) -> Shape | None:
    """Every so manieth from the first to the last."""
    x = extents.elements(data(node))
    # Steps that are not known are not steps of 1.
    step = extents.held(call, node, "steps") if "steps" in call.attributes else (1,)
    found = [extents.held(call, node, "starts"), extents.held(call, node, "ends"), step]
    if x is None or any(bound is None or len(bound) != 1 for bound in found):
        return None
    first, last, by = (bound[0] for bound in found if bound is not None)
    if not (isinstance(first, int) and isinstance(last, int) and isinstance(by, int) and by > 0):
        return None
    return x[first:last:by]


def gather_elements(call: Call, node: Node, extents: Extents) -> Shape | None:
    """Those at the indices."""
    x, indices = extents.elements(data(node)), extents.elements(data(node, 1))
    if x is None or indices is None or attribute(call, "axis", 0) not in (0, -1):
        return None
    inside = all(isinstance(i, int) and -len(x) <= i < len(x) for i in indices)
    return tuple(x[i] for i in indices if isinstance(i, int)) if inside else None


def _gathered(arrays: Arrays) -> float:
    """So many indices, each of all that is not on the axis."""
    return arrays[1].size * arrays[0].size / max(1, min(arrays[0].shape, default=1))


def named_axis(call: Call, constants: Constants) -> Ints | None:
    """The axis that is named, or the first."""
    return held_ints(call, constants, "axis", (0,))


def cut_axes(call: Call, constants: Constants) -> Ints | None:
    """The axes that are named, or as many as there are starts."""
    axes = held_ints(call, constants, "axes", ())
    if axes != ():
        return axes
    starts = held_ints(call, constants, "starts", None)
    return None if starts is None else tuple(range(len(starts)))


def _scattered(call: Call, count: int) -> Inputs:
    """The data and the updates, unless these are combined in another way than by a sum."""
    return (frozenset({0, 2}),) if attribute(call, "reduction", "none") in {"none", "add"} else ()


_MOVES: Final = in_inputs(FIRST)

OPERATORS: Final = (
    Operator(
        "Concat",
        lift_concat,
        concat_shape,
        elements=concat_elements,
        linear=all_inputs,
        literals=UNIFORM,
        makes=no_more,
    ),
    Operator("Split", lift_split, split_shape, linear=_MOVES, literals=named_axis),
    Operator(
        "Slice",
        lift_slice,
        slice_shape,
        elements=slice_elements,
        linear=_MOVES,
        literals=cut_axes,
        makes=no_more,
    ),
    Operator(
        "Gather",
        shape=gather_shape,
        elements=gather_elements,
        linear=_MOVES,
        literals=named_axis,
        makes=_gathered,
    ),
    Operator("GatherElements", linear=_MOVES, literals=named_axis),
    Operator("GatherND", linear=_MOVES),
    Operator("ScatterElements", shape=like_first, linear=_scattered, literals=named_axis),
    Operator("ScatterND", shape=like_first, linear=_scattered),
)

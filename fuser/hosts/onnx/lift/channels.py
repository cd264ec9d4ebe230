"""Lifting of what arranges channels: Concat, and Split and Slice of whole channels."""

from collections.abc import Sequence
from itertools import accumulate

from fuser.algebra.conv import Ints
from fuser.errors import require
from fuser.hosts.onnx.node import attribute, bounds, data, dtype, list_of
from fuser.ir.constant import FLOATS
from fuser.ir.node import Apply, Node, Value
from fuser.ir.ops import Concat, Select


def lift_concat(node: Node, opset: int) -> Apply | None:  # noqa: ARG001  # the signature of the table
    """Concat of channels."""
    parts = [value for value in node.inputs if value is not None]
    axis = channel_axis(parts, int(attribute(node, "axis", 1)))
    if axis is None or dtype(node) not in FLOATS:
        return None
    return Apply(Concat(len(parts), axis), tuple(parts))


def lift_split(node: Node, opset: int) -> Apply | None:
    """Split of channels; into equal parts where sizes are not given."""
    x = data(node)
    place = int(attribute(node, "axis", 0))
    axis = channel_axis([x], place)
    if axis is None or dtype(node) not in FLOATS:
        return None
    channels = channels_of(x, axis)
    count = len(node.outputs)
    given = list_of(node, "split", 1, opset, 13)
    if given is None:
        # The last part is smaller where they do not come out even (opset 18).
        size = -(-channels // count)
        given = (*(size,) * (count - 1), channels - size * (count - 1))
    require(sum(given) == channels, f"the parts {given} do not add up to {channels} channels")
    return Apply(Select(tuple(zip(accumulate((0, *given)), given, strict=False)), channels, axis), (x,))


def lift_slice(node: Node, opset: int) -> Apply | None:
    """Slice of neighbouring channels, all else left whole."""
    x, found = data(node), bounds(node, opset)
    if found is None or len(found[0]) != 1:
        return None
    ((start,), (stop,), (place,)) = found
    axis = channel_axis([x], place)
    if axis is None or dtype(node) not in FLOATS:
        return None
    channels = channels_of(x, axis)
    first, end = clamp(start, channels), clamp(stop, channels)
    require(end > first, f"the slice {start}:{stop} of {channels} channels is empty")
    return Apply(Select(((first, end - first),), channels, axis), (x,))


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


def channels_of(x: Value, axis: int) -> int:
    """The number of channels.

    Raises:
        Declined: it is not known.
    """
    shape: Ints | tuple[object, ...] = x.shape or ()
    channels = shape[axis]
    require(isinstance(channels, int), f"the number of channels of {x.name!r} is not known: {channels}")
    assert isinstance(channels, int)
    return channels

"""Lifting of what arranges channels: cat, and split and slices of whole channels."""

from collections.abc import Sequence
from itertools import accumulate

from torch import fx

from fuser.hosts.lifting import nothing
from fuser.hosts.torch.call import Call
from fuser.ir.constant import FLOATS
from fuser.ir.node import Apply, Node, Value
from fuser.ir.ops import Concat, Select


def lift_cat(call: Call, node: Node) -> Apply | None:
    """Concat of channels; of one tensor it is that tensor."""
    parts = [value for value in node.inputs if value is not None]
    if len(call.operands) == 1:
        return nothing(parts[0])
    axis = channel_axis(parts, call.attributes.get("dim", 0))
    if axis is None or any(part.dtype not in FLOATS or part.dtype != node.outputs[0].dtype for part in parts):
        return None
    return Apply(Concat(len(parts), axis), tuple(parts))


def lift_split(call: Call, node: Node) -> Apply | None:
    """Split of channels; the parts that are read."""
    x = node.inputs[0]
    if x is None or x.dtype not in FLOATS:
        return None
    axis = channel_axis([x], call.attributes.get("dim", 0))
    channels = x.shape[axis] if axis is not None and x.shape is not None else None
    if axis is None or not isinstance(channels, int):
        return None
    sizes = _sizes(call, channels)
    if sizes is None or sum(sizes) != channels or 0 in sizes:
        return None
    ranges = list(zip(accumulate((0, *sizes)), sizes, strict=False))
    read = parts_read(node)
    if read is None or any(index >= len(ranges) for index in read):
        return None
    return Apply(Select(tuple(ranges[index] for index in read), channels, axis), (x,))


def _sizes(call: Call, channels: int) -> list[int] | None:
    wanted = call.attributes.get("split_size", call.attributes.get("chunks"))
    if isinstance(wanted, list | tuple):
        return list(wanted) if all(isinstance(n, int) for n in wanted) else None
    if not isinstance(wanted, int) or wanted < 1:
        return None
    size = wanted if call.kind == "split" else -(-channels // wanted)
    return [min(size, channels - first) for first in range(0, channels, size)]


def parts_read(node: Node) -> list[int] | None:
    """Which parts of a tuple the outputs of a node are; None where the tuple is read as a whole."""
    assert isinstance(node.source, fx.Node)
    indices = sorted(
        {user.args[1] for user in node.source.users if len(user.args) > 1 and isinstance(user.args[1], int)}
    )
    return indices if len(indices) == len(node.outputs) and node.outputs[0].name != node.source.name else None


def select(call: Call, node: Node) -> Apply | None:
    """A slice of neighbouring channels, all else left whole."""
    x = node.inputs[0]
    if x is None or x.shape is None or x.dtype not in FLOATS:
        return None
    found = _range(call, x.shape)
    if found is None:
        return None
    place, entry = found
    axis = channel_axis([x], place)
    channels = x.shape[place]
    if axis is None or not isinstance(channels, int):
        return None
    first, end, _ = entry.indices(channels)
    return Apply(Select(((first, end - first),), channels, axis), (x,)) if end > first else None


def _range(call: Call, shape: Sequence[object]) -> tuple[int, slice] | None:
    """The one axis that is cut, and where."""
    a = call.attributes
    if call.kind == "narrow":
        bounds = (a["start"], a["length"])
        known = all(isinstance(v, int) for v in (*bounds, a["dim"]))
        return (a["dim"], slice(bounds[0], bounds[0] + bounds[1])) if known and bounds[0] >= 0 else None
    if call.kind == "slice":
        known = isinstance(a["dim"], int) and all(isinstance(v, int | None) for v in (a["start"], a["end"]))
        return (a["dim"], slice(a["start"], a["end"])) if known else None
    index = a.get("index")
    entries = list(index) if isinstance(index, tuple) else [index]
    if Ellipsis in entries:
        at = entries.index(Ellipsis)
        entries[at : at + 1] = [slice(None)] * (len(shape) - len(entries) + 1)
    slices = [(axis, entry) for axis, entry in enumerate(entries) if isinstance(entry, slice)]
    cut = [(axis, entry) for axis, entry in slices if entry != slice(None)]
    if len(slices) < len(entries) or len(cut) != 1:
        return None
    place, found = cut[0]
    return (place, found) if all(isinstance(v, int | None) for v in (found.start, found.stop)) else None


def channel_axis(parts: Sequence[Value], axis: object) -> int | None:
    """1 for the channels of an image, -1 for those of a linear layer, None for another axis."""
    ranks = {part.rank for part in parts}
    rank = ranks.pop()
    if ranks or rank is None or not isinstance(axis, int) or not -rank <= axis < rank:
        return None
    place = axis % rank
    if place == rank - 1:
        return -1
    return 1 if place == 1 else None

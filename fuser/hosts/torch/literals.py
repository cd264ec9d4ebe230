"""Which numbers a call holds against positions and extents, and on which axes of its data."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from torch import fx

from fuser.hosts.torch.call import AVERAGE_POOLS, CONVS, MAX_POOLS, TRANSPOSED, Call
from fuser.hosts.torch.linear import ELEMENTWISE
from fuser.ir.constant import Constant
from fuser.ir.literals import ENDLESS, RIGID, UNIFORM, Literals, read

# Numbers in these say what a window is like, or which axis is meant: no extent changes what they do.
ALIKE: Final = ELEMENTWISE.union(
    CONVS, TRANSPOSED, AVERAGE_POOLS, MAX_POOLS,
    {"addmm", "batch_norm", "bmm", "cat", "clone", "contiguous", "conv", "copy", "detach", "dropout"},
    {"linear", "matmul", "mm", "prelu", "softmax", "to", "where"},
)  # fmt: skip

# Elements keep their order, or axes theirs.
MOVES: Final = frozenset(
    {"flatten", "movedim", "permute", "reshape", "squeeze", "t", "transpose", "unflatten", "unsqueeze"}
)

# They act on the axis `dim`, by default this one.
ALONG: Final = {"chunk": 0, "index_select": 0, "narrow": 0, "select": 0, "slice": 0, "split": 0}


@dataclass(frozen=True)
class Finder:
    """Finds the numbers of one call once its constant operands are known."""

    node: fx.Node
    call: Call

    def __call__(self, constants: Sequence[Constant | None]) -> Literals:
        """The numbers among arguments and in operands that are constants."""
        kind = self.call.kind
        if kind in ALIKE:
            return UNIFORM
        if kind in MOVES:
            return RIGID
        held = tuple(n for n in _whole((self.node.args, self.node.kwargs)) if abs(n) < ENDLESS)
        axis = self.call.attributes.get("dim", ALONG[kind]) if kind in ALONG else None
        axes = (axis,) if isinstance(axis, int) else None
        return Literals((*held, *read(constants)), axes, rigid=True)


def _whole(part: Any) -> Iterator[int]:
    """The whole numbers in arguments, however deep."""
    if isinstance(part, slice):
        part = (part.start, part.stop, part.step)
    if isinstance(part, dict):
        part = tuple(part.values())
    if isinstance(part, list | tuple):
        for inner in part:
            yield from _whole(inner)
    elif isinstance(part, int) and not isinstance(part, bool):
        yield part

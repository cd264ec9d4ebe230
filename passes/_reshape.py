"""What the rewrites of reshapes share: what is affine between a reshape and a value behind it."""

from fuser.algebra.conv import Conv, Ints
from fuser.errors import Declined
from fuser.ir.node import Node, Value
from fuser.ir.ops import Reshape
from passes._branch import REACH, affine


def reshape_before(value: Value, *, channels_only: bool = False) -> Node | None:
    """The nearest reshape that `value` is an affine map of, if there is one.

    With `channels_only` of each position of its result alone.
    """
    for _ in range(REACH):
        maker = value.producer
        if maker is None:
            return None
        if isinstance(maker.op, Reshape):
            return maker
        if not affine(maker) or (channels_only and isinstance(maker.op, Conv) and not maker.op.local):
            return None
        value = read_by(maker)
    return None


def read_by(node: Node) -> Value:
    """The value that a reshape or an affine map of one value reads."""
    (value,) = node.inputs
    assert value is not None
    return value


def sample(value: Value) -> Ints:
    """The shape of a value behind its first axis.

    Raises:
        Declined: it is not known.
    """
    _, *extents = value.shape or (None, None)
    if not all(isinstance(dim, int) for dim in extents):
        raise Declined(f"the extents of {value.name!r} are not known: {value.shape}")
    return tuple(int(dim or 0) for dim in extents)

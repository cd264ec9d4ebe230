"""What the tests of the laws share."""

from collections.abc import Callable, Iterator
from math import prod
from typing import Any

from fuser.algebra.conv import Conv, Ints
from fuser.algebra.lazy import Array
from fuser.errors import Declined
from tests.direct import unclipped
from tests.strategies import integers

# An input of integers up to this: a wrong result does not come out right by a sum that happens to vanish.
BY_NO_CHANCE = 1_000_000
PADDED: dict[str, Any] = {"begin": (1,), "end": (1,)}
SAME: dict[str, Any] = {"begin": (1, 1), "end": (1, 1)}


def conv(outputs: int, inputs: int, *size: int, seed: int = 0, bias: bool = True, **attributes: Any) -> Conv:
    """A convolution of small integers without zero."""
    weight = integers(seed, outputs, inputs // attributes.get("groups", 1), *size)
    return Conv.of(weight, integers(seed + 1, outputs) if bias else None, **attributes)


def outcome(law: Callable[..., Conv], *arguments: Any) -> tuple[Conv | None, str]:
    """What a law gives, or the reason why it declines."""
    try:
        return law(*arguments), ""
    except Declined as reason:
        return None, str(reason)


def one_after_the_other(outer: Conv, inner: Conv, x: Array) -> Array:
    return outer.evaluate(inner.evaluate(x))


def all_extents(*convolutions: Conv) -> Iterator[Ints]:
    """The first extents that leave something of every axis, then larger ones, all residues of the strides."""
    axes = range(convolutions[0].rank)
    smallest = [next(n for n in range(1, 60) if reaches(n, axis, *convolutions)) for axis in axes]
    steps = max((prod(c.stride[axis] for c in convolutions) for axis in range(len(smallest))), default=1)
    for more in (0, 1, 2, *range(8, 8 + steps)):
        yield tuple(n + more for n in smallest)


def reaches(n: int, axis: int, *convolutions: Conv) -> bool:
    """Whether an axis of extent `n` leaves something when the convolutions are applied in turn."""
    for each in convolutions:
        n = unclipped(each, (n,) * each.rank)[axis]
        if n < 1:
            return False
    return True


UP = conv(2, 2, 3, stride=(2,), transposed=True)

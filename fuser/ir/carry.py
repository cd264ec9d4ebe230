"""How an operator acts on axes: where a scale and a shift of what it reads are in what it makes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from fuser.algebra.pointwise import Pointwise
from fuser.errors import Declined, require
from fuser.ir.extents import Shape

Move = Callable[[Pointwise, Shape, Shape], Pointwise]
"""What becomes of a scale and shift between two values, given the shapes of what is read and what is made."""


def stay(m: Pointwise, read: Shape, made: Shape) -> Pointwise:
    """Each element stays where it is."""
    del read, made
    return m


@dataclass(frozen=True)
class Carry:
    """f(s * x + t) = s' * f(x) + t' for an operator f of one tensor, and from s', t' back to s, t.

    `alike`: it does the same, and linearly, to every channel, so that any map of the channels passes.
    `moves`: what is made are the elements that are read, each once. `positive`: only where no scale is
    negative or zero, as for a maximum. `shifts`: whether it carries a shift too, as what only moves elements
    does, or what averages them with weights that sum to one.
    """

    onward: Move = stay
    back: Move = stay
    alike: bool = False
    moves: bool = False
    positive: bool = False
    shifts: bool = True

    def behind(self, m: Pointwise, read: Shape | None, made: Shape | None) -> Pointwise:
        """What is to be done to the output in place of `m` to the input.

        Raises:
            Declined: it does not carry that.
        """
        return self._moved(self.onward, m, read, made)

    def before(self, m: Pointwise, read: Shape | None, made: Shape | None) -> Pointwise:
        """What is to be done to the input in place of `m` to the output.

        Raises:
            Declined: it does not carry that.
        """
        return self._moved(self.back, m, read, made)

    def _moved(self, move: Move, m: Pointwise, read: Shape | None, made: Shape | None) -> Pointwise:
        if read is None or made is None:
            raise Declined("the number of axes is not known")
        if self.positive:
            least = float(m.scale.min())
            require(least > 0, f"the scale is not positive everywhere: {least:.6g}")
        if not self.shifts and m.shift.any():
            raise Declined(f"a shift does not pass: {float(np.abs(m.shift).max()):.6g}")
        return move(m, read, made)


def apart_from(axes: Callable[[Shape, Shape], tuple[int, ...]], what: str) -> Move:
    """Elements along some axes become others, and a scale and shift that do not depend on these stay."""

    def move(m: Pointwise, read: Shape, made: Shape) -> Pointwise:
        touched = [axis for axis in axes(read, made) if axis in m.axes]
        require(not touched, f"the scale and shift differ along axis {touched}, which is {what}")
        return m

    return move


def spatial(read: Shape, made: Shape) -> tuple[int, ...]:
    """The axes behind batch and channels."""
    del made
    return tuple(range(2, len(read)))


ELEMENTWISE = Carry(positive=True, shifts=False)
"""f(s * x) = s * f(x) for s > 0, position by position."""

_POOLED: Final = apart_from(spatial, "pooled")

CHANNELWISE = Carry(_POOLED, _POOLED, positive=True, shifts=False)
"""The same for each channel."""

RESHAPE = Carry(
    onward=lambda m, read, made: m.reshaped(read, made),
    back=lambda m, read, made: m.reshaped(made, read),
    moves=True,
)
"""Axes are split, merged, put in or taken out."""


def transposition(order: Sequence[int]) -> Carry:
    """Axis i of what is made is axis `order[i]` of what is read."""
    return Carry(
        onward=lambda m, *_: m.transposed(order),
        back=lambda m, *_: m.transposed([int(axis) for axis in np.argsort(order)]),
        moves=True,
    )

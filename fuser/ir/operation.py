"""What may be asked of an operator of the graph, and what holds where one does not say otherwise."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fuser.algebra.conv import Ints
from fuser.errors import Declined
from fuser.ir.carry import Carry
from fuser.ir.constant import Constant
from fuser.ir.extents import Shape, nominal
from fuser.ir.literals import RIGID, UNIFORM, Literals, Numbers


@dataclass(frozen=True)
class Work:
    """Multiply-adds, elements that are read or written, and kernels that are launched for it."""

    multiply_adds: float
    elements: float
    kernels: int


class Operation:
    """What may be asked of an operator. Unless one says otherwise, it is affine in all its inputs together.

    Each answer that is not `evaluate` or `result` is a fact that some stage has need of, once, here, so that
    none has to know which operators there are.
    """

    evaluate: Callable[..., Any] | None
    """The output, or a tuple of several, computed directly; None where that cannot be had."""

    @property
    def opaque(self) -> bool:
        """Whether it stands only where the source has it: no host makes a new one."""
        return False

    @property
    def foldable(self) -> bool:
        """Whether what it makes of constants may be stored in its place."""
        return True

    @property
    def has_kernel(self) -> bool:
        """Whether constants may become a part of it."""
        return False

    @property
    def arity(self) -> tuple[int | None, int | None]:
        """How many inputs and outputs it has; None where each node has its own number."""
        return 1, 1

    @property
    def neutral(self) -> bool:
        """Whether the output is the input."""
        return False

    # How it acts.

    @property
    def elementwise(self) -> bool:
        """Whether every element is computed from those at the same position, inputs broadcast."""
        return False

    @property
    def linear(self) -> tuple[frozenset[int], ...]:
        """Of an opaque one, sets of inputs in which it is affine together, all others being held fixed."""
        return ()

    @property
    def of_shape(self) -> bool:
        """Whether it looks at the shapes of its inputs alone."""
        return False

    @property
    def retypes(self) -> bool:
        """Whether it gives its first input another element type and does no more."""
        return False

    @property
    def repeats(self) -> bool:
        """Whether it makes more of its first input by repeating it."""
        return False

    @property
    def rigid(self) -> bool:
        """Whether it moves elements between axes."""
        return False

    @property
    def view(self) -> bool:
        """Whether a host may have it for nothing: a part of what is there already."""
        return False

    @property
    def dense(self) -> bool:
        """Whether every channel of the output may depend on every one of the input."""
        return False

    @property
    def channel_axis(self) -> int | None:
        """The axis of its channels, 1 or -1; None where it does not know any."""
        return None

    @property
    def rank(self) -> int:
        """How many spatial axes it is for, at least."""
        return 0

    @property
    def spans(self) -> Ints:
        """How far each spatial axis is read at once, and a step further."""
        return ()

    @property
    def stride(self) -> Ints:
        """How far the input moves on when the output moves on by one, for each spatial axis."""
        return ()

    @property
    def row(self) -> int | None:
        """How many elements belong to one index of the first axis, where it makes that of all others."""
        return None

    @property
    def ambiguous(self) -> bool:
        """Whether only its neighbours tell what it acts on: channels of a linear layer, or a spatial axis."""
        return False

    @property
    def channels_made(self) -> int | None:
        """How many channels the output has, whatever it reads."""
        return None

    def moves(self, data: frozenset[int]) -> bool:
        """Whether it is affine in the inputs `data`, and only moves them or acts position by position."""
        del data
        return True

    def held(self, constants: Sequence[Numbers | None]) -> Literals:
        """The numbers that it holds against positions and extents, given its constant inputs."""
        del constants
        return RIGID if self.rigid else UNIFORM

    def carry(self, node: Any) -> Carry:
        """Where a scale and shift of what `node` reads first are in what it makes.

        Raises:
            Declined: it does not carry any.
        """
        del node
        raise Declined("it carries no scale and no shift")

    # Shapes.

    def result(self, *shapes: Shape | None) -> tuple[Shape | None, ...]:
        """The shape of each output, as far as it follows from those of the inputs; types stay as they are."""
        return shapes[:1]

    def asks(self, known: Shape | None, output: Shape | None) -> Shape | None:
        """What follows for the shape of an input of which so much is known; None where nothing does."""
        return output if known is None else None

    # Cost.

    def work(self, output: Shape | None, kernels: int) -> Iterator[Work]:
        """What is done one after the other where it makes `output` in so many kernels of a host."""
        yield Work(0, prod(nominal(output or ())) * 2 * kernels, kernels)

    # Other forms.

    def of_constants(self, constants: Sequence[Constant | None]) -> tuple[NDArray[Any], ...]:
        """The outputs for constant inputs, in the type of the first."""
        dtype = next(c.dtype for c in constants if c is not None)
        assert self.evaluate is not None, "only such operators are folded"
        made = self.evaluate(*(c.lazy() for c in constants if c is not None))
        return tuple(
            np.asarray(array).astype(dtype) for array in (made if isinstance(made, tuple) else (made,))
        )

    def flushed(self, below: float) -> Any:
        """The operator with zeros for weights up to `below` times the largest of its kernel."""
        del below
        return self

    def steady(self) -> Any:
        """The operator, with what is asked again and again computed where that is small."""
        return self

    def at_hand(self) -> Any:
        """The operator with all that it holds computed, however often it is looked at."""
        return self

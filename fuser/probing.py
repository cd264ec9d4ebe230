"""Two linear parts of graphs compared by their answers to impulses, which are the columns of their matrices.

For what is linear but no convolution: at one extent a reshape between two, a border by index. What is found
holds for the extents that are tried: those of the file, or two of its own choice where the file leaves them
open.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf, prod
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray

from fuser.affine_forms import Form, Gap, Leaf, compared, gamma
from fuser.errors import require
from fuser.lazy import Array
from fuser.operators import FACTORS, LINEAR, SUMS, UNITS, Constant, answered, evaluator

MOST_IMPULSES: Final = 8192


@dataclass(frozen=True)
class Part:
    """The nodes that lead from some values to one, with the constants that they read."""

    nodes: Sequence[onnx.NodeProto]
    constants: Mapping[str, Constant]
    opsets: Any
    result: str

    @cached_property
    def wide(self) -> dict[str, NDArray[Any]]:
        """The constants in float64."""
        return {name: constant.wide for name, constant in self.constants.items()}

    @cached_property
    def evaluator(self) -> Any:
        """The reference of ONNX for the nodes."""
        leaves = {n: np.zeros(0) for node in self.nodes for n in node.input if n}
        made = {name for node in self.nodes for name in node.output}
        given = {name: array for name, array in {**leaves, **self.wide}.items() if name not in made}
        return evaluator(self.nodes, given, [self.result], self.opsets)

    def answer(self, feeds: Mapping[str, Array]) -> Array:
        """The value, in float64."""
        return answered(lambda: self.evaluator.run(None, {**self.wide, **feeds}), self.result)[0]

    def bound(self, feeds: Mapping[str, Array]) -> Array:
        """The same with absolute values everywhere, which no sum in it exceeds."""
        known = {n: np.abs(array) if array.dtype.kind == "f" else array for n, array in self.wide.items()}
        nodes = []
        for node in self.nodes:
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            copy.op_type = {"Sub": "Add", "Neg": "Identity"}.get(node.op_type, node.op_type)
            if node.op_type == "BatchNormalization":
                copy.input[3] = f"{node.input[3]} away"
                known[copy.input[3]] = -known[node.input[3]]
            nodes.append(copy)
        given = {**known, **feeds}
        return answered(
            lambda: evaluator(nodes, given, [self.result], self.opsets).run(None, given), self.result
        )[0]

    @property
    def floating(self) -> list[Constant]:
        """The constants that were rounded."""
        return [constant for constant in self.constants.values() if constant.kind in UNITS]

    @property
    def work(self) -> int:
        """No output takes more operations."""
        return 8 * len(self.nodes) + sum(prod(constant.shape[1:]) for constant in self.floating)

    def require_linear(self, leaves: Sequence[str]) -> None:
        """Decline where the part is not linear in the leaves, all of them together."""
        data = set(leaves)
        for node in self.nodes:
            read = {index for index, name in enumerate(node.input) if name in data}
            if not read or node.op_type in {"Shape", "Size"}:
                continue
            allowed = LINEAR.get(node.op_type, read if node.op_type in SUMS | {"Concat"} else set())
            allowed = read if node.op_type in FACTORS and len(read) == 1 else allowed
            require(not node.domain and read <= allowed, f"{node.op_type} is not linear")
            data.update(node.output)


def probed(
    old: Part, new: Part, shapes: Mapping[str, tuple[Any, ...] | None], leaf: Leaf | None, form: Any
) -> Gap:
    """How far one part is from the other, at the extents that `shapes` of the leaves state.

    Raises:
        Declined: it is further than rounding explains, or one is not linear, or too large to try.
    """
    for part in (old, new):
        part.require_linear(list(shapes))
    require(bool(shapes) and None not in shapes.values(), f"a shape is not known: {dict(shapes)}")
    names = dict.fromkeys(n for shape in shapes.values() for n in (shape or ())[1:] if not isinstance(n, int))
    require(None not in names or len(shapes) == 1, f"extents are not known: {dict(shapes)}")
    order = {name: place for place, name in enumerate(names, start=1)}
    free = bool(names) or any(not isinstance(shape[0], int) for shape in shapes.values() if shape)
    gaps, sizes = [], dict[str, tuple[int, ...]]()
    for first in (5, 12) if free else (0,):
        # One batch for all; equal names are equal extents, and others differ.
        for name, shape in shapes.items():
            axes = enumerate(shape or ())
            sizes[name] = tuple(n if isinstance(n, int) else first + (a and order[n]) for a, n in axes)
        gaps.append(_gap(old, new, sizes, leaf, form if isinstance(form, Form) else None))
    slope, offset = (
        np.array([max(float(part.max()) for part in parts)]) for parts in zip(*gaps, strict=True)
    )
    return Gap(
        slope, offset, np.array([inf]), np.array([inf]), 0.0, {"extents": [list(n) for n in sizes.values()]}
    )


def _gap(
    old: Part, new: Part, sizes: Mapping[str, tuple[int, ...]], leaf: Leaf | None, form: Form | None
) -> tuple[Array, Array]:
    unit = max((UNITS[constant.kind] for constant in (*old.floating, *new.floating)), default=0.0)
    deep = max((constant.depth for constant in old.floating), default=0)
    # One kernel and its bias round each for itself; what is made of several, by as much as the largest.
    coarse, single = unit * (len(new.floating) + deep), len(new.floating) < 3 and not deep
    zeros = {name: np.zeros(size) for name, size in sizes.items()}
    rest = [part.answer(zeros) for part in (old, new)]
    require(rest[0].shape == rest[1].shape, f"the shape was {rest[0].shape} and is {rest[1].shape}")
    levels = [part.bound(zeros) for part in (old, new)]
    sizes_of = [
        part.bound({name: np.ones(size) for name, size in sizes.items()}) - level
        for part, level in zip((old, new), levels, strict=True)
    ]
    # A border that the original writes out was rounded, and is told from the inside by that.
    offset = compared(rest[0], rest[1], coarse * levels[1] + unit * (1 + deep) * levels[0], "bias")
    slope = np.zeros(rest[0].shape)
    for name, size in sizes.items():
        for probe in impulses(leaf, size, form):
            feeds = {**zeros, name: probe}
            a, b = (part.answer(feeds) - base for part, base in zip((old, new), rest, strict=True))
            most = float(np.abs(b).max(initial=0.0))
            room = coarse * (np.abs(b) if single else np.full(b.shape, most)) + 2.0**-40 * most
            slope += compared(a, b, room, "weight")
    losses = gamma(old.work, unit), gamma(new.work, unit)
    slope = slope + losses[0] * sizes_of[0] + losses[1] * sizes_of[1]
    return slope, offset + losses[0] * levels[0] + losses[1] * levels[1]


def impulses(leaf: Leaf | None, shape: tuple[int, ...], form: Form | None) -> Iterator[Array]:
    """Inputs of which every output of `form` reads one element at most, and which have all of them in turn.

    Where no form is known each has one element. Magnitudes and signs differ, so that what should not be read,
    but is, does not cancel.
    """
    spacing = list(shape)
    if leaf is not None and form is not None and form.place is not None and set(form.terms) == {leaf}:
        conv = form.terms[leaf][0]
        spans = [d * (k - 1) + 1 for k, d in zip(conv.size, conv.dilation, strict=True)]
        spacing = [1] * (len(shape) - 1 - len(spans)) + spans
        spacing.insert(form.place[0] % len(shape), conv.inputs)
    random = np.random.default_rng(1)
    require(prod(spacing) <= MOST_IMPULSES, f"{prod(spacing)} impulses are too many")
    for offsets in np.ndindex(*(min(n, m) for n, m in zip(shape, spacing, strict=True))):
        probe = np.zeros(shape)
        at = tuple(slice(first, None, step) for first, step in zip(offsets, spacing, strict=True))
        probe[at] = random.uniform(1, 2, probe[at].shape) * random.choice([-1.0, 1.0], probe[at].shape)
        yield probe

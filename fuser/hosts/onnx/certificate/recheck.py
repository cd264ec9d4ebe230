"""Proves again that one ONNX file computes what another does, without the compiler or a run of either.

Both graphs are read in terms of the values that both have by name. A node that both have, reading the same
values, proves its results. Any other value is written, on either side, as a form: a sum of convolutions of
values that are proved already, or of what an operator of the same kind and attributes makes of such. Forms
are put together by the laws of the algebra, whose conditions hold for every input and every extent, and
compared weight by weight. What is neither is not proved, and named.

For all inputs |new - old| <= slope max|input| + offset, the inputs being those of the region: from the
difference of the kernels, and from gamma_n for sums of n products in any order, on both sides. Assumed: the
roundoff of the types that are stated, or better; no overflow, no underflow, no saved products (Winograd).
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import inf
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx

from fuser.algebra.affine_forms import Alike, Form, Gap, Leaf, as_form, difference, plain, substituted
from fuser.errors import Declined, require
from fuser.hosts.onnx.certificate.sides import NONE, UNITS, Constant, Side, attributes, bodies

STEADY: Final = {"Relu", "MaxPool"}
"""Operators whose results differ by no more than what they read."""
REACH: Final = 64
"""So many values are put in their places before two forms are given up."""


@dataclass(frozen=True)
class Region:
    """A value, what made it before and what makes it now, and how far off it may be; or why that is open."""

    graph: str
    value: str
    replaced: tuple[str, ...] = ()
    made: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    slope: float = 0.0
    offset: float = 0.0
    conditions: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""


def equal(a: Any, b: Any) -> bool:
    """Whether two constants are the same to the bit, or two leaves the same."""
    if not isinstance(a, Constant) or not isinstance(b, Constant):
        return a is b
    if (a.kind, a.shape) != (b.kind, b.shape):
        return False
    old, new = a.load(), b.load()
    return bool((old == new).all()) if old.dtype == object else old.tobytes() == new.tobytes()


def near(old: Constant, new: Constant) -> bool:
    """Whether one constant may be the other, computed in other ways and rounded."""
    if (old.kind, old.shape) != (new.kind, new.shape) or old.kind not in UNITS:
        return equal(old, new)
    a, b = old.wide(), new.wide()
    room = UNITS[old.kind] * (np.abs(a) + old.depth * np.abs(a).max(initial=0.0))
    return bool(((np.abs(a - b) <= room) | (a == b) | (np.isnan(a) & np.isnan(b))).all())


class Prover:
    """Both sides of one graph, read in turn, and what was found."""

    def __init__(self, a: Side, b: Side, where: str, found: list[Region]) -> None:
        self.a, self.b, self.where, self.found = a, b, where, found
        names = dict.fromkeys((*a.given, *(name for name in a.makers if name in b.makers)))
        types = {name: a.types.get(name, NONE) for name in names}
        self.ends = {name: Leaf(shape, UNITS.get(kind, 0.0)) for name, (kind, shape) in types.items()}
        self.names = {leaf: name for name, leaf in self.ends.items()}
        self.before: dict[str, Any] = {}

    def prove(self) -> None:
        """Everything that the graph makes."""
        a, b = self.a, self.b
        self.check(a.given == b.given and len(a.outputs) == len(b.outputs), "", "inputs or outputs differ")
        for name in a.tensors.keys() & b.tensors.keys():
            self.check(equal(a.tensors[name], b.tensors[name]), name, "the constant differs")
        kept = {
            node.output[0] for node in b.nodes if not bodies(node) and self.twin(node, self.same) is not None
        }
        for side in (a, b):
            self.read(side, kept)
        for old, new in zip(a.outputs, b.outputs, strict=False):
            self.region(new, a.values.get(old), b.values.get(new))

    def check(self, holds: bool, value: str, reason: str) -> None:
        """Note what must hold, where it does not."""
        if not holds:
            self.found.append(Region(self.where, value, reason=reason))

    def same(self, old: str, new: str) -> bool:
        """Whether two names stand for the same value before anything has been read."""
        if old in self.ends or new in self.ends or not old or not new:
            return old == new
        if old == new and old in self.a.tensors and new in self.b.tensors:
            return True  # such constants are compared once for all
        return equal(self.a.values.get(old, 0), self.b.values.get(new, 1))

    def twin(self, node: onnx.NodeProto, same: Callable[[str, str], bool]) -> onnx.NodeProto | None:
        """The node of the original that makes the same outputs of the same inputs in the same way."""
        other = self.a.nodes[self.a.makers.get(node.output[0], 0)]
        if (other.op_type, other.domain, other.output) != (node.op_type, node.domain, node.output):
            return None
        alike = attributes(other) == attributes(node) and len(other.input) == len(node.input)
        return other if alike and all(map(same, other.input, node.input)) else None

    def read(self, side: Side, kept: set[str]) -> None:
        """Read the nodes of a side in order; what both have is compared, and then stands for itself."""
        side.values.update({name: self.ends[name] for name in side.given})
        for node in side.nodes:
            if isinstance(side.values.get(node.output[0]), Constant):
                continue
            if node.output[0] in kept:
                side.values.update({name: self.ends[name] for name in node.output if name})
                continue
            made = self.flow(side, node) if bodies(node) else side.run(node)
            for name, value in zip(node.output, made, strict=False):
                self.settle(side, name, value)
                side.values[name] = value if isinstance(value, Constant) else self.ends.get(name, value)

    def settle(self, side: Side, name: str, value: Any) -> None:
        """Keep what a value was, or compare it with that."""
        if name in self.ends and side is self.a:
            self.before.setdefault(name, value)
        elif name in self.ends and value is not self.ends[name]:
            self.region(name, self.before.get(name), value)

    def flow(self, side: Side, node: onnx.NodeProto) -> list[Any]:
        """If, Loop and Scan: their bodies are proved in turn, and then what they make is the same."""
        fresh = [Leaf(None) for _ in node.output]
        a, b = self.a, self.b
        other = self.twin(node, lambda x, y: equal(plain(a.values.get(x)), plain(b.values.get(y))))
        if side is a or other is None:
            return fresh
        where = f"{self.where}/{node.name or node.output[0]}"
        for old, new in zip(bodies(other), bodies(node), strict=True):
            Prover(a.inside(old), b.inside(new), where, self.found).prove()
        return [self.before.get(name, leaf) for name, leaf in zip(node.output, fresh, strict=True)]

    def region(self, name: str, old: Any, new: Any) -> None:
        """Compare what a value was and is."""
        old, new = plain(old), plain(new)
        if old is new and old is not None:
            return
        (replaced, read), (made, more) = (side.cone(name, self.ends) for side in (self.a, self.b))
        region = Region(self.where, name, replaced, made, tuple(dict.fromkeys((*read, *more))))
        try:
            gap = self.apart(old, new) or Gap(*(np.zeros(1),) * 4)
        except Declined as reason:
            self.found.append(replace(region, reason=str(reason)))
        else:
            slope, offset = float(gap.slope.max(initial=0.0)), float(gap.offset.max(initial=0.0))
            inputs = tuple(map(self.described, gap.leaves)) or region.inputs
            found = replace(region, slope=slope, offset=offset, inputs=inputs, conditions=gap.conditions)
            self.found.append(found)

    def described(self, leaf: Any) -> str:
        """A leaf by name, or as what an operator makes of others."""
        if isinstance(leaf, Form):
            return " + ".join(map(self.described, leaf.terms))
        if not isinstance(leaf, Leaf) or leaf in self.names:
            return str(self.names.get(leaf, "constant"))
        return f"{leaf.operator[1] if leaf.operator else '?'}({', '.join(map(self.described, leaf.inputs))})"

    def match(self, a: Leaf, b: Leaf) -> Alike | None:
        """What two leaves have to do with one another: one operator of inputs that agree; None if none."""
        if a is b:
            return Alike()
        if not a.operator or a.operator != b.operator or len(a.inputs) != len(b.inputs):
            return None
        try:
            pairs = zip(a.inputs, b.inputs, strict=True)
            gaps = [gap for old, new in pairs if (gap := self.apart(old, new)) is not None]
        except Declined:
            return None
        if not gaps:
            return Alike()
        if len(gaps) > 1 or a.operator[0] or a.operator[1] not in STEADY:
            return Alike(inf, inf, inf, inf)
        (gap,) = gaps
        slope, offset, size, level = map(float, map(np.max, (gap.slope, gap.offset, gap.size, gap.level)))
        return Alike(slope, offset, size, level, gap.leaves)

    def apart(self, old: Any, new: Any) -> Gap | None:
        """How far a value is from what it was, None where it is the same.

        Raises:
            Declined: it is another, or that cannot be seen.
        """
        if old is new:
            return None
        if isinstance(old, Constant) and isinstance(new, Constant):
            require(near(old, new), "the constants differ")
            return None if equal(old, new) else Gap(*(np.full(1, inf),) * 4)
        require(isinstance(old, Leaf | Form) and isinstance(new, Leaf | Form), "only one of both is constant")
        if isinstance(old, Leaf) and isinstance(new, Leaf) and self.match(old, new) == Alike():
            return None
        forms, first = (as_form(old), as_form(new)), None
        for _ in range(REACH):
            try:
                return difference(*forms, self.match)
            except Declined as reason:
                first = first or reason
            try:
                forms = self.expanded(*forms)
            except Declined:
                break
        raise first or Declined("too many values differ")

    def expanded(self, old: Form, new: Form) -> tuple[Form, Form]:
        """Both with the last value that only one of them reads as what it is in the original.

        Raises:
            Declined: there is none.
        """
        odd = {leaf for leaf in {**old.terms, **new.terms} if (leaf in old.terms) != (leaf in new.terms)}
        made = {leaf: self.a.makers.get(self.names.get(leaf, ""), -1) for leaf in {**old.terms, **new.terms}}
        leaf = max(made, key=lambda leaf: (made[leaf] >= 0, leaf in odd, made[leaf]), default=Leaf(None))
        index = made.get(leaf, -1) if odd else -1
        require(index >= 0, "there is nothing to put in its place")
        node = self.a.nodes[index]
        if self.names[leaf] not in self.before:
            self.before.update(zip(node.output, self.a.run(node), strict=False))
        meaning = self.before[self.names[leaf]]
        require(isinstance(meaning, Leaf | Form), f"{node.op_type} is not known")
        old, new = (
            substituted(form, leaf, as_form(meaning)) if leaf in form.terms else form for form in (old, new)
        )
        return old, new


def bare(model: onnx.ModelProto, *, nodes: bool) -> onnx.ModelProto:
    """A model without the shapes that it states in between, and without all that is compared by itself."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for graph in (copy.graph, *copy.functions):
        for part in ("value_info", *(("node", "initializer") if not nodes else ())):
            if hasattr(graph, part):
                graph.ClearField(part)
    return copy


def prove(a: str | os.PathLike[str], b: str | os.PathLike[str]) -> list[Region]:
    """The regions in which B is not A, each with its bound or why it is not proved."""
    models, found = [onnx.load(path, load_external_data=False) for path in (a, b)], list[Region]()
    bases = [str(Path(path).parent) for path in (a, b)]
    inferred = [
        onnx.shape_inference.infer_shapes(bare(model, nodes=True), data_prop=True) for model in models
    ]
    sides = [Side(m.graph, m.opset_import, bases[i], i) for i, m in enumerate(inferred)]
    with np.errstate(all="ignore"):  # what is not finite is equal to nothing, and so not proved
        Prover(sides[0], sides[1], models[0].graph.name, found).prove()
    known = [{(f.domain, f.name, f.overload): f for f in model.functions} for model in models]
    for key in known[0].keys() & known[1].keys():
        old, new = (Side(f[key], f[key].opset_import, bases[i], i) for i, f in enumerate(known))
        Prover(old, new, key[1], found).prove()
    rest = [bare(model, nodes=False).SerializeToString(deterministic=True) for model in models]
    if rest[0] != rest[1]:
        reason = "what is not in a graph differs: opsets, functions, inputs, outputs or metadata"
        found.append(Region("", "", reason=reason))
    return found

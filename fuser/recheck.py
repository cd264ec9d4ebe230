"""Proves again that one ONNX file computes what another does, without the compiler or a run of either.

Both graphs are read in terms of the values that both have by name. A node that both have, reading the same
values, proves its results. Any other value is written, on either side, as a form: a sum of convolutions of
values that are proved already, or of what an operator of the same kind and attributes makes of such. Forms
are put together by the laws of the algebra, whose conditions hold for every input, and compared weight by
weight. What is linear but no convolution (a reshape between two) is compared by its answers to impulses, at
the extents that the file states.

For all inputs |new - old| <= slope max|input| + offset, the inputs being those of the region: from the
difference of the kernels, and from gamma_n for sums of n products in any order, on both sides. Assumed: the
roundoff of the type of the weights, or better; no overflow, no underflow, no saved products (Winograd).
"""

import os
from collections import ChainMap
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from math import inf
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx

from fuser.affine_forms import Alike, Form, Gap, Leaf, difference, substituted
from fuser.errors import Declined, require
from fuser.operators import MOVING, SAME, Constant, Shape, as_form, plain
from fuser.probing import Part, probed
from fuser.sides import Side, attributes, bodies, equal, near

LIPSCHITZ: Final = {
    "Relu": 1.0,
    "MaxPool": 1.0,
    "GlobalMaxPool": 1.0,
    "Sigmoid": 0.25,
    "Tanh": 1.0,
}
REACH: Final = 64
"""So many values are put in their places before two forms are given up."""
NOTHING: Final = Gap(*(np.zeros(1),) * 4)


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


def match(a: Leaf, b: Leaf) -> Alike | None:
    """What two leaves have to do with one another: one operator of inputs that agree; None if it differs."""
    if a is b:
        return Alike()
    if not a.operator or a.operator != b.operator or len(a.inputs) != len(b.inputs):
        return None
    gaps: list[Gap] = []
    try:
        for old, new in zip(a.inputs, b.inputs, strict=True):
            gaps.extend(apart(old, new))
    except Declined:
        return None
    if not gaps:
        return Alike()
    steep = LIPSCHITZ.get(a.operator[1], inf) if len(gaps) == 1 and not a.operator[0] else inf
    slope, offset, size, level = (steep * float(part.max()) for part in gaps[0].parts)
    return Alike(slope, offset, size, level + 1.0)


def apart(old: Any, new: Any) -> list[Gap]:
    """How far two inputs of an operator are apart, nothing where they are the same.

    Raises:
        Declined: further than rounding explains.
    """
    if isinstance(old, Constant) and isinstance(new, Constant):
        require(near(old, new), "the constants differ")
        return []
    if old is new or (isinstance(old, Leaf) and isinstance(new, Leaf) and match(old, new) == Alike()):
        return []
    require(isinstance(old, Leaf | Form) and isinstance(new, Leaf | Form), "only one of both is constant")
    return [difference(as_form(old), as_form(new), match)]


def unchanged(old: Form, new: Form) -> bool:
    """Whether two forms are the same in exact arithmetic."""
    try:
        gap = difference(replace(old, rounds=0, unit=0.0), replace(new, rounds=0, unit=0.0), match)
    except Declined:
        return False
    return gap.used <= 1.0


class Prover:
    """Both sides of one graph, read in turn, and what was found."""

    def __init__(self, a: Side, b: Side, where: str, found: list[Region]) -> None:
        self.a, self.b, self.where, self.found = a, b, where, found
        names = dict.fromkeys((*a.given, *(name for name in a.makers if name in b.makers)))
        self.ends = {name: Leaf(a.types.get(name, (0, None))[1]) for name in names}
        self.names = {leaf: name for name, leaf in self.ends.items()}
        self.before: dict[str, Any] = {}
        self.renamed: dict[str, Leaf] = {}

    def prove(self) -> None:
        """Everything that the graph makes."""
        self.check(self.a.given == self.b.given, "", "the inputs differ")
        for name, tensor in self.b.tensors.items():
            same = name not in self.a.tensors or equal(self.a.tensors[name], tensor)
            self.check(same, name, "the constant differs")
        kept = self.kept()
        self.read(self.a, kept)
        if self.rename():
            self.read(self.a, kept)
        self.read(self.b, kept)
        for old, new in zip(self.a.graph.output, self.b.graph.output, strict=False):
            names = [value if isinstance(value, str) else value.name for value in (old, new)]
            if names[0] != names[1] or names[0] not in self.ends:
                self.region(names[1], self.a.values.get(names[0]), self.b.values.get(names[1]))
        self.check(len(self.a.graph.output) == len(self.b.graph.output), "", "the outputs differ")

    def read(self, side: Side, kept: Collection[str]) -> None:
        """Read the nodes of a side in order."""
        side.values.update({name: self.ends[name] for name in side.given})
        for node in side.nodes:
            if node.output[0] in kept:
                side.values.update({name: self.ends[name] for name in node.output if name})
            elif not isinstance(side.values.get(node.output[0]), Constant):
                self.settle(side, node)

    def rename(self) -> dict[str, Leaf]:
        """Let what the original passes on unchanged under a name that the result has too be known by that."""
        for name, value in self.before.items():
            node = self.a.nodes[self.a.makers[name]]
            source = node.input[0] if node.input else ""
            known = self.a.values.get(source)
            if source in self.ends or len(node.output) != 1 or node.op_type not in SAME | MOVING:
                continue
            known = plain(known)
            if isinstance(known, Form) and isinstance(value, Form) and unchanged(known, value):
                self.renamed.setdefault(source, self.ends[name])
        return self.renamed

    def check(self, holds: bool, value: str, reason: str) -> None:
        """Note what must hold, where it does not."""
        if not holds:
            self.found.append(Region(self.where, value, reason=reason))

    def kept(self) -> set[str]:
        """The first outputs of the nodes that both sides have, reading the same values."""
        return {
            node.output[0]
            for node in self.b.nodes
            if not bodies(node) and self.twin(node, self.same) is not None
        }

    def same(self, old: str, new: str) -> bool:
        """Whether two names stand for the same value before anything has been read."""
        if old in self.ends or new in self.ends or not old or not new:
            return old == new
        if old == new and old in self.a.tensors and new in self.b.tensors:
            return True  # such constants are compared once for all
        return equal(self.a.values.get(old, 0), self.b.values.get(new, 1))

    def twin(self, node: onnx.NodeProto, same: Any) -> onnx.NodeProto | None:
        """The node of the original that makes the same outputs of the same inputs in the same way."""
        index = (
            self.a.makers.get(node.output[0], -1)
            if not isinstance(self.b.values.get(node.output[0]), Constant)
            else -1
        )
        other = self.a.nodes[index]
        alike = (other.op_type, other.domain, other.output) == (node.op_type, node.domain, node.output)
        if (
            index < 0
            or not alike
            or attributes(other) != attributes(node)
            or len(other.input) != len(node.input)
        ):
            return None
        return other if all(map(same, other.input, node.input)) else None

    def settle(self, side: Side, node: onnx.NodeProto) -> None:
        """Read a node; a value that both sides have is compared, and then stands for itself."""
        if side is self.a and node.op_type in SAME | MOVING and node.input and node.input[0] in self.renamed:
            made = [self.before.get(node.output[0]) or self.renamed[node.input[0]]]
        else:
            made = self.flow(side, node) if bodies(node) else side.run(node)
        for name, value in zip(node.output, made, strict=False):
            if name in self.ends and side is self.a:
                self.before[name] = value
            elif name in self.ends:
                side.values[name] = value
                self.region(name, self.before.get(name), value)
            if name and not isinstance(value, Constant):
                known = self.renamed.get(name, value) if side is self.a else value
                side.values[name] = self.ends.get(name, known)
            elif name:
                side.values[name] = value

    def flow(self, side: Side, node: onnx.NodeProto) -> list[Any]:
        """If, Loop and Scan: their bodies are proved in turn, and then what they make is the same."""
        made = [self.ends.get(name, Leaf(None)) for name in node.output]
        if side is self.a:
            return made
        other = self.twin(
            node,
            lambda old, new: (
                plain(self.a.values.get(old)) is plain(self.b.values.get(new))
                or equal(self.a.values.get(old), self.b.values.get(new))
            ),
        )
        if other is None:
            return [Leaf(None) for _ in made]
        for old, new in zip(bodies(other), bodies(node), strict=False):
            sides = [
                Side(body, s.opsets, s.base, s.types, s.stored, ChainMap({}, s.values))
                for s, body in ((self.a, old), (self.b, new))
            ]
            Prover(sides[0], sides[1], f"{self.where}/{node.name or node.output[0]}", self.found).prove()
        return made

    def region(self, name: str, old: Any, new: Any) -> None:
        """Compare what a value was and is."""
        old, new = plain(old), plain(new)
        if old is new and old is not None:
            return
        cones = [side.cone(name, self.ends) for side in (self.a, self.b)]
        names = [tuple(node.name or node.output[0] for node in nodes) for nodes, _ in cones]
        inputs = tuple(dict.fromkeys((*cones[0][1], *cones[1][1])))
        region = Region(self.where, name, names[0], names[1], inputs)
        try:
            gap = self.compare(name, old, new)
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

    def compare(self, name: str, old: Any, new: Any) -> Gap:
        """How far a value is from what it was.

        Raises:
            Declined: it is another, or that cannot be seen.
        """
        if isinstance(old, Constant) or (isinstance(old, Leaf) and isinstance(new, Leaf)):
            try:
                return (apart(old, new) or [NOTHING])[0]
            except Declined:
                require(not isinstance(old, Constant), "the constants differ")
        require(isinstance(old, Leaf | Form) and isinstance(new, Leaf | Form), "only one of both is constant")
        forms = as_form(old), as_form(new)
        reasons: list[str] = []
        for _ in range(REACH):
            try:
                return difference(*forms, match)
            except Declined as reason:
                reasons.append(str(reason))
            try:
                forms = self.expanded(*forms)
            except Declined as reason:
                reasons.append(str(reason))
                break
        try:
            return self.probed(name, new)
        except Declined as reason:
            raise Declined(f"{reasons[0]}; {reason}") from None

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
        require(isinstance(meaning, Form), f"{node.op_type} is no sum of convolutions")
        old, new = (substituted(form, leaf, meaning) if leaf in form.terms else form for form in (old, new))
        return old, new

    def probed(self, name: str, new: Any) -> Gap:
        """The same by impulses."""
        ends, read = dict(self.ends), [list[str](), list[str]()]
        for _ in range(REACH):
            read = [side.cone(name, ends)[1] for side in (self.a, self.b)]
            # What only one side reads is made of what the other reads, or what both read is made of that.
            odd = {*read[0]} ^ {*read[1]}
            made = ({*read[0]} | {*read[1]}) & self.a.makers.keys() if odd else set()
            if not made:
                break
            del ends[max(made, key=lambda leaf: (leaf in odd, self.a.makers[leaf]))]
        parts = [self.part(side, name, ends) for side in (self.a, self.b)]
        leaves = dict.fromkeys((*read[0], *read[1]))
        alone = ends[next(iter(leaves))] if len(leaves) == 1 else None
        gap = probed(parts[0], parts[1], {leaf: ends[leaf].shape for leaf in leaves}, alone, new)
        return replace(gap, leaves=tuple(ends[leaf] for leaf in leaves))

    def part(self, side: Side, name: str, ends: Mapping[str, Leaf]) -> Part:
        """What leads to a value."""
        nodes, _ = side.cone(name, ends)
        known = {n: side.values.get(n) for node in nodes for n in node.input}
        constants = {n: value for n, value in known.items() if isinstance(value, Constant)}
        return Part(nodes, constants, side.opsets, name)


def inferred(model: onnx.ModelProto, known: Mapping[str, tuple[int, Shape]]) -> dict[str, tuple[int, Shape]]:
    """Element types and shapes by the inference of ONNX, or as `known`; B may state what it likes."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    if known:
        del bare.graph.value_info[:]
    graph = onnx.shape_inference.infer_shapes(bare, data_prop=True).graph
    found = dict[str, tuple[int, Shape]]()
    for value in (*graph.value_info, *graph.input, *graph.output):
        kind = value.type.tensor_type
        dims = [d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in kind.shape.dim]
        found[value.name] = kind.elem_type, tuple(dims) if kind.HasField("shape") else None
    return {**found, **known}


def skeleton(model: onnx.ModelProto) -> bytes:
    """All of a model but the nodes and tensors of its graphs, and what shapes it states in between."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    for graph in (bare.graph, *bare.functions):
        for part in ("node", "value_info", "initializer"):
            if hasattr(graph, part):
                graph.ClearField(part)
    return bytes(bare.SerializeToString(deterministic=True))


def prove(a: str | os.PathLike[str], b: str | os.PathLike[str]) -> list[Region]:
    """The regions in which B is not A, each with its bound or why it is not proved."""
    sides, found = list[Side](), list[Region]()
    models = [onnx.load(path, load_external_data=False) for path in (a, b)]
    for stored, (path, model) in enumerate(zip((a, b), models, strict=True)):
        types = inferred(models[0], {}) if not stored else inferred(model, sides[0].types)
        sides.append(Side(model.graph, model.opset_import, str(Path(path).parent), types, stored, {}))
    Prover(sides[0], sides[1], models[0].graph.name, found).prove()
    functions = [{(f.domain, f.name, f.overload): f for f in model.functions} for model in models]
    for key in functions[1]:
        pair = [
            Side(known[key], known[key].opset_import, side.base, {}, side.stored, {})
            for known, side in zip(functions, sides, strict=True)
        ]
        Prover(pair[0], pair[1], key[1], found).prove()
    if skeleton(models[0]) != skeleton(models[1]):
        found.append(
            Region(
                "",
                "",
                reason="what is not in a graph differs: opsets, functions, inputs, outputs or metadata",
            )
        )
    return found

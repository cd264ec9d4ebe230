"""ONNX against ONNX: both in onnxruntime, the original in float64, and what cannot run taken out of both."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from math import prod
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fuser.hosts.onnx.judge.cut import (
    RANDOM,
    Hole,
    Kind,
    aligned,
    cut,
    holes,
    narrowest,
    only,
    readers,
    unfed,
    value_types,
)
from fuser.hosts.onnx.judge.oracle import Float64, Oracle
from fuser.hosts.onnx.judge.runtime import opened
from fuser.hosts.onnx.judge.source import Source, all_nodes, specs
from fuser.hosts.onnx.judge.values import agree, compare_values
from fuser.judge.compare import Outputs
from fuser.judge.inputs import Feeds, Spec, numpy_dtype
from fuser.judge.runner import CannotRun, Runner
from fuser.judge.samples import Samples
from fuser.judge.verification import Values

if TYPE_CHECKING:
    import onnx

    from fuser.hosts.onnx.judge.source import Model

# How onnxruntime names an operator that it does not have.
UNKNOWN: Final = (
    re.compile(r"Fatal error: (?P<domain>[^\s:]*):(?P<type>\w+)\(-?\d+\) is not a registered function/op"),
    re.compile(r"No Op registered for (?P<type>\w+) with domain_version"),
    re.compile(
        r'In Node, \("[^"]*", (?P<type>\w+), "(?P<domain>[^"]*)", -?\d+\).*No opset import for domain'
    ),
)


SECONDS: Final = 3.0
SECONDS_PER_WEIGHT: Final = 4e-5
"""Of a run of a model with a Loop, which may be one without end: enough for 10,000 turns over all weights."""

DICE: Final = frozenset(("", kind) for kind in RANDOM)


@dataclass
class OnnxModels:
    """Two ONNX models, and what they are fed."""

    first: Model
    second: Model
    drawn: Samples
    taken: set[Kind] = field(default_factory=set)
    """Kinds of nodes that are taken out of both models."""

    def __post_init__(self) -> None:
        self.before = Source(self.first, "the original")
        self.after = Source(self.second, "the result")
        self.filled: dict[bytes, Feeds] = {}
        self.types: dict[str, Spec] = {}
        model = self.before.proto()
        self.patience = patience(model)
        self._precisions = narrowest(model)
        self._outputs = [value.name for value in model.graph.output]
        # Random numbers are compared by feeding both models the same.
        if holes(model, DICE):
            self.taken |= DICE
        # What is fed is tensors; what else the model takes is left to the nodes that read it.
        self.taken |= readers(model.graph, unfed(model.graph))

    @contextmanager
    def original(self, *, precise: bool) -> Iterator[Runner]:
        """The original, or what is left of it.

        Raises:
            CannotRun: the runtime does not load it.
        """
        with self._running(self.before, precise=precise) as runner:
            yield runner

    @contextmanager
    def result(self, *, precise: bool) -> Iterator[Runner]:
        """The result; of what was taken out it is told what the original was."""
        if self.taken:
            old, new = (holes(source.proto(), self.taken) for source in (self.before, self.after))
            if [(h.kind, len(h.outputs)) for h in old] != [(h.kind, len(h.outputs)) for h in new]:
                raise CannotRun(
                    f"{self.after.name}: it has not the same nodes that cannot be compared: "
                    f"{', '.join(map(str, new)) or 'none'}, and the original {', '.join(map(str, old))}"
                )
        with self._running(self.after, precise=precise) as runner:
            yield runner

    @contextmanager
    def _running(self, source: Source, *, precise: bool) -> Iterator[Runner]:
        if not self.taken:
            if precise:
                yield Float64(source.model, source.called)
                return
            with opened(source.model, source.called, optimise=False, patience=self.patience) as session:
                yield session
            return
        left = self._left(source)
        if precise:
            yield _Filled(Float64(left, source.name), self, source)
            return
        with self._opened(left, source) as session:
            yield _Filled(session, self, source)

    def _shared(self, source: Source) -> list[Hole]:
        """What is taken out of a model; of what bodies read from outside, what they read in both."""
        own, other = (
            holes(self._proto(model), self.taken)
            for model in (source, self.after if source is self.before else self.before)
        )
        if len(own) != len(other):
            return own  # which is a difference by itself
        return [
            replace(hole, captured=tuple(name for name in hole.captured if name in twin.captured))
            for hole, twin in zip(own, other, strict=True)
        ]

    def _proto(self, source: Source) -> onnx.ModelProto:
        """The model, in which what is taken out makes values of the names that they have in the original."""
        model = source.proto()
        if source is self.before or not self.taken:
            return model
        old, new = holes(self.before.proto(), self.taken), holes(model, self.taken)
        same = [len(hole.outputs) for hole in old] == [len(hole.outputs) for hole in new]
        return aligned(model, new, old) if same else model

    def _opened(self, part: onnx.ModelProto, source: Source) -> AbstractContextManager[Runner]:
        """A session of a part of a model."""
        return opened(part, source.name, optimise=False, folder=source.folder, patience=self.patience)

    def _left(self, source: Source) -> onnx.ModelProto:
        """What is left of a model without that which cannot be run or compared."""
        model = self._proto(source)
        self.types = value_types(model) | self.types
        left = cut(model, self._shared(source), self.types)
        if not left.graph.output:
            raise CannotRun(f"{source.name}: nothing is left without {_named(self.taken)}")
        return left

    def samples(self, runner: Runner) -> Iterator[tuple[Feeds, Outputs]]:
        """What the original is fed, and what it makes of it."""
        yield from self.drawn.of(runner)

    @property
    def inputs(self) -> Any:
        """What the user gave."""
        return self.drawn.inputs

    @property
    def notes(self) -> Sequence[str]:
        """What was not tried."""
        return self.drawn.notes

    def precisions(self) -> Mapping[str, str]:
        """Of each output the narrowest floating type that computes on the way to it."""
        return self._precisions

    def open(self, refusal: CannotRun) -> bool:
        """Take out the kind of node that the runtime says it does not know."""
        for pattern in UNKNOWN:
            if match := pattern.search(str(refusal.__cause__ or refusal)):
                kind = (match.groupdict().get("domain") or "", match["type"])
                if kind in self.taken or not holes(self.before.proto(), {kind}):
                    return False
                self.taken.add(kind)
                return True
        return False

    def closed(self) -> Mapping[str, str]:
        """The outputs behind nodes that only exist elsewhere, or of random numbers themselves."""
        if not self.taken:
            return {}
        model = self.before.proto()
        found: dict[str, str] = {}
        for hole in holes(model, self.taken):
            for name in self._outputs:
                if name in hole.outputs:
                    found[name] = f"it is made by {hole}, of which only the inputs were compared"
                elif not hole.random and self._behind(model, name, hole):
                    found[name] = f"it was compared with random numbers in the place of what {hole} makes"
        return found

    @staticmethod
    def _behind(model: onnx.ModelProto, name: str, hole: Hole) -> bool:
        return any(not set(hole.outputs).isdisjoint(node.output) for node in only(model, [name]).graph.node)

    def agree(self, feeds: Feeds) -> None:
        """Compare our evaluation of both models with the runtime, node by node.

        Raises:
            ContradictionError: it is wrong.
        """
        for source in (self.before, self.after):
            model = self._left(source) if self.taken else source.proto()
            agree(model, source, self._whole(feeds))

    def values(self, feeds: Feeds) -> Values:
        """The result judged value by value."""
        first, second = (
            Oracle(self._left(source) if self.taken else source.proto(), source.folder)
            for source in (self.before, self.after)
        )
        return compare_values(first, second, self._whole(feeds))

    def _whole(self, feeds: Feeds) -> Feeds:
        return feeds | self.fill(feeds) if self.taken else feeds

    def fill(self, feeds: Feeds) -> Feeds:
        """What the nodes that were taken out make of `feeds`: made up once, and the same for both models.

        Each is of the shape of what the node reads first, or is run where it can be. They are done in order,
        for one may depend on another.

        Raises:
            CannotRun: what a node reads cannot be computed.
        """
        key = blake2b(b"".join(name.encode() + a.tobytes() for name, a in feeds.items())).digest()
        if key not in self.filled:
            self.filled[key] = self._filling(feeds)
        return self.filled[key]

    def _filling(self, feeds: Feeds) -> Feeds:
        model = self.before.proto()
        made: Feeds = {}
        taken = holes(model, self.taken)
        extents = {
            name: n
            for value in specs(model.graph)
            if value.name in feeds and value.shape is not None
            for name, n in zip(value.shape, feeds[value.name].shape, strict=False)
            if isinstance(name, str)
        }
        for place, hole in enumerate(taken):
            names = (
                [*hole.outputs] if hole.random else [name for name in hole.inputs[:1] if name not in feeds]
            )
            before = cut(only(model, names), taken[:place], self.types) if names else None
            known = feeds | made
            if before is not None and before.graph.node:
                fed = {value.name for value in before.graph.input}
                with self._opened(before, self.before) as session:
                    known = known | session.run({n: a for n, a in known.items() if n in fed})
            for name in hole.outputs:
                first = known.get(name if hole.random else next(iter(hole.inputs), ""))
                made[name] = (
                    first if hole.random and first is not None else self._invented(name, first, extents)
                )
        return made

    def _invented(self, name: str, like: Any, extents: Mapping[str, int]) -> Any:
        """Random numbers of the type and shape that the model states, or else of those of `like`."""
        other = Spec(name, "float32" if like is None else like.dtype.name, None)
        stated = self.types.setdefault(name, other)
        dtype, shape = numpy_dtype(stated.dtype), () if like is None else like.shape
        if stated.shape is not None:
            near = shape if len(shape) == len(stated.shape) else (1,) * len(stated.shape)
            shape = tuple(
                n if isinstance(n, int) else extents.get(n or "", other)
                for n, other in zip(stated.shape, near, strict=True)
            )
        generator = np.random.default_rng(
            int.from_bytes(blake2b(name.encode(), digest_size=4).digest(), "big")
        )
        if dtype.kind in "iub":
            return generator.integers(0, 2, shape).astype(dtype)
        return generator.standard_normal(shape).astype(dtype)


@contextmanager
def running(model: Model, name: str, *, precise: bool) -> Iterator[Runner]:
    """A whole model in onnxruntime, its optimisations off, or in float64."""
    if precise:
        yield Float64(model, name)
        return
    with opened(model, name, optimise=False) as session:
        yield session


def patience(model: onnx.ModelProto) -> float | None:
    """How many seconds a run may take; any number of them where there is no Loop."""
    nodes = (node for holder in (model.graph, *model.functions) for node in all_nodes(holder.node))
    if all(node.op_type != "Loop" for node in nodes):
        return None
    weights: int = sum(prod(tensor.dims) for tensor in model.graph.initializer)
    return SECONDS + SECONDS_PER_WEIGHT * weights


class _Filled:
    """What is left of a model, which takes the inputs that the whole takes."""

    def __init__(self, runner: Runner, models: OnnxModels, source: Source) -> None:
        self.name = source.name
        inner = {name for hole in holes(models.before.proto(), models.taken) for name in hole.outputs}
        self.inputs: list[Spec] = [spec for spec in runner.inputs if spec.name not in inner]
        self.outputs = runner.outputs
        self._fed = [spec.name for spec in runner.inputs]
        self._runner, self._models = runner, models

    def run(self, feeds: Mapping[str, Any]) -> Outputs:
        known = {**feeds, **self._models.fill(dict(feeds))}
        return self._runner.run({name: known[name] for name in self._fed})


def _named(kinds: set[Kind]) -> str:
    return ", ".join(sorted("::".join(filter(None, kind)) for kind in kinds))

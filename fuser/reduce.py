"""A file on which the compiler fails, cut down to the fewest nodes on which it still fails in the same way.

The file is run first: what is wrong with it is found out, and has to stay the same. Then every way to make it
smaller is tried, by delta debugging: what may go is taken away in halves, then in quarters, down to single
parts, and what the fault does not need stays away.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, TypeVar

from fuser.errors import InputError
from fuser.hosts import output
from fuser.hosts.host import Smaller, Way
from fuser.hosts.kind import is_program
from fuser.hosts.pick import host_of
from fuser.places import require_apart
from fuser.report.reduction import Reduction
from fuser.symptom import KINDS, Run, Symptom, observe

if TYPE_CHECKING:
    from fuser.judge.inputs import Shapes

T = TypeVar("T")

SECONDS: Final = 60.0
"""How long a run may take, if nobody says."""

_SLOWER: Final = 3.0
_PATIENCE: Final = 5.0
"""A smaller file may take so many times the time of the whole, and so many seconds."""


def reduce_file(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str],
    *,
    because: str | None = None,
    passes: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    zero_below: float = 0.0,
    shapes: Shapes | None = None,
    seconds: float = SECONDS,
    tell: Callable[[str], None] = lambda _: None,
) -> Reduction:
    """Write to `dst` the smallest model found on which `optimize_file` fails as it does on `src`.

    When it is interrupted, `dst` is the smallest until then. What is left need not mean anything: inner
    values are its inputs, and its weights are plain numbers.

    Args:
        src: an ONNX file.
        dst: where what is left goes.
        because: what has to be wrong (see `KINDS`); whatever is wrong where None.
        passes: as for `optimize_file`, as are `exclude`, `zero_below` and `shapes`.
        exclude: names of passes not to run.
        zero_below: see `optimize_file`.
        shapes: those of inputs, as long as these are there.
        seconds: how long a run may take before it counts as one without end.
        tell: is told what happens, a line each time.

    Raises:
        InputError: `src` cannot be read, nothing is wrong with it, or it is not `because`.
        OutputError: `dst` cannot be written, or is `src`.
    """
    from fuser.rewrite.pattern import select

    if because is not None and because not in KINDS:
        raise InputError(f"nothing is wrong with a file that {because!r}; it {' or '.join(KINDS)}")
    smaller = None if is_program(src) else host_of(src).smaller
    if smaller is None:
        raise InputError(f"{os.fspath(src)}: only ONNX files are reduced; fuser.export makes one of a module")
    require_apart([src], texts={"what is left": dst}, reads={})
    names = [entry.name for entry in select(passes, exclude, zero_below).rewrites]
    run = Run(tuple(names), zero_below, shapes or {})
    with _laboratory(smaller, run, Path(src), seconds, tell) as laboratory:
        laboratory.diagnose(because)
        try:
            laboratory.go(smaller.first)  # what follows is quick then
            laboratory.forget_passes()
            laboratory.reduce(smaller.ways)
        finally:
            with output.staged(dst) as written, output.reported(os.fspath(dst)):
                written.write_bytes(smaller.content(laboratory.model))
        return laboratory.found()


def minimise(parts: Sequence[T], shows: Callable[[Collection[T]], bool]) -> None:
    """Take parts away as long as what is left shows the fault: large chunks first, then smaller ones.

    This is delta debugging by complements (Zeller and Hildebrandt, Simplifying and Isolating Failure-Inducing
    Input, 2002), with one sweep for each size of chunk: where the fault needs k of n parts, some k log n
    attempts.

    Args:
        parts: what may go.
        shows: whether the fault is there without these parts. It is asked about all that are gone, which
            are those it said yes to last and a chunk more.
    """
    gone: set[T] = set()
    size = len(parts)
    while size:
        left = [part for part in parts if part not in gone]
        for start in range(0, len(left), size):
            chunk = gone.union(left[start : start + size])
            if shows(chunk):
                gone = chunk
        size //= 2


@dataclass
class _Laboratory:
    """The smallest model until now, and attempts at a smaller one."""

    host: Smaller
    run: Run
    source: Path
    folder: Path
    limit: float
    tell: Callable[[str], None]
    tried: dict[str, tuple[int, int]] = field(default_factory=dict)
    seen: set[int] = field(default_factory=set)
    """Of what was tried already, a number each."""

    def __post_init__(self) -> None:
        self.started = perf_counter()
        self.model = self.host.read(self.source)
        self.nodes, self.bytes = self._size()
        self.symptom: Symptom

    def _size(self) -> tuple[int, int]:
        return self.host.nodes(self.model), len(self.host.content(self.model))

    def diagnose(self, because: str | None) -> None:
        """Find out what is wrong with the whole, as it is written here.

        Raises:
            InputError: nothing is, or it is not what it is said to be.
        """
        fault = host_of(self.source).invalid(self.source)
        self.run = replace(self.run, valid=fault is None)
        begun = perf_counter()
        symptom = observe(self.run, self._written(self.model), self.limit)
        if symptom is None:
            raise InputError(f"{self.source}: {self._nothing(fault)}")
        if because not in (None, symptom.kind):
            raise InputError(f"{self.source}: is not reduced because it {because}, for it {symptom}")
        if symptom.kind != "hangs":
            self.limit = min(self.limit, _PATIENCE + _SLOWER * (perf_counter() - begun))
        self.symptom = symptom
        self.run = replace(self.run, verify=symptom.proof)
        self.tell(str(symptom))
        self.tell(f"{self.nodes:>6} nodes in the whole file")

    def _nothing(self, fault: str | None) -> str:
        """Why there is nothing to reduce."""
        if symptom := observe(self.run, self.source, self.limit):
            return f"is not reduced, for once it is read and written again it does not show that it {symptom}"
        reason = f"the file is invalid: {fault}" if fault else "it is optimized, and proved right"
        return f"nothing of ours is wrong with it: {reason}"

    def forget_passes(self) -> None:
        """Leave out the passes that the fault does not need."""
        whole = self.run

        def shows(gone: Collection[str]) -> bool:
            kept = tuple(name for name in whole.passes if name not in gone)
            run = replace(whole, passes=kept)
            if found := self._observed("passes left out", run, self.model):
                self.run = run
            return found

        minimise(whole.passes, shows)
        needed = ", ".join(self.run.passes)
        self.tell(f"       needs {f'the passes {needed}' if needed else 'no pass'}")

    def reduce(self, ways: Sequence[Callable[[Any], Way]]) -> None:
        """Go through all ways until none makes it smaller."""
        before = None
        while before is not self.model:
            before = self.model
            self.go(ways)

    def go(self, ways: Sequence[Callable[[Any], Way]]) -> None:
        """Go through all ways once."""
        for way in ways:
            self._go(way(self.model))

    def _go(self, way: Way) -> None:
        def shows(parts: Collection[Any]) -> bool:
            candidate = way.without(parts)
            if candidate is None or not self._is_new(candidate):
                return False
            if found := self._observed(way.called, self.run, candidate):
                self.model = candidate
            return found

        before = self.model
        minimise(way.parts, shows)
        if self.model is not before:
            nodes, size = self._size()
            self.tell(f"{nodes:>6} nodes, {size} bytes: {way.called}")

    def _is_new(self, candidate: Any) -> bool:
        key = hash(self.host.content(candidate))
        known = key in self.seen
        self.seen.add(key)
        return not known

    def _observed(self, called: str, run: Run, model: Any) -> bool:
        """Whether a model shows the fault."""
        inputs = self.host.inputs(model)
        shapes = {name: shape for name, shape in run.shapes.items() if name in inputs}
        found = observe(replace(run, shapes=shapes), self._written(model), self.limit)
        same = self.symptom.is_same(found)
        attempts, hits = self.tried.get(called, (0, 0))
        self.tried[called] = attempts + 1, hits + same
        return same

    def _written(self, model: Any) -> Path:
        path = self.folder / "model.onnx"
        path.write_bytes(self.host.content(model))
        return path

    def found(self) -> Reduction:
        """What is left, and how it came about."""
        nodes, size = self._size()
        return Reduction(
            os.fspath(self.source),
            self.symptom.kind,
            self.symptom.text,
            self.run.passes,
            self.nodes,
            nodes,
            self.bytes,
            size,
            self.tried,
            self.host.text(self.model),
            {name: version(name) for name in ("graph-fuser", "onnx", "onnx-ir", "onnxruntime", "numpy")},
            perf_counter() - self.started,
        )


@contextmanager
def _laboratory(
    host: Smaller, run: Run, source: Path, limit: float, tell: Callable[[str], None]
) -> Iterator[_Laboratory]:
    with tempfile.TemporaryDirectory(prefix="graph-fuser-") as folder:
        yield _Laboratory(host, run, source, Path(folder), limit, tell)

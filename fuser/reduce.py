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
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from fuser.errors import InputError
from fuser.hosts import output
from fuser.hosts.kind import is_program
from fuser.places import require_apart
from fuser.report.report import say
from fuser.symptom import KINDS, Run, Symptom, observe

if TYPE_CHECKING:
    from rich.console import Console

    from fuser.judge.inputs import Shapes

T = TypeVar("T")
SECONDS: Final = 60.0
"""How long a run may take, if nobody says."""

_SLOWER: Final = 3.0
_PATIENCE: Final = 5.0
"""A smaller file may take so many times the time of the whole, and so many seconds."""


class Way(Protocol):
    """One kind of thing that a model may do without."""

    called: str
    """What is done, in the past tense."""

    @property
    def parts(self) -> Sequence[Any]:
        """What may go, from the model's beginning to its end."""

    def without(self, parts: Collection[Any]) -> Any:
        """The model without these; None where there is none. It need not be a valid one."""


class Smaller(Protocol):
    """What a host knows of making its models smaller."""

    @property
    def ways(self) -> Sequence[Callable[[Any], Way]]:
        """All ways, in the order in which they are tried."""

    @property
    def first(self) -> Sequence[Callable[[Any], Way]]:
        """Those that make most of a model go."""

    def read(self, path: Path) -> Any:
        """The model in a file.

        Raises:
            InputError: it cannot be read, or is too large.
        """

    def content(self, model: Any) -> bytes:
        """The file of a model; the same for equal ones."""

    def nodes(self, model: Any) -> int:
        """How many nodes a model has, in bodies and functions too."""

    def inputs(self, model: Any) -> set[str]:
        """The names of its inputs."""

    def text(self, model: Any) -> str:
        """The model for people to read, without the values of large weights."""


@dataclass(frozen=True)
class Reduction:
    """What was found, what it needs, and what is left.

    `passes` are those without which the fault is not there. `tried` says of each way how many models were
    tried, and how many of them showed the fault. `model` is what is left as text.
    """

    source: str
    symptom: Symptom
    passes: tuple[str, ...]
    nodes_before: int
    nodes: int
    bytes_before: int
    bytes: int
    tried: dict[str, tuple[int, int]]
    model: str
    versions: dict[str, str]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON can hold it."""
        symptom = {"kind": self.symptom.kind, "text": self.symptom.text}
        return asdict(self) | {"symptom": symptom}


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
    from fuser.hosts.onnx.reduce.ways import SMALLER
    from fuser.rewrite.pattern import select

    if because is not None and because not in KINDS:
        raise InputError(f"nothing is wrong with a file that {because!r}; it {' or '.join(KINDS)}")
    if is_program(src):
        raise InputError(f"{os.fspath(src)}: only ONNX files are reduced; fuser.export makes one of a module")
    require_apart([src], texts={"what is left": dst}, reads={})
    names = [entry.name for entry in select(passes, exclude, zero_below).rewrites]
    run = Run(tuple(names), zero_below, shapes or {})
    with _laboratory(SMALLER, run, Path(src), seconds, tell) as laboratory:
        laboratory.diagnose(because)
        try:
            laboratory.go(SMALLER.first)  # what follows is quick then
            laboratory.forget_passes()
            laboratory.reduce(SMALLER.ways)
        finally:
            with output.staged(dst) as written, output.reported(os.fspath(dst)):
                written.write_bytes(SMALLER.content(laboratory.model))
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
        from fuser.hosts.pick import host_of

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
            self.symptom,
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


def print_reduction(reduction: Reduction, console: Console) -> None:
    """What is wrong, what was tried, and what is left as text: all that a report of a bug needs."""
    needs = ", ".join(reduction.passes)
    tried = ", ".join(f"{way} {hits} of {number}" for way, (number, hits) in reduction.tried.items())
    say(
        console,
        f"fault     {reduction.symptom}",
        f"nodes     {reduction.nodes_before} -> {reduction.nodes}",
        f"bytes     {reduction.bytes_before} -> {reduction.bytes}",
        f"passes    {f'{needs}; the others can be left out' if needs else 'none is needed for it'}",
        f"tried     {sum(number for number, _ in reduction.tried.values())}: {tried}",
        f"took      {reduction.seconds:.1f} s",
        f"versions  {', '.join(f'{name} {version}' for name, version in reduction.versions.items())}",
        "",
        reduction.model.strip(),
    )

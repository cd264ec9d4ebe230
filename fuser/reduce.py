"""A file on which the compiler fails, cut down to the fewest nodes on which it still fails in the same way.

The file is run first: what is wrong with it is found out, and has to stay the same. Then every way to make it
smaller is tried, by delta debugging: what may go is taken away in halves, then in quarters, down to single
parts, and what the fault does not need stays away. Each attempt runs in a process of its own, with a limit of
time, for a fault may end the process or never end.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import tempfile
import traceback
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from hashlib import blake2b
from importlib import import_module
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from fuser.errors import InputError
from fuser.hosts import output
from fuser.hosts.kind import is_program
from fuser.places import require_apart

if TYPE_CHECKING:
    from onnx import ModelProto

    from fuser.judge.inputs import Shapes
    from fuser.judge.verification import Verification

T = TypeVar("T")
Kind = Literal["crashes", "refuses", "differs", "unproven", "hangs"]

KINDS: Final[dict[Kind, str]] = {
    "crashes": "the compiler or the verification ends with a mistake of ours",
    "refuses": "a valid file is refused",
    "differs": "the result does not compute the same",
    "unproven": "the result cannot be proved to compute the same",
    "hangs": "there is no end within the limit of time",
}
"""What may be wrong with a file."""

SECONDS: Final = 60.0
"""How long a run may take, if nobody says."""

_SLOWER: Final = 3.0
_PATIENCE: Final = 5.0
"""A smaller file may take so many times the time of the whole, and so many seconds."""


@dataclass(frozen=True)
class Symptom:
    """What is wrong with a file: its kind, what tells it from others of that kind, and in words."""

    kind: Kind
    signs: frozenset[str]
    text: str
    proof: bool = True
    """Whether it is seen only when the result is verified, or may be."""

    def is_same(self, other: Symptom | None) -> bool:
        """Whether another file shows this one too."""
        return other is not None and self.kind == other.kind and not self.signs.isdisjoint(other.signs)

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


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
    from fuser.hosts.onnx.reduce import ways
    from fuser.rewrite.pattern import select

    if because is not None and because not in KINDS:
        raise InputError(f"nothing is wrong with a file that {because!r}; it {' or '.join(KINDS)}")
    if is_program(src):
        raise InputError(f"{os.fspath(src)}: only ONNX files are reduced; fuser.export makes one of a module")
    require_apart([src], texts={"what is left": dst}, reads={})
    names = [entry.name for entry in select(passes, exclude, zero_below).rewrites]
    _prepare()
    with _laboratory(Run(tuple(names), zero_below, shapes or {}), Path(src), seconds, tell) as laboratory:
        laboratory.diagnose(ways.read(src), because)
        try:
            laboratory.go(ways.FIRST)  # what follows is quick then
            laboratory.forget_passes()
            laboratory.reduce(ways.WAYS)
        finally:
            with output.staged(dst) as written, output.reported(os.fspath(dst)):
                ways.write(laboratory.model, written)
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


@dataclass(frozen=True)
class Run:
    """How the compiler is run on a file."""

    passes: tuple[str, ...]
    zero_below: float
    shapes: Shapes
    valid: bool = False
    """Whether what is not valid counts for nothing."""
    verify: bool = True

    def observe(self, path: Path) -> Symptom | None:
        """What is wrong with a file: it is optimized and verified. None where nothing is."""
        import fuser
        from fuser.judge.blame import InvalidModelError, blaming, invalid

        if self.valid and invalid(path) is not None:
            return None
        result = Path(tempfile.gettempdir()) / "result.onnx"
        optimized = False
        try:
            with blaming(path):
                fuser.optimize_file(
                    path, result, passes=self.passes, zero_below=self.zero_below, verify=False
                )
                optimized = True
                if not self.verify:
                    return None
                return _judged(fuser.verify(path, result, shapes=self._shapes(path)))
        except InvalidModelError:
            return None
        except InputError as error:
            return _raised("refuses", error, proof=optimized) if self.valid else None
        except Exception as error:  # noqa: BLE001  # what it may be is the question
            return _raised("crashes", error, proof=optimized)

    def _shapes(self, path: Path) -> Shapes:
        """The shapes of those inputs that are still there."""
        from fuser.hosts.onnx.reduce.ways import inputs

        return {name: shape for name, shape in self.shapes.items() if name in inputs(path)}


def _judged(verification: Verification) -> Symptom | None:
    if verification.verdict == "equal":
        return None
    if verification.verdict == "unproven":
        reasons = verification.unproven.values() or [verification.reason]
        return Symptom("unproven", frozenset(map(_kernel, reasons)), verification.reason)
    sign = "in numbers" if verification.rows else verification.reason.partition(":")[0]
    return Symptom("differs", frozenset([sign]), verification.reason)


def _kernel(reason: str) -> str:
    """The last clause of a sentence, without what it says of one model: names, numbers and shapes."""
    return re.sub(r"'[^']*'|\"[^\"]*\"|\[[^\]]*\]|\{[^}]*\}|\S*\d\S*", "*", re.split("; |: ", reason)[-1])


def _raised(kind: Kind, error: Exception, *, proof: bool) -> Symptom:
    """An exception is another one if its type is, or the place where it was raised, ours included."""
    frames = list(traceback.walk_tb(error.__traceback__))
    called = [(f.f_globals.get("__name__", ""), f.f_code.co_qualname, line) for f, line in frames]
    ours = [place for place in called if place[0].partition(".")[0] in ("fuser", "passes")]
    at = [f"{module}.{function}" for module, function, _ in (called[-1], ours[-1])]
    name = type(error).__name__
    said = " ".join(str(error).split())
    where = ", called by ".join(
        f"line {p[2]} of {p[0]} in {p[1]}" for p in dict.fromkeys([called[-1], ours[-1]])
    )
    return Symptom(kind, frozenset([f"{name} {at}"]), f"{name}: {said} ({where})", proof)


@dataclass
class _Laboratory:
    """The smallest model until now, and attempts at a smaller one."""

    run: Run
    source: Path
    folder: Path
    limit: float
    tell: Callable[[str], None]
    tried: dict[str, tuple[int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.started = perf_counter()
        self.seen: set[bytes] = set()
        self.model: ModelProto
        self.whole: ModelProto
        self.symptom: Symptom

    def diagnose(self, model: ModelProto, because: str | None) -> None:
        """Find out what is wrong with the whole, as it is and as it is written here.

        Raises:
            InputError: nothing is, or it is not what it is said to be.
        """
        from fuser.hosts.onnx.reduce import ways
        from fuser.judge.blame import invalid

        fault = invalid(self.source)
        self.run = replace(self.run, valid=fault is None)
        begun = perf_counter()
        symptom = observe(self.run, self._written(model), self.limit)
        if symptom is None:
            raise InputError(f"{self.source}: {self._nothing(fault)}")
        if because not in (None, symptom.kind):
            raise InputError(f"{self.source}: is not reduced because it {because}, for it {symptom}")
        if symptom.kind != "hangs":
            self.limit = min(self.limit, _PATIENCE + _SLOWER * (perf_counter() - begun))
        self.model = self.whole = model
        self.symptom = symptom
        self.run = replace(self.run, verify=symptom.proof)
        self.tell(f"{symptom}")
        self.tell(f"{ways.nodes(model):>6} nodes in the whole file")

    def _nothing(self, fault: str | None) -> str:
        """Why there is nothing to reduce."""
        if symptom := observe(self.run, self.source, self.limit):
            return f"is not reduced, for once it is read and written again it does not show that it {symptom}"
        reason = f"the file is invalid: {fault}" if fault else "it is optimized, and proved right"
        return f"nothing of ours is wrong with it: {reason}"

    def forget_passes(self) -> None:
        """Leave out the passes that the fault does not need."""

        def shows(gone: Collection[str]) -> bool:
            kept = tuple(name for name in self.run.passes if name not in gone)
            run = replace(self.run, passes=kept)
            if found := self._observed("passes left out", run, self.model):
                runs.append(run)
            return found

        runs = [self.run]
        minimise(self.run.passes, shows)
        self.run = runs[-1]
        self.tell(f"       needs {self._needs()}")

    def _needs(self) -> str:
        return f"the passes {', '.join(self.run.passes)}" if self.run.passes else "no pass"

    def reduce(self, ways: Sequence[Callable[[ModelProto], Any]]) -> None:
        """Go through all ways until none makes it smaller."""
        before = None
        while before is not self.model:
            before = self.model
            self.go(ways)

    def go(self, ways: Sequence[Callable[[ModelProto], Any]]) -> None:
        """Go through all ways once."""
        for way in ways:
            self._go(way(self.model))

    def _go(self, way: Any) -> None:
        from fuser.hosts.onnx.reduce.ways import nodes

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
            self.tell(f"{nodes(self.model):>6} nodes, {self.model.ByteSize()} bytes: {way.called}")

    def _is_new(self, candidate: ModelProto) -> bool:
        key = blake2b(candidate.SerializeToString(deterministic=True)).digest()
        known = key in self.seen
        self.seen.add(key)
        return not known

    def _observed(self, called: str, run: Run, model: ModelProto) -> bool:
        """Whether a model shows the fault."""
        found = self.symptom.is_same(observe(run, self._written(model), self.limit))
        attempts, hits = self.tried.get(called, (0, 0))
        self.tried[called] = attempts + 1, hits + found
        return found

    def _written(self, model: ModelProto) -> Path:
        from fuser.hosts.onnx.reduce.ways import write

        path = self.folder / "model.onnx"
        write(model, path)
        return path

    def found(self) -> Reduction:
        """What is left, and how it came about."""
        from fuser.hosts.onnx.reduce import ways

        return Reduction(
            os.fspath(self.source),
            self.symptom,
            self.run.passes,
            ways.nodes(self.whole),
            ways.nodes(self.model),
            self.whole.ByteSize(),
            self.model.ByteSize(),
            self.tried,
            ways.text(self.model),
            {name: version(name) for name in ("graph-fuser", "onnx", "onnx-ir", "onnxruntime", "numpy")},
            perf_counter() - self.started,
        )


def _prepare() -> None:
    """Import here what every process would import again."""
    for name in ("importer", "exporter", "file.files", "judge.verification", "demands.demands"):
        import_module(f"fuser.hosts.onnx.{name}")
    for name in ("compiler", "judge.verification"):
        import_module(f"fuser.{name}")
    import_module("onnxruntime")


@contextmanager
def _laboratory(run: Run, source: Path, limit: float, tell: Callable[[str], None]) -> Iterator[_Laboratory]:
    with tempfile.TemporaryDirectory(prefix="graph-fuser-") as folder:
        yield _Laboratory(run, source, Path(folder), limit, tell)


def observe(run: Run, path: Path, limit: float) -> Symptom | None:
    """What is wrong with a file, found out in a process of its own, which may take `limit` seconds."""
    methods = multiprocessing.get_all_start_methods()
    context: Any = multiprocessing.get_context("fork" if "fork" in methods else "spawn")
    answer, question = context.Pipe(duplex=False)
    with tempfile.TemporaryDirectory(prefix="graph-fuser-") as folder:
        process = context.Process(target=_alone, args=(run, path, folder, question), daemon=True)
        process.start()
        question.close()
        try:
            if not answer.poll(limit):
                return Symptom("hangs", frozenset(["hangs"]), f"it does not end within {limit:.3g} seconds")
            found: Symptom | None = answer.recv()
        except EOFError:
            process.join()
            return _died(process.exitcode or 0)
        finally:
            process.kill()
            process.join()
            answer.close()
    return found


def _alone(run: Run, path: Path, folder: str, question: Connection) -> None:
    """What the process does: nothing is printed, and what is left behind goes with the folder."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    tempfile.tempdir = folder
    question.send(run.observe(path))


def _died(status: int) -> Symptom:
    """A process that is gone: by a signal where the status is negative."""
    how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
    return Symptom("crashes", frozenset([how]), f"the process ends by {how}")

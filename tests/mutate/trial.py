"""One mutant through the command, and what became of it."""

import contextlib
import io
import resource
import tempfile
from collections.abc import Iterator
from math import prod
from pathlib import Path
from time import process_time
from typing import Any, Final, NamedTuple

import numpy as np
import onnx

from fuser.cli import BUG, run
from tests.fuzz.judge import NotRunnable, calm, faults
from tests.mutate.bases import BASES, NETWORKS, base, external
from tests.mutate.mutants import mutant

SECONDS: Final = 10.0
"""Of the processor: a busy machine is no fault of the mutant."""
BYTES: Final = 2 * 2**30
ADDRESSES: Final = 8 * 2**30
"""What a process may ask for at all, so that a mutant cannot harm the machine."""
HALF: Final = 2
"""How coarse an output is taken to be: a mutation may put float16 anywhere."""
ELEMENTS: Final = 100_000
"""The judge feeds no larger inputs."""


class Outcome(NamedTuple):
    """What became of a mutant: its kind, a detail in one line, and what it took."""

    kind: str
    detail: str = ""
    seconds: float = 0.0
    memory: int = 0

    @property
    def fault(self) -> bool:
        """Whether that is a mistake of ours."""
        return self.kind not in {"written", "refused", "differs"}


def limit() -> None:
    """Keep this process from taking the machine's memory."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))


def write(seed: int, folder: Path) -> Path:
    """The file of a seed, its weights beside it for one in ten."""
    random = np.random.default_rng(seed)
    model = base(int(random.integers(len(BASES) + NETWORKS)))
    beside = random.random() < 0.1
    message = external(model, folder) if beside else model.SerializeToString()
    if beside and random.random() < 0.3:
        weights = (folder / "weights").read_bytes()
        (folder / "weights").write_bytes(weights[: int(random.integers(len(weights)))])
    path = folder / "mutant.onnx"
    path.write_bytes(mutant(message, random))
    return path


def attempt(seed: int) -> Outcome:
    """Run `graph-fuser optimize` on the mutant of a seed."""
    with tempfile.TemporaryDirectory() as folder:
        return _attempt(seed, Path(folder))


def _attempt(seed: int, folder: Path) -> Outcome:
    source, target = write(seed, folder), folder / "result.onnx"
    _forget_peak()
    started = process_time()
    status, said = command(["optimize", str(source), "-o", str(target)])
    seconds, memory = process_time() - started, _peak()
    kind, detail = judged(status, said, source, target)
    detail = detail.replace("\n", "\\n").replace(str(folder), "")
    if kind != "traceback" and seconds > SECONDS:
        kind = "slow"
    elif kind != "traceback" and memory > BYTES:
        kind = "large"
    return Outcome(kind, detail, seconds, memory)


def command(arguments: list[str]) -> tuple[int, str]:
    """The exit status, and what went to stderr."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        status = run(arguments)
    return status, said.getvalue()


def judged(status: int, said: str, source: Path, target: Path) -> tuple[str, str]:
    """The kind of an outcome, with a detail."""
    if status == BUG:
        return "traceback", _innermost(said)
    if status:
        line = said.removesuffix("\n")
        if target.exists():
            return "refused and written", line
        one = line.startswith("graph-fuser: ") and "\n" not in line
        return ("refused" if status == 2 else "differs") if one else "not one sentence", line
    found = next(compared(source, target), None)
    return ("written", "") if found is None else ("wrong file", found)


def compared(source: Path, target: Path) -> Iterator[str]:
    """What is wrong with the written file, where the source is one that can be judged."""
    before, after = onnx.load(source), onnx.load(target)
    try:
        feeds = [{v.name: fed for v in _fed(before) for fed in [_drawn(v, 3)]}]
        coarse = dict.fromkeys([v.name for v in before.graph.output], HALF)
        if calm(before, feeds, coarse):  # what rounding alone moves shows nothing
            yield from faults(before, after, feeds, coarse)
    except NotRunnable:
        return


def _fed(model: onnx.ModelProto) -> Iterator[onnx.ValueInfoProto]:
    stored = {tensor.name for tensor in model.graph.initializer}
    return (value for value in model.graph.input if value.name not in stored)


def _drawn(value: onnx.ValueInfoProto, symbol: int) -> Any:
    """An input, extents that are not known being `symbol`."""
    kind = value.type.tensor_type
    shape = [dim.dim_value if dim.HasField("dim_value") else symbol for dim in kind.shape.dim]
    if kind.elem_type not in (1, 7, 9, 10, 11) or min(shape, default=0) < 0 or prod(shape) > ELEMENTS:
        raise NotRunnable(f"{value.name} cannot be fed")
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
    return (np.random.default_rng(0).random(shape) * 2).astype(dtype)


def _innermost(said: str) -> str:
    """The exception of a traceback, and where it was raised."""
    lines = said.strip().splitlines()
    places = [line.strip() for line in lines if line.strip().startswith("File ")]
    ours = [place for place in places if "/fuser/" in place or "/passes/" in place]
    at = (ours or places or [""])[-1]
    return f"{lines[-1][:160]} ({at.rpartition('/')[2][:80]})"


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _peak() -> int:
    """The most memory that this process had since `_forget_peak`, in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))

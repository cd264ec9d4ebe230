"""Original against result in one interleaved run, in one process.

Their host says what is called (`hosts/onnx/bench.py`, `hosts/torch/bench.py`). The two alternate, so that a
slow spell of the machine meets both, and the ratio is taken pair by pair.
"""

from __future__ import annotations

import gc
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any, Final

from fuser.errors import InputError
from fuser.hosts.blame import blames
from fuser.hosts.host import Call, Clock, Fed, Place, seconds
from fuser.hosts.pick import host_of
from fuser.judge.inputs import Shapes

# Without a number of runs: as many as fit in this time, within these bounds.
SECONDS: Final = 6.0
FEWEST: Final = 10
MOST: Final = 200


@dataclass(frozen=True)
class Quartiles:
    """First quartile, median and third quartile."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Quartiles:
        """The quartiles of at least one value."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        return cls(*statistics.quantiles(values, n=4, method="inclusive"))


@dataclass(frozen=True)
class Benchmark:
    """Milliseconds per run of both models.

    `speedup` is original / result of each pair, so above 1 where the result is faster. `provider`: the
    execution provider of onnxruntime, or the backend of torch.
    """

    original_ms: Quartiles
    result_ms: Quartiles
    speedup: Quartiles
    runs: int
    warmup: int
    threads: int
    provider: str
    runtime: str
    inputs: dict[str, tuple[int, ...]]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON can hold it."""
        return asdict(self)


@blames("original", "result")
def benchmark(
    original: Any,
    result: Any,
    *,
    threads: int | None = None,
    runs: int | None = None,
    warmup: int = 3,
    inputs: Any = None,
    sizes: Mapping[str, int] | None = None,
    shapes: Shapes | None = None,
    provider: str | None = None,
    backend: str | None = None,
    device: str | None = None,
) -> Benchmark:
    """Time `result` against `original`.

    Args:
        original: path, `onnx.ModelProto` or `onnx_ir.Model`; or a torch module in evaluation mode, an
            `ExportedProgram` or the path of a `.pt2` file, run in the types and memory formats that it and
            the inputs have.
        result: the same, of the same host.
        threads: of the runtime; all processors of this process where None.
        runs: timed pairs of runs; as many as fit in some seconds where None.
        warmup: pairs before that are not counted.
        inputs: as for `verify`. Without them one image of 224 x 224, or what the model takes.
        sizes: extents of symbolic dimensions by name.
        shapes: whole shapes of some inputs by name; those of the others follow.
        provider: the execution provider of onnxruntime, its own for the processor where None.
        backend: of torch: `eager` (which None means), `inductor` or `inductor-freezing`.
        device: of torch, `cpu` or `cuda`; where the original and the inputs are if None.

    Raises:
        InputError: a model cannot be loaded or run, there is no such device, or an argument makes no sense.
    """
    if threads is not None and threads < 1:
        raise InputError(f"threads must be at least 1, not {threads}")
    if runs is not None and runs < 1:
        raise InputError(f"runs must be at least 1, not {runs}")
    started = perf_counter()
    threads = threads or processors()
    fed, place = Fed(inputs, 1, sizes=sizes, shapes=shapes), Place(threads, provider, backend, device)
    with host_of(original, result).contest(original, result, fed, place) as pair:
        pairs = interleave(*pair.calls, runs=runs, warmup=warmup, clock=pair.clock)
    return Benchmark(
        original_ms=Quartiles.of([1e3 * a for a, _ in pairs]),
        result_ms=Quartiles.of([1e3 * b for _, b in pairs]),
        speedup=Quartiles.of([a / b for a, b in pairs]),
        runs=len(pairs),
        warmup=warmup,
        threads=threads,
        provider=pair.provider,
        runtime=pair.runtime,
        inputs=pair.inputs,
        seconds=perf_counter() - started,
    )


def processors() -> int:
    """How many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def interleave(
    first: Call, second: Call, *, runs: int | None, warmup: int, clock: Clock = seconds
) -> list[tuple[float, float]]:
    """Seconds of `first` and `second` in turn; which begins alternates, for the second finds other caches."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        for _ in range(warmup):
            first()
            second()
        once = clock(first) + clock(second)
        runs = runs or max(FEWEST, min(MOST, int(SECONDS / max(once, 1e-6))))
        pairs = []
        for index in range(runs):
            if index % 2:
                b = clock(second)
                pairs.append((clock(first), b))
            else:
                pairs.append((clock(first), clock(second)))
        return pairs
    finally:
        if collecting:
            gc.enable()

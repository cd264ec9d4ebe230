"""Models in onnxruntime: sessions from files and from memory, and its errors in one sentence."""

from __future__ import annotations

import os
import re
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from fuser.errors import InputError
from fuser.hosts.kind import foreign
from fuser.judge.inputs import Feeds, Shapes, Spec, ceilings, draw

if TYPE_CHECKING:
    import onnx
    import onnx_ir

    Model = str | os.PathLike[str] | onnx.ModelProto | onnx_ir.Model

Outputs = dict[str, NDArray[Any]]

CPU: Final = "CPUExecutionProvider"

# A serialised protobuf ends at 2 GiB; what comes near goes through a file with its weights beside it.
LARGEST_MESSAGE: Final = 1_900_000_000

MOST_ELEMENTS: Final = 2**30
"""Of an input that is drawn: 4 GiB of float32."""

_DTYPES: Final = {"float": "float32", "double": "float64"}


class CannotRun(InputError):
    """The runtime refuses the model, or these inputs for it."""


class TakesTooLong(CannotRun):
    """It does not end in the time that it is given. It would not with other inputs either."""


class Runner(Protocol):
    """What evaluates a model. `inputs` are those that must be fed, `outputs` type by name, both in order."""

    inputs: list[Spec]
    outputs: dict[str, str]

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The outputs by name, or `CannotRun`."""


class Session:
    """A model loaded in onnxruntime."""

    def __init__(self, session: Any, name: str, patience: float | None = None) -> None:
        self._session = session
        self._patience = patience
        self.name = name
        self.inputs = [Spec(i.name, _dtype(i.type), tuple(i.shape)) for i in session.get_inputs()]
        outputs = session.get_outputs()
        types = (_dtype(output.type) for output in outputs)
        self.outputs = dict(zip(listed(output.name for output in outputs), types, strict=True))

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Every output as an array; sequences and maps become one array per element.

        Raises:
            CannotRun: the runtime refuses.
            TakesTooLong: it is not done in time.
        """
        try:
            outputs = self._run(dict(feeds))
        except Exception as error:
            raise CannotRun(f"{self.name}: onnxruntime fails: {explain(error)}") from error
        if outputs is None:
            raise TakesTooLong(f"{self.name}: it does not end within {self._patience:.2g} seconds")
        return dict(
            pair for name, value in zip(self.outputs, outputs, strict=True) for pair in flat(name, value)
        )

    def _run(self, feeds: Feeds) -> list[Any] | None:
        """The outputs, or None if they take longer than there is patience for."""
        if self._patience is None:
            return list(self._session.run(None, feeds))
        import onnxruntime

        options = onnxruntime.RunOptions()
        late = threading.Event()

        def stop() -> None:
            late.set()
            options.terminate = True

        timer = threading.Timer(self._patience, stop)
        timer.start()
        try:
            return list(self._session.run(None, feeds, options))
        except Exception:
            if late.is_set():
                return None
            raise
        finally:
            timer.cancel()

    def bare(self) -> Any:
        """The runtime's own session, for timing without anything around it."""
        return self._session

    def close(self) -> None:
        """Give the memory of the model back."""
        self._session = None


def listed(names: Iterable[str]) -> list[str]:
    """The names of outputs, each its own: a graph may list one value more than once."""
    seen: Counter[str] = Counter()
    found = []
    for name in names:
        found.append(f"{name}[again {seen[name]}]" if seen[name] else name)
        seen[name] += 1
    return found


def _dtype(kind: str) -> str:
    """`tensor(float)` -> `float32`; what is no tensor keeps the runtime's name."""
    match = re.fullmatch(r"tensor\((\w+)\)", kind)
    return _DTYPES.get(match[1], match[1]) if match else kind


def flat(name: str, value: Any) -> Iterator[tuple[str, NDArray[Any]]]:
    """A value as arrays with names: of sequences and maps one for each element."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from flat(f"{name}[{key!r}]", part)
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield from flat(f"{name}[{index}]", part)
    else:
        yield name, np.asarray(value)


@contextmanager
def opened(
    model: Model,
    name: str,
    *,
    optimise: bool,
    threads: int | None = None,
    provider: str = CPU,
    folder: Path | None = None,
    patience: float | None = None,
) -> Iterator[Session]:
    """A session of `model` for the time of the block; `name` is what errors call a model that is no file.

    `folder` is where the external data of such a model lies. A run may take `patience` seconds.

    With `optimise` all of the runtime's optimisations are on, else none. Waiting threads sleep: those of a
    session that spins take the processor from the other one.

    Raises:
        CannotRun: the runtime cannot load it.
        InputError: it is not a file, not a model, or there is no such provider.
    """
    import onnxruntime

    if provider not in onnxruntime.get_available_providers():
        raise InputError(
            f"no provider {provider!r}: this onnxruntime has {onnxruntime.get_available_providers()}"
        )
    levels = onnxruntime.GraphOptimizationLevel
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimise else levels.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if folder is not None:
        key = "session.model_external_initializers_file_folder_path"
        options.add_session_config_entry(key, str(folder.resolve()))
    if threads is not None:
        options.intra_op_num_threads = threads
    name = os.fspath(model) if isinstance(model, str | os.PathLike) else name
    with _source(model) as source:
        try:
            session = Session(
                onnxruntime.InferenceSession(source, options, providers=[provider]), name, patience
            )
        except Exception as error:
            raise _refusal(error, name) from error
        del source
        try:
            yield session
        finally:
            session.close()


@contextmanager
def _source(model: Model) -> Iterator[str | bytes]:
    """What a session is made from: the path of a file, or bytes."""
    if isinstance(model, str | os.PathLike):
        path = Path(model)
        if not path.is_file():
            raise InputError(f"{path}: {'not a file' if path.exists() else 'no such file'}")
        yield str(path)
        return
    import onnx
    import onnx_ir

    if isinstance(model, onnx_ir.Model):
        tensors = [value.const_value for graph in model.graphs() for value in graph.initializers.values()]
        external = any(isinstance(tensor, onnx_ir.ExternalTensor) for tensor in tensors)
        if not external and sum(t.nbytes for t in tensors if t is not None) < LARGEST_MESSAGE:
            yield onnx_ir.to_proto(model).SerializeToString()
            return
        large = model
    elif not isinstance(model, onnx.ModelProto):
        raise foreign(model)
    else:
        if model.ByteSize() < LARGEST_MESSAGE:
            yield model.SerializeToString()
            return
        large = onnx_ir.from_proto(model)
    with tempfile.TemporaryDirectory(prefix="graph-fuser-") as folder:
        path = Path(folder) / "model.onnx"
        onnx_ir.save(large, path, external_data="model.onnx.data")
        yield str(path)


def _refusal(error: Exception, name: str) -> InputError:
    if type(error).__name__ == "InvalidProtobuf":
        return InputError(f"{name}: not an ONNX model, or damaged: {explain(error)}")
    return CannotRun(f"{name}: onnxruntime cannot load it: {explain(error)}")


def explain(error: Exception) -> str:
    """The runtime's message as the end of a sentence: first line, without its codes and source positions."""
    text = str(error).strip().split("\n")[0]
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text)
    text = re.sub(r"^Load model from .*? failed:", "", text)
    text = re.sub(r"Status Message: \S+\.(?:h|cc|cpp):\d+ ", "", text)
    text = re.sub(
        r"Non-zero status code returned while running (\S+) node\. Name:'([^']*)'", r"\1 node '\2':", text
    )
    return text.strip().removesuffix(".")[:300] or type(error).__name__


@dataclass(frozen=True)
class Trial:
    """Shapes to try, and what draws a sample of them, by its number: one after the other until one is taken.

    A `large` one is tried only while none of any size runs. `kind` tells trials of equal shapes apart: one of
    each is tried.
    """

    shapes: Shapes
    large: bool
    feeds: Callable[[int], Iterator[Feeds]]
    kind: str = ""

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for trials that are the same."""
        return self.kind, *self.shapes.items()


def accepted(
    runner: Runner,
    attempts: Iterable[tuple[Shapes, bool]],
    *,
    samples: int,
    seed: int = 0,
    known: Feeds | None = None,
) -> Iterator[tuple[Feeds, Outputs]]:
    """Random inputs of given shapes that the model runs with; the flag marks the large ones.

    Inputs that are `known` have those values, repeated.

    Raises:
        CannotRun: the model takes none of them.
    """

    def drawn(shapes: Shapes, sample: int) -> Iterator[Feeds]:
        for ceiling in ceilings(runner.inputs):
            yield draw(runner.inputs, shapes, seed=seed, sample=sample, ceiling=ceiling, known=known)

    trials = (Trial(shapes, large, partial(drawn, shapes)) for shapes, large in attempts)
    return ran(runner, trials, samples=samples)


def ran(runner: Runner, trials: Iterable[Trial], *, samples: int) -> Iterator[tuple[Feeds, Outputs]]:
    """Up to `samples` inputs that the model runs with, and its outputs.

    Where only one shape runs, its second sample has other values.

    Raises:
        CannotRun: the model takes none of them, or none can be made. The message says what was tried.
        TakesTooLong: one of them does not end.
    """
    refusal: InputError | None = None
    taken: list[Trial] = []
    tried: dict[tuple[Any, ...], Shapes] = {}
    for trial in trials:
        if len(taken) == samples or (trial.large and taken):
            break
        if trial.key in tried:
            continue
        tried[trial.key] = trial.shapes
        try:
            yield _run(runner, trial, len(taken))
            taken.append(trial)
        except TakesTooLong:
            raise
        except InputError as error:
            refusal = refusal or error
    if not taken:
        raise CannotRun(
            f"no sample ran: {_tried(tried.values())}; {refusal or 'there was none to try'}"
        ) from refusal
    if len(taken) == 1 and samples > 1:
        with suppress(CannotRun):
            yield _run(runner, taken[0], 1)


def _run(runner: Runner, trial: Trial, sample: int) -> tuple[Feeds, Outputs]:
    for name, shape in trial.shapes.items():
        if prod(shape) > MOST_ELEMENTS:
            raise CannotRun(f"input {name!r} of shape {list(shape)} is too large to be made up")
    refusal: CannotRun | None = None
    for feeds in trial.feeds(sample):
        try:
            return feeds, runner.run(feeds)
        except CannotRun as error:
            refusal = refusal or error
    raise refusal or CannotRun("nothing was drawn")


def _tried(tried: Iterable[Shapes]) -> str:
    """The shapes of some trials in words."""
    listed = ["; ".join(f"{name} {list(shape)}" for name, shape in shapes.items()) for shapes in tried]
    different = list(dict.fromkeys(listed))
    more = f" and {len(different) - 6} more" if len(different) > 6 else ""
    return f"tried {', or '.join(different[:6]) or 'nothing'}{more}"

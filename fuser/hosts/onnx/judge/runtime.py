"""Models in onnxruntime: sessions from files and from memory, and its errors in one sentence."""

from __future__ import annotations

import os
import re
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from numpy.typing import NDArray

from fuser.errors import InputError
from fuser.hosts.kind import foreign
from fuser.judge.inputs import Feeds, Spec
from fuser.judge.runner import CannotRun, TakesTooLong, flat, listed

if TYPE_CHECKING:
    import onnx
    import onnx_ir

    Model = str | os.PathLike[str] | onnx.ModelProto | onnx_ir.Model

CPU: Final = "CPUExecutionProvider"

# A serialised protobuf ends at 2 GiB; what comes near goes through a file with its weights beside it.
LARGEST_MESSAGE: Final = 1_900_000_000

_DTYPES: Final = {"float": "float32", "double": "float64"}


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


def _dtype(kind: str) -> str:
    """`tensor(float)` -> `float32`; what is no tensor keeps the runtime's name."""
    match = re.fullmatch(r"tensor\((\w+)\)", kind)
    return _DTYPES.get(match[1], match[1]) if match else kind


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

"""Whether a result is what its source was.

Nothing here knows the compiler: onnxruntime runs both files, and protobuf reads them.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import numpy_helper

Feeds = Mapping[str, NDArray[Any]]

ROUNDING: Final = (2.0**-52, 2.0**-23, 2.0**-10)
"""One rounding, for each of what `coarse` counts: float64, float32, float16."""
TOLERANCE: Final = (1e-13, 2e-5, 8e-3)
"""Differences, relative to the largest number of an output, that rounding explains. Nothing lifts them."""
FLOAT32: Final[Mapping[str, int]] = {}
CALM: Final = 8
"""How many roundings may become of one in what networks are drawn for."""


class NotRunnable(Exception):
    """The runtime does not take the source."""


def session(model: bytes) -> Any:
    """A model in onnxruntime, nothing optimized."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run(model: bytes, feeds: Iterable[Feeds]) -> list[list[Any]]:
    """The outputs for each sample."""
    opened = session(model)
    return [opened.run(None, dict(feed)) for feed in feeds]


def faults(
    source: onnx.ModelProto,
    result: onnx.ModelProto,
    feeds: Sequence[Feeds],
    coarse: Mapping[str, int] = FLOAT32,
) -> Iterator[str]:
    """What is wrong with `result`, one sentence each. `coarse`: the narrowest type in each output.

    Raises:
        NotRunnable: the source is not valid, or the runtime refuses it.
    """
    before, after = source.SerializeToString(), result.SerializeToString()
    try:
        onnx.checker.check_model(before, full_check=True)
        expected = run(before, feeds)
    except Exception as error:
        raise NotRunnable(str(error).strip().splitlines()[0][:300]) from error
    try:
        onnx.checker.check_model(after, full_check=True)
    except Exception as error:  # noqa: BLE001  # what the checker raises is the finding
        yield f"invalid: {str(error).strip().splitlines()[0][:300]}"
    yield from interface(source, result)
    if loses_a_cast(result):
        raise NotRunnable("onnxruntime loses a Cast there and back that only a body reads")
    try:
        actual = run(after, feeds)
    except Exception as error:  # noqa: BLE001  # "
        yield f"does not run: {str(error).strip().splitlines()[0][:300]}"
        return
    yield from differences(source, feeds, expected, actual, coarse)


def loses_a_cast(model: onnx.ModelProto) -> bool:
    """Whether a body reads a Cast of a Cast: onnxruntime drops such pairs behind inputs, and forgets bodies.

    Its optimizations being off is no help. The source may have had a no-op in between.
    """
    casts = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "Cast"}
    twice = {made for made, read in casts.items() if read in casts}
    bodies = (a.g for node in model.graph.node for a in node.attribute if a.HasField("g"))
    return any(name in twice for body in bodies for node in body.node for name in reads(node))


def reads(node: onnx.NodeProto) -> Iterator[str]:
    """What a node reads, bodies included."""
    yield from node.input
    for attribute in node.attribute:
        if attribute.HasField("g"):
            for inner in attribute.g.node:
                yield from reads(inner)


def interface(source: onnx.ModelProto, result: onnx.ModelProto) -> Iterator[str]:
    """What callers see: inputs, outputs, opsets, metadata."""
    before, after = (list(_inputs(model)) for model in (source, result))
    if [value.name for value in before] != [value.name for value in after]:
        yield f"interface: inputs: {list(map(_shown, before))} became {list(map(_shown, after))}"
    for old, new in zip(before, after, strict=False):
        if old.name == new.name and old != new:
            yield f"interface: input: {_shown(old)} became {_shown(new)}"
    if [v.SerializeToString() for v in source.graph.output] != [
        v.SerializeToString() for v in result.graph.output
    ]:
        pairs = zip(source.graph.output, result.graph.output, strict=False)
        changed = [f"{_shown(a)} became {_shown(b)}" for a, b in pairs if a != b]
        yield f"interface: outputs: {', '.join(changed)}"
    for what in ("opset_import", "metadata_props"):
        if list(getattr(source, what)) != list(getattr(result, what)):
            yield f"interface: {what} changed"


def _inputs(model: onnx.ModelProto) -> Iterator[onnx.ValueInfoProto]:
    """What a caller can feed: before version 4 of the format no input that is an initializer too."""
    stored = {tensor.name for tensor in model.graph.initializer} if model.ir_version < 4 else set()
    yield from (value for value in model.graph.input if value.name not in stored)


def _shown(value: onnx.ValueInfoProto) -> str:
    return f"({' '.join(str(value).split())})"


def differences(
    source: onnx.ModelProto,
    feeds: Sequence[Feeds],
    expected: list[list[Any]],
    actual: list[list[Any]],
    coarse: Mapping[str, int] = FLOAT32,
) -> Iterator[str]:
    """Outputs that differ by more than rounding."""
    for sample, old, new in zip(feeds, expected, actual, strict=True):
        for value, a, b in zip(source.graph.output, old, new, strict=True):
            error = distance(a, b)
            if not error <= TOLERANCE[coarse.get(value.name, 1)]:
                shapes = {name: array.shape for name, array in sample.items()}
                yield f"wrong: {value.name} differs by {error:.2g} for {shapes}"


def calm(source: onnx.ModelProto, feeds: Sequence[Feeds], coarse: Mapping[str, int]) -> bool:
    """Whether no output of a network moves by much more than its numbers do; so if it does not run.

    What grows until it overflows does: a product of two factors overflows where one by one they do not.
    """
    try:
        expected = run(source.SerializeToString(), feeds)
    except Exception:  # noqa: BLE001  # what the runtime refuses is the judge's to say
        return True
    if not all(map(finite, itertools.chain(*expected))):
        return False
    outputs = [(i, coarse[value.name]) for i, value in enumerate(source.graph.output)]
    for kind in sorted({kind for _, kind in outputs}):
        moved = run(*disturbed(source, feeds, ROUNDING[kind]))
        for old, new in zip(expected, moved, strict=True):
            if any(distance(old[i], new[i]) > CALM * ROUNDING[kind] for i, own in outputs if own == kind):
                return False
    return True


def finite(made: Any) -> bool:
    """Whether no number of an output, or of what it holds, is infinite or NaN."""
    if isinstance(made, list):
        return all(map(finite, made))
    return made is None or made.dtype.kind != "f" or bool(np.isfinite(made).all())


def distance(a: Any, b: Any) -> float:
    """The largest difference relative to the largest number; infinite where the two cannot be compared."""
    if a is None or b is None:  # an optional value that is not there
        return 0.0 if a is b else np.inf
    if isinstance(a, list):
        same = isinstance(b, list) and len(a) == len(b)
        return max(map(distance, a, b), default=0.0) if same else np.inf
    if a.dtype != b.dtype or a.shape != b.shape:
        return np.inf
    if a.dtype.kind != "f":
        return 0.0 if np.array_equal(a, b) else np.inf
    a, b = a.astype(np.float64), b.astype(np.float64)
    same = np.isfinite(a)
    if not np.array_equal(a[~same], b[~same], equal_nan=True):
        return np.inf
    largest = float(np.abs(a[same]).max(initial=0.0))
    apart = float(np.abs(a[same] - b[same]).max(initial=0.0))
    return 0.0 if apart == 0.0 else apart / largest if largest else np.inf


def disturbed(
    source: onnx.ModelProto, feeds: Sequence[Feeds], rounding: float
) -> tuple[bytes, Sequence[Feeds]]:
    """The source and what it is fed, every number off by about one rounding, or by one of its own type."""
    random = np.random.default_rng(0)
    copy = onnx.ModelProto()
    copy.CopyFrom(source)
    for tensor in _tensors(copy):
        if tensor.data_type in (1, 10, 11):
            made = _nudged(numpy_helper.to_array(tensor), rounding, random)
            tensor.CopyFrom(numpy_helper.from_array(made, tensor.name))
    nudged = [{name: _nudged(array, rounding, random) for name, array in feed.items()} for feed in feeds]
    return copy.SerializeToString(), nudged


def _nudged(array: NDArray[Any], rounding: float, random: np.random.Generator) -> NDArray[Any]:
    if array.dtype.kind != "f" or np.array_equal(array, np.rint(array)):
        return array  # whole numbers were never rounded: scales of a Resize among them
    step = max(rounding, float(np.finfo(array.dtype).eps))
    wide = array.astype(np.float64)
    return np.asarray((wide * (1 + step * random.uniform(-1, 1, array.shape))).astype(array.dtype))


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    for function in model.functions:
        yield from _held(function.node)
    yield from model.graph.initializer
    yield from _held(model.graph.node)


def _held(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            if attribute.HasField("g"):
                yield from attribute.g.initializer
                yield from _held(attribute.g.node)

"""The compiler end to end: load, import, rewrite, export, save; then verify and time what was written."""

import gc
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, overload

from fuser.errors import InputError
from fuser.hosts.kind import from_torch, is_program, require_torch
from fuser.ir.graph import Graph
from fuser.judge.blame import blames
from fuser.places import require_apart
from fuser.report.culprit import require_right
from fuser.report.report import Report
from fuser.report.summary import summarise
from fuser.rewrite.driver import carefully, run
from fuser.rewrite.pattern import Event, Log, Plan, available, select
from fuser.validate import check

if TYPE_CHECKING:
    import onnx_ir

    from fuser.judge.inputs import Given, Shapes
    from fuser.judge.verification import Verification

M = TypeVar("M")
Name = str | os.PathLike[str]

MOST_ROUNDS: Final = 8
"""How often a model is read again, should there always be something left to do."""

KINDS: Final = ".onnx gives .onnx and .pt2 gives .pt2"


@overload
def optimize(
    model: M,
    example_inputs: Any = None,
    *,
    dynamic_shapes: Any = None,
    passes: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    zero_below: float = 0.0,
    verify: bool = False,
    strict: bool = False,
    return_report: Literal[False] = False,
) -> M: ...


@overload
def optimize(
    model: M,
    example_inputs: Any = None,
    *,
    dynamic_shapes: Any = None,
    passes: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    zero_below: float = 0.0,
    verify: bool = False,
    strict: bool = False,
    return_report: Literal[True],
) -> tuple[M, Report]: ...


@blames("model")
def optimize(
    model: Any,
    example_inputs: Any = None,
    *,
    dynamic_shapes: Any = None,
    passes: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    zero_below: float = 0.0,
    verify: bool = False,
    strict: bool = False,
    return_report: bool = False,
) -> Any:
    """Return a smaller model that computes the same function; the given one is not changed.

    Args:
        model: `onnx.ModelProto`, `onnx_ir.Model`, `torch.fx.GraphModule` or `torch.export.ExportedProgram`;
            the result is of the same type. Another `torch.nn.Module` comes back as a GraphModule.
        example_inputs: a tensor, a tuple of arguments or a mapping of arguments by name for a torch module,
            which is captured with them by `torch.export`, and without them by `torch.fx.symbolic_trace`.
        dynamic_shapes: as for `torch.export.export`.
        passes: names of the passes to run; all that are installed where None.
        exclude: names of passes not to run.
        zero_below: weights up to this part of the largest of their kernel count as zero wherever a rewrite is
            made; the result is as much less exact. Where 0 only zeros do.
        verify: compare the result with the model (see `fuser.verify`); a torch module is called with
            `example_inputs`.
        strict: with `verify`, what could not be proved here is an error too.
        return_report: return `(model, report)`; the report says what was rewritten, and what was not and why.

    Raises:
        InputError: the model is not valid, in training mode or cannot be captured, or no pass has one of the
        names.
        VerificationError: the result does not compute the same, or with `strict` that is not proved.
    """

    def rewritten(exclude: Sequence[str]) -> tuple[Any, Report]:
        plan = select(passes, exclude, zero_below)
        if from_torch(model):
            return _optimize_torch(model, example_inputs, dynamic_shapes, plan)
        return _optimize_onnx(model, plan)

    result, report = rewritten(exclude)
    if verify:
        inputs = example_inputs if from_torch(model) else None

        def without(name: str) -> "Verification":
            return _compared(model, rewritten([*exclude, name])[0], inputs)

        report.verification = _compared(model, result, inputs)
        require_right(report, without, strict=strict)
    return (result, report) if return_report else result


def _optimize_onnx(model: Any, plan: Plan) -> tuple[Any, Report]:
    from fuser.hosts.onnx.file import files as onnx_io

    with _uncollected():
        copy = onnx_io.from_any(model)
        report = rewrite_model(copy, plan, source=type(model).__name__)
        return onnx_io.to_same(copy, model), report


@blames("src")
def optimize_file(
    src: Name,
    dst: Name,
    *,
    passes: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    zero_below: float = 0.0,
    verify: bool = True,
    strict: bool = False,
    bench: bool = False,
    inputs: "Given | None" = None,
    shapes: "Shapes | None" = None,
    certificate: Name | None = None,
) -> Report:
    """Optimize the file `src` and write the result to `dst`, which may be the same file.

    `dst` is written beside and renamed, after verification, so that it is either the whole new model or what
    it was.

    Args:
        src: an ONNX file, external data beside it; or a `.pt2` file of torch.export.
        dst: where the result goes.
        passes: names of the passes to run; all that are installed where None.
        exclude: names of passes not to run.
        zero_below: as for `optimize`.
        verify: compare the written file with the original (see `verify`). What cannot be proved here is
            written, and `report.verification` says so.
        strict: what cannot be proved here is not written.
        bench: time the result against the original (see `benchmark`).
        inputs: what to verify and time with, by input name or as an `.npz` file, in place of what is drawn.
        shapes: what to verify, time and count multiply-adds with: shapes of some inputs by name.
        certificate: where to write the proof of an ONNX result (see `validate/certificate.py`), for `verify`.

    Raises:
        InputError: `src` cannot be read or is not valid, no pass has one of the names, or the inputs or
            shapes do not fit.
        OutputError: `dst` or `certificate` cannot be written.
        VerificationError: the result does not compute the same, or with `strict` that is not proved, or not
            all of it where a certificate is asked for. Nothing is written.
        ContradictionError: the verification itself is wrong, a bug of ours. Nothing is written.
    """
    if certificate is not None and is_program(src):
        raise InputError(f"{os.fspath(src)} is no ONNX file, and only those have a certificate")
    require_apart([src], result=dst, texts={"the certificate": certificate}, reads={"the inputs": inputs})
    optimized = _program if is_program(src) else _onnx

    def without(name: str) -> "Verification":
        plan = select(passes, [*exclude, name], zero_below)
        with (
            tempfile.TemporaryDirectory(prefix="graph-fuser-") as folder,
            optimized(src, Path(folder) / Path(dst).name, plan, inputs, shapes) as (other, _),
        ):
            return _compared(src, other, inputs, shapes)

    with optimized(src, dst, select(passes, exclude, zero_below), inputs, shapes) as (written, report):
        if verify:
            report.verification = _compared(src, written, inputs, shapes)
            require_right(report, without, strict=strict)
        if bench:
            from fuser.bench.benchmark import benchmark

            report.benchmark = benchmark(src, written, inputs=inputs, shapes=shapes)
        if certificate is not None:
            from fuser.validate import certificate as certificates

            certificates.write(certificates.certify(src, written, report.applied), certificate)
    return report


@blames("src")
def inspect_file(
    src: Name,
    *,
    passes: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    zero_below: float = 0.0,
    inputs: "Given | None" = None,
    shapes: "Shapes | None" = None,
) -> Report:
    """Say what `optimize_file` would do to `src`, and why not the rest; nothing is written.

    `inputs` and `shapes` say what multiply-adds are counted for.

    Raises:
        InputError: `src` cannot be read or is not valid, no pass has one of the names, or the inputs or
            shapes do not fit.
    """
    from fuser.hosts.onnx.file import files as onnx_io

    plan = select(passes, exclude, zero_below)
    if is_program(src):
        require_torch("a .pt2 file")
        from fuser.hosts.torch import files as torch_files

        if inputs is not None or shapes:
            raise InputError(
                f"{os.fspath(src)}: inputs and shapes say what multiply-adds are counted for, "
                "which the report on a .pt2 file does not state"
            )
        report = _optimize_torch(torch_files.load(src), None, None, plan)[1]
        report.source = os.fspath(src)
        return report
    model = onnx_io.load(src)
    return rewrite_model(model, plan, source=os.fspath(src), shapes=_shapes(model, inputs, shapes))


def pass_names() -> list[tuple[str, str]]:
    """Every installed pass by name, with its equation, in the order in which they are tried."""
    return [(entry.name, entry.summary) for entry in available()]


def _optimize_torch(model: Any, example_inputs: Any, dynamic_shapes: Any, plan: Plan) -> tuple[Any, Report]:
    from fuser.hosts.torch.front import graph_of, optimize_torch
    from fuser.hosts.torch.summary import summarise as summarise_torch

    started = perf_counter()
    with _uncollected():
        source = graph_of(model, example_inputs, dynamic_shapes)
        examples = example_inputs if source is model else None
        result, events = optimize_torch(source, examples, plan=plan)
    before, after = summarise_torch(model, source), summarise_torch(result, result)
    return result, Report(events, before, after, perf_counter() - started, source=type(model).__name__)


@contextmanager
def _onnx(
    src: Name, dst: Name, plan: Plan, inputs: "Given | None", shapes: "Shapes | None"
) -> Iterator[tuple[Path, Report]]:
    """Where the optimized `src` is written, to be moved to `dst` at the end, and what was done."""
    from fuser.hosts.onnx.file import files as onnx_io

    if is_program(dst):
        raise InputError(
            f"{os.fspath(src)} becomes another ONNX file, which {os.fspath(dst)} is not: {KINDS}"
        )
    started = perf_counter()
    with _uncollected():
        model = onnx_io.load(src)
        report = rewrite_model(model, plan, source=os.fspath(src), shapes=_shapes(model, inputs, shapes))
    with onnx_io.staged(model, dst) as written:
        del model
        report.seconds = perf_counter() - started
        yield written, report


@contextmanager
def _program(
    src: Name,
    dst: Name,
    plan: Plan,
    inputs: "Given | None",  # noqa: ARG001  # nothing is counted that depends on them
    shapes: "Shapes | None",  # noqa: ARG001
) -> Iterator[tuple[Path, Report]]:
    """The same for a file of torch.export."""
    if not is_program(dst):
        raise InputError(
            f"{os.fspath(src)} becomes another .pt2 file, which {os.fspath(dst)} is not: {KINDS}"
        )
    require_torch("a .pt2 file")
    from fuser.hosts.torch import files as torch_files

    result, report = _optimize_torch(torch_files.load(src), None, None, plan)
    report.source = os.fspath(src)
    with torch_files.staged(result, dst) as written:
        del result
        yield written, report


def _shapes(model: "onnx_ir.Model", inputs: "Given | None", shapes: "Shapes | None") -> "Shapes":
    """What multiply-adds are counted for: the shapes of the user's inputs, or those that the user gave."""
    from fuser.judge.inputs import given, model_specs, require_shapes

    if inputs is None:
        return shapes or {}
    found = {name: array.shape for name, array in given(inputs, model_specs(model)).items()}
    require_shapes(found, shapes)
    return found


def rewrite_model(model: "onnx_ir.Model", plan: Plan, source: str, shapes: "Shapes | None" = None) -> Report:
    """Rewrite `model` in place; `shapes` of inputs are those that multiply-adds are counted for."""
    from fuser.hosts.onnx.exporter import export_graph

    started = perf_counter()
    before = summarise(model, shapes)
    events: list[Event] = []
    for _ in range(MOST_ROUNDS):
        graphs, log = _rewritten(model, plan)
        for graph in graphs:
            export_graph(graph)
        events = [*(event for event in events if event.status == "applied"), *log.events]
        # What pays is judged by what the file holds, so the last look is at what it will hold. A body sees
        # only then what has become of the values around it, and a rewrite the operators that others became.
        if not log.applied:
            break
    return Report(events, before, summarise(model, shapes), perf_counter() - started, source=source)


def _rewritten(model: "onnx_ir.Model", plan: Plan) -> tuple[list[Graph], Log]:
    """Import `model` and rewrite its graphs."""
    from fuser.hosts.onnx.importer import import_model

    def attempt(careful: bool) -> tuple[list[Graph], Log]:
        graphs, log = import_model(model), Log()
        for graph in graphs:
            run(graph, plan, log, check, careful=careful)
            check.settle(graph, trusted=careful)
        return graphs, log

    return carefully(attempt)


@contextmanager
def _uncollected() -> Iterator[None]:
    """No garbage collection: the many small objects of a graph all stay, and looking through them costs."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _compared(
    original: Any, result: Any, inputs: "Given | None" = None, shapes: "Shapes | None" = None
) -> "Verification":
    from fuser.judge.verification import verify

    return verify(original, result, inputs=inputs, shapes=shapes)

"""The compiler end to end: load, import, rewrite, export, save; then verify and time what was written."""

import gc
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, overload

from fuser.check import check_graph
from fuser.driver import run
from fuser.errors import Declined, InputError, VerificationError
from fuser.hosts.kind import from_torch, is_program, require_torch
from fuser.ir import Graph
from fuser.report import Report
from fuser.rewrite import Log, Plan, available, select
from fuser.summary import summarise

if TYPE_CHECKING:
    import onnx_ir

M = TypeVar("M")
Name = str | os.PathLike[str]

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
    return_report: Literal[True],
) -> tuple[M, Report]: ...


def optimize(
    model: Any,
    example_inputs: Any = None,
    *,
    dynamic_shapes: Any = None,
    passes: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    zero_below: float = 0.0,
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
        return_report: return `(model, report)`; the report says what was rewritten, and what was not and why.

    Raises:
        InputError: the model is not valid, in training mode or cannot be captured, or no pass has one of the
        names.
    """
    from fuser.hosts import onnx_io

    plan = select(passes, exclude, zero_below)
    if from_torch(model):
        result, report = _optimize_torch(model, example_inputs, dynamic_shapes, plan)
        return (result, report) if return_report else result
    with _uncollected():
        copy = onnx_io.from_any(model)
        report = rewrite_model(copy, plan, source=type(model).__name__)
        result = onnx_io.to_same(copy, model)
    return (result, report) if return_report else result


def optimize_file(
    src: Name,
    dst: Name,
    *,
    passes: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    zero_below: float = 0.0,
    verify: bool = True,
    bench: bool = False,
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
        verify: compare the written file with the original (see `verify`).
        bench: time the result against the original (see `benchmark`).
        certificate: where to write the proof of an ONNX result (see `fuser/certificate.py`), for `verify`.

    Raises:
        InputError: `src` cannot be read or is not valid, or no pass has one of the names.
        OutputError: `dst` or `certificate` cannot be written.
        VerificationError: the result does not compute the same, or not all of it is proved where a
            certificate is asked for. Nothing is written.
    """
    if certificate is not None:
        _require_certifiable(src, dst, certificate)
    optimized = _program if is_program(src) else _onnx
    with optimized(src, dst, select(passes, exclude, zero_below)) as (written, report):
        if verify:
            _verify(src, written, report)
        if bench:
            from fuser.bench import benchmark

            report.benchmark = benchmark(src, written)
        if certificate is not None:
            from fuser import certificate as certificates

            certificates.write(certificates.certify(src, written, report.applied), certificate)
    return report


def _require_certifiable(src: Name, dst: Name, certificate: Name) -> None:
    """Refuse what is no ONNX file, and a certificate in the place of a model."""
    if is_program(src):
        raise InputError(f"{os.fspath(src)} is no ONNX file, and only those have a certificate")
    if Path(certificate).resolve() in {Path(src).resolve(), Path(dst).resolve()}:
        raise InputError(f"the certificate {os.fspath(certificate)} is also the path of a model")


def inspect_file(
    src: Name, *, passes: Sequence[str] | None = None, exclude: Sequence[str] = (), zero_below: float = 0.0
) -> Report:
    """Say what `optimize_file` would do to `src`, and why not the rest; nothing is written.

    Raises:
        InputError: `src` cannot be read or is not valid, or no pass has one of the names.
    """
    from fuser.hosts import onnx_io

    plan = select(passes, exclude, zero_below)
    if is_program(src):
        require_torch("a .pt2 file")
        from fuser.hosts import torch_files

        report = _optimize_torch(torch_files.load(src), None, None, plan)[1]
        report.source = os.fspath(src)
        return report
    return rewrite_model(onnx_io.load(src), plan, source=os.fspath(src))


def pass_names() -> list[tuple[str, str]]:
    """Every installed pass by name, with its equation, in the order in which they are tried."""
    return [(entry.name, entry.summary) for entry in available()]


def _optimize_torch(model: Any, example_inputs: Any, dynamic_shapes: Any, plan: Plan) -> tuple[Any, Report]:
    from fuser.hosts.torch_front import graph_of, optimize_torch
    from fuser.hosts.torch_summary import summarise as summarise_torch

    started = perf_counter()
    with _uncollected():
        source = graph_of(model, example_inputs, dynamic_shapes)
        examples = example_inputs if source is model else None
        result, events = optimize_torch(source, examples, plan=plan)
    before, after = summarise_torch(model, source), summarise_torch(result, result)
    return result, Report(events, before, after, perf_counter() - started, source=type(model).__name__)


@contextmanager
def _onnx(src: Name, dst: Name, plan: Plan) -> Iterator[tuple[Path, Report]]:
    """Where the optimized `src` is written, to be moved to `dst` at the end, and what was done."""
    from fuser.hosts import onnx_io

    if is_program(dst):
        raise InputError(
            f"{os.fspath(src)} becomes another ONNX file, which {os.fspath(dst)} is not: {KINDS}"
        )
    started = perf_counter()
    with _uncollected():
        model = onnx_io.load(src)
        report = rewrite_model(model, plan, source=os.fspath(src))
    with onnx_io.staged(model, dst) as written:
        del model
        report.seconds = perf_counter() - started
        yield written, report


@contextmanager
def _program(src: Name, dst: Name, plan: Plan) -> Iterator[tuple[Path, Report]]:
    """The same for a file of torch.export."""
    if not is_program(dst):
        raise InputError(
            f"{os.fspath(src)} becomes another .pt2 file, which {os.fspath(dst)} is not: {KINDS}"
        )
    require_torch("a .pt2 file")
    from fuser.hosts import torch_files

    result, report = _optimize_torch(torch_files.load(src), None, None, plan)
    report.source = os.fspath(src)
    with torch_files.staged(result, dst) as written:
        del result
        yield written, report


def rewrite_model(model: "onnx_ir.Model", plan: Plan, source: str) -> Report:
    """Rewrite `model` in place."""
    from fuser.hosts.onnx_export import export_graph

    started = perf_counter()
    before = summarise(model)
    graphs, log = _rewritten(model, plan)
    for graph in graphs:
        export_graph(graph)
    return Report(log.events, before, summarise(model), perf_counter() - started, source=source)


def _rewritten(model: "onnx_ir.Model", plan: Plan) -> tuple[list[Graph], Log]:
    """Import `model` and rewrite its graphs.

    Checked at the end, where each kernel is computed once. Should a check fail, all is done again with a
    check of each rewrite when it is made, so that the one that is wrong, or does not fit the dtype, is
    declined and named.
    """
    from fuser.hosts.onnx_import import import_model

    def attempt(*, careful: bool) -> tuple[list[Graph], Log]:
        graphs, log = import_model(model), Log()
        for graph in graphs:
            run(graph, plan, log, careful=careful)
            check_graph(graph, trusted=careful)
        return graphs, log

    try:
        return attempt(careful=False)
    except Declined:
        pass
    try:
        return attempt(careful=True)
    except Declined as reason:
        raise VerificationError(f"a kernel is wrong though each rewrite of it was right: {reason}") from None


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


def _verify(src: Name, written: Path, report: Report) -> None:
    from fuser.verification import verify

    report.verification = verify(src, written)
    if not report.verification.ok:
        suspects = dict.fromkeys(event.rewrite for event in report.applied)
        raise VerificationError(
            f"{os.fspath(src)}: the result does not compute the same, and nothing was written: "
            f"{report.verification.reason}; suspect: {', '.join(suspects) or 'no rewrite'}"
        )

"""The compiler end to end: load, import, rewrite, export, save; then verify and time what was written."""

from __future__ import annotations

import gc
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from fuser.errors import InputError
from fuser.hosts.blame import blames
from fuser.hosts.host import Draft
from fuser.hosts.kind import is_program
from fuser.hosts.pick import host_of
from fuser.places import require_apart
from fuser.report.culprit import require_right
from fuser.report.report import Report
from fuser.rewrite.pattern import Event, Plan, available, select
from fuser.validate.rewritten import rewritten

if TYPE_CHECKING:
    from fuser.judge.inputs import Given, Shapes
    from fuser.judge.verification import Verification

M = TypeVar("M")
Name = str | os.PathLike[str]


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
    host = host_of(model)

    def made(exclude: Sequence[str]) -> tuple[Draft, Report]:
        plan = select(passes, exclude, zero_below)
        with _uncollected():
            draft = host.draft(model, example_inputs, dynamic_shapes)
            return draft, rewrite(draft, plan, source=type(model).__name__)

    draft, report = made(exclude)
    result = draft.result()
    if verify:

        def without(name: str) -> Verification:
            return compared(model, made([*exclude, name])[0].result(), inputs=draft.examples)

        report.verification = compared(model, result, inputs=draft.examples)
        require_right(report, without, strict=strict)
    return (result, report) if return_report else result


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
    inputs: Given | None = None,
    shapes: Shapes | None = None,
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
        certificate: where to write the proof of an ONNX result, for `verify` (see
            `hosts/onnx/certificate/certificate.py`).

    Raises:
        InputError: `src` cannot be read or is not valid, no pass has one of the names, or the inputs or
            shapes do not fit.
        OutputError: `dst` or `certificate` cannot be written.
        VerificationError: the result does not compute the same, or with `strict` that is not proved, or not
            all of it where a certificate is asked for. Nothing is written.
        ContradictionError: the verification itself is wrong, a bug of ours. Nothing is written.
    """
    certificates = host_of(src).certificates
    if certificate is not None and certificates is None:
        raise InputError(f"{os.fspath(src)} is no ONNX file, and only those have a certificate")
    require_apart([src], result=dst, texts={"the certificate": certificate}, reads={"the inputs": inputs})

    def made(exclude: Sequence[str], dst: Name) -> AbstractContextManager[tuple[Path, Report]]:
        return _optimized(src, dst, select(passes, exclude, zero_below), inputs, shapes)

    def without(name: str) -> Verification:
        with (
            tempfile.TemporaryDirectory(prefix="graph-fuser-") as folder,
            made([*exclude, name], Path(folder) / Path(dst).name) as (other, _),
        ):
            return compared(src, other, inputs=inputs, shapes=shapes)

    with made(exclude, dst) as (written, report):
        if verify:
            report.verification = compared(src, written, inputs=inputs, shapes=shapes)
            require_right(report, without, strict=strict)
        if bench:
            from fuser.bench.benchmark import benchmark

            report.benchmark = benchmark(src, written, inputs=inputs, shapes=shapes)
        if certificate is not None and certificates is not None:
            certificates.certify(src, written, report.applied, dict(pass_names()), certificate)
    return report


@blames("src")
def inspect_file(
    src: Name,
    *,
    passes: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    zero_below: float = 0.0,
    inputs: Given | None = None,
    shapes: Shapes | None = None,
) -> Report:
    """Say what `optimize_file` would do to `src`, and why not the rest; nothing is written.

    `inputs` and `shapes` say what multiply-adds are counted for.

    Raises:
        InputError: `src` cannot be read or is not valid, no pass has one of the names, or the inputs or
            shapes do not fit.
    """
    plan = select(passes, exclude, zero_below)
    host = host_of(src)
    if not host.counts and (inputs is not None or shapes):
        raise InputError(
            f"{os.fspath(src)}: inputs and shapes say what multiply-adds are counted for, "
            f"which the report on a {host.title} file does not state"
        )
    return rewrite(host.load(src, inputs, shapes), plan, source=os.fspath(src))


def pass_names() -> list[tuple[str, str]]:
    """Every installed pass by name, with its equation, in the order in which they are tried."""
    return [(entry.name, entry.summary) for entry in available()]


@contextmanager
def _optimized(
    src: Name, dst: Name, plan: Plan, inputs: Given | None, shapes: Shapes | None
) -> Iterator[tuple[Path, Report]]:
    """Where the optimized `src` is written, to be moved to `dst` at the end, and what was done."""
    if is_program(src) != is_program(dst):
        another = f"becomes another {host_of(src).title} file, which {os.fspath(dst)} is not"
        raise InputError(f"{os.fspath(src)} {another}: .onnx gives .onnx and .pt2 gives .pt2")
    started = perf_counter()
    with _uncollected():
        draft = host_of(src).load(src, inputs, shapes)
        report = rewrite(draft, plan, source=os.fspath(src))
    with draft.staged(dst) as written:
        del draft
        report.seconds = perf_counter() - started
        yield written, report


def rewrite(draft: Draft, plan: Plan, source: str) -> Report:
    """Rewrite a model until nothing is left to do, and say what was done; `source` is what it is called."""
    started = perf_counter()
    before = draft.summary()
    events: list[Event] = []
    for _ in range(draft.rounds):
        graphs, log = rewritten(draft.graphs, plan)
        draft.apply(graphs)
        events = [*(event for event in events if event.status == "applied"), *log.events]
        if not log.applied:
            break
    return Report(events, before, draft.summary(), perf_counter() - started, source=source)


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


def compared(original: Any, result: Any, **options: Any) -> Verification:
    """The verdict on a result; the options are those of `fuser.verify`."""
    from fuser.verifier import verify

    return verify(original, result, **options)

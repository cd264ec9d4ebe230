"""From a module of torch to an optimized ONNX file in one call, proven against the module itself."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any

from fuser.compiler import rewrite
from fuser.errors import VerificationError
from fuser.hosts.kind import require_torch
from fuser.hosts.onnx.draft import OnnxDraft
from fuser.hosts.onnx.entry import ONNX
from fuser.judge.verification import compare
from fuser.report.report import Report
from fuser.rewrite.pattern import select

if TYPE_CHECKING:
    from torch import nn
    from torch.export import ExportedProgram


def export(
    module: nn.Module | ExportedProgram,
    args: Any,
    path: str | os.PathLike[str],
    *,
    kwargs: Mapping[str, Any] | None = None,
    dynamic_shapes: Any = None,
    opset_version: int | None = None,
    passes: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    verify: bool = True,
) -> Report:
    """Fuse `module`, export it to the ONNX file `path`, and compare the file with the module as it was given.

    Args:
        module: in evaluation mode, or an `ExportedProgram` of one; it is not changed.
        args: a tensor, a tuple of arguments or a mapping of arguments by name to call it with.
        path: where the file goes; it is written beside and renamed, after verification.
        kwargs: arguments by name beside those in `args`.
        dynamic_shapes: as for `torch.export.export`; an `ExportedProgram` has its own.
        opset_version: of the file; what torch.onnx chooses where None.
        passes: names of the passes to run; all that are installed where None.
        exclude: names of passes not to run.
        verify: compare the file with the module. What cannot be proved here is written, and
            `report.verification` says so.

    Raises:
        InputError: torch is not installed, or the module is in training mode, cannot be captured or not be
            exported, or not in that opset.
        OutputError: `path` cannot be written.
        VerificationError: the file does not compute what the module computes. Nothing is written.
    """
    require_torch("fuser.export")
    from fuser.hosts.torch import export as exporting
    from fuser.hosts.torch.front import split
    from fuser.hosts.torch.program import ProgramDraft

    plan = select(passes, exclude)
    call = split(args, kwargs)
    started = perf_counter()
    program = exporting.captured(module, call, dynamic_shapes)
    name = type(module).__name__
    fused = ProgramDraft(program)
    rewrite(fused, plan, name)
    draft = OnnxDraft(exporting.to_onnx(module, fused.result(), call, dynamic_shapes, opset_version))
    report = rewrite(draft, plan, name)
    with draft.staged(path) as written:
        del draft
        report.seconds = perf_counter() - started
        if verify:
            report.verification = compare(exporting.models(module, program, call, written, ONNX))
            if report.verification.verdict == "differs":
                raise VerificationError(
                    f"{os.fspath(path)}: the file does not compute what {name} "
                    f"computes, and nothing was written: {report.verification.reason}"
                )
    return report

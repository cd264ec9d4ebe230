"""From a module of torch to an optimized ONNX file in one call, proven against the module itself."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

from fuser.compiler import rewrite_model
from fuser.errors import InputError, VerificationError
from fuser.hosts.kind import from_torch, require_torch
from fuser.report.report import Report
from fuser.rewrite.pattern import Plan, select

if TYPE_CHECKING:
    from torch import nn
    from torch.export import ExportedProgram

    from fuser.judge.verification import Verification

SAMPLES: Final = 3
"""Inputs that the file is compared on: the given ones, and random ones, of other extents where free."""


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
    from fuser.hosts.onnx.file import files as onnx_io
    from fuser.hosts.torch.front import split

    plan = select(passes, exclude)
    call = split(args, kwargs)
    started = perf_counter()
    program = _captured(module, call, dynamic_shapes)
    model = _to_onnx(module, program, call, dynamic_shapes, opset_version, plan)
    report = rewrite_model(model, plan, source=type(module).__name__)
    with onnx_io.staged(model, path) as written:
        del model
        report.seconds = perf_counter() - started
        if verify:
            report.verification = _compared(module, program, call, written)
            if report.verification.verdict == "differs":
                raise VerificationError(
                    f"{os.fspath(path)}: the file does not compute what {type(module).__name__} "
                    f"computes, and nothing was written: {report.verification.reason}"
                )
    return report


Call = tuple[tuple[Any, ...], dict[str, Any]]
"""Arguments by position and by name."""


def _captured(module: Any, call: Call, dynamic_shapes: Any) -> ExportedProgram:
    """The module as a program, in evaluation mode."""
    from torch.export import ExportedProgram

    from fuser.hosts.torch import front as torch_front

    if not from_torch(module):
        found = f"{type(module).__module__}.{type(module).__qualname__}"
        raise InputError(f"fuser.export takes a torch.nn.Module or an ExportedProgram, not a {found}")
    if not isinstance(module, ExportedProgram):
        torch_front.require_inference(module)
        return torch_front.export(module, call[0], dynamic_shapes, call[1])
    if dynamic_shapes is not None:
        raise InputError("an ExportedProgram has dynamic shapes of its own, so dynamic_shapes must be None")
    return module


def _to_onnx(
    module: nn.Module | ExportedProgram,
    program: ExportedProgram,
    call: Call,
    dynamic_shapes: Any,
    opset_version: int | None,
    plan: Plan,
) -> Any:
    """The fused program of a module as an `onnx_ir.Model`."""
    import torch

    from fuser.hosts.torch.front import first_line
    from fuser.hosts.torch.program import optimize_program

    name = type(module).__name__
    fused, _ = optimize_program(program, plan)
    try:
        with _quiet(), torch.no_grad():
            result = torch.onnx.export(
                fused,
                call[0],
                kwargs=call[1],
                dynamic_shapes=dynamic_shapes,  # the names of the dimensions
                dynamo=True,
                opset_version=opset_version,
                verbose=False,
            )
    except Exception as error:
        raise InputError(f"{name} cannot be exported by torch.onnx: {first_line(error)}") from error
    written = result.model.opset_imports.get("")
    if opset_version not in {None, written}:
        # The exporter writes its own opset and converts; where it cannot, it says so in its log only.
        raise InputError(
            f"{name} cannot be written in opset {opset_version}: torch.onnx gives opset {written}"
        )
    return result.model


def _compared(
    module: nn.Module | ExportedProgram, program: ExportedProgram, call: Call, written: os.PathLike[str]
) -> Verification:
    """The file against the module, at other extents too where the program leaves them free."""
    from fuser.hosts.torch.callables import Arguments, Program
    from fuser.hosts.torch.verification import TorchModels
    from fuser.judge.verification import compare

    given = Arguments.of(program, *call)
    return compare(TorchModels(module, written, given, SAMPLES, stated=Program(program)))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter says about itself."""
    with ExitStack() as stack:
        for name in ("torch.onnx", "onnxscript"):
            logger = logging.getLogger(name)
            stack.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.CRITICAL)
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        yield

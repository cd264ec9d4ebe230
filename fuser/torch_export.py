"""From a module of torch to an optimized ONNX file in one call, proven against the module itself."""

import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any, Final

import torch
from torch import nn

from fuser.compiler import rewrite_model
from fuser.errors import InputError, VerificationError
from fuser.hosts.fx_program import optimize_program
from fuser.hosts.torch_call import Arguments
from fuser.hosts.torch_front import arguments, first_line, require_inference
from fuser.hosts.torch_front import export as capture
from fuser.report import Report
from fuser.rewrite import Plan, select
from fuser.torch_verification import TorchModels
from fuser.verification import compare

SAMPLES: Final = 3
"""Inputs that the file is compared on: the given ones, and random ones of their shapes."""


def export(
    module: nn.Module,
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
        module: in evaluation mode; it is not changed.
        args: a tensor or a tuple of arguments to call it with.
        path: where the file goes; it is written beside and renamed, after verification.
        kwargs: arguments by name.
        dynamic_shapes: as for `torch.export.export`.
        opset_version: of the file; what torch.onnx chooses where None.
        passes: names of the passes to run; all that are installed where None.
        exclude: names of passes not to run.
        verify: compare the file with the module.

    Raises:
        InputError: the module is in training mode, cannot be captured or not be exported.
        OutputError: `path` cannot be written.
        VerificationError: the file does not compute what the module computes. Nothing is written.
    """
    from fuser.hosts import onnx_io

    require_inference(module)
    plan = select(passes, exclude)
    started = perf_counter()
    model = _to_onnx(module, args, kwargs or {}, dynamic_shapes, opset_version, plan)
    report = rewrite_model(model, plan, source=type(module).__name__)
    with onnx_io.staged(model, path) as written:
        del model
        report.seconds = perf_counter() - started
        if verify:
            given = Arguments.of(module, arguments(args), kwargs or {})
            report.verification = compare(TorchModels(module, written, given, SAMPLES))
            if not report.verification.ok:
                raise VerificationError(
                    f"{os.fspath(path)}: the file does not compute what {type(module).__name__} "
                    f"computes, and nothing was written: {report.verification.reason}"
                )
    return report


def _to_onnx(
    module: nn.Module,
    args: Any,
    kwargs: Mapping[str, Any],
    dynamic_shapes: Any,
    opset_version: int | None,
    plan: Plan,
) -> Any:
    """The fused module as an `onnx_ir.Model`."""
    program, _ = optimize_program(capture(module, args, dynamic_shapes, kwargs), plan)
    try:
        with _quiet(), torch.no_grad():
            result = torch.onnx.export(
                program,
                arguments(args),
                kwargs=dict(kwargs),
                dynamic_shapes=dynamic_shapes,
                dynamo=True,
                opset_version=opset_version,
                verbose=False,
            )
    except Exception as error:
        name = type(module).__name__
        raise InputError(f"{name} cannot be exported by torch.onnx: {first_line(error)}") from error
    return result.model


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter says about itself."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)

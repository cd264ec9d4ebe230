"""From a module of torch to an optimized ONNX file in one call, proven against the module itself."""

import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import numpy as np
import torch
from torch import nn
from torch.utils import _pytree as pytree

from fuser.compare import Outputs, Row, judge
from fuser.compiler import rewrite_model
from fuser.errors import InputError, VerificationError
from fuser.hosts.fx_program import optimize_program
from fuser.hosts.fx_tensor import to_numpy
from fuser.hosts.torch_front import arguments, first_line, require_inference
from fuser.hosts.torch_front import export as capture
from fuser.report import Report
from fuser.rewrite import Rewrite, select
from fuser.runtime import opened
from fuser.verification import Verification

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
    rewrites = select(passes, exclude)
    started = perf_counter()
    model = _to_onnx(module, args, kwargs or {}, dynamic_shapes, opset_version, rewrites)
    report = rewrite_model(model, rewrites, source=type(module).__name__)
    with onnx_io.staged(model, path) as written:
        del model
        report.seconds = perf_counter() - started
        if verify:
            report.verification = _verify(module, arguments(args), kwargs or {}, written)
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
    rewrites: Sequence[Rewrite],
) -> Any:
    """The fused module as an `onnx_ir.Model`."""
    program, _ = optimize_program(capture(module, args, dynamic_shapes, kwargs), rewrites)
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


def _verify(
    module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], written: Path
) -> Verification:
    """The file in onnxruntime, its optimisations off, against the module, judged by the module in float64."""
    started = perf_counter()
    expected, ideal, actual = list[Outputs](), list[Outputs](), list[Outputs]()
    shapes = []
    precise = _in_double(module)
    with opened(written, "the result", optimise=False) as session:
        names = [spec.name for spec in session.inputs]
        for sample in range(SAMPLES):
            flat, spec = pytree.tree_flatten((args, dict(kwargs)))
            fed = [_varied(value, sample) for value in flat]
            tensors = [to_numpy(value) for value in fed if isinstance(value, torch.Tensor)]
            feeds = dict(zip(names, tensors, strict=True))
            actual.append(session.run(feeds))
            shapes.append({name: array.shape for name, array in feeds.items()})
            outputs = list(session.outputs)
            expected.append(_called(module, pytree.tree_unflatten(fed, spec), outputs))
            if precise is not None:
                wide = [_widened(value) for value in fed]
                ideal.append(_called(precise, pytree.tree_unflatten(wide, spec), outputs))
        dtypes = session.outputs
    rows = judge(expected, actual, ideal if precise is not None else None, dtypes)
    reason = _reason(rows)
    return Verification(not reason, reason, tuple(rows), tuple(shapes), seconds=perf_counter() - started)


def _in_double(module: nn.Module) -> nn.Module | None:
    """The module in double precision, where it computes in one type throughout."""
    floats = {t.dtype for t in (*module.parameters(), *module.buffers()) if t.is_floating_point()}
    return deepcopy(module).double() if len(floats) == 1 else None


def _varied(value: Any, sample: int) -> Any:
    """The value itself, then random ones of its shape.

    Integers stay: they mostly are indices, whose bounds nobody states.
    """
    if sample == 0 or not isinstance(value, torch.Tensor) or not value.is_floating_point():
        return value
    generator = torch.Generator().manual_seed(sample)
    return torch.randn(value.shape, generator=generator, dtype=torch.float32).to(value.device, value.dtype)


def _widened(value: Any) -> Any:
    return value.double() if isinstance(value, torch.Tensor) and value.is_floating_point() else value


def _called(module: nn.Module, inputs: tuple[Any, Any], names: Sequence[str]) -> Outputs:
    args, kwargs = inputs
    with torch.no_grad():
        # A module may change what it is given.
        result = module(*deepcopy(args), **deepcopy(kwargs))
    tensors = [value for value in pytree.tree_leaves(result) if isinstance(value, torch.Tensor)]
    return {name: np.asarray(to_numpy(value)) for name, value in zip(names, tensors, strict=True)}


def _reason(rows: Sequence[Row]) -> str:
    """Why the rows are no proof, in one sentence; empty if they are."""
    wrong = [row for row in rows if not row.ok]
    if wrong:
        row = max(wrong, key=lambda row: row.excess)
        return f"output {row.output!r} {row.reason}"
    return "" if any(row.compared for row in rows) else "nothing was compared"

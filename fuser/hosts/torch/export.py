"""From a module of torch to an ONNX model, by torch.onnx: capture, conversion, and what is compared."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import onnx_ir
import torch
from torch import nn
from torch.export import ExportedProgram

from fuser.errors import InputError
from fuser.hosts.host import Host
from fuser.hosts.kind import from_torch
from fuser.hosts.torch import front
from fuser.hosts.torch.callables import Arguments, Program
from fuser.hosts.torch.front import first_line
from fuser.hosts.torch.verification import TorchModels

SAMPLES: Final = 3
"""Inputs that the file is compared on: the given ones, and random ones, of other extents where free."""


Call = tuple[tuple[Any, ...], dict[str, Any]]
"""Arguments by position and by name."""


def captured(module: Any, call: Call, dynamic_shapes: Any) -> ExportedProgram:
    """The module as a program.

    Raises:
        InputError: it is none of torch, in training mode, or cannot be captured.
    """
    if not from_torch(module):
        found = f"{type(module).__module__}.{type(module).__qualname__}"
        raise InputError(f"fuser.export takes a torch.nn.Module or an ExportedProgram, not a {found}")
    if not isinstance(module, ExportedProgram):
        front.require_inference(module)
        return front.export(module, call[0], dynamic_shapes, call[1])
    if dynamic_shapes is not None:
        raise InputError("an ExportedProgram has dynamic shapes of its own, so dynamic_shapes must be None")
    return module


def to_onnx(
    module: nn.Module | ExportedProgram,
    fused: Any,
    call: Call,
    dynamic_shapes: Any,
    opset_version: int | None,
) -> onnx_ir.Model:
    """The fused program of a module as torch.onnx writes it.

    Raises:
        InputError: it cannot be exported, or not in that opset.
    """
    name = type(module).__name__
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
    model: onnx_ir.Model = result.model
    return model


def models(
    module: nn.Module | ExportedProgram,
    program: ExportedProgram,
    call: Call,
    written: os.PathLike[str],
    other: Host,
) -> TorchModels:
    """The file against the module, at other extents too where the program leaves them free."""
    given = Arguments.of(program, *call)
    return TorchModels(module, written, given, SAMPLES, other=other, stated=Program(program))


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

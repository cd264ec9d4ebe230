"""Which host a model belongs to, told without importing one."""

import os
import sys
from importlib import import_module

from fuser.errors import InputError


def is_torch(model: object) -> bool:
    """Whether this is a module or program of torch, or the path of a program's file."""
    if isinstance(model, str | os.PathLike):
        return is_program(model)
    return from_torch(model)


def from_torch(model: object) -> bool:
    """Whether this is a module or program of torch. Who does not use torch has not imported it."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(model, torch.nn.Module | torch.export.ExportedProgram)


def require_torch(what: str) -> None:
    """Import torch for `what`.

    Raises:
        InputError: it is not installed.
    """
    try:
        import_module("torch")
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise InputError(f"{what} needs torch: pip install 'graph-fuser[torch]'") from error


def is_program(path: str | os.PathLike[str]) -> bool:
    """Whether a file is one of torch.export, by its name."""
    return os.fspath(path).endswith(".pt2")


def foreign(model: object) -> InputError:
    """The error for what is no model."""
    found = f"{type(model).__module__}.{type(model).__qualname__}"
    return InputError(f"a model is an onnx.ModelProto or an onnx_ir.Model, not a {found}")

"""Exported programs as files, `.pt2`: read without running what a file may bring along, written whole."""

import json
import os
import pickle
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import torch
from torch.export import ExportedProgram

from fuser.errors import InputError
from fuser.hosts import output
from fuser.hosts.torch.front import first_line

# What torch unpickles or loads as a library, whatever it holds.
OBJECTS: Final = ("custom_obj", "opaque_obj")
# A member that torch.export.save writes into every archive, since torch 2.7 and before.
MARKS: Final = frozenset({"archive_format", "serialized_exported_program.json"})
# ... and one that torch.save and torch.jit.save write into theirs.
CHECKPOINT: Final = "data.pkl"
COMPILED: Final = frozenset({"aotinductor", "executorch"})


def load(path: str | os.PathLike[str]) -> ExportedProgram:
    """Read an exported program.

    Raises:
        InputError: it is not one, or holds Python objects other than tensors, which could run any code.
    """
    where = os.fspath(path)
    if not Path(path).is_file():
        raise InputError(f"{where}: {'not a file' if Path(path).exists() else 'no such file'}")
    try:
        with zipfile.ZipFile(path) as archive:
            _require_program(archive, where)
            _require_tensors(archive, where)
    except zipfile.BadZipFile as error:
        raise InputError(f"{where}: not an exported program, or damaged: {error}") from error
    try:
        return torch.export.load(where)
    except Exception as error:
        raise InputError(
            f"{where}: not an exported program, or of another version of torch: {first_line(error)}"
        ) from error


@contextmanager
def staged(program: ExportedProgram, path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a program beside `path`, yield where, and move it there if the block ends without an exception.

    Raises:
        OutputError: it cannot be written.
    """
    where = os.fspath(path)
    with output.staged(path) as written:
        with output.reported(where):
            torch.export.save(program, written)
        yield written


def _require_program(archive: zipfile.ZipFile, where: str) -> None:
    """Refuse other archives, about which torch would say much."""
    names = {name.rpartition("/")[2] for name in archive.namelist()}
    if not names & MARKS:
        writer = ", but of torch.save or torch.jit.save" if CHECKPOINT in names else ""
        raise InputError(f"{where}: not a file of torch.export{writer}")


def _require_tensors(archive: zipfile.ZipFile, where: str) -> None:
    """Refuse what torch would unpickle without restriction, unless it is only tensors and containers."""
    for name in archive.namelist():
        parts = Path(name).parts
        if parts[-1].startswith(OBJECTS) or COMPILED.intersection(parts):
            raise InputError(f"{where}: {name} is code or a Python object, and reading it could run anything")
    for name in _pickled(archive):
        if name not in archive.namelist():
            raise InputError(f"{where}: {name} is missing")
        try:
            torch.load(BytesIO(archive.read(name)), weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError) as error:
            raise InputError(
                f"{where}: {name} holds more than tensors, and reading it could run anything"
            ) from error


def _pickled(archive: zipfile.ZipFile) -> Iterator[str]:
    """The members that torch unpickles."""
    members = set(archive.namelist())
    for name in sorted(members):
        if name.endswith(".pt") or "sample_inputs" in name:
            yield name
        elif name.endswith("_config.json"):
            folder = name.rpartition("/")[0]
            yield from (f"{folder}/{entry}" for entry in _entries(json.loads(archive.read(name))))


def _entries(config: Any) -> Iterator[str]:
    """The paths of what a list of weights or constants says is pickled."""
    for payload in config.get("config", {}).values():
        if payload.get("use_pickle"):
            yield str(payload.get("path_name"))

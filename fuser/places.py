"""Where the outputs of one command go: none to the place of another one, or of anything that is read."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

from fuser.errors import OutputError
from fuser.hosts.output import data_name, same, target_of
from fuser.hosts.pick import host_of

Name = str | os.PathLike[str]


def require_apart(
    models: Sequence[Name],
    *,
    result: Name | None = None,
    texts: Mapping[str, Name | None],
    reads: Mapping[str, object],
) -> None:
    """Refuse outputs of which one would overwrite another, or what is read. A device takes any number.

    Refused before anything is written is also what has no place: no folder, or one that is a folder.

    That the result is no file of weights is seen when it is written: see `Draft.staged`.

    Args:
        models: what is read, and their external data with them.
        result: the model that is written; it may be one of those that are read.
        texts: what else is written, by what messages call it; None where it is not.
        reads: what else is read, likewise; what is no path is no matter.

    Raises:
        OutputError: with both, or with the folder.
        InputError: a model cannot be read.
    """
    taken = [(what, path) for what, path in reads.items() if isinstance(path, str | os.PathLike)]
    if result is not None:
        _require_free("the result", result, taken)
    taken += [("a model", path) for path in (*models, result) if path is not None]
    for called, path in texts.items():
        if path is None:
            continue
        if result is not None and data_name(Path(result).name).fullmatch(Path(path).name):
            raise OutputError(f"{called} {path} is called as the weights of {result} are")
        # Only a file that is there can hold weights, and to find them the whole model is parsed.
        _require_free(called, path, chain(taken, _weights(models if Path(path).exists() else ())))
        taken.append((called, path))


def _require_free(called: str, path: Name, taken: Iterable[tuple[str, Name]]) -> None:
    if Path(path).exists() and not Path(path).is_file() and not Path(path).is_dir():
        return  # a device or a pipe
    for what, other in taken:
        if same(path, other):
            raise OutputError(f"{called} {path} is also the path of {what}")
    target_of(path)


def _weights(models: Iterable[Name]) -> Iterator[tuple[str, Name]]:
    """The files of external data."""
    for model in models:
        yield from ((f"weights of {model}", path) for path in host_of(model).files(model)[1:])

"""Where a model is written: a place that is there, and errors of the operating system as a sentence."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fuser.errors import OutputError


def target_of(path: str | os.PathLike[str]) -> Path:
    """The file that a path stands for: what a link leads to is replaced, not the link.

    Raises:
        OutputError: it is there and no file, or its folder does not exist.
    """
    where = os.fspath(path)
    target = Path(os.path.realpath(where))
    if target.exists() and not target.is_file():
        raise OutputError(
            f"{where}: cannot write there: it is {'a folder' if target.is_dir() else 'not a file'}"
        )
    if not target.parent.is_dir():
        raise OutputError(f"{where}: cannot write there: the folder {target.parent} does not exist")
    return target


@contextmanager
def reported(where: str) -> Iterator[None]:
    """Turn an error of the operating system into a sentence."""
    try:
        yield
    except OSError as error:
        reason = (
            "there is no space left"
            if error.errno in (errno.ENOSPC, errno.EDQUOT)
            else error.strerror or str(error)
        )
        raise OutputError(f"{where}: cannot write there: {reason[0].lower()}{reason[1:]}") from error

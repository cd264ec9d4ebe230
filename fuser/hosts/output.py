"""Where a file is written: beside its place, and then by one rename.

A run writes into a folder of its own beside the target. What a model refers to, its external data, gets its
place first, under a name that nothing has; the rename of the model is the only switch. Killed at any moment,
a run leaves the old model or the new one, whole, and perhaps its folder. In that is a note of which files are
of use only to the old or the new model. The next run in the same place finds a folder that nobody holds a
lock on, and clears up.
"""

import errno
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from filecmp import cmp
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Final

from fuser.errors import OutputError

SUFFIX: Final = ".graph-fuser"
"""How the folder of a run ends; it begins with a dot."""

NOTE: Final = ".note"
"""The note in the folder of a run: a model, and the names of files that only it can refer to."""


_DATA: Final = r"\.[0-9a-f]{16}\.data"
"""How a file of external data ends, after the name of its model."""

LARGEST_FILE: Final = 2**31 - 1
"""Of a model, in bytes: protobuf holds a message for malformed that is larger."""


def data_name(model: str) -> re.Pattern[str]:
    """How the files are called that are written for a model `model` to refer to."""
    return re.compile(re.escape(model) + _DATA)


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


def same(a: str | os.PathLike[str], b: str | os.PathLike[str]) -> bool:
    """Whether two paths are of one file, through links of either kind."""
    if os.path.realpath(a) == os.path.realpath(b):
        return True
    return Path(a).exists() and Path(b).exists() and Path(a).samefile(b)


def require_unread(path: str | os.PathLike[str], reads: Iterable[Path]) -> None:
    """Refuse to write what is read.

    Raises:
        OutputError: `path` is one of `reads`.
    """
    for read in reads:
        if same(path, read):
            raise OutputError(f"{os.fspath(path)}: cannot write there: {read} is read")


def write_text(path: Path, text: str) -> None:
    """Write a text, as a whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        path.write_text(text, encoding="utf-8")  # a device or a pipe
        return
    folder, lock = _opened(target)
    try:
        (folder / target.name).write_text(text, encoding="utf-8")
        _switch(folder, target)
    finally:
        _closed(folder, lock)


@contextmanager
def staged(path: str | os.PathLike[str], reads: Iterable[Path] = ()) -> Iterator[Path]:
    """Yield where to write a file, and files for it to refer to; move them if the block ends well.

    Args:
        path: where the file goes.
        reads: files that are read, and so must not be written.

    Raises:
        OutputError: `path` is read, the folder does not exist, or there is no permission or no space.
    """
    where = os.fspath(path)
    target = target_of(path)
    require_unread(path, reads)
    with reported(where):
        folder, lock = _opened(target)
    try:
        yield folder / target.name
        with reported(where):
            _switch(folder, target)
    finally:
        _closed(folder, lock)


def _opened(target: Path) -> tuple[Path, int | None]:
    """A new folder beside a target and a lock on it, what killed runs left being removed."""
    with _locked(target.parent) as safe:
        if safe:
            for folder in target.parent.glob(f".*{SUFFIX}"):
                lock = _lock(folder)
                if lock is not None:
                    _clear(folder)
                    os.close(lock)
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=SUFFIX, dir=target.parent))
        return folder, _lock(folder)


def _closed(folder: Path, lock: int | None) -> None:
    """Remove the folder of this run."""
    with _locked(folder.parent):
        _clear(folder)
    if lock is not None:
        os.close(lock)


def _lock(folder: Path, *, wait: bool = False) -> int | None:
    """A lock on a folder, which ends with the process; None if another process has it, or there are none."""
    try:
        import fcntl
    except ImportError:
        return None
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Keep other runs from clearing up, or switching, in a folder; yields whether that was possible."""
    lock = _lock(folder, wait=True)
    try:
        yield lock is not None
    finally:
        if lock is not None:
            os.close(lock)


def _switch(folder: Path, target: Path) -> None:
    """Give the files in the folder their names, the model last."""
    model = folder / target.name
    data = sorted(path for path in folder.iterdir() if path != model)
    for path in (*data, model) if target.exists() else ():
        shutil.copymode(target, path)
        # What is replaced must not be lost if the machine stops now.
        with path.open("rb") as file:
            os.fsync(file.fileno())
    with _locked(target.parent):
        old = _only_of(target)
        (folder / NOTE).write_text(json.dumps([target.name, *(path.name for path in data), *old]))
        for path in data:
            _place(path, target.with_name(path.name))
        model.replace(target)
        _settle(folder)


def _place(path: Path, to: Path) -> None:
    """Give a file of external data its name. Named after what it holds, it may be there already."""
    if not to.exists():
        path.rename(to)
    elif not cmp(path, to, shallow=False):
        raise OutputError(f"{to}: cannot write there: it is there, and does not hold what its name says")


def _only_of(target: Path) -> list[str]:
    """The files beside a model that were written for it, and that nothing needs once it is replaced."""
    if not target.exists() or target.stat().st_nlink > 1:
        return []  # by its other name it stays
    pattern = data_name(target.name)
    names = sorted(path.name for path in target.parent.iterdir() if pattern.fullmatch(path.name))
    return [name for name in names if mentions(target, name)]


def _settle(folder: Path) -> None:
    """Remove the files of the note that no file beside them refers to.

    Somebody may have a copy of the model, called anything, which refers to the same file.
    """
    try:
        model, *names = json.loads((folder / NOTE).read_text())
    except (OSError, ValueError):
        return  # no switch was begun
    beside = folder.parent
    for name in names:
        ours = data_name(model).fullmatch(name) and (beside / name).is_file()
        if ours and not any(mentions(path, name) for path in beside.iterdir() if _may_be_model(path)):
            with suppress(OSError):
                (beside / name).unlink()


def _may_be_model(path: Path) -> bool:
    """Whether a file can refer to others: neither data itself nor larger than a model can be."""
    try:
        return re.search(_DATA + "$", path.name) is None and path.stat().st_size <= LARGEST_FILE
    except OSError:
        return True


def mentions(path: Path, name: str) -> bool:
    """Whether the bytes of a name are in a file, or may be: whatever refers to another file has its name."""
    try:
        if not path.is_file() or path.stat().st_size == 0:
            return False
        with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
            return content.find(name.encode()) >= 0
    except OSError:
        return True


def _clear(folder: Path) -> None:
    """Remove the folder of a run that is over, and what it left elsewhere."""
    _settle(folder)
    shutil.rmtree(folder, ignore_errors=True)


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

"""Writing beside the place and switching by one rename: what is there stays, what is left is cleared up."""

import json
import os
from pathlib import Path

import pytest

from fuser.errors import OutputError
from fuser.hosts import output

DATA = "m.onnx.0123456789abcdef.data"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def left(tmp_path: Path) -> Path:
    """What a run leaves that was killed after its external data got its place."""
    folder = tmp_path / f".m.onnx.abc{output.SUFFIX}"
    folder.mkdir()
    (folder / "m.onnx").write_bytes(b"half a model")
    (folder / output.NOTE).write_text(json.dumps(["m.onnx", DATA, "../outside", "other.bin"]))
    for name in (DATA, "other.bin", "m.onnx.data"):
        (tmp_path / name).write_bytes(b"weights")
    return folder


@pytest.mark.usefixtures("left")
def test_what_a_killed_run_left_goes_with_the_next(tmp_path: Path) -> None:
    """Whatever that writes; and only what is called as a file of ours is."""
    output.write_text(tmp_path / "report.json", "{}")
    assert names(tmp_path) == ["m.onnx.data", "other.bin", "report.json"]


@pytest.mark.usefixtures("left")
def test_what_the_model_refers_to_stays(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"..." + DATA.encode() + b"...")
    output.write_text(tmp_path / "report.json", "{}")
    assert names(tmp_path) == ["m.onnx", DATA, "m.onnx.data", "other.bin", "report.json"]


COPIES = ("copy.onnx", "copy.ONNX", "m.onnx.bak", "m.onnx~", "copy", ".copy", "copy.pb", "m.onnx.data.txt")


@pytest.mark.usefixtures("left")
@pytest.mark.parametrize("copy", COPIES)
def test_what_another_file_refers_to_stays(tmp_path: Path, copy: str) -> None:
    (tmp_path / copy).write_bytes(b"..." + DATA.encode() + b"...")
    output.write_text(tmp_path / "report.json", "{}")
    assert DATA in names(tmp_path)


@pytest.mark.parametrize("copy", [*COPIES, "link.onnx", "hard", "../hard"])
def test_a_copy_keeps_the_data_of_the_model_that_is_replaced(tmp_path: Path, copy: str) -> None:
    """A hard link in another folder too: that folder may have the data by a link."""
    folder = tmp_path / "folder"
    folder.mkdir()
    model, data = folder / "m.onnx", folder / DATA
    model.write_bytes(DATA.encode())
    data.write_bytes(b"weights")
    if "hard" in copy:
        (folder / copy).hardlink_to(model)
    elif "link" in copy:
        (tmp_path / "elsewhere").write_bytes(DATA.encode())
        (folder / copy).symlink_to("../elsewhere")
    else:
        (folder / copy).write_bytes(DATA.encode())
    with output.staged(model) as written:
        written.write_bytes(b"another model")
    assert data.exists()


@pytest.mark.parametrize("other", ["m.onnx.fedcba9876543210.data", "b.onnx.fedcba9876543210.data", "large"])
def test_what_is_no_model_is_not_searched(
    tmp_path: Path, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Data, or what is too large for a model: reading it all would take long."""
    model, data = tmp_path / "m.onnx", tmp_path / DATA
    model.write_bytes(DATA.encode())
    data.write_bytes(b"weights")
    (tmp_path / other).write_bytes(DATA.encode() * 2)
    monkeypatch.setattr(output, "LARGEST_FILE", len(DATA))
    with output.staged(model) as written:
        written.write_bytes(b"another model")
    assert names(tmp_path) == sorted(["m.onnx", other])


def test_what_a_run_needs_that_is_alive_stays(tmp_path: Path) -> None:
    with output.staged(tmp_path / "m.onnx") as written:
        written.write_bytes(b"new")
        output.write_text(tmp_path / "report.json", "{}")
        assert written.read_bytes() == b"new"
    assert names(tmp_path) == ["m.onnx", "report.json"]


def test_two_runs_into_one_file(tmp_path: Path) -> None:
    """Each has its folder; the last one stays, with its own data."""
    target = tmp_path / "m.onnx"
    with output.staged(target) as first, output.staged(target) as second:
        for written, digit in ((first, "1"), (second, "2")):
            data = written.with_name(f"m.onnx.{digit * 16}.data")
            data.write_text(digit)
            written.write_text(data.name)
    assert target.read_text() == f"m.onnx.{'1' * 16}.data"
    assert names(tmp_path) == ["m.onnx", target.read_text()]


def test_a_note_that_is_no_note(left: Path, tmp_path: Path) -> None:
    (left / output.NOTE).write_bytes(b"[")
    output.write_text(tmp_path / "report.json", "{}")
    assert not left.exists()
    assert DATA in names(tmp_path)


def test_a_text_is_written_as_a_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.json"
    path.write_text("old")

    def refused(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "replace", refused)
    with pytest.raises(PermissionError):
        output.write_text(path, "new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["report.json"]


def test_a_text_may_go_to_a_device() -> None:
    output.write_text(Path(os.devnull), "text")
    assert not Path(os.devnull).is_file()


def test_what_is_read_is_not_written(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"w")
    (tmp_path / "link").symlink_to("weights")
    for read in ("weights", "link"):
        with pytest.raises(OutputError, match=f"weights: cannot write there: .*{read} is read$"):
            output.require_unread(tmp_path / "weights", [tmp_path / read])
    output.require_unread(tmp_path / "weights", [tmp_path / "another"])

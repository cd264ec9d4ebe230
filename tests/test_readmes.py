"""What READMEs list is what there is, and what they show of a file stands in it."""

import re
from importlib import import_module
from pathlib import Path
from textwrap import dedent

import pytest

from fuser.rewrite import pattern as rewrite
from tests.test_imports import NEUTRAL, ROOMS

ROOT = Path(__file__).parent.parent
FUSER = ROOT / "fuser"
FOLDERS = sorted({path.parent for path in FUSER.rglob("*.py") if path.name != "__init__.py"})

SCREEN = 60


def path(room: str) -> Path:
    """The folder of a room, if it has one."""
    return Path(*room.split("."))


def lines(folder: Path) -> list[str]:
    return (folder / "README.md").read_text().splitlines()


def test_every_folder_has_a_readme_and_every_readme_a_folder() -> None:
    assert sorted(path.parent for path in FUSER.rglob("README.md")) == FOLDERS


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(ROOT)))
def test_every_module_and_folder_is_listed_once(folder: Path) -> None:
    rows = [line for line in lines(folder) if line.startswith("|")]
    listed = [name for row in rows for name in re.findall(r"`(\w+(?:\.py|/))`(?=[\],]| \|)", row)]
    files = [file.name for file in folder.glob("*.py") if not file.name.startswith("__")]
    inner = [f"{path.name}/" for path in FOLDERS if path.parent == folder]
    assert sorted(listed) == sorted([*files, *inner])


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(ROOT)))
def test_a_readme_fits_a_screen_and_its_links_lead_somewhere(folder: Path) -> None:
    text = "\n".join(lines(folder))
    assert len(lines(folder)) <= SCREEN * (2 if folder == FUSER else 1)
    assert all((folder / link).exists() for link in re.findall(r"\]\(([^)#:]+)\)", text))
    named = re.findall(r"`((?:[a-z_]+/)+[a-z_]+\.py)`", text)
    assert all(any((base / name).exists() for base in (folder, folder.parent, ROOT, FUSER)) for name in named)


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, known in ROOMS.items()
        if known and NEUTRAL not in known and FUSER / path(name) in FOLDERS
    ],
)
def test_what_a_readme_says_of_imports_is_what_the_room_may_know(name: str) -> None:
    text = "\n".join(lines(FUSER / path(name)))
    (said,) = re.findall(r"^Imports: ([^;]*?)(?:;|\.$)", text, re.MULTILINE)
    assert set(re.findall(r"`([\w.]+)`", said)) == set(ROOMS[name].split())


def test_every_pass_is_listed_in_the_order_in_which_they_are_tried() -> None:
    text = (ROOT / "passes/README.md").read_text()
    listed = re.findall(r"^\| `(\w+)` \|.*\| ([A-Z]+) \|$", text, re.MULTILINE)
    names = [file.stem for file in (ROOT / "passes").glob("*.py") if not file.name.startswith("_")]
    entries = [getattr(import_module(f"passes.{name}"), name) for name in names]
    tried = sorted(entries, key=lambda entry: (entry.stage, entry.name))
    assert [(name, getattr(rewrite, stage)) for name, stage in listed] == [(e.name, e.stage) for e in tried]


@pytest.mark.parametrize("page", ["passes/README.md", "CONTRIBUTING.md"])
def test_samples_are_parts_of_the_files_that_they_name(page: str) -> None:
    """A fenced block below `<!-- file -->`."""
    marked = r"^ *<!-- (?P<file>[\w./]+) -->\n(?P<fence> *```)\w+\n(?P<block>.*?)\n(?P=fence)$"
    samples = list(re.finditer(marked, (ROOT / page).read_text(), re.MULTILINE | re.DOTALL))
    assert samples
    for sample in samples:
        block = dedent(sample["block"])
        assert f"{block}\n" in (ROOT / sample["file"]).read_text(), (
            f"{page} shows of {sample['file']}:\n{block}"
        )

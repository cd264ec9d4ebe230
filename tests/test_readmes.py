"""What READMEs list is what there is, and what they show of a file stands in it."""

import re
from importlib import import_module
from pathlib import Path
from textwrap import dedent

import pytest

from fuser.rewrite import pattern as rewrite

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("folder", ["fuser", "fuser/hosts"])
def test_every_module_is_listed_once(folder: str) -> None:
    rows = [line for line in (ROOT / folder / "README.md").read_text().splitlines() if line.startswith("|")]
    listed = [name for row in rows for name in re.findall(r"`([\w/]+\.py)`", row)]
    rooms = {room.parent for room in (ROOT / "fuser").rglob("README.md")} - {ROOT / folder, ROOT / "fuser"}
    files = [
        file.relative_to(ROOT / folder).as_posix()
        for file in (ROOT / folder).rglob("*.py")
        if not file.name.startswith("__") and rooms.isdisjoint(file.parents)
    ]
    assert sorted(listed) == sorted(files)


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

"""What READMEs list is what there is."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("folder", ["fuser", "fuser/hosts"])
def test_every_module_is_listed_once(folder: str) -> None:
    rows = [line for line in (ROOT / folder / "README.md").read_text().splitlines() if line.startswith("|")]
    listed = [name for row in rows for name in re.findall(r"`(\w+\.py)`", row)]
    files = [file.name for file in (ROOT / folder).glob("*.py") if not file.name.startswith("__")]
    assert sorted(listed) == sorted(files)


def test_every_pass_is_listed_once() -> None:
    listed = re.findall(
        r"^\| `(\w+)` \|.*\| [A-Z]+ \|$", (ROOT / "passes/README.md").read_text(), re.MULTILINE
    )
    files = [file.stem for file in (ROOT / "passes").glob("*.py") if not file.name.startswith("_")]
    assert sorted(listed) == sorted(files)

"""The command that takes conditions away, on a package of two files with tests of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conditions import Switch, conditions, install

PACKAGE = """
def require(condition, reason):
    if not condition:
        raise ValueError(reason)


def require_small(n):
    require(n < 10, f"{n} is large")


class Needed:
    def require(self):
        self.asked = True


def root(n, whole=False):
    require(n >= 0, f"{n} is negative")
    require(isinstance(n, int | float) and n != 3, "no number, or 3")
    require_small(n)
    Needed().require()
    if whole and n**0.5 % 1:
        raise ValueError(f"{n} is no square")
    try:
        return n**0.5
    except OverflowError:
        raise
    finally:
        assert n is not None
"""
TESTS = """
import pytest
from small.roots import root


def test_root():
    assert root(4) == 2


def test_negative():
    with pytest.raises(ValueError, match="-1 is negative"):
        root(-1)


def test_large():
    with pytest.raises(ValueError):
        root(16)


def test_three():
    with pytest.raises(ValueError):
        root(3)


def test_asserts_nothing():
    try:
        root(2, whole=True)
    except ValueError:
        pass
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, text in {"small/__init__.py": "", "small/roots.py": PACKAGE, "tests/test_it.py": TESTS}.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return tmp_path


def search(tree: Path, only: str = "") -> subprocess.CompletedProcess[str]:
    code = (
        "import sys; from pathlib import Path; from tests.break_conditions import search;"
        f"sys.exit(search(Path({str(tree)!r}), ['small'], {only!r}))"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_what_refuses_is_a_condition_and_what_asserts_or_passes_on_is_none(tree: Path) -> None:
    found = [(found.place, found.text) for found in conditions(tree, ["small"])]
    assert found == [
        ("small/roots.py:4", "raise ValueError(reason)"),
        ("small/roots.py:8", "n < 10"),
        ("small/roots.py:17", "n >= 0"),
        ("small/roots.py:18.1", "isinstance(n, int | float)"),
        ("small/roots.py:18.2", "n != 3"),
        ("small/roots.py:19", "require_small(n)"),
        ("small/roots.py:22", "raise ValueError(f'{n} is no square')"),
    ]


def test_conditions_whose_loss_nothing_notices_are_named(tree: Path) -> None:
    result = search(tree)
    assert result.returncode == 1, result.stderr
    verdicts = dict(line.split("  ")[:2] for line in result.stdout.splitlines() if line.startswith("small"))
    assert verdicts.pop("small/roots.py:4").startswith("tests/test_it.py::test_")  # the quickest of all
    assert verdicts == {
        "small/roots.py:8": "tests/test_it.py::test_large",
        "small/roots.py:17": "tests/test_it.py::test_negative",
        "small/roots.py:18.1": "UNNOTICED: it refuses in no test",
        "small/roots.py:18.2": "tests/test_it.py::test_three",
        "small/roots.py:19": "tests/test_it.py::test_large",
        "small/roots.py:22": "UNNOTICED by 1 tests",
    }
    assert "unnoticed: small/roots.py:18.1  isinstance(n, int | float)" in result.stdout


def test_a_test_that_is_mended_is_run_anew(tree: Path) -> None:
    assert search(tree, "small/roots.py:22").returncode == 1
    path = tree / "tests/test_it.py"
    path.write_text(TESTS.replace("        pass", "        return\n    raise AssertionError"))
    assert search(tree, "small/roots.py:22").returncode == 0


def test_a_test_that_fails_with_all_conditions_is_no_witness(tree: Path) -> None:
    path = tree / "tests/test_it.py"
    path.write_text(TESTS.replace("-1 is negative", "-2 is negative"))
    result = search(tree, "small/roots.py:17")
    assert result.returncode == 1
    assert "tests/test_it.py::test_negative fails as it is, and has no say" in result.stdout
    assert "small/roots.py:17  UNNOTICED" in result.stdout


def test_a_test_that_ends_the_process_has_no_say_and_those_behind_it_do(tree: Path) -> None:
    path = tree / "tests/test_it.py"
    path.write_text(TESTS.replace("    assert root(4) == 2", "    import os\n    os.abort()"))
    result = search(tree, "small/roots.py:17")
    assert "tests/test_it.py::test_root fails as it is, and has no say" in result.stdout
    assert "small/roots.py:17  tests/test_it.py::test_negative" in result.stdout


def test_a_package_that_is_imported_already_has_no_switch(tree: Path) -> None:
    with pytest.raises(RuntimeError, match="imported already, without a switch: tests"):
        install(tree, ["tests"], Switch())

"""What every test runs under."""

import os

import pytest
from hypothesis import HealthCheck, settings

# Two workers share two cores: more threads would wait for one another. Read when torch is imported.
os.environ["OMP_NUM_THREADS"] = "1"
# What the commands print must not depend on the terminal or the service that the tests run in.
os.environ.update(NO_COLOR="1", TERM="dumb", COLUMNS="110")
for name in ("FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS"):
    os.environ.pop(name, None)

# A first example that computes a reference may be slow on any machine. CI tries the same examples every time;
# elsewhere each run tries new ones.
settings.register_profile(
    "graph-fuser",
    deadline=None,
    derandomize="CI" in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("graph-fuser")


@pytest.fixture(autouse=True)
def _valid_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """After each edit of a graph, by whatever pass, it is a valid one."""
    from fuser.errors import Declined
    from fuser.ir.spec import require_valid
    from fuser.rewrite.editor import Editor

    def edited(editor: Editor) -> None:
        try:
            require_valid(editor.graph)
        except Declined as reason:
            raise AssertionError(str(reason)) from reason

    monkeypatch.setattr(Editor, "edited", edited)

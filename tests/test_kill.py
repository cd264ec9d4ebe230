"""A few of what `python -m tests.kill` does by the hundred."""

from tests.kill import SCENES, main


def test_killed_commands_lose_nothing_and_leave_nothing() -> None:
    assert main([str(len(SCENES))]) == 0

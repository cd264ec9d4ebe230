"""Import, rewrite, check: once in good faith, and once more with care should the check fail."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from fuser.ir.graph import Graph
from fuser.rewrite.driver import carefully, run
from fuser.rewrite.pattern import Log, Plan
from fuser.validate import check

Graphs = TypeVar("Graphs", bound=Sequence[Graph])


def rewritten(read: Callable[[], Graphs], plan: Plan) -> tuple[Graphs, Log]:
    """The graphs that `read` imports, anew each time, rewritten and checked; and what was done.

    Raises:
        VerificationError: a check fails although each rewrite was checked.
    """

    def attempt(careful: bool) -> tuple[Graphs, Log]:
        graphs, log = read(), Log()
        for graph in graphs:
            run(graph, plan, log, check, careful=careful)
            check.settle(graph, trusted=careful)
        return graphs, log

    return carefully(attempt)

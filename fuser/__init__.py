"""graph-fuser: collapses the linear structure of trained graphs, exactly, and only where it pays.

The whole public surface. Everything heavy is imported when it is first used: `import fuser` costs next to
nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fuser.bench.benchmark import benchmark as benchmark
    from fuser.compiler import inspect_file as inspect_file
    from fuser.compiler import optimize as optimize
    from fuser.compiler import optimize_file as optimize_file
    from fuser.compiler import pass_names as pass_names
    from fuser.converter import export as export
    from fuser.reduce import reduce_file as reduce_file
    from fuser.verifier import verify as verify

_HOME = {
    "benchmark": "fuser.bench.benchmark",
    "export": "fuser.converter",
    "inspect_file": "fuser.compiler",
    "optimize": "fuser.compiler",
    "optimize_file": "fuser.compiler",
    "pass_names": "fuser.compiler",
    "reduce_file": "fuser.reduce",
    "verify": "fuser.verifier",
}

__all__ = [
    "benchmark",
    "export",
    "inspect_file",
    "optimize",
    "optimize_file",
    "pass_names",
    "reduce_file",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'fuser' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]

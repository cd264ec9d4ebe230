"""Who may know whom: every import is read from the source, lazy ones and those for types included."""

import ast
import re
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

import networkx as nx
import pytest

ROOT = Path(__file__).parent.parent
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for folder in ("fuser", "passes")
    for path in sorted((ROOT / folder).rglob("*.py"))
}

NEUTRAL = "errors judge algebra ir rewrite recognise validate"
"""What knows no host."""

SHARED = "hosts.kind hosts.summary hosts.host hosts.output"
"""What hosts have in common and judges may know."""

ROOMS = {
    "errors": "",
    "judge": "errors",
    "algebra": "errors",
    "ir": "errors algebra",
    "recognise": "errors algebra ir",
    "rewrite": "errors algebra ir recognise",
    "validate": "errors algebra ir rewrite",
    "hosts.kind": "errors",
    "hosts.summary": "",
    "hosts.host": "hosts.summary ir judge rewrite",
    "hosts.output": "errors",
    "hosts": "",
    "hosts.operators": "errors algebra ir recognise",
    "hosts.onnx.standard": "errors",
    "hosts.onnx.judge": f"errors judge {SHARED} hosts.onnx.standard",
    "hosts.onnx.demands": "errors judge hosts.host hosts.onnx.judge",
    "hosts.onnx.certificate": "errors algebra rewrite hosts.output",
    "hosts.onnx.reduce": "errors hosts.onnx.judge",
    "hosts.onnx.file": f"errors {SHARED}",
    "hosts.onnx": f"{NEUTRAL} {SHARED} hosts.operators hosts.onnx.standard hosts.onnx.judge"
    " hosts.onnx.demands hosts.onnx.certificate hosts.onnx.reduce hosts.onnx.file",
    "hosts.torch": f"{NEUTRAL} {SHARED} hosts.operators",
    "hosts.pick": f"{SHARED} hosts.onnx hosts.torch",
    "hosts.blame": "errors hosts.pick",
    "bench": f"errors judge {SHARED} hosts.pick hosts.blame",
    "report": f"errors judge rewrite {SHARED} bench",
    "": f"{NEUTRAL} {SHARED} hosts.pick hosts.blame bench report",
    "passes": "errors algebra ir rewrite",
}
"""Each room, its files and folders below `fuser`, with all that it may import besides itself.

The longest name that fits is the room of a file; the one without a name is the surface. No room knows one
that comes later, so this is the order of the house.
"""

LIBRARIES = {
    "errors": "",
    "algebra": "numpy",
    "ir": "numpy",
    "judge": "numpy ml_dtypes",
    "rewrite": "numpy",
    "recognise": "numpy",
    "validate": "numpy",
    "hosts": "numpy",
    "hosts.onnx": "numpy ml_dtypes networkx onnx onnx_ir onnxruntime google",
    "hosts.torch": "numpy ml_dtypes torch",
    "bench": "",
    "report": "rich",
    "": "numpy typer rich",
    "passes": "numpy",
}
"""What is imported that does not come with Python, by the longest name that fits."""

EXCEPTIONS = {
    ("fuser.converter", "fuser.hosts.onnx"): "from torch to ONNX is what it is about",
    ("fuser.converter", "fuser.hosts.torch"): "from torch to ONNX is what it is about",
    ("fuser.converter", "torch"): "the types of its arguments",
    ("fuser.demo", "onnx"): "it builds a file of its own",
    ("fuser.hosts.kind", "torch"): "it asks whether that is installed",
    ("fuser.hosts.torch.export", "onnx_ir"): "torch.onnx makes a model of it",
}
"""Imports beside the rules, each with its reason."""


def imports(name: str) -> Iterator[str]:
    """The modules and libraries that a file imports, wherever it does, or names for somebody to import."""
    for node in ast.walk(ast.parse(FILES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports by a relative path"
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (part if part in FILES else str(node.module) for part in inner)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "." in node.value:
            yield from {node.value} & FILES.keys()
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield from (str(part.value) for part in node.args if isinstance(part, ast.Constant))


GRAPH = {name: set(imports(name)) - {name} for name in FILES}


def room(name: str, rooms: Collection[str] = ROOMS) -> str:
    """The room of a module."""
    inner = name if name.startswith("passes") else name.removeprefix("fuser").removeprefix(".")
    return max((known for known in rooms if within(inner, known)), key=len)


def within(name: str, room: str) -> bool:
    return not room or f"{name}.".startswith(f"{room}.")


def excused(name: str, imported: str) -> bool:
    return any(name == one and within(imported, other) for one, other in EXCEPTIONS)


def test_no_room_knows_one_that_comes_later() -> None:
    names = list(ROOMS)
    assert all(names.index(known) < names.index(one) for one in names for known in ROOMS[one].split())


@pytest.mark.parametrize("name", FILES)
def test_a_file_imports_only_what_its_room_may_know(name: str) -> None:
    known = {room(name), *ROOMS[room(name)].split()}
    inner = {imported for imported in GRAPH[name] if imported in FILES and not excused(name, imported)}
    assert {imported for imported in inner if room(imported) not in known} == set()


@pytest.mark.parametrize("name", FILES)
def test_a_file_imports_only_the_libraries_of_its_room(name: str) -> None:
    allowed = LIBRARIES[room(name, LIBRARIES)].split()
    outer = {imported.partition(".")[0] for imported in GRAPH[name] - FILES.keys()} - sys.stdlib_module_names
    assert {library for library in outer if library not in allowed and not excused(name, library)} == set()


def test_no_two_files_know_each_other() -> None:
    edges = [(name, imported) for name in FILES for imported in GRAPH[name] & FILES.keys()]
    knots = nx.strongly_connected_components(nx.DiGraph(edges))
    assert [sorted(knot) for knot in knots if len(knot) > 1] == []


def test_no_exception_is_left_that_nobody_needs() -> None:
    unused = [
        (name, other) for name, other in EXCEPTIONS if not any(within(one, other) for one in GRAPH[name])
    ]
    assert unused == []


def test_outside_of_hosts_no_module_is_named_after_one() -> None:
    outside = [name for name in FILES if not name.startswith("fuser.hosts.")]
    assert [name for name in outside if re.search(r"onnx|torch|(^|[._])fx([._]|$)", name)] == []

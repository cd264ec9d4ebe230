"""Paths of layers and tensors: such as are free, and such as torch.fx can spell in Python.

Any text without a dot may be the key of a ModuleDict. What is called like a keyword, like a method of
modules, or holds a quotation mark, torch.fx writes down as something that is no Python or is something else.
"""

import re
from collections.abc import Iterable
from copy import copy
from dataclasses import replace
from functools import cache
from keyword import iskeyword
from typing import Any
from unicodedata import normalize

from torch import fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import ExportGraphSignature
from torch.fx.graph import _Namespace


class Paths:
    """The paths in use. None lies inside another, for what is there is one layer or one tensor."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken: set[str] = set()
        self._around: set[str] = set()
        self._counts: dict[str, int] = {}
        for path in taken:
            self.take(path)

    def fresh(self, name: str, numbered: int = 1) -> str:
        """The path `name`, or one like it if that is taken, in use from now on.

        The part that gets a number is the one that clashes, or if the whole does the one `numbered` from the
        end: 2 numbers the layer of a weight.
        """
        stems = [spelled(part) for part in name.split(".")]
        parts = list(stems)
        while end := self._clash(parts):
            place = end - 1 if end < len(parts) else max(0, end - numbered)
            base = ".".join((*parts[:place], stems[place]))
            self._counts[base] = self._counts.get(base, 0) + 1
            parts[place] = f"{stems[place]}_{self._counts[base]}"
        self.take(".".join(parts))
        return ".".join(parts)

    def _clash(self, parts: list[str]) -> int:
        """How many of the parts make the shortest path that is taken; 0 if none does."""
        paths = [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
        taken = (end for end, path in enumerate(paths, 1) if path in self._taken)
        return next(taken, len(parts) if paths[-1] in self._around else 0)

    def take(self, path: str) -> None:
        """Have a path in use."""
        self._taken.add(path)
        parts = path.split(".")
        self._around.update(".".join(parts[:end]) for end in range(1, len(parts)))


@cache
def _own() -> frozenset[str]:
    """What a module has of its own, which hides children of that name."""
    return frozenset(dir(fx.GraphModule(nn.Module(), fx.Graph())))


def is_spelled(part: str) -> bool:
    """Whether torch.fx can read a child of that name: as an attribute, or in quotation marks."""
    if part.isidentifier():
        return not iskeyword(part) and part not in _own() and normalize("NFKC", part) == part
    return part.isprintable() and not set(part) & {'"', "\\"}


def spelled(part: str) -> str:
    """The name, or one like it that torch.fx can read."""
    if is_spelled(part):
        return part
    plain = re.sub(r"\W", "_", part, flags=re.ASCII)
    return plain if is_spelled(plain) else f"{plain}_"


def node_name(path: str) -> str:
    """What a node is called that reads a path: no name that Python or the code that torch.fx writes uses."""
    name: str = _Namespace().create_name(path.replace(".", "_"), None)
    return name


def respelled(paths: Iterable[str]) -> dict[str, str]:
    """Paths in which torch.fx can read every part, by those in which it cannot; siblings stay distinct."""
    given = set(paths)
    parts: dict[str, set[str]] = {}
    for path in sorted(given):
        *around, _ = pieces = path.split(".")
        for depth in range(len(around) + 1):
            parts.setdefault(".".join(pieces[:depth]), set()).add(pieces[depth])
    names: dict[tuple[str, str], str] = {}
    for owner, children in parts.items():
        used = Paths(filter(is_spelled, children))
        for child in sorted(children):
            names[owner, child] = child if is_spelled(child) else used.fresh(child)
    found = {path: _along(path, names) for path in given}
    return {path: name for path, name in found.items() if name != path}


def _along(path: str, names: dict[tuple[str, str], str]) -> str:
    pieces = path.split(".")
    return ".".join(names[".".join(pieces[:depth]), piece] for depth, piece in enumerate(pieces))


def spell_program(program: ExportedProgram) -> ExportedProgram:
    """The program with names for its parameters and buffers with which torch can make a module of it."""
    names = respelled({*program.state_dict, *(program.constants or {})})
    if not names:
        return program
    signature = program.graph_signature

    def respell(spec: Any) -> Any:
        return replace(spec, target=names.get(spec.target, spec.target)) if spec.target else spec

    return ExportedProgram(
        root=program.graph_module,
        graph=program.graph,
        graph_signature=ExportGraphSignature(
            [respell(spec) for spec in signature.input_specs],
            [respell(spec) for spec in signature.output_specs],
        ),
        state_dict={names.get(name, name): value for name, value in program.state_dict.items()},
        range_constraints=copy(program.range_constraints),
        module_call_graph=[entry for entry in program.module_call_graph if entry.fqn == ""],
        example_inputs=program.example_inputs,
        constants={names.get(name, name): value for name, value in (program.constants or {}).items()},
        verifiers=program.verifiers,
    )

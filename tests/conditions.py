"""Every condition of a package, compiled so that a switch takes one away, in memory only.

A condition is what refuses: a call of `require` or of a function `require_...`, and a `raise`. Of
`require(a and b, reason)` a is one, `:12.1`, and b is one, `:12.2`. What states a fact of construction
(`assert`, `raise AssertionError`) and a `raise` of what was caught are none.
"""

import ast
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any


@dataclass(frozen=True)
class Condition:
    """What refuses: where (`fuser/algebra/conv.py:12`), and its text."""

    place: str
    text: str


@dataclass
class Switch:
    """Which condition is taken away, and which have refused since `refused` was last emptied."""

    broken: str | None = None
    refused: set[str] = field(default_factory=set)

    def call(self, place: str, check: Callable[..., None], *values: Any, **named: Any) -> None:
        """Call `check(*values, **named)`; what it raises is lost where the condition is broken."""
        try:
            check(*values, **named)
        except Exception:
            if self.refuses(place):
                raise

    def holds(self, place: str, condition: object) -> bool:
        """The truth of a part of a condition; where it is broken, it always holds."""
        return bool(condition) or not self.refuses(place)

    def refuses(self, place: str) -> bool:
        """Whether the condition at `place`, which has come to refuse, is still there."""
        self.refused.add(place)
        return place != self.broken


def conditions(root: Path, packages: Sequence[str]) -> Iterator[Condition]:
    """Those of the packages, file by file, in order of their lines."""
    for package in packages:
        for path in sorted((root / package).rglob("*.py")):
            name = path.relative_to(root).as_posix()
            finder = _Switched(name)
            finder.visit(ast.parse(path.read_bytes()))
            yield from sorted(finder.found, key=lambda condition: float(condition.place.rpartition(":")[2]))


def install(root: Path, packages: Sequence[str], switch: Switch) -> None:
    """Import the packages with `switch` in their conditions from now on.

    Raises:
        RuntimeError: one of them is imported already.
    """
    if early := sorted(set(packages) & sys.modules.keys()):
        raise RuntimeError(f"imported already, without a switch: {', '.join(early)}")
    sys.meta_path.insert(0, _Finder(root, packages, switch))


class _Finder(MetaPathFinder):
    def __init__(self, root: Path, packages: Sequence[str], switch: Switch) -> None:
        self.root, self.packages, self.switch = root, packages, switch

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] not in self.packages:
            return None
        spec = PathFinder.find_spec(fullname, [str(self.root)] if path is None else path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(spec.loader, self.root, self.switch)
        return spec


class _Loader(SourceFileLoader):
    def __init__(self, plain: SourceFileLoader, root: Path, switch: Switch) -> None:
        super().__init__(plain.name, plain.path)
        self.root, self.switch = root, switch

    def get_code(self, fullname: str) -> CodeType:  # noqa: ARG002  # the protocol
        """Compile the source, and neither read nor write the cache of compiled files."""
        place = Path(self.path).relative_to(self.root).as_posix()
        tree = _Switched(place).visit(ast.parse(self.get_data(self.path)))
        code: CodeType = compile(ast.fix_missing_locations(tree), self.path, "exec", dont_inherit=True)
        return code

    def exec_module(self, module: ModuleType) -> None:
        vars(module)["__switch__"] = self.switch
        super().exec_module(module)


class _Switched(ast.NodeTransformer):
    """Puts the switch into a file: `require(c, r)` is called by it, a `raise` asks it first."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.found: list[Condition] = []

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        call = node.value
        if not isinstance(call, ast.Call) or not _refuses(call.func):
            return self.generic_visit(node)
        first = call.args[0] if _last_name(call.func) == "require" else call
        if isinstance(first, ast.BoolOp) and isinstance(first.op, ast.And):
            for number, part in enumerate(first.values):
                place = self._place(node, ast.unparse(part), f".{number + 1}")
                held = ast.Call(_switch("holds"), [place, part], [])
                first.values[number] = ast.copy_location(held, part)
            return node
        switched = ast.Call(
            _switch("call"), [self._place(node, ast.unparse(first)), call.func, *call.args], call.keywords
        )
        return ast.copy_location(ast.Expr(ast.copy_location(switched, call)), node)

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        if node.exc is None or _last_name(node.exc) == "AssertionError":
            return node
        asked = ast.Call(_switch("refuses"), [self._place(node, ast.unparse(node))], [])
        return ast.copy_location(ast.If(asked, [node], []), node)

    def _place(self, node: ast.stmt, text: str, part: str = "") -> ast.Constant:
        self.found.append(Condition(f"{self.name}:{node.lineno}{part}", text))
        return ast.Constant(self.found[-1].place)


def _switch(method: str) -> ast.Attribute:
    return ast.Attribute(ast.Name("__switch__", ast.Load()), method, ast.Load())


def _refuses(function: ast.expr) -> bool:
    """Whether it is `require` or one called `require_...`; the method `x.require()` asks something of x."""
    name = _last_name(function).lstrip("_")
    return name.startswith("require_") or (name == "require" and isinstance(function, ast.Name))


def _last_name(node: ast.expr) -> str:
    """`c` of `c`, `b.c` and `b.c(...)`."""
    if isinstance(node, ast.Call):
        return _last_name(node.func)
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")

"""Damages the rules that lift ONNX operators, one place at a time: ``python -m tests.damage_lifts [PART]``.

A factor is off by a hundredth, a sum becomes a difference, an axis is the next one, a condition is dropped.
With each damage, and the compiler's own check switched off, the models of `lift_models` go through the
compiler in a process of their own. Where what comes out computes something else in onnxruntime, run here
directly, `verify` has to notice: by its verdict, or by an error. What passes unnoticed is listed, and makes
the exit status 1. PART chooses the damages in whose line it stands.
"""

import ast
import importlib.abc
import importlib.machinery
import importlib.util
import os
import pickle
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime

FAMILIES: Final = (
    "arithmetic",
    "borders",
    "channels",
    "convolutions",
    "elementwise",
    "layout",
    "linear",
    "norms",
)
DAMAGED: Final = tuple(f"operators/{family}" for family in FAMILIES)
OFF: Final = 1e-4
"""Relative to the largest value: further apart are two results that are not the same."""


@dataclass(frozen=True)
class Damage:
    """One place in one function of a module, by its number among those that a mutation finds there."""

    module: str
    function: str
    number: int
    line: int
    text: str


# --- mutations ---------------------------------------------------------------------------------------------


def _scaled(node: ast.expr) -> ast.expr:
    return ast.BinOp(node, ast.Mult(), ast.Constant(1.01))


def _mutations(node: ast.AST) -> Iterator[tuple[str, Callable[[], None]]]:
    """What can be done to a node of the syntax tree: in words, and to do it."""
    if isinstance(node, ast.Return) and isinstance(node.value, ast.BinOp):
        yield from _arithmetic(node, "value", node.value)
    for name, value in ast.iter_fields(node):
        for place, part in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(part, ast.BinOp) and not isinstance(node, ast.Return):
                yield from _arithmetic(node, name, part, place)
    if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "require":
        yield "condition dropped", lambda: node.args.__setitem__(0, ast.Constant(value=True))
    if isinstance(node, ast.If) and isinstance(node.body[0], ast.Return | ast.Raise):
        yield "way out closed", lambda: setattr(node, "test", ast.Constant(value=False))
    if isinstance(node, ast.IfExp):
        yield "always the first", lambda: setattr(node, "test", ast.Constant(value=True))
        yield "always the second", lambda: setattr(node, "test", ast.Constant(value=False))
    yield from _numbers(node)


def _numbers(node: ast.AST) -> Iterator[tuple[str, Callable[[], None]]]:
    if isinstance(node, ast.Constant):
        value: Any = node.value
        if type(value) in (int, float):
            other = value + (1 if type(value) is int else 0.01)
            yield f"{value} -> {other}", lambda: setattr(node, "value", other)
    match node:
        case ast.UnaryOp(op=ast.USub(), operand=operand) if not isinstance(operand, ast.Constant):
            yield "sign lost", lambda: setattr(node, "op", ast.UAdd())


def _arithmetic(
    parent: ast.AST, name: str, node: ast.BinOp, place: int = 0
) -> Iterator[tuple[str, Callable[[], None]]]:
    other = {ast.Add: ast.Sub, ast.Sub: ast.Add}.get(type(node.op))
    if other is not None:
        yield "+ for -" if other is ast.Add else "- for +", lambda: setattr(node, "op", other())
    if isinstance(node.op, ast.Mult | ast.Div):
        held = getattr(parent, name)

        def scale() -> None:
            if isinstance(held, list):
                held[place] = _scaled(node)
            else:
                setattr(parent, name, _scaled(node))

        yield "factor 1.01", scale


def _places(tree: ast.AST) -> Iterator[tuple[ast.AST, str, Callable[[], None]]]:
    """All mutations of a module, inside of its functions."""
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef):
            for node in (part for line in function.body for part in ast.walk(line)):
                for what, apply in _mutations(node):
                    yield node, f"{function.name}: {what}", apply


def damages(folder: Path) -> list[Damage]:
    """Every damage, by module and line; a place that is reached from two functions counts once."""
    found = []
    for module in DAMAGED:
        source = (folder / f"{module}.py").read_text()
        seen = set()
        for number, (node, what, _) in enumerate(_places(ast.parse(source))):
            line = getattr(node, "lineno", 0)
            key = line, getattr(node, "col_offset", 0), what.partition(": ")[2]
            if key not in seen:
                seen.add(key)
                text = (
                    ast.unparse(node)[:90]
                    if isinstance(node, ast.expr)
                    else source.splitlines()[line - 1].strip()
                )
                found.append(Damage(module, what.partition(":")[0], number, line, f"{what}: {text}"))
    return found


class _Loader(importlib.machinery.SourceFileLoader):
    """Loads a module with one damage."""

    def __init__(self, name: str, path: str, number: int) -> None:
        super().__init__(name, path)
        self.number = number

    def get_code(self, fullname: str) -> Any:  # noqa: ARG002  # the signature of the base
        """The code of the damaged source; never that of a cache."""
        tree = ast.parse(self.get_data(self.path))
        for number, (_, _, apply) in enumerate(_places(tree)):
            if number == self.number:
                apply()
                break
        return compile(ast.fix_missing_locations(tree), self.path, "exec")


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the damaged module before the sound one is found."""

    def __init__(self, folder: Path, damage: Damage) -> None:
        self.name = f"fuser.hosts.{damage.module.replace('/', '.')}"
        self.path = str(folder / f"{damage.module}.py")
        self.number = damage.number

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The damaged module, where that is the one to load."""
        del path, target
        if fullname != self.name:
            return None
        return importlib.util.spec_from_loader(fullname, _Loader(fullname, self.path, self.number))


# --- what becomes of the models ----------------------------------------------------------------------------


Sound = tuple[bytes, frozenset[tuple[str, str]]]
"""What comes out of a model without damage, and the functions of the damaged modules that took part in it."""


def _compiled(damage: Damage | None, folder: Path, sound: list[Sound]) -> list[Any]:
    """In a process of its own: what comes out of each model, or with a damage what became of it.

    "same", "harmless", "crash", "noticed" or "unnoticed".
    """
    for name in [name for name in sys.modules if name.split(".")[0] in ("fuser", "passes")]:
        del sys.modules[name]
    if damage is not None:
        sys.meta_path.insert(0, _Finder(folder, damage))
    import fuser
    import fuser.validate.check
    from tests.lift_models import models

    fuser.validate.check.compare = lambda *_, **__: None
    results: list[Any] = []
    for number, model in enumerate(models()):
        if damage is None:
            with _watched(folder) as functions:
                made = fuser.optimize(model)
            results.append((made.SerializeToString(deterministic=True), frozenset(functions)))
        elif (damage.module, damage.function) not in sound[number][1]:
            results.append("same")
        else:
            results.append(_fate(model, sound[number][0]))
    return results


@contextmanager
def _watched(folder: Path) -> Iterator[set[tuple[str, str]]]:
    """The functions of the damaged modules that are called in the block, as module and name."""
    found: set[tuple[str, str]] = set()
    files = {str(folder / f"{module}.py"): module for module in DAMAGED}

    def watch(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename in files:
            found.update((files[code.co_filename], name) for name in code.co_qualname.split("."))

    sys.setprofile(watch)
    try:
        yield found
    finally:
        sys.setprofile(None)


def _fate(model: onnx.ModelProto, sound: bytes) -> str:
    import fuser
    from fuser.errors import ContradictionError

    try:
        made = fuser.optimize(model)
    except Exception:  # noqa: BLE001  # a damage may do anything
        return "crash"
    if made.SerializeToString(deterministic=True) == sound:
        return "same"
    if not _apart(model, made):
        return "harmless"
    try:
        verdict = fuser.verify(model, made)
    except ContradictionError:
        return "noticed"
    return "noticed" if verdict.verdict == "differs" else "unnoticed"


def _apart(model: onnx.ModelProto, made: onnx.ModelProto) -> bool:
    """Whether onnxruntime computes something else, or cannot run what came out; nothing of ours looks."""
    try:
        sessions = [
            onnxruntime.InferenceSession(
                m.SerializeToString(), _options(), providers=["CPUExecutionProvider"]
            )
            for m in (model, made)
        ]
    except Exception:  # noqa: BLE001  # what does not load is wrong
        return True
    generator = np.random.default_rng(5)
    for batch in (1, 3):
        given = sessions[0].get_inputs()[0]
        x = generator.standard_normal([n if isinstance(n, int) else batch for n in given.shape])
        try:
            old, new = (session.run(None, {given.name: x.astype(np.float32)})[0] for session in sessions)
        except Exception:  # noqa: BLE001  # the original runs, so the other does not
            return True
        if old.shape != new.shape or not np.abs(old - new).max(initial=0) <= OFF * np.abs(old).max(initial=0):
            return True
    return False


def _options() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return options


def apart(damage: Damage | None, folder: Path, sound: list[Sound]) -> list[Any]:
    """The same, computed in a forked process; what ends that by force crashes all models."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        try:
            found = _compiled(damage, folder, sound)
        except BaseException:  # noqa: BLE001  # the module itself may not load
            found = ["crash"] * len(sound)
        with os.fdopen(writing, "wb") as pipe:
            pickle.dump(found, pipe)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return pickle.loads(answer) if answer else ["crash"] * len(sound)  # our own child's


def main(part: str = "") -> int:
    """Try every damage whose line holds `part`; exit status 1 if one passes unnoticed."""
    folder = Path(__file__).resolve().parent.parent / "fuser" / "hosts"
    sound = apart(None, folder, [])
    counts = {"wrong": 0, "unnoticed": 0, "without effect": 0, "harmless": 0, "crash": 0}
    for damage in damages(folder):
        name = f"{damage.module}.py:{damage.line} {damage.text}"
        if part not in name:
            continue
        fates = apart(damage, folder, sound)
        wrong, missed = fates.count("noticed") + fates.count("unnoticed"), fates.count("unnoticed")
        if wrong:
            counts["wrong"] += 1
            counts["unnoticed"] += missed > 0
            print(
                f"{'UNNOTICED' if missed else 'noticed':<10}{wrong - missed:>4} of {wrong:<4}{name}",
                flush=True,
            )
        else:
            counts[
                "crash" if "crash" in fates else "harmless" if "harmless" in fates else "without effect"
            ] += 1
    print(
        f"{counts['wrong']} damages make a model wrong, {counts['unnoticed']} of them unnoticed by verify; "
        f"{counts['crash']} only crash, {counts['harmless']} change a file and not what it computes, "
        f"{counts['without effect']} change nothing here"
    )
    return 1 if counts["unnoticed"] else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

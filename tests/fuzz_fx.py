"""Random modules of torch through the compiler: ``python -m tests.fuzz_fx [COUNT] [FIRST SEED]``.

What comes out has to compute the same in float64, for every batch, return the same structure, take the same
arguments, hold nothing that nobody reads, and have nothing left to be done; the module has to be as it was.
Every tenth goes through torch.export, the rest through symbolic traces.
"""

import inspect
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree as pytree

import fuser
from tests.fx_grown import NAMES, OPERATIONS, PLAIN, Grown, Net

LENGTH = 9
BATCHES = (2, 3, 7, 2)
FORMS = ("trace", "trace", "graph", "leaves")
FREE = {"x": {0: Dim.DYNAMIC}, "gain": None}
EXPORTED = ("export", "program", "decomposed")


class Leaves(fx.Tracer):
    """Takes every module for a leaf that is not the whole or a container."""

    def is_leaf_module(self, m: nn.Module, _: str) -> bool:
        """Whether to trace a call, and not what it calls."""
        return not isinstance(m, nn.ModuleDict | Grown)


def arguments(batch: int, seed: int = 0) -> tuple[tuple[Tensor], dict[str, Tensor]]:
    """What a grown module takes."""
    random = np.random.default_rng(seed)
    made = (random.standard_normal(shape) for shape in ((batch, 3, 6, 5), (3, 1, 1)))
    x, gain = map(torch.from_numpy, made)
    return (x,), {"gain": gain}


def grown(seed: int) -> tuple[Grown, str]:
    """The module of a seed, and how its graph is captured."""
    random = np.random.default_rng(seed)
    form = EXPORTED[seed // 10 % 3] if seed % 10 == 9 else FORMS[int(random.integers(len(FORMS)))]
    net = Net(random, PLAIN if form in {"graph", "leaves"} else NAMES, form not in EXPORTED)
    (x,), named = arguments(2)
    with torch.no_grad():
        net.values += [x, named["gain"]]
        while len(net.module.steps) < LENGTH:
            grow(net)
    net.module.finish = results(net)
    return net.module.eval(), form


def grow(net: Net) -> None:
    """One step more, if it goes with the example."""
    index = int(net.random.integers(len(net.values)))
    near = len(net.values) - 1 if net.random.random() < 0.5 else index
    before = deepcopy(net.module.parts)
    step = net.pick(OPERATIONS)(net, near)
    if step is None:
        return
    try:
        value = step(net.module, net.values)
    except (RuntimeError, IndexError, TypeError, ValueError):
        value = None
    if (
        isinstance(value, Tensor)
        and 0 < value.numel() < 4000
        and value.isfinite().all()
        and value.abs().max() < 1e4
    ):
        net.module.steps.append(step)
        net.values.append(value)
    else:
        net.module.parts = before


def results(net: Net) -> Callable[[list[Any]], Any]:
    """What the module returns: a structure of values, the same twice, inputs, numbers and None."""
    chosen = [int(net.random.integers(1, len(net.values))) for _ in range(net.pick((0, 1, 2)))]
    if net.random.random() < 0.1:
        chosen.append(0)
    last = len(net.values) - 1
    forms: tuple[Callable[[list[Any]], Any], ...] = (
        lambda v: v[last],
        lambda v: (v[last], *(v[i] for i in chosen)),
        lambda v: {"a": v[last], "b": [v[i] for i in chosen], "c": (v[last],)},
        lambda v: [v[last], None, 3, v[last]],
        lambda v: {"only": v[last].sum(), "rest": {f"x{i}": v[i] for i in chosen}},
    )
    chosen_form: Callable[[list[Any]], Any] = net.pick(forms)
    return chosen_form


def captured(module: Grown, form: str) -> tuple[Any, Any, Any]:
    """What the compiler is given: a model, examples, which extents are free."""
    (x,), named = arguments(3)
    example = {"x": x, **named}
    if form == "trace":
        return module, None, None
    if form == "graph":
        return fx.symbolic_trace(module), example, None
    if form == "leaves":
        return fx.GraphModule(module, Leaves().trace(module)), None, None
    if form == "export":
        return module, example, FREE
    program = torch.export.export(module, (), example, dynamic_shapes=FREE)
    return program.run_decompositions() if form == "decomposed" else program, None, None


def called(model: Any) -> list[Any]:
    """What a copy of a model returns for each batch, in turn, and what becomes of the arguments."""
    made = deepcopy(model.module() if isinstance(model, ExportedProgram) else model)
    found = []
    for batch in BATCHES:
        (x,), named = arguments(batch)
        with torch.no_grad():
            found.append((deepcopy(made(x=x, **named)), x, named))
    return found


def require_equal(found: Any, expected: Any, tolerance: float) -> None:
    """Compare two results.

    Raises:
        AssertionError: structure, type, shape or values differ.
    """
    (leaves, structure), (wanted, model) = map(pytree.tree_flatten, (found, expected))
    assert structure == model, f"structure: {structure} and {model}"
    for a, b in zip(leaves, wanted, strict=True):
        if not isinstance(b, Tensor):
            assert a == b, f"{a} and {b}"
            continue
        assert (a.shape, a.dtype) == (b.shape, b.dtype), f"{a.shape}, {a.dtype} and {b.shape}, {b.dtype}"
        scale = float(b.double().abs().max()) or 1.0
        error = float((a.double() - b.double()).abs().max()) / scale
        assert error <= tolerance, f"differs by {error:.1e}"


def tolerance_of(module: Grown) -> float:
    """How exact a result has to be, by the narrowest type in which something is computed."""
    (x,), named = arguments(2)
    with torch.no_grad(), _Types() as types:
        deepcopy(module)(x, **named)
    narrow = [dtype for dtype in types.seen if dtype.is_floating_point and dtype is not torch.float64]
    return max((50 * torch.finfo(dtype).eps for dtype in narrow), default=1e-9)


class _Types(torch.utils._python_dispatch.TorchDispatchMode):
    """Notes the element types of all results."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[torch.dtype] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.seen.update(leaf.dtype for leaf in pytree.tree_leaves(result) if isinstance(leaf, Tensor))
        return result


def nodes(model: Any) -> int:
    """How many calls the graph of a model makes, if it has one."""
    graph = getattr(model, "graph", fx.Graph())
    return sum(node.op.startswith("call") and node.target != "_guards_fn" for node in graph.nodes)


def signature(model: Any) -> list[str]:
    """The arguments of a model by name."""
    return list(inspect.signature(model.forward).parameters)


def check(seed: int) -> int | None:
    """Put one module through the compiler; how many nodes are gone, None where torch captures something else.

    Raises:
        AssertionError: the result computes something else, or is not as it must be.
    """
    module, form = grown(seed)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    try:
        model, example, free = captured(module, form)
        own = torch_captured(module, model, form)
        expected, tolerance = called(module), tolerance_of(module)
        require_equal(called(own), expected, tolerance)
    except Exception:  # noqa: BLE001  what torch cannot capture, or captures wrongly, is no matter of ours
        return None
    result = fuser.optimize(model, example, dynamic_shapes=free)
    require_equal(called(result), expected, tolerance)
    require_equal(dict(module.state_dict()), before, 0)
    if not isinstance(result, ExportedProgram):
        assert signature(result) == signature(module), f"arguments {signature(result)}"
    assert form in EXPORTED or not dead(result), f"nobody reads {dead(result)}"
    again = fuser.optimize(result, example if form == "graph" else None)
    assert nodes(again) == nodes(result), f"{nodes(again)} nodes of {nodes(result)} are left by a second run"
    require_equal(called(again), expected, tolerance)
    return max(0, nodes(own) - nodes(result))


def torch_captured(module: Grown, model: Any, form: str) -> Any:
    """What torch alone captures, or the module where its layers have names that torch cannot spell."""
    if form == "trace":
        tracer = fx.Tracer()
        tracer.proxy_buffer_attributes = True
        graph = tracer.trace(module)
        parts: dict[str, Any] = {}
        for node in graph.nodes:
            if node.op in {"get_attr", "call_module"}:
                path, node.target = str(node.target), f"part{len(parts)}"
                owner, _, name = path.rpartition(".")
                parts[node.target] = getattr(module.get_submodule(owner), name)
        return fx.GraphModule(parts, graph)
    if form == "export":
        (x,), named = arguments(3)
        model = torch.export.export(module, (), {"x": x, **named}, dynamic_shapes=FREE)
    if isinstance(model, ExportedProgram):
        try:
            return model.module()
        except SyntaxError:
            return module
    return model


def dead(model: Any) -> list[str]:
    """The state of a GraphModule that nobody reads."""
    read = [str(node.target) for node in model.graph.nodes if node.op in {"get_attr", "call_module"}]
    return [
        name for name in model.state_dict() if not any(f"{name}.".startswith(f"{path}.") for path in read)
    ]


def main(count: int = 1000, first: int = 0) -> int:
    """Try modules; exit status 1 if one fails."""
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)  # the tensors are small
    wrong = skipped = removed = 0
    for seed in range(first, first + count):
        try:
            gone = check(seed)
        except Exception as error:  # noqa: BLE001  the other modules are worth trying
            wrong += 1
            print(f"seed {seed}: {type(error).__name__}: {str(error).strip()[:300]}", flush=True)
            continue
        skipped += gone is None
        removed += gone or 0
    print(f"{count} modules, {skipped} that torch cannot capture, {removed} nodes removed, {wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))

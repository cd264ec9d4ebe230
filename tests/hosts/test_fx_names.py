"""Paths are found however many are taken, and every key of a ModuleDict can be read and written."""

import pickle
from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.export import ExportedProgram

import fuser
from fuser.hosts.torch.names import Paths, is_spelled, node_name, respelled, spelled
from tests.hosts.fx_models import FORMS, call, callable_of, captured, error, generic, optimize

parts = st.sampled_from(["a", "b", "0", "1", "a_1", "a_1_1", "in", "weight"])
paths = st.lists(parts, min_size=1, max_size=4).map(".".join)
texts = st.text(min_size=1, max_size=6).filter(lambda text: "." not in text)


def inside(path: str, other: str) -> bool:
    return f"{other}.".startswith(f"{path}.") or f"{path}.".startswith(f"{other}.")


@given(st.lists(paths, max_size=30), st.sampled_from([1, 2]))
def test_fresh_paths_are_neither_taken_nor_inside_or_around_others(names: list[str], numbered: int) -> None:
    made = Paths()
    found = [made.fresh(name, numbered) for name in names]
    assert len(set(found)) == len(found)
    assert not any(inside(a, b) for i, a in enumerate(found) for b in found[:i])


def test_fresh_paths_are_the_names_where_those_are_free() -> None:
    made = Paths(["block.conv", "head.weight"])
    assert made.fresh("block.norm") == "block.norm"
    assert made.fresh("block.conv") == "block.conv_1"
    assert made.fresh("block.conv.computed") == "block.conv_2.computed"
    assert made.fresh("head.weight", 2) == "head_1.weight"


def test_thousands_of_equal_names_do_not_take_long() -> None:
    made = Paths(["fused"])
    assert len({made.fresh("fused.scale.computed") for _ in range(20000)}) == 20000


@given(st.sets(texts, min_size=1, max_size=8))
def test_torch_can_read_and_write_what_is_respelled(keys: set[str]) -> None:
    names = respelled(f"parts.{key}.weight" for key in keys)
    kept = {f"parts.{key}.weight" for key in keys} - set(names)
    assert len(kept | set(names.values())) == len(keys)
    graph = torch.fx.Graph()
    root = {path: torch.full((1,), float(i)) for i, path in enumerate(sorted(kept | set(names.values())))}
    graph.output([graph.create_node("get_attr", path, name=node_name(path)) for path in root])
    found = torch.fx.GraphModule(root, graph)()
    assert [float(tensor) for tensor in found] == [float(i) for i in range(len(root))]


@given(texts)
def test_what_can_be_spelled_stays(text: str) -> None:
    assert is_spelled(spelled(text))
    assert spelled(text) == text or not is_spelled(text)


KEYS = [
    "in",
    "None",
    "class",
    "a b",
    'q"',
    "x-y",
    "\\",
    "0",
    "print",
    "torch",
    "self",
    "ﬁ",
    "é",
    "__class__x",
]


class Net(nn.Module):
    """A norm behind a convolution under each key, and another one alone."""

    def __init__(self, keys: list[str]) -> None:
        super().__init__()
        layers = {key: nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.ReLU()) for key in keys}
        self.parts = nn.ModuleDict({**layers, "in_": nn.Sequential(nn.Conv2d(3, 3, 1), nn.Sigmoid())})

    def forward(self, x: Tensor) -> Tensor:
        for part in self.parts.values():
            x = part(x)
        return x


@pytest.mark.parametrize("form", FORMS)
def test_layers_of_any_name_are_fused_and_survive(form: str) -> None:
    module = generic(Net(KEYS))
    x = torch.randn(2, 3, 4, 5)
    before = sorted(module.state_dict())
    example = None if form == "symbolic" else (x,)
    source = captured(module, x, form) if form in {"program", "decomposed"} else module
    result = fuser.optimize(source, None if isinstance(source, ExportedProgram) else example)
    expected = call(module, x)
    assert error(call(callable_of(result), x), expected) < 1e-6
    assert error(call(callable_of(deepcopy(result)), x), expected) < 1e-6
    assert sorted(module.state_dict()) == before
    state = result.state_dict if isinstance(result, ExportedProgram) else result.state_dict()
    assert len(state) == 2 * (len(KEYS) + 1)
    if form == "symbolic":
        assert error(call(pickle.loads(pickle.dumps(result)), x), expected) < 1e-6
    if form in {"symbolic", "export"}:
        fresh = deepcopy(result)
        with torch.no_grad():
            for parameter in fresh.parameters():
                parameter.zero_()
        fresh.load_state_dict(result.state_dict())
        assert error(call(fresh, x), expected) < 1e-6
        again = torch.export.export(result, (x,)).module()
        assert error(call(again, x), expected) < 1e-6


def test_programs_with_such_names_are_verified() -> None:
    x = torch.randn(2, 3, 4, 5)
    program = torch.export.export(generic(Net(["in", 'q"'])), (x,))
    assert fuser.verify(program, fuser.optimize(program)).ok


class Computed(nn.Module):
    """Constants computed in a block, named after it as its layer is."""

    def __init__(self) -> None:
        super().__init__()
        shapes = {"w": (3, 3, 1, 1), "a": (3, 1, 1), "b": (3, 1, 1)}
        for name, shape in shapes.items():
            setattr(self, name, nn.Parameter(torch.randn(shape)))

    def forward(self, x: Tensor) -> Tensor:
        return torch.atan2(F.conv2d(x, self.w * 2) * 3, self.a + self.b)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_constants_below_layers_of_their_names(depth: int, form: str) -> None:
    module: nn.Module = Computed()
    for _ in range(depth):
        module = nn.Sequential(module, Computed())
    x = torch.randn(2, 3, 4, 5)
    outcome = optimize(captured(module.eval(), x, form))
    assert error(call(outcome.call, x), call(module, x)) < 1e-5


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("method", ["double", "half", "float", "to", "type", "requires_grad_"])
def test_constants_that_methods_compute_which_modules_have_too(method: str, form: str) -> None:
    """Such a constant lies below the name of its node, which is that of the method."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.randn(3, 3), requires_grad=False)

        def forward(self, x: Tensor) -> Tensor:
            arguments = (torch.float64,) if method in {"to", "type"} else ()
            weight = getattr(self.w, method)(*arguments)
            return torch.relu(F.linear(x, weight.to(torch.float32) * 2.0) * 3.0)

    module, x = Net().eval(), torch.randn(2, 3)
    outcome = optimize(captured(module, x, form))
    assert error(call(outcome.call, x), call(module, x)) < 1e-6
    assert error(call(deepcopy(outcome.call), x), call(module, x)) < 1e-6

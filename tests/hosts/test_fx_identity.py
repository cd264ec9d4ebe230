"""Nothing is taken for an operator of torch because of what it is called."""

import operator
from collections.abc import Callable
from copy import deepcopy
from functools import partial, wraps
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from fuser.hosts.torch.functions import KINDS, RULES, read
from fuser.hosts.torch.identity import functions, is_tensor, name_of, title
from fuser.hosts.torch.own import OPERATORS
from tests.fx_grown import Conv2d, Identity, box, own
from tests.hosts.fx_models import call, captured, error, generic, optimize

fx.wrap("box")

NAMES = sorted({*RULES, *KINDS, *(kind for kind in OPERATORS if kind.islower())})


def namesake(name: str) -> Callable[..., Any]:
    """A function that has nothing of an operator but its name."""

    def function(x: Any, *args: Any) -> Any:
        del args
        return x.cos()

    function.__name__ = function.__qualname__ = name
    return function


def between(target: Callable[..., Any], *args: Any) -> fx.GraphModule:
    """A convolution, a function, and a norm that must not be folded through it."""
    parts = generic(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)))
    graph = fx.Graph()
    y = graph.call_module("0", (graph.placeholder("x"),))
    graph.output(graph.call_module("1", (graph.call_function(target, (y, *args)),)))
    return fx.GraphModule(parts, graph)


@pytest.mark.parametrize("name", NAMES)
def test_a_function_of_that_name_is_not_the_operator(name: str) -> None:
    module = between(namesake(name))
    x = torch.randn(2, 3, 5, 4)
    outcome = optimize(module, x)
    assert isinstance(outcome.result.get_submodule("1"), nn.BatchNorm2d)
    assert error(call(outcome.result, x), call(module, x)) == 0


@pytest.mark.parametrize("name", ["relu", "add", "mul", "batch_norm", "dropout"])
def test_a_wrapper_with_name_and_module_of_torch_is_not_the_operator(name: str) -> None:
    inner = getattr(torch, name, None) or getattr(F, name)

    @wraps(inner)
    def wrapper(x: Tensor) -> Tensor:
        return x.cos()

    wrapper.__module__ = "torch.nn.functional"
    node = next(node for node in between(wrapper).graph.nodes if node.op == "call_function")
    assert name_of(node) == ""


def test_a_function_put_in_the_place_of_one_of_torch_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    functions.cache_clear()
    user = namesake("gelu")
    monkeypatch.setattr(F, "gelu", user)
    monkeypatch.setattr(F, "silu", F.relu)
    try:
        assert user not in functions()
        assert functions()[F.silu] == "relu"
    finally:
        functions.cache_clear()


@pytest.mark.parametrize("target", [own.mul, own.mul.default], ids=["packet", "overload"])
def test_an_operator_of_another_library_is_not_atens(target: Any) -> None:
    module = between(target, 2.0)
    x = torch.randn(2, 3, 5, 4)
    outcome = optimize(module, x)
    assert isinstance(outcome.result.get_submodule("1"), nn.BatchNorm2d)
    assert error(call(outcome.result, x), call(module, x)) == 0


@pytest.mark.parametrize("form", ["export", "program", "decomposed"])
def test_an_operator_of_another_library_is_not_atens_in_a_program(form: str) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(own.mul(self.conv(x), 2.0))

    module = generic(Net())
    x = torch.randn(2, 3, 5, 4)
    outcome = optimize(captured(module, x, form))
    assert outcome.layers["BatchNorm"] == 1
    assert error(call(outcome.call, x), call(module, x)) < 1e-6


def namespaced() -> list[Any]:
    """Overloads of aten that are none of tensors, or write what they are given to write to."""
    aten = torch.ops.aten
    return [aten.add.out, aten.mul.int, aten.add.t, aten.slice.t, aten.relu.out, aten.sub.float]


@pytest.mark.parametrize("target", namespaced(), ids=str)
def test_overloads_that_are_none_of_tensors_are_unknown(target: Any) -> None:
    graph = fx.Graph()
    node = graph.call_function(target, (graph.placeholder("x"),))
    assert name_of(node) == ""
    assert read(node).kind not in NAMES


def test_arguments_that_no_signature_has_leave_the_node_alone() -> None:
    graph = fx.Graph()
    x = graph.placeholder("x")
    node = graph.call_function(torch.add, (x, x), {"out": x})
    assert read(node).kind == "torch::add"
    assert read(node).call.attributes == {}


def test_operands_by_name_have_no_place() -> None:
    graph = fx.Graph()
    x, c, y = (graph.placeholder(name) for name in "xcy")
    node = graph.call_function(torch.where, (), {"input": x, "condition": c, "other": y})
    assert read(node).kind == "torch::where"


def test_titles_name_where_things_are_from() -> None:
    assert title(own.mul.default) == "graph_fuser_fuzz::mul"
    assert title(torch.atan2) == title(torch.ops.aten.atan2.default) == "torch::atan2"
    assert title(nn.LSTM) == "torch::LSTM"
    assert title(Conv2d) == "tests.fx_grown::Conv2d"


class Boxes(nn.Module):
    """Methods of an object of the user's, called as those of tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 4, 1), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = box(self.conv(x)).mul(2.0).contiguous()
        return self.linear(y)


def test_methods_of_what_is_no_tensor_are_unknown() -> None:
    module = generic(Boxes())
    x = torch.randn(2, 3, 5, 4)
    source = fx.symbolic_trace(module)
    names = {str(node.target): name_of(node) for node in source.graph.nodes if node.op == "call_method"}
    assert names == {"mul": "", "contiguous": ""}
    assert error(call(optimize(source).result, x), call(module, x)) < 1e-6


def test_what_makes_tensors() -> None:
    graph = fx.Graph()
    x = graph.placeholder("x")
    annotated = graph.placeholder("n", type_expr=int)
    shape = graph.call_function(getattr, (x, "shape"))
    parts = graph.call_method("chunk", (x, 2))
    part = graph.call_function(torch.add, (graph.call_function(operator.getitem, (parts, 0)), 1))
    made = [x, parts, part, graph.call_method("view", (part, -1)), graph.call_function(getattr, (x, "T"))]
    others = [annotated, shape, graph.call_method("size", (x,)), graph.call_function(box, (x,))]
    others.append(graph.call_method("mul", (others[-1], 2)))
    assert all(map(is_tensor, made))
    assert not any(map(is_tensor, others))


def test_a_long_chain_of_methods_is_walked_once() -> None:
    graph = fx.Graph()
    node = graph.placeholder("x")
    for _ in range(5000):
        node = graph.call_method("add", (node, 1))
    assert is_tensor(node)


class Leaves(fx.Tracer):
    """Every module is a leaf, the user's too."""

    def is_leaf_module(self, m: nn.Module, _: str) -> bool:
        return not isinstance(m, nn.Sequential)


def bound() -> nn.Module:
    layer = nn.Conv2d(4, 4, 1)
    layer.forward = partial(_negated, layer)
    return layer


def _negated(layer: nn.Conv2d, x: Tensor) -> Tensor:
    return -layer._conv_forward(x, layer.weight, layer.bias)


def hooked(layer: nn.Module, *, before: bool = False) -> nn.Module:
    if before:
        layer.register_forward_pre_hook(lambda *given: (given[-1][0] + 1,))
    else:
        layer.register_forward_hook(lambda *given: given[-1].cos())
    return layer


class ReLU(nn.ReLU):
    """Another forward."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sin()


OTHERS: dict[str, Callable[[], nn.Module]] = {
    "subclass": lambda: Conv2d(4, 4, 1),
    "identity": Identity,
    "unary": ReLU,
    "bound": bound,
    "hook": lambda: hooked(nn.Conv2d(4, 4, 1)),
    "pre_hook": lambda: hooked(nn.Conv2d(4, 4, 1), before=True),
    "unary_hook": lambda: hooked(nn.ReLU()),
    "identity_hook": lambda: hooked(nn.Identity()),
    "dropout_hook": lambda: hooked(nn.Dropout(), before=True),
    "norm_hook": lambda: hooked(nn.BatchNorm2d(4)),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_module_that_computes_something_else_stays(name: str) -> None:
    module = generic(
        nn.Sequential(
            nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), OTHERS[name](), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)
        )
    )
    x = torch.randn(2, 3, 6, 5)
    source = fx.GraphModule(module, Leaves().trace(module))
    outcome = optimize(source, x)
    assert error(call(outcome.result, x), call(module, x)) < 1e-6
    assert outcome.applied.count("fold_batch_norm") == 2
    assert type(outcome.result.get_submodule("2")) is type(module[2])


@pytest.mark.parametrize("draw", [torch.rand_like, torch.bernoulli, torch.poisson], ids=lambda f: f.__name__)
def test_random_numbers_are_drawn_in_every_call(draw: Any) -> None:
    class Noise(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)
            self.register_buffer("level", torch.full((4, 1, 1), 0.5))

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x) * draw(self.level.expand(4, 1, 1))

    x = torch.randn(2, 3, 5, 4)
    result = optimize(captured(Noise().eval(), x, "symbolic")).result
    torch.manual_seed(0)
    drawn = {float(call(result, x).sum()) for _ in range(8)}
    assert len(drawn) > 1


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor", "ignore:.*deprecated")
def test_quantized_layers_are_left_with_a_reason() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
            self.linear = torch.ao.nn.quantized.dynamic.Linear(5, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(self.norm(self.conv(x)))

    module = Net().eval()
    x = torch.randn(2, 3, 6, 5)
    outcome = optimize(captured(module, x, "symbolic"))
    assert outcome.layers == {"Conv": 1, "Linear": 1}
    assert "computes with quantized values" in outcome.reasons
    assert error(call(outcome.result, x), call(deepcopy(module), x)) < 1e-2

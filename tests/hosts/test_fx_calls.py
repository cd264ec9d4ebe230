"""However a call is written in torch, it is the same operator of the standard with the same attributes."""

import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from fuser.hosts.operators.call import INT_MAX, Held
from fuser.hosts.operators.catalogue import OPERATORS as CATALOGUE
from fuser.hosts.torch.arguments import signatures
from fuser.hosts.torch.call import Bound
from fuser.hosts.torch.functions import RULES, read
from fuser.hosts.torch.graph_module import copied, read_tensors
from fuser.hosts.torch.identity import name_of
from fuser.hosts.torch.importer import import_fx
from fuser.hosts.torch.modules import read_module
from fuser.hosts.torch.own import OPERATORS
from fuser.ir.node import Node
from fuser.ir.ops import Opaque
from tests.hosts.fx_models import Net

aten = torch.ops.aten


def bound(forward: Callable[[Any, Tensor], Any], **parts: nn.Module) -> Bound:
    """The last call of a function, as a trace has it."""
    module = fx.symbolic_trace(Net(forward, **parts))
    node = [node for node in module.graph.nodes if node.op.startswith("call")][-1]
    if node.op == "call_module":
        return read_module(node, module.get_submodule(str(node.target)))
    return read(node)


def nodes(forward: Callable[[Any, Tensor], Any], **parts: nn.Module) -> list[Node]:
    """The graph of passes of a function, traced without inputs."""
    module = fx.symbolic_trace(Net(forward, **parts).eval())
    return import_fx(copied(module.graph), module, read_tensors(module.graph, module)).ordered()


WINDOW = {"kernel_shape": (3, 2), "strides": (2, 1), "pads": (1, 0, 1, 0), "ceil_mode": False}
SAME: dict[str, tuple[dict[str, Any], list[Callable[[Any, Tensor], Any]]]] = {
    "MaxPool": (
        WINDOW | {"dilations": (1, 1)},
        [
            lambda _, x: F.max_pool2d(x, (3, 2), (2, 1), (1, 0)),
            lambda _, x: torch.max_pool2d(x, [3, 2], stride=[2, 1], padding=[1, 0]),
            lambda _, x: aten.max_pool2d_with_indices(x, [3, 2], [2, 1], [1, 0]),
            lambda m, x: m.pool(x),
        ],
    ),
    "AveragePool": (
        WINDOW | {"count_include_pad": True},
        [
            lambda _, x: F.avg_pool2d(x, (3, 2), (2, 1), (1, 0)),
            lambda _, x: F.avg_pool2d(input=x, kernel_size=(3, 2), padding=(1, 0), stride=(2, 1)),
            lambda _, x: aten.avg_pool2d.default(x, [3, 2], [2, 1], [1, 0], False, True),
        ],
    ),
    "Pad": (
        {"pads": (1, 3, 2, 4), "axes": (-1, -2), "mode": "constant", "value": 0.0},
        [
            lambda _, x: F.pad(x, (1, 2, 3, 4)),
            lambda _, x: F.pad(x, [1, 2, 3, 4], "constant", 0.0),
            lambda _, x: aten.constant_pad_nd(x, [1, 2, 3, 4]),
            lambda m, x: m.pad(x),
        ],
    ),
    "Slice": (
        {"starts": (1,), "ends": (INT_MAX,), "axes": (-1,), "steps": (2,)},
        [
            lambda _, x: x[..., 1::2],
            lambda _, x: aten.slice(x, -1, 1, None, 2),
            lambda _, x: aten.slice.Tensor(x, dim=-1, start=1, step=2),
        ],
    ),
    "Transpose": (
        {"perm": (0, 2, 1)},
        [
            lambda _, x: x.permute(0, 2, 1),
            lambda _, x: x.permute((0, 2, 1)),
            lambda _, x: torch.permute(x, (0, 2, 1)),
            lambda _, x: aten.permute.default(x, [0, 2, 1]),
        ],
    ),
    "Reshape": (
        {"shape": (2, -1), "allowzero": 1},
        [
            lambda _, x: x.view(2, -1),
            lambda _, x: x.reshape([2, -1]),
            lambda _, x: torch.reshape(x, (2, -1)),
            lambda _, x: aten._unsafe_view(x, [2, -1]),
        ],
    ),
    "Concat": (
        {"axis": 1},
        [
            lambda _, x: torch.cat([x, x], 1),
            lambda _, x: torch.concat((x, x), dim=1),
            lambda _, x: torch.cat([x, x], axis=1),
        ],
    ),
    "ReduceMean": (
        {"axes": (2, 3), "keepdims": True},
        [
            lambda _, x: x.mean((2, 3), True),
            lambda _, x: torch.mean(x, dim=[2, 3], keepdim=True),
            lambda _, x: aten.mean.dim(x, [2, 3], True),
        ],
    ),
    "Sub": (
        {"alpha": 2},
        [
            lambda _, x: torch.sub(x, x, alpha=2),
            lambda _, x: x.sub(x, alpha=2),
            lambda _, x: aten.sub.Tensor(x, x, alpha=2),
        ],
    ),
    "BatchNormalization": (
        {"epsilon": 0.5, "training_mode": False},
        [
            lambda _, x: F.batch_norm(x, x, x, x, x, False, 0.1, 0.5),
            lambda _, x: torch.batch_norm(x, x, x, x, x, False, 0.1, 0.5, True),
            lambda _, x: aten._native_batch_norm_legit_no_training(x, x, x, x, x, 0.1, 0.5),
        ],
    ),
}
PARTS = {"pool": nn.MaxPool2d((3, 2), (2, 1), (1, 0)), "pad": nn.ZeroPad2d((1, 2, 3, 4))}


@pytest.mark.parametrize(
    ("kind", "form"), [(kind, form) for kind, (_, forms) in SAME.items() for form in range(len(forms))]
)
def test_all_ways_of_writing_a_call_are_the_same_call(kind: str, form: int) -> None:
    attributes, forms = SAME[kind]
    found = bound(forms[form], **PARTS)
    assert (found.kind, dict(found.call.attributes), found.known) == (kind, attributes, True)


PYTHON = {
    "floordiv": operator.floordiv,
    "getattr": getattr,
    "getitem": operator.getitem,
    "identity": aten.alias,
    "inference_batch_norm": aten._native_batch_norm_legit_no_training,
    "interpolate": F.interpolate,
}
"""What has another name than the rule, or none in aten."""


@pytest.mark.parametrize("name", sorted(RULES))
def test_torch_itself_has_a_signature_for_every_rule(name: str) -> None:
    graph = fx.Graph()
    x = graph.placeholder("x")
    target = PYTHON.get(name) or getattr(aten, name)
    node = graph.call_function(target, (x,))
    first = {next(iter(signature.parameters)) for signature in signatures(target, name_of(node))}
    assert first
    assert first <= {"input", "tensors"}


@pytest.mark.parametrize("kind", OPERATORS)
def test_a_kind_is_the_standards_or_torchs_own(kind: str) -> None:
    assert kind.islower() or kind in CATALOGUE or kind in {"AdaptiveAveragePool", "AdaptiveMaxPool", "Linear"}


def test_what_the_graph_computes_of_a_shape_is_held() -> None:
    def forward(_: Any, x: Tensor) -> Tensor:
        batch = x.shape[0]
        return x.view(batch, 3, x.size(2) * 2, batch)

    found = bound(forward)
    assert found.call.attributes["shape"] == (Held(1), 3, Held(2), Held(1))
    assert [operand.name for operand in found.operands if isinstance(operand, fx.Node)] == [
        "x",
        "getitem",
        "mul",
    ]


def test_a_shape_of_another_tensor_is_that() -> None:
    *_, made, _ = nodes(lambda m, x: (m.conv(x) + 1).reshape(m.conv(x).shape), conv=nn.Conv2d(3, 4, 3, 2))
    assert made.outputs[0].shape == ("x_0", 4, "(x_2 - 1)//2", "(x_3 - 1)//2")


def test_some_extents_of_a_tensor_are_those() -> None:
    conv = nn.Conv2d(3, 3, 1)
    *_, made, _ = nodes(lambda m, x: F.interpolate(m.conv(x), x.shape[2:]), conv=conv)
    assert made.outputs[0].shape == ("x_0", 3, "x_2", "x_3")


@pytest.mark.parametrize(
    ("forward", "numbers", "axes"),
    [
        (lambda _, x: x.select(2, 5), {5}, (2,)),
        (lambda _, x: torch.narrow(x, 3, 1, 4), {1, 5}, (3,)),
        (lambda _, x: x[:, :, :4], {0, 4}, (2,)),
        (lambda _, x: x.chunk(3, 1), {3}, (1,)),
        (lambda _, x: torch.roll(x, 2, 3), {2, 3}, None),
        (lambda _, x: torch.narrow(x, 3, x.shape[3] - 4, 4), {3, 4}, None),
        (lambda _, x: x[:, :, x.shape[2] - 4 :], set(), None),
        (lambda _, x: x.split(x.shape[1], 1), {1}, None),
    ],
)
def test_numbers_act_where_they_are_meant(
    forward: Callable[[Any, Tensor], Any], numbers: set[int], axes: tuple[int, ...] | None
) -> None:
    op = nodes(forward)[-2].op
    assert isinstance(op, Opaque)
    literals = op.literals([None])
    assert numbers <= set(literals.numbers)
    assert literals.axes == axes

"""Calls that torch has in more forms than ours are not lifted, with a reason."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from fuser.errors import Declined
from fuser.hosts.torch.call import call as called
from fuser.hosts.torch.evaluate import evaluator
from fuser.hosts.torch.functions import read
from fuser.hosts.torch.importer import import_fx
from fuser.ir.node import Node
from fuser.ir.ops import Opaque
from fuser.ir.provenance import Provenance
from fuser.recognise.lifting import Lifting
from tests.hosts.fx_models import Net, call, captured, optimize

IMAGE = (2, 6, 9, 8)


def described(shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
    """A tensor without numbers, as the tracer describes one; as an argument, an input of the graph."""
    return torch.empty(tuple(shape), dtype=dtype, device="meta")


X = described(IMAGE)


def imported(
    target: Callable[..., Any],
    *args: Any,
    makes: torch.dtype | None = torch.float32,
    examples: Sequence[Tensor] = (),
    **kwargs: Any,
) -> Node:
    """The node of a call, whether torch would run it or not.

    Of the arguments, described tensors are inputs and other tensors constants; for `...` there is an input of
    which the graph tells nothing. `makes` is the element type of the result, if it is described.
    """
    graph = fx.Graph()
    stored: dict[fx.Node, tuple[str, Tensor]] = {}

    def node(argument: Any) -> Any:
        if argument is ... or (isinstance(argument, Tensor) and argument.is_meta):
            made = graph.placeholder(f"x{len(graph.nodes)}")
            if argument is not ...:
                made.meta["val"] = argument
            return made
        if isinstance(argument, Tensor):
            made = graph.get_attr(f"c{len(graph.nodes)}")
            stored[made] = str(made.target), argument
            return made
        return argument

    made = graph.call_function(target, tuple(map(node, args)), kwargs)
    if makes is not None and ... not in [a for a in args if not isinstance(a, Tensor)]:
        first = next(a for a in args if isinstance(a, Tensor) and a.is_meta)
        made.meta["val"] = described(first.shape, makes)
    graph.output(made)
    found = import_fx(graph, nn.Module(), stored, examples=examples)
    return next(iter(found.nodes))


def lift(node: Node) -> Any:
    assert isinstance(node.op, Opaque)
    assert node.op.lift is not None
    return Lifting(Provenance()).by_meaning(node)


def refuse(reason: str, target: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return pytest.param(reason, target, args, kwargs, id=f"{target.__name__}: {reason[:40]}")


W, ONE = torch.ones(6, 6, 3, 3), torch.ones(6)
NAN = torch.full((6,), torch.nan)
ROWS, MATRIX = described((4, 10)), torch.ones(10, 5)


@pytest.mark.filterwarnings("ignore:(overflow|invalid value):RuntimeWarning")  # numpy's, of infinite numbers
@pytest.mark.parametrize(
    ("reason", "target", "args", "kwargs"),
    [
        refuse("the element type of 'x0' is not known", torch.neg, ...),
        refuse("the element type changes from float32 to float64", torch.mul, X, torch.ones(6, 1, 1),
               makes=torch.float64),
        refuse("the weight has shape (6, 6)", F.conv2d, X, W[..., 0, 0]),
        refuse("the weight has an empty axis: (0, 6, 3, 3)", F.conv2d, X, W[:0]),
        refuse("ranks differ: 'x0' has shape (6, 9, 8), the weight (6, 6, 3, 3)", F.conv2d, X[0], W),
        refuse("channels differ: 'x0' has 6, the operator reads 12", F.conv2d, X, W, groups=2),
        refuse("4 input channels do not divide into 3 groups", F.conv_transpose2d, X[:, :4], W[:4], groups=3),
        refuse("padding is 'same' with stride (2, 2)", F.conv2d, X, W, stride=2, padding="same"),
        refuse("the bias has shape (3,) for 6 output channels", F.conv2d, X, W, ONE[:3]),
        refuse("(1.5,) are not all numbers", F.conv2d, X, W, stride=1.5),
        refuse("(1, 1, 1) for 2 spatial axes", F.conv2d, X, W, stride=(1, 1, 1)),
        refuse("input 1 is absent", F.conv2d, X, None),
        refuse("the weight 'x1' is not a constant", F.conv2d, X, described(W.shape)),
        refuse("the bias 'c2' holds nan", F.conv2d, X, W, NAN),
        refuse("training_mode is 1: the statistics are those of the batch", F.batch_norm, X, None, None,
               training=True),
        refuse("there are no running statistics: those of the batch are used", F.batch_norm, X, None, None),
        refuse("'x0' has 1 axis, and no channel axis", F.batch_norm, X[0, :, 0, 0], ONE, ONE),
        refuse("channels differ: 'x0' has 6, the operator reads 3", F.batch_norm, X, ONE[:3], ONE[:3]),
        refuse("the weight has shape (10,), and not two axes", F.linear, ROWS, torch.ones(10)),
        refuse("'x0' has one axis, and a linear layer needs two", F.linear, ROWS[0], torch.ones(5, 10)),
        refuse("channels differ: 'x0' has 10, the operator reads 5", F.linear, ROWS, MATRIX),
        refuse("the weight has an empty axis: (10, 0)", torch.matmul, ROWS, MATRIX[:, :0]),
        refuse("'x0' has one axis, and a linear layer needs two", torch.matmul, ROWS[0], MATRIX),
        refuse("the weight has shape (10,), and not two axes", torch.addmm, ONE, ROWS, torch.ones(10)),
        refuse("the addend has shape (4, 1), and differs from row to row of 5", torch.addmm,
               torch.ones(4, 1), ROWS, MATRIX),
        refuse("alpha is not a number: 1j", torch.add, X, X, alpha=1j),
        refuse("shapes are not known to be equal: (2, 6, 9, 8) of 'x0' and (6, 9, 8) of 'x1'", torch.add,
               X, X[0]),
        refuse("element types differ: float32 and float16", torch.add, X, X.half()),
        refuse("rounding_mode is 'floor'", torch.div, X, 2.0, rounding_mode="floor"),
        refuse("'c1' holds 0, which cannot divide", torch.div, X, torch.zeros(6, 1, 1)),
        refuse("inf x + 0 is not finite", torch.div, X, 5e-324),
        refuse("1 x + inf is not finite", torch.add, X, 1e200, alpha=1e200),
        refuse("inf x + 0 is not finite", torch.div, X,
               torch.tensor([1.0, 5e-324], dtype=torch.float64).repeat(3).view(6, 1, 1)),
        refuse("the constant of shape (3, 1, 1) does not fit into 'x0', (2, 6, 9, 8)", torch.mul, X,
               torch.ones(3, 1, 1)),
        refuse("the constant of shape (2, 2, 6, 9, 8) has more axes than 'x0'", torch.mul, X,
               torch.ones(2, *IMAGE)),
        refuse("the constant is empty: (0,)", torch.mul, X[..., :0], ONE[:0]),
        refuse("the constant of shape (2, 1, 1, 1) is not one value per channel of 'x0'", torch.mul, X,
               torch.arange(2.0).view(2, 1, 1, 1)),
        refuse("mode is 'reflect', not 'constant'", F.pad, X, [1, 1], mode="reflect"),
        refuse("pads are not numbers: [1, 0.5]", F.pad, X, [1, 0.5]),
        refuse("pads are not numbers: 1", F.pad, X, 1),
        refuse("'x0' has 2 axes, and none of them is spatial", F.pad, ROWS, [1, 1]),
        refuse("pads the batch or channel axis: (0, 0, 0, 0, 0, 1, 0, 0)", F.pad, X, [0, 0, 0, 0, 0, 1]),
        refuse("the value is -inf", F.pad, X, [1, 1], value=float("-inf")),
        refuse("kernel_shape is (2, 2) for 'x0' of (6, 9, 8)", F.avg_pool2d, X[0], 2),
        refuse("count_include_pad is 0 with pads (1, 1, 1, 1)", F.avg_pool2d, X, 2, padding=1,
               count_include_pad=False),
        refuse("divisor_override is 3", F.avg_pool2d, X, 2, divisor_override=3),
        refuse("ceil_mode is 1, and windows may be cut off: extent (9, 8), stride (2, 2)", F.avg_pool2d, X,
               2, ceil_mode=True),
        refuse("training_mode is true", F.dropout, X),
    ],
)  # fmt: skip
def test_refusals(
    reason: str, target: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    with pytest.raises(Declined) as declined:
        lift(imported(target, *args, **kwargs))
    assert reason in str(declined.value)


@pytest.mark.parametrize(
    ("target", "args"), [(F.pad, ([1, 1],)), (F.avg_pool2d, (2,))], ids=["pad", "average_pool"]
)
def test_what_is_as_wide_as_its_input_needs_to_know_how_wide(
    target: Callable[..., Any], args: tuple[Any, ...]
) -> None:
    node = imported(target, ..., *args, examples=[torch.empty(IMAGE)])
    with pytest.raises(Declined, match="the number of channels of 'x0' is not known"):
        lift(node)


@pytest.mark.parametrize("kind", [torch.mul, F.pad])
def test_what_depends_on_the_number_of_axes_needs_to_know_it(kind: Callable[..., Any]) -> None:
    node = imported(kind, ..., [1, 1] if kind is F.pad else torch.arange(6.0))
    assert node.inputs[0] is not None
    node.inputs[0].dtype = node.outputs[0].dtype = "float32"
    with pytest.raises(Declined, match="the rank of 'x0' is not known"):
        lift(node)


def functional(function: Callable[[Any, Tensor], Tensor], **parts: Tensor) -> nn.Module:
    norm = nn.BatchNorm2d(6)
    nn.init.uniform_(norm.running_mean)
    return Net(function, norm=norm, **{name: nn.Parameter(part) for name, part in parts.items()}).eval()


@pytest.mark.parametrize(
    "function",
    [
        lambda m, x: F.batch_norm(m.norm(x), None, None, training=True),
        lambda m, x: m.norm(F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)),
        lambda m, x: m.norm(F.avg_pool2d(x, 2, divisor_override=3)),
        lambda m, x: m.norm(F.avg_pool2d(x, 2, ceil_mode=True)),
        lambda m, x: m.norm(F.pad(x, (1, 1, 0, 0), mode="reflect")),
        lambda m, x: m.norm(F.pad(x, (0, 0, 0, 0, 1, -1))),
        lambda m, x: torch.div(m.norm(x), m.scale, rounding_mode="floor"),
        lambda m, x: m.norm(x) * m.rows,
        lambda m, x: m.norm(x) + m.norm(x)[:1],
        lambda m, x: m.norm(x) * m.precise,
    ],
)
@pytest.mark.parametrize("form", ["symbolic", "export"])
def test_what_is_refused_computes_what_it_did(function: Callable[[Any, Tensor], Tensor], form: str) -> None:
    constants = {"scale": torch.rand(6, 1, 1) + 0.5, "rows": torch.rand(2, 1, 1, 1)}
    module = functional(function, **constants, precise=torch.rand(6, 1, 1, dtype=torch.float64))
    x = torch.randn(IMAGE)
    outcome = optimize(captured(module, x, form), x)
    found, expected = call(outcome.call, x), call(module, x)
    assert found.dtype == expected.dtype
    torch.testing.assert_close(found, expected)


def test_an_operand_of_the_wrong_type_is_named() -> None:
    graph = fx.Graph()
    x = graph.placeholder("x")
    evaluate = evaluator(node := graph.call_function(torch.relu, (x,)), read(node), None)
    assert evaluate is not None
    with pytest.raises(ValueError, match="relu cannot be evaluated"):
        evaluate(np.array([True]))


def test_a_result_that_is_no_array_is_named() -> None:
    graph = fx.Graph()
    x = graph.placeholder("x")
    evaluate = evaluator(graph.call_method("type", (x,)), called("type", x), None)
    assert evaluate is not None
    with pytest.raises(ValueError, match="returns a str"):
        evaluate(np.zeros(2))


@pytest.mark.parametrize("name", ["half", "double", "float", "bfloat16", "relu"])
def test_a_change_of_type_does_no_more(name: str) -> None:
    module = fx.symbolic_trace(Net(lambda _, x: getattr(x, name)()))
    made = [node.op for node in import_fx(module.graph, module, {}).nodes if node.name.startswith(name)]
    assert [isinstance(op, Opaque) and op.retypes for op in made] == [name != "relu"]

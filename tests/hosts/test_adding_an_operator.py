"""The operator that CONTRIBUTING adds: its text is run as it stands, and what it lifts computes the same."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

import fuser
from fuser.errors import Declined
from fuser.hosts.operators.catalogue import OPERATORS
from tests.hosts.onnx_models import apply, imported, integers, lift, lifted, model_of, only, run, single

GUIDE = Path(__file__).parents[2] / "CONTRIBUTING.md"
SECTION = re.compile(r"^## Adding an operator$.*?^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(autouse=True)
def added(monkeypatch: pytest.MonkeyPatch) -> None:
    found = SECTION.search(GUIDE.read_text())
    assert found is not None
    namespace: dict[str, Any] = {}
    exec(found[1], namespace)  # the text of the guide is what is tested
    assert "Einsum" not in OPERATORS, "the guide needs another example"
    monkeypatch.setitem(OPERATORS, "Einsum", namespace["EINSUM"])


@pytest.mark.parametrize(
    ("equation", "x", "weight"),
    [
        ("bsd,do->bso", (2, 5, 3), (3, 4)),
        ("bsd,od->bso", (2, 5, 3), (4, 3)),
        ("...d,do->...o", (2, 5, 6, 3), (3, 4)),
        (" k i , i j -> k j ", (5, 3), (3, 4)),
    ],
)
@pytest.mark.parametrize("constant_first", [False, True])
def test_a_linear_layer_by_its_equation(
    equation: str, x: tuple[int, ...], weight: tuple[int, ...], *, constant_first: bool
) -> None:
    feeds, inputs = {"x": integers(0, *x)}, ["x", "w"]
    if constant_first:
        operands, result = equation.split("->")
        equation = f"{','.join(reversed(operands.split(',')))}->{result}"
        inputs.reverse()
    model = single("Einsum", inputs, given={"x": x}, constants={"w": integers(1, *weight)}, equation=equation)
    application = lifted(model)
    assert application.label == "linear"
    np.testing.assert_array_equal(apply(application, feeds), run(model, feeds)[0])


@pytest.mark.parametrize(
    ("equation", "x", "weight", "reason"),
    [
        ("bsd,ds->bs", (2, 4, 3), (3, 4), "the equation 'bsd,ds->bs' is no linear layer on the last axis"),
        ("bsd,do->obs", (2, 5, 3), (3, 4), "is no linear layer"),
        ("bsd,so->bdo", (2, 5, 3), (5, 4), "is no linear layer"),
        ("bdd,do->bdo", (2, 3, 3), (3, 4), "is no linear layer"),
        ("bsd,do", (2, 5, 3), (3, 4), "is no linear layer"),
        ("bsd,dko->bsko", (2, 5, 3), (3, 2, 4), "is no linear layer"),
        ("d,do->o", (3,), (3, 4), "'x' has 1 axis, and a linear layer needs two"),
    ],
)
def test_other_equations_decline(
    equation: str, x: tuple[int, ...], weight: tuple[int, ...], reason: str
) -> None:
    constants = {"w": integers(1, *weight)}
    model = single("Einsum", ["x", "w"], given={"x": x}, constants=constants, equation=equation)
    with pytest.raises(Declined) as declined:
        lift(only(imported(model)))
    assert reason in str(declined.value)


@pytest.mark.parametrize(("equation", "inputs"), [("bsd,bdo->bso", ["x", "y"]), ("bsd->bs", ["x"])])
def test_what_has_no_constant_is_none(equation: str, inputs: list[str]) -> None:
    given = {"x": (2, 5, 3), "y": (2, 3, 4)}
    model = single(
        "Einsum", inputs, given={name: given[name] for name in inputs}, outputs=["z"], equation=equation
    )
    assert lift(only(imported(model))) is None


def test_it_merges_with_the_layers_around_it() -> None:
    """Given a record, every pass knows the operator: three layers become one."""
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"]),
        helper.make_node("Einsum", ["h", "w"], ["e"], equation="bsd,od->bso"),
        helper.make_node("Add", ["e", "c"], ["y"]),
    ]
    constants = {"a": integers(0, 6, 3), "w": integers(1, 6, 3), "c": integers(2, 6)}
    model = model_of(nodes, given={"x": ("n", 5, 6)}, constants=constants)
    result = fuser.optimize(model, verify=True)
    assert [node.op_type for node in result.graph.node] == ["MatMul", "Add"]
    feeds = {"x": integers(3, 2, 5, 6)}
    np.testing.assert_allclose(run(result, feeds)[0], run(model, feeds)[0], rtol=1e-6)

"""Every design, exported in each form: what is left of it, and that it still computes the same."""

from dataclasses import dataclass

import onnx
import pytest
from torch import nn

import fuser
from fuser.report.report import Report
from tests.zoo.catalogue import CASES
from tests.zoo.harness import LIMIT, Case, error, evaluate, expected, export, operators, run
from tests.zoo.traps import UNCOUNTED

PARAMETERS = [
    pytest.param((case, exporter), id=f"{case.name}-{exporter}")
    for case in (*CASES, *UNCOUNTED)
    for exporter in case.exporters
]


@dataclass(frozen=True)
class Outcome:
    case: Case
    exporter: str
    module: nn.Module
    source: onnx.ModelProto
    result: onnx.ModelProto
    report: Report


# A fixture with parameters, so that the tests of one export run one after the other and share it.
@pytest.fixture(scope="module", params=PARAMETERS)
def made(request: pytest.FixtureRequest) -> Outcome:
    case: Case
    case, exporter = request.param
    module = case.module()
    source = export(module, case.inputs(), exporter, dynamic=case.dynamic)
    result, report = fuser.optimize(source, return_report=True)
    return Outcome(case, exporter, module, source, result, report)


def test_structure(made: Outcome) -> None:
    if not made.case.after:
        pytest.skip("only the numbers count")
    assert operators(made.result) == dict(sorted(made.case.after.items()))
    reasons = [event.reason for event in made.report.declined]
    assert not made.case.reason or any(made.case.reason in reason for reason in reasons), reasons


def test_numbers(made: Outcome) -> None:
    for grown in (0, 3) if made.case.dynamic else (0,):
        x = made.case.inputs(grown)
        wanted = expected(made.module, x)
        assert error(evaluate(made.result, x), wanted) <= LIMIT


def test_runs(made: Outcome) -> None:
    """The file is valid, and a runtime agrees as far as float32 goes."""
    onnx.checker.check_model(made.result, full_check=True)
    x = made.case.inputs()
    assert error(run(made.result, x), expected(made.module, x)) <= 1e-4


def test_second_run_changes_nothing(made: Outcome) -> None:
    assert operators(fuser.optimize(made.result)) == operators(made.result)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_nothing_is_hidden(case: Case) -> None:
    """Statistics of 0 and 1, and biases of 0, would hide most mistakes."""
    module = case.module()
    for name, buffer in module.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            assert buffer.std() > 0.01, name
    for name, parameter in module.named_parameters():
        assert parameter.numel() == 1 or parameter.std() > 0.01 or case.name == "dead", name


def test_names_are_unique() -> None:
    names = [case.name for case in (*CASES, *UNCOUNTED)]
    assert len(names) == len(set(names))

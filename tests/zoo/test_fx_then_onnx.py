"""What torch's exporter makes of a fused module has nothing left to fuse."""

import pytest

import fuser
from tests.zoo.catalogue import CASES
from tests.zoo.harness import Case, error, expected, export, operators, run

# Two nets, gates, a pool, a token mixer, a chain, a head, low rank, computed weights, a transposed one.
NAMES = (
    "repvgg_net",
    "resnet",
    "mobileone_gated",
    "qarepvgg_pooled",
    "fastvit_mixer",
    "sesr",
    "repvit_head",
    "lora_conv",
    "weight_norm",
    "transposed",
)
LAYERS = ("Conv", "ConvTranspose", "BatchNormalization")
CHOSEN = [case for case in CASES if case.name in NAMES]


@pytest.mark.parametrize("case", CHOSEN, ids=lambda case: case.name)
def test_a_design(case: Case) -> None:
    module, x = case.module(), case.inputs()
    file = export(fuser.optimize(module, (x,)), x, "dynamo")
    result, report = fuser.optimize(file, return_report=True)
    assert [(event.rewrite, event.node) for event in report.applied] == []
    assert operators(result) == operators(file)
    assert [operators(file).get(name) for name in LAYERS] == [case.after.get(name) for name in LAYERS]
    assert error(run(result, x), expected(module, x)) <= 1e-4


def test_all_designs_are_known() -> None:
    assert len(CHOSEN) == len(NAMES)

"""Every design gives through fx what it gives through ONNX: the same operators, and the same numbers."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from tests.hosts.fx_models import Outcome, call, captured, error, optimize
from tests.zoo.catalogue import CASES
from tests.zoo.harness import Case
from tests.zoo.traps import UNCOUNTED

FORMS = ("export", "program")
KINDS = {
    "Conv": "conv",
    "ConvTranspose": "transpose",
    "BatchNormalization": "norm",
    "AveragePool": "avg_pool2d",
    "Gemm": "linear",
    "MatMul": "linear",
}


def made(case: Case, form: str) -> tuple[Outcome, Tensor]:
    module, x = case.module(), case.inputs()
    free = {axis: torch.export.Dim.DYNAMIC for axis in range(x.ndim) if axis != 1}
    if case.dynamic and x.shape[0] == 1:
        x = torch.cat([x, x.flip(-1)])  # an extent of 1 is always taken for fixed
    return optimize(captured(module, x, form, (free,) if case.dynamic else None)), x


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", [*CASES, *UNCOUNTED], ids=lambda case: case.name)
def test_same_as_through_onnx(case: Case, form: str) -> None:
    outcome, x = made(case, form)
    with torch.no_grad():
        wanted = case.module().double()(x.double())
        own = error(precise(call(case.module(), x)), wanted)
    assert error(precise(call(outcome.call, x)), wanted) <= max(1e-5, 2 * own)
    if case.after:
        assert layers(outcome.operators) == layers(case.after)
        assert not case.reason or case.reason in outcome.reasons


def precise(result: Any) -> Any:
    return pytree.tree_map(Tensor.double, result)


def layers(operators: Mapping[str, int]) -> Counter[str]:
    """Layers by kind, whatever the host calls them; what activations are made of differs between hosts."""
    found: Counter[str] = Counter()
    for name, count in operators.items():
        kind = KINDS.get(name, name)
        found[kind] += count * (kind in KINDS.values())
    return +found

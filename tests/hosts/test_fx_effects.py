"""Tensors that are changed in place."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.fx_grown import counted, own
from tests.hosts.fx_models import FORMS, Net, call, callable_of, captured, error, generic, optimize

torch.fx.wrap("counted")


def _parts() -> dict[str, nn.Module]:
    return {"conv": nn.Conv2d(6, 6, 3, padding=1), "norm": nn.BatchNorm2d(6), "after": nn.Conv2d(6, 4, 1)}


def changed_and_read_twice(m: Any, x: Tensor) -> Tensor:
    y = m.norm(m.conv(x))
    z = y + 1.0
    y.relu_()
    return z + y


def changed_through_a_view(m: Any, x: Tensor) -> Tensor:
    y = m.norm(m.conv(x))
    y.view(-1).mul_(2.0)
    return m.after(y)


def changed_input(m: Any, x: Tensor) -> Tensor:
    x.mul_(2.0)
    return m.norm(m.conv(x))


def changed_copy(m: Any, x: Tensor) -> Tensor:
    z = F.relu(x * 1.0, inplace=True)
    return m.conv(z) + m.conv(x)


def changed_behind_identity(m: Any, x: Tensor) -> Tensor:
    y = m.conv(x)
    z = F.relu_(F.dropout(y, training=False))
    return m.after(z) + m.after(y)


def residual(m: Any, x: Tensor) -> Tensor:
    y = m.norm(m.conv(x))
    y += x
    return F.relu(y, inplace=True)


def chained(m: Any, x: Tensor) -> Tensor:
    return m.after(m.norm(m.conv(x)).relu_().mul_(2.0).add_(1.0))


def copied_before(m: Any, x: Tensor) -> Tensor:
    y = m.conv(x)
    z = y.clone()
    y.add_(1.0)
    return m.norm(z) + y


def positional(m: Any, x: Tensor) -> Tensor:
    y = m.norm(m.conv(x))
    z = F.relu(y, True)
    return z + y


CASES: list[Callable[..., Tensor]] = [
    changed_and_read_twice,
    changed_through_a_view,
    changed_input,
    changed_copy,
    changed_behind_identity,
    residual,
    chained,
    copied_before,
    positional,
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_right_whatever_is_changed(case: Callable[..., Tensor], form: str) -> None:
    module = generic(Net(case, **_parts()))
    x = torch.randn(2, 6, 7, 9)
    # Torch itself decomposes one of these wrongly, so a graph is compared with itself.
    source = captured(module, x.clone(), form)
    outcome = optimize(source, x)
    assert error(call(outcome.call, x), call(callable_of(source), x)) < 1e-6


@pytest.mark.parametrize("case", [changed_and_read_twice, residual, chained, positional])
def test_a_change_seen_through_its_result_alone_does_not_stop_a_rewrite(case: Callable[..., Tensor]) -> None:
    outcome = optimize(captured(generic(Net(case, **_parts())), torch.randn(2, 6, 7, 9), "symbolic"))
    assert "norm" not in outcome.operators


def test_a_change_seen_through_a_view_is_a_reason() -> None:
    module = generic(Net(changed_through_a_view, **_parts()))
    outcome = optimize(captured(module, torch.randn(2, 6, 7, 9), "symbolic"))
    assert outcome.operators["norm"] == 1
    assert "changed in place and has other names" in outcome.reasons


def test_slices_that_are_assigned_to_are_understood() -> None:
    """`torch.export` keeps the assignment; without it the border is a function as any other."""

    def forward(m: Any, x: Tensor) -> Tensor:
        padded = F.pad(m.norm(m.conv(x)), (1, 1, 1, 1))
        padded[:, :, 0] = 0.5
        return m.after(padded)

    module = generic(Net(forward, **_parts()))
    x = torch.randn(2, 6, 7, 9)
    outcome = optimize(captured(module, x, "export"))
    assert "norm" not in outcome.operators
    assert error(call(outcome.call, x), call(module, x)) < 1e-6


def test_a_buffer_that_the_model_changes_is_no_constant() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        m.count.add_(1.0)
        return m.conv(x) * m.count

    module = generic(Net(forward, **_parts()))
    module.register_buffer("count", torch.ones(1))
    x = torch.randn(2, 6, 7, 9)
    result = optimize(captured(module, x, "symbolic")).call
    first, second = call(result, x), call(result, x)
    assert error(second / 3, first / 2) < 1e-6


@pytest.mark.parametrize("form", FORMS)
def test_a_copy_that_is_returned_stays_one(form: str) -> None:
    def forward(m: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return m.norm(m.conv(x)), x.clone(), x.clone().view(-1)

    module = generic(Net(forward, **_parts()))
    x = torch.randn(2, 6, 7, 9)
    outcome = optimize(captured(module, x, form), x)
    assert outcome.layers == {"Conv": 1}
    found = outcome.call(x)
    assert all(result.data_ptr() != x.data_ptr() for result in found[1:])


def test_a_buffer_that_somebody_is_given_is_no_constant() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        return counted(m.conv(x), m.count) * m.count

    module = generic(Net(forward, **_parts()))
    module.register_buffer("count", torch.zeros(1))
    x = torch.randn(2, 6, 7, 9)
    result = optimize(captured(module, x, "symbolic")).call
    first, second = call(result, x), call(result, x)
    assert error(second / 4, first) < 1e-6


@pytest.mark.parametrize("form", FORMS)
def test_an_operator_of_another_library_changes_what_its_schema_says(form: str) -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        y = m.norm(m.conv(x))
        z = y + 1.0
        own.add_(y, 2.0)
        return m.after(y) + m.after(z)

    module = generic(Net(forward, **_parts()))
    x = torch.randn(2, 6, 7, 9)
    source = captured(module, x, form)
    assert error(call(optimize(source, x).call, x), call(callable_of(source), x)) < 1e-6

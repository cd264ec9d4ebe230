"""What is registered on a model itself, and not on a layer of it: hooks, parametrizations, a forward."""

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from torch import fx, nn
from torch.nn.utils import parametrize, prune

import fuser
from fuser.errors import InputError

X = torch.linspace(-2, 2, 3 * 8 * 8).reshape(1, 3, 8, 8)


class Net(nn.Module):
    """A convolution to fold, and a parameter of the model's own."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.conv, self.norm = nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3)
        self.gain = nn.Parameter(torch.rand(3, 4, 1, generator=generator).sum(1, keepdim=True))
        self.norm.running_mean.uniform_(-1, 1, generator=generator)
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x)) * self.gain


class Twice(nn.Module):
    """A parametrization."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x


def tripled(*call: Any) -> torch.Tensor:
    return 3 * call[-1]


def shifted(_: nn.Module, args: tuple[Any, ...], *kwargs: Any) -> Any:
    shifted = (args[0] + 1,)
    return (shifted, *kwargs) if kwargs else shifted


def own_forward(module: nn.Module) -> None:
    inner = module.forward
    module.forward = lambda x: 3 * inner(x)


LOST: dict[str, Callable[[nn.Module], Any]] = {
    "tripled": lambda module: module.register_forward_hook(tripled),
    "tripled with kwargs": lambda module: module.register_forward_hook(tripled, with_kwargs=True),
    "tripled always": lambda module: module.register_forward_hook(tripled, always_call=True),
    "shifted": lambda module: module.register_forward_pre_hook(shifted),
    "shifted with kwargs": lambda module: module.register_forward_pre_hook(shifted, with_kwargs=True),
    "a forward of its own": own_forward,
}


def spectral(module: nn.Module) -> None:
    nn.utils.spectral_norm(module, "gain").eval()


def stale(module: nn.Module) -> None:
    nn.utils.weight_norm(module, "gain")
    module.gain_g.data.mul_(3)


KEPT: dict[str, Callable[[nn.Module], Any]] = {
    "parametrization": lambda module: parametrize.register_parametrization(module, "gain", Twice()),
    "spectral norm": spectral,
    "weight norm": stale,
    "pruning": lambda module: prune.l1_unstructured(module, "gain", 1),
    "gradient hook": lambda module: module.register_full_backward_hook(lambda *_: None),
}


@pytest.mark.parametrize("how", LOST)
@pytest.mark.parametrize("examples", [None, (X,)])
def test_what_is_added_to_the_call_of_a_graph_module_is_never_dropped(how: str, examples: Any) -> None:
    module = fx.symbolic_trace(Net())
    LOST[how](module)
    with pytest.raises(
        InputError, match=rf"^Net has a .*{how.partition(' ')[0]}.* which torch.fx leaves out of"
    ):
        fuser.optimize(module, examples)


@pytest.mark.parametrize("how", LOST)
def test_what_is_added_to_the_call_of_a_module_is_refused_by_tracing_and_captured_by_export(how: str) -> None:
    module = Net()
    LOST[how](module)
    with pytest.raises(
        InputError, match=rf"^Net has a .*{how.partition(' ')[0]}.* which torch.fx leaves out of"
    ):
        fuser.optimize(module)
    torch.testing.assert_close(fuser.optimize(module, (X,))(X), module(X), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("how", LOST)
def test_verification_calls_a_graph_module_with_its_hooks(how: str) -> None:
    plain, module = Net(), fx.symbolic_trace(Net())
    module.load_state_dict(plain.state_dict())
    assert fuser.verify(plain, module, inputs=(X,)).verdict == "equal"
    LOST[how](module)
    assert fuser.verify(plain, module, inputs=(X,)).verdict == "differs"
    assert fuser.verify(module, plain, inputs=(X,)).verdict == "differs"


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
@pytest.mark.parametrize("traced", [True, False])
@pytest.mark.parametrize("how", KEPT)
def test_what_only_computes_a_parameter_of_the_model_itself_is_kept(how: str, traced: bool) -> None:
    module = fx.symbolic_trace(Net()) if traced else Net()
    KEPT[how](module)
    result = fuser.optimize(module)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in result.modules())
    torch.testing.assert_close(result(X), module(X), rtol=1e-4, atol=1e-4)
    assert fuser.verify(module, result, inputs=(X,)).verdict == "equal"


def test_the_checks_of_an_exported_program_are_no_reason_to_refuse_it() -> None:
    program = torch.export.export(Net(), (X,))
    module = program.module()
    assert module._forward_pre_hooks, "torch.export no longer registers any: delete the exception for them"
    torch.testing.assert_close(fuser.optimize(module)(X), module(X), rtol=1e-4, atol=1e-4)
    assert fuser.verify(module, fuser.optimize(module), inputs=(X,)).verdict == "equal"


class Dropped(nn.Module):
    """A parametrization with dropout as a function."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.dropout(x, 0.5, self.training)


def averaged() -> nn.Module:
    return nn.Sequential(nn.Unflatten(0, (1, 3)), nn.BatchNorm2d(3), nn.Flatten(0, 1))


@pytest.mark.parametrize("make", [Dropped, averaged, lambda: nn.Dropout(0.5)])
def test_a_parametrization_in_training_counts_where_its_mode_matters(make: Callable[[], nn.Module]) -> None:
    module = Net()
    parametrize.register_parametrization(module, "gain", make(), unsafe=True)
    module.parametrizations.train()
    with pytest.raises(InputError, match=r"'parametrizations.gain.*is in training mode"):
        fuser.optimize(module, (X,))
    module.eval()
    torch.testing.assert_close(fuser.optimize(module, (X,))(X), module(X), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("examples", [None, (X,)])
def test_a_parametrization_that_was_never_told_its_mode_is_none_in_training(examples: Any) -> None:
    module = Net()
    for owner, name in ((module, "gain"), (module.conv, "weight")):
        parametrize.register_parametrization(owner, name, Twice())
        owner.parametrizations.train()
    result = fuser.optimize(module, examples)
    torch.testing.assert_close(result(X), module(X), rtol=1e-4, atol=1e-4)

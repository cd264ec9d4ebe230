"""The backend of torch.compile."""

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

from fuser.hosts.torch import compile as torch_compile  # noqa: E402
from tests.hosts.fx_models import error, generic, operators, repvgg  # noqa: E402


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, int]]:
    """The operators of every graph that was fused."""
    graphs: list[dict[str, int]] = []
    fuse = torch_compile._Fused.fuse

    def watched(self: Any, inputs: Any) -> Any:
        graphs.append(operators(fused := fuse(self, inputs)))
        return fused

    monkeypatch.setattr(torch_compile._Fused, "fuse", watched)
    torch._dynamo.reset()
    return graphs


def compiled(module: nn.Module, backend: str = "eager", **options: Any) -> Any:
    return torch.compile(module, backend=torch_compile.graph_fuser, options={"backend": backend, **options})


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_fuses_without_gradients(seen: list[dict[str, int]], backend: str) -> None:
    module = generic(nn.Sequential(repvgg(), nn.Conv2d(6, 4, 1)))
    run = compiled(module, backend)
    for count in (2, 4, 5):
        x = torch.randn(count, 6, 9, 8)
        with torch.no_grad():
            assert error(run(x), module(x)) < 1e-6
    assert seen == [{"conv": 2, "relu": 1}] * 2  # the second one for any batch


def test_fuses_in_inference_mode(seen: list[dict[str, int]]) -> None:
    module, x = generic(repvgg()), torch.randn(2, 6, 9, 8)
    with torch.inference_mode():
        assert error(compiled(module)(x), module(x)) < 1e-6
    assert seen == [{"conv": 1, "relu": 1}]


def test_leaves_the_graph_alone_where_gradients_are_wanted(seen: list[dict[str, int]]) -> None:
    module = generic(repvgg())
    x = torch.randn(2, 6, 9, 8)
    compiled(module)(x).sum().backward()
    assert not seen
    assert all(parameter.grad is not None for parameter in module.parameters())


def test_follows_weights_that_change(seen: list[dict[str, int]]) -> None:
    module = generic(repvgg())
    run, x = compiled(module), torch.randn(2, 6, 9, 8)
    with torch.no_grad():
        before = run(x)
        for parameter in module.parameters():
            parameter.mul_(1.5)
        assert error(run(x), module(x)) < 1e-6
        assert error(before, module(x)) > 0.01
    assert len(seen) == 2


def test_buffers_that_the_graph_changes_are_no_constants(seen: list[dict[str, int]]) -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(6, 6, 1)
            self.register_buffer("count", torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            self.count.add_(1)
            return self.conv(x) * self.count

    module = generic(Counting())
    run, x = compiled(module), torch.randn(2, 6, 9, 8)
    with torch.no_grad():
        first, second = run(x), run(x)
    assert error(second, 2 * first) < 1e-6
    assert len(seen) == 1


def test_a_model_in_training_is_computed_as_such(seen: list[dict[str, int]]) -> None:
    module = generic(nn.Sequential(nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6))).train()
    x = torch.randn(2, 6, 9, 8)
    with torch.no_grad():
        expected = torch.nn.functional.batch_norm(
            module[0](x), None, None, module[1].weight, module[1].bias, training=True
        )
        assert error(compiled(module)(x), expected) < 1e-6
    assert [graph["norm"] for graph in seen] == [1]


def test_passes_can_be_chosen(seen: list[dict[str, int]]) -> None:
    module, x = generic(repvgg()), torch.randn(2, 6, 9, 8)
    with torch.no_grad():
        compiled(module, exclude=["merge_branches"])(x)
    assert seen[0]["conv"] > 1

"""What comes back: names, signatures, tensors of its own, layers that can be trained."""

from collections import OrderedDict
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram
from torch.nn.utils import prune

from fuser.compiler import rewrite
from fuser.errors import Declined, InputError, VerificationError
from fuser.hosts.torch.drafts import draft_of
from fuser.hosts.torch.front import capture, trace
from fuser.rewrite.pattern import select
from fuser.validate import check as checks
from tests.hosts.fx_models import (
    FORMS,
    Net,
    call,
    callable_of,
    captured,
    error,
    generic,
    optimize,
    outputs,
    repvgg,
)

IMAGE = (2, 6, 9, 8)


def residual() -> nn.Module:
    """Two blocks and a head."""
    plain = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU())
    blocks = [repvgg(), plain]
    stem = OrderedDict(conv=nn.Conv2d(3, 6, 3, bias=False), norm=nn.BatchNorm2d(6), act=nn.ReLU())
    parts = OrderedDict(stem=nn.Sequential(stem), blocks=nn.Sequential(*blocks), pool=nn.AdaptiveAvgPool2d(1))
    return nn.Sequential(OrderedDict(parts, flat=nn.Flatten(), head=nn.Linear(6, 4)))


@pytest.mark.parametrize("form", FORMS)
def test_layers_are_called_after_the_block_that_they_came_from(form: str) -> None:
    module = generic(residual())
    outcome = optimize(captured(module, torch.randn(2, 3, 9, 8), form))
    result = outcome.result
    state = result.state_dict if isinstance(result, ExportedProgram) else result.state_dict()
    names = {"stem.conv", "blocks.0.fused", "blocks.1.0", "head"}
    assert set(state) == {f"{name}.{kind}" for name in names for kind in ("weight", "bias")}
    assert sum(t.numel() for t in state.values()) < sum(t.numel() for t in module.state_dict().values())


@pytest.mark.parametrize("form", ["symbolic", "export"])
def test_layers_are_modules(form: str) -> None:
    result = optimize(captured(generic(residual()), torch.randn(2, 3, 9, 8), form)).result
    assert isinstance(result, fx.GraphModule)
    assert type(result.get_submodule("blocks.0.fused")) is nn.Conv2d
    assert type(result).__name__ == "Sequential"
    assert "self.blocks" in result.code


@pytest.mark.parametrize("form", FORMS)
def test_the_original_is_not_changed_and_shares_nothing(form: str) -> None:
    module = generic(residual())
    x = torch.randn(2, 3, 9, 8)
    source = captured(module, x, form)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    code = source.graph_module.code if isinstance(source, ExportedProgram) else source.code
    result = optimize(source).result
    state = result.state_dict if isinstance(result, ExportedProgram) else result.state_dict()
    own = {tensor.data_ptr() for tensor in module.state_dict().values()}
    assert not own & {tensor.data_ptr() for tensor in state.values()}
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert code == (source.graph_module.code if isinstance(source, ExportedProgram) else source.code)
    expected = call(module, x)
    assert error(call(callable_of(source), x), expected) < 1e-6


def test_tracing_leaves_nothing_on_the_module() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        return m.conv(x) + torch.ones(1)

    module = generic(Net(forward, conv=nn.Conv2d(6, 6, 1)))
    names = set(vars(module))
    optimize(trace(module))
    assert set(vars(module)) == names


@pytest.mark.parametrize("form", FORMS)
def test_signature_and_structure_stay(form: str) -> None:
    def forward(m: Any, x: Tensor) -> dict[str, Any]:
        y = m.norm(m.conv(x))
        first, second = y.chunk(2, 1)
        return {"sum": first + second, "all": (y, [first])}

    module = generic(Net(forward, conv=nn.Conv2d(6, 6, 3), norm=nn.BatchNorm2d(6)))
    x = torch.randn(IMAGE)
    outcome = optimize(captured(module, x, form))
    assert outcome.layers == {"Conv": 1}
    assert error(call(outcome.call, x), call(module, x)) < 1e-6
    if form in {"symbolic", "export"}:
        assert len(outputs(outcome.call(x=x))) == 3


def test_arguments_by_name_stay() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6)

        def forward(self, x: Tensor, *, scale: Tensor, pair: tuple[Tensor, Tensor]) -> Tensor:
            return self.norm(self.conv(x)) * scale + pair[0] - pair[1]

    module = generic(Two())
    x, scale = torch.randn(IMAGE), torch.randn(IMAGE)
    given = {"scale": scale, "pair": (x, scale)}
    draft = draft_of(module, (x,), example_kwargs=given)
    rewrite(draft, select(), "")
    result = draft.result()
    assert isinstance(result, fx.GraphModule)
    assert error(result(x, **given), module(x, **given)) < 1e-6


def test_the_guards_of_a_program_stay() -> None:
    module = capture(generic(repvgg()), (torch.randn(IMAGE),), ({0: Dim("batch")},))
    result = optimize(module).call
    assert call(result, torch.randn(5, *IMAGE[1:])).shape[0] == 5
    with pytest.raises(AssertionError, match=r"Guard failed: x.size\(\)\[2\] == 9"):
        result(torch.randn(2, 6, 10, 8))


@pytest.mark.parametrize("decomposed", [False, True])
def test_a_program_can_be_saved_and_decomposed_further(decomposed: bool, tmp_path: Any) -> None:
    module, x = generic(residual()), torch.randn(2, 3, 9, 8)
    source = captured(module, x, "decomposed" if decomposed else "program")
    result = optimize(source).result
    assert isinstance(result, ExportedProgram)
    assert result.dialect == source.dialect
    torch.export.save(result, tmp_path / "fused.pt2")
    loaded = torch.export.load(tmp_path / "fused.pt2")
    for program in (loaded, result.run_decompositions()):
        assert error(call(program.module(), x), call(module, x)) < 1e-6


def test_weights_that_are_not_persistent_stay_so() -> None:
    module = Net(lambda m, x: m.conv(x) * m.mask, conv=nn.Conv2d(6, 6, 1))
    module.register_buffer("mask", torch.rand(IMAGE[2:]), persistent=False)
    for form in ("symbolic", "export"):
        result = optimize(captured(generic(module), torch.randn(IMAGE), form)).result
        assert set(result.state_dict()) == {"conv.weight", "conv.bias"}


def test_equal_layers_are_one() -> None:
    block = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
    module = generic(nn.Sequential(block, block, block))
    outcome = optimize(captured(module, torch.randn(IMAGE), "symbolic"))
    assert isinstance(outcome.result, fx.GraphModule)
    assert outcome.layers == {"Conv": 3}
    assert sum(t.numel() for t in outcome.result.parameters()) == 6 * 6 * 9 + 6


def test_a_layer_used_twice_with_different_norms_becomes_two() -> None:
    """`torch.fx.experimental.optimization.fuse` folds both norms into the one layer."""
    shared = nn.Conv2d(6, 6, 3, padding=1)
    module = generic(nn.Sequential(shared, nn.BatchNorm2d(6), nn.ReLU(), shared, nn.BatchNorm2d(6)))
    x = torch.randn(IMAGE)
    outcome = optimize(captured(module, x, "symbolic"))
    assert outcome.layers == {"Conv": 2}
    assert error(call(outcome.call, x), call(module, x)) < 1e-6


def test_hooks_are_a_reason() -> None:
    module = generic(nn.Sequential(nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6)))
    module[0].register_forward_hook(lambda _module, _args, output: output * 3)
    x = torch.randn(IMAGE)
    outcome = optimize(captured(module, x, "symbolic"))
    assert outcome.layers == {"Conv": 1, "BatchNorm": 1}
    assert "the module has a forward hook" in outcome.reasons
    assert error(call(outcome.call, x), call(module, x)) == 0


def test_old_weight_norm_is_its_weight() -> None:
    with pytest.warns(FutureWarning, match="weight_norm"):
        conv = nn.utils.weight_norm(nn.Conv2d(6, 6, 3))
    module = generic(nn.Sequential(conv, nn.BatchNorm2d(6)))
    with torch.no_grad():
        # The attribute `weight` is what it was at the last call.
        conv.weight_g.mul_(2)
    x = torch.randn(IMAGE)
    outcome = optimize(captured(module, x, "symbolic"))
    assert outcome.layers == {"Conv": 1}
    assert error(call(outcome.call, x), call(module, x)) < 1e-6


def test_padding_modes_are_a_reason() -> None:
    module = generic(nn.Sequential(nn.Conv2d(6, 6, 3, padding=1, padding_mode="reflect"), nn.BatchNorm2d(6)))
    outcome = optimize(captured(module, torch.randn(IMAGE), "symbolic"))
    assert "padding_mode is 'reflect'" in outcome.reasons


@pytest.mark.parametrize("form", ["symbolic", "export"])
def test_a_fused_model_can_be_trained(form: str) -> None:
    model = optimize(captured(generic(residual()), torch.randn(8, 3, 9, 8), form)).call
    assert isinstance(model, nn.Module)
    x, wanted = torch.randn(8, 3, 9, 8), torch.randint(4, (8,))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    losses = []
    for _ in range(10):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), wanted)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_frozen_layers_stay_frozen() -> None:
    module = generic(residual())
    module.get_submodule("stem").requires_grad_(requires_grad=False)
    result = optimize(captured(module, torch.randn(2, 3, 9, 8), "symbolic")).result
    trained = {name: tensor.requires_grad for name, tensor in result.named_parameters()}
    assert not trained["stem.conv.weight"]
    assert trained["blocks.0.fused.weight"]


def test_training_mode_is_refused() -> None:
    module = generic(residual())
    module.get_submodule("blocks.0.skip").train()
    for source in (module, trace(module)):
        with pytest.raises(
            InputError, match=r"module 'blocks\.0\.skip', is in training mode.*call `\.eval\(\)` first"
        ):
            draft_of(source)
    with pytest.raises(InputError, match="is in training mode"):
        capture(module, None, None)
    with pytest.raises(InputError, match=r"call `\.eval"):
        draft_of(torch.export.export(module, (torch.randn(2, 3, 9, 8),)))


def test_a_norm_without_statistics_is_not_training() -> None:
    module = nn.Sequential(nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6, track_running_stats=False)).eval()
    for form in FORMS:
        assert optimize(captured(module, torch.randn(IMAGE), form)).layers == {"Conv": 1, "BatchNorm": 1}


def test_what_cannot_be_captured_says_why() -> None:
    module = Net(lambda m, x: m.conv(x) if x.sum() > 0 else x, conv=nn.Conv2d(6, 6, 1)).eval()
    with pytest.raises(
        InputError, match=r"Net cannot be captured by torch\.fx.symbolic_trace: symbolically traced"
    ):
        draft_of(module)
    with pytest.raises(InputError, match=r"Net cannot be captured by torch\.export: "):
        draft_of(module, (torch.randn(IMAGE),))


def test_a_copy_of_the_result_works() -> None:
    module, x = generic(residual()), torch.randn(2, 3, 9, 8)
    result = optimize(captured(module, x, "export")).result
    assert error(call(deepcopy(result), x), call(module, x)) < 1e-6


@pytest.mark.parametrize("form", FORMS[1:])  # traced without extents, it is not known to pay
def test_a_pool_that_goes_before_a_convolution_needs_no_weights(form: str) -> None:
    module = generic(nn.Sequential(nn.ReLU(), nn.Conv2d(256, 128, 1), nn.AvgPool2d(2)))
    x = torch.randn(1, 256, 28, 28)
    outcome = optimize(captured(module, x, form), x)
    calls = [str(node.target) for node in outcome.result.graph.nodes if node.op.startswith("call")]
    assert [index for index, target in enumerate(calls) if "pool" in target] == [len(calls) - 2]
    assert outcome.layers == {"Conv": 1}
    kept = outcome.result
    state = kept.state_dict if isinstance(kept, ExportedProgram) else kept.state_dict()
    assert {tuple(t.shape) for t in state.values()} == {(128, 256, 1, 1), (128,)}
    assert error(call(outcome.call, x), call(module, x)) < 1e-5


def test_a_check_that_fails_where_each_rewrite_was_right_is_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    def check(*_: object, trusted: bool = False) -> None:
        raise Declined(f"trusted is {trusted}")

    monkeypatch.setattr(checks, "settle", check)
    with pytest.raises(
        VerificationError, match="a kernel is wrong though each rewrite of it was right: trusted is True"
    ):
        optimize(trace(generic(residual())))


def pruned(layer: nn.Module) -> nn.Module:
    prune.l1_unstructured(layer, "weight", 0.5)
    return layer


@pytest.mark.filterwarnings("ignore:The tensor attributes")
@pytest.mark.parametrize("form", FORMS)
def test_pruned_layers_are_folded_and_kept(form: str) -> None:
    """A hook of torch's computes their weight, which torch does not copy."""

    def forward(m: Any, x: Tensor) -> Tensor:
        return m.last(m.norm(m.conv(x)).sigmoid())

    parts = {
        "conv": pruned(nn.Conv2d(6, 6, 3)),
        "norm": nn.BatchNorm2d(6),
        "last": pruned(nn.Conv2d(6, 4, 1)),
    }
    module = generic(Net(forward, **parts))
    x = torch.randn(IMAGE)
    outcome = optimize(captured(module, x, form), x)
    assert outcome.layers == {"Conv": 2}
    assert error(call(outcome.call, x), call(module, x)) < 1e-6


def test_what_has_no_shape_yet_is_refused() -> None:
    with pytest.raises(InputError, match=r"Sequential does not know the shape of '0.weight' yet"):
        draft_of(nn.Sequential(nn.LazyConv2d(4, 1)).eval())

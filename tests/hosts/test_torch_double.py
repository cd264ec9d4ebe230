"""Torch models in float64, whatever types they compute in."""

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

from fuser.errors import Declined  # noqa: E402
from fuser.hosts.torch.double import in_double, widen  # noqa: E402
from tests.hosts.fx_models import Net, generic, repvgg  # noqa: E402


def in_float64(module: nn.Module, x: Tensor) -> Any:
    with in_double():
        return module(widen(x))


def test_a_module_is_what_it_is_in_double_precision() -> None:
    module, x = generic(repvgg()), torch.randn(2, 6, 9, 8)
    found = in_float64(module, x)
    assert torch.equal(found, module.double()(x.double()))


def test_weights_stay_as_they_are() -> None:
    module = generic(repvgg())
    in_float64(module, torch.randn(2, 6, 9, 8))
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_casts_between_floating_types_change_nothing(dtype: Any) -> None:
    x = torch.randn(5)
    found = in_float64(Net(lambda _, x: x.to(dtype) / 3 + torch.zeros(5, dtype=dtype)), x)
    assert torch.equal(found, x.double() / 3)


def test_a_captured_cast_changes_nothing_either() -> None:
    module = Net(lambda _, x: x.bfloat16().float() / 3)
    x = torch.randn(5)
    captured = torch.export.export(module, (x,)).module()
    assert torch.equal(in_float64(captured, x), x.double() / 3)


def test_integers_and_booleans_stay_and_complex_numbers_widen() -> None:
    module = Net(lambda _, x: (x.argmax(), x > 0, torch.fft.fft(x).to(torch.complex64)))
    index, positive, spectrum = in_float64(module, torch.randn(4))
    assert (index.dtype, positive.dtype, spectrum.dtype) == (torch.int64, torch.bool, torch.complex128)


def test_bits_have_no_meaning() -> None:
    module = Net(lambda _, x: x.to(torch.float32).view(torch.int32))
    with pytest.raises(Declined, match="reads a number as bits"):
        in_float64(module, torch.randn(4))


def test_what_would_be_lost_is_not_written() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.count.add_(1)

    module = Counting()
    with pytest.raises(Declined, match="writes to a tensor that is not in float64"):
        in_float64(module, torch.randn(4))
    assert module.count == 0
    assert torch.equal(in_float64(module.double(), torch.ones(4)), torch.ones(4).double())

import numpy as np
import pytest

from fuser.algebra.conv import Conv
from fuser.ir.constant import Constant
from passes.factor_low_rank import factor_low_rank
from passes.merge_chains import merge_chains
from tests.graphs import Builder, operators, optimize
from tests.strategies import integers


def test_a_convolution_of_low_rank() -> None:
    weight = (integers(0, 64, 4) @ integers(1, 4, 64 * 9)).reshape(64, 64, 3, 3)
    b = Builder(1, 64, 12, 12)
    conv = Conv.of(weight, np.ones(64), stride=(2, 2), begin=(1, 1), end=(1, 1))
    graph = b.finish(b.add(conv, b.x))
    optimize(graph, factor_low_rank, merge_chains)
    assert operators(graph) == [
        "3x3 conv, 64 -> 4, stride (2, 2), pads (1, 1, 1, 1)",
        "1x1 conv, 4 -> 64",
    ]


def test_rows_and_columns_of_a_separable_kernel() -> None:
    rows, columns = integers(0, 16, 7, 2), integers(1, 2, 16, 7)
    weight = np.einsum("oyr,rix->oiyx", rows, columns)
    b = Builder(1, 16, 20, 20)
    graph = b.finish(b.add(Conv.of(weight, begin=(3, 3), end=(3, 3)), b.x))
    optimize(graph, factor_low_rank)
    assert operators(graph) == [
        "1x7 conv, 16 -> 2, pads (0, 3, 0, 3)",
        "7x1 conv, 2 -> 16, pads (3, 0, 3, 0)",
    ]


@pytest.mark.parametrize("careful", [False, True])
def test_a_linear_layer_of_low_rank(careful: bool) -> None:
    b = Builder(128, 256)
    whole = Conv.of(integers(0, 256, 3) @ integers(1, 3, 256), np.ones(256), axis=-1)
    graph = b.finish(b.add(whole, b.x))
    optimize(graph, factor_low_rank, careful=careful)
    assert operators(graph) == ["linear, 256 -> 3", "linear, 3 -> 256"]


def test_what_is_not_cheaper_stays() -> None:
    b = Builder(1, 16)
    graph = b.finish(b.add(Conv.of(integers(0, 16, 1) @ integers(1, 1, 16), axis=-1), b.x))
    (event,) = optimize(graph, factor_low_rank)
    assert event.reason.startswith("no gain: ")


def test_low_rank_up_to_the_rounding_of_float32_stays() -> None:
    random = np.random.default_rng(0)
    single = (random.standard_normal((96, 4)) @ random.standard_normal((4, 96))).astype(np.float32)
    b = Builder(128, 96)
    graph = b.finish(b.add(Conv(Constant.of(single).lazy, np.zeros(96), axis=-1), b.x))
    (event,) = optimize(graph, factor_low_rank)
    assert event.reason.startswith("rank 4 only within the rounding of float32: the next singular value is ")
    assert operators(graph) == ["linear, 96 -> 96"]

import numpy as np
import pytest

from fuser.algebra.conv import Conv
from passes.merge_chains import merge_chains
from passes.narrow_kernels import narrow_kernels
from tests.graphs import Builder, operators, optimize, random_conv


def centre(inputs: int, outputs: int, **attributes: object) -> Conv:
    """A 3x3 that only has a centre."""
    weight = np.zeros((outputs, inputs, 3, 3))
    weight[..., 1, 1] = random_conv(inputs, outputs, 1, 1).weight[..., 0, 0] + 5
    return Conv.of(weight, np.ones(outputs), **{"begin": (1, 1), "end": (1, 1), **attributes})


def test_a_centre_alone() -> None:
    b = Builder(1, 3, 6, 6)
    graph = b.finish(b.add(centre(3, 4, stride=(2, 2)), b.x))
    optimize(graph, narrow_kernels)
    assert operators(graph) == ["1x1 conv, 3 -> 4, stride (2, 2)"]


def test_zero_stuffed_kernels_are_dilated() -> None:
    weight = np.zeros((2, 2, 5, 5))
    weight[..., ::2, ::2] = np.arange(1.0, 37.0).reshape(2, 2, 3, 3)
    b = Builder(1, 2, 6, 6)
    graph = b.finish(b.add(Conv.of(weight, begin=(2, 2), end=(2, 2)), b.x))
    optimize(graph, narrow_kernels)
    assert operators(graph) == ["3x3 conv, 2 -> 2, dilation (2, 2), pads (2, 2, 2, 2)"]


def test_what_was_merged_is_narrowed_in_the_end() -> None:
    # [0 k] after [m 0] is [0 km 0]: only the product has a rim on both sides.
    outer, inner = np.zeros((3, 3, 2)), np.zeros((3, 3, 2))
    outer[..., 1] = random_conv(3, 3, 1).weight[..., 0]
    inner[..., 0] = random_conv(3, 3, 1, seed=1).weight[..., 0]
    b = Builder(1, 3, 6)
    x = b.add(Conv.of(inner, begin=(1,), end=(1,)), b.x)
    graph = b.finish(b.add(Conv.of(outer), x))
    events = optimize(graph, merge_chains, narrow_kernels)
    assert [event.rewrite for event in events] == ["merge_chains", "narrow_kernels"]
    assert operators(graph) == ["1 conv, 3 -> 3"]


def test_what_is_narrower_may_merge() -> None:
    # As a 3x3 with pads the first one does not compose with the second.
    b = Builder(1, 3, 6, 6)
    bare = Conv.of(centre(3, 3).weight, begin=(1, 1), end=(1, 1))
    graph = b.finish(b.add(random_conv(3, 4, 3, 3), b.add(bare, b.x)))
    optimize(graph, merge_chains, narrow_kernels)
    assert operators(graph) == ["3x3 conv, 3 -> 4, pads (1, 1, 1, 1)"]


@pytest.mark.parametrize("careful", [False, True])
def test_transposed(careful: bool) -> None:
    b = Builder(1, 3, 4, 4)
    graph = b.finish(b.add(centre(3, 2, transposed=True, stride=(2, 2)), b.x))
    optimize(graph, narrow_kernels, careful=careful)
    assert operators(graph) == ["transposed 1x1 conv, 3 -> 2, stride (2, 2)"]


def test_pads_that_cannot_follow_decline() -> None:
    b = Builder(1, 3, 6, 6)
    graph = b.finish(b.add(centre(3, 4, begin=(0, 0), end=(0, 0)), b.x))
    (event,) = optimize(graph, narrow_kernels)
    assert event.reason == (
        "the taps at the begin of axis 0 are zero, but without them the pad of 0 would be -1"
    )


def test_what_has_no_zeros_is_no_event() -> None:
    b = Builder(1, 3, 6, 6)
    graph = b.finish(b.add(Conv.of(np.full((2, 3, 3, 3), 1e-30)), b.x))
    assert optimize(graph, narrow_kernels) == []

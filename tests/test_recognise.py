"""What a function does tells which convolution it is, however it is computed."""

from collections.abc import Callable

import numpy as np
import pytest

from fuser.algebra.conv import Conv, Ints, average_pool, pad
from fuser.algebra.lazy import Array
from fuser.errors import Declined
from fuser.recognise.recognise import recognise, snap

SHAPES = ((2, 4, 7, 8), (1, 4, 12, 5))
VALUES = np.array([0.5, -1.25, 3.0, 0.0])

Function = Callable[[Array], Array]


def bordered(width: int = 1, values: Array = VALUES, sides: str = "tblr") -> Function:
    """Padding with zeros, then rows and columns overwritten, as people write it."""

    def function(x: Array) -> Array:
        y = np.pad(x, [(0, 0), (0, 0), (width, width), (width, width)])
        value = values.reshape(1, -1, 1, 1)
        for side, rows, columns in (
            ("t", slice(0, width), slice(None)),
            ("b", slice(-width, None), slice(None)),
            ("l", slice(None), slice(0, width)),
            ("r", slice(None), slice(-width, None)),
        ):
            if side in sides:
                y[:, :, rows, columns] = value
        return y

    return function


def found(function: Function, shapes: tuple[Ints, ...] = SHAPES) -> Conv:
    conv = recognise(function, shapes)
    assert conv is not None
    x = np.random.default_rng(1).integers(-4, 5, (2, 4, 9, 11)).astype(float)
    np.testing.assert_array_equal(conv.evaluate(x), function(x))
    return conv


def dense(permutation: list[int]) -> Conv:
    weight = np.eye(4)[permutation].reshape(len(permutation), 4, 1, 1)
    return Conv.of(weight)


@pytest.mark.parametrize("width", [1, 2])
def test_border(width: int) -> None:
    assert found(bordered(width)) == pad(4, (width, width), (width, width), VALUES)


def test_border_of_one_value() -> None:
    uneven = [(0, 0), (0, 0), (1, 2), (0, 3)]
    assert found(lambda x: np.pad(x, uneven, constant_values=0.75)) == pad(4, (1, 0), (2, 3), 0.75)


def test_crop() -> None:
    assert found(lambda x: x[:, :, 1:, 2:-1]) == pad(4, (-1, -2), (0, -1))


def test_crop_and_pad() -> None:
    assert found(lambda x: np.pad(x[:, :, 1:], [(0, 0), (0, 0), (0, 1), (0, 0)])) == pad(4, (-1, 0), (1, 0))


def test_stride() -> None:
    conv = found(lambda x: x[:, :, ::2, 1::3])
    assert (conv.depthwise, conv.size, conv.stride, conv.begin) == (True, (1, 1), (2, 3), (0, -1))


def test_nothing() -> None:
    assert found(lambda x: x.copy()).pointwise


def test_bias() -> None:
    conv = found(lambda x: np.pad(x, [(0, 0), (0, 0), (1, 1), (1, 1)]) + VALUES.reshape(-1, 1, 1))
    np.testing.assert_array_equal(conv.bias, VALUES)


@pytest.mark.parametrize(
    "permutation", [[3, 2, 1, 0], [2, 0, 3, 1], [1, 1, 0]], ids=["flip", "shuffle", "gather"]
)
def test_permutation_of_channels(permutation: list[int]) -> None:
    assert found(lambda x: x[:, permutation]) == dense(permutation)


def test_permutation_within_groups() -> None:
    assert found(lambda x: x[:, [1, 0, 3, 2]]).groups == 2


def test_shuffle_by_reshape() -> None:
    def shuffle(x: Array) -> Array:
        n, c, h, w = x.shape
        return x.reshape(n, 2, c // 2, h, w).swapaxes(1, 2).reshape(n, c, h, w)

    assert found(shuffle) == dense([0, 2, 1, 3])


def test_space_to_depth() -> None:
    def focus(x: Array) -> Array:
        x = x[:, :, : x.shape[2] // 2 * 2, : x.shape[3] // 2 * 2]
        return np.concatenate([x[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)], axis=1)

    conv = found(focus)
    assert (conv.outputs, conv.size, conv.stride, conv.begin) == (16, (2, 2), (2, 2), (0, 0))


def test_more_channels_than_numpy_looks_at_in_one_go() -> None:
    conv = recognise(lambda x: x.reshape(len(x), -1, 1, 1), [(2, 42, 14, 14)])
    assert conv is not None
    assert (conv.outputs, conv.size, conv.groups) == (8232, (14, 14), 42)
    assert np.array_equal(conv.weight.reshape(42, 196, 196), np.broadcast_to(np.eye(196), (42, 196, 196)))


def test_shifts_that_differ_between_channels() -> None:
    def shift(x: Array) -> Array:
        y = np.pad(x, [(0, 0), (0, 0), (1, 1), (0, 0)])
        return np.stack([y[:, c, c % 3 : y.shape[2] - 2 + c % 3] for c in range(4)], axis=1)

    conv = found(shift)
    assert (conv.depthwise, conv.size, conv.begin) == (True, (3, 1), (1, 0))


def test_one_spatial_axis() -> None:
    assert recognise(lambda x: x[:, :, 2:], [(2, 3, 8)]) == pad(3, (-2,), (0,))


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (bordered(sides="tbl"), r"channel 0 holds 0 at \(1, 9\), where 1x1 .* pad value 0.5 gives 0.5"),
        (bordered(sides="blr"), r"channel 0 holds"),
        (lambda x: bordered(1)(bordered(1, np.zeros(4))(x)), "channel 0 holds 0 at"),
        (lambda x: bordered(1)(x) + (np.arange(x.shape[3] + 2) == 0), "channel 0 holds 0.5 at .* gives 1.5"),
    ],
    ids=["one side", "another side", "width", "value"],
)
def test_another_border_declines_with_both_values(function: Function, reason: str) -> None:
    with pytest.raises(Declined, match=reason):
        recognise(function, SHAPES)


def test_overwritten_input_declines() -> None:
    def function(x: Array) -> Array:
        y = bordered(1)(x)
        y[:, :, 1] = 7.0
        return y

    with pytest.raises(Declined, match="channel"):
        recognise(function, SHAPES)


@pytest.mark.parametrize("mode", ["reflect", "edge", "wrap"])
def test_other_paddings_decline(mode: str) -> None:
    def function(x: Array) -> Array:
        padded: Array = np.pad(x, [(0, 0), (0, 0), (1, 1), (1, 1)], mode=mode)  # type: ignore[call-overload]
        return padded

    with pytest.raises(Declined, match="generic input"):
        recognise(function, SHAPES)


def test_what_holds_for_one_extent_only_declines() -> None:
    with pytest.raises(Declined, match="extents of axis 0 do not fit"):
        recognise(lambda x: x[:, :, :8], [(1, 4, 7, 8), (1, 4, 12, 8)])


def test_enlarging_declines() -> None:
    with pytest.raises(Declined, match=r"axis 0 do not fit a stride of 1: \[\(7, 14\), \(12, 24\)\]"):
        recognise(lambda x: np.repeat(x, 2, axis=2), SHAPES)


def test_batches_that_are_exchanged_are_nothing_like_it() -> None:
    with pytest.raises(Declined, match="generic input"):
        recognise(lambda x: np.pad(x[::-1], [(0, 0), (0, 0), (1, 1), (1, 1)]), SHAPES)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.transpose(0, 1, 3, 2),
        lambda x: x.transpose(0, 2, 3, 1),
        lambda x: x[:, :, ::-1],
        lambda x: x.mean(axis=1, keepdims=True),
        lambda x: 2 * x,
        lambda x: x + np.arange(x.shape[3]),
        lambda x: x[:1],
        lambda x: x[:, 0],
        average_pool(4, (2, 2), (1, 1), (1, 1), (0, 0), (0, 0)).evaluate,
    ],
    ids=["swap", "layout", "mirror", "mean", "scale", "position", "batch", "rank", "pool"],
)
def test_what_is_no_padding_nor_permutation(function: Function) -> None:
    assert recognise(function, SHAPES) is None


def test_a_constant_declines() -> None:
    assert recognise(np.ones_like, SHAPES) is None


def test_snap_takes_the_value_that_rounding_hid() -> None:
    exact = np.array([0.1, -2.0 / 3.0, 1.0])
    rounded = pad(3, (1, 1), (1, 1), exact.astype(np.float32).astype(float))
    np.testing.assert_array_equal(snap(rounded, exact, 2.0**-23).pad_value, exact)


def test_snap_leaves_another_value() -> None:
    other = pad(3, (1, 1), (1, 1), np.array([0.1, 0.2, 0.3]))
    assert snap(other, np.array([0.1, 0.2, 0.30001]), 2.0**-23) is other
    crop = pad(3, (-1, 0), (0, 0))
    assert snap(crop, np.ones(3), 2.0**-23) is crop


def test_a_constant_is_no_convolution() -> None:
    with pytest.raises(Declined, match="the result does not depend on the input"):
        recognise(lambda x: np.ones((len(x), 4, 1, 1)), SHAPES)


def test_channels_that_are_more_in_a_larger_image() -> None:
    def function(x: Array) -> Array:
        return np.concatenate([x[:, :, 1:]] * (x.shape[2] // 4), axis=1)

    with pytest.raises(Declined, match=r"the shapes differ: \(1, 12, 11, 5\) here, \(1, 4, 11, 5\) from"):
        recognise(function, SHAPES)


def test_a_border_that_is_another_in_a_larger_image() -> None:
    def function(x: Array) -> Array:
        return np.pad(x, [(0, 0), (0, 0), (1, 1), (1, 1)], constant_values=x.shape[2])

    with pytest.raises(Declined, match=r"for zeros, channel 0 holds 12 at \(0, 0\), where .* gives 7"):
        recognise(function, SHAPES)

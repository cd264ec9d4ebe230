"""Sizes for symbolic dimensions, values by type, and the user's own arrays."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir
import pytest

from fuser.errors import InputError
from fuser.hosts.onnx.summary import model_specs
from fuser.judge.inputs import (
    Sizing,
    Spec,
    attempts,
    bind,
    draw,
    given,
    nominal_shapes,
    pinned,
    require_shapes,
)
from tests.small_models import normal, parsed

IMAGE = Spec("x", "float32", ("N", 3, "H", "W"))


def test_an_image_is_bound_by_the_place_of_its_axes() -> None:
    assert bind([IMAGE], Sizing(2, 64, 96)) == {"x": (2, 3, 64, 96)}


def test_channels_may_be_last() -> None:
    assert bind([Spec("x", "float32", (None, None, None, 3))], Sizing(2, 64, 96)) == {"x": (2, 64, 96, 3)}


def test_a_volume_stays_small() -> None:
    (shape,) = bind([Spec("x", "float32", ("N", 1, "D", "H", "W"))], Sizing()).values()
    assert shape[:2] == (1, 1)
    assert max(shape) < 32


def test_a_name_has_one_extent_and_the_image_decides_it() -> None:
    specs = [Spec("mask", "float32", ("H",)), IMAGE]
    assert bind(specs, Sizing(1, 64, 96)) == {"mask": (64,), "x": (1, 3, 64, 96)}
    assert list(bind(specs, Sizing())) == ["mask", "x"]


def test_unnamed_and_negative_extents_are_unknown() -> None:
    assert bind([Spec("x", "float32", (-1, 3, None, -1))], Sizing(2, 64, 96)) == {"x": (2, 3, 64, 96)}


def test_an_axis_called_batch_is_one_wherever_it_stands() -> None:
    assert bind([Spec("x", "float32", ("T", "batch_size", 8))], Sizing(2, length=32)) == {"x": (2, 2, 8)}


def test_an_input_without_a_rank_is_an_image() -> None:
    assert bind([Spec("x", "float32", None)], Sizing(1, 64, 96)) == {"x": (1, 3, 64, 96)}


def test_given_sizes_go_first() -> None:
    assert nominal_shapes([IMAGE], {"H": 640, "N": 4}) == {"x": (4, 3, 640, 224)}


def test_attempts_are_small_before_large_and_each_is_made_once() -> None:
    tried = list(attempts([IMAGE]))
    assert tried[0] == ({"x": (1, 3, 64, 64)}, False)
    assert ({"x": (1, 3, 75, 101)}, False) in tried
    assert ({"x": (1, 3, 224, 224)}, True) in tried
    large = [flag for _, flag in tried]
    assert large == sorted(large)
    assert len({str(shapes) for shapes, _ in tried}) == len(tried)
    assert len(list(attempts([Spec("x", "float32", (1, 3, 8, 8))]))) == 1


def test_the_same_seed_draws_the_same_values_and_samples_differ() -> None:
    shapes = {"x": (1, 3, 8, 8)}
    a, b, c = (draw([IMAGE], shapes, sample=sample)["x"] for sample in (0, 0, 2))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)
    assert a.dtype == np.float32
    assert a.min() < 0
    assert draw([IMAGE], shapes, sample=1)["x"].min() >= 0


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8", "int8"])
def test_integers_are_indices(dtype: str) -> None:
    values = draw([Spec("ids", dtype, (2, 50))], {"ids": (2, 50)}, ceiling=16)["ids"]
    assert values.dtype == dtype
    assert values.min() >= 0
    assert 10 <= values.max() < 16


def test_a_short_list_of_integers_may_be_a_shape() -> None:
    assert draw([Spec("shape", "int64", (4,))], {"shape": (4,)})["shape"].min() > 0


def test_bytes_with_three_axes_are_an_image() -> None:
    values = draw([Spec("x", "uint8", (1, 3, 32, 32))], {"x": (1, 3, 32, 32)})["x"]
    assert values.min() < 10
    assert values.max() > 245


def test_booleans_are_of_both_kinds() -> None:
    assert 10 < draw([Spec("m", "bool", (64,))], {"m": (64,)})["m"].sum() < 54


def test_bfloat16_is_drawn() -> None:
    assert draw([Spec("x", "bfloat16", (2, 2))], {"x": (2, 2)})["x"].dtype.name == "bfloat16"


OTHER = (
    "seq(tensor(float))",
    "seq(map(int64,tensor(float)))",
    "map(int64,tensor(float))",
    "map(string,tensor(float))",
    "optional(tensor(float))",
    "sparse_tensor(float)",
    "float8e4m3fn",
)


@pytest.mark.parametrize("dtype", ["string", "complex64", "int4", *OTHER])
def test_what_is_no_number_is_declined(dtype: str) -> None:
    with pytest.raises(InputError, match=r"input 'x' is of type .*, for which no values can be made"):
        draw([Spec("x", dtype, (2,))], {"x": (2,)})


@pytest.mark.parametrize("dtype", OTHER)
def test_what_no_array_holds_is_not_given_either(dtype: str) -> None:
    with pytest.raises(InputError, match=r"^the inputs: input 'x' is of type .*, which no array holds$"):
        given({"x": np.zeros(2)}, [Spec("x", dtype, (2,))])


def test_an_undefined_type_is_no_number() -> None:
    model = parsed("g (float[2] x) => (float[2] y) { y = Relu (x) }")
    model.graph.input[0].type.tensor_type.elem_type = 0
    (spec,) = model_specs(onnx_ir.from_proto(model))
    with pytest.raises(InputError, match="UNDEFINED"):
        draw([spec], {"x": (2,)})


def test_initializers_that_are_inputs_need_no_value() -> None:
    text = "g (float[N,3] x, float[3] s, bool[2] m, string[1] t) => (float[N,3] y) { y = Mul (x, s) }"
    model = onnx_ir.from_proto(parsed(text, s=normal(3)))
    assert model_specs(model) == [
        Spec("x", "float32", ("N", 3)),
        Spec("m", "bool", (2,)),
        Spec("t", "string", (1,)),
    ]


# --- the user's own ----------------------------------------------------------------------------------------


def test_a_file_with_one_array_is_for_the_only_input(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", normal(1, 3, 8, 8))
    feeds = given(tmp_path / "x.npy", [IMAGE])
    assert feeds["x"].dtype == np.float32
    with pytest.raises(InputError, match="one array, but the model has 2 inputs"):
        given(tmp_path / "x.npy", [IMAGE, IMAGE])


def test_an_archive_names_the_inputs_or_follows_their_order(tmp_path: Path) -> None:
    specs = [IMAGE, Spec("ids", "int64", (2,))]
    np.savez(tmp_path / "named.npz", ids=np.array([1, 2]), x=normal(1, 3, 8, 8))
    np.savez(tmp_path / "ordered.npz", normal(1, 3, 8, 8), np.array([1, 2]))
    for name in ("named.npz", "ordered.npz"):
        feeds = given(str(tmp_path / name), specs)
        assert list(feeds) == ["x", "ids"]
        assert feeds["ids"].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "no array for input 'x'; it holds \\[\\]"),
        (
            {"x": np.zeros((1, 3, 8, 8)), "z": np.zeros(1)},
            "'z' is no input of the model; its inputs are \\['x'\\]",
        ),
        ({"x": np.zeros((1, 4, 8, 8))}, r"has shape \[1, 4, 8, 8\], the model takes \['N', 3, 'H', 'W'\]"),
        ({"x": np.zeros((3, 8, 8))}, r"has shape \[3, 8, 8\], the model takes"),
        ({"x": np.zeros((1, 3, 8, 8), complex)}, "is complex128, the model takes float32"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(arrays: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(InputError, match=message):
        given(arrays, [IMAGE])


@pytest.mark.parametrize("content", [b"hello", b"", b"\x80\x04N.", b"PK\x03\x04", b"\x93NUMPY\x01\x00"])
@pytest.mark.parametrize("name", ["x.npz", "x.npy", "x.onnx"])
def test_a_file_that_is_no_array_is_refused_without_advice_of_others(
    tmp_path: Path, name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as refusal:
        given(tmp_path / name, [IMAGE])
    message = f"{tmp_path / name}: not a readable .npz or .npy file of numbers or strings"
    assert str(refusal.value) == message


@pytest.mark.parametrize("damage", [lambda data: data[:-30], lambda data: data[:60] + b"?" * 9 + data[69:]])
def test_a_damaged_archive_is_refused(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    np.savez_compressed(tmp_path / "x.npz", x=np.ones((1, 3, 8, 8)))
    (tmp_path / "x.npz").write_bytes(damage((tmp_path / "x.npz").read_bytes()))
    with pytest.raises(InputError, match="not a readable"):
        given(tmp_path / "x.npz", [IMAGE])


@pytest.mark.parametrize(
    "shape", [(-1, 3, 8, 8), (10**20, 3, 8, 8), (0, 3, 10**20, 8), (2**30, 3, 2**20, 2**20)]
)
def test_a_shape_that_no_array_has_is_refused(shape: tuple[int, ...]) -> None:
    spec = Spec("image", "float32", ("N", 3, "H", "W"))
    with pytest.raises(
        InputError, match=rf"^input 'image' cannot have shape {re.escape(str(list(shape)))}, an "
    ):
        pinned([spec], {"image": shape})
    assert pinned([spec], {"image": (0, 3, 2**40, 2**10)}) == {"N": 0, "H": 2**40, "W": 2**10}


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"x\.npz: no such file"):
        given(tmp_path / "x.npz", [IMAGE])


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"not a readable \.npz or \.npy file \(Is a directory\)$"):
        given(tmp_path, [IMAGE])


def test_pickles_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"file of numbers or strings$"):
        given(tmp_path / "x.npy", [IMAGE])


@pytest.mark.parametrize("extent", [-1, 2**63, 10**20])
@pytest.mark.parametrize("dims", [("n",), (None,), None])
def test_extents_that_nothing_can_have(extent: int, dims: tuple[str | None, ...] | None) -> None:
    with pytest.raises(
        InputError, match=r"'x' cannot have shape .*, an (extent of which is negative|array has \d+ elements)"
    ):
        pinned([Spec("x", "float32", dims)], {"x": (extent,)})


def test_strings_can_be_given() -> None:
    assert given({"t": np.array(["a", "b"])}, [Spec("t", "string", (2,))])["t"].dtype == object


def test_a_shape_of_what_is_no_input() -> None:
    require_shapes({"x": (1, 3)}, {"x": (1, 3)})
    with pytest.raises(InputError, match=r"a shape for 'z', which is no input of the model; .* \['x'\]"):
        require_shapes({"x": (1, 3)}, {"z": (1, 3)})
    with pytest.raises(InputError, match=r"'x' was given in shape \[1, 3\], but its shape is to be \[2, 3\]"):
        require_shapes({"x": (1, 3)}, {"x": (2, 3)})

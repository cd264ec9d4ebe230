"""What to feed a model of which nothing but its inputs is known, or the user's own arrays.

Sizes for symbolic dimensions by their place, values by type. What the graph says of its inputs is in
`judge/samples.py`.

Everything is drawn from a fixed seed, so the same model gets the same inputs every time.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Final
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from fuser.errors import InputError

Feeds = dict[str, NDArray[Any]]
Shapes = Mapping[str, tuple[int, ...]]
Dim = int | str | None
"""A known extent, a named symbolic one, or nothing known."""
Given = str | os.PathLike[str] | Mapping[str, Any]


ADDRESSED: Final = 2**60 - 1
"""Elements of the largest array: 8 bytes each are counted in an int64."""


@dataclass(frozen=True)
class Spec:
    """One input.

    `shape` has known extents, symbolic names, and None for what is not known; it is None as a whole where not
    even the rank is known. `dtype` is numpy's name, or the host's for what is no tensor of numbers.
    """

    name: str
    dtype: str
    shape: tuple[Dim, ...] | None


@dataclass(frozen=True)
class Sizing:
    """Extents for symbolic dimensions, by the part that they play."""

    batch: int = 1
    height: int = 224
    width: int = 224
    length: int = 64
    channels: int = 3


NOMINAL: Final = Sizing()
"""The size that timings and multiply-adds are stated for."""

# Small first: a check sees the borders of small images best and costs little on them. Some models need
# multiples of 32, some one fixed size; those refuse the others, and what refuses is skipped.
SMALL: Final = (
    Sizing(1, 64, 64, 32),
    Sizing(2, 64, 96, 48),
    Sizing(1, 75, 101, 37),
    Sizing(1, 96, 96, 64),
    Sizing(1, 160, 128, 96),
)
LARGE: Final = tuple(Sizing(1, n, n, n) for n in (224, 256, 32, 128, 320, 299, 384, 416, 512, 640, 28))

# Integer inputs are mostly indices, whose bound is not in the file.
CEILINGS: Final = (16, 2)


def nominal_shapes(specs: Sequence[Spec], sizes: Mapping[str, int] | None = None) -> Shapes:
    """The shape of each input at the nominal size: batch 1, images of 224 x 224, sequences of 64."""
    return bind(specs, NOMINAL, sizes)


def bind(specs: Sequence[Spec], sizing: Sizing, sizes: Mapping[str, int] | None = None) -> Shapes:
    """The shape of each input, symbolic dimensions replaced; a name has one extent wherever it stands.

    `sizes` gives extents by symbolic name and goes before `sizing`.
    """
    known: dict[str, int] = dict(sizes or {})
    shapes: dict[str, tuple[int, ...]] = {}
    # The input with the most axes knows best what a shared name means.
    for spec in sorted(specs, key=lambda spec: -len(spec.shape or ())):
        dims = spec.shape if spec.shape is not None else (None, None, None, None)
        shapes[spec.name] = tuple(_extent(dim, axis, dims, sizing, known) for axis, dim in enumerate(dims))
    return {spec.name: shapes[spec.name] for spec in specs}


def _extent(dim: Dim, axis: int, dims: tuple[Dim, ...], sizing: Sizing, known: dict[str, int]) -> int:
    if isinstance(dim, int) and dim >= 0:
        return dim
    extent = guess(axis, dims, sizing)
    if isinstance(dim, str):
        if "batch" in dim.lower():
            extent = sizing.batch
        return known.setdefault(dim, extent)
    return extent


def guess(axis: int, dims: Sequence[Dim], sizing: Sizing) -> int:
    """The extent of an unknown axis from its place: batch first, NCHW unless the last axis is colours."""
    rank = len(dims)
    if axis == 0:
        return sizing.batch if rank > 1 else sizing.length
    if rank < 4:
        return sizing.length
    channels_last = dims[-1] in (1, 3, 4) and dims[1] not in (1, 3, 4)
    spatial = range(1, rank - 1) if channels_last else range(2, rank)
    if axis not in spatial:
        return sizing.channels
    if rank > 4:
        return min(sizing.height, 16 + axis)
    return sizing.width if axis == spatial[-1] else sizing.height


def attempts(
    specs: Sequence[Spec], sizes: Mapping[str, int] | None = None, order: Sequence[Sizing] = SMALL + LARGE
) -> Iterator[tuple[Shapes, bool]]:
    """Shapes to try, each once; the flag marks the large ones, needed only where no small one runs."""
    seen: list[Shapes] = []
    for sizing in order:
        shapes = bind(specs, sizing, sizes)
        if shapes not in seen:
            seen.append(shapes)
            yield shapes, sizing in LARGE


def pinned(specs: Sequence[Spec], shapes: Shapes) -> dict[str, int]:
    """The extents of named dimensions that follow from whole shapes of some inputs.

    Raises:
        InputError: there is no such input, its shape is another one, or two shapes disagree.
    """
    known = {spec.name: spec for spec in specs}
    sizes: dict[str, tuple[int, str]] = {}
    for name, shape in shapes.items():
        if name not in known:
            raise InputError(
                f"a shape for {name!r}, which is no input of the model; its inputs are {[*known]}"
            )
        dims = known[name].shape
        require_possible(name, shape)
        if dims is not None and not _fits(dims, shape):
            raise InputError(
                f"input {name!r} cannot have shape {list(shape)}, the model takes {_wanted(dims)}"
            )
        for dim, extent in zip(dims or (), shape, strict=False):
            if isinstance(dim, str):
                other, where = sizes.setdefault(dim, (extent, name))
                if other != extent:
                    raise InputError(
                        f"{dim!r} is {other} in the shape of {where!r} and {extent} in that of {name!r}"
                    )
    return {dim: extent for dim, (extent, _) in sizes.items()}


def require_possible(name: str, shape: Sequence[int]) -> None:
    """Refuse a shape that no array has.

    Raises:
        InputError: an extent is negative, or there are more elements than can be addressed.
    """
    if any(extent < 0 for extent in shape):
        raise InputError(f"input {name!r} cannot have shape {list(shape)}, an extent of which is negative")
    if prod(extent or 1 for extent in shape) > ADDRESSED:  # an empty array is addressed by its other extents
        raise InputError(
            f"input {name!r} cannot have shape {list(shape)}, an array has {ADDRESSED} elements at most"
        )


def require_shapes(found: Shapes, wanted: Shapes | None) -> None:
    """Refuse the user's inputs where the user's shapes say something else.

    Raises:
        InputError: with both.
    """
    for name, shape in (wanted or {}).items():
        if found.get(name, shape) != shape:
            raise InputError(
                f"input {name!r} was given in shape {list(found[name])}, but its shape is to be {list(shape)}"
            )
        if name not in found:
            raise InputError(
                f"a shape for {name!r}, which is no input of the model; its inputs are {[*found]}"
            )


def _fits(dims: Sequence[Dim], shape: Sequence[int]) -> bool:
    return len(dims) == len(shape) and all(
        not isinstance(dim, int) or dim < 0 or dim == n for dim, n in zip(dims, shape, strict=True)
    )


def _wanted(dims: Sequence[Dim]) -> list[int | str]:
    return [dim if dim is not None else "?" for dim in dims]


def ceilings(specs: Sequence[Spec]) -> tuple[int, ...]:
    """Below what integers are drawn of which nothing is known; a lower number where that is refused."""
    return CEILINGS if any("int" in spec.dtype for spec in specs) else CEILINGS[:1]


def draw(
    specs: Sequence[Spec],
    shapes: Shapes,
    *,
    seed: int = 0,
    sample: int = 0,
    ceiling: int = CEILINGS[0],
    known: Feeds | None = None,
) -> Feeds:
    """Random inputs of the given shapes; integers stay below `ceiling`, and `known` inputs are repeated.

    Raises:
        InputError: an input is not a tensor of numbers.
    """
    generator = np.random.default_rng([seed, sample])
    feeds = {name: np.resize(array, shapes[name]) for name, array in (known or {}).items()}
    for spec in specs:
        if spec.name not in feeds:
            # A scalar is drawn as a number; the runtime takes arrays only.
            feeds[spec.name] = np.asarray(_values(spec, shapes[spec.name], generator, sample, ceiling))
    return {spec.name: feeds[spec.name] for spec in specs}


def _values(
    spec: Spec, shape: tuple[int, ...], generator: np.random.Generator, sample: int, ceiling: int
) -> Any:
    if spec.dtype == "bool":
        return generator.random(shape) < 0.5
    if spec.dtype in ("float16", "float32", "float64", "bfloat16"):
        # Normalised images, and images in 0..1, in turn.
        values = generator.random(shape) if sample % 2 else generator.standard_normal(shape)
        return np.asarray(values).astype(numpy_dtype(spec.dtype))
    dtype = array_dtype(spec.dtype)
    if dtype is None or dtype.kind not in "iu":
        raise InputError(
            f"input {spec.name!r} is of type {spec.dtype}, for which no values can be made: give inputs"
        )
    if dtype.itemsize == 1 and len(shape) >= 3:
        limits = np.iinfo(dtype)
        return generator.integers(limits.min, limits.max, shape, dtype, endpoint=True)
    # A scalar or a short list of integers is a count or a shape, where zero makes no sense.
    return generator.integers(0 if prod(shape) > 8 or ceiling < 3 else 1, ceiling, shape, dtype)


def numpy_dtype(name: Any) -> np.dtype[Any]:
    """numpy's dtype of that name, bfloat16 included."""
    if name == "bfloat16":
        import ml_dtypes

        name = ml_dtypes.bfloat16
    dtype: np.dtype[Any] = np.dtype(name)
    return dtype


def array_dtype(name: str) -> np.dtype[Any] | None:
    """numpy's dtype of the type of an input; None where it is no tensor, or of a type that numpy has not."""
    try:
        return numpy_dtype(name) if name.isidentifier() else None
    except TypeError:
        return None


def given(inputs: Given, specs: Sequence[Spec]) -> Feeds:
    """The user's inputs: a mapping, an `.npz` with an array for each input, or an `.npy` for the only input.

    Raises:
        InputError: the file cannot be read, or names, types or shapes do not fit the model.
    """
    if isinstance(inputs, Mapping):
        arrays, source = {str(name): np.asarray(array) for name, array in inputs.items()}, "the inputs"
    else:
        arrays, source = _load(Path(inputs), specs), str(inputs)
    names = [spec.name for spec in specs]
    if missing := [name for name in names if name not in arrays]:
        raise InputError(f"{source}: no array for input {missing[0]!r}; it holds {sorted(arrays)}")
    if unknown := [name for name in arrays if name not in names]:
        raise InputError(f"{source}: {unknown[0]!r} is no input of the model; its inputs are {names}")
    return {spec.name: _fitted(arrays[spec.name], spec, source) for spec in specs}


def _load(path: Path, specs: Sequence[Spec]) -> Feeds:
    try:
        with path.open("rb") as file:  # what numpy opens itself it leaves open where it cannot be read
            loaded = np.load(file, allow_pickle=False)
            arrays = {} if isinstance(loaded, np.ndarray) else dict(loaded)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: not a readable .npz or .npy file{_reason(error)}") from error
    except (ValueError, EOFError, KeyError, BadZipFile, zlib.error) as error:
        # What numpy says of a file that is none of its own is advice to unpickle it.
        raise InputError(f"{path}: not a readable .npz or .npy file of numbers or strings") from error
    if isinstance(loaded, np.ndarray):
        if len(specs) != 1:
            raise InputError(f"{path}: one array, but the model has {len(specs)} inputs: give an .npz")
        return {specs[0].name: loaded}
    # `np.savez(path, a, b)` names the arrays by position.
    positional = [f"arr_{i}" for i in range(len(specs))]
    if sorted(arrays) == sorted(positional):
        return {spec.name: arrays[key] for spec, key in zip(specs, positional, strict=True)}
    return arrays


def _reason(error: OSError) -> str:
    return f" ({error.strerror})" if error.strerror else ""


def _fitted(array: NDArray[Any], spec: Spec, source: str) -> NDArray[Any]:
    """`array` in the type of the input, if that is a matter of precision only."""
    if spec.dtype == "string":
        return array.astype(object)
    dtype = array_dtype(spec.dtype)
    if dtype is None:
        raise InputError(f"{source}: input {spec.name!r} is of type {spec.dtype}, which no array holds")
    if array.dtype != dtype and not np.can_cast(array.dtype, dtype, "same_kind"):
        raise InputError(f"{source}: input {spec.name!r} is {array.dtype.name}, the model takes {spec.dtype}")
    if spec.shape is not None and not _fits(spec.shape, array.shape):
        raise InputError(
            f"{source}: input {spec.name!r} has shape {list(array.shape)}, "
            f"the model takes {_wanted(spec.shape)}"
        )
    return np.ascontiguousarray(array, dtype=dtype).reshape(array.shape)

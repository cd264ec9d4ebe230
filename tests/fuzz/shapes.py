"""Operations on axes, batch and space included, with literal numbers and with computed ones."""

from collections.abc import Callable, Sequence

import numpy as np

from tests.fuzz.net import FLOATS, LITERALS, Net, Shape, Value


def crop(net: Net, x: Value) -> None:
    """A Slice with literal bounds, of either sign, of any axes; now and then backwards."""
    if not x.rank:
        return
    axes = sorted({net.pick(range(x.rank)) for _ in range(net.pick((1, 1, 2)))})
    bounds = [_bounds(net) for _ in axes]
    slices = [slice(None)] * x.rank
    for axis, (first, last, step) in zip(axes, bounds, strict=True):
        # A bound below every index stands for "before the first", which Python has no number for.
        slices[axis] = slice(first, None if last < -(2**30) else last, step)
    shapes = [np.empty(shape, np.bool_)[tuple(slices)].shape for shape in x.shapes]
    if net.fits(shapes):
        firsts, lasts, steps = zip(*bounds, strict=True)
        net.add("Slice", [x, *(net.whole(*n) for n in (firsts, lasts, axes, steps))], shapes)


def _bounds(net: Net) -> tuple[int, int, int]:
    """First, last and step of a Slice of one axis."""
    if net.chance(0.15):
        return net.pick((-1, 3, 6, 2**31 - 1)), net.pick((-(2**31), 0, 1)), -1
    first = net.pick((0, 0, 1, 2, -1, -2, -4, 3))
    last = net.pick((*LITERALS, *LITERALS, -1, -2, 2**31 - 1, 2**63 - 1))
    return first, last, net.pick((1, 1, 1, 1, 2))


def gather(net: Net, x: Value) -> None:
    """Rows by literal index, of any axis, of the batch too."""
    if not x.rank:
        return
    axis = net.pick(range(x.rank))
    least = min(shape[axis] for shape in x.shapes)
    count = net.pick((0, 1, 2, 3))
    rows = [int(net.random.integers(-least, least)) for _ in range(max(1, count))]
    if net.chance(0.3) and count == 3 and least >= 3:
        rows = [0, 1, 2]
    index = net.constant(np.array(rows[0] if count == 0 else rows, np.int64))
    middle = (count,) if count else ()
    shapes = [(*shape[:axis], *middle, *shape[axis + 1 :]) for shape in x.shapes]
    if net.fits(shapes):
        net.add("Gather", [x, index], shapes, axis=axis)


def pad(net: Net, x: Value) -> None:
    """A Pad by literal numbers, which may crop, of any axes."""
    if x.dtype not in ("float32", "float64") or x.rank < 1:
        return
    mode = net.pick(("constant", "constant", "constant", "edge", "reflect"))
    least = 0 if mode != "constant" else -2
    pads = [0] * (2 * x.rank)
    for _ in range(net.pick((1, 2, 3))):
        pads[int(net.random.integers(2 * x.rank))] = int(net.random.integers(least, 3))
    shapes = [tuple(n + pads[i] + pads[i + x.rank] for i, n in enumerate(shape)) for shape in x.shapes]
    lowest = min(min(shape) for shape in x.shapes)
    if not net.fits(shapes) or (mode == "reflect" and max(pads) >= lowest):
        return
    inputs: list[Value | str] = [x, net.whole(*pads)]
    if mode == "constant" and net.chance(0.4):
        inputs.append(net.scalar(net.pick((0.0, 1.0, -0.5)), x.dtype))
    net.add("Pad", inputs, shapes, mode=mode)


def transpose(net: Net, x: Value) -> None:
    """Axes in another order."""
    if x.rank > 1:
        order = [int(axis) for axis in net.random.permutation(x.rank)]
        net.add("Transpose", [x], [tuple(shape[axis] for axis in order) for shape in x.shapes], perm=order)


def reshape(net: Net, x: Value) -> None:
    """A Reshape with literal numbers, zeros and a -1."""
    if not x.rank:
        return
    literal = net.pick(LITERALS)
    targets = [
        (-1,),
        (-1, literal),
        (literal, -1),
        (1, -1),
        (0, -1),
        (0, literal, -1),
        (0, 0, -1),
        (1, literal, -1),
    ]
    if x.rank > 1:
        targets += [(0, 0, -1, 1), (-1, *(x.fixed(axis) or 0 for axis in range(1, x.rank)))]
    target = net.pick([t for t in targets if all(n != 0 or i < x.rank for i, n in enumerate(t))])
    try:
        shapes = [_reshaped(shape, target) for shape in x.shapes]
    except ValueError:
        return
    if net.fits(shapes):
        net.add("Reshape", [x, net.whole(*target)], shapes)


def _reshaped(shape: Shape, target: Sequence[int]) -> Shape:
    """As ONNX has it; ValueError where it does not divide."""
    wanted = [shape[i] if n == 0 else n for i, n in enumerate(target)]
    return np.empty(shape, np.bool_).reshape(wanted).shape


def flatten(net: Net, x: Value) -> None:
    """A Flatten at any axis."""
    axis = int(net.random.integers(x.rank + 1))
    shapes = [(int(np.prod(shape[:axis])), int(np.prod(shape[axis:]))) for shape in x.shapes]
    if net.fits(shapes):
        net.add("Flatten", [x], shapes, axis=axis)


def unit(net: Net, x: Value) -> None:
    """One axis of extent 1 more, or less."""
    ones = [axis for axis in range(x.rank) if x.fixed(axis) == 1]
    less = bool(ones) and net.chance(0.6)
    axis = net.pick(ones) if less else int(net.random.integers(x.rank + 1))
    if not less and x.rank > 4:
        return
    kind = "Squeeze" if less else "Unsqueeze"
    middle = () if less else (1,)
    shapes = [(*shape[:axis], *middle, *shape[axis + less :]) for shape in x.shapes]
    if net.model.opset >= 13:
        net.add(kind, [x, net.whole(axis)], shapes)
    else:
        net.add(kind, [x], shapes, axes=[axis])


def expand(net: Net, x: Value) -> None:
    """An Expand to literal numbers, which do nothing where they are 1 or what is there."""
    extents = [net.pick((1, 1, 2, *((x.fixed(axis),) if x.fixed(axis) else ()))) for axis in range(x.rank)]
    if net.chance(0.2) and x.rank < 4:
        extents.insert(0, net.pick((1, 2)))
    try:
        shapes = [np.broadcast_shapes(shape, tuple(extents)) for shape in x.shapes]
    except ValueError:
        return
    if extents and net.fits(shapes):
        net.add("Expand", [x, net.whole(*extents)], shapes)


def tile(net: Net, x: Value) -> None:
    """A Tile by literal numbers."""
    repeats = [net.pick((1, 1, 1, 2)) for _ in range(x.rank)]
    shapes = [tuple(n * r for n, r in zip(shape, repeats, strict=True)) for shape in x.shapes]
    if repeats and net.fits(shapes):
        net.add("Tile", [x, net.whole(*repeats)], shapes)


def resize(net: Net, x: Value) -> None:
    """Twice the size, by the nearest pixel."""
    if x.rank == 4 and x.dtype == "float32":
        shapes = [(*shape[:2], *(2 * n for n in shape[2:])) for shape in x.shapes]
        if net.fits(shapes):
            scales = net.constant(np.array([1, 1, 2, 2], np.float32))
            region = net.constant(np.array([], np.float32)) if net.model.opset < 13 else ""
            modes = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
            net.add("Resize", [x, region, scales], shapes, mode="nearest", **modes)


def shuffle(net: Net, x: Value) -> None:
    """Channels into space, or space into channels."""
    channels = x.fixed(1) if x.rank == 4 and x.dtype == "float32" else None
    if channels is None:
        return
    if channels % 4 == 0:
        shapes = [(s[0], channels // 4, 2 * s[2], 2 * s[3]) for s in x.shapes]
        net.add("DepthToSpace", [x], shapes, blocksize=2, mode=net.pick(("DCR", "CRD")))
    elif all(n % 2 == 0 for shape in x.shapes for n in shape[2:]):
        net.add(
            "SpaceToDepth", [x], [(s[0], 4 * channels, s[2] // 2, s[3] // 2) for s in x.shapes], blocksize=2
        )


def extent(net: Net, x: Value, axis: int) -> Value:
    """One extent of a value, as a list of one number."""
    whole = net.add("Shape", [x], [(x.rank,)] * net.model.places, "int64")
    return net.add("Gather", [whole, net.whole(axis)], [(1,)] * net.model.places, axis=0)


def reshape_computed(net: Net, x: Value) -> None:
    """A Reshape to a shape that is computed: extents of the value beside literal numbers and a -1."""
    if x.rank < 2:
        return
    kept = net.pick(range(1, x.rank))
    one = [(1,)] * net.model.places
    parts: list[Value | str] = [extent(net, x, axis) for axis in range(kept)]
    shapes: list[Shape] = [shape[:kept] for shape in x.shapes]
    if net.chance(0.3):
        literal = net.pick((1, 2, 3))
        if any(shape[0] % literal for shape in x.shapes):
            return
        parts[0] = net.add("Div", [parts[0], net.whole(literal)], one, "int64")
        shapes = [(shape[0] // literal, *shape[1:]) for shape in shapes]
    parts.append(net.whole(-1))
    target = net.add("Concat", parts, [(kept + 1,)] * net.model.places, "int64", axis=0)
    full = [
        (*shape, int(np.prod(old)) // int(np.prod(shape)))
        for shape, old in zip(shapes, x.shapes, strict=True)
    ]
    if net.fits(full):
        net.add("Reshape", [x, target], full)


def crop_computed(net: Net, x: Value) -> None:
    """A Slice whose bound is half an extent, or an extent less a literal number."""
    if x.rank < 2:
        return
    axis = net.pick(range(x.rank))
    kind, by = net.pick((("Div", 2), ("Sub", 1), ("Sub", 2), ("Add", 1)))
    shapes = []
    for shape in x.shapes:
        n = shape[axis]
        last = {"Div": n // 2, "Sub": n - by, "Add": n}[kind]
        shapes.append((*shape[:axis], last, *shape[axis + 1 :]))
    if net.fits(shapes):
        one = [(1,)] * net.model.places
        end = net.add(kind, [extent(net, x, axis), net.whole(by)], one, "int64")
        net.add("Slice", [x, net.whole(0), end, net.whole(axis)], shapes)


def fill(net: Net, x: Value) -> None:
    """Constants of the shape of a value: ConstantOfShape, Expand, and arithmetic with them."""
    if x.dtype not in FLOATS or not x.rank:
        return
    whole = net.add("Shape", [x], [(x.rank,)] * net.model.places, "int64")
    one = net.constant(np.array(net.pick((0.0, 1.0, 2.0)), x.dtype))
    made = net.add("Expand", [one, whole], x.shapes, x.dtype)
    net.add(net.pick(("Add", "Mul")), [x, made], x.shapes)


def where(net: Net, x: Value) -> None:
    """A choice between two values by constants."""
    others = [v for v in net.values if v.like(x)]
    if x.dtype in ("float32", "int64") and x.rank:
        columns = x.fixed(-1) or 1
        chosen = net.constant(net.random.random(columns) < net.pick((0.5, 1.0)))
        net.add("Where", [chosen, x, net.pick(others)], x.shapes, x.dtype)


AXES: tuple[Callable[[Net, Value], None], ...] = (
    crop, crop, crop, gather, gather, pad, pad, transpose, reshape, reshape, reshape, flatten, unit, expand,
    tile, resize, shuffle, reshape_computed, crop_computed, fill, where,
)  # fmt: skip

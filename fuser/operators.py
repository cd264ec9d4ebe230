"""What ONNX operators are as forms: the own reading of the standard by `recheck`.

Of most linear operators the reference of ONNX tells what they are, evaluated in float64 on inputs that show
it: three points for a scale and a shift, numbers that all differ for what moves, unit vectors for a matrix.
So there is no rule here to get wrong, and none that the compiler has too. Convolutions and pools are read
from their attributes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper
from onnx.reference import ReferenceEvaluator

from fuser.affine_forms import FAR, Form, Leaf, after, line, plus, read_off, stack, times
from fuser.conv import Conv, average_pool
from fuser.errors import Declined, require
from fuser.lazy import defer

Shape = tuple[Any, ...] | None
Arrays = list[NDArray[Any]]

UNITS: Final = {1: 2.0**-24, 10: 2.0**-11, 11: 2.0**-53, 16: 2.0**-8}
"""The roundoff of floating types, by the number that ONNX has for them."""
SUMS: Final = {"Add", "Sub", "Sum", "Mean"}
POINTWISE: Final = {"Add", "Sub", "Mul", "Div", "Neg", "BatchNormalization", "LeakyRelu", "PRelu"}
SAME: Final = {"Identity", "Dropout", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Expand", "Tile"}
MOVING: Final = {"Pad", "Slice", "Split", "Gather", "Transpose"}
FACTORS: Final = {"Mul", "Conv", "ConvTranspose", "Gemm", "MatMul"}
"""Linear in one input as long as the others do not vary."""
FIRST: Final = SAME | MOVING | {"Div", "Neg", "BatchNormalization", "AveragePool", "GlobalAveragePool"}
LINEAR: Final = {
    **dict.fromkeys(FIRST, frozenset({0})),
    **dict.fromkeys(("ScatterND", "ScatterElements"), frozenset({0, 2})),
    "Where": frozenset({1, 2}),
}
"""The inputs in which an operator is linear, all of them together."""
FARTHEST: Final = 1 << 12
"""Larger numbers in a slice are not tried at extents that are not known."""


@dataclass(frozen=True, eq=False)
class Constant:
    """A tensor that is known; `depth` operators of the graph made it, each of which rounds."""

    kind: int
    shape: tuple[int, ...]
    load: Callable[[], NDArray[Any]]
    depth: int = 0

    @property
    def wide(self) -> NDArray[Any]:
        """The values, floating ones in float64."""
        return self.load().astype(np.float64) if self.kind in UNITS else self.load()


def evaluator(
    nodes: Sequence[onnx.NodeProto], given: Mapping[str, NDArray[Any]], wanted: Sequence[str], opsets: Any
) -> ReferenceEvaluator:
    """The reference of ONNX for some nodes, fed with arrays of the types of those `given`."""
    types = {name: helper.np_dtype_to_tensor_dtype(array.dtype) for name, array in given.items()}
    inputs = [helper.make_tensor_value_info(name, kind, None) for name, kind in types.items()]
    outputs = [onnx.ValueInfoProto(name=name) for name in wanted if name]
    model = helper.make_model(helper.make_graph(nodes, "part", inputs, outputs), opset_imports=opsets)
    return ReferenceEvaluator(model)


def answered(run: Callable[[], Any], what: str) -> Arrays:
    """What an evaluation returns.

    Raises:
        Declined: it fails.
    """
    try:
        with np.errstate(all="ignore"):
            return [np.asarray(array) for array in run()]
    except Exception as error:
        raise Declined(f"{what} cannot be evaluated: {error}") from error


@dataclass(frozen=True)
class Call:
    """A node with what it reads: constants, forms and leaves, None where it is absent or not known.

    `shapes` are those of its inputs, `types` their elements', `made` the shape of its first output; `stored`
    is 1 where what a constant of the file holds was rounded when it was written.
    """

    node: onnx.NodeProto
    inputs: tuple[Any, ...]
    types: tuple[int, ...]
    shapes: tuple[Shape, ...]
    made: Shape
    opsets: Any
    stored: int

    @property
    def kind(self) -> str:
        """The operator."""
        return self.node.op_type

    @property
    def data(self) -> list[int]:
        """The inputs that are forms or leaves."""
        return [index for index, value in enumerate(self.inputs) if isinstance(value, Leaf | Form)]

    @property
    def constants(self) -> list[Constant]:
        """The inputs that are known."""
        return [value for value in self.inputs if isinstance(value, Constant)]

    @property
    def unit(self) -> float:
        """The roundoff of the constants."""
        return max((UNITS.get(constant.kind, 0.0) for constant in self.constants), default=0.0)

    @property
    def depth(self) -> int:
        """How often the constants were rounded."""
        return self.stored + max((constant.depth for constant in self.constants), default=0)

    def get(self, name: str, default: Any) -> Any:
        """An attribute."""
        for entry in self.node.attribute:
            require(not entry.ref_attr_name, f"{entry.name} is given by the enclosing function")
            if entry.name == name:
                value = helper.get_attribute_value(entry)
                return value.decode() if isinstance(value, bytes) else tuple(value) if entry.ints else value
        return default

    def form(self, index: int) -> Form:
        """An input that is no constant."""
        require(
            index < len(self.inputs) and isinstance(self.inputs[index], Leaf | Form),
            f"{self.kind} of a constant",
        )
        return as_form(self.inputs[index])

    def constant(self, index: int) -> Constant | None:
        """An input that is constant, or absent."""
        value = self.inputs[index] if index < len(self.inputs) else None
        require(value is None or isinstance(value, Constant), f"input {index} of {self.kind} is not constant")
        return value

    def shape(self) -> tuple[Any, ...]:
        """The shape of its only data."""
        shape = self.shapes[self.data[0]] if len(self.data) == 1 else None
        value = self.inputs[self.data[0]] if len(self.data) == 1 else None
        if shape is None and isinstance(value, Form) and value.place is not None and value.place[0] == 1:
            shape = (None, len(value.bias), *(None,) * value.place[1])
        require(bool(shape), f"{self.kind} of {len(self.data)} values whose shapes are {self.shapes}")
        return shape or ()

    def answer(self, data: NDArray[Any] | None = None) -> Arrays:
        """What the node makes of its constants, and of `data`, in float64."""
        arrays = [c.wide if isinstance(c, Constant) else None if c is None else data for c in self.inputs]
        feeds = {n: a for n, a in zip(self.node.input, arrays, strict=True) if n and a is not None}

        def run() -> Arrays:
            return list(evaluator([self.node], feeds, self.node.output, self.opsets).run(None, feeds))

        results = iter(answered(run, self.kind))
        return [next(results) if name else np.zeros(0) for name in self.node.output]


def as_form(value: Any) -> Form:
    """A leaf or form as a form."""
    return value if isinstance(value, Form) else Form({value: (1.0, 1.0)})


def plain(value: Any) -> Any:
    """A form that is no more than a leaf as that leaf."""
    if not isinstance(value, Form) or len(value.terms) != 1 or value.bias.any():
        return value
    ((leaf, (own, _)),) = value.terms.items()
    bare = own.pointwise and bool((own.weight == 1.0).all()) if isinstance(own, Conv) else own == 1.0
    return leaf if bare else value


def window(call: Call, size: Sequence[int]) -> dict[str, Any]:
    """Stride, dilation and pads, `auto_pad` resolved."""
    n, auto = len(size), call.get("auto_pad", "NOTSET")
    stride, dilation = call.get("strides", (1,) * n), call.get("dilations", (1,) * n)
    pads = call.get("pads", (0,) * 2 * n)
    if auto.startswith("SAME"):
        shape = call.shape()[2:]
        require(
            all(isinstance(m, int) for m in shape) and call.kind != "ConvTranspose",
            "auto_pad at an unknown extent",
        )
        axes = zip(shape, stride, size, dilation, strict=True)
        total = [max(0, (-(-m // s) - 1) * s + (k - 1) * d + 1 - m) for m, s, k, d in axes]
        sides = [t // 2 for t in total], [t - t // 2 for t in total]
        pads = (*sides[auto == "SAME_LOWER"], *sides[auto == "SAME_UPPER"])
    return {"stride": stride, "dilation": dilation, "begin": pads[:n], "end": pads[n:]}


def convolved(call: Call) -> Form:
    """Conv and ConvTranspose."""
    weight, bias, groups = call.constant(1), call.constant(2), call.get("group", 1)
    assert weight is not None
    rows, columns, *size = weight.shape
    geometry, shape, transposed = window(call, size), weight.shape, call.kind == "ConvTranspose"
    stated = call.get("kernel_shape", tuple(size))
    require(stated == tuple(size), f"kernel_shape {stated} is not that of the weight, {size}")
    if transposed:
        shape = (columns * groups, rows // groups, *size)
        require(not call.get("output_shape", ()), "the pads follow from the output's shape")
        more = call.get("output_padding", (0,) * len(size))
        geometry["end"] = tuple(end - n for end, n in zip(geometry["end"], more, strict=True))

    def kernel() -> NDArray[Any]:
        blocks = weight.wide.reshape(groups, rows // groups, columns, *size) if transposed else weight.wide
        return blocks.swapaxes(1, 2).reshape(shape) if transposed else blocks

    shift = np.zeros(shape[0]) if bias is None else bias.wide
    conv = Conv(defer(shape, kernel), shift, groups=groups, transposed=transposed, **geometry)
    return after(conv, call.form(0), prod(shape[1:]) + 1, call.unit, call.depth)


def multiplied(call: Call) -> Form:
    """Gemm and MatMul by a matrix: what they make of the unit vectors."""
    weight = call.constant(1)
    require(
        weight is not None and len(weight.shape) == 2 and not call.get("transA", 0),
        f"{call.kind} by no matrix",
    )
    assert weight is not None
    channels = weight.shape[call.get("transB", 0)]
    (bias,), (far,) = call.answer(np.zeros((1, channels))), call.answer(np.eye(channels) * FAR)
    require(bias.shape == (1, far.shape[-1]), f"a bias of {bias.shape}")
    return after(
        Conv.of((far - bias).T / FAR, bias[0], axis=-1), call.form(0), channels + 3, call.unit, call.depth
    )


def pooled(call: Call) -> Form:
    """AveragePool that counts padding."""
    size = call.get("kernel_shape", ())
    geometry = window(call, size)
    counted = call.get("count_include_pad", 0) or not any(geometry["begin"] + geometry["end"])
    require(counted and not call.get("ceil_mode", 0), "padding is not counted")
    require(isinstance(call.shape()[1], int), f"the channels of {call.shape()} are not known")
    return after(average_pool(call.shape()[1], size, **geometry), call.form(0), prod(size) + 1, 0.0, 0)


def added(call: Call) -> Form:
    """A sum of several values."""
    total = call.form(0)
    for index, shape in enumerate(call.shapes[1:], start=1):
        term = times(call.form(index), -1.0 if call.kind == "Sub" else 1.0)
        total = plus(total, term, same=shape == call.shapes[0] and None not in (shape or (None,)))
    return times(total, 1.0 / len(call.inputs)) if call.kind == "Mean" else total


def places(call: Call) -> list[tuple[int, int]]:
    """Channel axis and number of spatial axes: what the form has, or what its shape allows."""
    form, rank = call.form(call.data[0]), len(call.shape())
    images, rows = [(1, rank - 2)] * (rank > 2), [(-1, 0)]
    return [form.place] if form.place else images + rows if rank > 3 else rows + images


def scaled(call: Call) -> Form:
    """A scale and a shift of each channel."""
    shape, form = call.shape(), call.form(call.data[0])
    for place in (p for p in places(call) if isinstance(shape[p[0]], int)):
        probe = np.ones([shape[a] if a == place[0] % len(shape) else 1 for a in range(len(shape))])
        first, far, near = (call.answer(probe * x)[0] for x in (0.0, FAR, -FAR))
        if first.shape == probe.shape:
            return line(form, place, (first, far, near), call.unit, call.depth)
    raise Declined(f"{call.kind} does not act on the channels of {shape}")


def moved(call: Call) -> list[Form]:
    """What pads, crops, skips and picks channels, whatever the extents that are not known."""
    shape, form = call.shape(), call.form(call.data[0])
    numbers = [
        n for c in call.inputs if isinstance(c, Constant) and c.kind == 7 for n in np.abs(c.load()).ravel()
    ]
    far = int(max((n for n in numbers if 0 <= n < 1 << 31), default=0))
    require(far < 1 << 12 or all(isinstance(n, int) for n in shape), f"{far} at an unknown extent")
    refused = Declined("no channels")
    for place in places(call):
        found = []
        try:
            for size in (far + 5, 2 * far + 12):
                x = np.arange(
                    1.0,
                    prod(dims := [n if isinstance(n, int) else size + i for i, n in enumerate(shape)]) + 1,
                )
                answers = zip(call.answer(x.reshape(dims)), call.answer(np.zeros(dims)), strict=True)
                found.append([read_off(x.reshape(dims), y, level, place) for y, level in answers])
            require(found[0] == found[1], "what is moved depends on the extent")
            return [after(conv, form, 0, 0.0, 0) for conv in found[0]]
        except Declined as reason:
            refused = reason
    raise refused


def lifted(call: Call) -> list[Any]:
    """The outputs of a node as forms; `Declined` where it has none."""
    kind, shape = call.kind, call.shapes[0]
    if kind in MOVING:
        return list(moved(call))
    if kind in {"Conv", "ConvTranspose", "Gemm", "MatMul", "AveragePool"}:
        return [(convolved if "Conv" in kind else pooled if kind == "AveragePool" else multiplied)(call)]
    if kind == "Concat" and len(call.inputs) > 1:
        axis, rank = call.get("axis", 1), len(shape or ())
        place = (
            (-1, 0)
            if axis in (-1, rank - 1) and (rank != 3 or call.form(0).place != (1, 1))
            else (1, rank - 2)
        )
        sizes: list[Any] = [dims[axis] if dims else None for dims in call.shapes]
        require(
            axis in (place[0], rank - 1) and all(isinstance(n, int) for n in sizes),
            f"axis {axis} of {call.shapes}",
        )
        return [stack([call.form(index) for index in range(len(sizes))], sizes, place)]
    if kind in SUMS | POINTWISE:
        return [added(call) if kind in SUMS and len(call.data) > 1 else scaled(call)]
    training = call.constant(2) if kind == "Dropout" else None
    target = call.get("to", 0) == call.types[0]
    known = shape is not None and None not in shape and shape == call.made
    unchanged = (
        training is None or not training.wide.any()
        if kind in {"Identity", "Dropout"}
        else target
        if kind == "Cast"
        else known
    )
    require(kind in SAME | {"Concat"} and unchanged, f"{kind} is not linear")
    return [call.form(0)]

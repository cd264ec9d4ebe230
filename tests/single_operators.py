"""Models of one operator each, its attributes off their defaults, and what they compute at many extents."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

Random = np.random.Generator
Shape = tuple[int | str, ...] | None
LARGE: Final = np.iinfo(np.int64).max
IMAGES: Final[list[Shape]] = [
    *[("N", 4, "H", "W")] * 4,
    (2, 4, "H", "W"),
    ("N", 4, 5, "W"),
    (4, 4, 4, 4),
    ("N", "C", "H", "W"),
    ("N", 1, "H", "W"),
    None,
]
ANY: Final[list[Shape]] = [*IMAGES, ("N", 4), (4,), ("N",), (4, 4), ("N", 4, "H"), ("N", "H", 4), (2, 4, 5)]
EXTENTS: Final = [
    {"N": 2, "C": 4, "H": 1, "W": 13},
    {"N": 1, "C": 4, "H": 2, "W": 9},
    {"N": 4, "C": 1, "H": 3, "W": 11},
    {"N": 3, "C": 3, "H": 4, "W": 4},
    {"N": 2, "C": 4, "H": 5, "W": 8},
    {"N": 2, "C": 4, "H": 8, "W": 5},
    {"N": 1, "C": 2, "H": 13, "W": 1},
]
OPTIONS: Final = onnxruntime.SessionOptions()
OPTIONS.log_severity_level = 4
OPTIONS.intra_op_num_threads = 1


@dataclass(frozen=True)
class Drawn:
    """An operator; each of its inputs is an array, or None for the value, or "" for none."""

    kind: str
    attributes: dict[str, Any]
    inputs: list[Any]
    shape: Shape = ("N", 4, "H", "W")
    outputs: int = 1
    opset: int = 17
    element: int = TensorProto.DOUBLE
    domain: str = ""

    def model(self, element: int | None = None) -> onnx.ModelProto:
        """The model; `element` takes the place of what is float64 in it."""
        kind = element or self.element
        names = [
            "x" if array is None else array if isinstance(array, str) else f"c{index}"
            for index, array in enumerate(self.inputs)
        ]
        tensors = [
            numpy_helper.from_array(typed(array, element), name)
            for array, name in zip(self.inputs, names, strict=True)
            if isinstance(array, np.ndarray)
        ]
        made = ["y", *(f"y{index}" for index in range(1, self.outputs))]
        said = {name: value for name, value in self.attributes.items() if value != []}
        node = helper.make_node(self.kind, names, made, domain=self.domain, **said)
        ends = [helper.make_tensor_value_info("x", kind, self.shape)]
        results = [onnx.ValueInfoProto(name=name) for name in made]
        if self.kind != "Cast":
            results[0] = helper.make_tensor_value_info("y", kind, None)
        graph = helper.make_graph([node], "one", ends, results, tensors)
        opsets = [helper.make_opsetid("", self.opset)]
        if self.domain:
            opsets.append(helper.make_opsetid(self.domain, 1))
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)

    def behind(self, first: "Drawn", shape: Shape = None) -> onnx.ModelProto:
        """The model in which this reads what `first` makes, of which a shape is stated."""
        model, mine = first.model(), self.model()
        names = {"x": "y", "y": "z", **{f"y{index}": f"z{index}" for index in range(self.outputs)}}
        for tensor in mine.graph.initializer:
            names[tensor.name] = tensor.name = f"d{tensor.name}"
        node = mine.graph.node[0]
        for ends in (node.input, node.output):
            ends[:] = [names.get(name, name) for name in ends]
        model.graph.node.append(node)
        model.graph.initializer.extend(mine.graph.initializer)
        if shape is not None:
            model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", self.element, shape))
        made = model.graph.output.add()
        made.CopyFrom(mine.graph.output[0])
        made.name = "z"
        return model

    def answers(self, x: Any) -> list[Any] | None:
        """What it makes of an array; None where it makes nothing of it.

        The reference of ONNX has no pads that crop, is wrong about groups of ConvTranspose, and trains all
        BatchNormalization of before version 14: there onnxruntime computes it, in float32.
        """
        if self.attributes.get("group") == 0:
            return None  # onnxruntime divides by it, and takes the process with it
        known = self.attributes.get("group", 1) == 1 or self.kind == "Conv"
        known = known and (self.opset > 13 or self.kind != "BatchNormalization")
        try:
            if known:
                return list(ReferenceEvaluator(self.model()).run(None, {"x": x}))
        except Exception:  # noqa: BLE001  # whatever it stumbles over, in ways of its own
            known = False
        double = self.element == TensorProto.DOUBLE
        try:
            proto = self.model(TensorProto.FLOAT if double else None).SerializeToString()
            session = onnxruntime.InferenceSession(proto, OPTIONS, providers=["CPUExecutionProvider"])
            return list(session.run(None, {"x": x.astype(np.float32) if double else x}))
        except Exception:  # noqa: BLE001  # onnxruntime has one class for each reason, and no base of them
            return None

    def values(self) -> Iterator[Any]:
        """Arrays that the value may be."""
        for extents in EXTENTS:
            shapes = [(2, 4, 5, 6), (3, 4), (4, 4, 3)] if self.shape is None else [self.shape]
            for shape in shapes:
                sizes = [n if isinstance(n, int) else extents[n] for n in shape]
                x = np.random.default_rng(sizes).integers(-5, 6, sizes)
                yield x.astype(np.int64 if self.element == TensorProto.INT64 else np.float64)
            if self.shape is None or all(isinstance(n, int) for n in self.shape):
                return


def typed(array: Any, element: int | None) -> Any:
    return array.astype(np.float32) if element and array.dtype == np.float64 else array


def whole(random: Random, *shape: int) -> Any:
    return random.integers(-4, 5, shape).astype(np.float64)


def some(random: Random, low: int, high: int, count: int) -> list[int]:
    return [int(n) for n in random.integers(low, high, count)]


def one(random: Random, *of: Any) -> Any:
    return of[int(random.integers(len(of)))]


def maybe(random: Random, name: str, value: Any, part: float = 0.3) -> dict[str, Any]:
    """An attribute, so often."""
    return {name: value} if random.random() < part else {}


def convolution(random: Random) -> Drawn:
    groups, transposed = one(random, 1, 1, 1, 2, 2, 2, 0, 3), bool(random.integers(3) == 0)
    rank, shape = 2, one(random, *IMAGES)
    if random.random() < 0.1:
        rank, shape = one(random, (1, ("N", 4, "H")), (0, ("N", 4)))
    size = some(random, 1, 4, rank)
    kernel = whole(random, 4, one(random, 1, 2) if transposed else 4 // max(groups, 1), *size)
    attributes = {"strides": some(random, 1, 4, rank), "group": groups}
    attributes |= maybe(random, "dilations", some(random, 1, 3, rank), 0.5)
    attributes |= maybe(random, "kernel_shape", one(random, size, size, [n + 1 for n in size], []))
    auto = one(random, "SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET", "NOTSET", "NOTSET")
    attributes |= (
        {"pads": some(random, 0, 2 if transposed else 3, 2 * rank)}
        if auto == "NOTSET"
        else {"auto_pad": auto}
    )
    if auto.startswith("SAME"):
        attributes["strides"] = one(random, [1] * rank, attributes["strides"])
    if transposed:
        attributes |= maybe(random, "output_padding", [min(n - 1, 1) for n in attributes["strides"]])
        attributes |= maybe(random, "output_shape", some(random, 5, 9, rank), 0.1)
    bias = [whole(random, kernel.shape[1] * groups if transposed else 4)] if random.integers(3) else []
    return Drawn("Conv" + "Transpose" * transposed, attributes, [None, kernel, *bias], shape)


def pool(random: Random) -> Drawn:
    size = some(random, 2, 4, 2)
    attributes = {"kernel_shape": size, **maybe(random, "strides", some(random, 1, 3, 2), 0.7)}
    auto = one(random, "SAME_UPPER", "SAME_LOWER", "VALID", *["NOTSET"] * 5)
    pads = [int(random.integers(n)) for n in (*size, *size)]
    attributes |= {"pads": pads} if auto == "NOTSET" else {"auto_pad": auto}
    attributes |= maybe(random, "count_include_pad", int(random.integers(2)), 0.8)
    attributes |= maybe(random, "ceil_mode", int(random.integers(2)))
    opset = one(random, 11, 17, 19)
    if opset > 18 and auto == "NOTSET":  # with auto_pad the reference of ONNX forgets them
        attributes |= maybe(random, "dilations", some(random, 1, 3, 2))
    return Drawn("AveragePool", attributes, [None], one(random, *IMAGES), opset=opset)


def norm(random: Random) -> Drawn:
    arrays = [whole(random, 4) for _ in range(3)]
    inputs = [None, *arrays, np.abs(whole(random, 4)) + 0.5]
    attributes, opset = maybe(random, "epsilon", 0.5, 0.7), one(random, 9, 15, 17)
    outputs, shape = 1, one(random, *ANY)
    if opset > 13:
        attributes |= maybe(random, "training_mode", int(random.integers(2)))
        outputs = one(random, 1, 3) if attributes.get("training_mode") else 1
    elif random.integers(3) == 0:
        outputs = 5
    return Drawn("BatchNormalization", attributes, inputs, shape, outputs, opset)


def elementwise(random: Random) -> Drawn:
    kind, shape = one(random, "Add", "Sub", "Mul", "Div", "Sum", "Mean"), one(random, *ANY)
    sizes = [(), (1,), (1, 1), (4,), (4, 1), (5, 1), (1, 1, 1, 5), (5,), (2, 4, 1, 1), (4, 1, 1, 1), (1, 4)]
    sizes += [
        (4, 4),
        (1, 1, 1, 1, 1),
        (1, 4, 1),
        *[(4, *(1,) * (4 if shape is None else len(shape)))[:-2]] * 9,
    ]
    array = whole(random, *one(random, *sizes)) + 0.5
    return Drawn(kind, {}, one(random, [array, None], [None, array]), shape)


def integers(random: Random) -> Drawn:
    """Division rounds, and sums are exact."""
    kind, shape = (
        one(random, "Add", "Sub", "Mul", "Div", "Sum"),
        one(random, ("N", 4), ("N", 4, "H", "W"), (4,)),
    )
    array = random.integers(2, 9, one(random, (), (1,), (1, 1)))
    inputs = one(random, [array, None], [None, array], [None, None])
    return Drawn(kind, {}, inputs, shape, element=TensorProto.INT64)


def crop(random: Random) -> Drawn:
    shape = one(random, *ANY)
    rank = 4 if shape is None else len(shape)
    axes = random.permutation(rank)[: int(random.integers(1, 3))]
    starts = random.choice([0, 0, 1, 2, 5, -1, -3], len(axes))
    ends = np.where(random.integers(2, size=len(axes)), LARGE, random.choice([0, 2, 3, 5, -1, -2], len(axes)))
    steps = random.choice([1, 1, 2, 3, 7, -1, -2], len(axes))
    ends = np.where((steps < 0) & (random.integers(2, size=len(axes)) > 0), -LARGE, ends)
    axes = np.where(random.integers(3, size=len(axes)) == 0, axes - rank, axes)
    if random.integers(4) == 0:
        names = {"starts": starts.tolist(), "ends": ends.tolist()}
        return Drawn("Slice", names | maybe(random, "axes", axes.tolist(), 0.8), [None], shape, opset=9)
    return Drawn("Slice", {}, [None, starts, ends, axes, steps][: one(random, 3, 4, 5, 5)], shape)


def pad(random: Random) -> Drawn:
    shape = one(random, *ANY)
    rank = 4 if shape is None else len(shape)
    space = random.permutation(rank)
    axes = space[space > 1] if random.integers(4) else space
    if random.integers(3) == 0:
        axes = axes[:1]
    mode = one(random, "constant", "constant", "constant", "edge", "reflect")
    sides = random.integers(-1 if mode == "constant" else 0, 3, 2 * len(axes)) * (random.integers(8) > 0)
    pads = np.zeros((2, rank), np.int64)
    pads[:, axes] = sides.reshape(2, -1)
    value, opset = float(random.integers(3)), one(random, 9, 17, 18)
    names = {"mode": mode}
    if opset == 9:
        names |= {"pads": pads.reshape(-1).tolist(), **maybe(random, "value", value, 0.7)}
        return Drawn("Pad", names, [None], shape, opset=opset)
    inputs = [None, pads.reshape(-1), np.array(value)][: one(random, 2, 3)]
    if opset == 18 and random.integers(2):
        inputs = [None, sides, np.array(value), np.where(random.integers(2), axes, axes - rank)]
    return Drawn("Pad", names, inputs, shape, opset=opset)


def gathered(random: Random) -> Drawn:
    shape = one(random, *ANY)
    axis = int(random.integers(-1, 4 if shape is None else len(shape)))
    size = one(random, (3,), (3,), (1,), (), (2, 1), (2, 2))
    named = {"axis": axis} if random.integers(4) else {}
    return Drawn("Gather", named, [None, random.integers(-4, 4, size)], shape)


def parts(random: Random) -> Drawn:
    shape = one(random, *ANY)
    axis = int(random.integers(-1, 4 if shape is None else len(shape)))
    named = {"axis": one(random, 1, axis)} if random.integers(4) else {}
    sizes = one(random, [1, 3], [2, 2], [4, 0], [1, 2, 1])
    if random.integers(3) == 0:
        return Drawn("Split", named | {"split": sizes}, [None], shape, len(sizes), opset=11)
    if random.integers(2):
        many = one(random, 2, 3)
        return Drawn("Split", named | {"num_outputs": many}, [None], shape, many, opset=18)
    return Drawn("Split", named, [None, np.array(sizes)], shape, len(sizes))


def several(random: Random) -> Drawn:
    kind = one(random, "Concat", "Concat", "Add", "Sub", "Mul", "Div", "Sum", "Mean", "Max")
    shape = one(random, *ANY)
    axis = int(random.integers(-1, 4 if shape is None else len(shape)))
    inputs = [None, None]
    if kind in {"Concat", "Sum", "Mean", "Max"} and random.integers(3) == 0:
        inputs = one(random, [None], [None, None, None], [None, whole(random, 1, 4, 1, 1), None])
    return Drawn(kind, {"axis": one(random, 1, axis)} if kind == "Concat" else {}, inputs, shape)


def row(random: Random) -> Drawn:
    shape = one(
        random, ("N", 4), ("N", 4), (3, 4), (4, 4), (4, "N"), ("N", "H", 4), ("N", 4, "H", 4), (4,), None
    )
    if random.integers(2):
        turned, kernel = int(random.integers(2)), whole(random, 4, 3)
        bias = whole(random, *one(random, (3,), (3,), (1, 3), (1,), (), (3, 1), (3, 3), (4, 1), (4, 3)))
        inputs = [None, kernel.T if turned else kernel, bias][: one(random, 2, 3, 3)]
        factors = {**maybe(random, "alpha", 2.0, 0.6), **maybe(random, "beta", 3.0, 0.6)}
        return Drawn("Gemm", factors | {"transB": turned, **maybe(random, "transA", 1)}, inputs, shape)
    kernel = whole(random, *one(random, (4, 3), (4, 3), (4, 4), (4,), (1, 4, 3), (2, 4, 3), (4, 4, 4)))
    return Drawn("MatMul", {}, one(random, [None, kernel], [None, kernel], [kernel, None]), shape)


def still(random: Random) -> Drawn:
    shape, array = one(random, *ANY, (1, 1), (1, 4)), np.array
    kind = one(
        random, "Identity", "Dropout", "Cast", "Reshape", "Flatten", "Squeeze", "Expand", "Tile", "Scale"
    )
    if kind == "Dropout":
        names, trained = maybe(random, "seed", 1), array(bool(random.integers(2)))
        inputs = [None, array(0.5), trained][: one(random, 1, 2, 3, 3)]
        return Drawn(kind, names, inputs, shape, one(random, 1, 2))
    if kind == "Cast":
        element = one(random, TensorProto.DOUBLE, TensorProto.INT64)
        to = one(random, TensorProto.DOUBLE, TensorProto.INT64, TensorProto.BOOL)
        return Drawn(kind, {"to": to}, [None], shape, element=element)
    if kind == "Scale":
        return Drawn("LeakyRelu", maybe(random, "alpha", one(random, 1.0, 0.5), 0.8), [None], shape)
    inputs = {
        "Reshape": [
            None,
            array(one(random, [0, 0, -1], [-1, 4], [0, 4, -1, 1], [4, 4], [2, 4, 5], [4, 4, 4, 4])),
        ],
        "Squeeze": [None, array([one(random, 0, 2, -1)])],
        "Expand": [None, array(one(random, [1], [4, 1], [2, 4, 1, 1], [1, 4, 4], [5, 1, 1]))],
        "Tile": [None, np.ones(4 if shape is None else len(shape), np.int64) + int(random.integers(2))],
    }.get(kind, [None])
    return Drawn(kind, {}, inputs, shape)


EDGES: Final = [
    Drawn("Conv", {"group": 0}, [None, np.ones((4, 4, 1, 1))]),
    Drawn("ConvTranspose", {"group": 3}, [None, np.ones((4, 1, 2, 2))], None),
    Drawn(
        "ConvTranspose",
        {"auto_pad": "SAME_UPPER", "output_padding": [1, 1], "dilations": [2, 2]},
        [None, np.arange(36.0).reshape(4, 1, 3, 3)],
    ),
    Drawn("Gather", {"axis": 1}, [None, np.array([0, 4])]),
    Drawn("Gather", {"axis": 1}, [None, np.array([-5, 0])]),
    Drawn("Split", {"axis": 1}, [None, np.array([2, 1])], outputs=2),
    Drawn("Pad", {}, [None, np.array([0, 0])], ("N",)),
    Drawn("Slice", {}, [None, np.array([1]), np.array([LARGE]), np.array([6])]),
    Drawn("Gather", {"axis": 5}, [None, np.array([0, 1])]),
    Drawn("Concat", {"axis": -3}, [None, None], ("N", 4)),
]
"""What is drawn too seldom."""
IMAGE: Final = (2, 4, 5, 6)
SEQUENCES: Final[list[tuple[Drawn, Drawn, tuple[int, ...] | None]]] = [
    (Drawn("Conv", {}, [None, np.ones((1, 4, 1, 1))]), Drawn("Mul", {}, [None, np.ones((4, 1, 1))]), None),
    (Drawn("Identity", {}, [None], None), Drawn("Add", {}, [None, np.ones((4, 1, 1))]), (2, 1, 5, 6)),
    (
        Drawn("Conv", {}, [None, np.ones((2, 4, 1, 1))]),
        Drawn("Conv", {}, [None, np.ones((4, 4, 1, 1))]),
        None,
    ),
    (
        Drawn("Conv", {}, [None, np.ones((4, 4, 1, 1))], (2, 4, 5, 4)),
        Drawn("MatMul", {}, [None, np.arange(12.0).reshape(4, 3)]),
        None,
    ),
    (
        Drawn("Slice", {}, [None, np.array([5]), np.array([0]), np.array([2])], IMAGE),
        Drawn("Pad", {}, [None, np.array([0, 0, 0, 0, 0, 0, 2, 0])]),
        None,
    ),
    (
        Drawn("Slice", {}, [None, np.array([0]), np.array([0]), np.array([1])], IMAGE),
        Drawn("Concat", {"axis": 1}, [None, None]),
        None,
    ),
    (
        Drawn("Slice", {}, [None, np.array([0]), np.array([0]), np.array([1])], (3, 4)),
        Drawn("MatMul", {}, [None, np.ones((0, 3))]),
        None,
    ),
    (
        Drawn("Conv", {}, [None, np.arange(16.0).reshape(4, 4, 1, 1)], IMAGE),
        Drawn("Slice", {}, [None, np.array([1]), np.array([2]), np.array([-1])]),
        (2, 4, 5),
    ),
]
"""One operator behind another, and what is stated of the shape in between, right or wrong."""
DRAWS: Final[list[Callable[[Random], Drawn]]] = [
    convolution,
    pool,
    norm,
    elementwise,
    integers,
    crop,
    pad,
    gathered,
    parts,
    several,
    row,
    still,
]

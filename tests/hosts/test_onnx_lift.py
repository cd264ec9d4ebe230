"""Every lifted operator computes what onnxruntime computes, borders included; what is not exact declines."""

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from fuser.algebra.conv import Conv
from fuser.errors import Declined
from fuser.hosts.onnx.calls import read_call
from fuser.hosts.onnx.node import source
from fuser.hosts.operators.catalogue import OPERATORS
from fuser.ir.constant import Constant
from fuser.ir.node import Apply
from fuser.ir.ops import Reshape
from fuser.ir.provenance import Provenance
from fuser.recognise.lifting import Lifting
from tests.hosts.onnx_models import apply, imported, integers, lift, lifted, only, run, single

SEEDS = range(25)


class Draw:
    """Random parameters, reproducible by the seed."""

    def __init__(self, seed: int) -> None:
        self.generator = np.random.default_rng(seed)

    def one(self, *options: Any) -> Any:
        return options[int(self.generator.integers(len(options)))]

    def number(self, low: int, high: int) -> int:
        return int(self.generator.integers(low, high + 1))

    def numbers(self, count: int, low: int, high: int) -> list[int]:
        return [self.number(low, high) for _ in range(count)]


def agree(model: Any, feeds: dict[str, Any], label: str, tolerance: float = 0.0) -> None:
    """Lifted and run, the model gives the same, and the inferred shape is that of the result."""
    (expected, *_) = run(model, feeds)
    application = lifted(model)
    assert application.label == label
    np.testing.assert_allclose(apply(application, feeds), expected, rtol=tolerance, atol=tolerance)
    assert only(imported(model)).outputs[0].shape == expected.shape


@pytest.mark.parametrize("seed", SEEDS)
def test_conv(seed: int) -> None:
    draw = Draw(seed)
    rank, groups = draw.number(1, 3), draw.one(1, 1, 2, 3)
    channels, outputs = groups * draw.number(1, 2), groups * draw.number(1, 2)
    size, extent = draw.numbers(rank, 1, 3), draw.numbers(rank, 6, 9)
    attributes: dict[str, Any] = {"group": groups, "strides": draw.numbers(rank, 1, 3)}
    mode = draw.one("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID")
    if mode == "NOTSET":
        attributes |= {
            "pads": draw.numbers(2 * rank, 0, 2),
            "kernel_shape": size,
            "dilations": draw.numbers(rank, 1, 2),
        }
    else:
        attributes |= {"auto_pad": mode}
    x = integers(seed, 2, channels, *extent)
    constants = {"w": integers(seed, outputs, channels // groups, *size), "b": integers(seed, outputs)}
    inputs = ["x", "w", "b"][: draw.number(2, 3)]
    opset = draw.one(7, 11, 17, 22)
    model = single("Conv", inputs, opset=opset, given={"x": x.shape}, constants=constants, **attributes)
    agree(model, {"x": x}, "conv")


@pytest.mark.parametrize("seed", SEEDS)
def test_conv_transpose(seed: int) -> None:
    draw = Draw(seed)
    rank, groups = draw.number(1, 3), draw.one(1, 1, 2, 3)
    channels, outputs = groups * draw.number(1, 2), groups * draw.number(1, 2)
    stride = draw.numbers(rank, 1, 3)
    size, extent = [s + draw.number(0, 2) for s in stride], draw.numbers(rank, 4, 6)
    attributes: dict[str, Any] = {"group": groups, "strides": stride}
    form = draw.one("pads", "padding", "shape", "SAME_UPPER", "SAME_LOWER", "VALID")
    if form in ("pads", "padding"):
        attributes |= {"pads": draw.numbers(2 * rank, 0, 1), "dilations": draw.numbers(rank, 1, 2)}
    if form == "padding":
        attributes |= {"output_padding": [draw.number(0, s - 1) for s in stride]}
    if form == "shape":
        full = [s * (n - 1) + k for s, n, k in zip(stride, extent, size, strict=True)]
        attributes |= {
            "output_shape": [n - draw.number(0, 1) for n in full],
            "auto_pad": draw.one("NOTSET", "SAME_UPPER"),
        }
    if form in ("SAME_UPPER", "SAME_LOWER", "VALID"):
        attributes |= {"auto_pad": form}
    x = integers(seed, 2, channels, *extent)
    constants = {"w": integers(seed, channels, outputs // groups, *size), "b": integers(seed, outputs)}
    inputs = ["x", "w", "b"][: draw.number(2, 3)]
    opset = draw.one(7, 11, 17, 22)
    model = single(
        "ConvTranspose", inputs, opset=opset, given={"x": x.shape}, constants=constants, **attributes
    )
    agree(model, {"x": x}, "conv_transpose")


@pytest.mark.parametrize("seed", SEEDS)
def test_average_pool(seed: int) -> None:
    draw = Draw(seed)
    rank, opset = draw.number(1, 3), draw.one(7, 10, 19, 22)
    size, extent = draw.numbers(rank, 2, 3), draw.numbers(rank, 6, 9)
    attributes: dict[str, Any] = {
        "kernel_shape": size,
        "strides": draw.numbers(rank, 1, 2),
        "count_include_pad": 1,
    }
    mode = draw.one("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID")
    if mode == "NOTSET":
        attributes |= {"pads": [draw.number(0, k - 1) for k in size + size]}
        attributes |= {"dilations": draw.numbers(rank, 1, 2)} if opset >= 19 else {}
    else:
        attributes |= {"auto_pad": mode}
    x = integers(seed, 2, 3, *extent)
    model = single("AveragePool", ["x"], opset=opset, given={"x": x.shape}, **attributes)
    agree(model, {"x": x}, "average_pool", 1e-5)


@pytest.mark.parametrize(("extent", "exact"), [(7, True), (8, False)])
def test_average_pool_with_ceil_mode(extent: int, exact: bool) -> None:
    x = integers(0, 1, 2, extent)
    model = single("AveragePool", ["x"], given={"x": x.shape}, kernel_shape=[3], strides=[2], ceil_mode=1)
    if exact:
        agree(model, {"x": x}, "average_pool", 1e-5)
    else:
        with pytest.raises(
            Declined, match=r"ceil_mode is 1, and windows may be cut off: extent \(8,\), stride \(2,\)"
        ):
            lifted(model)


@pytest.mark.parametrize("opset", [7, 9, 14, 15, 17])
@pytest.mark.parametrize("rank", [2, 3, 4, 5])
def test_batch_normalization(opset: int, rank: int) -> None:
    generator = np.random.default_rng(rank)
    x = generator.standard_normal((2, 3, 4, 3, 2)[:rank]).astype(np.float32)
    scale, shift, mean, variance = (generator.standard_normal(3).astype(np.float32) for _ in range(4))
    constants = {"s": scale, "b": shift, "m": mean, "v": np.abs(variance) + np.float32(0.01)}
    inputs = ["x", *constants]
    model = single(
        "BatchNormalization", inputs, opset=opset, given={"x": x.shape}, constants=constants, epsilon=0.02
    )
    agree(model, {"x": x}, "batch_norm", 1e-5)
    op = lifted(model).op
    assert isinstance(op, Conv)
    assert op.axis == (-1 if rank == 2 else 1)


@pytest.mark.parametrize("seed", SEEDS)
def test_gemm(seed: int) -> None:
    draw = Draw(seed)
    m, k, n = draw.numbers(3, 1, 5)
    x, transposed, opset = integers(seed, m, k), draw.number(0, 1), draw.one(7, 9, 11, 13)
    addend = integers(seed, *draw.one((), (1,), (n,), (1, 1), (1, n)))
    constants = {"w": integers(seed, *((n, k) if transposed else (k, n))), "c": addend}
    inputs = ["x", "w", "c"][: draw.number(2, 3) if opset >= 11 else 3]
    factors = {"alpha": draw.one(1.0, 2.0, 0.5), "beta": draw.one(1.0, 2.0, 0.5)}
    shape = {"x": x.shape}
    model = single(
        "Gemm", inputs, opset=opset, given=shape, constants=constants, transB=transposed, **factors
    )
    agree(model, {"x": x}, "linear")


@pytest.mark.parametrize("lead", [(2,), (2, 3), (1, 2, 3)])
def test_matmul(lead: tuple[int, ...]) -> None:
    x = integers(0, *lead, 4)
    model = single("MatMul", ["x", "w"], given={"x": x.shape}, constants={"w": integers(1, 4, 5)})
    agree(model, {"x": x}, "linear")


def pad_model(
    opset: int, rank: int, pads: list[int], value: float | None, axes: list[int] | None = None
) -> Any:
    """A Pad in the form that `opset` wants; `pads` are those of the spatial axes."""
    half = len(pads) // 2
    full = pads if axes else [0, 0, *pads[:half], 0, 0, *pads[half:]]
    given = {"x": (2, 3, 7, 6, 5)[: 2 + rank]}
    if opset < 11:
        return single("Pad", ["x"], opset=opset, given=given, pads=full, value=value or 0.0)
    constants: dict[str, Any] = {"p": np.array(full, np.int64)}
    inputs = ["x", "p"]
    if value is not None:
        constants["v"] = np.array(value, np.float32)
        inputs.append("v")
    if axes is not None:
        constants["a"] = np.array(axes, np.int64)
        inputs += [""] * (3 - len(inputs)) + ["a"]
    return single("Pad", inputs, opset=opset, given=given, constants=constants)


@pytest.mark.parametrize("opset", [7, 10, 11, 13, 18, 21, 23])
@pytest.mark.parametrize("value", [None, 3.0])
@pytest.mark.parametrize("pads", [[1, 2, 0, 3], [-1, 2, 1, -2], [-2, 0, -1, -1]])
def test_pad(opset: int, value: float | None, pads: list[int]) -> None:
    agree(pad_model(opset, 2, pads, value), {"x": integers(0, 2, 3, 7, 6)}, "pad")


@pytest.mark.parametrize("axes", [[2, 3], [-1, -2]])
@pytest.mark.parametrize("value", [None, 2.0])
def test_pad_of_named_axes(axes: list[int], value: float | None) -> None:
    agree(pad_model(18, 2, [1, 0, 2, 3], value, axes), {"x": integers(0, 2, 3, 7, 6)}, "pad")


@pytest.mark.parametrize(
    ("value", "axes", "reason"),
    [
        (np.ones(2, np.float32), [2, 3], r"the value has shape \(2,\), and is not one number"),
        (np.float32(np.inf), [2, 3], "the value 'v' holds inf"),
        (np.float32(1), [2, 4], r"the axes \(2, 4\) are not among 4"),
    ],
)
def test_pads_that_mean_nothing(value: Any, axes: list[int], reason: str) -> None:
    constants = {"p": np.array([1, 0, 2, 3]), "v": value, "a": np.array(axes)}
    model = single("Pad", ["x", *constants], opset=18, given={"x": (2, 3, 7, 6)}, constants=constants)
    node, rule = only(imported(model)), OPERATORS["Pad"].lift
    assert rule is not None
    with pytest.raises(Declined, match=reason):
        rule(read_call(source(node), 18), node)


def test_shape_of_known_extents_is_a_constant() -> None:
    result = lift(only(imported(single("Shape", ["x"], given={"x": (2, 3, 4)}, start=1))))
    assert isinstance(result, Constant)
    assert result.array().tolist() == [3, 4]
    assert lift(only(imported(single("Shape", ["x"], given={"x": ("n", 3)})))) is None


RESHAPES: list[Any] = [
    ("Reshape", (2, 3, 4, 1), {"s": [-1, 12]}, (12,)),
    ("Reshape", ("n", 3, 4, 1), {"s": [0, 0, -1]}, (3, 4)),
    ("Reshape", (2, 3, 4, 1), {"s": [6, 4]}, (4,)),
    ("Flatten", ("n", 3, 4, 1), {}, (12,)),
    ("Squeeze", ("n", 3, 4, 1), {"a": [-1]}, (3, 4)),
    ("Unsqueeze", ("n", 3, 4, 1), {"a": [2]}, (3, 1, 4, 1)),
]


@pytest.mark.parametrize(("kind", "shape", "constants", "expected"), RESHAPES)
def test_reshapes(kind: str, shape: tuple[Any, ...], constants: dict[str, list[int]], expected: Any) -> None:
    arrays = {name: np.array(values) for name, values in constants.items()}
    model = single(kind, ["x", *arrays], given={"x": shape}, constants=arrays)
    node = only(imported(model))
    assert Lifting(Provenance()).by_rule(node) is None  # the neighbours may say that it is more
    application = lift(node)
    assert isinstance(application, Apply)
    assert application.op == Reshape(expected)
    assert isinstance(application.op, Reshape)
    x = integers(0, 2, 3, 4, 1)
    (result,) = run(model, {"x": x})
    np.testing.assert_array_equal(application.op.evaluate(x), result)
    assert application.op.result(x.shape) == (result.shape,)


@pytest.mark.parametrize(
    ("kind", "shape", "target"),
    [("Reshape", (2, "h", 3), [0, -1, 1, 3]), ("Reshape", (2, 3), [-1]), ("Unsqueeze", ("n", 3), [0])],
)
def test_reshapes_to_what_is_not_known(kind: str, shape: Any, target: list[int]) -> None:
    constants = {"s": np.array(target)}
    node = only(imported(single(kind, ["x", "s"], given={"x": shape}, constants=constants)))
    assert Lifting(Provenance()).by_rule(node) is None
    assert lift(node) is None


def test_auto_pad_of_unknown_extent_with_stride_1() -> None:
    given = {"x": ("n", 2, "h")}
    model = single(
        "Conv", ["x", "w"], given=given, constants={"w": integers(0, 1, 2, 4)}, auto_pad="SAME_LOWER"
    )
    op = lifted(model).op
    assert isinstance(op, Conv)
    assert (op.begin, op.end) == ((2,), (1,))


def test_weights_are_read_when_they_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    model = single("Conv", ["x", "w"], given={"x": (1, 2, 5)}, constants={"w": integers(0, 3, 2, 3)})
    node = only(imported(model))
    assert node.inputs[1] is not None
    assert node.inputs[1].constant is not None
    monkeypatch.setattr(node.inputs[1].constant, "array", lambda: pytest.fail("the weight was read"))
    assert lift(node) is not None


def refuse(reason: str, kind: str, shapes: dict[str, Any], **attributes: Any) -> Any:
    """A case that must decline: of the inputs, arrays are constants and tuples shapes of graph inputs."""
    return pytest.param(reason, kind, shapes, attributes, id=f"{kind}: {reason[:40]}")


CONV, POOL = (1, 2, 8, 8), {"kernel_shape": [2, 2]}
W = integers(0, 3, 2, 3, 3)
ONE, NAN = np.ones(2, np.float32), np.array([1, np.nan], np.float32)


@pytest.mark.parametrize(
    ("reason", "kind", "inputs", "attributes"),
    [
        refuse("the weight 'w' is not a constant", "Conv", {"x": CONV, "w": (3, 2, 3, 3)}),
        refuse("the bias 'b' is not a constant", "Conv", {"x": CONV, "w": W, "b": (3,)}),
        refuse("the bias 'b' holds nan", "Conv", {"x": CONV, "w": W[:2], "b": NAN}),
        refuse("auto_pad SAME_UPPER with stride (2, 2) needs the extent of axis 0, which is h", "Conv",
               {"x": (1, 2, "h", 8), "w": W}, auto_pad="SAME_UPPER", strides=[2, 2]),
        refuse("the weight has an empty axis: (0, 2, 3, 3)", "Conv", {"x": CONV, "w": W[:0]}),
        refuse("output_shape (9, 9) needs a known extent, which is ('h', 8)", "ConvTranspose",
               {"x": (1, 3, "h", 8), "w": W}, output_shape=[9, 9]),
        refuse("the kernel spans (3, 3) and cannot fill the output: pads of (-1, -1) in all", "ConvTranspose",
               {"x": (1, 3, 4, 4), "w": W}, auto_pad="SAME_UPPER", strides=[4, 4]),
        refuse("transA is 1", "Gemm", {"x": (3, 4), "w": integers(0, 3, 5)}, transA=1),
        refuse("the addend has shape (4, 1), and differs from row to row of 5", "Gemm",
               {"x": (4, 3), "w": integers(0, 3, 5), "c": integers(0, 4, 1)}),
        refuse("the constant 'w' is on the left: a map of the last axis but one", "MatMul",
               {"w": integers(0, 3, 4), "x": (4, 5)}),
        refuse("the constant has shape (2, 4, 5), and not two axes", "MatMul",
               {"x": (2, 3, 4), "w": integers(0, 2, 4, 5)}),
        refuse("'x' has 1 axis, and a linear layer needs two", "MatMul", {"x": (4,), "w": integers(0, 4, 5)}),
        refuse("training_mode is 1", "BatchNormalization",
               {"x": CONV, "s": ONE, "b": ONE, "m": ONE, "v": ONE}, training_mode=1),
        refuse("variance + epsilon is not positive: -1 + 1e-05 (channel 1)", "BatchNormalization",
               {"x": CONV, "s": ONE, "b": ONE, "m": ONE, "v": np.array([1, -1], np.float32)}),
        refuse("have shapes [(), (2,), (2,), (2,)], and not one number", "BatchNormalization",
               {"x": CONV, "s": np.array(1, np.float32), "b": ONE, "m": ONE, "v": ONE}),
        refuse("have shapes [(), (), (), ()], and not one number", "BatchNormalization",
               {"x": CONV, **dict.fromkeys("sbmv", np.array(1, np.float32))}),
        refuse("have shapes [(2, 2), (2, 2), (2, 2), (2, 2)], and not one number", "BatchNormalization",
               {"x": CONV, **dict.fromkeys("sbmv", np.ones((2, 2), np.float32))}),
        refuse("0 output channels do not divide into 0 groups", "BatchNormalization",
               {"x": CONV, **dict.fromkeys("sbmv", ONE[:0])}),
        refuse("the mean 'm' holds nan", "BatchNormalization",
               {"x": CONV, "s": ONE, "b": ONE, "m": NAN, "v": ONE}),
        refuse("the scale 's' is not a constant", "BatchNormalization",
               {"x": CONV, "s": (2,), "b": ONE, "m": ONE, "v": ONE}),
        refuse("mode is 'reflect', not 'constant'", "Pad",
               {"x": CONV, "p": np.array([0, 0, 1, 1, 0, 0, 1, 1])}, mode="reflect"),
        refuse("pads the batch or channel axis: (0, 1, 0, 0, 0, 0, 0, 0)", "Pad",
               {"x": CONV, "p": np.array([0, 1, 0, 0, 0, 0, 0, 0])}),
        refuse("the list of pads 'p' is not a constant", "Pad", {"x": CONV, "p": (8,)}),
        refuse("crops 9 of 8 positions on axis 2", "Pad",
               {"x": CONV, "p": np.array([0, 0, -9, 0, 0, 0, 0, 0])}),
        refuse("the number of channels of 'x' is not known: c", "Pad",
               {"x": (1, "c", 8, 8), "p": np.array([0, 0, 1, 1, 0, 0, 1, 1])}),
        refuse("count_include_pad is 0 with pads (1, 0, 0, 0)", "AveragePool", {"x": CONV},
               pads=[1, 0, 0, 0], **POOL),
        refuse("auto_pad with stride (3, 3) beyond the kernel (2, 2)", "AveragePool", {"x": CONV},
               auto_pad="SAME_UPPER", strides=[3, 3], count_include_pad=1, **POOL),
        refuse("kernel_shape is () for 'x' of (1, 2)", "AveragePool", {"x": (1, 2)}),
        refuse("kernel_shape is (2, 2) for 'x' of (1, 2, 8)", "AveragePool", {"x": CONV[:3]}, **POOL),
        refuse("the number of channels of 'x' is not known: c", "AveragePool", {"x": (1, "c", 8, 8)}, **POOL),
        refuse("input 1 is absent", "Conv", {"x": CONV}),
        refuse("a pad is negative: (-1, 0, 0, 0)", "Conv", {"x": CONV, "w": W}, pads=[-1, 0, 0, 0]),
        refuse("2 pads for 2 spatial axes", "Conv", {"x": CONV, "w": W}, pads=[1, 1]),
        refuse("auto_pad is 'SAME'", "Conv", {"x": CONV, "w": W}, auto_pad="SAME"),
        refuse("channels differ: 'x' has 2, the operator reads 4", "Conv",
               {"x": CONV, "w": integers(0, 4, 2, 3, 3)}, group=2),
        refuse("the weight has shape (3, 2), and no spatial axes", "Conv", {"x": (1, 2), "w": W[..., 0, 0]}),
        refuse("ranks differ: 'x' has shape (1, 2, 8), the weight (3, 2, 3, 3)", "Conv",
               {"x": CONV[:3], "w": W}),
        refuse("kernel_shape is (2, 2), and the weight has shape (3, 2, 3, 3)", "Conv", {"x": CONV, "w": W},
               kernel_shape=[2, 2]),
        refuse("the bias has shape (2,) for 3 output channels", "Conv", {"x": CONV, "w": W, "b": ONE}),
        refuse("3 input channels do not divide into 2 groups", "ConvTranspose",
               {"x": (1, 3, 8, 8), "w": W}, group=2),
        refuse("channels differ: 'x' has 2, the operator reads 3", "ConvTranspose", {"x": CONV, "w": W}),
        refuse("the weight has shape (3, 4, 5), and not two axes", "Gemm",
               {"x": (2, 3), "w": integers(0, 3, 4, 5)}),
        refuse("the weight has an empty axis: (3, 0)", "MatMul", {"x": (2, 3), "w": integers(0, 3, 0)}),
        refuse("'x' has 1 axis, and no channel axis", "BatchNormalization",
               {"x": (2,), "s": ONE, "b": ONE, "m": ONE, "v": ONE}),
        refuse("channels differ: 'x' has 3, the operator reads 2", "BatchNormalization",
               {"x": (1, 3, 8, 8), "s": ONE, "b": ONE, "m": ONE, "v": ONE}),
        refuse("'x' has 2 axes, and none of them is spatial", "Pad",
               {"x": (2, 3), "p": np.array([0, 1, 0, 1])}),
        refuse("pads are absent", "Pad", {"x": CONV}),
        refuse("4 pads for 4 axes", "Pad", {"x": CONV, "p": np.array([1, 1, 1, 1])}),
    ],
)  # fmt: skip
def test_refusals(reason: str, kind: str, inputs: dict[str, Any], attributes: dict[str, Any]) -> None:
    given = {name: value for name, value in inputs.items() if isinstance(value, tuple)}
    constants = {
        name: value if value.dtype.kind == "f" else value.astype(np.int64)
        for name, value in inputs.items()
        if not isinstance(value, tuple)
    }
    model = single(kind, list(inputs), given=given, constants=constants, **attributes)
    with pytest.raises(Declined) as declined:
        lift(only(imported(model)))
    assert reason in str(declined.value)


@pytest.mark.parametrize(
    ("name", "values", "reason"),
    [
        ("strides", [0, 1], r"strides is \(0, 1\) for a kernel of \(3, 3\)"),
        ("dilations", [1], r"dilations is \(1,\) for a kernel of \(3, 3\)"),
    ],
)
def test_steps_that_do_not_fit_the_kernel(name: str, values: list[int], reason: str) -> None:
    """The inference of shapes may not get that far, so that of the input is not known."""
    given: Any = {"x": None}
    attributes: Any = {name: values}
    model = single("Conv", ["x", "w"], given=given, constants={"w": W}, **attributes)
    with pytest.raises(Declined, match=reason):
        lifted(model)


def test_pool_with_dilation_and_auto_pad_declines() -> None:
    attributes: dict[str, Any] = {"kernel_shape": [2], "dilations": [2], "count_include_pad": 1}
    attributes["auto_pad"] = "SAME_UPPER"
    model = single("AveragePool", ["x"], opset=19, given={"x": (1, 2, 8)}, **attributes)
    with pytest.raises(Declined, match=r"auto_pad with dilation \(2,\)"):
        lifted(model)


def test_batch_normalization_of_each_position_declines() -> None:
    constants = dict.fromkeys(("s", "b", "m", "v"), ONE)
    model = single(
        "BatchNormalization", ["x", *constants], opset=7, given={"x": CONV}, constants=constants, spatial=0
    )
    with pytest.raises(Declined, match="spatial is 0: the statistics differ from position to position"):
        lifted(model)


def test_batch_normalization_that_asks_for_batch_statistics_declines() -> None:
    constants = {"s": ONE, "b": ONE, "m": ONE, "v": ONE}
    outputs = ["y", "mean", "variance", "saved_mean", "saved_variance"]
    model = single(
        "BatchNormalization",
        ["x", *constants],
        opset=9,
        given={"x": CONV},
        constants=constants,
        outputs=outputs,
    )
    with pytest.raises(Declined, match=r"the outputs \['mean', .*\] ask for the statistics of the batch"):
        lifted(model)


@pytest.mark.parametrize("opset", [6, 99])
def test_opsets_that_are_not_known(opset: int) -> None:
    assert OPERATORS["Relu"].lift is None
    assert lift(only(imported(single("Relu", ["x"], opset=opset, given={"x": CONV})))) is None
    with pytest.raises(Declined, match=f"opset {opset} is not one of 7 to"):
        lifted(single("Conv", ["x", "w"], opset=opset, given={"x": CONV}, constants={"w": W}))


def test_overridable_weight_declines() -> None:
    model = single("Conv", ["x", "w"], given={"x": CONV, "w": W.shape}, constants={"w": W})
    with pytest.raises(
        Declined, match="the weight 'w' is a graph input with a default, which callers may override"
    ):
        lifted(model)


def test_weight_that_is_also_an_input_in_the_old_format_is_a_constant() -> None:
    model = single("Conv", ["x", "w"], opset=7, given={"x": CONV, "w": W.shape}, constants={"w": W})
    model.ir_version = 3
    agree(model, {"x": integers(0, *CONV)}, "conv")


@pytest.mark.parametrize("type_", [TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE])
def test_other_floating_types(type_: int) -> None:
    model = single("Neg", ["x"], given={"x": (2, 3)}, type_=type_)
    assert lifted(model).label == "sum"


def test_integers_are_not_lifted() -> None:
    model = single("Neg", ["x"], given={"x": (2, 3)}, type_=TensorProto.INT32)
    assert lift(only(imported(model))) is None


def test_what_only_constants_feed_is_left_to_folding() -> None:
    constants = {"a": integers(0, 2, 3), "b": integers(1, 3, 2)}
    assert lift(only(imported(single("MatMul", ["a", "b"], constants=constants)))) is None

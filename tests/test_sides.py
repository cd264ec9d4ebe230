"""What the checker of certificates takes operators for, against the reference of ONNX, at many extents."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from fuser.algebra.affine_forms import Alike, Form, Leaf, after, as_form, difference, substituted
from fuser.algebra.conv import Conv
from fuser.algebra.lazy import known
from fuser.errors import Declined
from fuser.hosts.onnx.certificate.sides import Side

Random = np.random.Generator
Drawn = tuple[str, dict[str, Any], list[Any]]
"""An operator, its attributes, and its inputs: an array, or None for the value."""


def whole(random: Random, *shape: int) -> Any:
    return random.integers(-4, 5, shape).astype(np.float64)


def some(random: Random, low: int, high: int, count: int) -> list[int]:
    return [int(n) for n in random.integers(low, high, count)]


def convolution(random: Random) -> Drawn:
    groups, transposed = int(random.choice([1, 2])), bool(random.integers(3) == 0)
    kernel = whole(random, 4, 4 // groups, *some(random, 1, 4, 2))
    attributes = {"strides": some(random, 1, 4, 2), "dilations": some(random, 1, 3, 2), "group": groups}
    if transposed:
        attributes |= {"pads": some(random, 0, 2, 4)}
        return "ConvTranspose", attributes, [None, kernel, whole(random, 4 // groups * groups)]
    auto = random.choice(["SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET"])
    attributes |= {"pads": some(random, 0, 3, 4)} if auto == "NOTSET" else {"auto_pad": str(auto)}
    return "Conv", attributes, [None, kernel, whole(random, 4)]


def pool(random: Random) -> Drawn:
    size = some(random, 2, 4, 2)
    pads = [int(random.integers(n)) for n in (*size, *size)]
    attributes = {"kernel_shape": size, "strides": some(random, 1, 3, 2), "pads": pads}
    return "AveragePool", attributes | {"count_include_pad": int(random.integers(2))}, [None]


def norm(random: Random) -> Drawn:
    arrays = [whole(random, 4) for _ in range(3)]
    return "BatchNormalization", {"epsilon": 0.5}, [None, *arrays, np.abs(whole(random, 4))]


def elementwise(random: Random) -> Drawn:
    kind = str(random.choice(["Add", "Sub", "Mul", "Div"]))
    shape = [(4, 1, 1), (1, 4, 1, 1), (), (1,), (1, 1), (1, 1, 1, 5), (2, 4, 1, 1)][int(random.integers(7))]
    array = whole(random, *shape) + 0.5
    return kind, {}, [array, None] if random.integers(2) else [None, array]


def crop(random: Random) -> Drawn:
    many = int(random.integers(1, 3))
    axes = random.choice([1, 2, 3, -1], many, replace=False)
    axes = np.array([2]) if {3, -1} <= {*axes.tolist()} else axes
    starts, ends = (random.choice([0, 1, 2, 5, -1, -3], len(axes)) for _ in range(2))
    ends = np.where(random.integers(2, size=len(axes)), np.iinfo(np.int64).max, ends)
    return "Slice", {}, [None, starts, ends, axes, random.integers(1, 8, len(axes))]


def pad(random: Random) -> Drawn:
    pads = np.array([0, int(random.integers(6) == 0), *some(random, -1, 3, 2), 0, 0, *some(random, -1, 4, 2)])
    mode = str(random.choice(["constant", "constant", "edge"]))
    return (
        "Pad",
        {"mode": mode},
        [None, np.abs(pads) if mode == "edge" else pads, np.array(float(random.integers(3)))],
    )


def choice(random: Random) -> Drawn:
    if random.integers(2):
        return "Gather", {"axis": int(random.choice([1, 2]))}, [None, random.integers(-4, 4, 3)]
    return "Split", {"axis": 1}, [None, np.array([1, 3]) if random.integers(2) else np.array([2, 2])]


def several(random: Random) -> Drawn:
    kind = str(random.choice(["Concat", "Sub", "Sum", "Mean"]))
    attributes = {"axis": int(random.choice([1, 2]))} if kind == "Concat" else {}
    return kind, attributes, [None, None]


def row(random: Random) -> Drawn:
    if random.integers(2):
        turned = int(random.integers(2))
        kernel = whole(random, 3, 4) if turned else whole(random, 4, 3)
        return "Gemm", {"alpha": 2.0, "beta": 3.0, "transB": turned}, [None, kernel, whole(random, 3)]
    return "MatMul", {}, [None, whole(random, 4, 3)]


DRAWS = [convolution, pool, norm, elementwise, crop, pad, choice, several, row]


def model(drawn: Drawn, shape: list[Any]) -> onnx.ModelProto:
    kind, attributes, inputs = drawn
    names = ["x" if array is None else f"c{index}" for index, array in enumerate(inputs)]
    tensors = [numpy_helper.from_array(a, n) for a, n in zip(inputs, names, strict=True) if a is not None]
    outputs = ["y", "z"] if kind == "Split" else ["y"]
    node = helper.make_node(kind, names, outputs, **attributes)
    ends = [helper.make_tensor_value_info("x", TensorProto.DOUBLE, shape)]
    made = [helper.make_tensor_value_info(name, TensorProto.DOUBLE, None) for name in outputs]
    graph = helper.make_graph([node], "one", ends, made, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def read(proto: onnx.ModelProto) -> tuple[Leaf, list[Form] | None]:
    """The value that is given, and what the operator makes of it; None where it stands for itself."""
    inferred = onnx.shape_inference.infer_shapes(proto)
    side = Side(inferred.graph, proto.opset_import, ".", 0)
    leaf = side.values["x"] = Leaf(side.types["x"][1], 2.0**-53)
    made = side.run(side.nodes[0])
    return leaf, made if all(isinstance(value, Form) for value in made) else None


def evaluated(form: Form, values: dict[Leaf, Any]) -> Any:
    """A form, in float64."""
    spatial = 0 if form.place is None else form.place[1]
    total: Any = form.bias.reshape(-1, *(1,) * spatial)
    for leaf, (own, _) in form.terms.items():
        total = total + (own.evaluate(values[leaf]) if isinstance(own, Conv) else own * values[leaf])
    return total


def extents(draw: Callable[[Random], Drawn]) -> Iterator[tuple[int, ...]]:
    if draw is row:
        yield from ((n, 4) for n in range(1, 4))
    else:
        yield from ((2, 4, n, 14 - n) for n in range(1, 14))


@pytest.mark.parametrize("draw", DRAWS)
def test_an_operator_is_read_as_what_it_is_at_every_extent_or_not_at_all(
    draw: Callable[[Random], Drawn],
) -> None:
    understood = 0
    for seed in range(60):
        drawn = draw(np.random.default_rng(seed))
        proto = model(drawn, ["N", 4] if draw is row else ["N", 4, "H", "W"])
        leaf, forms = read(proto)
        understood += forms is not None
        for shape in extents(draw) if forms is not None else ():
            x = whole(np.random.default_rng(seed + 1), *shape)
            try:
                answers = ReferenceEvaluator(proto).run(None, {"x": x})
            except Exception:  # noqa: BLE001  # no such extent: the reference fails in ways of its own
                continue
            for form, y in zip(forms or (), answers, strict=True):
                if y.size:
                    np.testing.assert_allclose(
                        evaluated(form, {leaf: x}), y, rtol=1e-12, atol=1e-12, err_msg=str(drawn)
                    )
    assert understood >= 10


def test_what_stands_for_a_value_may_be_put_in_its_place() -> None:
    """f(g(x)) by substitution computes f of g, at every extent, where the laws allow it."""
    joined = 0
    for seed in range(80):
        random = np.random.default_rng(seed)
        drawn = [DRAWS[int(index)](random) for index in random.integers(len(DRAWS) - 1, size=2)]
        (x, inner), (y, outer) = (read(model(one, ["N", 4, "H", "W"])) for one in drawn)
        if inner is None or outer is None or y not in outer[0].terms:
            continue
        try:
            whole_form = substituted(outer[0], y, inner[0])
        except Declined:
            continue
        joined += 1
        for n in range(4, 14):
            value = whole(random, 2, 4, n, 18 - n)
            between = evaluated(inner[0], {x: value})
            found, wanted = evaluated(whole_form, {x: value}), evaluated(outer[0], {y: between})
            np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-9, err_msg=str(drawn))
    assert joined >= 5


BASE = Conv.of(np.ones((2, 2, 3, 3)), np.ones(2), begin=(1, 1), end=(1, 1), pad_value=np.ones(2))
CHANGES: dict[str, Conv] = {
    "weight": replace(BASE, kernel=known(BASE.weight + 1e-6 * (np.arange(9).reshape(3, 3) == 4))),
    "bias": replace(BASE, bias=np.array([1.0, 1.0 + 1e-6])),
    "begin": replace(BASE, begin=(2, 1), end=(0, 1)),
    "end": replace(BASE, end=(1, 2)),
    "stride": replace(BASE, stride=(1, 2)),
    "dilation": replace(BASE, dilation=(2, 1), begin=(2, 1), end=(2, 1)),
    "pad value": replace(BASE, pad_value=np.array([1.0, 0.0])),
    "groups": Conv.of(
        np.ones((2, 1, 3, 3)), np.ones(2), groups=2, begin=(1, 1), end=(1, 1), pad_value=np.ones(2)
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_forms_that_differ_in_one_thing_differ(what: str) -> None:
    leaf = Leaf((None, 2, None, None), 2.0**-24)
    forms = [after(conv, as_form(leaf), 19, 2.0**-24) for conv in (BASE, BASE, CHANGES[what])]
    match = {(leaf, leaf): Alike()}
    gap = difference(forms[0], forms[1], lambda a, b: match.get((a, b)))
    assert 0 < gap.slope.max() < 1e-4
    with pytest.raises(Declined, match="differs"):
        difference(forms[0], forms[2], lambda a, b: match.get((a, b)))

"""What the checker of certificates takes operators for, against the reference of ONNX, at many extents."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from fuser.algebra.affine_forms import Alike, Form, Leaf, after, as_form, difference, substituted
from fuser.algebra.conv import Conv
from fuser.algebra.lazy import known
from fuser.errors import Declined
from fuser.hosts.onnx.certificate.sides import UNITS, Side
from tests.single_operators import (
    DRAWS,
    EDGES,
    IMAGE,
    SEQUENCES,
    Drawn,
    Random,
    Shape,
    convolution,
    crop,
    gathered,
    integers,
    norm,
    one,
    pad,
    parts,
    row,
    whole,
)


def leaf_and_side(proto: onnx.ModelProto, stored: int = 0) -> tuple[Leaf, Side]:
    """The value `x` that is given, and the graph with it."""
    inferred = onnx.shape_inference.infer_shapes(proto)
    side = Side(inferred.graph, proto.opset_import, ".", stored)
    for name in side.given:
        kind, shape = side.types[name]
        side.values[name] = Leaf(shape, UNITS.get(kind, 0.0))
    return side.values["x"], side


def read(drawn: Drawn, stored: int = 0) -> tuple[Leaf, list[Form] | None]:
    """The value that is given, and what the operator makes of it; None where it stands for itself."""
    leaf, side = leaf_and_side(drawn.model(), stored)
    made = side.run(side.nodes[0])
    return leaf, made if all(isinstance(value, Form) for value in made) else None


def evaluated(form: Form, values: dict[Leaf, Any]) -> Any:
    """A form, in float64."""
    spatial = 0 if form.place is None else form.place[1]
    total: Any = form.bias.reshape(-1, *(1,) * spatial)
    for leaf, (own, _) in form.terms.items():
        total = total + (own.evaluate(values[leaf]) if isinstance(own, Conv) else own * values[leaf])
    return total


@pytest.mark.parametrize("stored", [0, 1])
@pytest.mark.parametrize("draw", DRAWS)
def test_an_operator_is_read_as_what_it_is_at_every_extent_or_not_at_all(
    draw: Callable[[Random], Drawn], stored: int
) -> None:
    understood = 0
    for seed in range(stored, 400, 2):
        drawn = draw(np.random.default_rng(seed))
        understood += fits(drawn, stored)
    assert understood >= (0 if draw is integers else 10)


@pytest.mark.parametrize("drawn", EDGES)
def test_what_is_hardly_ever_written_is_read_as_what_it_is_or_not_at_all(drawn: Drawn) -> None:
    fits(drawn, 0)


def fits(drawn: Drawn, stored: int) -> bool:
    """Whether an operator is read as forms; then they are what it computes, and it does compute something."""
    leaf, forms = read(drawn, stored)
    if forms is None:
        return False
    tried = 0
    still = drawn.shape is not None and all(isinstance(n, int) for n in drawn.shape)
    for x in drawn.values():
        answers = drawn.answers(x)
        tried += answers is not None
        for form, y in zip(forms, answers or (), strict=False):
            if y.size or still:
                found = evaluated(form, {leaf: x})
                assert found.shape == y.shape, drawn
                np.testing.assert_allclose(found, y, rtol=1e-6, atol=1e-6, err_msg=str(drawn))
    assert tried, drawn
    return True


@pytest.mark.parametrize("draw", DRAWS)
def test_an_attribute_that_a_function_is_given_is_not_known(draw: Callable[[Random], Drawn]) -> None:
    for seed in range(30):
        drawn = draw(np.random.default_rng(seed))
        proto = drawn.model()
        for entry in proto.graph.node[0].attribute:
            kind, name = entry.type, entry.name
            entry.Clear()
            entry.name, entry.type, entry.ref_attr_name = name, kind, name
        _, side = leaf_and_side(proto)
        made = side.run(side.nodes[0])
        # What says nothing of the values is not read.
        if drawn.attributes.keys() - {"seed", "num_outputs"}:
            assert not any(isinstance(value, Form) for value in made), drawn


@pytest.mark.parametrize("draw", [convolution, norm, crop, pad, gathered, parts, row])
def test_what_is_no_constant_is_not_known(draw: Callable[[Random], Drawn]) -> None:
    """Weights, pads, indices, sizes that another value gives."""
    for seed in range(30):
        drawn = draw(np.random.default_rng(seed))
        for index in range(1, len(drawn.inputs)):
            inputs = [*drawn.inputs[:index], "w", *drawn.inputs[index + 1 :]]
            proto = replace(drawn, inputs=inputs).model()
            array = drawn.inputs[index] if isinstance(drawn.inputs[index], np.ndarray) else np.zeros(1)
            kind = helper.np_dtype_to_tensor_dtype(array.dtype)
            proto.graph.input.append(helper.make_tensor_value_info("w", kind, array.shape))
            _, side = leaf_and_side(proto)
            made = side.run(side.nodes[0])
            assert not any(isinstance(value, Form) for value in made), drawn


def images(seed: int, count: int) -> tuple[Random, list[Drawn]]:
    """Operators on images of four channels, one after the other."""
    random, found = np.random.default_rng(seed), list[Drawn]()
    while len(found) < count:
        drawn = one(random, *DRAWS)(random)
        if drawn.shape == ("N", 4, "H", "W") and drawn.element == TensorProto.DOUBLE and drawn.opset == 17:
            found.append(drawn)
    return random, found


def test_what_stands_for_a_value_may_be_put_in_its_place() -> None:
    """f(g(x)) by substitution computes f of g, at every extent, where the laws allow it."""
    joined = 0
    for seed in range(200):
        random, drawn = images(seed, 2)
        (x, inner), (y, outer) = map(read, drawn)
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
    assert joined >= 10


def follows(first: Drawn, second: Drawn, stated: tuple[int, ...] | None = None) -> bool:
    """Whether one operator behind another is read as a form; then it is what both compute."""
    leaf, side = leaf_and_side(second.behind(first, stated))
    for node in side.nodes:
        side.values.update(zip(node.output, side.run(node), strict=False))
    form = side.values["z"]
    if not isinstance(form, Form) or set(form.terms) != {leaf}:
        return False
    tried = 0
    random = np.random.default_rng(0)
    for x in [whole(random, *shape) for shape in (IMAGE, stated)] if stated else first.values():
        between = first.answers(x)
        answers = None if between is None else replace(second, shape=None).answers(between[0])
        tried += answers is not None
        if answers is not None and (answers[0].size or x.shape == first.shape):
            found = evaluated(form, {leaf: x})
            assert found.shape == answers[0].shape, (first, second)
            np.testing.assert_allclose(
                found, answers[0], rtol=1e-5, atol=1e-5, err_msg=f"{first} {second} {stated}"
            )
    assert tried, (first, second, stated)
    return True


@pytest.mark.parametrize(("first", "second", "stated"), SEQUENCES)
def test_a_shape_in_between_is_what_it_is(
    first: Drawn, second: Drawn, stated: tuple[int, ...] | None
) -> None:
    follows(first, second, stated)


OTHERS: list[Shape] = [("N", 4, "H", "W"), ("N", 1, "H", "W"), ("N", 4, "A", "W"), (4, 1, 1), ("W",), None]


def test_an_operator_behind_a_sum_of_two_values_reads_them_where_they_lie() -> None:
    """A sum broadcasts: what is known of one extent is not known of the other."""
    understood = 0
    for seed in range(300):
        random, (second,) = images(seed, 1)
        if seed % 4 == 0:
            second = Drawn("Conv", {}, [None, whole(random, 3, 4, 1, 1)])
        total = Drawn(
            one(random, "Add", "Sub", "Sum", "Mean"), {}, [None, "w"], one(random, ("N", 4, "H", "W"), None)
        )
        proto, shape = second.behind(total), one(random, *OTHERS)
        proto.graph.input.append(helper.make_tensor_value_info("w", TensorProto.DOUBLE, shape))
        leaf, side = leaf_and_side(proto)
        for node in side.nodes:
            side.values.update(zip(node.output, side.run(node), strict=False))
        form, other = side.values["z"], side.values["w"]
        if not isinstance(form, Form) or not {leaf, other} >= {*form.terms}:
            continue
        understood += 1
        for n in range(1, 12, 2):
            x, sizes = whole(random, 2, 4, n, 13 - n), {"N": 2, "H": n, "W": 13 - n, "A": one(random, n, 1)}
            shapes = (
                [shape] if shape is not None else [x.shape, (2, 1, n, 13 - n), (2, 4, 1, 1), (), (13 - n,)]
            )
            for dims in shapes:
                w = whole(random, *(size if isinstance(size, int) else sizes[size] for size in dims))
                (between,) = ReferenceEvaluator(total.model()).run(None, {"x": x, "w": w})
                answers = replace(second, shape=None).answers(between)
                if answers is not None and answers[0].size:
                    found = evaluated(form, {leaf: x, other: w})
                    np.testing.assert_allclose(
                        found, answers[0], rtol=1e-5, atol=1e-5, err_msg=f"{total} {second} {dims}"
                    )
    assert understood >= 30


def test_an_operator_behind_another_is_read_as_what_both_are() -> None:
    """Whatever is known of the shape in between, and of that of the value."""
    understood = 0
    for seed in range(400):
        random, (first, second) = images(seed, 2)
        first = replace(first, shape=one(random, first.shape, (2, 4, 5, 6), (4, 4, 4, 4), None))
        stated: tuple[int, ...] | None = None
        if first.shape is None and (made := first.answers(whole(random, *IMAGE))) is not None:
            stated = made[0].shape
        if stated == () or (made := first.answers(next(first.values()))) is None:
            continue
        understood += follows(first, second, stated)
    assert understood >= 30


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

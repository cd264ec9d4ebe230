"""The ways to a smaller model: what is left is a model, and is what it is said to be."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from fuser.errors import InputError
from fuser.hosts.onnx.reduce import ways
from fuser.hosts.onnx.reduce.ends import every_node
from fuser.hosts.onnx.reduce.nodes import Compute, Cut, End, Hold, Inline, Outputs, PassBy, Unwrap
from fuser.hosts.onnx.reduce.ways import SMALLER
from fuser.hosts.onnx.reduce.words import (
    Attributes,
    Counted,
    Extents,
    Inputs,
    Join,
    Names,
    Ones,
    Optional,
    Words,
)
from tests.small_models import convnet, normal, parsed

LOOP = """g (float[2,3] x, int64 n) => (float[2,3] y, float[2,3] z) {
    t = Constant <value_int = 1> () c = Cast <to = 9> (t) a = Neg (x)
    l = Loop (n, c, a) <body = b (int64 i, bool on, float[2,3] s) => (bool off, float[2,3] r) {
        off = Identity (on) d = Add (s, a) e = Exp (d) r = Mul (e, w) }>
    y = Relu (l) z = If (c) <
        then_branch = p () => (float[2,3] q) { h = Abs (l) q = Sqrt (h) },
        else_branch = o () => (float[2,3] k) { k = Sub (l, w) }>
}"""


def loop() -> onnx.ModelProto:
    return parsed(LOOP, w=normal(3))


def calling() -> onnx.ModelProto:
    return onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["": 17, "own": 1]> '
        "g (float[2,3] x) => (float[2,3] y) { a = own.outer (x) y = Neg (a) } "
        '<domain: "own", opset_import: ["": 17, "own": 1]> outer (a) => (b) { '
        "c = own.inner (a) b = Exp (c) } "
        '<domain: "own", opset_import: ["": 17]> inner (a) => (b) { b = Abs (a) }'
    )


MODELS: list[Callable[[], onnx.ModelProto]] = [loop, calling, convnet]


def check(model: onnx.ModelProto | None) -> onnx.ModelProto:
    assert model is not None
    onnx.checker.check_model(model, full_check=True)
    return model


def kinds(model: onnx.ModelProto | None) -> list[str]:
    return [node.op_type for node in check(model).graph.node]


def named(model: onnx.ModelProto) -> tuple[list[str], list[str]]:
    return [value.name for value in model.graph.input], [value.name for value in model.graph.output]


@pytest.mark.parametrize("make", MODELS)
@pytest.mark.parametrize("way", [Cut, End])
@settings(max_examples=40)
@given(data=st.data())
def test_whatever_is_cut_leaves_a_model(
    make: Callable[[], onnx.ModelProto], way: type[Cut], data: st.DataObject
) -> None:
    model = make()
    before = model.SerializeToString(deterministic=True)
    cut = way(model)
    gone = data.draw(st.sets(st.sampled_from(cut.parts)))
    left = cut.without(gone)
    assert model.SerializeToString(deterministic=True) == before
    if left is None:
        assert not set(range(len(list(cut.parts)))) - gone or len(gone) >= len(model.graph.node)
    else:
        assert SMALLER.nodes(check(left)) <= SMALLER.nodes(model)


@pytest.mark.parametrize("make", MODELS)
def test_each_way_leaves_a_model_and_the_whole_as_it_was(make: Callable[[], onnx.ModelProto]) -> None:
    model = make()
    before = model.SerializeToString(deterministic=True)
    for way in SMALLER.ways:
        found = way(model)
        for part in found.parts:
            left = found.without([part])
            assert left is None or left.SerializeToString(deterministic=True) != before, found.called
        assert model.SerializeToString(deterministic=True) == before, found.called


CHAIN = "g (float[2,3] x) => (float[2,3] y) { a = Neg (x) b = Exp (a) c = Add (a, b) y = Mul (c, w) }"


def test_what_is_cut_is_fed_and_seen() -> None:
    model = parsed(CHAIN, w=normal(3))
    middle = check(Cut(model).without([0, 3]))
    assert (kinds(middle), *named(middle)) == (["Exp", "Add"], ["a"], ["c"])
    assert len(middle.graph.initializer) == 0
    front = check(Cut(model).without([2, 3]))
    assert (kinds(front), *named(front)) == (["Neg", "Exp"], ["x"], ["b"])
    seen = check(End(model).without([2, 3]))
    assert named(seen) == (["x"], ["a", "b"])


def test_a_body_is_given_what_it_does_not_make() -> None:
    model = loop()
    places = [node.op_type for node in every_node(model)]
    left = check(Cut(model).without([places.index("Mul"), places.index("Sqrt")]))
    assert named(left)[0] == ["x", "n", "r.outside", "q.outside"]
    assert [node.op_type for node in every_node(left)].count("Identity") == 3
    fed = [place for place, node in enumerate(every_node(left)) if ".outside" in "".join(node.input)]
    assert len(fed) == 2
    assert set(Cut(left).parts).isdisjoint(fed)


def test_a_body_takes_the_place_of_its_node() -> None:
    model = loop()
    nodes = [node.op_type for node in model.graph.node]
    branch = check(Unwrap(model).without([(nodes.index("If"), 0)]))
    assert kinds(branch)[-2:] == ["Abs", "Sqrt"]
    assert branch.graph.node[-1].output == ["z"]
    turn = check(Unwrap(model).without([(nodes.index("Loop"), 0)]))
    assert kinds(turn)[3:7] == ["Identity", "Add", "Exp", "Mul"]
    assert set(named(turn)[0]) == {"x", "i", "on", "s", "l"} - {"i"}


def test_functions_are_inlined_one_by_one() -> None:
    model = calling()
    assert Inline(model).parts == [("own", "outer"), ("own", "inner")]
    one = check(Inline(model).without([("own", "outer")]))
    assert (kinds(one), [f.name for f in one.functions]) == (["inner", "Exp", "Neg"], ["inner"])
    assert kinds(Inline(model).without([("own", "outer"), ("own", "inner")])) == ["Abs", "Exp", "Neg"]


def test_a_node_is_passed_by() -> None:
    model = parsed(CHAIN, w=normal(3))
    left = check(PassBy(model).without([(1, 0), (3, 0)]))
    assert (kinds(left), left.graph.node[1].input, named(left)[1]) == (["Neg", "Add"], ["a", "a"], ["c"])
    inner = check(PassBy(calling()).without([(0, 0)]))
    assert (kinds(inner), inner.graph.node[0].input, len(inner.functions)) == (["Neg"], ["x"], 0)
    typed = parsed("g (float[2] x) => (float[2] y) { a = Cast <to = 7> (x) y = Cast <to = 1> (a) }")
    assert list(PassBy(typed).parts) == []


def test_an_output_goes_with_what_only_it_needs() -> None:
    left = check(Outputs(loop()).without([1]))
    assert kinds(left) == ["Constant", "Cast", "Neg", "Loop", "Relu"]
    assert Outputs(loop()).without([0, 1]) is None


def test_constants_are_held_and_computed() -> None:
    model = parsed(
        "g (float[2] x) => (float[2] y) { a = Constant <value_floats = [1.0, 4.0]> () b = Sqrt (a) "
        "c = Neg (b) y = Add (x, c) }"
    )
    held = check(Hold(model).without(Hold(model).parts))
    assert kinds(held) == ["Sqrt", "Neg", "Add"]
    computed = check(Compute(held).without(Compute(held).parts))
    assert kinds(computed) == ["Add"]
    np.testing.assert_array_equal(numpy_helper.to_array(computed.graph.initializer[0]), [-1, -2])
    assert Compute(held).without([1]) is None  # what it is computed of is not known


def test_attributes_and_inputs_go() -> None:
    model = convnet()
    plain = check(Attributes(model).without([(3, "strides"), (3, "pads"), (0, "pads")]))
    assert [len(node.attribute) for node in plain.graph.node] == [0, 0, 0, 0]
    bare = check(Inputs(model).without([(3, 2)]))
    assert (bare.graph.node[3].input, "b2" in named(bare)[0]) == (["r", "w2"], False)
    clip = parsed("g (float[2] x, float a, float b) => (float[2] y) { y = Clip (x, a, b) }")
    assert check(Inputs(clip).without([(0, 1)])).graph.node[0].input == ["x", "b"]
    assert check(Optional(clip).without([(0, 1)])).graph.node[0].input == ["x", "", "b"]
    assert check(Optional(clip).without([(0, 2)])).graph.node[0].input == ["x", "a"]


def test_inputs_of_one_type_are_joined() -> None:
    model = parsed(
        "g (float[2] x, float[2] z, float[3] t) => (float[2] y, float[3] s) { y = Add (x, z) s = Neg (t) }"
    )
    assert Join(model).parts == ["z"]
    left = check(Join(model).without(["z"]))
    assert (named(left)[0], left.graph.node[0].input) == (["x", "t"], ["x", "x"])


def test_words_and_long_names_go() -> None:
    model = convnet()
    model.doc_string, model.producer_name, model.graph.node[0].name = "a", "b", "c"
    model.metadata_props.add(key="d", value="e")
    left = check(Words(model).without(Words(model).parts))
    assert (left.doc_string, left.producer_name, left.graph.node[0].name, len(left.metadata_props)) == (
        "",
        "",
        "",
        0,
    )
    assert left.graph.name == "g"
    long = parsed('g (float[2] "/a/b") => (float[2] "/c/d") { "/c/d" = Add ("/a/b", "the weight") }')
    long.graph.initializer.append(numpy_helper.from_array(np.ones(2, np.float32), "the weight"))
    short = check(Names(long).without(Names(long).parts))
    assert (named(short), short.graph.node[0].input) == ((["v0"], ["v2"]), ["v0", "v1"])
    assert list(Names(short).parts) == []


def test_weights_become_plain_and_stay_so() -> None:
    model = convnet()
    ones = check(Ones(model).without(Ones(model).parts))
    assert all((numpy_helper.to_array(tensor) == 1).all() for tensor in ones.graph.initializer)
    assert list(Ones(ones).parts) == list(Counted(ones).parts) == []
    counted = check(Counted(model).without(Counted(model).parts))
    np.testing.assert_array_equal(numpy_helper.to_array(counted.graph.initializer[1]), [1, 2, 3, 1])
    assert len(Ones(counted).parts) == len(counted.graph.initializer)
    assert list(Counted(counted).parts) == []


def test_an_extent_is_small_wherever_it_is() -> None:
    model = parsed(
        "g (float[N,6,8] x) => (float[a,b,c] y) { h = Conv <group = 6, kernel_shape = [3]> (x, w) "
        "y = Reshape (h, s) }",
        w=normal(6, 1, 3), s=np.array([-1, 6, 6]),
    )  # fmt: skip
    assert Extents(model, 2).parts == [8, 6, 3]
    left = check(Extents(model, 2).without([6]))
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in left.graph.initializer}
    assert (tensors["w"].shape, tensors["s"].tolist()) == ((2, 1, 3), [-1, 2, 2])
    assert left.graph.node[0].attribute[0].i == 2
    assert [dim.dim_value for dim in left.graph.input[0].type.tensor_type.shape.dim] == [0, 2, 8]


def test_external_data_comes_along(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = convnet()
    onnx.save(model, tmp_path / "a.onnx", save_as_external_data=True, location="w", size_threshold=0)
    assert SMALLER.read(tmp_path / "a.onnx").graph.initializer[0].raw_data
    monkeypatch.setattr(ways, "LARGEST_MESSAGE", 1000)
    with pytest.raises(
        InputError, match=r"a\.onnx: has weights of 1236 bytes; what is reduced may have 1000"
    ):
        SMALLER.read(tmp_path / "a.onnx")
    monkeypatch.undo()
    (tmp_path / "w").unlink()
    with pytest.raises(InputError, match=r"a\.onnx: its external data cannot be read: "):
        SMALLER.read(tmp_path / "a.onnx")


def test_the_text_leaves_out_what_is_long() -> None:
    model = convnet()
    text = SMALLER.text(model)
    assert "float[5] b2 =  {-0.65" in text
    assert "float[4,3,3,3] w1 =  {}" in text
    assert model.graph.initializer[0].raw_data

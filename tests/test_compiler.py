"""The compiler end to end: same type out, nothing changed that was given, same bytes, nothing left to do."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import TensorProto, helper, numpy_helper

import fuser
from fuser import compiler
from fuser.algebra.conv import Conv
from fuser.algebra.laws import compose
from fuser.algebra.lazy import Array, Lazy
from fuser.demo import build_repvgg
from fuser.errors import Declined, InputError, OutputError, VerificationError
from fuser.ir.node import Apply, Node
from fuser.rewrite.pattern import FOLD, Candidate, Plan, Rewrite
from fuser.validate import check as checks
from tests.small_models import normal, parsed


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    return build_repvgg(((8, 1), (16, 2)), classes=10, seed=1)


@pytest.fixture
def path(model: onnx.ModelProto, tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    return path


def convs(model: onnx.ModelProto) -> tuple[int, int]:
    kinds = [node.op_type for node in model.graph.node]
    return kinds.count("Conv"), kinds.count("BatchNormalization")


def test_the_type_that_was_given_comes_back_and_the_original_stays(model: onnx.ModelProto) -> None:
    before = model.SerializeToString()
    result, report = fuser.optimize(model, return_report=True)
    assert isinstance(result, onnx.ModelProto)
    assert convs(result)[1] == 0
    assert convs(result)[0] < convs(model)[0]
    assert model.SerializeToString() == before
    assert report.applied

    intermediate = onnx_ir.from_proto(model)
    also = fuser.optimize(intermediate)
    assert isinstance(also, onnx_ir.Model)
    assert also is not intermediate
    assert (
        onnx_ir.to_proto(intermediate).SerializeToString()
        == onnx_ir.to_proto(onnx_ir.from_proto(model)).SerializeToString()
    )


def test_the_same_bytes_and_nothing_left_to_do(path: Path, tmp_path: Path) -> None:
    results = [tmp_path / name for name in ("a.onnx", "b.onnx", "again.onnx")]
    for result in results[:2]:
        fuser.optimize_file(path, result, verify=False)
    report = fuser.optimize_file(results[0], results[2])
    assert results[0].read_bytes() == results[1].read_bytes() == results[2].read_bytes()
    assert report.applied == []


def test_selected_passes_only(model: onnx.ModelProto) -> None:
    folded = fuser.optimize(model, passes=["fold_batch_norm"])
    assert convs(folded)[0] == convs(model)[0]
    unmerged = fuser.optimize(model, exclude=["merge_branches", "merge_chains"])
    assert convs(unmerged)[0] == convs(model)[0]
    with pytest.raises(
        InputError, match=r"takes a list of names, \['fold_batch_norm'\], not the text 'fold_b"
    ):
        fuser.optimize(model, passes="fold_batch_norm")
    with pytest.raises(InputError, match=r"^exclude takes a list of names"):
        fuser.optimize(model, exclude="fold_batch_norm")
    with pytest.raises(InputError, match="no pass is called 'fold_everything'; there are "):
        fuser.optimize(model, exclude=["fold_everything"])


def off_by_one(node: Node) -> Iterator[Candidate]:
    """scale * conv(x) + shift  ->  a convolution with a wrong bias."""
    maker = node.inputs[0].producer if node.inputs[0] is not None else None
    if isinstance(node.op, Conv) and node.op.pointwise and maker is not None and isinstance(maker.op, Conv):
        wrong = replace(compose(node.op, maker.op), bias=np.ones(node.op.outputs))
        yield Apply(wrong, tuple(value for value in maker.inputs if value is not None))


@pytest.fixture
def faulty_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    faulty = Rewrite("off_by_one", (Conv,), FOLD, off_by_one)

    def select(_: object, exclude: Sequence[str], *__: object) -> Plan:
        return Plan(() if faulty.name in exclude else (faulty,))

    monkeypatch.setattr(compiler, "select", select)


@pytest.mark.usefixtures("faulty_pass")
def test_a_pass_that_is_wrong_is_declined_and_named(path: Path, tmp_path: Path) -> None:
    report = fuser.optimize_file(path, tmp_path / "out.onnx")
    assert report.applied == []
    assert report.verification is not None
    assert report.verification.ok
    assert {event.rewrite for event in report.declined} >= {"off_by_one"}
    assert all("the check differs by" in e.reason for e in report.declined if e.rewrite == "off_by_one")


@pytest.mark.usefixtures("faulty_pass")
def test_a_result_that_differs_is_not_written(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the check of single rewrites switched off, that of the whole file finds the mistake alone."""
    monkeypatch.setattr("fuser.validate.check.compare", lambda *_: None)
    output = tmp_path / "out.onnx"
    output.write_bytes(b"what was there")
    with pytest.raises(VerificationError, match=r"nothing was written: .*suspect: off_by_one"):
        fuser.optimize_file(path, output)
    assert output.read_bytes() == b"what was there"
    assert sorted(tmp_path.iterdir()) == [path, output]


def test_weights_that_are_not_finite_are_left_alone_and_the_rest_is_not(path: Path) -> None:
    model = onnx.load(path)
    weight = next(t for t in model.graph.initializer if len(t.dims) == 4)
    values = numpy_helper.to_array(weight).copy()
    values.flat[0] = np.nan
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    result, report = fuser.optimize(model, return_report=True)
    assert any("nan" in event.reason for event in report.declined)
    assert 0 < convs(result)[1] < convs(model)[1]


def test_a_model_without_weights_passes_through(tmp_path: Path) -> None:
    shape: list[int | str | None] = ["n", 3]
    relu = helper.make_node("Relu", ["x"], ["y"])
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "xy"]
    model = helper.make_model(helper.make_graph([relu], "g", info[:1], info[1:]), ir_version=10)
    onnx.save(model, tmp_path / "a.onnx")
    report = fuser.optimize_file(tmp_path / "a.onnx", tmp_path / "b.onnx")
    assert report.events == []
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def kernels(model: onnx.ModelProto) -> list[list[int]]:
    return [list(tensor.dims) for tensor in model.graph.initializer if len(tensor.dims) == 4]


def test_weights_close_to_zero_are_zeros_only_if_that_is_asked_for(tmp_path: Path) -> None:
    weight = normal(4, 3, 3, 3) * 1e-7
    weight[:, :, 1, 1] = normal(4, 3, seed=1) + 3
    bare = parsed(
        "g (float[1,3,8,8] x) => (float[1,4,8,8] y) { y = Conv <pads = [1, 1, 1, 1]> (x, w, b) }",
        w=weight,
        b=normal(4, seed=2),
    )
    assert kernels(fuser.optimize(bare)) == [[4, 3, 3, 3]]
    assert kernels(fuser.optimize(bare, zero_below=1e-8)) == [[4, 3, 3, 3]]
    narrowed = fuser.optimize(bare, zero_below=1e-6)
    assert kernels(narrowed) == [[4, 3, 1, 1]]

    path = tmp_path / "m.onnx"
    onnx.save(bare, path)
    report = fuser.optimize_file(path, path, zero_below=1e-6)
    assert report.verification is not None
    assert report.verification.ok
    assert kernels(onnx.load(path)) == [[4, 3, 1, 1]]


def test_what_is_close_to_zero_is_a_part_of_the_largest(model: onnx.ModelProto) -> None:
    for wrong in (-1e-6, 1.0, float("nan")):
        with pytest.raises(InputError, match=r"from 0 to less than 1, not (-1e-06|1.0|nan)$"):
            fuser.optimize(model, zero_below=wrong)


IMAGE = "(float[1,2,4,4] x) => (float[1,2,4,4] y) <float[2,2,1,1] w = {1, 2, 3, 4}, float two = {2}>"
ROWS = "(float[3,2] x) => (float[3,2] y, float[3,2] z) <float[2,2] w = {1, 2, 3, 4}, float two = {2}>"
ROW = "(float[N,2] x) => (float[N,2] y) <float[2,2] w = {1, 2, 3, 4}>"
PLAIN = "(float[3,8,6,3] x) => (float[3,8,6,3] y) <int64[1] last = {4}>"


@pytest.mark.parametrize(
    ("header", "body", "left"),
    [
        (IMAGE, "a = Conv(x, w) b = Mul(a, two) y = Identity(b)", ["Conv"]),
        (IMAGE, "a = Conv(x, w) b = Conv(a, w) y = Dropout(b)", ["Conv"]),
        (ROW, "a = Gemm(x, w) b = MatMul(a, w) y = Flatten <axis = 1> (b)", ["Gemm"]),
        (ROWS, "a = MatMul(x, w) b = Mul(a, two) y = MatMul(b, w) z = Identity(a)", ["MatMul", "Gemm"]),
        (PLAIN, "a = Add(x, x) b = Unsqueeze(a, last) y = Squeeze(b, last)", ["Mul"]),
    ],
)
def test_what_changes_nothing_at_the_end_of_what_was_rewritten(
    header: str, body: str, left: list[str]
) -> None:
    model = parsed(f"g {header} {{ {body} }}")
    result, report = fuser.optimize(model, return_report=True)
    assert [node.op_type for node in result.graph.node] == left
    assert fuser.verify(model, result).ok
    assert report.applied


def test_a_value_that_stood_for_another_may_vanish_too() -> None:
    model = parsed(
        "g (float[1,1,1,1] x) => (float[1,1,4,4] y) <int64[2] s = {-1, 1}, float[1,1] m = {2}, "
        "int64[4] q = {-1, 1, 1, 1}, float[1,1,2,3] k = {0, 0, 0, 0, 0, 0}, "
        "int64[8] p = {0, 0, 2, 2, 0, 0, 1, 1}> "
        "{ a = Reshape(x, s) b = MatMul(a, m) c = Reshape(b, q) d = Conv <pads = [0, 1, 1, 1]> (x, k) "
        "e = Add(c, d) f = Add(e, x) y = Pad(f, p) }"
    )
    result = fuser.optimize(model)
    assert [node.op_type for node in result.graph.node] == ["Conv"]
    assert fuser.verify(model, result).ok


def test_a_branch_recognised_before_what_it_reads_got_another_name() -> None:
    model = parsed(
        "g (float[2,12,8] x) => (float[2,12,1] a, float[2,12,6] z) <int64[1] b = {11}, "
        "int64[1] e = {-2147483648}, int64[1] ax = {1}, int64[1] st = {-1}> "
        "{ v = MatMul(x, m) a = Transpose <perm = [0, 1, 2]> (v) s = Slice(v, b, e, ax, st) "
        "w = Conv <pads = [1, 1], strides = [2]> (s, k) z = Div(w, c) }",
        m=normal(8, 1),
        k=normal(12, 12, 2, seed=1),
        c=normal(12, 1, seed=2) + 3,
    )
    result = fuser.optimize(model)
    assert [node.op_type for node in result.graph.node] == ["MatMul", "Conv"]
    assert fuser.verify(model, result).ok


def test_a_reshape_to_a_number_of_samples_is_none_that_does_nothing() -> None:
    model = parsed(
        "g (float[N,4,1,1] x) => (float[?,?,?,?] y) <int64[4] two = {2, 1, 1, -1}> "
        "{ a = Conv(x, w, b) y = Reshape(a, two) }",
        w=normal(1, 4, 1, 1),
        b=normal(1, seed=1),
    )
    result = fuser.optimize(model)
    assert [node.op_type for node in result.graph.node] == ["Conv", "Reshape"]
    assert fuser.verify(model, result, inputs={"x": normal(4, 4, 1, 1).astype(np.float32)}).ok


def test_a_matmul_and_its_bias_stay_as_they_are() -> None:
    model = parsed(
        "g (float[N,196,96] x) => (float[N,196,384] y) { a = MatMul(x, w) y = Add(a, b) }",
        w=normal(96, 384),
        b=normal(384, seed=1),
    )
    result, report = fuser.optimize(model, return_report=True)
    assert report.applied == []
    assert [t.name for t in result.graph.initializer] == ["w", "b"]


def test_a_check_that_fails_where_each_rewrite_was_right_is_a_bug(
    model: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(*_: object, trusted: bool) -> None:
        raise Declined(f"trusted is {trusted}")

    monkeypatch.setattr(checks, "settle", check)
    with pytest.raises(
        VerificationError, match="a kernel is wrong though each rewrite of it was right: trusted is True"
    ):
        fuser.optimize(model)


def test_what_the_package_does_not_have() -> None:
    with pytest.raises(AttributeError, match="module 'fuser' has no attribute 'pessimize'"):
        fuser.pessimize  # noqa: B018  # looked up


def test_inputs_and_shapes_that_do_not_agree_are_refused(path: Path, tmp_path: Path) -> None:
    """Also unverified: what multiply-adds are counted for would be one of them, silently."""
    (name,) = (value.name for value in onnx.load(path).graph.input)
    given, shapes = {name: np.zeros((1, 3, 32, 32), np.float32)}, {name: (2, 3, 32, 32)}
    with pytest.raises(InputError, match=r"was given in shape \[1, 3, 32, 32\], but its shape is to be \[2"):
        fuser.optimize_file(path, tmp_path / "out.onnx", verify=False, inputs=given, shapes=shapes)


@pytest.mark.parametrize("operators", [("Add",), ("Mul",), ("Add", "Mul")])
def test_a_chain_of_maps_of_channels_computes_each_map_a_few_times(
    operators: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long it is: not each of them again for each map behind it."""
    computed = []
    call = Lazy.__call__

    def counted(lazy: Lazy) -> Array:
        computed.append(1)
        return call(lazy)

    monkeypatch.setattr(Lazy, "__call__", counted)
    length = 150
    names = ["x", *(f"v{i}" for i in range(1, length)), "y"]
    kinds = [operators[i % len(operators)] for i in range(length)]
    nodes = [f"{names[i + 1]} = {kind}({names[i]}, c)" for i, kind in enumerate(kinds)]
    model = parsed(
        f"g (float[N,4] x) => (float[N,4] y) {{ {' '.join(nodes)} }}", c=np.array([1.0, -1.0, 1.01, 0.99])
    )
    result = fuser.optimize(model)
    assert len(result.graph.node) == len(operators)
    assert len(computed) < 25 * length


def test_inputs_are_not_written(path: Path, tmp_path: Path) -> None:
    inputs = tmp_path / "x.npz"
    np.savez(inputs, image=np.zeros((1, 3, 32, 32), np.float32))
    before = inputs.read_bytes()
    with pytest.raises(OutputError, match=r"x\.npz is also the path of the inputs"):
        fuser.optimize_file(path, inputs, inputs=inputs)
    assert inputs.read_bytes() == before

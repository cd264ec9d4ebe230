"""ONNX against ONNX where something is odd: foreign operators, our own mistakes, and what reads the files."""

import subprocess
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import fuser
from fuser.cli import run
from fuser.errors import ContradictionError, VerificationError
from fuser.hosts.onnx.demands.samples import samples_of
from fuser.hosts.onnx.judge.cut import cut, holes, narrowest, seen
from fuser.hosts.onnx.judge.source import Source
from fuser.hosts.onnx.judge.values import agree
from fuser.hosts.onnx.judge.verification import OnnxModels, patience
from fuser.hosts.onnx.standard import kernels as onnx_kernels
from fuser.hosts.onnx.standard import windows as onnx_windows
from fuser.judge.inputs import Spec
from fuser.verifier import verify
from tests.small_models import convnet, normal, parsed

HEADER = '<ir_version: 9, opset_import: ["": 17, "acme": 1, "own": 1]>'


def foreign(graph: str, functions: str = "", **weights: Any) -> onnx.ModelProto:
    """A model with operators of a domain that nobody here has."""
    model = onnx.parser.parse_model(f"{HEADER} {graph} {functions}")
    for name, array in weights.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(array, np.float32), name))
    return model


BEFORE = "g (float[N,4] x) => (float[a,b] y) { h = Mul (x, s) y = acme.Magic (h) }"
AROUND = """g (float[N,4] x) => (float[a,b] y, float[c,d] z) {
    h = Mul (x, s) m, n = acme.Magic <strength = 3> (h, x) y = Add (m, t) z = Neg (h)
}"""
TWICE = """g (float[N,4] x) => (float[a,b] y) {
    h = Mul (x, s) m = acme.Magic (h) k = Add (m, t) q = acme.Other (k) y = Mul (q, s)
}"""


@pytest.mark.parametrize("graph", [BEFORE, AROUND, TWICE])
def test_around_a_foreign_operator_all_is_compared_and_no_more_is_said(graph: str) -> None:
    weights: dict[str, Any] = {"s": 2.0, "t": [1.0, 2.0, 3.0, 4.0]} if "(m, t)" in graph else {"s": 2.0}
    verdict = verify(foreign(graph, **weights), foreign(graph, **weights))
    assert verdict.verdict == "unproven"
    assert not verdict.ok
    assert set(verdict.unproven) == {"y"}
    assert "acme::" in verdict.unproven["y"]
    assert all(row.ok for row in verdict.rows)
    assert "input 0 of acme::Magic" in " ".join(row.output for row in verdict.rows)
    for name, array in weights.items():
        other = foreign(graph, **weights | {name: np.asarray(array) * 1.01})
        assert verify(foreign(graph, **weights), other).verdict == "differs", name


def test_a_foreign_operator_in_a_function_or_a_body_is_one_too() -> None:
    call = foreign(
        "g (float[N,4] x) => (float[a,b] y) { h = Mul (x, s) y = own.outer (h) }",
        '<domain: "own", opset_import: ["": 17, "own": 1]> outer (a) => (b) { b = own.inner (a) }'
        '<domain: "own", opset_import: ["": 17, "acme": 1]> inner (a) => (b) { b = acme.Magic (a) }',
        s=2.0,
    )
    branch = foreign(
        """g (float[1,4] x, bool c) => (float[a,b] y) {
            h = Mul (x, s)
            y = If (c) <then_branch = t () => (float[1,4] u) { u = acme.Magic (h) },
                else_branch = e () => (float[1,4] v) { v = Neg (h) }>
        }""",
        s=2.0,
    )
    for model in (call, branch):
        verdict = verify(model, model)
        assert verdict.verdict == "unproven", verdict.reason
        assert verdict.rows
        other = onnx.ModelProto()
        other.CopyFrom(model)
        other.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.array(2.1, np.float32), "s"))
        assert verify(model, other).verdict == "differs"


def test_a_foreign_operator_that_was_lost_is_a_difference() -> None:
    lost = foreign("g (float[N,4] x) => (float[a,b] y) { y = Mul (x, s) }", s=2.0)
    verdict = verify(foreign(BEFORE, s=2.0), lost)
    assert verdict.verdict == "differs"
    assert "the result does not run where the original does" in verdict.reason
    assert "it has not the same nodes that cannot be compared: none" in verdict.reason


def test_what_is_taken_out_leaves_inputs_and_outputs() -> None:
    model = foreign(AROUND, s=2.0, t=[1.0] * 4)
    taken = holes(model, {("acme", "Magic")})
    left = cut(model, taken, {"m": Spec("m", "float16", None)})
    assert [value.name for value in left.graph.input] == ["x", "m"]
    assert left.graph.input[1].type.tensor_type.elem_type == TensorProto.FLOAT16
    assert [value.name for value in left.graph.output] == ["y", "z", seen(taken[0], "0"), seen(taken[0], "1")]
    assert [node.op_type for node in model.graph.node] == ["Mul", "Magic", "Add", "Neg"]  # as it was


def test_an_optimized_file_with_a_foreign_operator_is_written_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = foreign(
        "g (float[N,3,8,8] x) => (float[a,b,c,d] y) { h = Conv (x, w) n = BatchNormalization (h, s, s, s, s) "
        "y = acme.Magic (n) }",
        w=normal(4, 3, 3, 3), s=np.linspace(1, 2, 4),
    )  # fmt: skip
    source, target = tmp_path / "a.onnx", tmp_path / "b.onnx"
    onnx.save(model, source)
    assert run(["optimize", str(source), "-o", str(target)]) == 0
    assert "warning: " in capsys.readouterr().err
    assert [node.op_type for node in onnx.load(target).graph.node] == ["Conv", "Magic"]
    assert run(["verify", str(source), str(target)]) == 0
    assert "could not be proved" in capsys.readouterr().err
    assert run(["verify", "--strict", str(source), str(target)]) == 1
    target.unlink()
    assert run(["optimize", "--strict", str(source), "-o", str(target)]) == 1
    assert "could not be proved to compute the same, and nothing was written" in capsys.readouterr().err
    assert not target.exists()


# --- our own mistakes --------------------------------------------------------------------------------------


@pytest.fixture
def _mistaken(monkeypatch: pytest.MonkeyPatch) -> None:
    """An evaluation of Conv that is wrong by half."""
    monkeypatch.setitem(
        onnx_kernels.KERNELS, "Conv", lambda node, *arrays: onnx_windows.conv(node, *arrays) * 1.5
    )


@pytest.mark.usefixtures("_mistaken")
def test_an_evaluation_of_ours_that_is_wrong_lifts_no_tolerance() -> None:
    wrong = convnet(w2=normal(5, 4, 3, 3, seed=3) / 6 * 1.2)
    with pytest.raises(
        ContradictionError, match=r"the node of 'h' \(Conv\) is no reference, for onnxruntime"
    ) as told:
        verify(convnet(), wrong)
    assert told.value.exit_status == 70


@pytest.mark.usefixtures("_mistaken")
def test_an_evaluation_of_ours_that_is_wrong_writes_nothing(tmp_path: Path) -> None:
    source, target = tmp_path / "a.onnx", tmp_path / "b.onnx"
    onnx.save(convnet(), source)
    target.write_bytes(b"as it was")
    assert run(["optimize", str(source), "-o", str(target)]) == 70
    assert target.read_bytes() == b"as it was"


@pytest.mark.parametrize(
    "kind", ["Conv", "BatchNormalization", "AveragePool", "MatMul", "Softmax", "Exp", "Pad"]
)
def test_a_mistake_in_any_evaluation_is_found_at_its_node(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = onnx_kernels.KERNELS[kind]
    text = """g (float[1,3,6,6] x) => (float[a,b,c,d] y, float[e,f] z) {
        n = BatchNormalization (x, s, s, s, s) h = Conv <pads = [1,1,1,1]> (n, w)
        q = AveragePool <kernel_shape = [2,2]> (h) p = Pad (q, pads) y = Exp (p)
        r = ReduceMean <axes = [2,3], keepdims = 0> (y) m = MatMul (r, k) z = Softmax (m)
    }"""
    model = parsed(text, s=np.array([1.0, 2.0, 3.0]), w=normal(4, 3, 3, 3) / 5, k=normal(4, 5),
                   pads=np.array([0, 0, 1, 0, 0, 0, 0, 1]))  # fmt: skip
    assert verify(model, model).ok
    monkeypatch.setitem(onnx_kernels.KERNELS, kind, lambda node, *arrays: right(node, *arrays) * 1.5)
    with pytest.raises(ContradictionError, match=rf"\({kind}\) is no reference"):
        verify(model, parsed(text.replace("Softmax (m)", "Identity (m)"), **{
            t.name: numpy_helper.to_array(t) for t in model.graph.initializer}))  # fmt: skip


# --- what reads the files ----------------------------------------------------------------------------------


JUDGES = {
    "fuser": {"errors", "hosts", "judge", "verifier"},
    "fuser.judge": {"compare", "demands", "forms", "inputs", "needs", "runner", "samples", "sizes"}
    | {"verification"},
    "fuser.hosts": {"blame", "host", "kind", "onnx", "pick"},
    "fuser.hosts.onnx": {"demands", "entry", "judge", "standard"},
    "fuser.hosts.onnx.judge": {"control", "cut", "oracle", "runtime", "scope", "source", "values"}
    | {"verification"},
    "fuser.hosts.onnx.demands": {"demands", "elements", "samples", "shapes", "sums", "tensors"} | {"values"},
    "fuser.hosts.onnx.standard": {"evaluate", "kernel", "kernels", "reference", "special", "windows"},
}
"""All that may take part in a verdict: no graph, no algebra, no rule of the compiler."""


def test_nothing_of_the_compiler_takes_part(tmp_path: Path) -> None:
    """The files are judged in a process in which no module that reads, lifts or rewrites was ever loaded."""
    onnx.save(convnet(), tmp_path / "a.onnx")
    onnx.save(convnet(shift=0.5), tmp_path / "b.onnx")
    code = f"""
import sys, fuser
assert fuser.verify({str(tmp_path / "a.onnx")!r}, {str(tmp_path / "a.onnx")!r}).ok
assert not fuser.verify({str(tmp_path / "a.onnx")!r}, {str(tmp_path / "b.onnx")!r}).ok
print(*(name for name in sys.modules if name.startswith(("fuser.", "passes"))))
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    judges = {f"{room}.{name}" for room, names in JUDGES.items() for name in names}
    assert set(found.stdout.split()) == judges


def test_a_file_is_read_as_onnxruntime_reads_it(tmp_path: Path) -> None:
    """Weights that state where they lie after their bytes, as onnx leaves them that it loads."""
    onnx.save(convnet(), tmp_path / "e.onnx", save_as_external_data=True, location="e.data", size_threshold=0)
    onnx.save(onnx.load(tmp_path / "e.onnx"), tmp_path / "one.onnx")
    zeros = convnet()
    for tensor in zeros.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(np.zeros(tensor.dims, np.float32), tensor.name))
    onnx.save(zeros, tmp_path / "zeros.onnx")
    assert verify(tmp_path / "one.onnx", tmp_path / "e.onnx").ok
    assert verify(tmp_path / "one.onnx", tmp_path / "zeros.onnx").verdict == "differs"
    assert verify(tmp_path / "zeros.onnx", tmp_path / "one.onnx").verdict == "differs"


# --- the narrowest type ------------------------------------------------------------------------------------


def half() -> str:
    return """g (float[N,16] x) => (float[N,8] y, float[N,16] z) {
        h = Cast <to = 10> (x) m = MatMul (h, w) y = Cast <to = 1> (m) z = Neg (x)
    }"""


def test_what_computes_in_half_precision_is_judged_by_that() -> None:
    weight = normal(16, 8).astype(np.float16)
    assert narrowest(parsed(half(), w=weight)) == {"y": "float16", "z": "float32"}
    verdict = verify(parsed(half(), w=weight), parsed(half(), w=weight * np.float16(1.0005)))
    assert verdict.ok, verdict.reason
    assert {(row.output, row.dtype, row.precision) for row in verdict.rows} == {
        ("y", "float32", "float16"),
        ("z", "float32", "float32"),
    }
    assert verify(parsed(half(), w=weight), parsed(half(), w=weight * np.float16(1.02))).verdict == "differs"


def test_whole_numbers_and_shapes_bring_no_type() -> None:
    text = """g (float16[N,4] x) => (float[a] y, int64[b] s) {
        s = Shape (x) f = Cast <to = 1> (s) y = Mul (f, f)
    }"""
    assert narrowest(parsed(text)) == {"y": "float32", "s": "int64"}


# --- through the compiler ----------------------------------------------------------------------------------


def test_what_is_optimized_in_memory_may_be_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    result, report = fuser.optimize(convnet(), verify=True, return_report=True)
    assert report.verification is not None
    assert report.verification.ok
    assert len(result.graph.node) < len(convnet().graph.node)
    assert fuser.optimize(convnet(), return_report=True)[1].verification is None
    monkeypatch.setattr("fuser.hosts.operators.norms.scale_shift", _off)
    monkeypatch.setattr("fuser.validate.check.compare", lambda *_, **__: None)
    with pytest.raises(
        VerificationError, match=r"does not compute the same.*; suspect: fold_batch_norm, without"
    ):
        fuser.optimize(convnet(), verify=True)


def _off(scale: Any, *rest: Any) -> Any:
    from fuser.algebra.conv import scale_shift

    return scale_shift(scale * 1.01, *rest)


def test_maps_and_strings_are_compared_as_they_are() -> None:
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["g"]),
        helper.make_node("LinearClassifier", ["g"], ["l", "p"], domain="ai.onnx.ml",
                         coefficients=[1.0, 2.0, 3.0, 4.0], intercepts=[0.0, 0.1],
                         classlabels_strings=["cat", "dog"]),
        helper.make_node("ZipMap", ["p"], ["z"], domain="ai.onnx.ml", classlabels_strings=["cat", "dog"]),
    ]  # fmt: skip
    kind = helper.make_map_type_proto(
        TensorProto.STRING, helper.make_tensor_type_proto(TensorProto.FLOAT, [])
    )
    outputs = [
        helper.make_tensor_value_info("l", TensorProto.STRING, [None]),
        helper.make_value_info("z", helper.make_sequence_type_proto(kind)),
    ]

    def model(scale: float) -> onnx.ModelProto:
        weight = numpy_helper.from_array((normal(3, 2) * scale).astype(np.float32), "w")
        inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [5, 3])]
        graph = helper.make_graph(nodes, "g", inputs, outputs, [weight])
        opsets = [helper.make_opsetid("", 15), helper.make_opsetid("ai.onnx.ml", 3)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)

    verdict = verify(model(1), model(1))
    assert verdict.ok, verdict.reason
    assert {"l", "z[0]['cat']"} <= {row.output for row in verdict.rows}
    assert verify(model(1), model(1.1)).verdict == "differs"
    assert verify(model(1), model(-1)).verdict == "differs"


TENSOR = helper.make_tensor_type_proto(TensorProto.FLOAT, [2, 3])
NO_TENSORS = {
    "map": (
        helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, [])),
        helper.make_node("CastMap", ["s"], ["z"], domain="ai.onnx.ml", map_form="DENSE"),
    ),
    "sequence": (
        helper.make_sequence_type_proto(TENSOR),
        helper.make_node("SequenceAt", ["s", "first"], ["z"]),
    ),
    "optional": (
        helper.make_optional_type_proto(TENSOR),
        helper.make_node("OptionalGetElement", ["s"], ["z"]),
    ),
}


def reading(kind: str, scale: float, behind: float) -> onnx.ModelProto:
    """`y` is made of `x` alone, `z` of an input that is no tensor, and `both` of both."""
    form, node = NO_TENSORS[kind]
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["y"]),
        node,
        helper.make_node("Mul", ["z", "b"], ["z2"]),
        helper.make_node("Add", ["y", "z2"], ["both"]),
    ]
    weights = {
        "w": (normal(3, 3) * scale).astype(np.float32),
        "b": np.float32(behind),
        "first": np.int64(0),
    }
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3]), helper.make_value_info("s", form)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("y", "z", "both")],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


@pytest.mark.parametrize("kind", NO_TENSORS)
def test_an_input_that_is_no_tensor_leaves_the_rest_to_be_proved(kind: str) -> None:
    verdict = verify(reading(kind, 1, 2), reading(kind, 1, 2))
    assert verdict.verdict == "unproven"
    assert verdict.unproven.keys() == {"z", "both"}
    assert "y" in {row.output for row in verdict.rows if row.ok}
    assert verify(reading(kind, 1, 2), reading(kind, 1.01, 2)).verdict == "differs"
    assert verify(reading(kind, 1, 2), reading(kind, 1, 2.02)).verdict == "differs"


@pytest.mark.parametrize("kind", NO_TENSORS)
def test_the_tensors_beside_an_input_that_is_none_may_be_given(kind: str) -> None:
    verdict = verify(reading(kind, 1, 2), reading(kind, 1, 2), inputs={"x": normal(2, 3).astype(np.float32)})
    assert verdict.unproven.keys() == {"z", "both"}


def test_what_is_taken_out_may_be_called_otherwise_in_the_result() -> None:
    """An output that was a copy of what a foreign node makes becomes that node's own."""
    head = "g (float[N,4] x) => (float[a,b] y, float[c,d] z)"
    copy = head + "{ m = acme.Magic (x) y = Identity (m) z = Mul (m, s) }"
    own = head + "{ y = acme.Magic (x) z = Mul (y, s) }"
    read = head + "{ m = acme.Magic (x) y = Identity (m) o = acme.Other (m) z = Mul (o, s) }"
    both = head + "{ y = acme.Magic (x) o = acme.Other (y) z = Mul (o, s) }"
    for first, second in ((copy, own), (own, copy), (read, both), (both, read)):
        verdict = verify(foreign(first, s=2.0), foreign(second, s=2.0))
        assert verdict.verdict == "unproven", verdict.reason
        assert verify(foreign(first, s=2.0), foreign(second, s=2.02)).verdict == "differs"


@pytest.mark.parametrize("stated", [(4, 2), ("N", 2), (None, 2)])
def test_what_is_made_up_is_of_the_shape_that_the_model_states(stated: tuple[Any, ...]) -> None:
    """A result may have taken that shape for a constant."""
    model = foreign(
        "g (float[N,2] x, bool b) => (float[a,b] y) { m = acme.Magic (b) s = Shape (m) y = Expand (x, s) }"
    )
    model.graph.value_info.append(helper.make_tensor_value_info("m", TensorProto.FLOAT, stated))
    models = OnnxModels(model, model, samples_of(model))
    models.taken.add(("acme", "Magic"))
    feeds = {"x": np.ones((4, 2), np.float32), "b": np.array(True)}
    with models.original(precise=False) as runner:
        assert runner.run(feeds)["y"].shape == (4, 2)
    assert models.fill(feeds)["m"].shape == (1 if stated[0] is None else 4, 2)


@pytest.mark.parametrize("batch", ["N", "2"])
@pytest.mark.parametrize("node", ["Pad (x, n)", "Tile (x, m)", "Expand (x, m)"])
def test_what_would_be_too_large_is_not_run(batch: str, node: str) -> None:
    """One number in a file makes gigabytes of a small input."""
    model = parsed(
        f"g (float[{batch},4] x) => (float[a,b] y, float[{batch},4] z) {{ y = {node} z = Neg (x) }}",
        n=np.array([0, 2**29, 0, 0]),
        m=np.array([1 if node.startswith("Tile") else 2, 2**28 if node.startswith("Tile") else 4]),
    )
    if node.startswith("Expand"):
        model = parsed(
            f"g (float[{batch},1] x) => (float[a,b] y, float[{batch},1] z) {{ y = {node} z = Neg (x) }}",
            m=np.array([2, 2**29]),
        )
    started = perf_counter()
    verdict = verify(model, model)
    assert verdict.verdict == "unproven"
    assert "which is too large to be tried" in verdict.reason
    assert perf_counter() - started < 10  # it never ends where it is run


def test_one_number_that_hardly_moves_by_chance_is_no_contradiction() -> None:
    """A mean of one number is rounded as a mean of many is, and what moves it says little of that."""
    model = parsed("g (float[N,1] x) => (float[1,1] y) { y = ReduceMean <axes = [0], keepdims = 1> (x) }")
    source = Source(model, "model")
    for seed in range(100):
        drawn = np.random.default_rng(seed).standard_normal((5000, 1))
        agree(model, source, {"x": (drawn - drawn.mean()).astype(np.float32)})


def test_where_nothing_is_left_nothing_is_compared() -> None:
    text = '<ir_version: 9, opset_import: ["": 17, "mine": 1]> g () => (float[2] y) { y = mine.Twist () }'
    model = onnx.parser.parse_model(text)
    verdict = verify(model, model)
    assert verdict.verdict == "unproven"
    assert "nothing is left without mine::Twist" in verdict.reason


def test_what_only_the_result_can_evaluate_is_no_difference() -> None:
    text = """g (float[3] x) => (float[5] y, float[3] z) <int64[2] p = {{1, 1}}> {{
        y = Pad <mode = "{}"> (x, p) z = Neg (x) }}"""
    lost, found = parsed(text.format("odd")), parsed(text.format("edge"))
    verdict = verify(lost, found)
    assert verdict.verdict == "unproven"
    assert {*verdict.unproven} == {"y"}
    assert verify(found, lost).verdict == "differs"


def turning(count: int, scale: float) -> onnx.ModelProto:
    """A Loop of `count` turns, and what does not wait for it."""
    return parsed(
        f"""g (float[3] x) => (float[3] y, float[n,3] z, float[3] s)
        <int64 n = {{{count}}}, bool t = {{1}}> {{
            k = Constant <value_float = {scale}> ()
            y, z = Loop (n, t, x) <body = b (int64 i, bool c, float[3] a) => (bool d, float[3] e, float[3] f)
                {{ d = Identity (c) e = Neg (a) f = Mul (a, k) }}>
            s = Mul (x, k) }}"""
    )


def test_a_loop_without_end_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fuser.hosts.onnx.judge.verification.SECONDS", 0.2)
    started = perf_counter()
    verdict = verify(turning(2**40, 2.0), turning(2**40, 2.0))
    assert perf_counter() - started < 20
    assert verdict.verdict == "unproven"
    assert {*verdict.unproven} == {"y", "z"}
    assert "it does not end within 0.2 seconds" in verdict.notes[0]
    assert verify(turning(2**40, 2.0), turning(2**40, 3.0)).verdict == "differs"
    assert verify(turning(4, 2.0), turning(2**40, 2.0)).verdict == "unproven"


def test_a_loop_may_take_time_for_its_weights() -> None:
    small, large = turning(4, 2.0), turning(4, 2.0)
    large.graph.initializer.append(numpy_helper.from_array(np.zeros(10**6, np.float32), "w"))
    assert patience(small) == pytest.approx(3, abs=0.1)
    assert patience(large) == pytest.approx(43, abs=0.1)
    assert patience(convnet()) is None
    assert verify(small, turning(4, 2.0)).verdict == "equal"
    assert verify(small, turning(4, 3.0)).verdict == "differs"


def test_what_a_body_reads_no_more_is_no_difference() -> None:
    """A rewrite inside of it may need less from outside: what both read is compared."""
    text = """<ir_version: 9, opset_import: ["": 17, "acme": 1]>
    g (float[N,6] x, bool c) => (float[N,6] y) {
        a = Neg (x)  b = Abs (x)
        y = If (c) <then_branch = t () => (float[N,6] t) {{ u = acme.Magic (a)  t = {} }},
                    else_branch = e () => (float[N,6] e) {{ e = Identity (a) }}>
    }"""
    before, after = (
        onnx.parser.parse_model(text.replace("{}", made).replace("{{", "{").replace("}}", "}"))
        for made in ("Add (u, b)", "Identity (u)")
    )
    verdict = verify(before, after)
    assert verdict.verdict == "unproven"
    assert list(verdict.unproven) == ["y"]
    assert any("a" in row.output for row in verdict.rows)

"""The verdict on a result: right ones pass, wrong ones fail, and what cannot be judged is said."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

import fuser
from fuser.errors import InputError, OracleUnavailable
from fuser.hosts.onnx.judge.oracle import Oracle
from fuser.hosts.onnx.judge.values import compare_values
from fuser.judge.verification import Values, Verification
from fuser.verifier import verify
from tests.small_models import convnet, normal, parsed

FLAT = "g (float[1,6] x) => (float[1,6] y)"


def folded() -> onnx.ModelProto:
    """`convnet` with its BatchNorm folded, and rounded once."""
    weights = {t.name: numpy_helper.to_array(t).astype(np.float64) for t in convnet().graph.initializer}
    factor = weights["scale"] / np.sqrt(weights["var"] + 1e-5)
    return parsed(
        """g (float[N,3,H,W] x) => (float[a,b,c,d] y) {
            n = Conv <pads = [1,1,1,1]> (x, w1, b1)
            r = Relu (n)
            y = Conv <pads = [1,1,1,1], strides = [2,2]> (r, w2, b2)
        }""",
        w1=weights["w1"] * factor.reshape(-1, 1, 1, 1),
        b1=weights["bias"] - weights["mean"] * factor,
        w2=weights["w2"],
        b2=weights["b2"],
    )


def plus(model: onnx.ModelProto, error: NDArray[Any]) -> onnx.ModelProto:
    """A model whose only output `y` has `error` added."""
    result = copy.deepcopy(model)
    result.graph.node[-1].output[0] = "right"
    result.graph.node.append(onnx.helper.make_node("Add", ["right", "error"], ["y"]))
    result.graph.initializer.append(numpy_helper.from_array(error.astype(np.float32), "error"))
    return result


def unproven(verdict: Verification, reason: str) -> None:
    assert verdict.verdict == "unproven"
    assert not verdict
    assert re.search(reason, verdict.reason), verdict.reason


def refused(verdict: Verification, reason: str) -> None:
    assert verdict.verdict == "differs"
    assert not verdict.ok
    assert not verdict
    assert reason in verdict.reason, verdict.reason


# --- right results -----------------------------------------------------------------------------------------


def test_a_model_equals_itself_without_any_error() -> None:
    verdict = verify(convnet(), convnet())
    assert verdict.ok, verdict.reason
    assert verdict
    assert verdict.reason == ""
    assert [row.error for row in verdict.rows] == [0.0, 0.0, 0.0]
    (measured,) = (row for row in verdict.rows if row.float64_error is not None)  # the rest is near enough
    assert measured.own_error == measured.float64_error
    assert measured.own_error is not None
    assert 0 < measured.own_error < 1e-6
    for row in verdict.rows:
        assert row.output == "y"
        assert row.compared == np.prod(row.shape)
        assert row.tolerance == 1e-5


def test_a_folded_model_is_right() -> None:
    verdict = verify(convnet(), folded())
    assert verdict.ok, verdict.reason
    assert verdict.worst is not None
    assert 0 < verdict.worst.error < 1e-6
    assert verdict.values is None
    assert verdict.seconds > 0


def test_symbolic_dimensions_take_several_sizes() -> None:
    verdict = verify(convnet(), folded())
    assert verdict.samples == ({"x": (2, 3, 64, 96)}, {"x": (1, 3, 75, 101)}, {"x": (3, 3, 96, 64)})
    assert [row.shape[2:] for row in verdict.rows] == [(32, 48), (38, 51), (48, 32)]


def test_fixed_dimensions_take_two_samples_of_other_values() -> None:
    verdict = verify(convnet(image="1,3,8,8"), convnet(image="1,3,8,8"))
    assert verdict.samples == ({"x": (1, 3, 8, 8)},) * 2
    assert verdict.rows[0].scale != verdict.rows[1].scale


def test_the_verdict_is_deterministic() -> None:
    a, b = verify(convnet(), folded()), verify(convnet(), folded())
    assert a.rows == b.rows
    assert verify(convnet(), folded(), seed=1).rows != a.rows


def test_the_verdict_is_json() -> None:
    assert json.loads(json.dumps(verify(convnet(), folded()).to_dict()))["rows"][0]["output"] == "y"


def test_models_come_as_files_or_from_memory_and_stay_as_they_are(tmp_path: Path) -> None:
    model = convnet()
    onnx.save(model, tmp_path / "a.onnx")
    before = model.SerializeToString()
    forms: list[Any] = [tmp_path / "a.onnx", str(tmp_path / "a.onnx"), model, onnx_ir.from_proto(model)]
    rows = [verify(form, model, samples=1).rows for form in forms]
    assert all(row == rows[0] for row in rows)
    assert model.SerializeToString() == before


def test_weights_may_lie_beside_the_file(tmp_path: Path) -> None:
    file = tmp_path / "a.onnx"
    onnx.save(convnet(), file, save_as_external_data=True, location="a.data", size_threshold=0)
    assert (tmp_path / "a.data").exists()
    assert verify(file, folded()).ok
    assert verify(onnx_ir.load(file), folded()).ok


def test_the_users_inputs_are_taken(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=normal(1, 3, 20, 30))
    for inputs in (tmp_path / "x.npz", {"x": normal(1, 3, 20, 30)}):
        assert verify(convnet(), folded(), inputs=inputs).samples == ({"x": (1, 3, 20, 30)},)
    with pytest.raises(InputError, match="no array for input 'x'"):
        verify(convnet(), folded(), inputs={})


# --- inputs that a model takes -----------------------------------------------------------------------------


def test_sizes_that_the_model_does_not_take_are_passed_over() -> None:
    text = """g (float[N,1,H,W] x) => (float[a,b,c,d] y) {
        p = MaxPool <kernel_shape = [32,32], strides = [32,32]> (x)
        scales = Constant <value = float[4] {1,1,32,32}> ()
        u = Resize <mode = "nearest"> (p, , scales)
        y = Add (x, u)
    }"""
    verdict = verify(parsed(text), parsed(text))
    assert verdict.ok, verdict.reason
    assert [sample["x"] for sample in verdict.samples] == [(2, 1, 64, 96), (1, 1, 64, 96), (3, 1, 96, 64)]


def test_the_one_size_that_the_model_takes_is_found() -> None:
    text = "g (float[N,1,H,W] x) => (float[N,2] y) { f = Flatten (x) y = MatMul (f, w) }"
    verdict = verify(parsed(text, w=normal(224 * 224, 2)), parsed(text, w=normal(224 * 224, 2)))
    assert verdict.ok, verdict.reason
    assert verdict.samples == tuple({"x": (n, 1, 224, 224)} for n in (2, 1, 3))


def test_indices_stay_within_a_short_table() -> None:
    text = "g (int64[N,T] ids) => (float[N,T,4] y) { y = Gather (table, ids) }"
    model = parsed(text, table=normal(3, 4))
    assert verify(model, model).ok


def test_where_no_size_runs_nothing_is_proved_and_what_a_user_gives_is_refused() -> None:
    text = "g (float[N,1,8,W] x) => (float[N,2] y) { f = Flatten (x) y = MatMul (f, w) }"
    model = parsed(text, w=normal(7, 2))
    unproven(
        verify(model, model),
        r"nothing could be compared: .*no sample ran: tried x \[2, .*: onnxruntime fails: .*MatMul.*; and ",
    )
    given = {"x": np.zeros((1, 1, 8, 3), np.float32)}
    with pytest.raises(InputError, match="onnxruntime fails"):
        verify(model, model, inputs=given)


def test_initializers_that_are_inputs_keep_their_values() -> None:
    text = "g (float[N,3] x, float[3] s) => (float[N,3] y) { y = Mul (x, s) }"
    verdict = verify(parsed(text, s=normal(3)), parsed(text, s=normal(3)))
    assert verdict.ok, verdict.reason
    assert any(row.own_error is not None for row in verdict.rows)
    assert set(verdict.samples[0]) == {"x"}
    refused(verify(parsed(text, s=normal(3)), parsed(text, s=normal(3, seed=1))), "output 'y' differs")


def test_strings_are_words() -> None:
    text = "g (string[2] x) => (string[2] y) { y = Identity (x) }"
    assert verify(parsed(text), parsed(text)).ok
    given = {"x": np.array(["a", "b"])}
    assert verify(parsed(text), parsed(text), inputs=given).ok
    other = parsed(
        "g (string[2] x) => (string[2] y) { y = Constant <value_strings = ['a', 'c']> () }".replace("'", '"')
    )
    refused(verify(parsed(text), other, inputs=given), "in 50.00% of its elements")


# --- wrong results -----------------------------------------------------------------------------------------


def test_a_weight_that_is_off_by_a_thousandth_fails() -> None:
    weight = normal(5, 4, 3, 3, seed=3) / 6
    weight[2, 1, 0, 2] += 1e-3
    verdict = verify(convnet(), convnet(w2=weight))
    refused(verdict, "output 'y' differs by ")
    assert "and 1e-05 is allowed; the first value that differs is 'y'" in verdict.reason
    assert all(not row.ok for row in verdict.rows)


def test_the_first_wrong_value_is_named() -> None:
    weight = normal(4, 3, 3, 3) / 5 * (1 + 1e-3)
    refused(verify(convnet(), convnet(w1=weight)), "the first value that differs is 'h'")


def test_an_error_in_one_corner_fails() -> None:
    error = np.zeros((1, 5, 4, 4))
    error[0, 3, 3, 3] = 1e-3
    model = convnet(image="1,3,8,8")
    assert verify(model, plus(model, np.zeros((1, 5, 4, 4)))).ok
    refused(verify(model, plus(model, error)), "output 'y' differs")


def test_a_wrong_border_fails() -> None:
    # A bias in front of a zero-padded convolution: moved behind it, only the border is wrong.
    before = """g (float[N,2,H,W] x) => (float[a,b,c,d] y) {
        s = Add (x, t)
        y = Conv <pads = [1,1,1,1]> (s, w)
    }"""
    after = "g (float[N,2,H,W] x) => (float[a,b,c,d] y) { y = Conv <pads = [1,1,1,1]> (x, w, b) }"
    w, t = normal(3, 2, 3, 3).astype(np.float32), normal(2, 1, 1).astype(np.float32)
    bias = np.einsum("oikl,i->o", w.astype(float), t[:, 0, 0].astype(float))
    refused(verify(parsed(before, w=w, t=t), parsed(after, w=w, b=bias)), "output 'y' differs")


def test_swapped_outputs_fail() -> None:
    original = parsed("g (float[1,6] x) => (float[1,6] y, float[1,6] z) { y = Relu (x) z = Neg (x) }")
    values = parsed("g (float[1,6] x) => (float[1,6] y, float[1,6] z) { z = Relu (x) y = Neg (x) }")
    order = parsed("g (float[1,6] x) => (float[1,6] z, float[1,6] y) { y = Relu (x) z = Neg (x) }")
    refused(verify(original, values), "(1 more outputs differ)")
    refused(verify(original, order), "the outputs differ: float32 y, float32 z and float32 z, float32 y")


@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_one_nan_or_infinity_fails(odd: float) -> None:
    error = np.zeros((1, 6))
    error[0, 2] = odd
    model = parsed(FLAT + "{ y = Neg (x) }")
    verdict = verify(model, plus(model, error))
    refused(verdict, "output 'y' is NaN or infinite in one model only at 1 of 6 elements")
    assert verdict.rows[0].error == np.inf
    refused(verify(plus(model, error), model), "at 1 of 6 elements")
    refused(verify(plus(model, error), plus(model, np.roll(error, 1))), "at 2 of 6 elements")
    same = verify(plus(model, error), plus(model, error))
    assert same.ok, same.reason
    assert same.rows[0].compared == 5


def test_infinities_of_other_sign_fail() -> None:
    model = parsed(FLAT + "{ y = Neg (x) }")
    error = np.full((1, 6), np.inf)
    refused(verify(plus(model, error), plus(model, -error)), "at 6 of 6 elements")


def test_nan_at_equal_places_is_equal_and_said() -> None:
    model = plus(parsed(FLAT + "{ y = Neg (x) }"), np.full((1, 6), np.nan))
    verdict = verify(model, model)
    assert verdict.ok, verdict.reason
    assert "output 'y' is NaN, infinite or empty all over, in both alike" in verdict.notes


def test_what_nan_hides_is_compared_inside() -> None:
    """The outputs are NaN alike, but a value in front of them is not right."""
    text = FLAT + "{ h = Mul (x, s) y = Add (h, n) }"
    nothing = np.full((1, 6), np.nan)
    verdict = verify(parsed(text, s=np.array(2.0), n=nothing), parsed(text, s=np.array(2.1), n=nothing))
    unproven(verdict, "'y': nothing of it is finite, and values inside differ in float64: 'h' by 0.05")


def test_empty_outputs_prove_nothing() -> None:
    model = parsed("g (float[0,6] x) => (float[0,6] y) { y = Neg (x) }")
    unproven(verify(model, model), "not proved here: 'y': it is empty")


@pytest.mark.parametrize("shape", [(0, 6), (1, 0)])
@pytest.mark.parametrize("factor", [2.0, 3.0])
def test_empty_values_inside_prove_nothing_either(shape: tuple[int, int], factor: float) -> None:
    text = "g (float[a,b] x) => (float[a,b] y) { h = Mul (x, s) y = Neg (h) }"
    original, result = parsed(text, s=np.array(2.0)), parsed(text, s=np.array(factor))
    unproven(verify(original, result, shapes={"x": shape}), "not proved here: 'y': it is empty")


def test_an_output_that_is_empty_in_every_sample_was_not_compared() -> None:
    """Neither by itself nor by the values inside, empty or not, is it proved."""
    text = "g (float[N,6] x) => (float[N,6] y) { h = Mul (x, s) y = Neg (h) }"
    original, damaged = (parsed(text, s=np.array(s)) for s in (2.0, 6.0))
    for result in (original, damaged):
        unproven(verify(original, result, shapes={"x": (0, 6)}), "not proved here: 'y': it is empty")
    refused(verify(original, damaged), "output 'y' differs")
    text = "g (float[2,6] x) => (float[N,6] y) { h = Mul (x, s) k = Neg (h) y = Slice (k, a, a) }"
    cut = parsed(text, s=np.array(2.0), a=np.array([0]))
    unproven(verify(cut, cut), "not proved here: 'y': it is empty")


def test_an_empty_output_beside_one_that_is_compared_is_not_proved() -> None:
    text = "g (float[2,6] x) => (float[2,6] z, float[N,6] y) { z = Neg (x) y = Slice (z, a, a) }"
    model = parsed(text, a=np.array([0]))
    verdict = verify(model, model)
    unproven(verdict, "not proved here: 'y': it is empty")
    assert list(verdict.unproven) == ["y"]


def test_a_sequence_that_is_always_empty_is_not_proved() -> None:
    text = "g (float[2,6] x) => (float[2,6] z, seq(float[N,6]) y) { z = Neg (x) y = SequenceEmpty () }"
    model = parsed(text)
    unproven(verify(model, model), "not proved here: 'y': it is empty")


def test_an_output_that_is_empty_in_some_samples_is_proved_by_the_others() -> None:
    text = "g (float[1,6] x) => (float[N] y) { c = Less (x, t) d = Reshape (c, r) y = Compress (x, d) }"
    model = parsed(text, t=np.array(0.0), r=np.array([-1]))
    verdict = verify(model, model)
    assert {0 in row.shape for row in verdict.rows} == {True, False}
    assert verdict.ok, verdict.reason
    of_nothing = verify(model, model, inputs={"x": np.ones((1, 6), np.float32)})
    unproven(of_nothing, "not proved here: 'y': it is empty")


def test_another_shape_fails() -> None:
    original = parsed("g (float[1,6] x) => (float[a,b] y) { y = Neg (x) }")
    result = parsed("g (float[1,6] x) => (float[a,b] y) { n = Neg (x) y = Transpose <perm = [1,0]> (n) }")
    refused(verify(original, result), "output 'y' has shape [6, 1] instead of [1, 6]")


def test_other_inputs_and_outputs_fail_before_anything_runs() -> None:
    original = parsed(FLAT + "{ y = Neg (x) }")
    renamed = parsed("g (float[1,6] z) => (float[1,6] y) { y = Neg (z) }")
    retyped = parsed("g (float16[1,6] x) => (float16[1,6] y) { y = Neg (x) }")
    more = parsed("g (float[1,6] x) => (float[1,6] y, float[1,6] z) { y = Neg (x) z = Relu (x) }")
    refused(verify(original, renamed), "the inputs differ: float32 x and float32 z")
    refused(verify(original, retyped), "the inputs differ: float32 x and float16 x")
    refused(verify(original, more), "the outputs differ: float32 y and float32 y, float32 z")


def test_a_result_that_does_not_load_fails() -> None:
    original = parsed(FLAT + "{ y = Neg (x) }")
    result = parsed(FLAT + "{ y = Neg (nobody) }")
    refused(
        verify(original, result), "the result does not run where the original does: the result: onnxruntime"
    )


def test_a_result_that_fails_on_some_sizes_fails() -> None:
    original = parsed("g (float[N,1,H,W] x) => (float[a,b,c,d] y) { y = Neg (x) }")
    fixed = "g (float[N,1,H,W] x) => (float[a,b,c,d] y) { n = Neg (x) y = Add (n, zero) }"
    refused(verify(original, parsed(fixed, zero=np.zeros((64, 64)))), "does not run where the original does")


def test_integers_must_be_equal() -> None:
    text = "g (float[8,6] x) => (int64[8] y) { s = Add (x, t) y = ArgMax <axis = 1, keepdims = 0> (s) }"
    shifted = np.zeros(6)
    assert verify(parsed(text, t=shifted), parsed(text, t=shifted + 1)).ok
    shifted[4] = 0.3
    verdict = verify(parsed(text, t=np.zeros(6)), parsed(text, t=shifted))
    refused(verdict, "of its elements, and 0.00% are allowed (the index of the largest")
    assert verdict.worst is not None
    assert 0 < verdict.worst.error < 1
    assert verdict.worst.dtype == "int64"


def test_booleans_must_be_equal() -> None:
    text = "g (float[8,6] x) => (bool[8,6] y) { y = Less (x, t) }"
    assert verify(parsed(text, t=np.array(0.0)), parsed(text, t=np.array(0.0))).ok
    refused(verify(parsed(text, t=np.array(0.0)), parsed(text, t=np.array(0.2))), "of its elements")


def test_an_output_that_is_zero_must_stay_zero() -> None:
    model = parsed(FLAT + "{ y = Sub (x, x) }")
    assert verify(model, model).ok
    refused(verify(model, plus(model, np.full((1, 6), 1e-12))), "output 'y' differs by")


# --- where float32 proves nothing --------------------------------------------------------------------------


def chaos(rate: float = 3.9, *, rearranged: bool = False, steps: int = 40) -> onnx.ModelProto:
    """The logistic map v' = rate * v * (1 - v): a step doubles every error, so float32 ends in noise."""
    lines = ["v0 = Sigmoid (x)"]
    for i in range(steps):
        if rearranged:
            lines.append(f"s{i} = Mul (v{i}, v{i}) d{i} = Sub (v{i}, s{i}) v{i + 1} = Mul (d{i}, rate)")
        else:
            lines.append(f"a{i} = Sub (one, v{i}) b{i} = Mul (v{i}, a{i}) v{i + 1} = Mul (rate, b{i})")
    text = FLAT + "{ " + " ".join(lines) + f" y = Identity (v{steps}) }}"
    return parsed(text, one=np.array(1.0), rate=np.array(rate))


def test_a_chaotic_model_is_judged_value_by_value() -> None:
    verdict = verify(chaos(), chaos(rearranged=True))
    assert verdict.worst is not None
    assert verdict.worst.own_error is not None
    assert verdict.worst.own_error > 0.01
    assert verdict.ok, verdict.reason
    assert verdict.values is not None
    assert verdict.values.ok
    assert verdict.values.compared == 42
    assert verdict.values.error < 1e-12


def test_a_wrong_result_does_not_hide_behind_chaos() -> None:
    # Its error against float64 is that of the original: twice the own error would let it pass.
    verdict = verify(chaos(), chaos(rate=3.9001, rearranged=True))
    refused(verdict, "of its scale off in float32 already, and values inside differ in float64: 'v1'")


def test_without_common_names_chaos_proves_nothing() -> None:
    other = chaos(rearranged=True)
    for node in other.graph.node:
        for names in (node.input, node.output):
            names[:] = [name if name in ("x", "y", "one", "rate") else f"{name}_" for name in names]
    verdict = verify(chaos(), other)
    unproven(verdict, "'y': the original itself is .* of its scale off, which proves nothing")
    assert verdict.values is not None
    assert verdict.values.inner == 0


def by_values(original: onnx.ModelProto, result: onnx.ModelProto) -> Values:
    """The judgement of `result` value by value, for one image."""
    return compare_values(Oracle(original, Path()), Oracle(result, Path()), {"x": normal(1, 3, 8, 8)})


@pytest.mark.parametrize("other", [0, 1])
def test_a_model_of_which_no_value_can_be_computed_judges_none(other: int) -> None:
    models = [parsed("g (float[1,3,8,8] x) => (float[1,3,8,8] y) { y = Neg (x) }") for _ in range(2)]
    models[other].graph.node[0].domain = "mine"
    models[other].opset_import.add(domain="mine", version=1)
    with pytest.raises(OracleUnavailable, match="it is not known here"):
        by_values(*models)


def test_values_are_judged_without_what_came_before_them() -> None:
    weight = normal(4, 3, 3, 3) / 5 * (1 + 1e-3)
    values = by_values(convnet(), convnet(w1=weight))
    assert (values.compared, values.worst, values.ok) == (4, "h", False)
    assert values.error == pytest.approx(1e-3, rel=1e-2)
    assert by_values(convnet(), folded()).error < 1e-6


# --- other references --------------------------------------------------------------------------------------


def contributed(scale: float) -> onnx.ModelProto:
    """An operator that onnxruntime has, and the standard has not."""
    model = onnx.parser.parse_model(
        """<ir_version: 9, opset_import: ["": 17, "com.microsoft": 1]>
        g (float[1,6] x) => (float[1,6] y, float[1,6] z) {
            m = Mul (x, s)
            y = com.microsoft.QuickGelu (m)
            z = Relu (m)
        }"""
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array(scale, np.float32), "s"))
    return model


def test_without_a_float64_evaluation_the_original_itself_is_the_reference() -> None:
    verdict = verify(contributed(2.0), contributed(2.0))
    assert verdict.ok, verdict.reason
    assert [row.own_error for row in verdict.rows[:2]] == [None, 0.0]
    assert [row.tolerance for row in verdict.rows[:2]] == [1e-4, 1e-5]
    feeds = {"x": normal(1, 6)}
    refused(verify(contributed(2.0), contributed(2.001), inputs=feeds), "output 'z' differs by 0.0005")


def test_what_the_runtime_cannot_run_is_compared_in_float64() -> None:
    text = "g (bfloat16[N,6] x) => (bfloat16[N,6] y) { a = Add (x, x) y = Mul (a, a) }"
    verdict = verify(parsed(text), parsed(text))
    assert verdict.ok, verdict.reason
    assert "both models were evaluated in float64 only" in verdict.notes[0]
    other = text.replace("Mul (a, a)", "Mul (a, x)")
    refused(verify(parsed(text), parsed(other)), "output 'y' differs by 0.5")


def test_half_precision_is_judged_by_its_own_rounding() -> None:
    text = "g (float16[N,32] x) => (float16[N,8] y) { y = MatMul (x, w) }"
    weight = normal(32, 8).astype(np.float16)
    verdict = verify(parsed(text, w=weight), parsed(text, w=weight * np.float16(1.0005)))
    assert verdict.ok, verdict.reason
    assert verdict.rows[0].tolerance == 8 * 2.0**-10
    refused(verify(parsed(text, w=weight), parsed(text, w=weight * np.float16(1.02))), "output 'y' differs")


def test_local_functions_are_evaluated_too() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 9, opset_import: ["": 17, "own": 1]>
        g (float[1,6] x) => (float[1,6] y) { y = own.twice (x) }
        <domain: "own", opset_import: ["": 17]> twice (a) => (b) { b = Add (a, a) }"""
    )
    verdict = verify(model, model)
    assert verdict.ok, verdict.reason
    assert verdict.rows[0].own_error == 0.0


def test_random_numbers_are_the_same_for_both() -> None:
    text = FLAT + "{ r = RandomNormalLike (x) y = Add (x, r) }"
    later = FLAT + "{ i = Identity (x) r = RandomNormalLike (i) y = Add (i, r) }"
    verdict = verify(parsed(text), parsed(later))
    assert verdict.ok, verdict.reason
    assert all(row.error == 0 for row in verdict.rows)
    refused(verify(parsed(text), parsed(later.replace("Add (i", "Sub (i"))), "output 'y' differs")


def test_an_output_of_random_numbers_alone_is_not_proved() -> None:
    model = parsed(
        "g (float[1,6] x) => (float[1,6] y, float[1,6] r) { y = Neg (x) r = RandomNormalLike (x) }"
    )
    unproven(verify(model, model), "'r': it is made by RandomNormalLike")


def test_random_numbers_in_a_body_are_no_difference() -> None:
    text = """g (float[1,6] x, bool flag) => (float[1,6] y, float[1,6] z) {
        z = Neg (x)
        y = If (flag) <then_branch = t () => (float[1,6] u) { r = RandomNormalLike (x) u = Add (x, r) },
            else_branch = e () => (float[1,6] v) { q = RandomUniformLike (x) v = Sub (x, q) }>
    }"""
    unproven(verify(parsed(text), parsed(text)), "'y': ")


# --- bad files ---------------------------------------------------------------------------------------------


def test_files_that_are_no_models_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_bytes(b"hello world " * 99)
    onnx.save(convnet(), tmp_path / "whole.onnx")
    (tmp_path / "cut.onnx").write_bytes((tmp_path / "whole.onnx").read_bytes()[:-99])
    for name in ("text.onnx", "cut.onnx"):
        with pytest.raises(InputError, match=f"{name}: not an ONNX model, or damaged"):
            verify(tmp_path / name, convnet())
        with pytest.raises(InputError, match=f"{name}: not an ONNX model, or damaged"):
            verify(convnet(), tmp_path / name)
    with pytest.raises(InputError, match=r"none\.onnx: no such file"):
        verify(tmp_path / "none.onnx", convnet())
    with pytest.raises(InputError, match="not a file"):
        verify(tmp_path, convnet())


def test_a_certificate_is_about_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a certificate is about ONNX files, not about a ModelProto"):
        verify(convnet(), convnet(), certificate=tmp_path / "c.json")


def test_what_states_no_type_is_judged_as_float32(tmp_path: Path) -> None:
    """Around an operator that nobody knows, and of which nothing is stated, float64 evaluates both."""
    text = """<ir_version: 9, opset_import: ["": 17, "acme": 1]>
        g (float[N,3,8,8] x) => (float[N,k,6,6] y) {
        a = Conv (x, w)  b = BatchNormalization (a, s, t, m, v)
        i = acme.Foo (b)  y = Gather <axis = 1> (b, i)
    }"""
    model = onnx.parser.parse_model(text)
    arrays = {"w": normal(4, 3, 3, 3), **{name: normal(4, seed=1) for name in "stm"}, "v": np.full(4, 0.3)}
    for name, array in arrays.items():
        model.graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), name))
    onnx.save(model, tmp_path / "a.onnx")
    report = fuser.optimize_file(tmp_path / "a.onnx", tmp_path / "b.onnx")
    assert report.verification is not None
    assert report.verification.verdict == "unproven"
    assert "BatchNormalization" not in report.after.operators

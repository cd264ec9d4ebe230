import ast
import itertools
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

import fuser
from fuser.cli import run as command
from fuser.errors import InputError, OutputError, VerificationError
from fuser.hosts.onnx.certificate import certificate
from fuser.hosts.onnx.certificate.recheck import prove
from tests.fuzz.networks import Network
from tests.small_models import convnet, normal, parsed
from tests.tamper import CHANGES, tampered, weight


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Two convolutions with a BatchNorm between them, optimized with a certificate."""
    original, result, path = (tmp_path / name for name in ("a.onnx", "b.onnx", "b.json"))
    onnx.save(convnet(), original)
    fuser.optimize_file(original, result, certificate=path)
    return original, result, path


def forge(path: Path, result: Path, **changes: Any) -> None:
    stated = json.loads(path.read_text())
    stated["result"] = certificate.digest(result)
    stated["regions"][0].update(changes)
    path.write_text(json.dumps(stated))


def test_a_certificate_names_law_conditions_and_bound(files: tuple[Path, Path, Path]) -> None:
    stated = json.loads(files[2].read_text())
    assert [(r["pass"], r["law"][:10]) for r in stated["rewrites"]] == [("fold_batch_norm", "batch_norm")]
    (region,) = stated["regions"]
    assert region["laws"] == ["fold_batch_norm"]
    assert region["inputs"] == ["x"]
    assert len(region["replaced"]) == 2
    assert len(region["made"]) == 1
    assert region["conditions"]["begin"] == [[1, 1], [1, 1]]
    assert 0 < region["bound"]["slope"] < 1e-4


def test_it_holds_for_what_it_is_about_and_is_the_same_each_time(files: tuple[Path, Path, Path]) -> None:
    original, result, path = files
    assert fuser.verify(original, result, certificate=path).ok
    text = path.read_text()
    fuser.optimize_file(original, result, certificate=path)
    assert path.read_text() == text


def test_it_holds_for_the_same_content_stored_otherwise(files: tuple[Path, Path, Path]) -> None:
    original, result, path = files
    onnx.save(onnx.load(result), result, save_as_external_data=True, location="b.data", size_threshold=0)
    assert certificate.check(original, result, path) == 1


@pytest.mark.parametrize("digest", ["stated", "forged"])
def test_a_weight_that_was_changed_by_a_millionth_is_refused(
    files: tuple[Path, Path, Path], digest: str
) -> None:
    original, result, path = files
    model = onnx.load(result)
    assert weight(model, np.random.default_rng(0))
    onnx.save(model, result)
    if digest == "forged":
        forge(path, result)
    verdict = fuser.verify(original, result, certificate=path)
    assert not verdict.ok
    assert ("rounding explains" in verdict.reason or "differs" in verdict.reason) == (digest == "forged")


def test_a_bound_that_is_better_than_it_is_is_refused(files: tuple[Path, Path, Path]) -> None:
    original, result, path = files
    forge(path, result, bound={"slope": 0.0, "offset": 0.0})
    with pytest.raises(VerificationError, match="the bound is"):
        certificate.check(original, result, path)
    forge(path, result, bound={"slope": 1.0, "offset": 1.0})
    assert certificate.check(original, result, path) == 1


@pytest.mark.parametrize("key", ["replaced", "made", "inputs", "conditions", "value"])
def test_a_region_that_is_another_is_refused(files: tuple[Path, Path, Path], key: str) -> None:
    original, result, path = files
    forge(path, result, **{key: ["something else"]})
    with pytest.raises(VerificationError, match="something else"):
        certificate.check(original, result, path)


@pytest.mark.parametrize("text", ["", "[]", '{"format": "graph-fuser certificate", "version": 99}'])
def test_what_is_no_certificate_is_bad_input(files: tuple[Path, Path, Path], text: str) -> None:
    original, result, path = files
    path.write_text(text)
    with pytest.raises(InputError, match="is no certificate"):
        certificate.check(original, result, path)


def test_a_certificate_in_the_place_of_a_model_is_refused(files: tuple[Path, Path, Path]) -> None:
    original, result, _ = files
    with pytest.raises(OutputError, match=r"^the certificate .*a\.onnx is also the path of a model$"):
        fuser.optimize_file(original, result, certificate=original)


@pytest.mark.parametrize("role", [0, 1])
@pytest.mark.parametrize("content", [None, b"\x0a\xff no model"])
def test_a_model_that_cannot_be_read_is_bad_input(
    files: tuple[Path, Path, Path], role: int, content: bytes | None
) -> None:
    path = files[role]
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=rf"{path.name}: cannot read the model: "):
        certificate.check(*files)


def test_a_certificate_that_cannot_be_written_is_no_success(files: tuple[Path, Path, Path]) -> None:
    original, result, _ = files
    stated = certificate.certify(original, result, [], {})
    for place in (original.parent, original.parent / "nowhere" / "c.json", original / "c.json"):
        with pytest.raises(OutputError, match="cannot write the certificate"):
            certificate.write(stated, place)


def test_tampered_results_are_refused_and_whole_ones_accepted() -> None:
    tally = tampered(3 * len(CHANGES), first=100)
    assert tally.accepted == tally.whole > 0
    assert tally.refused == tally.tampered
    assert tally.disproved["weight"] == tally.tampered["weight"] > 0


def plain(seed: int) -> bool:
    """Whether a network is of one graph, of float32 tensors whose types are known."""
    model = Network(seed).proto
    if (
        model.functions
        or model.ir_version < 4
        or any(a.HasField("g") for n in model.graph.node for a in n.attribute)
    ):
        return False
    known = onnx.shape_inference.infer_shapes(model).graph
    types = {v.name: v.type for v in (*known.value_info, *known.input, *known.output)}
    made = [name for node in model.graph.node for name in node.output]
    return all(
        types[v.name].tensor_type.elem_type == onnx.TensorProto.FLOAT for v in model.graph.input
    ) and all(name in types and types[name].HasField("tensor_type") for name in made)


SEEDS = list(itertools.islice(filter(plain, itertools.count(200)), 30))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_result_stays_within_its_bounds(seed: int, tmp_path: Path) -> None:
    """Each region, on its own, in float32, fed with what the original makes of large inputs."""
    original, result = tmp_path / "a.onnx", tmp_path / "b.onnx"
    network = Network(seed)
    onnx.save(network.proto, original)
    fuser.optimize_file(original, result, verify=False)
    before, after = onnx.load(original), onnx.load(result)
    names = {name for node in before.graph.node for name in node.output}
    feeds: dict[str, Any] = {name: np.asarray(np.float32(9) * x) for name, x in next(network.feeds()).items()}
    values = {**feeds, **run(part(before, set(feeds), names), feeds)}
    shared = {*feeds} | (names & {name for node in after.graph.node for name in node.output})
    for region in prove(original, result):
        if region.reason:
            continue  # see below how many those may be
        inputs = [values[name] for name in region.inputs if name in values]
        if len(inputs) < len(region.inputs) or not np.isfinite(region.slope):
            continue  # what has no name of its own cannot be looked at
        largest = max((float(np.abs(array).max()) for array in inputs), default=0.0)
        old, new = (
            run(part(model, shared - {region.value}, {region.value}), values)[region.value].astype(np.float64)
            for model in (before, after)
        )
        assert np.abs(old - new).max(initial=0.0) <= region.slope * largest + region.offset


def test_most_results_are_proved(tmp_path: Path) -> None:
    """What is neither convolution nor the same operator stays open; that is a third at most."""
    original, result = tmp_path / "a.onnx", tmp_path / "b.onnx"
    open_ones = 0
    for seed in SEEDS:
        onnx.save(Network(seed).proto, original)
        fuser.optimize_file(original, result, verify=False)
        open_ones += any(region.reason for region in prove(original, result))
    assert open_ones <= len(SEEDS) / 3


def part(model: onnx.ModelProto, given: set[str], wanted: set[str]) -> onnx.ModelProto:
    """The part of a model that makes some values of others, without what it does not need."""
    known = onnx.shape_inference.infer_shapes(model).graph
    types = {value.name: value for value in (*known.value_info, *known.input, *known.output)}
    needed, nodes = set(wanted), list[onnx.NodeProto]()
    for node in reversed(model.graph.node):
        if needed & set(node.output) and not set(node.output) <= given:
            nodes.insert(0, node)
            needed.update(node.input)
    inputs = [types[name] for name in sorted(given & needed)]
    tensors = [tensor for tensor in model.graph.initializer if tensor.name in needed]
    graph = onnx.helper.make_graph(nodes, "part", inputs, [types[name] for name in sorted(wanted)], tensors)
    return onnx.helper.make_model(graph, opset_imports=model.opset_import, ir_version=8)


def run(model: onnx.ModelProto, values: dict[str, Any]) -> dict[str, Any]:
    """What onnxruntime makes of some values, its optimisations off."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    feeds = {value.name: values[value.name] for value in session.get_inputs()}
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def test_what_cannot_be_proved_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    original, result = tmp_path / "a.onnx", tmp_path / "b.onnx"
    onnx.save(convnet(), original)
    model = onnx.load(original)
    node = next(n for n in model.graph.node if n.op_type == "Relu")
    node.op_type = "Sigmoid"
    onnx.save(model, result)
    with pytest.raises(VerificationError, match=f"regions are not proved .*'{node.output[0]}'"):
        certificate.certify(original, result, [], {})


def test_bodies_are_proved_too(tmp_path: Path) -> None:
    """A convolution and its BatchNorm in a branch of an If, and one in it that is not what it was."""
    text = """g (float[N,2,5,5] x, bool c) => (float[N,3,5,5] y) {
        y = If (c) <
            then_branch = t () => (t) { h = Conv (x, w)  t = BatchNormalization (h, s, b, m, v) },
            else_branch = e () => (e) { e = Conv (x, w) }>
    }"""
    weights = {"w": normal(3, 2, 1, 1), **{name: normal(3, seed=1) for name in "sbm"}, "v": np.ones(3)}
    original, result, path = (tmp_path / name for name in ("a.onnx", "b.onnx", "b.json"))
    onnx.save(parsed(text, **weights), original)
    fuser.optimize_file(original, result, certificate=path)
    assert certificate.check(original, result, path) == 1
    model = onnx.load(result)
    made = [t for entry in model.graph.node[0].attribute for t in entry.g.initializer]
    assert made
    for tensor in made:
        array = numpy_helper.to_array(tensor)
        tensor.CopyFrom(numpy_helper.from_array(array * np.float32(1 + 1e-5), tensor.name))
    onnx.save(model, result)
    forge(path, result)
    with pytest.raises(VerificationError, match="rounding explains"):
        certificate.check(original, result, path)


def test_the_command_writes_one_and_refuses_by_it(tmp_path: Path) -> None:
    original, result, path = (str(tmp_path / name) for name in ("a.onnx", "b.onnx", "b.json"))
    onnx.save(convnet(), original)
    assert command(["optimize", original, "-o", result, "--certificate", path]) == 0
    assert command(["verify", original, result, "--certificate", path]) == 0
    model = onnx.load(result)
    assert CHANGES["pad"](model, np.random.default_rng(0))
    onnx.save(model, result)
    assert command(["verify", original, result, "--certificate", path]) == 1
    assert command(["verify", original, result, "--certificate", str(tmp_path / "none.json")]) == 2


def test_branches_that_were_exchanged_are_refused(tmp_path: Path) -> None:
    text = """g (float[N,2] x, bool c) => (float[N,2] y) {
        y = If (c) <then_branch = t () => (t) { t = Relu (x) }, else_branch = e () => (e) { e = Neg (x) }>
    }"""
    original, result = tmp_path / "a.onnx", tmp_path / "b.onnx"
    onnx.save(parsed(text), original)
    model = onnx.load(original)
    first, second = model.graph.node[0].attribute
    first.name, second.name = second.name, first.name
    onnx.save(model, result)
    with pytest.raises(VerificationError, match="not proved"):
        certificate.certify(original, result, [], {})
    assert certificate.certify(original, original, [], {})["regions"] == []


def test_a_mistake_of_the_prover_is_ours(
    files: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With valid files exit status 70, with a file that is invalid 2."""
    original, result, path = map(str, files)

    def broken(*_: object) -> None:
        raise KeyError("a mistake")

    monkeypatch.setattr("fuser.hosts.onnx.certificate.recheck.prove", broken)
    other = str(tmp_path / "c.onnx")
    assert command(["verify", original, result, "--certificate", path]) == 70
    assert command(["optimize", original, "-o", other, "--certificate", str(tmp_path / "c.json")]) == 70
    assert not Path(other).exists()
    model = onnx.load(result)
    model.graph.node[0].input[0] = "nowhere"
    onnx.save(model, result)
    forge(files[2], files[1])
    assert command(["verify", original, result, "--certificate", path]) == 2


def test_the_checker_shares_no_code_with_the_compiler() -> None:
    """It imports onnx, numpy and the algebra, neither host nor rewrite."""
    algebra = {f"algebra.{name}" for name in ("affine_forms", "form_laws", "conv", "laws", "lazy")}
    folder, seen, left = Path(fuser.__file__).parent, set[str](), ["hosts.onnx.certificate.recheck"]
    while left:
        seen.add(name := left.pop())
        tree = ast.parse((folder / f"{name.replace('.', '/')}.py").read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fuser"):
                room = (node.module or "").partition(".")[2]
                names = [f"{room}.{alias.name}" for alias in node.names]
                inner = {
                    name if (folder / f"{name.replace('.', '/')}.py").exists() else room for name in names
                }
                left.extend(inner - seen)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                names = (
                    [alias.name for alias in node.names]
                    if isinstance(node, ast.Import)
                    else [str(node.module)]
                )
                outside = {str(name).partition(".")[0] for name in names}
                assert outside <= {"numpy", "onnx", *sys.stdlib_module_names}
    assert seen - {"hosts.onnx.certificate.recheck"} == {*algebra, "hosts.onnx.certificate.sides", "errors"}

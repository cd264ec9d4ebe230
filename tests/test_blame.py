"""An exception is the model's while the checker finds the model invalid, and ours where it does not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import onnx_ir
import pytest

import fuser
from fuser.cli import run
from fuser.errors import InputError, OutputError, VerificationError
from fuser.hosts.blame import blaming
from tests.small_models import convnet, normal, parsed

MISTAKES = [KeyError("k"), RecursionError("deep"), MemoryError(), OverflowError("large"), AssertionError("a")]


def invalid() -> onnx.ModelProto:
    """A convolution whose stride has three numbers for two axes."""
    return parsed(
        "g (float[N,3,8,8] x) => (float[a,b,c,d] y) { y = Conv <strides = [1,1,1]> (x, w) }",
        w=normal(4, 3, 3, 3),
    )


def raising(error: BaseException) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


@pytest.fixture(params=[str, onnx.ModelProto, onnx_ir.Model], ids=["path", "message", "model"])
def given(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[onnx.ModelProto], Any]:
    """A model as callers may give it."""

    def give(model: onnx.ModelProto) -> Any:
        if request.param is onnx.ModelProto:
            return model
        onnx.save(model, tmp_path / "m.onnx")
        return str(tmp_path / "m.onnx") if request.param is str else onnx_ir.load(tmp_path / "m.onnx")

    return give


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda error: type(error).__name__)
def test_an_invalid_model_is_to_blame(mistake: Exception, given: Callable[[onnx.ModelProto], Any]) -> None:
    model = given(invalid())
    with pytest.raises(InputError, match="the model is invalid: ") as caught, blaming(model):
        raise mistake
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is mistake


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda error: type(error).__name__)
def test_a_valid_model_is_not(mistake: Exception, given: Callable[[onnx.ModelProto], Any]) -> None:
    with pytest.raises(type(mistake)) as caught, blaming(given(convnet())):
        raise mistake
    assert caught.value is mistake


@pytest.mark.parametrize("error", [InputError("no file"), OutputError("no space")])
def test_errors_in_our_own_words_pass(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, blaming(invalid()):
        raise error
    assert caught.value is error


def test_what_an_invalid_model_computes_proves_nothing() -> None:
    with pytest.raises(InputError, match=r"is invalid: .*; it differs$"), blaming(invalid()):
        raise VerificationError("it differs")
    with pytest.raises(VerificationError, match=r"^it differs$"), blaming(convnet()):
        raise VerificationError("it differs")


def test_who_was_blamed_inside_must_have_been_given() -> None:
    """What the compiler itself wrote may be invalid; that is no fault of the source."""
    mistake, source, written = KeyError("k"), convnet(), invalid()
    with pytest.raises(KeyError) as caught, blaming(source), blaming(source, written):
        raise mistake
    assert caught.value is mistake
    with pytest.raises(InputError), blaming(source, written), blaming(source, written):
        raise mistake


@pytest.mark.parametrize("command", ["optimize", "inspect", "verify", "bench"])
@pytest.mark.parametrize(("model", "status"), [(invalid, 2), (convnet, 70)], ids=["invalid", "valid"])
def test_the_commands_tell_them_apart(
    command: str,
    model: Callable[[], onnx.ModelProto],
    status: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for place in (
        "fuser.compiler.rewrite",
        "fuser.verifier.compare",
        "fuser.bench.benchmark.interleave",
    ):
        monkeypatch.setattr(place, raising(KeyError("a mistake")))
    path = tmp_path / "m.onnx"
    onnx.save(model(), path)
    options = {"optimize": ["-o", str(tmp_path / "out.onnx")], "inspect": []}.get(command, [str(path)])
    assert run([command, str(path), *options]) == (2 if command == "bench" and status == 2 else status)
    said = capsys.readouterr().err
    assert ("Traceback" in said) == (status == 70)
    assert not (tmp_path / "out.onnx").exists()


def test_objects_are_told_apart_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fuser.compiler.rewrite", raising(RecursionError("deep")))
    with pytest.raises(InputError, match="the model: the model is invalid: "):
        fuser.optimize(invalid())
    with pytest.raises(RecursionError):
        fuser.optimize(convnet())


def test_the_checker_is_not_asked_where_nothing_went_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnx.checker.check_model", raising(AssertionError("asked")))
    fuser.optimize(convnet())


def _say(model: onnx.ModelProto, place: str) -> None:
    """Put a word into one place of a model."""
    match place:
        case "graph":
            model.graph.name = "LATER"
        case "node":
            model.graph.node[0].name = "LATER"
        case "value":
            model.graph.node[0].output[0] = model.graph.node[1].input[0] = "LATER"
        case "output":
            model.graph.node[-1].output[0] = model.graph.output[0].name = "LATER"
        case "weight":
            model.graph.initializer[0].name = model.graph.node[0].input[1] = "LATER"
        case "extent":
            model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "LATER"
        case "metadata":
            model.metadata_props.add(key="LATER", value="v")
        case _:
            model.opset_import.add(domain="LATER", version=1)


@pytest.mark.parametrize(
    "place", ["graph", "node", "value", "output", "weight", "extent", "metadata", "domain"]
)
def test_what_is_no_text_is_the_models_fault(place: str, tmp_path: Path) -> None:
    """Protobuf hands out as bytes what is not UTF-8, and onnx.checker lets it pass."""
    model, path = convnet(), tmp_path / "m.onnx"
    _say(model, place)
    content = model.SerializeToString()
    path.write_bytes(content.replace(b"LATER", b"\xff\xfe\xfd\xfc\xfb"))
    with pytest.raises(InputError, match=r"is not UTF-8: b'\\xff"), blaming(path):
        raise KeyError("k")
    for arguments in (["optimize", str(path), "-o", str(tmp_path / "o.onnx")], ["inspect", str(path)]):
        assert run(arguments) in (0, 2)  # what nobody trips over is no fault
    path.write_bytes(content)
    with pytest.raises(KeyError), blaming(path):
        raise KeyError("k")


@pytest.mark.parametrize("shaped", [True, False])
@pytest.mark.parametrize("saved", [True, False])
def test_an_output_of_unknown_shape_is_no_excuse(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, shaped: bool, saved: bool
) -> None:
    """The checker wants a shape, and runtimes do not: a mistake of ours stays one."""
    model = convnet()
    other = convnet()
    other.graph.node[0].input[0] = "nowhere"
    for each in (model, other):
        if not shaped:
            each.graph.output[0].type.tensor_type.ClearField("shape")
    path = tmp_path / "m.onnx"
    onnx.save(model, path)
    monkeypatch.setattr("fuser.compiler.rewrite", raising(KeyError("ours")))
    with pytest.raises(KeyError):
        fuser.optimize(model) if not saved else fuser.optimize_file(path, tmp_path / "o.onnx")
    with pytest.raises(InputError, match="invalid"):
        fuser.optimize(other)

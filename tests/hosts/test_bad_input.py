"""Each kind of bad input gets one sentence that names the file, the place in it, and both values."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from fuser.errors import InputError
from fuser.hosts.onnx.file import files as onnx_io
from tests.hosts.onnx_models import model_of

HEAD = '<ir_version: 8, opset_import: ["": 17]> main (float[2] x) => (float[2] y) '


def refused(path: Path, reason: str) -> None:
    """Loading fails with the reason, in one line that begins with the path."""
    with pytest.raises(InputError, match=reason) as caught:
        onnx_io.load(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A model with one large weight."""
    weight = numpy_helper.from_array(np.ones((64, 64), np.float32), "w")
    proto = model_of([helper.make_node("MatMul", ["x", "w"], ["y"], name="m")], given={"x": [1, 64]})
    proto.graph.initializer.append(weight)
    path = tmp_path / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def written(tmp_path: Path, proto: onnx.ModelProto) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def test_no_file(tmp_path: Path) -> None:
    refused(tmp_path / "absent.onnx", "there is no such file$")


def test_a_folder(tmp_path: Path) -> None:
    refused(tmp_path, "this is a folder, not a file$")


def test_an_archive_is_called_one(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as archive:
        archive.writestr("model/data.pkl", b"")
    refused(tmp_path / "model.pt", "the file is a zip archive, as torch.save writes, not an ONNX model")


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").touch()
    refused(tmp_path / "model.onnx", "the file is empty$")


@pytest.mark.parametrize(
    "content",
    [
        b"hello, world\n" * 10,
        b"\x89PNG\r\n\x1a\n" * 9,
        b"PK\x03\x04" * 9,
        b'{"a": 1}',
        bytes(100),
        b"\xff" * 99,
    ],
)
def test_not_onnx(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    refused(tmp_path / "model.onnx", "not an ONNX model")


def test_a_truncated_file_at_every_length(file: Path) -> None:
    whole = file.read_bytes()
    for length in (*range(1, 200), *range(200, len(whole), 997), *range(len(whole) - 60, len(whole))):
        file.write_bytes(whole[:length])
        refused(file, "cut off|not an ONNX model")


def test_truncation_names_the_size(file: Path) -> None:
    whole = file.read_bytes()
    file.write_bytes(whole[:5000])
    refused(file, "is cut off or damaged: its 5000 bytes are no protobuf message$")


def test_damaged_bytes_never_escape_as_another_error(file: Path) -> None:
    whole = file.read_bytes()
    generator = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(whole)
        for at in generator.integers(0, 200, 3):
            damaged[-at] = int(generator.integers(0, 256))
        file.write_bytes(bytes(damaged))
        try:
            onnx_io.load(file)
        except InputError as error:
            assert "\n" not in str(error)  # noqa: PT017  # most damage is refused, some leaves a valid model


def test_a_path_that_leads_nowhere(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.symlink_to(path)
    refused(path, "the file cannot be read: .*symbolic link")


def test_a_part_that_is_no_message(file: Path) -> None:
    """Field 8, the opset, holds a field number and nothing behind it."""
    file.write_bytes(file.read_bytes() + b"\x42\x01\xff")
    refused(file, "the file is cut off or damaged: its \\d+ bytes are no protobuf message$")


def test_no_graph(tmp_path: Path) -> None:
    proto = parser.parse_model(HEAD + "{ y = Relu(x) }")
    proto.ClearField("graph")
    refused(written(tmp_path, proto), "not an ONNX model: it holds no graph$")


def test_no_opset(tmp_path: Path) -> None:
    proto = parser.parse_model(HEAD + "{ y = Relu(x) }")
    proto.ClearField("opset_import")
    refused(written(tmp_path, proto), "it names no opset$")


def test_the_name_of_a_missing_input(tmp_path: Path) -> None:
    proto = parser.parse_model(HEAD + "{ [first] y = Add(x, nowhere) }")
    refused(written(tmp_path, proto), "node 'first' reads 'nowhere', which nothing defines$")


def test_a_body_that_reads_what_nothing_defines(tmp_path: Path) -> None:
    proto = parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]> main (bool c) => (float[2] y) {
           y = If (c) <
              then_branch = t () => (float[2] o) { o = Neg(nowhere) },
              else_branch = e () => (float[2] p) { p = Neg(nowhere) }>
        }"""
    )
    refused(written(tmp_path, proto), "node Neg of 'o' reads 'nowhere', which nothing defines$")


def test_an_output_that_nothing_makes(tmp_path: Path) -> None:
    proto = parser.parse_model(HEAD + "{ z = Relu(x) }")
    refused(written(tmp_path, proto), "nothing makes the output 'y' of 'main'$")


def test_a_value_with_two_makers(tmp_path: Path) -> None:
    proto = parser.parse_model(HEAD + "{ [a] y = Relu(x)  [b] y = Neg(x) }")
    refused(written(tmp_path, proto), "node 'b' makes 'y', and so does node 'a'$")


def test_a_node_that_makes_an_input(tmp_path: Path) -> None:
    proto = parser.parse_model(HEAD + "{ [a] x = Relu(x)  [b] y = Neg(x) }")
    refused(written(tmp_path, proto), "node 'a' makes 'x', an input or initializer of the graph$")


def test_two_initializers_of_one_name(tmp_path: Path) -> None:
    proto = parser.parse_model(HEAD + "<float[2] w = {1, 2}> { y = Add(x, w) }")
    proto.graph.initializer.append(proto.graph.initializer[0])
    refused(written(tmp_path, proto), "two initializers are called 'w'$")


def test_two_inputs_of_one_name(tmp_path: Path) -> None:
    proto = parser.parse_model(HEAD + "{ y = Relu(x) }")
    proto.graph.input.append(proto.graph.input[0])
    refused(written(tmp_path, proto), "two graph inputs are called 'x'$")


def test_a_cycle(tmp_path: Path) -> None:
    proto = parser.parse_model(HEAD + "{ [a] p = Add(x, q)  [b] q = Neg(p)  [c] y = Relu(q) }")
    refused(written(tmp_path, proto), "it has a cycle: 'a' <- 'b' <- 'a'$")


def test_an_unsorted_graph_without_a_cycle_is_sorted(tmp_path: Path) -> None:
    proto = parser.parse_model(HEAD + "{ [c] y = Relu(q)  [b] q = Neg(p)  [a] p = Abs(x) }")
    model = onnx_io.load(written(tmp_path, proto))
    assert [node.name for node in model.graph] == ["a", "b", "c"]


def test_a_function_is_checked_as_well(tmp_path: Path) -> None:
    proto = parser.parse_model(
        """<ir_version: 9, opset_import: ["": 17, "l": 1]> main (float[2] x) => (float[2] y) { y = l.f(x) }
        <domain: "l", opset_import: ["": 17]> f (p) => (q) { [n] q = Add(p, x) }"""
    )
    refused(written(tmp_path, proto), "node 'n' reads 'x', which nothing defines$")


def test_data_that_does_not_fit_its_shape(tmp_path: Path) -> None:
    for size in (2, 2000):
        proto = model_of([helper.make_node("Add", ["x", "w"], ["y"])], given={"x": [1]})
        proto.graph.initializer.add(name="w", dims=[3], data_type=TensorProto.FLOAT, raw_data=bytes(4 * size))
        refused(written(tmp_path, proto), rf"'w' has {4 * size} bytes of data, and FLOAT\[3\] takes 12$")


@pytest.mark.parametrize("more", [-1, 1])
@pytest.mark.parametrize("shape", [[], [3]])
@pytest.mark.parametrize("kind", sorted(set(ir.DataType) - {ir.DataType.UNDEFINED}))
def test_numbers_that_are_not_as_many_as_the_shape_says(
    kind: int, shape: list[int], more: int, tmp_path: Path
) -> None:
    values: Any = ["a"] * 3 if kind == TensorProto.STRING else [1] * 3
    tensor = helper.make_tensor("w", kind, shape, values[: 3 if shape else 1])
    proto = model_of([helper.make_node("Foreign", ["x", "w"], ["y"], "n", domain="d")], given={"x": [1]})
    proto.graph.initializer.append(tensor)
    onnx_io.load(written(tmp_path, proto))  # as many as it takes
    numbers = getattr(proto.graph.initializer[0], helper.tensor_dtype_to_field(kind))
    for _ in range(3):
        if more > 0:
            numbers.append(numbers[0])
        elif numbers:
            del numbers[-1]
    refused(written(tmp_path, proto), r"'w' has \d numbers in \w+_data, and \w+\[3?\] takes \d$")


@pytest.mark.parametrize("kind", [0, 99, -1, 2**31 - 1])
def test_data_of_a_type_that_is_none(kind: int, tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(bytes(16384))
    outside, inside = external("weights.bin"), external("weights.bin")
    for tensor in (*outside.graph.initializer, *inside.graph.initializer):
        tensor.data_type = kind
    inside.graph.initializer[0].data_location = TensorProto.DEFAULT
    inside.graph.initializer[0].raw_data = bytes(16384)
    for proto in (outside, inside):
        refused(written(tmp_path, proto), f"'w' is of the type {kind}, which it does not know$")


def test_an_attribute_without_a_type(tmp_path: Path) -> None:
    proto = parser.parse_model(HEAD + "{ [n] y = LeakyRelu <alpha = 0.5> (x) }")
    proto.graph.node[0].attribute[0].ClearField("type")
    refused(written(tmp_path, proto), "the attribute 'alpha' of node 'n' has no type$")


def test_two_attributes_of_one_name(tmp_path: Path) -> None:
    proto = parser.parse_model(HEAD + "{ [n] y = LeakyRelu <alpha = 0.5> (x) }")
    proto.graph.node[0].attribute.append(proto.graph.node[0].attribute[0])
    refused(written(tmp_path, proto), "two attributes of node 'n' are called 'alpha'$")


def test_an_initializer_without_a_name(tmp_path: Path) -> None:
    proto = parser.parse_model(HEAD + "<float[2] w = {1, 2}> { y = Add(x, w) }")
    proto.graph.initializer.add(data_type=TensorProto.FLOAT, dims=[1], float_data=[1])
    refused(written(tmp_path, proto), "an initializer of 'main' has no name$")


def test_an_unknown_domain_and_opset_are_left_alone(tmp_path: Path) -> None:
    proto = parser.parse_model(
        """<ir_version: 8, opset_import: ["": 999, "not.known": 7]> main (float[2] x) => (float[2] y)
        { a = not.known.Thing <how = 3> (x)  y = Novel (a) }"""
    )
    path = written(tmp_path, proto)
    onnx_io.save(onnx_io.load(path), tmp_path / "out.onnx")
    assert onnx.load(tmp_path / "out.onnx").graph.node[0].op_type == "Thing"


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        (
            "../weights.bin",
            r"external data of 'w' at '\.\./weights\.bin' is outside the folder of the model, '.*model'$",
        ),
        ("a/../../weights.bin", "is outside the folder of the model"),
        ("{}/weights.bin", "external data of 'w' at '/.*weights.bin' is outside the folder of the model"),
        ("link.bin", "is a link to '.*/weights.bin', outside the folder of the model"),
        ("absent.bin", "external data of 'w' at 'absent.bin' is missing: there is no file '.*absent.bin'$"),
        ("", "external data of 'w' at '' is outside the folder of the model"),
        (".", "is outside the folder of the model"),
    ],
)
def test_external_data_that_is_missing_or_elsewhere(tmp_path: Path, location: str, reason: str) -> None:
    (tmp_path / "weights.bin").write_bytes(bytes(16384))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "link.bin").symlink_to(tmp_path / "weights.bin")
    refused(written(tmp_path / "model", external(location.format(tmp_path))), reason)


@pytest.mark.parametrize("way", ["../model", "../up/../model", "link", "link/../sub/../model", "sub/.."])
@pytest.mark.parametrize("location", ["weights.bin", "sub/weights.bin", "./sub/../weights.bin"])
@pytest.mark.parametrize("absolute", [True, False])
def test_external_data_is_found_whatever_the_way_to_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, location: str, absolute: bool
) -> None:
    """A way may go up, and through links, where going up leads elsewhere than the text says."""
    model = tmp_path / "model"
    for folder in (model / "sub", tmp_path / "up"):
        folder.mkdir(parents=True)
    for path in (model, model / "sub"):
        (path / "weights.bin").write_bytes(bytes(16384))
    (tmp_path / "sub").mkdir()
    (model / "link").symlink_to(model)
    written(model, external(location))
    monkeypatch.chdir(model)
    path = (model if absolute else Path()) / way / "model.onnx"
    onnx_io.save(onnx_io.load(path), tmp_path / "out.onnx")
    assert onnx_io.files(path)[1].samefile(model / location)
    assert not onnx.load(tmp_path / "out.onnx").graph.initializer[0].raw_data.strip(b"\0")


def external(location: str, **places: str) -> onnx.ModelProto:
    proto = model_of([helper.make_node("MatMul", ["x", "w"], ["y"], name="m")], given={"x": [1, 64]})
    tensor = proto.graph.initializer.add(name="w", dims=[64, 64], data_type=TensorProto.FLOAT)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **places}.items():
        tensor.external_data.add(key=key, value=value)
    return proto


@pytest.mark.parametrize(
    ("places", "reason"),
    [
        (
            {},
            "external data of 'w' is cut off: it ends at byte 16384 of 'weights.bin', which has 16000 bytes$",
        ),
        ({"offset": "900"}, "it ends at byte 17284 of 'weights.bin', which has 16000 bytes$"),
        ({"length": "400"}, r"'w' has 400 bytes of data, and FLOAT\[64, 64\] takes 16384$"),
    ],
)
def test_external_data_that_is_cut_off(tmp_path: Path, places: dict[str, str], reason: str) -> None:
    (tmp_path / "weights.bin").write_bytes(bytes(16000))
    refused(written(tmp_path, external("weights.bin", **places)), reason)


def test_external_data_without_a_location(tmp_path: Path) -> None:
    proto = external("")
    proto.graph.initializer[0].ClearField("external_data")
    refused(written(tmp_path, proto), "external data of 'w'")


def test_another_type_of_model() -> None:
    with pytest.raises(
        InputError, match=r"a model is an onnx\.ModelProto or an onnx_ir\.Model, not a builtins\.dict$"
    ):
        onnx_io.from_any({})


def test_an_invalid_message() -> None:
    proto = parser.parse_model(HEAD + "{ [first] y = Add(x, nowhere) }")
    with pytest.raises(InputError, match=r"^the model: the graph is invalid: node 'first' reads 'nowhere'"):
        onnx_io.from_any(proto)


def test_a_file_that_no_message_may_be(tmp_path: Path) -> None:
    """Told by its size; it is not read."""
    path = tmp_path / "large.onnx"
    with path.open("wb") as file:
        file.write(bytes(16))
        file.truncate(2**31)
    refused(path, r"not an ONNX model: the file has 2147483648 bytes, and a protobuf message at most \d+$")

"""Models in and out: the same bytes and types, one weight in memory at a time, nothing half written."""

import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from fuser.errors import InputError, OutputError
from fuser.hosts.onnx.file import files as onnx_io
from fuser.hosts.onnx.file import store as onnx_store
from fuser.hosts.onnx.importer import import_model
from fuser.hosts.output import data_name
from tests.hosts.onnx_models import model_of, run


def model(channels: int = 40) -> onnx.ModelProto:
    """Large and small weights, as initializers and as a Constant node, in the main graph and in a body."""
    generator = np.random.default_rng(0)
    weight = generator.standard_normal((channels, channels, 3)).astype(np.float32)
    inner = generator.standard_normal((1, channels, 64)).astype(np.float32)
    value = helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(inner[:, :, :1] * 2, "k"))
    bodies = [
        helper.make_graph(
            [helper.make_node("Add", ["b", "i"], [f"o{index}"])],
            f"body{index}",
            [],
            [onnx.ValueInfoProto(name=f"o{index}")],
            [numpy_helper.from_array(inner + index, "i")],
        )
        for index in range(2)
    ]
    nodes = [
        value,
        helper.make_node("Conv", ["x", "w", "bias"], ["a"], kernel_shape=[3], pads=[1, 1]),
        helper.make_node("Mul", ["a", "k"], ["b"]),
        helper.make_node("If", ["c"], ["y"], then_branch=bodies[0], else_branch=bodies[1]),
    ]
    constants = {"w": weight, "bias": np.ones(channels, np.float32)}
    made = model_of(nodes, given={"x": [1, channels, 64]}, constants=constants)
    made.graph.input.append(helper.make_tensor_value_info("c", TensorProto.BOOL, []))
    return made


def feeds(channels: int = 40) -> dict[str, NDArray[Any]]:
    return {"x": np.ones((1, channels, 64), np.float32), "c": np.array(False)}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def data_of(path: Path) -> list[Path]:
    """The files of external data that were written for a model."""
    return [entry for entry in path.parent.iterdir() if data_name(path.name).fullmatch(entry.name)]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(model().SerializeToString())
    return path


@pytest.fixture
def external(tmp_path: Path) -> Path:
    """The same model with its weights in a file beside it."""
    path = tmp_path / "external.onnx"
    onnx.save(model(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    return path


def test_a_file_comes_out_as_it_went_in(source: Path, tmp_path: Path) -> None:
    onnx_io.save(onnx_io.load(source), tmp_path / "copy.onnx")
    assert (tmp_path / "copy.onnx").read_bytes() == source.read_bytes()


def test_a_file_may_be_written_onto_itself(source: Path) -> None:
    before = source.read_bytes()
    onnx_io.save(onnx_io.load(source), source)
    assert source.read_bytes() == before
    assert names(source.parent) == [source.name]


def test_large_tensors_are_read_when_they_are_looked_at(source: Path) -> None:
    loaded = onnx_io.load(source)
    tensor = loaded.graph.initializers["w"].const_value
    assert isinstance(tensor, onnx_ir.LazyTensor)
    np.testing.assert_array_equal(tensor.numpy(), numpy_helper.to_array(model().graph.initializer[0]))
    assert (tensor.name, tensor.dtype, list(tensor.shape)) == ("w", onnx_ir.DataType.FLOAT, [40, 40, 3])


def test_a_model_outlives_its_file(source: Path, tmp_path: Path) -> None:
    before = source.read_bytes()
    loaded = onnx_io.load(source)
    source.unlink()
    onnx_io.save(loaded, tmp_path / "copy.onnx")
    assert (tmp_path / "copy.onnx").read_bytes() == before


@pytest.mark.parametrize(
    "type_", [TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.INT4, TensorProto.BOOL]
)
def test_every_element_type_passes_through(type_: int, tmp_path: Path) -> None:
    values = (np.arange(16384) % 5).reshape(128, 128)
    proto = model_of([helper.make_node("Identity", ["w"], ["y"])], opset=21, type_=type_)
    proto.graph.initializer.append(helper.make_tensor("w", type_, (128, 128), values.flatten()))
    raw = numpy_helper.from_array(numpy_helper.to_array(proto.graph.initializer[0]), "w")
    proto.graph.initializer[0].CopyFrom(raw)
    (tmp_path / "in.onnx").write_bytes(proto.SerializeToString())
    loaded = onnx_io.load(tmp_path / "in.onnx")
    (tensor,) = (value.const_value for value in loaded.graph.initializers.values())
    assert tensor is not None
    np.testing.assert_array_equal(tensor.numpy(), numpy_helper.to_array(raw))
    onnx_io.save(loaded, tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx").read_bytes() == (tmp_path / "in.onnx").read_bytes()


def test_what_onnx_ir_does_not_keep_is_put_back(tmp_path: Path) -> None:
    proto = model()
    sparse = helper.make_sparse_tensor(
        helper.make_tensor("s", TensorProto.FLOAT, [1], [3.0]),
        helper.make_tensor("s_at", TensorProto.INT64, [1], [2]),
        [64],
    )
    proto.graph.sparse_initializer.append(sparse)
    proto.graph.node.append(helper.make_node("Neg", ["s"], ["z"]))
    proto.training_info.add().algorithm.name = "training"
    proto.graph.value_info.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("b", "a")
    )
    (tmp_path / "in.onnx").write_bytes(proto.SerializeToString())
    onnx_io.save(onnx_io.load(tmp_path / "in.onnx"), tmp_path / "out.onnx")
    assert onnx.load(tmp_path / "out.onnx") == proto
    assert onnx_io.to_same(onnx_io.from_any(proto), proto) == proto


# --- external data


def test_external_data_stays_external(external: Path, tmp_path: Path) -> None:
    loaded = onnx_io.load(external)
    (tmp_path / "sub").mkdir()
    target = tmp_path / "sub" / "out.onnx"
    onnx_io.save(loaded, target)
    (data,) = data_of(target)
    assert names(target.parent) == ["out.onnx", data.name]
    written = onnx.load(target, load_external_data=False)
    places = {entry.key: entry.value for entry in written.graph.initializer[0].external_data}
    assert places["location"] == data.name
    np.testing.assert_array_equal(run(onnx.load(target), feeds())[0], run(model(), feeds())[0])
    assert (tmp_path / "weights.bin").stat().st_size > 0


def test_external_data_may_be_written_onto_itself(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(model(), path, save_as_external_data=True, location="m.onnx.data", size_threshold=0)
    theirs = (tmp_path / "m.onnx.data").read_bytes()
    onnx_io.save(onnx_io.load(path), path)
    (data,) = data_of(path)
    first = path.read_bytes(), data.read_bytes()
    np.testing.assert_array_equal(run(onnx.load(path), feeds())[0], run(model(), feeds())[0])
    onnx_io.save(onnx_io.load(path), path)
    assert (path.read_bytes(), data.read_bytes()) == first
    assert (tmp_path / "m.onnx.data").read_bytes() == theirs
    assert names(tmp_path) == sorted(["m.onnx", "m.onnx.data", data.name])


def changed(path: Path, by: float = 1.0) -> None:
    """Add to the bias in a model file, which has external data."""
    loaded = onnx_io.load(path)
    bias = loaded.graph.initializers["w"]
    assert bias.const_value is not None
    bias.const_value = onnx_ir.Tensor(bias.const_value.numpy() + np.float32(by), name="w")
    onnx_io.save(loaded, path)


def test_weights_that_only_the_replaced_model_had_are_removed(external: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx_io.save(onnx_io.load(external), path)
    (first,) = data_of(path)
    changed(path)
    (second,) = data_of(path)
    assert second != first


def test_weights_stay_where_a_copy_of_the_replaced_model_has_them(external: Path, tmp_path: Path) -> None:
    path, copy = tmp_path / "m.onnx", tmp_path / "copy.onnx"
    onnx_io.save(onnx_io.load(external), path)
    copy.write_bytes(path.read_bytes())
    changed(path)
    assert len(data_of(path)) == 2
    np.testing.assert_array_equal(run(onnx.load(copy), feeds())[0], run(model(), feeds())[0])


def test_a_file_with_the_name_of_the_weights_and_other_content_is_not_touched(
    external: Path, tmp_path: Path
) -> None:
    path = tmp_path / "m.onnx"
    onnx_io.save(onnx_io.load(external), path)
    (data,) = data_of(path)
    before = path.read_bytes()
    data.write_bytes(b"something else")
    with pytest.raises(OutputError, match="it is there, and does not hold what its name says"):
        onnx_io.save(onnx_io.load(external), path)
    assert (path.read_bytes(), data.read_bytes()) == (before, b"something else")


def test_the_weights_of_the_source_are_not_overwritten(external: Path, tmp_path: Path) -> None:
    weights = tmp_path / "weights.bin"
    before = weights.read_bytes()
    (tmp_path / "link").symlink_to(weights)
    os.link(weights, tmp_path / "hard")
    for target in (weights, tmp_path / "link", tmp_path / "hard"):
        with pytest.raises(OutputError, match=r"cannot write there: .*weights\.bin is read$"):
            onnx_io.save(onnx_io.load(external), target)
    assert weights.read_bytes() == before


def test_weights_beyond_the_limit_of_a_message_become_external(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_store, "LARGEST_FILE", 10000)
    onnx_io.save(onnx_io.load(source), tmp_path / "out.onnx")
    assert len(data_of(tmp_path / "out.onnx")) == 1
    np.testing.assert_array_equal(run(onnx.load(tmp_path / "out.onnx"), feeds())[0], run(model(), feeds())[0])


def test_a_hub_lays_model_and_data_out_as_links(external: Path, tmp_path: Path) -> None:
    folder = tmp_path / "snapshot"
    folder.mkdir()
    for name in ("external.onnx", "weights.bin"):
        (folder / name).symlink_to(external.parent / name)
    assert onnx_io.load(folder / "external.onnx").graph.initializers["w"].const_value is not None


def test_external_data_of_a_message_is_in_the_current_folder(
    external: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(external.parent)
    proto = onnx.load("external.onnx", load_external_data=False)
    result = onnx_io.to_same(onnx_io.from_any(proto), proto)
    np.testing.assert_array_equal(run(result, feeds())[0], run(model(), feeds())[0])


# --- types


def test_a_message_comes_back_as_a_message_and_stays_as_it_is() -> None:
    given = model()
    before = given.SerializeToString()
    copy = onnx_io.from_any(given)
    copy.graph.remove(copy.graph[-1])
    assert given.SerializeToString() == before
    assert isinstance(onnx_io.to_same(copy, given), onnx.ModelProto)


def test_an_onnx_ir_model_comes_back_as_one_and_stays_as_it_is() -> None:
    given = onnx_ir.from_proto(model())
    copy = onnx_io.from_any(given)
    import_model(copy)
    copy.graph.remove(copy.graph[-1])
    assert len(given.graph) == 4
    assert onnx_io.to_same(copy, given) is copy


# --- writing


def test_a_staged_model_is_there_only_while_it_is_looked_at(source: Path, tmp_path: Path) -> None:
    def look() -> None:
        with onnx_io.staged(onnx_io.load(source), tmp_path / "out.onnx") as written:
            assert written.read_bytes() == source.read_bytes()
            assert written.parent.parent == tmp_path
            raise RuntimeError

    with pytest.raises(RuntimeError):
        look()
    assert names(tmp_path) == [source.name]


def test_mode_and_links_of_what_is_replaced_stay(source: Path, tmp_path: Path) -> None:
    (tmp_path / "real.onnx").write_bytes(b"old")
    (tmp_path / "real.onnx").chmod(0o640)
    (tmp_path / "link.onnx").symlink_to("real.onnx")
    onnx_io.save(onnx_io.load(source), tmp_path / "link.onnx")
    assert (tmp_path / "link.onnx").is_symlink()
    assert (tmp_path / "real.onnx").read_bytes() == source.read_bytes()
    assert (tmp_path / "real.onnx").stat().st_mode & 0o777 == 0o640


def test_no_space(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "out.onnx"
    target.write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(onnx_store, "stream", full)
    with pytest.raises(OutputError, match=r"out\.onnx: cannot write there: there is no space left$"):
        onnx_io.save(onnx_io.load(source), target)
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == [source.name, target.name]


def test_no_permission(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> str:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(tempfile, "mkdtemp", refused)
    with pytest.raises(OutputError, match=r"out\.onnx: cannot write there: permission denied$"):
        onnx_io.save(onnx_io.load(source), tmp_path / "out.onnx")


def test_new_weights_go_if_the_model_cannot_follow(
    external: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out.onnx"
    target.write_bytes(b"old")
    (tmp_path / "out.onnx.data").write_bytes(b"old data")
    before = names(tmp_path)
    replace = Path.replace

    def refused(self: Path, to: Path) -> Path:
        if to == target:
            raise PermissionError(errno.EPERM, "Operation not permitted")
        return replace(self, to)

    monkeypatch.setattr(Path, "replace", refused)
    with pytest.raises(OutputError, match="operation not permitted"):
        onnx_io.save(onnx_io.load(external), target)
    assert target.read_bytes() == b"old"
    assert (tmp_path / "out.onnx.data").read_bytes() == b"old data"
    assert names(tmp_path) == before


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("folder", "it is a folder"),
        ("pipe", "it is not a file"),
        ("absent/out.onnx", "the folder .*absent does not exist"),
    ],
)
def test_places_that_cannot_be_written(source: Path, tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputError, match=f"{name}: cannot write there: {reason}$"):
        onnx_io.save(onnx_io.load(source), tmp_path / name)


SCRIPT = """
import resource, sys
from fuser.hosts.onnx.file import files as onnx_io
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
onnx_io.save(onnx_io.load(sys.argv[1]), sys.argv[2])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize(("separate", "most"), [(False, 2.2), (True, 0.5)])
def test_memory(tmp_path: Path, separate: bool, most: float) -> None:
    """One file at most twice, as bytes and as a message; external data one weight at a time."""
    inputs = [f"w{index}" for index in range(8)]
    large = {name: np.full((1024, 2048), index, np.float32) for index, name in enumerate(inputs)}
    proto = model_of([helper.make_node("Sum", inputs, ["y"])], constants=large)
    onnx.save(proto, tmp_path / "in.onnx", save_as_external_data=separate)
    paths = [str(tmp_path / name) for name in ("in.onnx", "out.onnx")]
    done = subprocess.run([sys.executable, "-c", SCRIPT, *paths], check=True, capture_output=True, text=True)
    # 64 MiB of weights, 8 MiB each; ru_maxrss is in KiB.
    assert int(done.stdout) < most * 64 * 1024
    assert onnx.load(tmp_path / "out.onnx").SerializeToString() == proto.SerializeToString() or separate


def test_what_is_no_message_without_its_weights_is_refused(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_store, "LARGEST_FILE", 100)
    with pytest.raises(OutputError, match=r"out\.onnx: without its weights the model takes \d+ bytes"):
        onnx_io.save(onnx_io.load(source), tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


def test_what_onnx_ir_stumbles_over_is_said_in_one_sentence(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The innermost cause, its first line."""

    def stumble(_: object) -> None:
        raise ValueError("somewhere") from OSError("first\nsecond")

    monkeypatch.setattr("onnx_ir.from_proto", stumble)
    with pytest.raises(InputError, match=r"onnx-ir cannot read the model: first$"):
        onnx_io.load(source)

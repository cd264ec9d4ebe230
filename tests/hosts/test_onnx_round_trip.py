"""What no rewrite touched comes out word for word, whatever it is."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import TensorProto

from fuser.hosts.onnx.file import files as onnx_io
from fuser.hosts.onnx.summary import summarise
from tests.hosts.onnx_anything import Anything

SEEDS = range(150)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_file_comes_out_as_it_went_in(seed: int, tmp_path: Path) -> None:
    content = Anything(seed).model().SerializeToString()
    (tmp_path / "in.onnx").write_bytes(content)
    onnx_io.save(onnx_io.load(tmp_path / "in.onnx"), tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx").read_bytes() == content


@pytest.mark.parametrize("seed", SEEDS)
def test_a_message_comes_out_as_it_went_in(seed: int) -> None:
    proto = Anything(seed).model()
    before = proto.SerializeToString()
    result = onnx_io.to_same(onnx_io.from_any(proto), proto)
    assert proto.SerializeToString() == before
    assert result.SerializeToString() == before
    assert result == proto


@pytest.mark.parametrize("seed", SEEDS)
def test_only_what_was_touched_differs(seed: int) -> None:
    """One node gets a name, one another input, one another attribute, one moves."""
    proto = Anything(seed).model()
    model = onnx_io.from_any(proto)
    expected = onnx.ModelProto()
    expected.CopyFrom(proto)
    at = seed % len(model.graph)
    model.graph[at].name = expected.graph.node[at].name = "renamed"
    at = (seed + 1) % len(model.graph)
    # onnx-ir itself takes what it reads no more out of the devices of a node.
    if model.graph[at].inputs and not model.graph[at].device_configurations:
        model.graph[at].replace_input_with(0, None)
        expected.graph.node[at].input[0] = ""
    at = (seed + 2) % len(model.graph)
    model.graph[at].attributes["added"] = onnx_ir.AttrInt64("added", 3)
    expected.graph.node[at].attribute.add(name="added", i=3, type=onnx.AttributeProto.INT)
    if len(model.graph) > 1:
        last = model.graph[-1]
        model.graph.remove(last)
        model.graph.insert_before(model.graph[0], last)
        expected.graph.node.insert(0, expected.graph.node.pop())
    assert onnx_io.to_same(model, proto) == expected


@pytest.mark.parametrize("seed", SEEDS)
def test_external_data_changes_only_its_place(seed: int, tmp_path: Path) -> None:
    proto = Anything(seed).model()
    proto.graph.initializer.add(name="one_at_least", data_type=TensorProto.INT8, dims=[9], raw_data=bytes(9))
    onnx.save(proto, tmp_path / "in.onnx", save_as_external_data=True, size_threshold=0)
    onnx_io.save(onnx_io.load(tmp_path / "in.onnx"), tmp_path / "out.onnx")
    source, result = onnx.load(tmp_path / "in.onnx"), onnx.load(tmp_path / "out.onnx")
    assert result == source


@pytest.mark.parametrize("seed", SEEDS)
def test_everything_can_be_summarised(seed: int) -> None:
    proto = Anything(seed).model()
    nodes = sum(node.op_type != "Constant" for node in proto.graph.node)
    assert summarise(onnx_io.from_any(proto)).nodes >= nodes


def test_a_tensor_that_occurs_many_times_in_the_file_is_each_time_itself(tmp_path: Path) -> None:
    """Bytes are looked for in the file: equal ones, parts of others, and runs of zeros before them."""
    generator = np.random.default_rng(0)
    noise = generator.standard_normal((64, 64)).astype(np.float32)
    arrays = [noise, noise, np.zeros(500, np.float32), np.zeros((64, 64), np.float32), noise[:32], noise]
    arrays += [np.concatenate([np.zeros(900, np.float32), noise[0]])] * 2
    proto = onnx.ModelProto(ir_version=8)
    proto.opset_import.add(version=17)
    for index, array in enumerate(arrays):
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, f"w{index}"))
    (tmp_path / "in.onnx").write_bytes(proto.SerializeToString())
    model = onnx_io.load(tmp_path / "in.onnx")
    for value, array in zip(model.graph.initializers.values(), arrays, strict=True):
        assert value.const_value is not None
        np.testing.assert_array_equal(value.const_value.numpy(), array)
    onnx_io.save(model, tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx").read_bytes() == (tmp_path / "in.onnx").read_bytes()


def test_an_output_that_is_listed_twice_is_told_twice(tmp_path: Path) -> None:
    """Each time in its own words, which need not be the same."""
    proto = Anything(0).model()
    again = proto.graph.output.add(name=proto.graph.output[0].name, doc_string="again")
    again.type.tensor_type.elem_type = TensorProto.FLOAT16
    proto.graph.output.append(proto.graph.output[0])
    (tmp_path / "in.onnx").write_bytes(proto.SerializeToString())
    onnx_io.save(onnx_io.load(tmp_path / "in.onnx"), tmp_path / "out.onnx")
    assert onnx.load(tmp_path / "out.onnx").graph.output == proto.graph.output

"""One-node ONNX models, and what onnxruntime (nothing optimised) and our importer make of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from fuser.algebra.conv import Conv
from fuser.hosts.onnx.importer import import_model
from fuser.ir.constant import Constant
from fuser.ir.graph import Graph
from fuser.ir.node import Apply, Node, Value
from fuser.ir.ops import Sum
from fuser.ir.provenance import Provenance
from fuser.recognise.lifting import Lifting

Array = NDArray[Any]
Dims = Sequence[int | str | None]


def single(
    kind: str,
    inputs: Sequence[str],
    *,
    opset: int = 17,
    given: Mapping[str, Dims] | None = None,
    constants: Mapping[str, Array] | None = None,
    outputs: Sequence[str] = ("y",),
    type_: int = TensorProto.FLOAT,
    **attributes: Any,
) -> onnx.ModelProto:
    """A model of one node: `given` are graph inputs with their shapes, `constants` initializers."""
    node = helper.make_node(kind, inputs, outputs, name=kind.lower(), **attributes)
    return model_of([node], opset=opset, given=given, constants=constants, outputs=outputs, type_=type_)


def model_of(
    nodes: Sequence[onnx.NodeProto],
    *,
    opset: int = 17,
    given: Mapping[str, Dims] | None = None,
    constants: Mapping[str, Array] | None = None,
    outputs: Sequence[str] = ("y",),
    type_: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    """A model of some nodes, the shapes of the outputs left open."""
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info(name, type_, shape) for name, shape in (given or {}).items()],
        [onnx.ValueInfoProto(name=name) for name in outputs if name],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def run(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> list[Array]:
    """The outputs in onnxruntime, nothing optimised."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    results: list[Array] = session.run(None, dict(feeds))
    return results


def imported(model: onnx.ModelProto) -> Graph:
    """The main graph of a model."""
    return import_model(onnx_ir.from_proto(model))[0]


def only(graph: Graph) -> Node:
    """The only node of a graph."""
    (node,) = graph.nodes
    return node


def lift(node: Node) -> Apply | Constant | None:
    """The affine form of an imported node; None where it has none."""
    return Lifting(Provenance()).by_meaning(node)


def lifted(model: onnx.ModelProto) -> Apply:
    """The affine form of the only node of a model that has one."""
    result = lift(only(imported(model)))
    assert isinstance(result, Apply), f"not lifted: {result}"
    return result


def apply(application: Apply, feeds: Mapping[str, Array]) -> Array:
    """What a lifted operator computes, in float64."""
    assert isinstance(application.op, (Conv, Sum))
    terms = [np.asarray(feeds[v.name], np.float64) for v in application.inputs if isinstance(v, Value)]
    return np.asarray(application.op.evaluate(*terms))


def integers(seed: int, *shape: int, low: int = -4, high: int = 5) -> Array:
    """Small integers in float32: sums of products of them are exact."""
    return np.random.default_rng(seed).integers(low, high, shape).astype(np.float32)

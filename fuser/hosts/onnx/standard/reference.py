"""A node as `onnx.reference` computes it, which is slow and imported when it is first needed."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal

import numpy as np
import onnx
import onnx_ir
from numpy.typing import NDArray

from fuser.errors import Declined

Arrays = tuple[NDArray[Any], ...]

NEWEST: Final = onnx.defs.onnx_opset_version()


@dataclass(frozen=True)
class Reference:
    """A node as `onnx.reference` computes it: of the default domain, or a call of a function of the model."""

    node: onnx_ir.Node
    opset: int
    model: onnx_ir.Model | None = None

    def __call__(self, *inputs: NDArray[Any] | None) -> Arrays:
        """The outputs for `inputs`, an absent one being None.

        Raises:
            Declined: the reference implementation fails.
        """
        feeds = {f"i{k}": np.asarray(array) for k, array in enumerate(inputs) if array is not None}
        proto = onnx.NodeProto()
        proto.CopyFrom(self._proto)
        del proto.input[:]
        proto.input.extend("" if array is None else f"i{k}" for k, array in enumerate(inputs))
        # Whole numbers have no quotient by 0, and numpy would give one.
        divide: Literal["raise", "ignore"] = "ignore"
        if all(array.dtype.kind in "iu" for array in feeds.values()):
            divide = "raise"
        try:
            with np.errstate(all="ignore", divide=divide):
                results = iter(self._evaluator(proto, feeds).run(None, feeds))
        except Exception as error:
            raise Declined(f"{self.node.op_type} cannot be evaluated: {error}") from error
        # An output without a name is not computed; something keeps its place.
        return tuple(np.asarray(next(results)) if value.name else np.empty(0) for value in self.node.outputs)

    @cached_property
    def _proto(self) -> onnx.NodeProto:
        proto = onnx_ir.serde.serialize_node(self.node)
        names = [f"o{k}" if value.name else "" for k, value in enumerate(self.node.outputs)]
        del proto.output[:]
        proto.output.extend(names)
        return proto

    def _evaluator(self, proto: onnx.NodeProto, feeds: dict[str, NDArray[Any]]) -> Any:
        from onnx.reference import ReferenceEvaluator

        given = [
            onnx.helper.make_tensor_value_info(
                name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
            )
            for name, array in feeds.items()
        ]
        made = [onnx.helper.make_empty_tensor_value_info(name) for name in proto.output if name]
        graph = onnx.helper.make_graph([proto], "node", given, made)
        imports = {"": self.opset} if self.model is None else {**self.model.opset_imports, "": self.opset}
        inside = [] if self.model is None else called(self.model, self.node)
        return ReferenceEvaluator(
            onnx.helper.make_model(
                graph,
                opset_imports=[onnx.helper.make_opsetid(*entry) for entry in imports.items()],
                functions=[onnx_ir.serde.serialize_function(function) for function in inside],
            )
        )


def of_other_domains(node: onnx.NodeProto, opset: int) -> Callable[..., Arrays] | None:
    """What computes a node of the standard's other domains, as `onnx.reference` does; None if it does not."""
    from onnx.reference import ReferenceEvaluator

    proto = onnx.NodeProto()
    proto.CopyFrom(node)
    if not onnx.defs.has(node.op_type, node.domain):
        return None

    def evaluate(*inputs: Any) -> Arrays:
        names = ["" if given is None else f"i{k}" for k, given in enumerate(inputs)]
        del proto.input[:]
        proto.input.extend(names)
        given, made = (
            [onnx.ValueInfoProto(name=name) for name in listed if name] for listed in (names, proto.output)
        )
        graph = onnx.helper.make_graph([proto], "node", given, made)
        opsets = [onnx.helper.make_opsetid(node.domain, opset), onnx.helper.make_opsetid("", NEWEST)]
        model = onnx.helper.make_model(graph, opset_imports=opsets)
        feeds = {name: array for name, array in zip(names, inputs, strict=True) if name}
        return tuple(ReferenceEvaluator(model).run(None, feeds))

    return evaluate


def called(model: onnx_ir.Model, node: onnx_ir.Node) -> list[onnx_ir.Function]:
    """The functions that a call needs, each behind those that it calls."""
    found: dict[onnx_ir.OperatorIdentifier, onnx_ir.Function] = {}

    def visit(identifier: onnx_ir.OperatorIdentifier) -> None:
        function = model.functions.get(identifier)
        if function is not None and identifier not in found:
            for part in function.all_nodes():
                visit(part.op_identifier())
            found[identifier] = function

    visit(node.op_identifier())
    return list(found.values())

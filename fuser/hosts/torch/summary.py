"""What a torch model amounts to: operators, parameters, bytes."""

from collections import Counter
from collections.abc import Iterator

from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from fuser.hosts.summary import Summary
from fuser.hosts.torch.call import Call, normalise
from fuser.hosts.torch.modules import normalise_module

GUARDS = "_guards_fn"
"""What torch.export puts into a module to refuse inputs of other shapes."""


def summarise(model: nn.Module | ExportedProgram, graph: fx.GraphModule | ExportedProgram) -> Summary:
    """Summarise a model: the weights that it has, and the calls in its captured `graph`, by their kind."""
    state = model.state_dict if isinstance(model, ExportedProgram) else model.state_dict()
    tensors = {id(tensor): tensor for tensor in state.values() if isinstance(tensor, Tensor)}
    floating = [tensor for tensor in tensors.values() if tensor.is_floating_point()]
    return Summary(
        operators=dict(sorted(Counter(_operators(graph)).items())),
        parameters=sum(tensor.numel() for tensor in floating),
        weight_bytes=sum(tensor.numel() * tensor.element_size() for tensor in floating),
        nominal={},
    )


def _operators(graph: fx.GraphModule | ExportedProgram) -> Iterator[str]:
    """The kind of each call, the same for a layer that is a module here and a function there."""
    module = graph.graph_module if isinstance(graph, ExportedProgram) else graph
    for node in module.graph.nodes:
        if node.op == "call_module":
            if node.target != GUARDS:
                yield _shown(normalise_module(node, module.get_submodule(str(node.target))))
        elif node.op.startswith("call_"):
            yield _shown(normalise(node))


def _shown(call: Call) -> str:
    """`conv`, `atan2`, `mylib::mul`."""
    return call.kind.removeprefix("torch::")

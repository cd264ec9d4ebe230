"""What a torch model amounts to: operators, parameters, bytes."""

from collections import Counter
from collections.abc import Iterator
from typing import Final

from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from fuser.hosts.summary import Summary
from fuser.hosts.torch.call import Bound
from fuser.hosts.torch.functions import KINDS, read
from fuser.hosts.torch.identity import canonical, name_of
from fuser.hosts.torch.modules import read_module

GUARDS = "_guards_fn"
"""What torch.export puts into a module to refuse inputs of other shapes."""


WORDS: Final = {kind: name for name, kind in reversed(KINDS.items())}
SHORT: Final = {
    "BatchNormalization": "batch_norm",
    "Conv": "conv",
    "ConvTranspose": "conv",
    "Pad": "pad",
    "Sub": "sub",
    "reshape_as": "reshape",
}
"""The same word for all of a kind, however many axes they have."""


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
                yield _shown(read_module(node, module.get_submodule(str(node.target))))
        elif node.op.startswith("call_"):
            yield _shown(read(node), canonical(name_of(node)))


def _shown(bound: Bound, name: str = "") -> str:
    """`conv`, `atan2`, `mylib::mul`: torch's word, for a function that of its `name`."""
    if "::" in bound.kind:
        return bound.kind.removeprefix("torch::")
    word = SHORT.get(bound.kind) or name or WORDS.get(bound.kind, bound.kind)
    size = bound.call.attributes.get("kernel_shape", bound.call.attributes.get("output_size"))
    return word if name or size is None else f"{word[:-2]}{len(size)}d"

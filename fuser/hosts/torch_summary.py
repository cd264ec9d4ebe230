"""What a torch model amounts to: operators, parameters, bytes."""

from collections import Counter
from collections.abc import Iterator

from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from fuser.summary import Summary


def summarise(model: nn.Module | ExportedProgram) -> Summary:
    """Summarise a model: the calls of its graph, or its layers where it has no graph yet."""
    state = model.state_dict if isinstance(model, ExportedProgram) else model.state_dict()
    tensors = {id(tensor): tensor for tensor in state.values() if isinstance(tensor, Tensor)}
    floating = [tensor for tensor in tensors.values() if tensor.is_floating_point()]
    return Summary(
        operators=dict(sorted(Counter(_operators(model)).items())),
        parameters=sum(tensor.numel() for tensor in floating),
        weight_bytes=sum(tensor.numel() * tensor.element_size() for tensor in floating),
        nominal={},
    )


def _operators(model: nn.Module | ExportedProgram) -> Iterator[str]:
    if isinstance(model, fx.GraphModule | ExportedProgram):
        for node in model.graph.nodes:
            if node.op == "call_module":
                yield type(model.get_submodule(str(node.target))).__name__
            elif node.op.startswith("call_"):
                yield getattr(node.target, "__name__", str(node.target)).partition(".")[0]
        return
    for module in model.modules():
        if not next(module.children(), None):
            yield type(module).__name__

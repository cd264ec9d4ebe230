"""Drafts of whatever torch has: GraphModules, exported programs, and modules that are captured first."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import fx, nn
from torch.export import ExportedProgram

from fuser.hosts.torch.draft import Imported, TorchDraft
from fuser.hosts.torch.evaluate import with_its_weights
from fuser.hosts.torch.front import arguments, capture, require_inference, require_plain
from fuser.hosts.torch.graph_module import copied, export_module, read_tensors
from fuser.hosts.torch.importer import import_fx
from fuser.hosts.torch.program import ProgramDraft


def draft_of(
    model: nn.Module | ExportedProgram,
    example_inputs: Any = None,
    dynamic_shapes: Any = None,
    example_kwargs: Mapping[str, Any] | None = None,
) -> TorchDraft:
    """A copy of a model that may be rewritten.

    Args:
        model: an ExportedProgram gives one; a GraphModule or another Module gives a GraphModule.
        example_inputs: a tensor, a tuple of arguments or a mapping of arguments by name. A Module is captured
            with them by `torch.export`, without them by `torch.fx.symbolic_trace`.
        dynamic_shapes: as for `torch.export.export`.
        example_kwargs: arguments by name.

    Raises:
        InputError: the model is in training mode, or cannot be captured as a whole.
    """
    if isinstance(model, ExportedProgram):
        draft: TorchDraft = ProgramDraft(model)
    elif isinstance(model, fx.GraphModule):
        draft = ModuleDraft(model, model, _in_order(model, example_inputs))
    else:
        draft = ModuleDraft(model, capture(model, example_inputs, dynamic_shapes, example_kwargs))
    draft.examples = example_inputs
    return draft


def _in_order(module: fx.GraphModule, example_inputs: Any) -> Sequence[Any]:
    """The arguments in the order of the inputs of the graph; None for one that is not given by name."""
    if not isinstance(example_inputs, Mapping):
        return arguments(example_inputs)
    names = [str(node.target) for node in module.graph.nodes if node.op == "placeholder"]
    return [example_inputs.get(name) for name in names]


class ModuleDraft(TorchDraft):
    """A GraphModule, given or captured; the result has tensors of its own.

    Of `ordered`, arguments in the order of the graph's inputs, only ranks and element types are taken.

    Raises:
        InputError: it is in training mode, or does more than its graph says.
    """

    def __init__(self, given: nn.Module, module: fx.GraphModule, ordered: Sequence[Any] = ()) -> None:
        super().__init__(given, module)
        require_inference(module)
        require_plain(module)
        self.module = module
        self.ordered = ordered
        self.name = type(module).__name__
        self.owner = with_its_weights(module)

    def read(self) -> Imported:
        """The module imported."""
        source = copied(self.module.graph)
        tensors = read_tensors(source, self.owner)
        graph = import_fx(source, self.owner, tensors, self.name, self.ordered)
        return Imported(source, tensors, graph)

    def write(self, done: Imported) -> fx.GraphModule:
        """The module with what was done to the graph."""
        return export_module(done.graph, done.source, self.owner, done.tensors, self.name)

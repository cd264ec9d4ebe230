"""Models of torch, whole: captured as graphs, and what is refused of them."""

from collections.abc import Mapping
from itertools import takewhile
from typing import Any

import torch
from torch import fx, nn
from torch.export import ExportedProgram
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize
from torch.utils import _pytree as pytree

from fuser.errors import InputError
from fuser.hosts.torch.effects import resolve_effects
from fuser.hosts.torch.evaluate import with_its_weights
from fuser.hosts.torch.functions import read
from fuser.hosts.torch.graph_module import attribute, copied
from fuser.hosts.torch.identity import canonical, is_quantized, name_of
from fuser.hosts.torch.modules import added_to
from fuser.hosts.torch.names import Paths, respelled, spell_program

TRAINING = "is in training mode, in which BatchNorm and Dropout compute something else; call `.eval()` first"


def capture(
    model: nn.Module,
    example_inputs: Any,
    dynamic_shapes: Any,
    example_kwargs: Mapping[str, Any] | None = None,
) -> fx.GraphModule:
    """The graph of a module, by `torch.export` with example inputs and by `symbolic_trace` without.

    Raises:
        InputError: the module is in training mode, or cannot be captured as a whole.
    """
    require_inference(model)
    name = type(model).__name__
    if example_inputs is None and not example_kwargs:
        return trace(model)
    program = functional(export(model, example_inputs, dynamic_shapes, example_kwargs))
    return named(module_of_program(program), name)


class _Tracer(fx.Tracer):
    """Records what is done with buffers too: done while tracing, it would change the module.

    Refuses what would be lost: that autocast is switched on or off inside the module.
    """

    proxy_buffer_attributes = True

    def __init__(self) -> None:
        super().__init__()
        self.autocast = autocast_state()

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        """Record a node."""
        if autocast_state() != self.autocast:
            raise RuntimeError("a part of it switches autocast on or off, which would be lost")
        return super().create_node(*args, **kwargs)


def autocast_state() -> tuple[object, ...]:
    """Whether, and to which type, operators cast what they read."""
    kinds = ("cpu", "cuda")
    return tuple((torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in kinds)


def trace(model: nn.Module) -> fx.GraphModule:
    """`torch.fx.symbolic_trace`, its errors in one sentence.

    What tracing leaves on the module is taken off again.

    Raises:
        InputError: the module cannot be captured as a whole.
    """
    require_plain(model)
    model = with_its_weights(model)
    before = set(vars(model))
    try:
        traced = fx.GraphModule(*_spelled(model, _Tracer().trace(model)), type(model).__name__)
    except Exception as error:
        raise InputError(
            f"{type(model).__name__} cannot be captured by torch.fx.symbolic_trace: {first_line(error)}; "
            "with example inputs torch.export captures more"
        ) from error
    finally:
        for name in set(vars(model)) - before:
            delattr(model, name)
    saved = set(map(id, model.state_dict(keep_vars=True).values()))
    for path, buffer in traced.named_buffers():
        if id(buffer) not in saved:
            place, _, name = path.rpartition(".")
            traced.get_submodule(place)._non_persistent_buffers_set.add(name)
    return traced


def _spelled(model: nn.Module, graph: fx.Graph) -> tuple[nn.Module | dict[str, Any], fx.Graph]:
    """A graph with paths that torch.fx can spell, and what has them: the model, or parts of it by path."""
    reads = [node for node in graph.nodes if node.op in {"call_module", "get_attr"}]
    names = respelled(str(node.target) for node in reads)
    if not names:
        return model, graph
    settled: dict[str, str] = {}
    # What lies inside a layer that is called is kept beside it: the layer is the model's own.
    layers = Paths()
    for node in sorted(reads, key=lambda node: (node.op, str(node.target).count("."))):
        path = str(node.target)
        if path in names and path not in settled:
            settled[path] = layers.fresh(names[path])
        elif node.op == "call_module":
            layers.take(path)
    parts = {}
    for node in reads:
        path = str(node.target)
        node.target = settled.get(path, path)
        parts[node.target] = attribute(model, path)
    return parts, graph


def module_of_program(program: ExportedProgram) -> fx.GraphModule:
    """The program as a module, its parameters and buffers under names that torch can spell."""
    module = spell_program(program).module()
    assert isinstance(module, fx.GraphModule), "torch.export gives a GraphModule"
    return module


def export(
    model: nn.Module,
    example_inputs: Any,
    dynamic_shapes: Any = None,
    example_kwargs: Mapping[str, Any] | None = None,
) -> ExportedProgram:
    """`torch.export.export`, its errors in one sentence.

    Raises:
        InputError: the module cannot be captured as a whole.
    """
    args, kwargs = _distinct(split(example_inputs, example_kwargs))
    try:
        with torch.no_grad():
            return spell_program(torch.export.export(model, args, kwargs, dynamic_shapes=dynamic_shapes))
    except Exception as error:
        raise InputError(
            f"{type(model).__name__} cannot be captured by torch.export: {first_line(error)}"
        ) from error


def functional(program: ExportedProgram) -> ExportedProgram:
    """The program without changes in place, if some are seen through another name of the tensor.

    Assignment to slices is such a change: nothing around it could be rewritten.
    """
    unseen = resolve_effects(copied(program.graph), lambda _: None)
    # Torch takes dropout for a copy also where it returns its input, which is wrong if that is changed.
    trusted = all(canonical(name_of(node)) != "dropout" for node in unseen)
    return program.run_decompositions({}) if unseen and trusted else program


def split(inputs: Any, kwargs: Mapping[str, Any] | None = None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments by position and by name; a mapping in place of the former is of the latter."""
    if isinstance(inputs, Mapping):
        return (), {str(name): value for name, value in inputs.items()} | dict(kwargs or {})
    return arguments(inputs), dict(kwargs or {})


def _distinct(call: Any) -> Any:
    """Arguments of which no two are one tensor: torch.export would take them for the same in every call."""
    seen: set[int] = set()

    def own(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor) or id(leaf) not in seen:
            seen.add(id(leaf))
            return leaf
        return leaf.detach()

    return pytree.tree_map(own, call)


def arguments(example_inputs: Any) -> tuple[Any, ...]:
    """A single argument, or several, as a tuple."""
    if example_inputs is None:
        return ()
    return tuple(example_inputs) if isinstance(example_inputs, tuple | list) else (example_inputs,)


def named(module: fx.GraphModule, name: str) -> fx.GraphModule:
    """The GraphModule with a class called as the original's."""
    module.__class__.__name__ = name
    return module


def first_line(error: Exception) -> str:
    """The first line of a message that says something, what it announces, and what it suggests."""
    lines = [line.strip() for line in str(error).splitlines()]
    said = list(filter(None, lines)) or [type(error).__name__]
    # "The following are not supported:" says nothing without the line that it announces.
    end = next((index for index, line in enumerate(said) if not line.endswith(":")), len(said) - 1)
    first = " ".join(said[: end + 1]).removesuffix(".")
    if "Suggested fixes:" not in lines:
        return first
    fixes = takewhile(bool, lines[lines.index("Suggested fixes:") + 1 :])
    return f"{first.partition('!')[0]}; torch suggests {', '.join(fixes)}"


def require_inference(model: nn.Module) -> None:
    """Refuse a model that is, or has a part that is, in training mode, or that was never called.

    Raises:
        InputError: with the name of the first such part, or of a parameter without a shape.
    """
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if is_lazy(tensor):
            raise InputError(
                f"{type(model).__name__} does not know the shape of {name!r} yet; call it once first"
            )
    if isinstance(model, fx.GraphModule):
        called = {str(node.target) for node in model.graph.nodes if node.op == "call_module"}
        parts = {name: part for name, part in model.named_modules() if name in called and sensitive(part)}
        for node in model.graph.nodes:
            if trains(node):
                raise InputError(f"{type(model).__name__}, node {node.name}, {TRAINING}")
    else:
        computing = computing_weights(model)
        parts = {name: part for name, part in model.named_modules() if part not in computing or moody(part)}
    for name, part in parts.items():
        if part.training and not is_quantized(type(part)):
            title = type(model).__name__ + (f", module {name!r}," if name else "")
            raise InputError(f"{title} {TRAINING}")


def require_plain(model: nn.Module) -> None:
    """Refuse a model whose call does more than torch.fx has in its graph.

    Raises:
        InputError: with the hook.
    """
    if added := added_to(model):
        raise InputError(
            f"{type(model).__name__} has {added}, which torch.fx leaves out of the graph; "
            "torch.export.export captures it"
        )


def computing_weights(model: nn.Module) -> set[nn.Module]:
    """The parametrizations in a model. One that was registered in evaluation mode is in training."""
    found: set[nn.Module] = set()
    for part in model.modules():
        if parametrize.is_parametrized(part):
            found.update(part.parametrizations.modules())
    return found


def moody(module: nn.Module) -> bool:
    """Whether the mode matters to what a parametrization computes, or to statistics that it keeps."""
    code = getattr(type(module).forward, "__code__", None)
    reads = code is not None and "training" in code.co_names
    return reads or isinstance(module, MOODY) or bool(module._buffers)


def sensitive(module: nn.Module) -> bool:
    """Whether a module computes something else in training. Only torch's own are known not to."""
    if not type(module).__module__.startswith("torch."):
        return not isinstance(module, fx.GraphModule)
    return isinstance(module, MOODY)


MOODY = (nn.modules.batchnorm._NormBase, nn.modules.dropout._DropoutNd, nn.RReLU)


def trains(node: fx.Node) -> bool:
    """Whether a function is called as in training."""
    if node.op not in {"call_function", "call_method"} or canonical(name_of(node)) not in TRAINABLE:
        return False
    bound = read(node)
    # A norm that keeps no statistics takes those of the batch in inference too.
    bare = bound.kind == "BatchNormalization" and bound.operands[3] is None
    return bound.call.attributes.get("training_mode") is True and not bare


TRAINABLE = frozenset({"batch_norm", "native_batch_norm", "dropout"})

"""The backend of torch.compile: `torch.compile(model, backend="graph_fuser")`.

Under `no_grad` or `inference_mode` the captured graph is fused and handed over to Inductor, or to the backend
that the option `backend` names. Where gradients may be wanted it is handed over as it is. Torch finds the
backend through the entry point group `torch_dynamo_backends`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import fx

from fuser.hosts.torch.draft import Imported, TorchDraft
from fuser.hosts.torch.effects import resolve_effects
from fuser.hosts.torch.graph_module import Tensors, copied, export_module, read_tensors
from fuser.hosts.torch.importer import import_fx
from fuser.hosts.torch.tensor import is_real
from fuser.rewrite.pattern import Plan, select
from fuser.validate.rewritten import rewritten

Compiled = Callable[..., Any]
Backend = Callable[[fx.GraphModule, Sequence[Any]], Compiled]


def graph_fuser(
    gm: fx.GraphModule,
    example_inputs: Sequence[Any],
    *,
    mode: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Compiled:
    """Fuse a graph that torch.compile captured, and compile the result.

    Args:
        gm: the captured graph; parameters are among its inputs.
        example_inputs: what it was captured with.
        mode: as for torch.compile, handed on to Inductor.
        options: `backend`, the one to hand over to (`"inductor"`), `passes` and `exclude` as for
            `fuser.optimize`; the rest is handed on.
    """
    given = dict(options or {})
    names, exclude = given.pop("passes", None), given.pop("exclude", ())
    inner = _backend(given.pop("backend", "inductor"), mode, given)
    if _wants_gradients(gm, example_inputs):
        return inner(gm, example_inputs)
    return _Fused(gm, inner, select(names, exclude))(example_inputs)


def _backend(name: str | Backend, mode: str | None, options: dict[str, Any]) -> Backend:
    """The backend to hand over to, its options bound."""
    if callable(name):
        return name
    if name != "inductor":
        found: Backend = torch._dynamo.lookup_backend(name)
        return found
    from torch._inductor.compile_fx import compile_fx

    if mode is not None and mode != "default":
        options = {**torch._inductor.list_mode_options(mode), **options}
    return lambda gm, inputs: compile_fx(gm, list(inputs), config_patches=options or None)


def _wants_gradients(gm: fx.GraphModule, inputs: Sequence[Any]) -> bool:
    tensors = [*inputs, *gm.parameters()]
    return torch.is_grad_enabled() and any(isinstance(t, torch.Tensor) and t.requires_grad for t in tensors)


class _Fused:
    """Compiles a graph with its weights fused, and again should they be changed."""

    def __init__(self, gm: fx.GraphModule, inner: Backend, plan: Plan) -> None:
        self.gm = gm
        self.inner = inner
        self.plan = plan
        graph = copied(gm.graph)
        changed = resolve_effects(graph, lambda _: None)
        inputs = [node for node in graph.nodes if node.op == "placeholder"]
        self.fixed = [index for index, node in enumerate(inputs) if is_fixed(node) and node not in changed]
        self.free = [index for index in range(len(inputs)) if index not in self.fixed]

    def __call__(self, example_inputs: Sequence[Any]) -> Compiled:
        """What is called with the graph's inputs, parameters included."""
        state = self._state(example_inputs)
        compiled = self._compile(example_inputs)

        def run(*inputs: Any) -> Any:
            nonlocal state, compiled
            if self._state(inputs) != state:
                # Somebody trained on, or loaded other weights.
                state, compiled = self._state(inputs), self._compile(inputs)
            return compiled(*(inputs[index] for index in self.free))

        return run

    def _state(self, inputs: Sequence[Any]) -> list[tuple[int, int]]:
        """What tells whether a weight is the one that was fused: its memory, and how often it was written."""
        return [
            (t.data_ptr(), 0 if t.is_inference() else t._version) for t in (inputs[i] for i in self.fixed)
        ]

    def _compile(self, inputs: Sequence[Any]) -> Compiled:
        fused = self.fuse(inputs)
        return self.inner(fused, [inputs[index] for index in self.free])

    def fuse(self, inputs: Sequence[Any]) -> fx.GraphModule:
        """The fused graph, with weights of its own."""
        draft = _CompiledDraft(self, inputs)
        graphs, _ = rewritten(draft.graphs, self.plan)
        draft.apply(graphs)
        result = draft.result()
        assert isinstance(result, fx.GraphModule), "a graph gives one"
        return result

    def tensors(self, source: fx.Graph, inputs: Sequence[Any]) -> Tensors:
        """What is known while the graph is compiled: parameters and buffers."""
        found = read_tensors(source, self.gm)
        nodes = [node for node in source.nodes if node.op == "placeholder"]
        for index in self.fixed:
            if is_real(inputs[index]):
                found[nodes[index]] = f"weights.{nodes[index].name}", inputs[index]
        return found


class _CompiledDraft(TorchDraft):
    """A captured graph while it is fused, with the weights that it has in one call."""

    def __init__(self, fused: _Fused, inputs: Sequence[Any]) -> None:
        super().__init__(fused.gm, fused.gm)
        self.fused = fused
        self.inputs = inputs

    def read(self) -> Imported:
        """The graph imported."""
        source = copied(self.fused.gm.graph)
        tensors = self.fused.tensors(source, self.inputs)
        return Imported(source, tensors, import_fx(source, self.fused.gm, tensors, "compiled"))

    def write(self, done: Imported) -> fx.GraphModule:
        """The graph with what was done to it."""
        return export_module(done.graph, done.source, self.fused.gm, done.tensors, "Fused")


def is_fixed(node: fx.Node) -> bool:
    """Whether an input is a parameter or buffer of a module, the same in every call."""
    return "_dynamo_static_input_type" in (node.meta.get("tensor_dict") or {})

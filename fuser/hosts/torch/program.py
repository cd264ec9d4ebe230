"""Exported programs: the same diff, with parameters as inputs that a signature lists."""

from collections.abc import Callable, Sequence
from copy import copy, deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import (
    ExportGraphSignature,
    InputKind,
    InputSpec,
    OutputSpec,
    SymBoolArgument,
    SymFloatArgument,
    SymIntArgument,
    TensorArgument,
)

from fuser.errors import InputError
from fuser.hosts.torch.describe import fake_mode, refresh
from fuser.hosts.torch.draft import Imported, TorchDraft
from fuser.hosts.torch.emit import AtenEmit, computed
from fuser.hosts.torch.exporter import Block, export_fx, kept
from fuser.hosts.torch.front import TRAINING, functional, trains
from fuser.hosts.torch.graph_module import Tensors, attribute, copied, read_tensors
from fuser.hosts.torch.importer import import_fx
from fuser.hosts.torch.names import Paths, spell_program
from fuser.ir.constant import Constant

STORED = (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR)


class ProgramDraft(TorchDraft):
    """An exported program; the result has tensors of its own.

    Raises:
        InputError: it was exported in training mode.
    """

    def __init__(self, program: ExportedProgram) -> None:
        super().__init__(program, program)
        for node in program.graph.nodes:
            if trains(node):
                raise InputError(f"the program, node {node.name}, {TRAINING}")
        self.program = functional(spell_program(program))

    def read(self) -> Imported:
        """The program imported."""
        source = copied(self.program.graph)
        tensors = read_program(self.program, source)
        return Imported(source, tensors, import_fx(source, self.program.graph_module, tensors))

    def write(self, done: Imported) -> ExportedProgram:
        """The program with what was done to the graph."""
        still = {node.name for node in kept(done.graph)}
        specs = self.program.graph_signature.input_specs
        taken = {spec.target for spec in specs if spec.target and spec.arg.name in still}
        store = _Store(self.program, done.source, taken)
        return store.finish(export_fx(done.graph, self.program.graph_module, done.tensors, store))


def read_program(program: ExportedProgram, graph: fx.Graph) -> Tensors:
    """The parameters, buffers and constants among the inputs of a program, less those that it changes."""
    signature = program.graph_signature
    changed = set(signature.buffers_to_mutate.values())
    changed.update(getattr(signature, "parameters_to_mutate", {}).values())
    nodes = {node.name: node for node in graph.nodes if node.op == "placeholder"}
    found = read_tensors(graph, program.graph_module)
    for spec in signature.input_specs:
        if spec.kind in STORED and spec.target is not None and spec.target not in changed:
            tensor = stored_tensor(program, spec.target)
            if isinstance(tensor, torch.Tensor):
                found[nodes[spec.arg.name]] = spec.target, tensor
    return found


def stored_tensor(program: ExportedProgram, target: str) -> Any:
    """A tensor of the state, or a constant that is not part of it."""
    return program.state_dict[target] if target in program.state_dict else program.constants.get(target)


class _Store:
    """New parameters as inputs of the graph."""

    def __init__(self, program: ExportedProgram, graph: fx.Graph, taken: set[str]) -> None:
        self.program = program
        self.graph = graph
        mode = fake_mode(graph)
        assert mode is not None, "an exported program describes its values"
        self.mode = mode
        self.known = set(graph.nodes)
        self.training = program.dialect == "TRAINING"
        self.specs: list[InputSpec] = []
        self.state: dict[str, torch.Tensor] = {}
        self.constants: dict[str, torch.Tensor] = {}
        self.first = next(node for node in graph.nodes)
        self.paths = Paths(taken)

    def emit(self, graph: fx.Graph, block: Block) -> AtenEmit:
        return AtenEmit(graph, block, self, training=self.training)

    def call(self, name: str, key: str, make: Callable[[], nn.Module], x: fx.Node) -> fx.Node:
        raise AssertionError(f"an exported program calls no modules: {name}, {key}, {make}, {x}")

    def module(self, name: str, module: nn.Module) -> str:
        """An exported program calls no modules."""
        raise AssertionError(f"an exported program calls no modules: {name}, {module}")

    def tensor(self, name: str, tensor: nn.Parameter) -> fx.Node:
        """An input for a new parameter."""
        path = self.paths.fresh(name, numbered=2)
        self.state[path] = tensor
        return self._input(InputKind.PARAMETER, f"p_{path}", path, tensor)

    def constant(self, graph: fx.Graph, constant: Constant, block: Block) -> fx.Node:
        """An input for a new parameter or constant."""
        del graph
        tensor = computed(constant, block)
        if isinstance(tensor, nn.Parameter):
            return self.tensor(block.name, tensor)
        path = self.paths.fresh(block.name)
        self.constants[path] = tensor
        return self._input(InputKind.CONSTANT_TENSOR, f"c_{path}", path, tensor)

    def _input(self, kind: InputKind, name: str, path: str, tensor: torch.Tensor) -> fx.Node:
        with self.graph.inserting_before(self.first):
            node = self.graph.placeholder(name.replace(".", "_"))
        # Old inputs may have the name and are still there.
        node.target = node.name
        node.meta["val"] = self.mode.from_tensor(tensor, static_shapes=True)
        self.specs.append(InputSpec(kind, TensorArgument(node.name), path))
        return node

    def finish(self, unread: Sequence[fx.Node]) -> ExportedProgram:
        """The program: new inputs in front, unread ones gone, outputs under their names."""
        gone = self._remove(unread)
        # Inputs are described as they are made.
        self.known.update(node for node in self.graph.nodes if node.op == "placeholder")
        refresh(self.graph, self.known, lambda path: attribute(self.program.graph_module, path))
        signature = self.program.graph_signature
        inputs = [spec for spec in signature.input_specs if spec.target is None or spec.target not in gone]
        state = {name: tensor for name, tensor in self.program.state_dict.items() if name not in gone}
        kept = deepcopy(self.program.constants) if self.program.constants else {}
        constants = {name: value for name, value in kept.items() if name not in gone}
        memo: dict[int, Any] = {}
        return ExportedProgram(
            root=self.program.graph_module,
            graph=self.graph,
            graph_signature=ExportGraphSignature(self._in_order(inputs), self._outputs()),
            state_dict={name: deepcopy(tensor, memo) for name, tensor in state.items()} | self.state,
            range_constraints=copy(self.program.range_constraints),
            module_call_graph=[
                entry
                for entry in self.program.module_call_graph
                if entry.fqn == "" or entry.signature is None
            ],
            example_inputs=self.program.example_inputs,
            constants=constants | self.constants,
            verifiers=self.program.verifiers,
        )

    def _in_order(self, inputs: Sequence[InputSpec]) -> list[InputSpec]:
        """Specifications in the order of the inputs of the graph."""
        by_name = {spec.arg.name: spec for spec in (*self.specs, *inputs)}
        return [by_name[node.name] for node in self.graph.nodes if node.op == "placeholder"]

    def _remove(self, unread: Sequence[fx.Node]) -> set[str]:
        """Take out the inputs that nobody reads any more, and what the same layers had beside them."""
        targets = {
            spec.arg.name: spec.target
            for spec in self.program.graph_signature.input_specs
            if spec.kind in STORED
        }
        owners = {str(targets.get(node.name)).rpartition(".")[0] for node in unread}
        changed = set(self.program.graph_signature.buffers_to_mutate.values())
        gone: set[str] = set()
        for node in list(self.graph.nodes):
            target = targets.get(node.name) if node.op == "placeholder" else None
            if target is None or node.users or target in changed:
                continue
            if node in unread or (
                target.endswith(".num_batches_tracked") and target.rpartition(".")[0] in owners
            ):
                self.graph.erase_node(node)
                gone.add(target)
        return gone

    def _outputs(self) -> list[OutputSpec]:
        """Output specifications, by the names that the results have now."""
        output = next(reversed(self.graph.nodes))
        results = output.args[0]
        assert isinstance(results, list | tuple), "an exported program returns a flat tuple"
        specs = []
        named = (TensorArgument, SymIntArgument, SymFloatArgument, SymBoolArgument)
        for spec, result in zip(self.program.graph_signature.output_specs, results, strict=True):
            known = isinstance(spec.arg, named) and isinstance(result, fx.Node)
            specs.append(replace(spec, arg=replace(spec.arg, name=result.name)) if known else spec)
        return specs

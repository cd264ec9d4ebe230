"""Models of torch as something to call: what takes arguments, and the arguments as named arrays and back."""

import inspect
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx, nn
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from fuser.errors import InputError
from fuser.hosts.kind import is_torch
from fuser.hosts.torch.evaluate import with_its_weights
from fuser.hosts.torch.front import arguments, first_line, module_of_program, require_inference
from fuser.hosts.torch.modules import duplicate
from fuser.hosts.torch.tensor import dtype_name, to_numpy, to_torch
from fuser.judge.inputs import Dim, Feeds, Shapes, Sizing, Spec, attempts


def opened(model: Any, name: str) -> nn.Module | ExportedProgram:
    """A model, or what the `.pt2` file at a path holds; `name` is what errors call what is none of torch.

    Raises:
        InputError: it cannot be read, is no model of torch, or is in training mode.
    """
    require_model(model, name)
    if isinstance(model, str | os.PathLike):
        from fuser.hosts.torch import files as torch_files

        model = torch_files.load(model)
    require_inference(model.graph_module if isinstance(model, ExportedProgram) else model)
    return model


def require_model(model: Any, name: str) -> None:
    """Refuse what is no model of torch.

    Raises:
        InputError: with its path, or else its type.
    """
    if not is_torch(model):
        path = isinstance(model, str | os.PathLike)
        found = os.fspath(model) if path else f"a {type(model).__module__}.{type(model).__qualname__}"
        raise InputError(f"{name} is no torch module, ExportedProgram or .pt2 file, but {found}")


def module_of(model: nn.Module | ExportedProgram, *, double: bool = False) -> nn.Module:
    """What can be called, its state its own: a forward may change buffers; `double` in double precision."""
    module = module_of_program(model) if isinstance(model, ExportedProgram) else model
    if isinstance(module, fx.GraphModule):
        module = with_its_weights(module)  # torch copies only what the graph reads
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, about its own classes
        try:
            copy: nn.Module = duplicate(module)
        except Exception as error:  # whatever a user's class or torch's own copying of it raises
            raise InputError(f"{type(module).__name__} cannot be copied: {first_line(error)}") from error
    return copy.double() if double else copy


def device_of(module: nn.Module) -> torch.device | None:
    """Where the module computes; None where its tensors do not tell."""
    devices = {tensor.device for tensor in (*module.parameters(), *module.buffers())}
    return devices.pop() if len(devices) == 1 else None


@dataclass(frozen=True, eq=False)
class Arguments:
    """The arguments of a call, flat. `names` are those of the tensors among `leaves`, in order."""

    leaves: Sequence[Any]
    structure: Any
    names: Sequence[str]

    @classmethod
    def of(
        cls, model: nn.Module | ExportedProgram, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> "Arguments":
        """The arguments under the names of the parameters that take them."""
        flat, structure = pytree.tree_flatten_with_path((tuple(args), dict(kwargs)))
        parameters = _parameters(model)
        names = [_name(path, parameters) for path, leaf in flat if isinstance(leaf, torch.Tensor)]
        return cls([leaf for _, leaf in flat], structure, names)

    @property
    def tensors(self) -> list[torch.Tensor]:
        """The tensors among the leaves."""
        return [leaf for leaf in self.leaves if isinstance(leaf, torch.Tensor)]

    @property
    def feeds(self) -> Feeds:
        """The tensors as arrays by name."""
        return {name: to_numpy(tensor) for name, tensor in zip(self.names, self.tensors, strict=True)}

    @property
    def specs(self) -> list[Spec]:
        """What the model takes, as far as these arguments tell."""
        return [
            Spec(name, dtype_name(tensor.dtype), tuple(tensor.shape))
            for name, tensor in zip(self.names, self.tensors, strict=True)
        ]

    def filled(self, feeds: Feeds, device: torch.device | None) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The call with other values: tensors laid out as these are, on `device` or else where these are."""
        values = iter(feeds[name] for name in self.names)
        leaves = [
            _like(leaf, next(values), device or leaf.device) if isinstance(leaf, torch.Tensor) else leaf
            for leaf in self.leaves
        ]
        args, kwargs = pytree.tree_unflatten(leaves, self.structure)
        return args, kwargs


def _like(tensor: torch.Tensor, array: NDArray[Any], device: torch.device) -> torch.Tensor:
    """An array as a tensor whose axes lie in memory in the order of those of `tensor`: channels last, say."""
    order = sorted(range(tensor.ndim), key=lambda axis: -tensor.stride(axis))
    laid = to_torch(np.asarray(array)).permute(order).contiguous()
    return laid.permute([order.index(axis) for axis in range(tensor.ndim)]).to(device)


def _parameters(model: nn.Module | ExportedProgram) -> list[str]:
    """The names of what is given by position."""
    forward = module_of_program(model).forward if isinstance(model, ExportedProgram) else model.forward
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [p.name for p in inspect.signature(forward).parameters.values() if p.kind in kinds]


def _name(path: Sequence[Any], parameters: Sequence[str]) -> str:
    """`x`, `pair_0`, `state_h`: as torch.export names its inputs."""
    (part, argument, *inner) = (
        getattr(key, "idx", getattr(key, "key", getattr(key, "name", key))) for key in path
    )
    if part == 0:
        argument = parameters[argument] if argument < len(parameters) else f"args_{argument}"
    return "_".join(map(str, (argument, *inner)))


def given(model: nn.Module | ExportedProgram, inputs: Any) -> Arguments:
    """The user's inputs: a tensor, a tuple of arguments, or a mapping of arguments by name.

    Raises:
        InputError: they are something else, or hold no tensor.
    """
    if isinstance(inputs, Arguments):
        return inputs
    if isinstance(inputs, Mapping):
        found = Arguments.of(model, (), {str(name): _tensors(value) for name, value in inputs.items()})
    elif isinstance(inputs, torch.Tensor | np.ndarray | tuple | list):
        found = Arguments.of(model, [_tensors(value) for value in arguments(inputs)], {})
    else:
        kind = type(inputs).__name__
        raise InputError(f"inputs for torch are a tensor, a tuple of arguments or a mapping, not a {kind}")
    if not found.names:
        raise InputError("there is no tensor among the inputs")
    return found


def _tensors(value: Any) -> Any:
    return to_torch(value) if isinstance(value, np.ndarray) else value


def bound(
    module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments as the module takes them.

    A captured graph takes by position what was given so when it was captured, and the rest by name.
    """
    codegen = getattr(getattr(module, "graph", None), "_codegen", None)
    structure = getattr(getattr(codegen, "pytree_info", None), "in_spec", None)
    if structure is not None and structure.num_children == 2:
        names = list(inspect.signature(module.forward).parameters)
        positional, named = structure.children()
        known = dict(zip(names, args, strict=False)) | dict(kwargs)
        if set(known) == set(names):
            args = tuple(known[name] for name in names[: positional.num_children])
            kwargs = {name: known[name] for name in named.context or ()}
    return args, dict(kwargs)


def results(value: Any) -> dict[str, torch.Tensor]:
    """The tensors in what a model returned, by their place in it: `output`, `output[0]`, `output['out']`."""
    flat, _ = pytree.tree_flatten_with_path(value)
    return {f"output{pytree.keystr(path)}": leaf for path, leaf in flat if isinstance(leaf, torch.Tensor)}


class Program:
    """What an exported program states about its inputs."""

    def __init__(self, program: ExportedProgram) -> None:
        names = set(map(str, program.graph_signature.user_inputs))
        nodes = [node for node in program.graph.nodes if node.op == "placeholder" and node.name in names]
        self.values = [node.meta["val"] for node in nodes if isinstance(node.meta["val"], torch.Tensor)]
        self.ranges = program.range_constraints
        self.examples = _examples(program, self.values)
        self.dynamic = any(not isinstance(n, int) for value in self.values for n in value.shape)

    @property
    def specs(self) -> list[Spec]:
        """The inputs; extents that are free have their symbol, or the expression in symbols, as name."""
        return [
            Spec(spec.name, spec.dtype, tuple(map(_dim, value.shape)))
            for spec, value in zip(self.examples.specs, self.values, strict=True)
        ]

    def attempts(
        self, sizes: Mapping[str, int] | None, order: Sequence[Sizing]
    ) -> Iterator[tuple[Shapes, bool]]:
        """Shapes to try, consistent in what the program says of its symbols."""
        seen = []
        for shapes, large in attempts(self.specs, sizes, order):
            consistent = self.consistent(shapes)
            if consistent not in seen:
                seen.append(consistent)
                yield consistent, large

    def consistent(self, shapes: Shapes) -> Shapes:
        """The nearest shapes in which each symbol has one value, within its range."""
        symbols: dict[Any, int] = {}
        free = [
            (dim.node.expr, extent)
            for name, value in zip(shapes, self.values, strict=True)
            for dim, extent in zip(value.shape, shapes[name], strict=True)
            if not isinstance(dim, int)
        ]
        # What is a symbol by itself decides before what is computed from it.
        for expression, extent in sorted(free, key=lambda pair: not pair[0].is_symbol):
            for symbol in expression.free_symbols - symbols.keys():
                step = 1 if expression.is_symbol else max(1, int(expression.subs(symbol, 1)))
                symbols[symbol] = self._within(symbol, extent // step)
        return {
            name: tuple(
                dim if isinstance(dim, int) else int(dim.node.expr.subs(symbols)) for dim in value.shape
            )
            for name, value in zip(shapes, self.values, strict=True)
        }

    def _within(self, symbol: Any, extent: int) -> int:
        allowed = self.ranges.get(symbol)
        if allowed is None:
            return extent
        return int(min(max(extent, allowed.lower), allowed.upper))


def _dim(extent: Any) -> Dim:
    return extent if isinstance(extent, int) else str(extent)


def _examples(program: ExportedProgram, values: Sequence[torch.Tensor]) -> Arguments:
    """The arguments that the program was exported with, on the device that it is on now."""
    if program.example_inputs is None:
        raise InputError("the program has no example inputs, which say how it is called: give inputs")
    args, kwargs = program.example_inputs
    found = Arguments.of(program, args, kwargs)
    devices = iter(value.device for value in values)
    moved = [leaf.to(next(devices)) if isinstance(leaf, torch.Tensor) else leaf for leaf in found.leaves]
    return Arguments(moved, found.structure, found.names)

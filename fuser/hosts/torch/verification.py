"""Torch models against torch models, or against ONNX: each called as it is, and the original in float64."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from fuser.errors import InputError
from fuser.hosts import kind
from fuser.hosts.host import Host
from fuser.hosts.torch.callables import (
    Arguments,
    Program,
    bound,
    device_of,
    given,
    module_of,
    opened,
    results,
)
from fuser.hosts.torch.double import Narrowest, in_double, widen
from fuser.hosts.torch.front import first_line
from fuser.hosts.torch.tensor import dtype_name, to_numpy
from fuser.judge import inputs
from fuser.judge.compare import Outputs
from fuser.judge.inputs import LARGE, SMALL, Feeds, Shapes, Sizing, Spec
from fuser.judge.runner import CannotRun, Runner, accepted


@dataclass
class TorchModels:
    """A torch original, a result of torch or ONNX, and `count` inputs: the given ones, then random ones."""

    first: Any
    second: Any
    inputs: Any
    count: int
    seed: int = 0
    sizes: Mapping[str, int] | None = None
    shapes: Shapes | None = None
    order: Sequence[Sizing] = SMALL + LARGE
    other: Host | None = None
    """The host of a result that is not of torch."""
    stated: Program | None = None
    """What says which extents of the given inputs are free."""
    arguments: Arguments = field(init=False)
    outputs: dict[str, str] = field(init=False, default_factory=dict)
    """Types of the original's outputs by name, once it has run."""

    def __post_init__(self) -> None:
        if not kind.is_torch(self.first):
            onnx = os.fspath(self.first) if isinstance(self.first, str | os.PathLike) else "this one"
            raise InputError(
                f"a result of torch is compared with an original of torch, which {onnx} is not: "
                "give the torch model, or the .pt2 file, first"
            )
        self.first = opened(self.first, "the original")
        self.program = self._program()
        self.arguments = self.program.examples if self.program else given(self.first, self.inputs)
        if self.shapes:
            if self.program is None:
                raise InputError(
                    "the inputs have shapes already: shapes are for an exported program without them"
                )
            self.sizes = {**(self.sizes or {}), **inputs.pinned(self.program.specs, self.shapes)}

    def _program(self) -> Program | None:
        """What states the inputs where no arguments are given."""
        if self.inputs is not None and not isinstance(self.inputs, str | os.PathLike):
            return None
        if not isinstance(self.first, ExportedProgram):
            name = type(self.first).__name__
            raise InputError(
                f"{name} does not say what it takes: give inputs, a tensor or a tuple of arguments"
            )
        return Program(self.first)

    @contextmanager
    def original(self, *, precise: bool) -> Iterator[Runner]:
        """The original, its state a copy.

        Raises:
            CannotRun: a result of ONNX cannot be run, for want of a type; both can be evaluated in float64.
        """
        if not precise and not kind.is_torch(self.second):
            with self._foreign(precise=False):
                pass
        yield TorchRunner(self.first, "the original", self.arguments, precise=precise)

    @contextmanager
    def result(self, *, precise: bool) -> Iterator[Runner]:
        """The result; one of ONNX takes inputs and gives outputs under the names that the original has."""
        if kind.is_torch(self.second):
            runner = TorchRunner(
                opened(self.second, "the result"), "the result", self.arguments, precise=precise
            )
            # A result says what it returns by returning it.
            runner.outputs = self.outputs
            yield runner
        else:
            with self._foreign(precise=precise) as found:
                yield _Renamed(found, self.arguments.names, self.outputs)

    def _foreign(self, *, precise: bool) -> AbstractContextManager[Runner]:
        """A result of another host."""
        assert self.other is not None, "a result that is not of torch comes with its host"
        return self.other.runner(self.second, "the result", precise=precise)

    @property
    def notes(self) -> Sequence[str]:
        """All is tried that the arguments leave free."""
        return ()

    def samples(self, runner: Runner) -> Iterator[tuple[Feeds, Outputs]]:
        """Inputs, and what the original makes of them."""
        yield from self._samples(runner)
        self.outputs = runner.outputs

    def _samples(self, runner: Runner) -> Iterator[tuple[Feeds, Outputs]]:
        if self.program is not None and self.inputs is not None:
            feeds = inputs.given(self.inputs, self.program.specs)
            inputs.require_shapes({name: array.shape for name, array in feeds.items()}, self.shapes)
            yield feeds, runner.run(feeds)
            return
        example = self.arguments.feeds
        # Integers mostly are indices, whose bounds nobody states: those of the example are repeated.
        known = {name: array for name, array in example.items() if array.dtype.kind in "iub"}
        if self.program is not None and self.program.dynamic:
            tried = self.program.attempts(self.sizes, self.order)
            try:
                yield from accepted(runner, tried, samples=self.count, seed=self.seed, known=known)
            except CannotRun:
                yield example, runner.run(example)
            return
        yield example, runner.run(example)
        with suppress(CannotRun):
            tried = self._others({name: array.shape for name, array in example.items()})
            yield from accepted(runner, tried, samples=self.count - 1, seed=self.seed, known=known)

    def _others(self, shapes: Shapes) -> Iterator[tuple[Shapes, bool]]:
        """Shapes to try beside those of the example: other ones where extents are free, else the same."""
        if self.stated is not None and self.stated.dynamic:
            # Next to the example first: what fits into a table of positions does so there, too.
            near = self.stated.consistent(
                {name: tuple(n + 1 for n in shape) for name, shape in shapes.items()}
            )
            if near != shapes:
                yield near, False
            yield from (pair for pair in self.stated.attempts(self.sizes, self.order) if pair[0] != shapes)
        yield shapes, False

    def precisions(self) -> Mapping[str, str]:
        """The narrowest type that the original computes in, which is not told apart by output."""
        seen = Narrowest()
        with suppress(CannotRun), self.original(precise=False) as runner, seen:
            runner.run(self.arguments.feeds)
        return {} if seen.dtype is None else dict.fromkeys(self.outputs, dtype_name(seen.dtype))

    def open(self, refusal: CannotRun) -> bool:  # noqa: ARG002  # the protocol
        """Nothing is taken out of a module."""
        return False

    def closed(self) -> Mapping[str, str]:
        """Nothing was."""
        return {}

    def agree(self, feeds: Feeds) -> None:
        """In float64 a module runs by the same code: there is nothing else that it could contradict."""

    def values(self, feeds: Feeds) -> None:
        """Values inside a torch model have no names that both know."""


@contextmanager
def running(model: Any, name: str, *, precise: bool) -> Iterator[Runner]:
    """An exported program, or the file of one, fed as it says itself."""
    found = opened(model, name)
    if not isinstance(found, ExportedProgram):
        raise InputError(f"{name} does not say what it takes: give inputs, a tensor or a tuple of arguments")
    yield TorchRunner(found, name, Program(found).examples, precise=precise)


class TorchRunner:
    """A torch model with the face of a session: arrays in and out, by name."""

    def __init__(
        self, model: nn.Module | ExportedProgram, name: str, arguments: Arguments, *, precise: bool = False
    ) -> None:
        self.name = name
        self.inputs: list[Spec] = arguments.specs
        self.outputs: dict[str, str] = {}
        self._arguments = arguments
        self._precise = precise
        self._module = module_of(model, double=precise)
        self._device = device_of(self._module)
        self._coarsest = _coarsest([*_tensors(model), *arguments.tensors])

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Outputs:
        """The tensors in what the model returns.

        Raises:
            CannotRun: torch refuses.
        """
        args, kwargs = bound(self._module, *self._arguments.filled(dict(feeds), self._device))
        try:
            if self._precise:
                args, kwargs = pytree.tree_map(widen, (args, kwargs))
            with in_double() if self._precise else torch.no_grad():
                found = results(self._module(*args, **kwargs))
        except Exception as error:
            how = " in float64" if self._precise else ""
            raise CannotRun(f"{self.name}: torch fails{how}: {first_line(error)}") from error
        self.outputs = {name: self._type(tensor) for name, tensor in found.items()}
        # An output may be a buffer, which the next run changes.
        return {name: np.array(to_numpy(tensor)) for name, tensor in found.items()}

    def _type(self, tensor: torch.Tensor) -> str:
        """The type of an output; in float64, where it is not seen, the coarsest that the model has."""
        return self._coarsest if self._precise and tensor.is_floating_point() else dtype_name(tensor.dtype)


def _tensors(model: nn.Module | ExportedProgram) -> list[torch.Tensor]:
    state = model.state_dict if isinstance(model, ExportedProgram) else model.state_dict()
    return [value for value in state.values() if isinstance(value, torch.Tensor)]


def _coarsest(tensors: list[torch.Tensor]) -> str:
    types = {tensor.dtype for tensor in tensors if tensor.is_floating_point()}
    return dtype_name(max(types, key=lambda dtype: torch.finfo(dtype).eps, default=torch.float32))


class _Renamed:
    """An ONNX model whose inputs and outputs are called, in order, as those of the original."""

    def __init__(self, runner: Runner, names: Sequence[str], outputs: Mapping[str, str]) -> None:
        if len(runner.inputs) != len(names):
            raise CannotRun(f"it takes {len(runner.inputs)} inputs, and the original {len(names)}")
        self.inputs = [
            Spec(name, spec.dtype, spec.shape) for name, spec in zip(names, runner.inputs, strict=True)
        ]
        # What it returns is seen when it does.
        self.outputs = dict(outputs)
        self._runner = runner

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Outputs:
        taken = {spec.name: array for spec, array in zip(self._runner.inputs, feeds.values(), strict=True)}
        found = self._runner.run(taken)
        names = [*self.outputs, *list(found)[len(self.outputs) :]]
        return dict(zip(names, found.values(), strict=False))

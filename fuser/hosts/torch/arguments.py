"""The arguments of a call by name, as the schemas and signatures of torch itself have them.

`torch.fx.operator_schemas` reads the schemas. Of the 88 ways of calling what `functions.py` has rules for,
in 250 random modules of `tests.fuzz_fx`, its `normalize_function` binds 49: it has no methods of tensors
(21), and of functions none that is Python's own and none of which several overloads fit, as of `torch.add`,
if not told the types of all arguments, which a trace without inputs does not know (18). Tried on the same
signatures one by one, 87 fit, and the last one has an `out`.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import FunctionType
from typing import Any, Final

import torch
from torch import fx
from torch._jit_internal import boolean_dispatched
from torch.fx.operator_schemas import get_signature_for_torch_op

from fuser.hosts.torch.identity import canonical, name_of

NAMES: Final = {
    "axis": "dim",
    "mat2": "other",
    "self": "input",
    "split_size_or_sections": "split_size",
    "split_sizes": "split_size",
    "tensor": "input",
    "tensor2": "other",
    "train": "training",
}
"""Arguments that have several names: those of methods, of functions, of NumPy."""

NEUTRAL: Final = frozenset(
    {"allow_tf32", "benchmark", "cudnn_enabled", "deterministic", "inplace", "momentum"}
)
"""Arguments that say how something is computed, not what."""

LISTS: Final = frozenset({"permute", "reshape"})
"""Methods that take a list as one argument or as several."""

_PYTHON: Final = {
    name: inspect.Signature(
        [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in ("input", argument)]
    )
    for name, argument in (("floordiv", "other"), ("getattr", "name"), ("getitem", "index"))
}
"""Functions of Python that are no operators of torch."""


@dataclass(eq=False)
class Arguments:
    """What a call is given, by name, defaults among it; a rule takes what it knows of."""

    values: dict[str, Any]
    defaults: Mapping[str, Any]

    def take(self, name: str, default: Any = None) -> Any:
        """An argument, or `default` where the call has none of that name."""
        return self.values.pop(name, default)

    @property
    def plain(self) -> bool:
        """Whether all that was not taken is absent, or what it is where nobody gives it."""
        return all(
            value is None or value is False or name in NEUTRAL or value == self.defaults.get(name)
            for name, value in self.values.items()
        )


def bind(node: fx.Node) -> Arguments | None:
    """The arguments of a call of torch; None where no signature has them."""
    args, name = node.args, name_of(node)
    if canonical(name) in LISTS and len(args) > 1 and not isinstance(args[1], list | tuple):
        args = (args[0], args[1:])
    given = {NAMES.get(name, name): value for name, value in node.kwargs.items()}
    if given.get("out", ...) is None:
        del given["out"]
    for signature in signatures(node.target, name):
        try:
            bound = signature.bind(*args, **given)
        except TypeError:
            continue
        bound.apply_defaults()
        defaults = {name: parameter.default for name, parameter in signature.parameters.items()}
        return Arguments(dict(bound.arguments), defaults)
    return None


def signatures(target: Any, name: str) -> tuple[inspect.Signature, ...]:
    """The ways in which it can be called on tensors, without writing to an argument."""
    if isinstance(target, torch._ops.OpOverload | torch._ops.OpOverloadPacket | FunctionType):
        return _signatures(target)
    # Methods and operators of Python take what the operator of their name takes.
    return _named(name) or _named(canonical(name))


@cache
def _named(name: str) -> tuple[inspect.Signature, ...]:
    if name in _PYTHON:
        return (_PYTHON[name],)
    packet = getattr(torch.ops.aten, name, None)
    return _signatures(packet) if isinstance(packet, torch._ops.OpOverloadPacket) else ()


@cache
def _signatures(target: Any) -> tuple[inspect.Signature, ...]:
    if isinstance(target, FunctionType):
        # Some return more for a flag among their arguments.
        function = boolean_dispatched[target]["if_false"] if target in boolean_dispatched else target
        return (_renamed(inspect.signature(function)),)
    return tuple(map(_renamed, filter(_of_tensors, get_signature_for_torch_op(target) or [])))


def _of_tensors(signature: inspect.Signature) -> bool:
    """Whether it is none of namesakes on numbers, lists and strings, and writes to no argument."""
    tensors = any("Tensor" in str(parameter.annotation) for parameter in signature.parameters.values())
    return tensors and "out" not in signature.parameters


def _renamed(signature: inspect.Signature) -> inspect.Signature:
    parameters = signature.parameters.values()
    return signature.replace(
        parameters=[
            parameter.replace(name=NAMES.get(parameter.name, parameter.name)) for parameter in parameters
        ]
    )

"""The meaning of a torch model in float64, whatever types it computes in."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from fuser.errors import require

# The types are part of what a captured graph states about its values; in float64 they differ.
STATEMENTS = frozenset({torch.ops.aten._assert_tensor_metadata.default})
# The bits of a number of another type mean nothing.
BITS = frozenset({torch.ops.aten.view.dtype})


@contextmanager
def in_double() -> Iterator[None]:
    """Within the block every operator computes in float64: a cast between floating types changes nothing.

    Raises:
        Declined: an operator cannot be evaluated so.
    """
    with torch.no_grad(), _Double():
        yield


def widen(value: Any) -> Any:
    """A floating tensor or dtype in double precision, real or complex; anything else as it is."""
    if isinstance(value, torch.Tensor):
        wide = wide_dtype(value.dtype)
        return value if wide is value.dtype else value.to(wide)
    return wide_dtype(value) if isinstance(value, torch.dtype) else value


def wide_dtype(dtype: torch.dtype) -> torch.dtype:
    """`torch.bfloat16` -> `torch.float64`, `torch.complex64` -> `torch.complex128`."""
    if dtype.is_floating_point:
        return torch.float64
    return torch.complex128 if dtype.is_complex else dtype


class _Double(TorchDispatchMode):
    """Hands each operator its operands and dtypes in double precision."""

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        del types
        if func in STATEMENTS:
            return None
        require(func not in BITS, f"{func} reads a number as bits")
        given = args, dict(kwargs or {})
        wide = pytree.tree_map(widen, given)
        require(not _writes(func, given, wide), f"{func} writes to a tensor that is not in float64")
        return pytree.tree_map(widen, func(*wide[0], **wide[1]))


class Narrowest(TorchDispatchMode):
    """Watches what operators make: `dtype` is the coarsest floating type in it, None if there is none."""

    def __init__(self) -> None:
        super().__init__()
        self.dtype: torch.dtype | None = None

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        del types
        result = func(*args, **(kwargs or {}))
        for leaf in pytree.tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and leaf.is_floating_point():
                self.dtype = max(
                    (self.dtype or leaf.dtype, leaf.dtype), key=lambda dtype: torch.finfo(dtype).eps
                )
        return result


def _writes(func: Any, given: tuple[Any, Any], wide: tuple[Any, Any]) -> bool:
    """Whether the operator changes an operand that had to be widened: the change would be lost."""
    names = [argument.name for argument in func._schema.arguments]
    before, after = (dict(zip(names, args, strict=False)) | kwargs for args, kwargs in (given, wide))
    return any(
        old is not new
        for argument in func._schema.arguments
        if argument.alias_info is not None and argument.alias_info.is_write
        for old, new in zip(
            pytree.tree_leaves(before.get(argument.name)),
            pytree.tree_leaves(after.get(argument.name)),
            strict=True,
        )
    )

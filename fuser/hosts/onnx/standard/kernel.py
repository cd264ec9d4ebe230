"""A node as one of our kernels in numpy computes it, and the reference where the kernel does not cover it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir
from numpy.typing import NDArray

from fuser.hosts.onnx.standard.reference import Arrays, Reference


@dataclass(frozen=True)
class Kernel:
    """A node of the default domain as the table computes it."""

    node: onnx_ir.Node
    opset: int
    compute: Callable[..., Any]

    def __call__(self, *inputs: NDArray[Any] | None) -> Arrays:
        """The outputs for `inputs`, an absent one being None."""
        try:
            with np.errstate(all="ignore"):
                result = self.compute(self, *inputs)
        except Exception:  # noqa: BLE001  # numpy raises many kinds
            # A rare form, or a wrong one: the reference knows which.
            result = NotImplemented
        if result is NotImplemented:
            return Reference(self.node, self.opset)(*inputs)
        return tuple(map(np.asarray, result)) if isinstance(result, (tuple, list)) else (np.asarray(result),)

    def attribute(self, name: str, default: Any = None) -> Any:
        """The value of an attribute, or `default` where the node does not have it: a float in float32."""
        entry = self.node.attributes.get(name)
        if entry is None:
            return float(np.float32(default)) if isinstance(default, float) else default
        return entry.value

    def list_of(self, name: str, given: NDArray[Any] | None) -> list[int] | None:
        """Integers that are an attribute in older opsets and an input in newer ones."""
        values = self.attribute(name) if given is None else given.reshape(-1).tolist()
        return None if values is None else [int(v) for v in values]

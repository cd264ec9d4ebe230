"""The host of a model; each is imported when a model of its kind is met."""

from fuser.hosts.host import Host
from fuser.hosts.kind import is_torch, require_torch


def host_of(*models: object) -> Host:
    """The host of models: torch's where one of them is of torch, else ONNX's, which refuses what is neither.

    Raises:
        InputError: one is a file of torch, which is not installed.
    """
    if any(map(is_torch, models)):
        require_torch("a .pt2 file")
        from fuser.hosts.torch.entry import TORCH

        return TORCH
    from fuser.hosts.onnx.entry import ONNX

    return ONNX

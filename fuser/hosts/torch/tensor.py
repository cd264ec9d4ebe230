"""Tensors of torch as constants, and back."""

from typing import Any

import ml_dtypes
import numpy as np
import torch
from numpy.typing import NDArray

from fuser.ir.constant import Constant


def dtype_name(dtype: torch.dtype) -> str:
    """`torch.float32` -> `float32`, as numpy or ml_dtypes has it."""
    return str(dtype).removeprefix("torch.")


def torch_dtype(name: str) -> torch.dtype:
    """`float32` -> `torch.float32`."""
    dtype = getattr(torch, name)
    assert isinstance(dtype, torch.dtype), f"{name} is no dtype"
    return dtype


def read_tensor(tensor: torch.Tensor) -> Constant:
    """A tensor as a constant that is read when it is looked at."""
    return Constant(tuple(tensor.shape), dtype_name(tensor.dtype), lambda: to_numpy(tensor))


def to_numpy(tensor: torch.Tensor) -> NDArray[Any]:
    """The values, on the host; not copied where they are there already."""
    tensor = tensor.detach().resolve_conj().resolve_neg().cpu()
    if tensor.dtype == torch.bfloat16:
        return np.asarray(tensor.contiguous().view(torch.int16).numpy()).view(ml_dtypes.bfloat16)
    return np.asarray(tensor.numpy())


def to_torch(array: NDArray[Any]) -> torch.Tensor:
    """An array as a tensor of its own type."""
    array = np.asarray(array)
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(np.array(array).view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(np.array(array))


def rounded(array: NDArray[Any], dtype: torch.dtype) -> torch.Tensor:
    """The values, in float64, as the nearest ones in `dtype`: torch itself rounds twice, through float32."""
    array = np.asarray(array)
    if array.dtype == np.float64 and dtype == torch.bfloat16:
        # Eight bits, or what is left of them below the smallest normal number.
        quantum = np.maximum(np.frexp(array)[1] - 8, -133)
        array = np.ldexp(np.rint(np.ldexp(array, -quantum)), quantum)
    elif array.dtype == np.float64 and dtype == torch.float16:
        array = array.astype(np.float16)
    return to_torch(array).to(dtype).contiguous()


def is_real(tensor: torch.Tensor) -> bool:
    """Whether the tensor has values: not a fake one, not one on the meta device, not sparse or quantised."""
    return type(tensor) in {torch.Tensor, torch.nn.Parameter, torch.nn.Buffer} and (
        tensor.device.type != "meta" and tensor.layout == torch.strided and not tensor.is_quantized
    )

"""Making layers: as modules of a GraphModule, or as aten operators of an exported program."""

from collections.abc import Callable
from hashlib import sha256
from typing import Any, Protocol

import numpy as np
import torch
from torch import fx, nn

from fuser.algebra.conv import Conv, Ints
from fuser.algebra.lazy import Array
from fuser.hosts.torch.exporter import Block, channels_last
from fuser.hosts.torch.tensor import rounded, to_torch
from fuser.ir.constant import Constant

aten = torch.ops.aten


def kernel(values: Array, block: Block) -> torch.Tensor:
    """Values rounded to the type of the block, on its device, laid out as its kernels are."""
    tensor = rounded(values, block.dtype)
    if block.like is not None:
        tensor = tensor.to(block.like.device)
    return channels_last(tensor) if block.channels_last else tensor


def parameter(values: Array, block: Block) -> nn.Parameter:
    """The same as a parameter, trained on if what it replaces was."""
    return nn.Parameter(kernel(values, block), requires_grad=block.trainable)


def computed(constant: Constant, block: Block) -> torch.Tensor:
    """A constant as a tensor, a parameter where it comes from parameters."""
    tensor = to_torch(constant.array())
    if block.like is not None:
        tensor = tensor.to(block.like.device)
    return nn.Parameter(tensor) if block.trainable and tensor.is_floating_point() else tensor


def stored_transposed(conv: Conv) -> Array:
    """`[O, I/groups, *k]`  ->  `[I, O/groups, *k]`, as torch stores a transposed kernel."""
    groups, size = conv.groups, conv.size
    blocks = conv.kernel.peek().reshape(groups, conv.outputs // groups, conv.inputs // groups, *size)
    return np.ascontiguousarray(blocks.swapaxes(1, 2).reshape(conv.inputs, conv.outputs // groups, *size))


class Keep(Protocol):
    """Keeps what is made; both return the node that reads it, or calls it on `x`."""

    def call(self, name: str, key: str, make: Callable[[], nn.Module], x: fx.Node) -> fx.Node:
        """A layer named `name`; one with the same `key` is the same layer."""

    def tensor(self, name: str, tensor: nn.Parameter) -> fx.Node:
        """A parameter."""


class ModuleEmit:
    """Layers as modules, the rest as functions of torch."""

    def __init__(self, graph: fx.Graph, block: Block, keep: Keep) -> None:
        self.graph = graph
        self.block = block
        self.keep = keep

    def conv(self, x: fx.Node, conv: Conv, padding: Ints | str) -> fx.Node:
        """A convolution with symmetric or 'same' padding."""
        kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[conv.rank - 1]
        return self._layer(x, conv, conv.kernel.peek(), kind, padding=padding)

    def average_pool(self, x: fx.Node, conv: Conv) -> fx.Node:
        """The mean of each window."""
        function = getattr(nn.functional, f"avg_pool{conv.rank}d")
        return self.graph.call_function(function, (x, conv.size, conv.stride, conv.begin))

    def conv_transpose(self, x: fx.Node, conv: Conv, padding: Ints, output_padding: Ints) -> fx.Node:
        """A transposed convolution."""
        kind = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[conv.rank - 1]
        weight = stored_transposed(conv)
        return self._layer(x, conv, weight, kind, padding=padding, output_padding=output_padding)

    def linear(self, x: fx.Node, conv: Conv) -> fx.Node:
        """A dense layer."""
        return self._layer(x, conv, conv.kernel.peek(), nn.Linear)

    def _layer(self, x: fx.Node, conv: Conv, weight: Array, kind: Any, **attributes: Any) -> fx.Node:
        """A call of a layer that holds `weight` and the bias of `conv`, if it has one."""
        biased = bool(conv.bias.any())
        if conv.rank:
            attributes |= {
                "kernel_size": conv.size,
                "stride": conv.stride,
                "dilation": conv.dilation,
                "groups": conv.groups,
            }

        def make() -> nn.Module:
            layer = kind(conv.inputs, conv.outputs, bias=biased, device="meta", **attributes)
            layer.weight = parameter(weight, self.block)
            if biased:
                layer.bias = parameter(conv.bias, self.block)
            assert isinstance(layer, nn.Module)
            return layer.eval()

        digest = sha256(weight.tobytes() + conv.bias.tobytes()).hexdigest()
        block = self.block
        key = f"{kind.__name__} {conv.geometry} {attributes} {block.dtype} {block.trainable} {digest}"
        return self.keep.call(block.name, key, make, x)

    def pad(self, x: fx.Node, pads: Ints, value: float) -> fx.Node:
        """Padding by a constant."""
        return self.graph.call_function(nn.functional.pad, (x, list(pads)), {"value": value})

    def scale(self, x: fx.Node, factor: Array) -> fx.Node:
        """Times a constant."""
        tensor = self.keep.tensor(f"{self.block.name}.scale", parameter(factor, self.block))
        return self.graph.call_function(torch.mul, (x, tensor))

    def shift(self, x: fx.Node, offset: Array) -> fx.Node:
        """Plus a constant."""
        tensor = self.keep.tensor(f"{self.block.name}.shift", parameter(offset, self.block))
        return self.graph.call_function(torch.add, (x, tensor))

    def times(self, x: fx.Node, factor: float) -> fx.Node:
        """Times a number."""
        if factor == -1.0:
            return self.graph.call_function(torch.neg, (x,))
        return self.graph.call_function(torch.mul, (x, factor))

    def plus(self, x: fx.Node, offset: float) -> fx.Node:
        """Plus a number."""
        return self.graph.call_function(torch.add, (x, offset))

    def add(self, x: fx.Node, y: fx.Node, alpha: float) -> fx.Node:
        """x + alpha * y."""
        if alpha == -1.0:
            return self.graph.call_function(torch.sub, (x, y))
        return self.graph.call_function(torch.add, (x, y), {} if alpha == 1.0 else {"alpha": _number(alpha)})

    def concat(self, parts: list[fx.Node], axis: int) -> fx.Node:
        """One behind the other along an axis."""
        return self.graph.call_function(torch.cat, (parts,), {"dim": axis})

    def select(self, x: fx.Node, axis: int, first: int, size: int) -> fx.Node:
        """A range of an axis."""
        return self.graph.call_function(torch.narrow, (x, axis, first, size))

    def reshape(self, x: fx.Node, shape: Ints) -> fx.Node:
        """The same elements, the first axis what the others leave."""
        return self.graph.call_function(torch.reshape, (x, (-1, *shape)))

    def permute(self, x: fx.Node, axes: Ints) -> fx.Node:
        """The axes in another order."""
        return self.graph.call_function(torch.permute, (x, axes))


def _number(value: float) -> float | int:
    """Integers as such: tensors of integers take no others."""
    return int(value) if value == int(value) else value


class AtenEmit:
    """Everything as aten operators; weights are what `keep` makes nodes for."""

    def __init__(self, graph: fx.Graph, block: Block, keep: Keep, *, training: bool) -> None:
        self.graph = graph
        self.block = block
        self.keep = keep
        # torch.export keeps layers whole until decompositions run; after that all convolutions are one
        # operator.
        self.training = training

    def _call(self, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
        node = self.graph.call_function(target, args, kwargs)
        node.meta.update(
            {k: v for k, v in self.block.example.meta.items() if k not in {"val", "tensor_meta"}}
        )
        return node

    def _tensors(self, weight: Array, bias: Array) -> tuple[fx.Node, fx.Node | None]:
        name = self.block.name
        kept = self.keep.tensor(f"{name}.weight", parameter(weight, self.block))
        return kept, self.keep.tensor(f"{name}.bias", parameter(bias, self.block)) if bias.any() else None

    def conv(self, x: fx.Node, conv: Conv, padding: Ints | str) -> fx.Node:
        """A convolution with symmetric or 'same' padding."""
        weight, bias = self._tensors(conv.kernel.peek(), conv.bias)
        stride, dilation = list(conv.stride), list(conv.dilation)
        operator = getattr(aten, f"conv{conv.rank}d")
        if isinstance(padding, str):
            return self._call(operator.padding, x, weight, bias, stride, padding, dilation, conv.groups)
        pads = list(padding)
        if self.training:
            return self._call(operator.default, x, weight, bias, stride, pads, dilation, conv.groups)
        none = [0] * conv.rank
        return self._call(
            aten.convolution.default, x, weight, bias, stride, pads, dilation, False, none, conv.groups
        )

    def average_pool(self, x: fx.Node, conv: Conv) -> fx.Node:
        """The mean of each window."""
        target = aten.avg_pool1d.default if conv.rank == 1 else getattr(aten, f"avg_pool{conv.rank}d").default
        return self._call(target, x, list(conv.size), list(conv.stride), list(conv.begin))

    def conv_transpose(self, x: fx.Node, conv: Conv, padding: Ints, output_padding: Ints) -> fx.Node:
        """A transposed convolution."""
        weight, bias = self._tensors(stored_transposed(conv), conv.bias)
        stride, dilation, pads, more = map(list, (conv.stride, conv.dilation, padding, output_padding))
        if self.training:
            target = (
                aten.conv_transpose1d.default
                if conv.rank == 1
                else getattr(aten, f"conv_transpose{conv.rank}d").input
            )
            return self._call(target, x, weight, bias, stride, pads, more, conv.groups, dilation)
        return self._call(
            aten.convolution.default, x, weight, bias, stride, pads, dilation, True, more, conv.groups
        )

    def linear(self, x: fx.Node, conv: Conv) -> fx.Node:
        """A dense layer."""
        weight, bias = self._tensors(conv.kernel.peek(), conv.bias)
        return self._call(aten.linear.default, x, weight, bias)

    def pad(self, x: fx.Node, pads: Ints, value: float) -> fx.Node:
        """Padding by a constant."""
        return self._call(aten.constant_pad_nd.default, x, list(pads), value)

    def scale(self, x: fx.Node, factor: Array) -> fx.Node:
        """Times a constant."""
        tensor = self.keep.tensor(f"{self.block.name}.scale", parameter(factor, self.block))
        return self._call(aten.mul.Tensor, x, tensor)

    def shift(self, x: fx.Node, offset: Array) -> fx.Node:
        """Plus a constant."""
        tensor = self.keep.tensor(f"{self.block.name}.shift", parameter(offset, self.block))
        return self._call(aten.add.Tensor, x, tensor)

    def times(self, x: fx.Node, factor: float) -> fx.Node:
        """Times a number."""
        if factor == -1.0:
            return self._call(aten.neg.default, x)
        return self._call(aten.mul.Tensor, x, factor)

    def plus(self, x: fx.Node, offset: float) -> fx.Node:
        """Plus a number."""
        return self._call(aten.add.Tensor, x, offset)

    def add(self, x: fx.Node, y: fx.Node, alpha: float) -> fx.Node:
        """x + alpha * y."""
        if alpha == -1.0:
            return self._call(aten.sub.Tensor, x, y)
        return self._call(aten.add.Tensor, x, y, **({} if alpha == 1.0 else {"alpha": _number(alpha)}))

    def concat(self, parts: list[fx.Node], axis: int) -> fx.Node:
        """One behind the other along an axis."""
        return self._call(aten.cat.default, parts, axis)

    def select(self, x: fx.Node, axis: int, first: int, size: int) -> fx.Node:
        """A range of an axis."""
        return self._call(aten.slice.Tensor, x, axis, first, first + size)

    def reshape(self, x: fx.Node, shape: Ints) -> fx.Node:
        """The same elements, the first axis what the others leave."""
        return self._call(aten.reshape.default, x, [-1, *shape])

    def permute(self, x: fx.Node, axes: Ints) -> fx.Node:
        """The axes in another order."""
        return self._call(aten.permute.default, x, list(axes))

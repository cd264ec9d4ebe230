"""Random networks of the operations that the compiler knows: ``python -m tests.fuzz [COUNT] [FIRST SEED]``.

Nothing of what makes a design is kept: kernels and branches meet in any order, with zeros among their
weights, several readers and outputs, and no-ops in between. What comes out has to compute the same, for every
batch.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import fuser

LENGTH = 12


@dataclass
class Value:
    """A value of the network: its name, and its shape without the batch."""

    name: str
    shape: tuple[int, ...]


@dataclass
class Net:
    """A network that grows by one random operation after the other."""

    random: np.random.Generator
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)
    values: list[Value] = field(default_factory=list)

    @classmethod
    def grown(cls, seed: int) -> "Net":
        """The network of a seed."""
        net = cls(np.random.default_rng(seed))
        net.values.append(Value("x", (int(net.random.integers(1, 5)), 6, 5)))
        while len(net.nodes) < LENGTH:
            net.pick(OPERATIONS)(net, net.pick(net.values))
        return net

    def pick(self, choices: Any) -> Any:
        """One of some."""
        return choices[int(self.random.integers(len(choices)))]

    def weight(self, *shape: int) -> str:
        """A constant; now and then some of it is zero, or all of it."""
        array = self.random.standard_normal(shape)
        if array.ndim > 1 and self.random.random() < 0.3:
            array[self.random.random(shape[:2]) < self.pick((0.5, 1.1))] = 0.0
        return self.constant(array.astype(np.float32))

    def constant(self, array: NDArray[Any]) -> str:
        """A constant by name."""
        self.weights.append(numpy_helper.from_array(array, f"c{len(self.weights)}"))
        return self.weights[-1].name

    def add(self, kind: str, inputs: list[str], shape: tuple[int, ...], **attributes: Any) -> Value:
        """A node, and the value that it makes."""
        value = Value(f"v{len(self.nodes)}", shape)
        self.nodes.append(helper.make_node(kind, inputs, [value.name], name=f"n{value.name}", **attributes))
        self.values.append(value)
        return value

    def model(self) -> onnx.ModelProto:
        """The model; its last value and what nobody reads are its outputs."""
        read = {name for node in self.nodes for name in node.input}
        ends = [v for v in self.values[1:] if v.name not in read or self.random.random() < 0.1]
        outputs = [helper.make_tensor_value_info(v.name, TensorProto.FLOAT, ["N", *v.shape]) for v in ends]
        given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *self.values[0].shape])
        graph = helper.make_graph(self.nodes, "fuzz", [given], outputs, self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def conv(net: Net, x: Value) -> None:
    """A convolution, dense or depthwise."""
    if len(x.shape) != 3:
        return
    size, stride, pad = net.pick((1, 1, 2, 3)), net.pick((1, 1, 2)), net.pick((0, 1))
    extent = [(n + 2 * pad - size) // stride + 1 for n in x.shape[1:]]
    if min(extent) < 1:
        return
    groups = net.pick((1, 1, x.shape[0]))
    outputs = x.shape[0] if groups > 1 else int(net.random.integers(1, 6))
    inputs = [x.name, net.weight(outputs, x.shape[0] // groups, size, size)]
    inputs += [net.weight(outputs)] * net.pick((0, 1))
    net.add("Conv", inputs, (outputs, *extent), group=groups, strides=[stride] * 2, pads=[pad] * 4)


def norm(net: Net, x: Value) -> None:
    """A BatchNormalization."""
    if len(x.shape) == 3:
        scale, shift, mean = (net.weight(x.shape[0]) for _ in range(3))
        variance = net.constant(net.random.uniform(0.5, 2, x.shape[0]).astype(np.float32))
        net.add("BatchNormalization", [x.name, scale, shift, mean, variance], x.shape)


def constant(net: Net, x: Value) -> None:
    """Arithmetic with a constant, per channel or for all."""
    per_channel = (x.shape[0], *(1,) * (len(x.shape) - 1))
    net.add(net.pick(("Mul", "Add", "Sub")), [x.name, net.weight(*net.pick(((), per_channel)))], x.shape)


def together(net: Net, x: Value) -> None:
    """A sum, a difference or a concatenation with a value that fits."""
    other = net.pick([v for v in net.values if v.shape == x.shape])
    kind = net.pick(("Add", "Add", "Sub", "Concat"))
    if kind == "Concat":
        net.add(kind, [x.name, other.name], (2 * x.shape[0], *x.shape[1:]), axis=1)
    else:
        net.add(kind, [x.name, other.name], x.shape)


def pool(net: Net, x: Value) -> None:
    """The mean of 2 x 2, padding counted."""
    pad = net.pick((0, 1))
    if len(x.shape) == 3 and min(x.shape[1:]) > 1:
        extent = [(n + 2 * pad - 2) // 2 + 1 for n in x.shape[1:]]
        made = {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [pad] * 4, "count_include_pad": 1}
        net.add("AveragePool", [x.name], (x.shape[0], *extent), **made)


def rows(net: Net, x: Value) -> None:
    """A linear layer of the flattened sample, and back."""
    size = int(np.prod(x.shape))
    if size <= 256:
        flat = net.add("Reshape", [x.name, net.constant(np.array([-1, size]))], (size,))
        made = net.add("MatMul", [flat.name, net.weight(size, size)], (size,))
        net.add("Reshape", [made.name, net.constant(np.array([-1, *x.shape]))], x.shape)


def part(net: Net, x: Value) -> None:
    """Some of the channels."""
    if x.shape[0] > 1:
        first = int(net.random.integers(x.shape[0] - 1))
        bounds = [net.constant(np.array([n])) for n in (first, x.shape[0], 1)]
        net.add("Slice", [x.name, *bounds], (x.shape[0] - first, *x.shape[1:]))


def nothing(net: Net, x: Value) -> None:
    """What leaves everything as it is."""
    net.add(net.pick(("Identity", "Dropout")), [x.name], x.shape)


def bend(net: Net, x: Value) -> None:
    """Something that is not linear."""
    net.add(net.pick(("Relu", "LeakyRelu", "Sigmoid")), [x.name], x.shape)


OPERATIONS: tuple[Callable[[Net, Value], None], ...] = (
    conv, conv, conv, conv, norm, norm, constant, together, together, pool, rows, part, nothing, bend,
)  # fmt: skip


def check(seed: int) -> int:
    """Put one network through the compiler; how many nodes are gone.

    Raises:
        AssertionError: the result is not valid, or computes something else.
    """
    model = Net.grown(seed).model()
    onnx.checker.check_model(model, full_check=True)
    result = fuser.optimize(model)
    onnx.checker.check_model(result, full_check=True)
    verdict = fuser.verify(model, result)
    assert verdict.ok, f"seed {seed}: {verdict.reason}"
    return len(model.graph.node) - len(result.graph.node)


def main(count: int = 1000, first: int = 0) -> int:
    """Try networks; exit status 1 if one fails."""
    wrong = removed = 0
    for seed in range(first, first + count):
        try:
            removed += check(seed)
        except Exception as error:  # noqa: BLE001  # the other networks are worth trying
            wrong += 1
            print(f"seed {seed}: {type(error).__name__}: {error}", flush=True)
    print(f"{count} networks, {removed} of about {LENGTH * count} nodes removed, {wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))

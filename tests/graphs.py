"""Small graphs for the tests of passes, built by hand: no host format is involved."""

from collections.abc import Sequence

import numpy as np

from fuser.algebra.conv import Conv, scale_shift
from fuser.algebra.lazy import Array
from fuser.errors import require
from fuser.ir.constant import Constant
from fuser.ir.graph import Graph
from fuser.ir.interpret import Frame, interpret
from fuser.ir.node import Node, Value
from fuser.ir.ops import Op, Opaque, Reshape, Sum
from fuser.ir.text import write
from fuser.rewrite.driver import run
from fuser.rewrite.pattern import Event, Log, Plan, Rewrite
from fuser.validate import check

relu = Opaque("Relu", lambda x: (np.maximum(x, 0.0),), homogeneous=True)


class PlainHost:
    """A host with one operator for all that the algebra can say, save pad values that differ by channel."""

    def require_lowerable(self, op: Op, output: Value) -> None:
        if isinstance(op, Conv):
            require(len(set(op.pad_value.tolist())) == 1, f"{output.name}: pad values differ by channel")

    def kernels(self, op: Op, output: Value) -> int:  # noqa: ARG002  # the protocol
        if not isinstance(op, Sum):
            return 1
        scales = sum(abs(c) != 1.0 for c in op.coefficients)
        return max(1, (len(op.coefficients) > 1) + scales + (op.offset != 0.0))


class Builder:
    """Builds a graph node by node; every method returns the value that it makes."""

    def __init__(self, *shape: int | str) -> None:
        self.graph = Graph("test", PlainHost())
        self.x = self.input("x", shape)

    def input(self, name: str, shape: Sequence[int | str]) -> Value:
        value = Value(name, tuple(shape), "float32")
        self.graph.inputs.append(value)
        return value

    def constant(self, array: Array, name: str = "c") -> Value:
        value = Value(name, array.shape, "float32")
        value.constant = Constant.of(array.astype(np.float32))
        return value

    def add(
        self, op: Op, *inputs: Value, label: str = "", shape: Sequence[int | str | None] | None = None
    ) -> Value:
        number = len(self.graph.nodes)
        output = Value(f"v{number}", tuple(shape) if shape else self._shape(op, inputs[0]), "float32")
        node = Node(op, inputs, [output], name=f"n{number}", label=label, position=(number,), source=object())
        self.graph.add(node)
        return output

    @staticmethod
    def _shape(op: Op, source: Value) -> tuple[int | str | None, ...] | None:
        if isinstance(op, Reshape) and source.shape is not None:
            return op.result(source.shape)[0]
        if not isinstance(op, Conv) or source.shape is None:
            return source.shape
        if op.axis == -1:
            return (*source.shape[:-1], op.outputs)
        extent = source.shape[2:]
        known = [n for n in extent if isinstance(n, int)]
        return (
            source.shape[0],
            op.outputs,
            *(op.extent(tuple(known)) if len(known) == len(extent) else [None] * op.rank),
        )

    def norm(self, x: Value, seed: int = 0, rank: int = 2) -> Value:
        rng = np.random.default_rng(seed)
        assert x.shape is not None
        assert isinstance(x.shape[1], int)
        norm = scale_shift(rng.uniform(0.5, 2, x.shape[1]), rng.normal(size=x.shape[1]), rank)
        return self.add(norm, x, label="batch_norm")

    def sum(self, *terms: Value, coefficients: Sequence[float] | None = None, offset: float = 0.0) -> Value:
        return self.add(Sum(tuple(coefficients or (1.0,) * len(terms)), offset), *terms)

    def finish(self, *outputs: Value) -> Graph:
        self.graph.outputs = list(outputs)
        return self.graph


def random_conv(
    inputs: int, outputs: int, *size: int, seed: int = 0, bias: bool = True, **attributes: object
) -> Conv:
    """A convolution of small random integers, 'same' padding unless pads are given."""
    rng = np.random.default_rng((seed, inputs, outputs, *size))
    groups = attributes.get("groups", 1)
    assert isinstance(groups, int)
    same = tuple(k // 2 for k in size)
    weight = rng.integers(-4, 5, (outputs, inputs // groups, *size)).astype(float)
    shift = rng.integers(1, 5, outputs).astype(float) if bias else None
    return Conv.of(weight, shift, **{"begin": same, "end": same, **attributes})


def evaluate(graph: Graph, feeds: dict[str, Array]) -> list[Array]:
    """The outputs of a graph, every operator computed directly."""
    frame = Frame({value: feeds[value.name] for value in graph.inputs})
    interpret(graph.ordered(), [frame], graph.outputs)
    return [
        frame.values[value] if value.constant is None else value.constant.lazy() for value in graph.outputs
    ]


def optimize(
    graph: Graph, *rewrites: Rewrite, feeds: dict[str, Array] | None = None, careful: bool = False
) -> list[Event]:
    """Run passes on the graph, check that it still computes the same, and return the events."""
    if feeds is None:
        rng = np.random.default_rng(0)
        feeds = {
            value.name: rng.integers(
                -4, 5, [d if isinstance(d, int) else 6 for d in value.shape or ()]
            ).astype(float)
            for value in graph.inputs
        }
    before, said = evaluate(graph, feeds), write(graph)
    log = Log()
    run(graph, Plan(rewrites), log, check, careful=careful)
    for old, new in zip(before, evaluate(graph, feeds), strict=True):
        both = f"{said}was made\n{write(graph)}"
        np.testing.assert_allclose(new, old, rtol=1e-9, atol=1e-9 * np.abs(old).max(), err_msg=both)
    check.settle(graph)
    return log.events


def operators(graph: Graph) -> list[str]:
    """The operators of a graph in order, for a look at its structure."""
    return [str(node.op) for node in graph.ordered()]

"""A whole random model of a seed, and what to feed it."""

from collections.abc import Iterator
from itertools import count

import numpy as np
import onnx
from onnx import helper

from tests.fuzz.blocks import block
from tests.fuzz.edges import EDGES
from tests.fuzz.flow import FLOW
from tests.fuzz.judge import calm, reads
from tests.fuzz.layers import LAYERS
from tests.fuzz.net import EXTENTS, OPSETS, Array, Model, Net, Shape
from tests.fuzz.shapes import AXES

LENGTH = 14
# What a network is made of, besides layers.
KINDS = ((), (*AXES,), (*AXES, *FLOW), (*FLOW,), (*AXES, *FLOW, *EDGES))


class Network:
    """The network of a seed: `proto`, for each place what is fed, how coarse each value is.

    One that rounding alone moves is drawn again: what is exact cannot be told from what is not there.
    """

    def __init__(self, seed: int) -> None:
        for attempt in count():
            self._draw(np.random.default_rng((seed, attempt)))
            if calm(self.proto, list(self.feeds()), self.coarse):
                return

    def _draw(self, random: np.random.Generator) -> None:
        self.random = random
        pick = self.random.choice
        opset = int(pick(OPSETS))
        symbols = {name: tuple(map(int, self.random.permutation(own))) for name, own in EXTENTS.items()}
        for name, extents in symbols.items():
            if self.random.random() < 0.35:
                symbols[name] = (extents[0],) * len(extents)
        self.ir_version = int(pick((8, 8, 9, 10, 3)))
        self.model = Model(self.random, opset, symbols, self.ir_version, self.random.random() < 0.2)
        self.net = Net(self.model)
        self._inputs()
        operations = (*LAYERS, *LAYERS, *[block] * 4, *KINDS[int(self.random.integers(len(KINDS)))])
        self.net.grow(operations, LENGTH)
        self.coarse = {value.name: value.coarse for value in self.net.values}
        self.proto = self._proto()

    def _inputs(self) -> None:
        """The image, and beside it at times a second value, a scalar and a truth value."""
        net, symbols = self.net, self.model.symbols
        dtype = net.pick(("float32", "float32", "float32", "float32", "float64", "float16"))
        channels = (int(self.random.integers(1, 5)),) * self.model.places
        axes = net.pick((("N", "C", "H", "W"),) * 3 + (("N", "C", "W"), ("N", "H", "C"), ("N", "C")))
        extents = [channels if axis == "C" else symbols[axis] for axis in axes]
        image = net.given(dtype, tuple(zip(*extents, strict=True)))
        if net.chance(0.3):
            net.given(dtype, image.shapes)
        if net.chance(0.2):
            net.given("float32", ((),) * self.model.places)
        if net.chance(0.6):
            net.given("bool", ((),) * self.model.places)

    def _proto(self) -> onnx.ModelProto:
        """The model; what nobody reads, and some that are read, are its outputs."""
        net = self.net
        read = {name for node in net.nodes for name in reads(node)}
        given = {value.name for value in net.inputs}
        ends = [v for v in net.values if v.name not in read or net.chance(0.1)]
        ends = [v for v in ends if v.name not in given or net.chance(0.1)] or net.values[-1:]
        stated = net.pick((1.0, 0.5, 0.0))
        graph = net.graph("fuzz", ends, stated)
        self._offer_weights(graph, everything=self.ir_version < 4)
        opsets = [helper.make_opsetid("", self.model.opset)]
        opsets += [helper.make_opsetid("local", 1)] if self.model.functions else []
        functions = [function for function, _, _ in self.model.functions]
        model = helper.make_model(
            graph, opset_imports=opsets, ir_version=self.ir_version, functions=functions
        )
        model.metadata_props.add(key="author", value="fuzz")
        if net.chance(0.4):
            model = onnx.shape_inference.infer_shapes(model)
        return model

    def _offer_weights(self, graph: onnx.GraphProto, *, everything: bool) -> None:
        """Some initializers may be overridden by a caller: they are inputs as well. Once all had to be."""
        for tensor in graph.initializer:
            if everything or (self.random.random() < 0.3 and self.random.random() < 0.3):
                graph.input.append(
                    helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
                )

    def feeds(self) -> Iterator[dict[str, Array]]:
        """Inputs, one mapping for each place."""
        random = np.random.default_rng(1)
        fixed = all(len(set(extents)) == 1 for extents in self.model.symbols.values())
        for place in range(2 if fixed else self.model.places):
            yield {
                v.name: _drawn(random, v.dtype, v.shapes[place])
                for v in self.net.inputs
                if not v.wrapped or place % 2
            }


def _drawn(random: np.random.Generator, dtype: str, shape: Shape) -> Array:
    if dtype == "bool":
        return np.asarray(random.random(shape) < 0.5)
    if dtype == "int64":
        return np.asarray(random.integers(0, 4, shape))
    return np.asarray(random.standard_normal(shape).astype(dtype))

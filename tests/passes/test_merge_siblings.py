import numpy as np

from fuser.algebra.conv import Conv
from fuser.ir.node import Node, Value
from fuser.ir.ops import Concat, Select
from passes.merge_siblings import merge_siblings
from tests.graphs import Builder, operators, optimize, random_conv, relu


def split(b: Builder, x: Value, *sizes: int) -> list[Value]:
    assert x.shape is not None
    ranges, first = [], 0
    for size in sizes:
        ranges.append((first, size))
        first += size
    outputs = [Value(f"part{i}", (x.shape[0], n, *x.shape[2:]), "float32") for i, n in enumerate(sizes)]
    b.graph.add(
        Node(Select(tuple(ranges), first, 1), [x], outputs, name="split", position=(len(b.graph.nodes),))
    )
    return outputs


def concat(b: Builder, *parts: Value) -> Value:
    shape = parts[0].shape or ()
    channels = sum(part.shape[1] for part in parts if part.shape and isinstance(part.shape[1], int))
    return b.add(Concat(len(parts), 1), *parts, shape=(shape[0], channels, *shape[2:]))


def test_convolutions_of_one_value() -> None:
    b = Builder(1, 4, 6, 6)
    graph = b.finish(concat(b, b.add(random_conv(4, 3, 1, 1), b.x), b.add(random_conv(4, 5, 1, 1), b.x)))
    optimize(graph, merge_siblings)
    assert operators(graph) == ["1x1 conv, 4 -> 8"]


def test_a_run_beside_something_else() -> None:
    b = Builder(1, 4, 6, 6)
    other = b.add(relu, b.x)
    parts = b.add(random_conv(4, 4, 1, 1), b.x), b.add(random_conv(4, 4, 1, 1, seed=2), b.x)
    graph = b.finish(concat(b, other, *parts))
    optimize(graph, merge_siblings)
    assert operators(graph) == ["Relu", "1x1 conv, 4 -> 8", "concat, axis 1"]


def test_parts_of_one_value_become_groups() -> None:
    b = Builder(1, 8, 6, 6)
    first, second = split(b, b.x, 4, 4)
    graph = b.finish(
        concat(b, b.add(random_conv(4, 6, 3, 3), first), b.add(random_conv(4, 6, 3, 3, seed=1), second))
    )
    optimize(graph, merge_siblings)
    assert operators(graph) == ["3x3 conv, 8 -> 12, groups 2, pads (1, 1, 1, 1)"]


def test_parts_in_another_order_decline() -> None:
    b = Builder(1, 8, 6, 6)
    first, second = split(b, b.x, 4, 4)
    graph = b.finish(
        concat(b, b.add(random_conv(4, 6, 3, 3), second), b.add(random_conv(4, 6, 3, 3, seed=1), first))
    )
    (event,) = optimize(graph, merge_siblings)
    assert event.reason == "the parts [(4, 4), (0, 4)] are not all 8 channels in order"


def test_geometry_differs() -> None:
    b = Builder(1, 8, 6, 6)
    first, second = split(b, b.x, 4, 4)
    graph = b.finish(concat(b, b.add(random_conv(4, 6, 3, 3), first), b.add(random_conv(4, 6, 1, 1), second)))
    (event,) = optimize(graph, merge_siblings)
    assert event.reason == "the parts differ: 3x3 conv, 4 -> 6, pads (1, 1, 1, 1) and 1x1 conv, 4 -> 6"

    b = Builder(1, 8, 7, 7)
    padded = random_conv(8, 6, 3, 3, pad_value=np.ones(8))
    graph = b.finish(concat(b, b.add(random_conv(8, 6, 3, 3), b.x), b.add(padded, b.x)))
    (event,) = optimize(graph, merge_siblings)
    assert "pad value differs: 0 and 1 (channel 0)" in event.reason


def test_a_large_and_a_small_kernel_stay_apart() -> None:
    b = Builder(1, 64, 28, 28)
    graph = b.finish(concat(b, b.add(random_conv(64, 64, 7, 7), b.x), b.add(random_conv(64, 256, 1, 1), b.x)))
    (event,) = optimize(graph, merge_siblings)
    assert "no gain" in event.reason


def test_linear_layers() -> None:
    b = Builder(5, 4)
    a = b.add(Conv.of(np.arange(12.0).reshape(3, 4), axis=-1), b.x)
    c = b.add(Conv.of(np.arange(8.0).reshape(2, 4), np.ones(2), axis=-1), b.x)
    graph = b.finish(b.add(Concat(2, -1), a, c, shape=(5, 5)))
    optimize(graph, merge_siblings)
    assert operators(graph) == ["linear, 4 -> 5"]

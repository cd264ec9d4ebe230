"""If, Loop, Scan and local functions, nested, with values captured from the graphs around them."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx import helper

from tests.fuzz.layers import LAYERS
from tests.fuzz.net import FLOATS, Net, Value
from tests.fuzz.shapes import AXES

DEPTH = 2


def branch(net: Net, x: Value) -> None:
    """An If by a truth value that is fed, or constant."""
    if net.depth >= DEPTH or x.wrapped:
        return
    truths = [v for v in net.values if v.dtype == "bool" and v.shapes == ((),) * net.model.places]
    if truths and net.chance(0.9):
        chosen: Value | str = net.pick(truths)
    else:
        chosen = net.constant(np.array(net.chance(0.5)))
    bodies = {}
    coarse = 0
    for name in ("then_branch", "else_branch"):
        body = net.body()
        body.grow(INSIDE, net.pick((1, 2, 3)))
        result = made_like(body, x)
        coarse = max(coarse, coarsest(net, body))
        bodies[name] = body.graph(name, [result])
    net.node("If", [chosen], [(x.dtype, x.shapes)], coarse=coarse, **bodies)


def loop(net: Net, x: Value) -> None:
    """A Loop that carries a value, and may collect another."""
    if net.depth >= DEPTH or x.dtype not in FLOATS or x.wrapped:
        return
    places = net.model.places
    count = net.pick((1, 2, 3))
    body = net.body()
    body.given("int64", ((),) * places)
    going = body.given("bool", ((),) * places)
    carried = body.given(x.dtype, x.shapes)
    body.grow(INSIDE, net.pick((1, 2, 3)))
    result = made_like(body, carried)
    coarse = coarsest(net, body)
    kept = body.add("Identity", [going], going.shapes)
    outputs = [kept, result]
    results: list[tuple[str | None, Any]] = [(x.dtype, x.shapes)]
    if net.chance(0.4):
        collected = [(count, *shape) for shape in result.shapes]
        if net.fits(collected):
            outputs.append(body.add("Identity", [result], result.shapes))
            results.append((x.dtype, collected))
    trips = net.constant(np.array(count, np.int64))
    condition = net.constant(np.array(True)) if net.chance(0.5) else ""
    net.node("Loop", [trips, condition, x], results, coarse=coarse, body=body.graph("loop", outputs))


def scan(net: Net, x: Value) -> None:
    """A Scan over the first axis, with what is summed so far where the shape of a row is known."""
    if net.depth >= DEPTH or x.dtype not in FLOATS or x.rank < 2:
        return
    body = net.body()
    rows = tuple(shape[1:] for shape in x.shapes)
    fixed = all(row == rows[0] for row in rows)
    states = [body.given(x.dtype, rows)] if fixed else []
    inputs: list[Value | str] = [net.weight(x, *rows[0])] if fixed else []
    results: list[tuple[str | None, Any]] = [(x.dtype, rows)] if fixed else []
    row = body.given(x.dtype, rows)
    body.grow(INSIDE, net.pick((1, 2)))
    made = made_like(body, row)
    coarse = coarsest(net, body)
    outputs = [body.add("Add", [state, made], rows) for state in states]
    outputs.append(body.add("Identity", [made], rows))
    results.append((x.dtype, x.shapes))
    net.node(
        "Scan", [*inputs, x], results, coarse=coarse, num_scan_inputs=1, body=body.graph("scan", outputs)
    )


def call(net: Net, x: Value) -> None:
    """A call of a local function: of one that fits, or of a new one."""
    if net.depth >= DEPTH or x.dtype not in FLOATS or not x.rank or net.model.ir_version < 8:
        return
    known = [entry for entry in net.model.functions if entry[1][0].like(x) and len(entry[1]) == 1]
    if known and net.chance(0.7):
        function, _, results = net.pick(known)
    else:
        inner = Net(net.model, net.depth + 1, constants_are_nodes=True)
        parameter = inner.given(x.dtype, x.shapes)
        inner.grow(INSIDE, net.pick((2, 3, 4)))
        results = [made_like(inner, parameter)]
        read = {name for node in inner.nodes for name in node.input}
        more = [v for v in inner.values[1:] if v.name not in read and v is not results[0] and not v.wrapped]
        results += more[:1]
        function = helper.make_function(
            "local", inner.fresh("f"), [parameter.name], [v.name for v in results], inner.nodes, _opsets(net)
        )
        net.model.functions.append((function, [parameter], results))
    coarse = max(value.coarse for value in results)
    types: list[tuple[str | None, Any]] = [(v.dtype, v.shapes) for v in results]
    net.node(function.name, [x], types, domain="local", coarse=coarse)


def _opsets(net: Net) -> list[Any]:
    return [helper.make_opsetid("", net.model.opset), helper.make_opsetid("local", 1)]


def coarsest(net: Net, body: Net) -> int:
    """How coarse what a body makes is; it begins with the values of the graph around it."""
    return max((value.coarse for value in body.values[len(net.values) :]), default=0)


def made_like(body: Net, x: Value) -> Value:
    """A value that the body itself makes, of the type and shape of `x`; new if there is none."""
    made = {name for node in body.nodes for name in node.output}
    fitting = [value for value in body.values if value.name in made and value.like(x)]
    if fitting and body.chance(0.8):
        return fitting[-1]
    source = body.pick([value for value in body.values if value.like(x)])
    if x.dtype in FLOATS and body.chance(0.7):
        return body.add("Mul", [source, body.scalar(0.5, x.dtype)], x.shapes)
    return body.add("Identity", [source], x.shapes)


FLOW: tuple[Callable[[Net, Value], None], ...] = (branch, branch, loop, scan, call, call, call)
INSIDE: Sequence[Callable[[Net, Value], None]] = (*LAYERS, *LAYERS, *AXES, branch, loop, call)

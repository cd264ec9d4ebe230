"""A graph as lines of text, and a graph of such lines: what the docstrings of passes show, and tests build.

    x: float32 [1, 4, 8, N]                                 an input
    c: constant float32 [4]                                 a constant
    a = 3x3 conv, 4 -> 4, pads (1, 1, 1, 1), bias (x)       an operator of values
    b = 2 a - x + 0.5                                       a sum
    p, q = channels 0:2, 2:4 of 4 (b)                       an operator of several outputs
    m: float32 [1, 4] = GlobalMaxPool (a, c)                where the type is not that of the first input
    return m, q

The grammar, one line each; what is in brackets may be missing, what is in braces comes any number of times:

    given  = name ": " ["constant " | "captured "] type
    node   = name [": " type] {", " name [": " type]} " = " (sum | operator " (" [name {", " name}] ")")
    sum    = ["-"] term {(" + " | " - ") term}              term = number " " name | name | number
    return = "return" [" " name {", " name}]
    type   = dtype " " ("[" [extent {", " extent}] "]" | "?")
    extent = a number | a symbol | "?"

`operator` is what `ir/words.py` says. `_` is an input that is absent. Names and symbols that could be taken
for something else are in quotes, as in JSON. Text holds no weights: what reads it draws small integers, in
which float64 is exact, and what is written of the graph that was read is the text.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fuser.algebra.conv import Conv
from fuser.errors import Declined, InputError, require
from fuser.ir.constant import Constant
from fuser.ir.extents import Dim
from fuser.ir.graph import Graph, Host
from fuser.ir.node import Node, Value
from fuser.ir.ops import Op, Opaque, Select, Sum, operation
from fuser.ir.words import NUMBER, QUOTED, integers, number, operator, quoted, unquoted, words

PLAIN: Final = r"(?!(?:return|inf|nan|_)(?![\w/.:'-]))[A-Za-z_/](?:[\w/.:'-]*[\w/.'-])?"
NAME: Final = rf"(?:{QUOTED}|{PLAIN})"
SYMBOL: Final = r'(?!-?\d+(?:,|\]|$))[\w(](?:(?:[^"\\,\[\]\s]| )*[^"\\,\[\]\s])?'
EXTENT: Final = rf"(?:\?|{QUOTED}|{SYMBOL}|-?\d+)"
TYPE: Final = rf"\S+ (?:\?|\[(?:{EXTENT}(?:, {EXTENT})*)?\])"
OUTPUT: Final = rf"{NAME}(?:: {TYPE})?"
TERM: Final = rf"(?:(?:{NUMBER} )?{NAME}|{NUMBER})"
OPERAND: Final = rf"(?:{NAME}|_)"

GIVEN: Final = re.compile(rf"(?P<name>{NAME}): (?P<how>constant |captured )?(?P<type>{TYPE})")
NODE: Final = re.compile(rf"(?P<outputs>{OUTPUT}(?:, {OUTPUT})*) = (?P<made>.+)")
SUM: Final = re.compile(rf"-?{TERM}(?: [+-] {TERM})*")
APPLIED: Final = re.compile(rf"(?P<words>.+) \((?P<operands>(?:{OPERAND}(?:, {OPERAND})*)?)\)")
RETURN: Final = re.compile(rf"return(?P<names>(?: {NAME}(?:, {NAME})*)?)")
ONE_TERM: Final = re.compile(rf"(^-?| [+-] )(?:({NUMBER})(?: (?![+-] )|(?= [+-] |$)))?({NAME})?")
ONE_OUTPUT: Final = re.compile(rf"({NAME})(?:: ({TYPE}))?")

Type = tuple[tuple[Dim, ...] | None, str | None]


def write(graph: Graph) -> str:
    """The graph as text, the last line with an end. Weights are looked at; values of one name get others."""
    names = _Names()
    nodes = graph.ordered()
    lines = [f"{names.of(value)}: {_type(value)}" for value in graph.inputs]
    for value in _from_outside(graph, nodes):
        how = "constant" if value.constant is not None and value not in graph.captured else "captured"
        lines.append(f"{names.of(value)}: {how} {_type(value)}")
    lines += [_statement(node, names) for node in nodes]
    return "\n".join([*lines, f"return {', '.join(map(names.of, graph.outputs))}".strip(), ""])


class _Names:
    """A name for each value, no two the same, in quotes where it needs them."""

    def __init__(self) -> None:
        self._known: dict[Value | None, str] = {None: "_"}
        self._used: set[str] = set()
        self._again: Counter[str] = Counter()

    def of(self, value: Value | None) -> str:
        """What the text calls the value."""
        if value is not None and value not in self._known:
            name = value.name
            while name in self._used:
                self._again[value.name] += 1
                name = f"{value.name}'{self._again[value.name]}"
            self._used.add(name)
            self._known[value] = name if re.fullmatch(PLAIN, name) else quoted(name)
        return self._known[value]


def _from_outside(graph: Graph, nodes: Sequence[Node]) -> Iterator[Value]:
    """Values besides the inputs that no node makes, each once, in the order in which they are read."""
    read = [value for node in nodes for value in node.inputs if value is not None]
    made = {*graph.inputs, *(value for node in nodes for value in node.outputs)}
    return (value for value in dict.fromkeys((*graph.captured, *read, *graph.outputs)) if value not in made)


def _type(value: Value) -> str:
    dtype = value.dtype or "?"
    return f"{dtype} ?" if value.shape is None else f"{dtype} [{', '.join(map(_extent, value.shape))}]"


def _extent(dim: Dim) -> str:
    if isinstance(dim, str):
        return dim if re.fullmatch(SYMBOL, dim) else quoted(dim)
    return "?" if dim is None else str(dim)


def _statement(node: Node, names: _Names) -> str:
    outputs = [
        names.of(value) if (value.shape, value.dtype) == usual else f"{names.of(value)}: {_type(value)}"
        for value, usual in zip(node.outputs, _types(node.op, node.inputs, len(node.outputs)), strict=True)
    ]
    operands = [names.of(value) for value in node.inputs]
    if isinstance(node.op, Sum):
        made = _sum(node.op, operands)
    else:
        source = node.inputs[0] if node.inputs else None
        made = f"{words(node.op, node.label, source)} ({', '.join(operands)})"
    return f"{', '.join(outputs)} = {made}"


def _sum(op: Sum, operands: Sequence[str]) -> str:
    terms = [
        (c, name if abs(c) == 1 else f"{number(abs(c))} {name}")
        for c, name in zip(op.coefficients, operands, strict=True)
    ]
    terms += [(op.offset, number(abs(op.offset)))] if op.offset else []
    text = "".join(f" {'-' if np.signbit(c) else '+'} {term}" for c, term in terms)
    return text.removeprefix(" + ") if text.startswith(" + ") else "-" + text.removeprefix(" - ")


def _types(op: Op, inputs: Sequence[Value | None], outputs: int) -> list[Type]:
    """What follows for the outputs; an opaque operator is taken to keep the type of its first input."""
    first = inputs[0] if inputs else None
    if first is None:
        return [(None, None)] * outputs
    asked = operation(op)
    shapes = [None if value is None else value.shape for value in inputs]
    made = shapes[:1] * outputs if asked.opaque else asked.result(*shapes)
    return [(shape, first.dtype) for shape in made]


def read(text: str, host: Host, operators: Mapping[str, Opaque] | None = None) -> Graph:
    """The graph of a text. `operators` are the opaque ones that can be more than their name, by that name.

    Raises:
        InputError: a line is none of the grammar, or says what cannot be; with its number.
    """
    reader = _Reader(host, operators or {})
    for index, line in enumerate(text.strip().split("\n"), 1):
        try:
            reader.line(line.strip())
        except Declined as reason:
            raise InputError(f"line {index}, {line.strip()!r}: {reason}") from None
    return reader.graph


class _Reader:
    """Builds a graph line by line."""

    def __init__(self, host: Host, operators: Mapping[str, Opaque]) -> None:
        self.graph = Graph("text", host)
        self._operators = operators
        self._values: dict[str, Value] = {}
        self._random = np.random.default_rng(0)

    def line(self, line: str) -> None:
        """Take in one line.

        Raises:
            Declined: it cannot be.
        """
        if match := RETURN.fullmatch(line):
            self.graph.outputs = [self._value(name) for name in re.findall(NAME, match["names"])]
        elif match := GIVEN.fullmatch(line):
            self._give(self._define(match["name"], *_read_type(match["type"])), match["how"])
        elif match := NODE.fullmatch(line):
            self._make(match["outputs"], match["made"], line)
        else:
            raise Declined("this is no input, node or return")

    def _value(self, name: str) -> Value:
        require(unquoted(name) in self._values, f"{name} is not known")
        return self._values[unquoted(name)]

    def _define(self, name: str, shape: tuple[Dim, ...] | None, dtype: str | None) -> Value:
        name = unquoted(name)
        require(name not in self._values, f"there is a {name} already")
        return self._values.setdefault(name, Value(name, shape, dtype))

    def _give(self, value: Value, how: str | None) -> None:
        if how == "constant ":
            value.constant = self._constant(value)
        else:
            (self.graph.captured if how else self.graph.inputs).append(value)

    def _constant(self, value: Value) -> Constant:
        shape = tuple(dim for dim in value.shape or () if isinstance(dim, int))
        require(shape == value.shape, f"the extents of the constant {value.name} are not known")
        drawn = integers(self._random, *shape)

        def array() -> NDArray[Any]:
            return drawn.astype(value.dtype)

        return Constant(shape, value.dtype or "", array)

    def _make(self, outputs: str, made: str, line: str) -> None:
        op, inputs, label = self._sum(made) if SUM.fullmatch(made) else self._applied(made)
        results = [match.groups() for match in ONE_OUTPUT.finditer(outputs)]
        wants, has = operation(op).arity
        require(wants in {None, len(inputs)}, f"{op} reads {wants} values, not {len(inputs)}")
        require(has in {None, len(results)}, f"{op} has {has} outputs, not {len(results)}")
        values = [
            self._define(name, *(_read_type(said) if said else usual))
            for (name, said), usual in zip(results, _types(op, inputs, len(results)), strict=True)
        ]
        position = (len(self.graph.nodes),)
        self.graph.add(Node(op, inputs, values, label=label, position=position, source=line))

    def _sum(self, text: str) -> tuple[Op, list[Value | None], str]:
        coefficients: list[float] = []
        inputs: list[Value | None] = []
        offset = 0.0
        for sign, number_, name in ONE_TERM.findall(text):
            factor = float(number_ or 1) * (-1 if "-" in sign else 1)
            if name:
                coefficients.append(factor)
                inputs.append(self._value(name))
            else:
                offset += factor
        return Sum(tuple(coefficients), offset), inputs, ""

    def _applied(self, text: str) -> tuple[Op, list[Value | None], str]:
        match = APPLIED.fullmatch(text)
        if match is None:
            raise Declined(f"{text} is no sum and no operator of values")
        names = re.findall(OPERAND, match["operands"])
        inputs = [None if name == "_" else self._value(name) for name in names]
        op, label = operator(match["words"], inputs, self._random)
        if isinstance(op, Opaque):
            return self._operators.get(op.kind, op), inputs, label
        _require_fit(op, inputs)
        return op, inputs, label


def _read_type(text: str) -> Type:
    dtype, _, shape = text.partition(" ")
    dims = None if shape == "?" else tuple(map(_read_extent, re.findall(EXTENT, shape[1:-1])))
    return dims, None if dtype == "?" else dtype


def _read_extent(text: str) -> Dim:
    if re.fullmatch(r"-?\d+", text):
        return int(text)
    return None if text == "?" else unquoted(text)


def _require_fit(op: Op, inputs: Sequence[Value | None]) -> None:
    """Decline an operator that cannot read the inputs."""
    require(None not in inputs, f"{op} has no optional inputs")
    require(bool(inputs), f"{op} reads nothing")
    channels = op.inputs if isinstance(op, Conv) else op.channels if isinstance(op, Select) else None
    shape = None if inputs[0] is None else inputs[0].shape
    if isinstance(op, Conv | Select) and shape is not None:
        rank = op.rank + 2 if isinstance(op, Conv) and op.axis == 1 else len(shape)
        require(len(shape) == rank, f"{op} reads tensors of {rank} axes, not {len(shape)}")
        size = shape[op.axis]
        require(not isinstance(size, int) or size == channels, f"{op} reads {channels} channels, not {size}")

"""The examples in the docstring of each pass are what it does: `Given:`, run by itself, is `Result:`.

What stands under `Declined:` is left as it is, for the reason in the comment below it.
"""

import re
from collections.abc import Iterator
from inspect import cleandoc
from typing import NamedTuple

import numpy as np
import pytest

from fuser.ir.carry import Carry
from fuser.ir.graph import Graph
from fuser.ir.ops import Opaque
from fuser.ir.text import read, write
from fuser.rewrite.pattern import Event, Rewrite, available
from tests.graphs import PlainHost, optimize

OPERATORS = {
    "MatMul": Opaque("MatMul", lambda x, y: (x @ y,)),
    "Relu": Opaque("Relu", lambda x: (np.maximum(x, 0.0),), homogeneous=True, elementwise=True),
    "Resize": Opaque("Resize", lambda x: (x.repeat(2, 2).repeat(2, 3),), carries=lambda _: Carry(alike=True)),
    "Softmax": Opaque("Softmax", lambda x: (np.exp(x) / np.exp(x).sum(1, keepdims=True),)),
}
SYMBOL = 4
"""The extent that a symbol stands for."""

PASSES = available()


class Example(NamedTuple):
    """A graph before and after a pass, and why it was left alone if it was."""

    entry: Rewrite
    before: str
    after: str
    reason: str


def sections(entry: Rewrite) -> Iterator[tuple[str, str, str]]:
    """The parts of the docstring with a graph: title, lines, and the comment below them."""
    text = cleandoc(entry.propose.__doc__ or "")
    for title, body in re.findall(r"^(Given|Result|Declined):\n((?:    .+(?:\n|$))+)", text, re.MULTILINE):
        lines = [line.strip() for line in body.splitlines()]
        graph = [line for line in lines if not line.startswith("#")]
        yield title, "\n".join([*graph, ""]), " ".join(line[2:] for line in lines if line.startswith("#"))


def examples(entry: Rewrite) -> Iterator[Example]:
    parts = sections(entry)
    for title, graph, reason in parts:
        if title == "Declined":
            yield Example(entry, graph, graph, reason)
        else:
            result, after, _ = next(parts)
            assert (title, result) == ("Given", "Result")
            yield Example(entry, graph, after, "")


def run(graph: Graph, entry: Rewrite) -> list[Event]:
    """What the pass did; fails unless the graph computes the same afterwards."""
    random = np.random.default_rng(0)
    feeds = {}
    for value in graph.inputs:
        shape = [dim if isinstance(dim, int) else SYMBOL for dim in value.shape or ()]
        feeds[value.name] = random.integers(-4, 5, shape).astype(float)
    return optimize(graph, entry, feeds=feeds)


@pytest.mark.parametrize("entry", PASSES, ids=lambda entry: entry.name)
def test_every_pass_shows_what_it_does(entry: Rewrite) -> None:
    known = [title for title, _, _ in sections(entry)]
    assert known[:2] == ["Given", "Result"]
    assert "\n" not in entry.summary
    assert "->" in entry.summary


@pytest.mark.parametrize(
    "example",
    [example for entry in PASSES for example in examples(entry)],
    ids=lambda e: f"{e.entry.name} {'declines' if e.reason else 'applies'}",
)
def test_examples(example: Example) -> None:
    graph = read(example.before, PlainHost(), OPERATORS)
    assert write(graph) == example.before
    events = run(graph, example.entry)
    assert write(graph) == example.after
    if example.reason:
        assert [(event.status, event.reason) for event in events] == [("declined", example.reason)]
    else:
        assert "applied" in {event.status for event in events}

"""What a pass is, which passes there are, and the record of what they did.

A pass looks at one node and yields candidates: what could stand in a value's place. It edits nothing;
`driver` decides.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from fuser.errors import InputError
from fuser.ir.constant import Constant
from fuser.ir.node import Apply, Node, Value

ENTRY_POINTS: Final = "fuser.passes"

CLEAN, FOLD, MERGE, NARROW, FACTOR = range(5)

Candidate = Apply | Value | Constant | Mapping[Value, Apply]
"""What a pass yields: an application, an existing value or a constant for the node's first output, or
applications for
several values at once."""


@dataclass(frozen=True)
class Rewrite:
    """A pass: `propose` yields candidates for a node whose operator is one of `roots`, the best first."""

    name: str
    roots: tuple[type, ...]
    stage: int
    propose: Callable[[Node], Iterator[Candidate]]

    @property
    def summary(self) -> str:
        """The first line of the docstring: `before -> after`."""
        return (self.propose.__doc__ or "").strip().partition("\n")[0]


@dataclass(frozen=True)
class Plan:
    """The passes to run, and up to which part of its kernel's largest a weight counts as zero."""

    rewrites: tuple[Rewrite, ...]
    zero_below: float = 0.0


def rewrite(*roots: type, stage: int) -> Callable[[Callable[[Node], Iterator[Candidate]]], Rewrite]:
    """Make a pass of a generator function; file name = function name = pass name.

    At each node the passes of an earlier `stage` (CLEAN, FOLD, MERGE, NARROW, FACTOR) have their turn first.
    Those from NARROW on look at weights; they begin when the others have settled and kernels are computed.
    """
    return lambda propose: Rewrite(propose.__name__, roots, stage, propose)


@dataclass(frozen=True)
class Event:
    """What became of a rewrite at a node: `applied` (`removed` vanished) or `declined` for a reason."""

    rewrite: str
    node: str
    status: str
    reason: str = ""
    removed: tuple[str, ...] = ()
    graph: str = ""


@dataclass
class Log:
    """All events of a run: what was applied, in order, and why each node that is left was left."""

    applied: list[Event] = field(default_factory=list)
    _declined: dict[Node, dict[str, Event]] = field(default_factory=dict)

    def decline(self, event: Event, node: Node) -> None:
        """Record a refusal, in place of an earlier one of the same pass at the same node."""
        self._declined.setdefault(node, {})[event.rewrite] = event

    def forget(self, node: Node, rewrite: str | None = None) -> None:
        """Drop the refusals of a node that is gone, or of one pass that now applied."""
        if rewrite is None:
            self._declined.pop(node, None)
        else:
            self._declined.get(node, {}).pop(rewrite, None)

    @property
    def events(self) -> list[Event]:
        """Applied events, then the refusals that still hold."""
        return self.applied + [event for events in self._declined.values() for event in events.values()]


def available() -> list[Rewrite]:
    """Every installed pass, in the order in which they are tried: by stage, then by name."""
    from importlib.metadata import entry_points

    found: list[Rewrite] = [entry.load() for entry in entry_points(group=ENTRY_POINTS)]
    return sorted(found, key=lambda entry: (entry.stage, entry.name))


def select(names: Sequence[str] | None = None, exclude: Sequence[str] = (), zero_below: float = 0.0) -> Plan:
    """The passes called `names` (all where None), less those in `exclude`.

    Raises:
        InputError: a text in place of a list, a name that no installed pass has, or a `zero_below` that is
            not from 0 to less than 1.
    """
    if not 0.0 <= zero_below < 1.0:
        raise InputError(
            f"zero_below is a part of the largest weight, from 0 to less than 1, not {zero_below}"
        )
    for argument, given in (("passes", names), ("exclude", exclude)):
        if isinstance(given, str):
            raise InputError(f"{argument} takes a list of names, [{given!r}], not the text {given!r}")
    rewrites = available()
    known = [entry.name for entry in rewrites]
    for name in (*(names or ()), *exclude):
        if name not in known:
            raise InputError(f"no pass is called {name!r}; there are {', '.join(known)}")
    chosen = (r for r in rewrites if (names is None or r.name in names) and r.name not in exclude)
    return Plan(tuple(chosen), zero_below)


def describe(node: Node) -> str:
    """How a report calls a node: its name, else that of its first output."""
    return node.name or node.outputs[0].name


def describe_fully(node: Node) -> str:
    """The same with what the node computes: `n1 (Relu)`, in the words of the text form."""
    return f"{describe(node)} ({node.op})"

"""What the flow asks of a host: to read a model, take the changes in, write it, run it, judge it and time it.

Whoever lies above the hosts knows these, and no host: `pick.host_of` says which one a model is of. What one
graph of a model can express, `ir.graph.Host`, is asked by the driver.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from fuser.hosts.summary import Summary
    from fuser.ir.graph import Graph
    from fuser.judge.inputs import Given, Shapes
    from fuser.judge.runner import Runner
    from fuser.judge.verification import Models
    from fuser.rewrite.pattern import Event

Name = str | os.PathLike[str]

Call = Callable[[], object]
Clock = Callable[[Call], float]


def seconds(call: Call) -> float:
    """Makes a call and says how many seconds it took."""
    started = perf_counter()
    call()
    return perf_counter() - started


@dataclass(frozen=True)
class Fed:
    """What two models are fed, as far as the user says: see `fuser.verify`."""

    inputs: Any = None
    samples: int = 3
    seed: int = 0
    sizes: Mapping[str, int] | None = None
    shapes: Shapes | None = None


@dataclass(frozen=True)
class Place:
    """What two models are timed on: see `fuser.benchmark`."""

    threads: int
    provider: str | None = None
    backend: str | None = None
    device: str | None = None


@dataclass(frozen=True)
class Contest:
    """Two calls to be timed against one another, the shapes that they are fed, and what they run on."""

    calls: tuple[Call, Call]
    inputs: dict[str, tuple[int, ...]]
    provider: str
    runtime: str
    clock: Clock = seconds


class Draft(Protocol):
    """A copy of a model while it is rewritten."""

    rounds: int
    """How often it is read again, as long as there was something to do."""

    examples: Any
    """What the user calls the model with; None where inputs are found without."""

    def summary(self) -> Summary:
        """What the copy amounts to as it is now."""

    def graphs(self) -> list[Graph]:
        """The graphs in the copy, imported anew each time.

        Raises:
            InputError: the model is not valid, or in training mode.
        """

    def apply(self, graphs: Sequence[Graph]) -> None:
        """Bring what was done to the graphs, the latest that were imported, into the copy."""

    def result(self) -> Any:
        """The model, of the type that was given."""

    def staged(self, path: Name) -> AbstractContextManager[Path]:
        """Where the model is written, to be moved to `path` if the block ends well.

        Raises:
            OutputError: it cannot be written.
        """


class Certificates(Protocol):
    """Proofs of results, from two files alone."""

    def certify(
        self, original: Name, result: Name, events: Sequence[Event], laws: Mapping[str, str], path: Name
    ) -> None:
        """Write to `path` the certificate of a result that `events` made; `laws` are equations by pass.

        Raises:
            VerificationError: a region is not proved.
            OutputError: it cannot be written.
        """

    def check(self, original: Name, result: Name, path: Name) -> None:
        """Prove again what a certificate states.

        Raises:
            InputError: it is none, or a file cannot be read.
            VerificationError: it does not hold.
        """


class Way(Protocol):
    """One kind of thing that a model may do without."""

    called: str
    """What is done, in the past tense."""

    @property
    def parts(self) -> Sequence[Any]:
        """What may go, from the model's beginning to its end."""

    def without(self, parts: Collection[Any]) -> Any:
        """The model without these; None where there is none. It need not be a valid one."""


class Smaller(Protocol):
    """What a host knows of making its models smaller."""

    @property
    def ways(self) -> Sequence[Callable[[Any], Way]]:
        """All ways, in the order in which they are tried."""

    @property
    def first(self) -> Sequence[Callable[[Any], Way]]:
        """Those that make most of a model go."""

    def read(self, path: Path) -> Any:
        """The model in a file.

        Raises:
            InputError: it cannot be read, or is too large.
        """

    def content(self, model: Any) -> bytes:
        """The file of a model; the same for equal ones."""

    def nodes(self, model: Any) -> int:
        """How many nodes a model has, in bodies and functions too."""

    def inputs(self, model: Any) -> set[str]:
        """The names of its inputs."""

    def text(self, model: Any) -> str:
        """The model for people to read, without the values of large weights."""


class Host(Protocol):
    """One host, for all of its models."""

    title: str
    """How messages call its files."""

    counts: bool
    """Whether multiply-adds are counted, which depend on the shapes of inputs."""

    @property
    def certificates(self) -> Certificates | None:
        """Certificates of results; None where there are none."""

    @property
    def smaller(self) -> Smaller | None:
        """How models are made smaller that show a fault; None where they are not."""

    def draft(self, model: Any, example_inputs: Any, dynamic_shapes: Any) -> Draft:
        """A copy of a model in memory.

        Raises:
            InputError: it is no model, not valid, or cannot be captured.
        """

    def load(self, path: Name, inputs: Given | None, shapes: Shapes | None) -> Draft:
        """The model in a file; `inputs` and `shapes` say what multiply-adds are counted for.

        Raises:
            InputError: it cannot be read, or they do not fit.
        """

    def files(self, path: Name) -> list[Path]:
        """The files that reading a model reads, itself first.

        Raises:
            InputError: it cannot be read.
        """

    def invalid(self, model: Any) -> str | None:
        """What is wrong with a model, in one sentence; None for nothing."""

    def runner(self, model: Any, name: str, *, precise: bool) -> AbstractContextManager[Runner]:
        """A model as the runtime itself reads it, or `precise` in float64, for the time of the block.

        Raises:
            CannotRun: that cannot be had.
        """

    def models(self, original: Any, result: Any, other: Host, fed: Fed) -> Models:
        """Two models to be compared, the result of host `other`."""

    def contest(self, original: Any, result: Any, fed: Fed, place: Place) -> AbstractContextManager[Contest]:
        """Two models of this host to be timed within the block.

        Raises:
            InputError: one cannot be run, or an argument is for another host.
        """

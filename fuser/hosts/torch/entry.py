"""torch as a host. Each part is imported when it is asked for."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fuser.hosts.host import Contest, Draft, Fed, Host, Name, Place
from fuser.hosts.kind import foreign, from_torch

if TYPE_CHECKING:
    from fuser.judge.inputs import Given, Shapes
    from fuser.judge.runner import Runner
    from fuser.judge.verification import Models


class Torch:
    """The host of modules, GraphModules, ExportedPrograms and `.pt2` files."""

    title = ".pt2"
    certificates = None
    smaller = None
    counts = False

    def draft(self, model: Any, example_inputs: Any, dynamic_shapes: Any) -> Draft:
        """A copy, captured where it has no graph."""
        from fuser.hosts.torch.drafts import draft_of

        if not from_torch(model):  # the path of a file is no model
            raise foreign(model)
        return draft_of(model, example_inputs, dynamic_shapes)

    def load(self, path: Name, inputs: Given | None, shapes: Shapes | None) -> Draft:  # noqa: ARG002  # the protocol
        """The program in a file; nothing is counted that depends on inputs."""
        from fuser.hosts.torch.files import load
        from fuser.hosts.torch.program import ProgramDraft

        return ProgramDraft(load(path))

    def files(self, path: Name) -> list[Path]:
        """The file, which holds all."""
        return [Path(path)]

    def invalid(self, model: Any) -> str | None:  # noqa: ARG002  # the protocol
        """Models of torch are taken to be valid."""
        return None

    def runner(self, model: Any, name: str, *, precise: bool) -> AbstractContextManager[Runner]:
        """A model that says itself what it takes."""
        from fuser.hosts.torch.verification import running

        return running(model, name, precise=precise)

    def models(self, original: Any, result: Any, other: Host, fed: Fed) -> Models:
        """A torch original, and a result of whichever host."""
        from fuser.hosts.torch.verification import TorchModels

        count = fed.samples if fed.inputs is None else 1
        return TorchModels(original, result, fed.inputs, count, fed.seed, fed.sizes, fed.shapes, other=other)

    def contest(self, original: Any, result: Any, fed: Fed, place: Place) -> AbstractContextManager[Contest]:
        """Both on a backend of torch."""
        from fuser.hosts.torch.bench import contest

        return contest(original, result, fed, place)


TORCH: Final = Torch()

"""ONNX as a host. Each part is imported when it is asked for: who verifies loads nothing that rewrites."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fuser.errors import InputError
from fuser.hosts.host import Contest, Draft, Fed, Host, Name, Place, Smaller

if TYPE_CHECKING:
    from fuser.judge.inputs import Given, Shapes
    from fuser.judge.runner import Runner
    from fuser.judge.verification import Models
    from fuser.rewrite.pattern import Event


class OnnxCertificates:
    """Each result is proved from the two files alone."""

    def certify(
        self, original: Name, result: Name, events: Sequence[Event], laws: Mapping[str, str], path: Name
    ) -> None:
        """Proved from the two files alone."""
        from fuser.hosts.onnx.certificate import certificate

        certificate.write(certificate.certify(original, result, events, laws), path)

    def check(self, original: Name, result: Name, path: Name) -> None:
        """Proved again from the two files alone."""
        from fuser.hosts.onnx.certificate import certificate

        certificate.check(original, result, path)


class Onnx:
    """The host of `.onnx` files, of `onnx.ModelProto` and of `onnx_ir.Model`."""

    title = "ONNX"
    certificates = OnnxCertificates()
    counts = True

    @property
    def smaller(self) -> Smaller:
        """As messages of protobuf, with their weights."""
        from fuser.hosts.onnx.reduce.ways import SMALLER

        return SMALLER

    def draft(self, model: Any, example_inputs: Any, dynamic_shapes: Any) -> Draft:  # noqa: ARG002  # the protocol
        """A copy; inputs say nothing that the model does not say itself."""
        from fuser.hosts.onnx.draft import OnnxDraft

        return OnnxDraft.of(model)

    def load(self, path: Name, inputs: Given | None, shapes: Shapes | None) -> Draft:
        """The model in a file, its large tensors left there."""
        from fuser.hosts.onnx.draft import OnnxDraft

        return OnnxDraft.load(path, inputs, shapes)

    def files(self, path: Name) -> list[Path]:
        """The file, and those of its external data."""
        from fuser.hosts.onnx.file.files import files

        return files(path)

    def invalid(self, model: Any) -> str | None:
        """What the checker says, and what it overlooks."""
        from fuser.hosts.onnx.invalid import invalid

        return invalid(model)

    def runner(self, model: Any, name: str, *, precise: bool) -> AbstractContextManager[Runner]:
        """A session of onnxruntime, or our own evaluation."""
        from fuser.hosts.onnx.judge.verification import running

        return running(model, name, precise=precise)

    def models(self, original: Any, result: Any, other: Host, fed: Fed) -> Models:  # noqa: ARG002  # it is this one
        """Both in onnxruntime."""
        from fuser.hosts.onnx.demands.samples import samples_of
        from fuser.hosts.onnx.judge.verification import OnnxModels

        return OnnxModels(original, result, samples_of(original, fed))

    def contest(self, original: Any, result: Any, fed: Fed, place: Place) -> AbstractContextManager[Contest]:
        """Both in onnxruntime, optimised."""
        from fuser.hosts.onnx.bench import contest

        if place.backend is not None or place.device is not None:
            raise InputError("a backend and a device are for torch models; onnxruntime has providers")
        return contest(original, result, fed, place)


ONNX: Final = Onnx()

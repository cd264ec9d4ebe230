"""Samples of an ONNX model, by what it demands of its inputs."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from fuser.hosts.onnx.demands.demands import demands_of
from fuser.judge.demands import Demands
from fuser.judge.inputs import Given
from fuser.judge.samples import Samples

if TYPE_CHECKING:
    from fuser.hosts.onnx.judge.source import Model


def samples_of(model: Model, inputs: Given | None = None, *options: Any, **more: Any) -> Samples:
    """The samples of a model, which is read now, and not kept; the options are those of `Samples`.

    Nothing is known of the inputs of what cannot be read, which whoever runs it will say.
    """
    demands = Demands()
    if inputs is None:
        with suppress(OSError, DecodeError, ValueError, TypeError):
            demands = demands_of(model)
    return Samples(demands, inputs, *options, **more)

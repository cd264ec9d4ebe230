"""Samples of an ONNX model, by what it demands of its inputs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from fuser.hosts.host import Fed
from fuser.hosts.onnx.demands.demands import demands_of
from fuser.judge.demands import Demands
from fuser.judge.inputs import Sizing
from fuser.judge.samples import Samples

if TYPE_CHECKING:
    from fuser.hosts.onnx.judge.source import Model


def samples_of(model: Model, fed: Fed | None = None, order: Sequence[Sizing] = ()) -> Samples:
    """The samples of a model, which is read now, and not kept; `order` is that of `Samples`.

    Nothing is known of the inputs of what cannot be read, which whoever runs it will say.
    """
    fed = fed or Fed()
    demands = Demands()
    if fed.inputs is None:
        with suppress(OSError, DecodeError, ValueError, TypeError):
            demands = demands_of(model)
    return Samples(demands, fed.inputs, fed.samples, fed.seed, fed.sizes, fed.shapes, order)

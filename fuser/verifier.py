"""Do two models compute the same? Their host says how they are run, `judge` what comes of it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from fuser.errors import InputError, VerificationError
from fuser.hosts.blame import blames
from fuser.hosts.host import Fed
from fuser.hosts.pick import host_of
from fuser.judge.inputs import Shapes
from fuser.judge.verification import Verification, compare


@blames("original", "result")
def verify(
    original: Any,
    result: Any,
    *,
    inputs: Any = None,
    samples: int = 3,
    seed: int = 0,
    sizes: Mapping[str, int] | None = None,
    shapes: Shapes | None = None,
    certificate: str | os.PathLike[str] | None = None,
) -> Verification:
    """Compare `result` with `original`; a difference is a verdict, not an exception.

    Args:
        original: path, `onnx.ModelProto` or `onnx_ir.Model`; or a torch module in evaluation mode, an
            `ExportedProgram` or the path of a `.pt2` file.
        result: the same; of a torch original also an ONNX model, whose inputs and outputs are taken in order.
        inputs: arrays by input name, an `.npz` or an `.npy` file. For torch a tensor, a tuple of arguments or
            a mapping of arguments by name; files for an exported program only. Without them inputs are drawn
            at random; a module that is not an exported program says too little for that, and needs them.
        samples: how many inputs are drawn, of different shapes where dimensions are symbolic; more, up to 5,
            where it takes them to be on both sides of the numbers in the graph.
        seed: of the random inputs.
        sizes: extents of symbolic dimensions by name.
        shapes: whole shapes of some inputs by name. What neither says follows from the graph, or is tried
            out.
        certificate: the file that `optimize_file` wrote; what it states is proved again, and both models must
            be paths of ONNX files.

    Raises:
        InputError: a model, the inputs or the shapes cannot be read, or a torch model is in training mode.
        ContradictionError: our float64 evaluation is wrong where it is needed: a bug of ours.
    """
    host = host_of(original, result)
    if certificate is not None:
        certificates = host.certificates
        others = [model for model in (original, result) if not isinstance(model, str | os.PathLike)]
        if certificates is None or others:
            odd = type((*others, original)[0]).__name__
            raise InputError(f"a certificate is about ONNX files, not about a {odd}")
        try:
            certificates.check(original, result, certificate)
        except VerificationError as refuted:
            return Verification("unproven", str(refuted))
    fed = Fed(inputs, samples, seed, sizes, shapes)
    return compare(host.models(original, result, host_of(result), fed))

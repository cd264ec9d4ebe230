"""Published designs: what is left of each, by us and by the best of the peers, the error, and what it gains.

``python -m benchmarks.zoo [NAME ...] [--exporter E] [--rounds N] [--markdown FILE] [--json FILE]``

Each design is one block in training form at a realistic width, with generic weights, as its user exports it.
Where timm has the block it is timm's, and "deploy" is what timm's own re-parameterization leaves of it.
The error is that of our file in float64 against the torch module in double precision, so the rounding of
the weights to float32; a gain is the median over the rounds of original / optimised on onnxruntime.

Exit status 1 if more is left of a design than should be.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import onnx
from torch import nn

import fuser
from benchmarks import compile_time, latency, models
from benchmarks.common import machine, operators, quartiles, table, versions, write_json
from tests.zoo import controls, dbb, large_kernel, linear, low_rank, mobile, repvgg, weight_space, yolo
from tests.zoo import super_resolution as sr
from tests.zoo.harness import Case, error, evaluate, expected, export
from tests.zoo.layers import Total, conv_norm

PEERS = ("onnxsim", "onnxslim", "onnxscript")
# An output that is further off than this is another function.
WRONG = 1e-3


def published(name: str, *arguments: Any, **options: Any) -> Callable[[], nn.Module]:
    """Builds a block of timm: `byobnet.RepVggBlock`."""

    def build() -> nn.Module:
        module, _, block = name.partition(".")
        models.timm()
        made: nn.Module = getattr(import_module(f"timm.models.{module}"), block)(*arguments, **options)
        return made

    return build


def deployed(module: nn.Module) -> nn.Module | None:
    """The deploy form of a block by its authors' code, if timm has it."""
    if not any(type(part).__module__.startswith("timm.") for part in module.modules()):
        return None
    # Only the parts of what it is given are replaced.
    form: nn.Module = models.timm().utils.reparameterize_model(nn.Sequential(module))
    return form


class Design(NamedTuple):
    """A block: how to build it, the shape of its input, and how many operators should be left."""

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    expected: int


def act(block: nn.Module) -> nn.Module:
    """A ReLU behind the block."""
    return nn.Sequential(block, nn.ReLU())


def expand_net(channels: int, hidden: int) -> nn.Module:
    """ExpandNets CL: all the pads on the first 1x1."""
    first, last = nn.Conv2d(channels, hidden, 1, padding=1), nn.Conv2d(hidden, channels, 1)
    return nn.Sequential(first, nn.Conv2d(hidden, hidden, 3), last)


def mobileone() -> nn.Module:
    """The pair of MobileOne-S0, four branches each."""
    depthwise = published("byobnet.MobileOneBlock", 64, 64, 3, group_size=1, num_conv_branches=4)
    return nn.Sequential(depthwise(), published("byobnet.MobileOneBlock", 64, 64, 1, num_conv_branches=4)())


WIDE, THIN, TOKENS = (1, 64, 56, 56), (1, 64, 28, 28), (1, 196, 384)

# One block of every row of the zoo, as in the middle of a network.
DESIGNS = tuple(
    Design(*row)
    for row in (
        ("RepVGG", published("byobnet.RepVggBlock", 64, 64), WIDE, 2),
        ("RepVGG stride 2", published("byobnet.RepVggBlock", 64, 96, stride=2), WIDE, 2),
        ("RepVGG grouped", published("byobnet.RepVggBlock", 64, 64, group_size=16), WIDE, 2),
        ("RepVGG with SE", lambda: repvgg.gated(repvgg.repvgg(64, 64), 64), WIDE, 8),
        ("QARepVGG", lambda: act(repvgg.qarepvgg(64, 64)), WIDE, 2),
        ("QARepVGG of YOLO-NAS", lambda: act(repvgg.qarepvgg_nas(64)), WIDE, 2),
        ("QARepVGG of YOLOv6 V2", lambda: act(repvgg.qarepvgg_pooled(64)), WIDE, 2),
        ("MobileOne dw 3x3 and 1x1", mobileone, WIDE, 4),
        ("FastViT RepMixer", published("fastvit.RepMixer", 64), WIDE, 1),
        ("FastViT RepCPE", published("fastvit.RepConditionalPosEnc", 64, 64), WIDE, 1),
        ("FastViT patch embed", published("fastvit.ReparamLargeKernelConv", 64, 128, 7, 2, 1, 3), WIDE, 1),
        ("RepViT", published("repvit.RepViTBlock", 64, 2, 3, False, nn.GELU), WIDE, 5),
        ("RepViT head", published("repvit.RepVitClassifier", 384, 1000, distillation=True), (1, 384), 1),
        ("YOLOv10 RepVGGDW", lambda: yolo.with_silu(yolo.repvgg_dw(64)), WIDE, 3),
        ("RepGhost", published("repghost.RepGhostModule", 32, 64), (1, 32, 56, 56), 4),
        ("GhostNetV3", published("ghostnet.GhostModuleV3", 32, 64), (1, 32, 56, 56), 5),
        ("ACNet", lambda: act(dbb.ACNet(64, 64, 3, 1)), WIDE, 2),
        ("ACNet, inputs sliced", lambda: act(dbb.ACNet(64, 64, 3, 0)), WIDE, 2),
        ("DBB", lambda: act(dbb.dbb(64, 64)), WIDE, 2),
        ("DBB stride 2", lambda: act(dbb.dbb(64, 64, stride=2)), WIDE, 2),
        ("OREPA", lambda: weight_space.OREPA(64, 64), WIDE, 1),
        ("DO-Conv", lambda: weight_space.DOConv(32, 32), (1, 32, 56, 56), 1),
        ("RepLKNet 31x31", lambda: act(large_kernel.replk(64, 31)), THIN, 2),
        ("RepLKNet block", lambda: large_kernel.RepLKBlock(64), THIN, 6),
        ("UniRepLKNet", lambda: large_kernel.unireplk(64), THIN, 8),
        ("SLaK 51x51", lambda: large_kernel.slak(64, 51), THIN, 3),
        ("RepMLP", lambda: linear.RepMLP(16, 14, 14), (1, 16, 14, 14), 3),
        ("ExpandNet CL", lambda: expand_net(32, 128), (1, 32, 56, 56), 1),
        ("ExpandNet CK", lambda: sr.expand_ck(3), (1, 5, 112, 112), 1),
        ("SESR", lambda: sr.sesr(16, 16, 3), (1, 16, 112, 112), 1),
        ("ECBSR", lambda: sr.ecb(16, 16, identity=True), (1, 16, 112, 112), 2),
        ("YOLOv6 BottleRep", lambda: yolo.BottleRep(64), WIDE, 6),
        ("YOLOv6 LinearAddBlock", lambda: act(yolo.linear_add(64)), WIDE, 2),
        ("YOLOv7 implicit head", lambda: yolo.Implicit(128, 255), (1, 128, 40, 40), 1),
        ("YOLOv9 RepConvN", lambda: yolo.with_silu(yolo.RepConvN(64, 64, identity=False)), WIDE, 3),
        ("RT-DETR", lambda: yolo.with_silu(Total(conv_norm(64, 64, 3), conv_norm(64, 64, 1))), WIDE, 3),
        ("PP-YOLOE", lambda: yolo.with_silu(yolo.weighted(64)), WIDE, 3),
        ("PP-LCNetV3", lambda: mobile.lcnet_v3(64), WIDE, 4),
        ("PP-LCNetV2", published("lcnetv2.RepDepthwiseSeparable", 64, 64, 1, 5, use_rep=True), WIDE, 4),
        ("VanillaNet, slope 1", lambda: mobile.vanilla(1.0), (1, 5, 112, 112), 1),
        ("RIFormer", lambda: mobile.RIFormer(64), WIDE, 5),
        ("InceptionNeXt (left)", lambda: controls.InceptionNeXt(64), WIDE, 5),
        ("StarNet (left)", lambda: controls.StarNet(32), (1, 32, 56, 56), 8),
        ("SVD, low rank (left)", lambda: low_rank.svd(384, 64, 384), TOKENS, 3),
        ("SVD, high rank", lambda: low_rank.svd(384, 320, 384), TOKENS, 2),
        ("Tucker-2 (left)", lambda: low_rank.tucker(64, 16, 16, 64), WIDE, 3),
        (
            "Tucker-2 beside a 3x3",
            lambda: Total(conv_norm(64, 64, 3), low_rank.tucker(64, 16, 16, 64)),
            WIDE,
            1,
        ),
        ("CP: the depthwise pair", lambda: low_rank.cp(64, 32, 64), WIDE, 3),
        ("LoRA", lambda: low_rank.LoRA(384, 16, 384), TOKENS, 2),
        ("DoRA", lambda: low_rank.DoRA(384, 16, 384), TOKENS, 2),
        ("weight norm", lambda: weight_space.Normed(64, 64, "weight"), WIDE, 1),
        ("spectral norm", lambda: weight_space.Normed(64, 64, "spectral"), WIDE, 1),
        ("weight standardisation", lambda: weight_space.Normed(64, 64, "standard"), WIDE, 1),
        ("group-equivariant", lambda: weight_space.Rotated(32, 16), (1, 32, 56, 56), 1),
    )
)


def measure(
    design: Design, options: argparse.Namespace, folder: Path, tools: Sequence[str]
) -> dict[str, Any]:
    """Export, optimise with us and with the peers, evaluate and time one design."""
    case = Case(design.name, design.build, design.shape, {})
    module, x = case.module(), case.inputs()
    files = {form: folder / f"{form}.onnx" for form in ("original", "ours")}
    onnx.save(export(module, x, options.exporter), files["original"])
    fuser.optimize_file(files["original"], files["ours"], verify=False)
    authors = deployed(module)
    if authors is not None:
        files["deploy"] = folder / "deploy.onnx"
        onnx.save(export(authors, x, options.exporter), files["deploy"])
    failed = {}
    for tool in tools:
        files[tool] = folder / f"{tool}.onnx"
        try:
            with redirect_stdout(io.StringIO()):
                compile_time.TOOLS[tool][1](str(files["original"]), str(files[tool]))
        except Exception as problem:  # noqa: BLE001  # a peer that fails is a result
            failed[tool] = f"{type(problem).__name__}: {problem}"
            del files[tool]
    counts = {form: dict(operators(path)) for form, path in files.items()}
    best = min(
        (tool for tool in tools if tool in files), key=lambda tool: sum(counts[tool].values()), default=None
    )
    timed = {form: path for form, path in files.items() if form in {"original", "ours", "deploy", best}}
    result = latency.compare(timed, options)
    result.update(
        name=design.name,
        expected=design.expected,
        operators=counts,
        failed=failed,
        best=best,
        error=error(evaluate(onnx.load(files["ours"]), x), expected(module, x)),
    )
    return result


def row(result: dict[str, Any]) -> list[object]:
    """One line of the table."""
    low, middle, high = gains(result, "ours")
    ours = left(result, "ours")
    others = ["deploy", result["best"]]
    return [
        result["name"],
        left(result, "original"),
        ours if ours == str(result["expected"]) else f"{ours}, not {result['expected']}",
        left(result, "deploy"),
        left(result, result["best"]) + (f" ({result['best']})" if result["best"] else ""),
        f"{result['error']:.0e}",
        f"{middle:.2f}",
        f"{low:.2f} - {high:.2f}",
        *(f"{gains(result, form)[1]:.2f}" if form in result["seconds"] else "-" for form in others),
    ]


def left(result: dict[str, Any], form: str) -> str:
    """How many operators a form has, and whether it computes something else."""
    if form not in result["operators"]:
        return "-"
    wrong = ", wrong" if result["difference"][form] > WRONG else ""
    return f"{sum(result['operators'][form].values())}{wrong}"


def gains(result: dict[str, Any], form: str) -> tuple[float, float, float]:
    """Quartiles of original / form."""
    seconds = result["seconds"]
    return quartiles([a / b for a, b in zip(seconds["original"], seconds[form], strict=True)])


HEADER = (
    "design", "operators", "ours", "deploy", "best peer", "error",
    "gain", "quartiles", "deploy's gain", "peer's gain",
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; exit status 1 if more is left of a design than should be."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zoo", description=__doc__.splitlines()[0])
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="parts of the names of designs (default: all)"
    )
    parser.add_argument("--exporter", choices=("preserve", "legacy", "dynamo"), default="dynamo")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=3, help="per design, if 5 rounds are done")
    parser.add_argument("--markdown", type=Path, help="write the table there")
    parser.add_argument("--json", type=Path, help="write counts, failures and the time of every run there")
    options = parser.parse_args(arguments)
    options.batch, options.size = 1, 0  # every input has a fixed shape
    wanted = [name.lower() for name in options.names]
    head = f"{machine()}; {options.threads} threads, {options.exporter} exporter"
    print(head)
    print(versions(["graph-fuser", "onnxruntime", "torch", *PEERS]), flush=True)
    tools = [tool for tool in PEERS if not compile_time.importable(compile_time.TOOLS[tool][0])]
    results = []
    for design in DESIGNS:
        if wanted and not any(name in design.name.lower() for name in wanted):
            continue
        with tempfile.TemporaryDirectory() as folder:
            results.append(measure(design, options, Path(folder), tools))
        print(f"{design.name}: {row(results[-1])[1:]}", file=sys.stderr, flush=True)
    text = table(HEADER, [row(result) for result in results])
    print(text)
    if options.markdown:
        options.markdown.write_text(f"{text}\n\n{head}\n")
    write_json(options.json, {"exporter": options.exporter, "threads": options.threads, "designs": results})
    return 1 if any(sum(r["operators"]["ours"].values()) > r["expected"] for r in results) else 0


if __name__ == "__main__":
    sys.exit(main())

"""What fusion gains when a torch model runs, and who computes the right thing: ours beside three others.

``python -m benchmarks.torch_latency [NAME ...] [--backend B ...] [--device D ...] [--dtype T] [--batch N]
[--channels-last] [--threads N] [--rounds N] [--json FILE]``

Forms: the original, ``fx.fuse`` (``torch.fx.experimental.optimization.fuse``), ours, and the authors' own
deploy form (timm's ``reparameterize_model``), each called as it is and compiled by Inductor, once. All that
run do so in turn, in a fresh random order each round; a speed-up is the median of the rounds' own ratios to
the original under the same backend. Errors are relative to the original in float64, judged as by
``fuser.verify``.

Names are of timm, or of the small models in ``SMALL`` that others get wrong. Without a GPU ``--device cuda``
is said not to have been measured: exit status 2 if nothing else was asked for. It is 1 if ours is wrong or
could not be made.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn
from torch.fx.experimental import optimization

import fuser
from benchmarks import models
from benchmarks.common import machine, quartiles, table, versions, write_json
from fuser.bench.benchmark import processors
from fuser.errors import InputError
from fuser.hosts.host import Call
from fuser.hosts.torch.bench import BACKENDS, DEVICES, clock, inference, prepared, require_device
from fuser.hosts.torch.callables import Arguments, results
from fuser.hosts.torch.front import first_line
from fuser.hosts.torch.tensor import to_numpy
from fuser.hosts.torch.verification import TorchRunner
from fuser.judge.compare import Outputs, Row, judge

TIMM: Final = ("repvgg_a0", "mobileone_s0", "fastvit_t8", "repvit_m1_0", "resnet18")
DTYPES: Final = ("float32", "bfloat16", "float16", "float64")


class Twice(nn.Module):
    """One convolution behind two BatchNorms: folded twice into the weight that both uses share."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(6, 6, 3, padding=1)
        self.first, self.second = nn.BatchNorm2d(6), nn.BatchNorm2d(6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """second(conv(relu(first(conv(x)))))."""
        return self.second(self.conv(self.first(self.conv(x)).relu()))


def transposed(groups: int) -> nn.Module:
    """A transposed convolution, as many channels out as in, and a BatchNorm: the wrong axis may be scaled."""
    return nn.Sequential(nn.ConvTranspose2d(6, 6, 3, 2, 1, 1, groups), nn.BatchNorm2d(6))


SMALL: Final[Mapping[str, Callable[[], nn.Module]]] = {
    "conv_used_twice": Twice,
    "transpose_norm": lambda: transposed(1),
    "grouped_transpose_norm": lambda: transposed(2),
}
SMALL_IMAGE: Final = (6, 20, 18)


@dataclass
class Entry:
    """One form under one backend. `problem`: why it cannot run; seconds of each round where it can."""

    model: str
    form: str
    backend: str
    call: Call | None = None
    row: Row | None = None
    problem: str = ""
    seconds: list[float] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        """Whether it computes what the original computes."""
        return f"raises {self.problem}" if self.row is None else "right" if self.row.ok else "WRONG"


def build(name: str, options: argparse.Namespace) -> tuple[nn.Module, torch.Tensor]:
    """A model of that name with generic weights, and an input for it, in the type and layout asked for."""
    torch.manual_seed(models.seed(name))
    if name in SMALL:
        model = SMALL[name]().eval()
        models.randomise(model, models.seed(name), image=SMALL_IMAGE)
        x = torch.randn(options.batch, *SMALL_IMAGE)
    else:
        model, x = models.build(name), torch.randn(options.batch, *models.IMAGE[1:])
    return laid(model, options), laid(x, options)


def laid(value: Any, options: argparse.Namespace) -> Any:
    """A model or a tensor in the type and memory format asked for."""
    value = value.to(getattr(torch, options.dtype))
    return value.to(memory_format=torch.channels_last) if options.channels_last else value


def forms(
    name: str, model: nn.Module, x: torch.Tensor, options: argparse.Namespace
) -> dict[str, nn.Module | str]:
    """The module of each form, or what making it raised."""
    makers: dict[str, Callable[[], nn.Module]] = {
        "original": lambda: model,
        "fx.fuse": lambda: optimization.fuse(model),
        "ours": lambda: fuser.optimize(model, (x,)),
    }
    if name not in SMALL:
        makers["deploy"] = lambda: laid(models.deploy(name), options)
    made: dict[str, nn.Module | str] = {}
    for form, make in makers.items():
        try:
            made[form] = make()
        except Exception as error:  # noqa: BLE001  # what a peer raises is a result
            made[form] = told(error)
    return made


def told(error: Exception) -> str:
    """An exception in one line."""
    return f"{type(error).__name__}: {first_line(error)}"


def compare(name: str, device: str, options: argparse.Namespace) -> list[Entry]:
    """Every form of a model under every backend: errors, and the seconds of each round."""
    model, x = build(name, options)
    modules = forms(name, model, x, options)
    model, x = model.to(device), x.to(device)
    arguments = Arguments.of(model, (x,), {})
    expected = TorchRunner(model, name, arguments).run(arguments.feeds)
    ideal = TorchRunner(model, name, arguments, precise=True).run(arguments.feeds)
    entries = []
    for backend in options.backend:
        for form, module in modules.items():
            entry = Entry(name, form, backend)
            start(entry, module, x, device, expected, ideal)
            print(f"{name}, {form}, {backend}: {entry.verdict}", file=sys.stderr, flush=True)
            entries.append(entry)
    take([entry for entry in entries if entry.call], torch.device(device), options.rounds)
    return entries


def start(
    entry: Entry, module: nn.Module | str, x: torch.Tensor, device: str, expected: Outputs, ideal: Outputs
) -> None:
    """Compile a form and judge what it computes."""
    if isinstance(module, str):
        entry.problem = module
        return
    try:
        entry.call = prepared(module.to(device), ((x.clone(),), {}), entry.backend, entry.form)
        found = {key: to_numpy(tensor) for key, tensor in results(entry.call()).items()}
    except Exception as error:  # noqa: BLE001  # what a peer raises is a result
        entry.call, entry.problem = None, told(error)
        return
    rows = judge([expected], [found], [ideal], {})
    entry.row = max(rows, key=lambda row: (not row.ok, row.excess))


def take(entries: Sequence[Entry], device: torch.device, rounds: int) -> None:
    """Time every entry once a round, in a fresh order."""
    seconds, order = clock(device), random.Random(0)
    for done in range(-2, rounds):
        for entry in order.sample(entries, len(entries)):
            assert entry.call is not None
            taken = seconds(entry.call)
            if done >= 0:  # those before warm up
                entry.seconds.append(taken)


def line(entry: Entry, original: Entry) -> list[object]:
    """One line of the table."""
    if entry.row is None:
        return [entry.form, entry.backend, *[""] * 5, entry.verdict]
    low, median, high = (1000 * value for value in quartiles(entry.seconds))
    ratios = [a / b for a, b in zip(original.seconds, entry.seconds, strict=True)] if original.seconds else []
    slow, gain, fast = (f"{ratio:.2f}" for ratio in quartiles(ratios)) if ratios else ("", "", "")
    return [
        entry.form,
        entry.backend,
        f"{median:.2f}",
        f"{low:.2f} - {high:.2f}",
        gain,
        f"{slow} - {fast}",
        f"{entry.row.judged:.1e}",
        entry.verdict,
    ]


HEADER: Final = (
    "form",
    "backend",
    "median ms",
    "quartiles",
    "speed-up",
    "quartiles",
    "error",
    "is",
)


def lines(entries: Sequence[Entry]) -> list[list[object]]:
    """The table of one model, each entry beside the original under the same backend."""
    originals = {entry.backend: entry for entry in entries if entry.form == "original"}
    return [line(entry, originals[entry.backend]) for entry in entries]


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.torch_latency", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of timm, or {', '.join(SMALL)}")
    parser.add_argument("--backend", nargs="+", choices=BACKENDS, default=BACKENDS)
    parser.add_argument("--device", nargs="+", choices=DEVICES, default=DEVICES[:1])
    parser.add_argument("--dtype", choices=DTYPES, default=DTYPES[0])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--threads", type=int, default=processors())
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", type=Path, help="write the time of every run there")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; for the exit status see the top of this file."""
    options = parsed(arguments)
    layout = "channels last" if options.channels_last else "contiguous"
    print(f"{machine()}; {options.threads} threads, batch {options.batch}, {options.dtype}, {layout}")
    print(versions(["graph-fuser", "torch", "timm"]), flush=True)
    measured: dict[str, list[Entry]] = {}
    for device in options.device:
        try:
            require_device(device)
        except InputError as reason:
            print(f"{device} was not measured: {reason}")
            continue
        measured[device] = []
        with inference(options.threads):
            for name in options.names or [*TIMM, *SMALL]:
                found = compare(name, device, options)
                measured[device] += found
                print(f"{name}, {device}\n{table(HEADER, lines(found))}", flush=True)
    entries = [(device, entry) for device, found in measured.items() for entry in found]
    write_json(options.json, {"arguments": described(options), "entries": [raw(*pair) for pair in entries]})
    if not measured:
        return 2
    return 0 if all(entry.row and entry.row.ok for _, entry in entries if entry.form == "ours") else 1


def described(options: argparse.Namespace) -> dict[str, Any]:
    """The options as JSON can hold them."""
    return {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()}


def raw(device: str, entry: Entry) -> dict[str, Any]:
    """One entry as JSON can hold it; an infinite error, of what cannot be compared, is null."""
    error = entry.row.judged if entry.row and entry.row.judged < float("inf") else None
    return {
        "model": entry.model,
        "form": entry.form,
        "backend": entry.backend,
        "device": device,
        "error": error,
        "verdict": entry.verdict,
        "seconds": entry.seconds,
    }


if __name__ == "__main__":
    sys.exit(main())

"""The command line: thin. Results go to stdout, progress and complaints to stderr.

Exit status 0: done. 1: verification failed, and nothing was written. 2: bad input or usage.
70: a mistake of ours, with a traceback. 130: interrupted.
The compiler is imported inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, NoReturn

import typer

from fuser.errors import FuserError, InputError, OutputError, VerificationError

if TYPE_CHECKING:
    from rich.console import Console

BUG: Final = 70  # EX_SOFTWARE: a mistake of ours must not look like a failed verification

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help in half the time
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Collapse the linear structure of a trained model, exactly and only where it pays.",
)

Model = Annotated[
    Path,
    typer.Argument(metavar="IN", show_default=False, help="An ONNX file, or a .pt2 file of torch.export."),
]
Original = Annotated[
    Path, typer.Argument(metavar="A", show_default=False, help="The original, an ONNX or .pt2 file.")
]
Other = Annotated[Path, typer.Argument(metavar="B", show_default=False, help="What is compared with it.")]
Passes = Annotated[
    str | None,
    typer.Option(metavar="A,B", show_default=False, help="Only these passes (see `graph-fuser passes`)."),
]
Exclude = Annotated[str | None, typer.Option(metavar="C,D", show_default=False, help="All passes but these.")]
ZeroBelow = Annotated[
    float,
    typer.Option(
        metavar="X", show_default=False, help="Weights up to X times their kernel's largest count as zero."
    ),
]
Json = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", show_default=False, help="Write the result as JSON too; - prints it instead."
    ),
]
Certificate = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        show_default=False,
        help="The proof of every rewrite: written by optimize, checked by verify.",
    ),
]


@app.command()
def optimize(
    source: Model,
    output: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="OUT", show_default=False, help="Where to write; may be IN."),
    ],
    json: Json = None,
    passes: Passes = None,
    exclude: Exclude = None,
    zero_below: ZeroBelow = 0.0,
    no_verify: Annotated[
        bool, typer.Option("--no-verify", help="Do not compare the result with IN.")
    ] = False,
    bench: Annotated[bool, typer.Option("--bench", help="Time the result against IN.")] = False,
    certificate: Certificate = None,
) -> None:
    """Optimize IN, verify the result, and write it to OUT."""
    if json is not None and json.resolve() in {source.resolve(), output.resolve()}:
        raise InputError(f"--json {json} is also the path of a model")
    with working(f"Optimizing {source}"):
        import fuser
        from fuser.report import print_report

        report = fuser.optimize_file(
            source,
            output,
            passes=names(passes),
            exclude=names(exclude) or (),
            zero_below=zero_below,
            verify=not no_verify,
            bench=bench,
            certificate=certificate,
        )
    emit(report.to_dict, json, lambda console: print_report(report, console))


@app.command()
def inspect(
    source: Model,
    json: Json = None,
    passes: Passes = None,
    exclude: Exclude = None,
    zero_below: ZeroBelow = 0.0,
) -> None:
    """Say what `optimize` would do to IN, and why not the rest.

    Writes no model.
    """
    with working(f"Inspecting {source}"):
        import fuser
        from fuser.report import print_inspection

        report = fuser.inspect_file(
            source, passes=names(passes), exclude=names(exclude) or (), zero_below=zero_below
        )
    emit(report.to_dict, json, lambda console: print_inspection(report, console))


@app.command()
def verify(
    a: Original,
    b: Other,
    inputs: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", show_default=False, help="Inputs as .npz or .npy, in place of random ones."
        ),
    ] = None,
    certificate: Certificate = None,
    json: Json = None,
) -> None:
    """Compare what A and B compute; exit status 1 if they differ.

    Of an A of torch, B may be the ONNX file that was exported.
    """
    with working(f"Comparing {a} and {b}"):
        import fuser
        from fuser.report import print_verification

        result = fuser.verify(a, b, inputs=inputs, certificate=certificate)
    emit(result.to_dict, json, lambda console: print_verification(result, console))
    if not result.ok:
        raise VerificationError(f"{b} does not compute what {a} computes: {result.reason}")


@app.command()
def bench(
    a: Original,
    b: Other,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", show_default=False, help="Threads of the runtime; all if not given."
        ),
    ] = None,
    backend: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            show_default=False,
            help="For .pt2 files: eager (if not given), inductor or inductor-freezing.",
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            metavar="cpu|cuda", show_default=False, help="For .pt2 files; where they are if not given."
        ),
    ] = None,
    json: Json = None,
) -> None:
    """Time B against A on onnxruntime, or .pt2 files on torch.

    Both run in turn, in one process; onnxruntime with all its optimizations on.
    """
    with working(f"Timing {a} and {b}"):
        import fuser
        from fuser.report import print_benchmark

        result = fuser.benchmark(a, b, threads=threads, backend=backend, device=device)
    emit(result.to_dict, json, lambda console: print_benchmark(result, console))


@app.command()
def passes(json: Json = None) -> None:
    """List the passes in the order in which they are tried."""
    import fuser
    from fuser.report import print_passes

    known = fuser.pass_names()
    emit(
        lambda: [{"name": name, "rewrite": text} for name, text in known],
        json,
        lambda c: print_passes(known, c),
    )


@app.command()
def demo() -> None:
    """Do it all to a RepVGG-A0 that is built on the spot.

    Downloads nothing.
    """
    with working("Building and optimizing RepVGG-A0"):
        from fuser.demo import demonstrate
        from fuser.report import print_report

        report = demonstrate()
    emit(report.to_dict, None, lambda console: print_report(report, console))


def names(text: str | None) -> list[str] | None:
    """`A,B` as a list; None where the option was not given."""
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


@contextmanager
def working(what: str) -> Iterator[None]:
    """Show on stderr that something is going on, if a person is watching."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.markup import escape

    with Console(stderr=True).status(escape(what)):
        yield


def emit(result: Callable[[], object], json: Path | None, show: Callable[[Console], None]) -> None:
    """Put a result on stdout as text or as JSON, or as text there and as JSON in a file."""
    from rich.console import Console

    from fuser.report import to_json

    if json == Path("-"):
        sys.stdout.write(to_json(result()))
        return
    if json is not None:
        try:
            json.write_text(to_json(result()), encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{json}: cannot write the report: {error.strerror}") from error
    # Names in a model are anyone's text: brackets are not markup, numbers not to be coloured.
    show(Console(markup=False, emoji=False, highlight=False))


def run(arguments: Sequence[str]) -> int:
    """Run a command and return the exit status; complaints are one sentence on stderr."""
    try:
        app(list(arguments), prog_name="graph-fuser")
    except FuserError as error:
        sys.stderr.write(f"graph-fuser: {error}\n")
        return error.exit_status
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    except KeyboardInterrupt:
        return 130
    except Exception:  # noqa: BLE001  # the last resort
        traceback.print_exc()
        return BUG
    return 0


def main() -> NoReturn:
    """The entry point of the command."""
    if hasattr(signal, "SIGPIPE"):
        # `graph-fuser passes | head -1` ends like any other command there.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    # A name that the terminal cannot show is no reason to fail.
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a TextIOWrapper at the start
    sys.exit(run(sys.argv[1:]))

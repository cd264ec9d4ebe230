"""The command line: thin. Results go to stdout, progress and complaints to stderr.

Exit status 0: done. 1: verification failed, and nothing was written. 2: bad input or usage, or output that
cannot be written. 70: a mistake of ours, with a traceback. 128 and the number of a signal: stopped.
The compiler is imported inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import logging
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, NoReturn

import typer

from fuser.errors import FuserError, InputError, OutputError, VerificationError
from fuser.terminal import Stopped, Unread, complain, end, prepare

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
Strict = Annotated[bool, typer.Option("--strict", help="What could not be proved is a failure too.")]
Inputs = Annotated[
    Path | None,
    typer.Option(metavar="FILE", show_default=False, help="Inputs as .npz or .npy, in place of random ones."),
]
Shape = Annotated[
    list[str] | None,
    typer.Option(
        "--shape",
        metavar="NAME=1,3,224,224",
        show_default=False,
        help="The shape of an input; those of others follow. May be given for several inputs.",
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
    strict: Strict = False,
    bench: Annotated[bool, typer.Option("--bench", help="Time the result against IN.")] = False,
    inputs: Inputs = None,
    shape: Shape = None,
    certificate: Certificate = None,
) -> None:
    """Optimize IN, verify the result, and write it to OUT."""
    guard([source], {"--json": json, "--certificate": certificate}, inputs=inputs, output=output)
    with working(f"Optimizing {source}"):
        import fuser
        from fuser.report.report import print_report

        report = fuser.optimize_file(
            source,
            output,
            passes=names(passes),
            exclude=names(exclude) or (),
            zero_below=zero_below,
            verify=not no_verify,
            strict=strict,
            bench=bench,
            inputs=inputs,
            shapes=shapes(shape),
            certificate=certificate,
        )
    if report.verification is not None and not report.verification.ok:
        warn(f"{output} was written, but could not be proved right: {report.verification.reason}")
    emit(report.to_dict, json, lambda console: print_report(report, console))


@app.command()
def inspect(
    source: Model,
    json: Json = None,
    passes: Passes = None,
    exclude: Exclude = None,
    zero_below: ZeroBelow = 0.0,
    inputs: Inputs = None,
    shape: Shape = None,
) -> None:
    """Say what `optimize` would do to IN, and why not the rest.

    Writes no model.
    """
    guard([source], {"--json": json}, inputs=inputs)
    with working(f"Inspecting {source}"):
        import fuser
        from fuser.report.report import print_inspection

        report = fuser.inspect_file(
            source,
            passes=names(passes),
            exclude=names(exclude) or (),
            zero_below=zero_below,
            inputs=inputs,
            shapes=shapes(shape),
        )
    emit(report.to_dict, json, lambda console: print_inspection(report, console))


@app.command()
def verify(
    a: Original,
    b: Other,
    inputs: Inputs = None,
    shape: Shape = None,
    strict: Strict = False,
    certificate: Certificate = None,
    json: Json = None,
) -> None:
    """Compare what A and B compute; exit status 1 if they differ.

    What cannot be compared here is a warning.

    Of an A of torch, B may be the ONNX file that was exported.
    """
    guard([a, b], {"--json": json}, inputs=inputs, certificate=certificate)
    with working(f"Comparing {a} and {b}"):
        import fuser
        from fuser.report.report import print_verification

        result = fuser.verify(a, b, inputs=inputs, shapes=shapes(shape), certificate=certificate)
    try:
        emit(result.to_dict, json, lambda console: print_verification(result, console))
    finally:  # whether it can be printed or not
        if result.verdict == "differs":
            raise VerificationError(f"{b} does not compute what {a} computes: {result.reason}")
        if not result.ok:
            unproved = f"{b} could not be proved to compute what {a} computes: {result.reason}"
            if strict or certificate is not None:
                raise VerificationError(unproved)
            warn(unproved)


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
    inputs: Inputs = None,
    shape: Shape = None,
    json: Json = None,
) -> None:
    """Time B against A on onnxruntime, or .pt2 files on torch.

    Both run in turn, in one process; onnxruntime with all its optimizations on.
    """
    guard([a, b], {"--json": json}, inputs=inputs)
    with working(f"Timing {a} and {b}"):
        import fuser
        from fuser.report.report import print_benchmark

        result = fuser.benchmark(
            a, b, threads=threads, backend=backend, device=device, inputs=inputs, shapes=shapes(shape)
        )
    emit(result.to_dict, json, lambda console: print_benchmark(result, console))


@app.command()
def reduce(
    source: Annotated[Path, typer.Argument(metavar="IN", show_default=False, help="An ONNX file.")],
    output: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="OUT", show_default=False, help="Where what is left goes."),
    ],
    because: Annotated[
        str | None,
        typer.Option(
            metavar="WHAT",
            show_default=False,
            help="What has to be wrong: crashes, refuses, differs, unproven or hangs.",
        ),
    ] = None,
    seconds: Annotated[
        float, typer.Option(min=0.1, metavar="N", help="A run that takes longer hangs.")
    ] = 60.0,
    json: Json = None,
    passes: Passes = None,
    exclude: Exclude = None,
    zero_below: ZeroBelow = 0.0,
    shape: Shape = None,
) -> None:
    """Cut IN down to the fewest nodes on which `optimize` still fails, for a report of the bug.

    IN is optimized and verified first, and what is wrong is found out: it ends with a traceback, refuses a
    valid file, computes something else, cannot be proved, or does not end. What goes has to leave that as it
    is: nodes, outputs, passes; weights become ones, extents small. Stopped early, OUT is the smallest file
    until then.
    """
    guard([source], {"--json": json, "-o": output}, inputs=None)
    import fuser
    from fuser.report.reduction import print_reduction

    reduction = fuser.reduce_file(
        source,
        output,
        because=because,
        passes=names(passes),
        exclude=names(exclude) or (),
        zero_below=zero_below,
        shapes=shapes(shape),
        seconds=seconds,
        tell=lambda line: complain(f"{line}\n"),
    )
    emit(reduction.to_dict, json, lambda console: print_reduction(reduction, console))


@app.command()
def passes(json: Json = None) -> None:
    """List the passes in the order in which they are tried."""
    import fuser
    from fuser.report.report import print_passes

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
        from fuser.report.report import print_report

        report = demonstrate()
    emit(report.to_dict, None, lambda console: print_report(report, console))


def warn(text: str) -> None:
    """Say on stderr what is no failure, but should be known."""
    complain(f"graph-fuser: warning: {text}\n")


def names(text: str | None) -> list[str] | None:
    """`A,B` as a list; None where the option was not given."""
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def shapes(texts: Sequence[str] | None) -> dict[str, tuple[int, ...]]:
    """`NAME=1,3,224,224` by name; nothing behind the sign is the shape of a scalar.

    Raises:
        InputError: a text is of another form, or two are for one input.
    """
    found: dict[str, tuple[int, ...]] = {}
    for text in texts or ():
        name, sign, listed = text.rpartition("=")
        extents = [part.strip() for part in listed.split(",") if part.strip()]
        if not name or not sign or not all(map(_is_extent, extents)):
            raise InputError(f"--shape {text}: not of the form NAME=1,3,224,224")
        if name in found:
            raise InputError(f"--shape {text}: {name} has shape {list(found[name])} already")
        found[name] = tuple(map(int, extents))
    return found


def _is_extent(text: str) -> bool:
    return text.isdecimal() and len(text) <= sys.int_info.default_max_str_digits


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


def guard(
    models: Sequence[Path],
    texts: dict[str, Path | None],
    *,
    inputs: Path | None,
    output: Path | None = None,
    certificate: Path | None = None,
) -> None:
    """Refuse outputs in the place of each other or of what is read: see `places.require_apart`.

    Raises:
        FuserError: with both places.
    """
    if texts["--json"] == Path("-"):
        texts = texts | {"--json": None}
    if output is None and not any(texts.values()):
        return
    from fuser.places import require_apart

    reads = {"the inputs": inputs, "the certificate": certificate}
    require_apart(models, result=output, texts=texts, reads=reads)


def emit(result: Callable[[], object], json: Path | None, show: Callable[[Console], None]) -> None:
    """Put a result on stdout as text or as JSON, or as text there and as JSON in a file."""
    from rich.console import Console

    from fuser.report.report import to_json

    if json == Path("-"):
        sys.stdout.write(to_json(result()))
        return
    if json is not None:
        from fuser.hosts.output import write_text

        try:
            write_text(json, to_json(result()))
        except OSError as error:
            raise OutputError(f"{json}: cannot write the report: {error.strerror}") from error
    # Names in a model are anyone's text: brackets are not markup, numbers not to be coloured.
    show(Console(markup=False, emoji=False, highlight=False))


def run(arguments: Sequence[str]) -> int:
    """Run a command and return the exit status; complaints are one sentence on stderr."""
    # What libraries wonder about is no complaint of ours. onnx-ir tells stderr unless somebody listens.
    logging.getLogger("onnx_ir").addHandler(logging.NullHandler())
    try:
        status = _run(arguments)
        sys.stdout.flush()
    except Unread:
        return 128 + signal.SIGPIPE
    except FuserError as error:
        # Names in a model are anyone's text, and may hold line breaks.
        complain(f"graph-fuser: {' '.join(str(error).split())}\n")
        return error.exit_status
    except KeyboardInterrupt:
        return 130
    except Stopped as stopped:
        return stopped.exit_status
    except Exception:  # noqa: BLE001  # the last resort
        complain(traceback.format_exc())
        return BUG
    return status


def _run(arguments: Sequence[str]) -> int:
    """The exit status that typer ends a command with."""
    try:
        with warnings.catch_warnings():
            if not sys.warnoptions:
                warnings.simplefilter("ignore")
            app(list(arguments), prog_name="graph-fuser")
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else 0
    return 0


def main() -> NoReturn:
    """The entry point of the command."""
    prepare()
    end(run(sys.argv[1:]))

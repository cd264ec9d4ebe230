"""What happened to a model, as JSON and as text: rewrites made and declined, costs, proof and timing."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from fuser.bench.benchmark import Benchmark
    from fuser.hosts.summary import Summary
    from fuser.judge.compare import Row
    from fuser.judge.verification import Verification
    from fuser.rewrite.pattern import Event

PROOFS: Final = {"run": "ok", "float64": "ok in float64", "values": "ok value by value"}
"""What shows that an output is right, by what proved it."""


@dataclass
class Report:
    """The outcome of `optimize` for one model.

    `events` holds every rewrite that was applied and every one that was considered and declined. `seconds` is
    the time of the compiler, without verification and timing. `source`: the file, or what else the model is.
    """

    events: list[Event]
    before: Summary
    after: Summary
    seconds: float
    verification: Verification | None = None
    benchmark: Benchmark | None = None
    source: str = ""

    @property
    def applied(self) -> list[Event]:
        """The rewrites that were made, in order."""
        return [event for event in self.events if event.status == "applied"]

    @property
    def declined(self) -> list[Event]:
        """The rewrites that were considered and refused, with their reasons."""
        return [event for event in self.events if event.status == "declined"]

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON can hold it."""
        return {
            "source": self.source,
            "seconds": self.seconds,
            "before": self.before.to_dict(),
            "after": self.after.to_dict(),
            "applied": [_event(event, removed=list(event.removed)) for event in self.applied],
            "declined": [_event(event, reason=event.reason) for event in self.declined],
            "verification": self.verification.to_dict() if self.verification else None,
            "benchmark": self.benchmark.to_dict() if self.benchmark else None,
        }

    def to_json(self) -> str:
        """`to_dict` as text that ends in a newline."""
        return to_json(self.to_dict())


def _event(event: Event, **more: object) -> dict[str, object]:
    return {"rewrite": event.rewrite, "graph": event.graph, "node": event.node, **more}


def to_json(result: object) -> str:
    """JSON for machines; what is not finite is written as a string, for JSON has no number for it."""
    return json.dumps(_finite(result), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    if isinstance(value, float) and not float("-inf") < value < float("inf"):
        return str(value)
    return value


def print_report(report: Report, console: Console) -> None:
    """The table before and after, and a line each on rewrites, refusals, proof and timing."""
    console.print(comparison(report.before, report.after))
    for title, text in _lines(report):
        say(console, f"{title:<10}{text}")


def _lines(report: Report) -> Iterator[tuple[str, str]]:
    counts = Counter(event.rewrite for event in report.applied)
    yield "applied", ", ".join(f"{name} {count}" for name, count in counts.items()) or "nothing"
    if declined := len(report.declined):
        yield "declined", f"{declined}; `graph-fuser inspect {report.source}` says what and why"
    if report.verification:
        yield "verified", verdict(report.verification)
    if report.benchmark:
        yield "timed", timing(report.benchmark)
    proof = report.verification
    yield "took", f"{report.seconds:.2f} s" + (f", and {proof.seconds:.2f} s to verify" if proof else "")


def print_inspection(report: Report, console: Console) -> None:
    """What would happen to a model, and every refusal under its reason, with the nodes."""
    console.print(comparison(report.before, report.after))
    applied: dict[str, list[str]] = {}
    for event in report.applied:
        applied.setdefault(event.rewrite, []).append(event.node)
    for rewrite, nodes in applied.items():
        say(console, f"{rewrite} applies ({len(nodes)})", f"    {', '.join(nodes)}")
    _print_declined(report.declined, console)
    if not report.events:
        say(console, "No pass found anything to look at.")


def _print_declined(events: Sequence[Event], console: Console) -> None:
    """Refusals by pass and reason; those of one kind, which differ in their values only, stand together."""
    kinds: dict[tuple[str, str], dict[str, list[str]]] = {}
    for event in events:
        kind, _, values = event.reason.partition(": ")
        kinds.setdefault((event.rewrite, kind), {}).setdefault(values, []).append(event.node)
    for (rewrite, kind), reasons in kinds.items():
        number = sum(map(len, reasons.values()))
        if len(reasons) == 1:
            ((values, nodes),) = reasons.items()
            whole = f"{kind}: {values}" if values else kind
            say(console, f"{rewrite} declined ({number}): {whole}", f"    {', '.join(nodes)}")
            continue
        say(console, f"{rewrite} declined ({number}): {kind}")
        for values, nodes in reasons.items():
            say(console, f"    {values}", f"        {', '.join(nodes)}")


def print_verification(verification: Verification, console: Console) -> None:
    """Each output of each sample with its errors, and the verdict."""
    from rich import box
    from rich.table import Table

    table = Table(
        "output", "shape", "scale", "error", "own error", "tolerance", "", box=box.SIMPLE_HEAD, pad_edge=False
    )
    for row in verification.rows:
        table.add_row(
            row.output,
            "x".join(map(str, row.shape)) or "scalar",
            f"{row.scale:.3g}",
            f"{_judged(row):.1e}",
            "" if row.own_error is None else f"{row.own_error:.1e}",
            f"{row.tolerance:.1e}",
            PROOFS[row.proof] if row.ok else "not proved" if row.unproven else "DIFFERS",
            style="" if row.ok else "yellow" if row.unproven else "red",
        )
    console.print(table)
    for note in verification.notes:
        say(console, f"note: {note}")
    say(console, verdict(verification))


def verdict(verification: Verification) -> str:
    """The error nearest to its tolerance in one line, beside what its own type costs the original."""
    if verification.verdict == "differs":
        return f"FAILED: {verification.reason}"
    if verification.verdict == "unproven":
        return f"NOT PROVED: {verification.reason}"
    row, values = verification.worst, verification.values
    if row is None:
        return "there are no outputs to compare"
    own = (
        f"the original's own {row.dtype} error {row.own_error:.1e}"
        if row.own_error is not None
        else "no float64 evaluation"
    )
    text = f"error {_judged(row):.1e} of the output's scale ({own}; {len(verification.samples)} inputs)"
    if values is not None:
        text += f"; {values.compared} inner values compared one by one: error {values.error:.1e}"
    return text


def _judged(row: Row) -> float:
    """The error that the verdict is about: against float64 where that can be had."""
    return row.error if row.float64_error is None else row.float64_error


def print_benchmark(benchmark: Benchmark, console: Console) -> None:
    """Quartiles of both times and of the ratio, and what they were measured on."""
    from rich import box
    from rich.table import Table

    table = Table("", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("first quartile", "median", "third quartile"):
        table.add_column(heading, justify="right")
    for title, row in (
        ("A, ms", benchmark.original_ms),
        ("B, ms", benchmark.result_ms),
        ("A / B", benchmark.speedup),
    ):
        table.add_row(title, f"{row.low:.3f}", f"{row.median:.3f}", f"{row.high:.3f}")
    console.print(table)
    say(console, timing(benchmark))


def timing(benchmark: Benchmark) -> str:
    """The ratio of the times in one line, with its spread and what it was measured on."""
    ratio = benchmark.speedup
    shapes = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in benchmark.inputs.items())
    return (
        f"{ratio.median:.2f} x as fast ({ratio.low:.2f} to {ratio.high:.2f}): "
        f"{benchmark.original_ms.median:.2f} ms -> {benchmark.result_ms.median:.2f} ms, "
        f"median of {benchmark.runs} pairs; "
        f"{shapes}; {benchmark.threads} threads, {benchmark.runtime}"
    )


def print_passes(passes: Sequence[tuple[str, str]], console: Console) -> None:
    """Every pass with its equation."""
    width = max((len(name) for name, _ in passes), default=0)
    for name, equation in passes:
        say(console, f"{name:<{width}}  {equation}")


def say(console: Console, *lines: str) -> None:
    """Print lines that a terminal wraps and a file does not: who searches a file looks for whole lines."""
    for line in lines:
        console.print(line, soft_wrap=not console.is_terminal)


def comparison(before: Summary, after: Summary) -> Table:
    """Nodes by operator, parameters, multiply-adds and bytes, before and after."""
    from rich import box
    from rich.table import Table

    table = Table("", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("before", "after", "change"):
        table.add_column(heading, justify="right")
    for operator in sorted({*before.operators, *after.operators}):
        _row(table, operator, before.operators.get(operator, 0), after.operators.get(operator, 0), str)
    table.add_section()
    _row(table, "all nodes", before.nodes, after.nodes, str)
    _row(table, "parameters", before.parameters, after.parameters, short)
    _row(table, "multiply-adds", before.multiply_adds, after.multiply_adds, short)
    _row(table, "bytes", before.weight_bytes, after.weight_bytes, lambda number: f"{short(number)}B")
    return table


def _row(table: Table, title: str, before: int | None, after: int | None, form: Callable[[int], str]) -> None:
    if before is None or after is None:
        table.add_row(
            title, *("unknown" if number is None else form(number) for number in (before, after)), ""
        )
        return
    change = "" if before == after else f"{100 * (after - before) / before:+.1f}%" if before else "new"
    style = "green" if after < before else "yellow" if after > before else ""
    table.add_row(title, form(before), form(after), change, style=style)


def short(number: int) -> str:
    """A count in thousands, millions or billions: `1.51 G`."""
    for factor, prefix in ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= factor:
            return f"{number / factor:.3g} {prefix}"
    return f"{number} "

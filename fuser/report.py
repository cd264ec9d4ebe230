"""What happened to a model: rewrites applied and declined, before and after, proof and timing. As JSON and as text."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fuser.summary import Summary, summarise

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from fuser.bench import Benchmark
    from fuser.rewrite import Event
    from fuser.verify import Verification

__all__ = ["Report", "Summary", "summarise"]


@dataclass
class Report:
    """The outcome of `optimize` for one model.

    `events` holds every rewrite that was applied and every one that was considered and declined. `seconds` is the time
    of the compiler, without verification and timing. `source` is the file or what else the model came from.
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


# --- as text ---------------------------------------------------------------------------------------------------------


def print_report(report: Report, console: Console) -> None:
    """The table before and after, and a line each on rewrites, refusals, proof and timing."""
    console.print(comparison(report.before, report.after))
    for title, text in _lines(report):
        say(console, f"{title:<10} {text}")


def _lines(report: Report) -> Iterator[tuple[str, str]]:
    counts = Counter(event.rewrite for event in report.applied)
    yield "applied", ", ".join(f"{name} {count}" for name, count in counts.items()) or "nothing"
    if declined := len(report.declined):
        yield "declined", f"{declined} rewrites; `graph-fuser inspect {report.source}` says which and why"
    if report.verification:
        yield "verified", verdict(report.verification)
    if report.benchmark:
        yield "timed", timing(report.benchmark)
    yield "took", f"{report.seconds:.2f} s" + (
        f", and {report.verification.seconds:.2f} s to verify" if report.verification else ""
    )


def print_inspection(report: Report, console: Console) -> None:
    """What would happen to a model, and every refusal by its reason."""
    console.print(comparison(report.before, report.after))
    made: dict[str, list[str]] = {}
    for event in report.applied:
        made.setdefault(event.rewrite, []).append(_place(event))
    for rewrite, nodes in made.items():
        say(console, f"would apply {rewrite} ({len(nodes)})", f"  {', '.join(nodes)}")
    refused: dict[tuple[str, str], list[str]] = {}
    for event in report.declined:
        refused.setdefault((event.rewrite, event.reason), []).append(_place(event))
    for (rewrite, reason), nodes in refused.items():
        say(console, f"{rewrite} declined ({len(nodes)}): {reason}", f"  {', '.join(nodes)}")
    if not made:
        say(console, "nothing to do")


def _place(event: Event) -> str:
    return event.node


def say(console: Console, *lines: str) -> None:
    """Print lines that a terminal wraps and a file does not, for what reads a file looks for whole lines."""
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
    _row(table, "parameters", before.parameters, after.parameters, si)
    _row(table, "multiply-adds", before.multiply_adds, after.multiply_adds, si)
    _row(table, "weights", before.weight_bytes, after.weight_bytes, size)
    if before.file_bytes is not None and after.file_bytes is not None:
        _row(table, "file", before.file_bytes, after.file_bytes, size)
    return table


def _row(table: Table, title: str, before: int | None, after: int | None, form: Any) -> None:
    known = before is not None and after is not None
    changed = known and before != after
    table.add_row(
        title,
        "unknown" if before is None else form(before),
        "unknown" if after is None else form(after),
        f"{100 * (after - before) / before:+.1f}%" if changed and before else "new" if changed else "",
        style="green" if changed and after < before else "yellow" if changed else "",
    )


def si(number: float) -> str:
    """A count in thousands, millions or billions: `1.51 G`."""
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= factor:
            return f"{number / factor:.3g} {prefix}"
    return f"{number:g}"


def size(number: float) -> str:
    """A number of bytes: `36.5 MB`."""
    return f"{si(number)}B" if number >= 1000 else f"{number:g} B"


def verdict(verification: Verification) -> str:
    """The largest error in one line, beside what float32 itself costs the original."""
    rows = verification.rows
    if not verification.ok:
        return f"FAILED: {verification.reason}"
    if not rows:
        return "no outputs to compare"
    worst = max(rows, key=lambda row: row.error)
    own = "" if worst.own_error is None else f"; the original's own float32 error: {worst.own_error:.1e}"
    return f"equal: error {worst.error:.1e} of the output's scale{own}"


def timing(benchmark: Benchmark) -> str:
    """The speed-up in one line, with its spread."""
    return str(benchmark)

"""The matrix at the end of a run, in colour where rich is installed and the output is a terminal."""

from __future__ import annotations

from collections.abc import Callable

from messaging_contract.declarations import unproven
from messaging_contract.matrix import Matrix, summary
from messaging_contract.runner import Outcome

_STYLE = {
    Outcome.PASS: "green",
    Outcome.EMULATED: "blue",
    Outcome.REFUSED: "yellow",
    Outcome.FAILED: "bold red",
    Outcome.NOT_RUN: "dim",
}


def show(matrix: Matrix, line: Callable[[str], None], colour: bool, width: int) -> None:
    """Writes the matrix through `line`, one line a call."""
    text = _rich(matrix, width) if colour else None
    for each in text or _plain(matrix):
        line(each)
    for broker in matrix.brokers:
        line(f"{broker}: {summary(matrix, broker)}{_slowest(matrix, broker)}")
    for broker, facts in matrix.facts.items():
        for concern in facts.concerns:
            line("")
            line(f"{broker}: {concern}")
            line(f"    {concern.why}")
            if concern.change:
                line(f"    to change it: {concern.change}")
    for missing in unproven(matrix):
        line(missing)


def _slowest(matrix: Matrix, broker: str) -> str:
    slowest = max((r for r in matrix.results if r.broker == broker), key=lambda r: r.seconds, default=None)
    return f"; the slowest {slowest.clause}, {slowest.seconds:.1f} s" if slowest and slowest.seconds > 1 else ""


def _rich(matrix: Matrix, width: int) -> list[str] | None:
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        return None
    table = Table(box=None, pad_edge=False)
    table.add_column("clause", no_wrap=True)
    for broker in matrix.brokers:
        table.add_column(broker)
    for clause in matrix.clauses:
        outcomes = [matrix.outcome(clause.id, broker).outcome for broker in matrix.brokers]
        table.add_row(clause.id, *(f"[{_STYLE[o]}]{o.value}[/]" for o in outcomes))
    console = Console(width=max(width, 80), force_terminal=True)
    with console.capture() as capture:
        console.print(table)
    return capture.get().splitlines()


def _plain(matrix: Matrix) -> list[str]:
    first = max((len(clause.id) for clause in matrix.clauses), default=6)
    widths = [max(len(broker), 8) for broker in matrix.brokers]
    rows = [("clause", *matrix.brokers)]
    rows += [(c.id, *(matrix.outcome(c.id, b).outcome.value for b in matrix.brokers)) for c in matrix.clauses]
    return ["  ".join(cell.ljust(w) for cell, w in zip(row, (first, *widths), strict=True)).rstrip() for row in rows]

"""How a finished demo reads: a table a group, what is in the dead-letter queues, and whether the ledger balances."""

from __future__ import annotations

from collections import Counter

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from messaging.demo import Report


def print_report(report: Report, console: Console) -> None:
    """To `console`. The only numbers that differ between brokers are those of speed, and duplicates where there are."""
    # Fits into 80 columns, so that it reads the same in a file and on a narrow terminal.
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("group", no_wrap=True)
    for name in ("received", "handled", "retried", "dead-lettered", "duplicates", "orders/s"):
        table.add_column(name, justify="right", no_wrap=True)
    for group in report.groups:
        counts = (group.received, group.handled, group.retried, group.dead_lettered, group.duplicates)
        table.add_row(group.group, *map(str, counts), f"{group.per_second:,.0f}")
    console.print()
    console.print(table)
    console.print()
    _print_dead_letters(report, console)
    if any(group.duplicates for group in report.groups):
        console.print("Duplicates were delivered (at-least-once) and skipped: the handlers are idempotent.")
    if report.balanced:
        console.print(
            f"[green]Ledger balances[/]: {report.published} published = handled + dead-lettered, in each group.",
        )
        return
    console.print(f"[red]Ledger does not balance[/]: {report.orders} orders, {report.published} published.")
    for group in report.groups:
        for problem in group.problems:
            console.print(escape(f"  {group.group}: {problem}"))


def _print_dead_letters(report: Report, console: Console) -> None:
    console.print("Dead letters, read back from their queues:")
    for group in report.groups:
        reasons = Counter(group.dead_letters.values())
        for reason, count in sorted(reasons.items()):
            console.print(escape(f"  {group.group}: {count} x {reason}"))
    if not any(group.dead_letters for group in report.groups):
        console.print("  none")

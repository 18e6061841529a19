"""The results as tables, and as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

try:
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table
except ImportError as error:
    raise SystemExit(
        f"the benchmarks need {error.name}: python -m pip install -r benchmarks/requirements.txt"
    ) from error

Results = Mapping[str, Any]


def write_json(results: Results, path: str) -> None:
    """Everything that was measured, each round of it."""
    Path(path).write_text(json.dumps(results, indent=2) + "\n", "utf-8")


def console() -> Console:
    """A console that does not wrap tables when nobody sees its width."""
    return Console() if sys.stdout.isatty() else Console(width=150)


def show(results: Results, out: Console) -> None:
    """The tables."""
    machine = results["machine"]
    out.print(f"{machine['cpu']}, {machine['cores']} cores, {machine['system']}, Python {machine['python']}")
    out.print(f"{machine['date']}, load {machine['load']}, commit {machine['commit']}")
    out.print(", ".join(f"{name} {number}" for name, number in machine["versions"].items()), highlight=False)
    for part in results["parts"]:
        _show_part(part, out)
    if results.get("worker"):
        _show_worker(results["worker"], out)
    if results.get("exactly_once"):
        _show_exactly_once(results["exactly_once"], out)
    for part in results.get("flatness", ()):
        _show_flatness(part, out)


def _show_part(part: Results, out: Console) -> None:
    out.print(f"\n[bold]{escape(part['title'])}[/bold]")
    out.print(
        escape(", ".join(f"{k} {v}" for k, v in part["settings"].items())) + "; the same for all", highlight=False
    )
    for name, carries in part["carries"].items():
        out.print(f"  {escape(name)} carries beside the payload: {escape(carries)}", highlight=False)
    for name, why in part["missing"].items():
        out.print(f"  [yellow]{escape(name)}: {escape(why)}[/yellow]", highlight=False)
    if part["note"]:
        out.print(f"  {escape(part['note'])}", highlight=False)
    for scenario in part["scenarios"]:
        out.print(_scenario_table(scenario))


def _scenario_table(scenario: Results) -> Table:
    table = Table(title=scenario["title"], box=box.SIMPLE, title_justify="left", title_style="bold")
    table.add_column("client")
    table.add_column("messages", justify="right")
    for column in ("", "median", "min", "max"):
        table.add_column(column, justify="right")
    table.add_column("ours / this", justify="right")
    table.add_column("min..max", justify="right")
    table.add_column("target", justify="right")
    for row in scenario["contenders"]:
        if row["error"]:
            table.add_row(escape(row["contender"]), "", f"[yellow]failed: {escape(row['error'])}[/yellow]")
        for name, entry in row["metrics"].items():
            label = entry["unit"] if name == "rate" else f"{name}, {entry['unit']}"
            values = [number(entry[key]) for key in ("median", "min", "max")]
            table.add_row(escape(row["contender"]), f"{row['messages']:,}", label, *values, *_ratio_cells(entry))
    return table


def _ratio_cells(entry: Results) -> list[str]:
    ratio = entry.get("ours_to_this")
    if ratio is None:
        return ["", "", ""]
    cells = [f"{number(ratio['median'])}x", f"{number(ratio['min'])}..{number(ratio['max'])}"]
    if "target" not in entry:
        return [*cells, ""]
    verdict = "[green]met[/green]" if entry["met"] else "[red]not met[/red]"
    return [*cells, f">= {entry['target']:g}x {verdict}"]


def _show_worker(cases: list[Results], out: Console) -> None:
    table = Table(
        title="Worker: microseconds a message, handler does nothing, memory broker",
        box=box.SIMPLE,
        title_justify="left",
        title_style="bold",
    )
    for column in ("concurrency", "messages", "for-loop with ack", "worker", "overhead", "min..max", "target"):
        table.add_column(column, justify="left" if column == "concurrency" else "right")
    for case in cases:
        verdict = "[green]met[/green]" if case["met"] else "[red]not met[/red]"
        over = case["overhead"]
        table.add_row(
            case["case"],
            f"{case['messages']:,}",
            number(case["loop"]["median"]),
            number(case["worker"]["median"]),
            number(over["median"]),
            f"{number(over['min'])}..{number(over['max'])}",
            f"<= {case['target']:g} {verdict}",
        )
    out.print(table)


def _show_exactly_once(cases: list[Results], out: Console) -> None:
    title = "Exactly once: consume, process, produce; messages a second"
    table = Table(title=title, box=box.SIMPLE, title_justify="left", title_style="bold")
    for column in ("messages a batch", "messages", "at least once", "exactly once", "exactly / at least", "min..max"):
        table.add_column(column, justify="right")
    for case in cases:
        ratio = case["ratio"]
        table.add_row(
            str(case["batch"]),
            number(case["messages"]),
            number(case["at_least_once"]["median"]),
            number(case["exactly_once"]["median"]),
            f"{ratio['median']:.2f}",
            f"{ratio['min']:.2f}..{ratio['max']:.2f}",
        )
    out.print(table)


def _show_flatness(part: Results, out: Console) -> None:
    verdict = "[green]flat[/green]" if part["flat"] else "[red]grows[/red]"
    samples = part["samples"]
    picked = [samples[len(samples) * k // 4] for k in range(4)] + [samples[-1]] if len(samples) > 5 else samples
    shown = ", ".join(f"{mib:g} after {done:,}" for done, mib in picked)
    out.print(
        f"Memory, {escape(part['title'])}, {part['messages']:,} messages: {verdict}, "
        f"+{part['growth']:.1f} MiB after the first fifth (limit {part['limit']:g}); MiB: {shown}",
        highlight=False,
    )


def number(value: float) -> str:
    """Three significant digits, thousands separated."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"

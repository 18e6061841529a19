"""The matrix of clause x broker, as text, Markdown, JSON and HTML."""

from __future__ import annotations

import html
import json
import platform
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from messaging_contract.clause import Clause
from messaging_contract.runner import Outcome, Result

FORMATS = ("md", "json", "html")

_EXPLAINED = {
    Outcome.FAILED: "Failures",
    Outcome.EMULATED: "How it is emulated",
    Outcome.REFUSED: "Why it is refused",
    Outcome.NOT_RUN: "Why it was not run",
}
"""The outcomes whose details are told below the table, worst first."""

_COLOUR = {
    Outcome.PASS: "#1a7f37",
    Outcome.EMULATED: "#0969da",
    Outcome.REFUSED: "#9a6700",
    Outcome.FAILED: "#cf222e",
    Outcome.NOT_RUN: "#6e7781",
}


@dataclass(frozen=True)
class Matrix:
    """What the run showed. brokers: the columns. unavailable: why a broker was not run at all, by name."""

    clauses: Sequence[Clause]
    brokers: Sequence[str]
    results: Sequence[Result]
    unavailable: dict[str, str]

    def outcome(self, clause: str, broker: str) -> Result:
        """The result in one cell; not run when there is none."""
        for result in self.results:
            if (result.clause, result.broker) == (clause, broker):
                return result
        return Result(clause, broker, Outcome.NOT_RUN, detail=self.unavailable.get(broker, ""))

    def counts(self, broker: str) -> Counter[Outcome]:
        """How many clauses ended how on a broker."""
        return Counter(self.outcome(clause.id, broker).outcome for clause in self.clauses)

    def seconds(self, broker: str) -> float:
        """How long the clauses took on a broker."""
        return sum(result.seconds for result in self.results if result.broker == broker)


def write(matrix: Matrix, path: Path) -> None:
    """Writes the report in the format of the suffix. Raises ValueError for one that is not in `FORMATS`."""
    render = {"md": markdown, "json": as_json, "html": as_html}.get(check_path(path))
    assert render is not None
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render(matrix), "utf-8")


def check_path(path: Path) -> str:
    """The format of a report file. Raises ValueError when it is not in `FORMATS`."""
    suffix = path.suffix.removeprefix(".")
    if suffix not in FORMATS:
        raise ValueError(f"report {str(path)!r}: the name must end in .{', .'.join(FORMATS)}")
    return suffix


def summary(matrix: Matrix, broker: str) -> str:
    """One line about a broker."""
    if broker in matrix.unavailable:
        return f"not run: {matrix.unavailable[broker]}"
    counts = matrix.counts(broker)
    return ", ".join(f"{counts[o]} {o.value}" for o in Outcome if counts[o]) + f" in {matrix.seconds(broker):.0f} s"


def markdown(matrix: Matrix) -> str:
    lines = ["# Contract report", "", _made(), ""]
    lines += [f"- **{broker}**: {_cell(summary(matrix, broker))}" for broker in matrix.brokers]
    lines += ["", f"| clause | {' | '.join(map(_cell, matrix.brokers))} |", f"|---|{'---|' * len(matrix.brokers)}"]
    for clause in matrix.clauses:
        cells = [matrix.outcome(clause.id, broker).outcome.value for broker in matrix.brokers]
        lines.append(f"| `{clause.id}` {_cell(clause.sentence)} | {' | '.join(cells)} |")
    for outcome, title in _EXPLAINED.items():
        if notes := _notes(matrix, outcome):
            lines += ["", f"## {title}", ""]
            lines += [f"- {', '.join(f'`{id}`' for id in ids)} on {broker}: {_cell(d)}" for (broker, d), ids in notes]
    return "\n".join(lines) + "\n"


def _notes(matrix: Matrix, outcome: Outcome) -> list[tuple[tuple[str, str], list[str]]]:
    """The details of all results with that outcome, each once a broker, with the clauses it is about."""
    found: dict[tuple[str, str], list[str]] = {}
    for result in matrix.results:
        if result.outcome is outcome and result.detail:
            found.setdefault((result.broker, result.detail), []).append(result.clause)
    return list(found.items())


def _made() -> str:
    """When, and with what."""
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return f"{now}, anybroker {version('anybroker')}, Python {platform.python_version()}, {platform.platform()}"


def as_json(matrix: Matrix) -> str:
    return json.dumps(
        {
            "made": _made(),
            "brokers": [
                {
                    "name": broker,
                    "unavailable": matrix.unavailable.get(broker),
                    "seconds": round(matrix.seconds(broker), 3),
                    "counts": {o.value: n for o, n in matrix.counts(broker).items()},
                }
                for broker in matrix.brokers
            ],
            "clauses": [
                {
                    **describe(clause),
                    "results": {
                        broker: {
                            "outcome": (result := matrix.outcome(clause.id, broker)).outcome.value,
                            "seconds": round(result.seconds, 3),
                            "detail": result.detail,
                        }
                        for broker in matrix.brokers
                    },
                }
                for clause in matrix.clauses
            ],
        },
        indent=1,
    )


def describe(clause: Clause) -> dict[str, object]:
    """A clause without its function, as `--list --json` shows it."""
    return {
        "id": clause.id,
        "sentence": clause.sentence,
        "on": list(clause.on),
        "anchors": list(clause.anchors),
        "failures": list(clause.failures),
        "capabilities": list(clause.needs),
        "controls": list(clause.controls),
    }


def as_html(matrix: Matrix) -> str:
    head = "".join(f"<th>{html.escape(broker)}</th>" for broker in matrix.brokers)
    rows = "".join(f"<tr>{_html_row(matrix, clause)}</tr>\n" for clause in matrix.clauses)
    lines = "".join(
        f"<li><b>{html.escape(broker)}</b>: {html.escape(summary(matrix, broker))}</li>" for broker in matrix.brokers
    )
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>Contract report</title>"
        "<style>body{font:14px system-ui;margin:2em}table{border-collapse:collapse}td,th{padding:.3em .6em;"
        "border-bottom:1px solid #ddd;text-align:left;vertical-align:top}th{position:sticky;top:0;background:#fff}"
        "code{white-space:nowrap}pre{white-space:pre-wrap;margin:.3em 0}</style>"
        f"<h1>Contract report</h1><p>{html.escape(_made())}</p><ul>{lines}</ul>"
        f"<table><tr><th>clause</th><th></th>{head}</tr>\n{rows}</table>\n{_html_notes(matrix)}</html>\n"
    )


def _html_notes(matrix: Matrix) -> str:
    parts = []
    for outcome, title in _EXPLAINED.items():
        if notes := _notes(matrix, outcome):
            parts.append(f"<h2>{title}</h2>\n<ul>")
            for (broker, detail), ids in notes:
                clauses = ", ".join(f"<code>{html.escape(id)}</code>" for id in ids)
                parts.append(f"<li>{clauses} on {html.escape(broker)}:<pre>{html.escape(detail)}</pre></li>\n")
            parts.append("</ul>\n")
    return "".join(parts)


def _html_row(matrix: Matrix, clause: Clause) -> str:
    cells = [f"<td><code>{html.escape(clause.id)}</code></td><td>{html.escape(clause.sentence)}</td>"]
    for broker in matrix.brokers:
        result = matrix.outcome(clause.id, broker)
        style, title = f"color:{_COLOUR[result.outcome]}", html.escape(result.detail, quote=True)
        cells.append(f'<td style="{style}" title="{title}">{result.outcome.value}</td>')
    return "".join(cells)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")

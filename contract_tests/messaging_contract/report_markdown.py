"""The report as Markdown."""

from __future__ import annotations

from messaging_contract.declarations import unproven
from messaging_contract.matrix import EXPLAINED, Matrix, summary
from messaging_contract.runner import Outcome, Result


def as_markdown(matrix: Matrix, made: str) -> str:
    lines = ["# Contract report", "", made, ""]
    lines += [f"- **{broker}**: {_cell(summary(matrix, broker))}" for broker in matrix.brokers]
    lines += ["", f"| clause | {' | '.join(_heading(matrix, broker) for broker in matrix.brokers)} |"]
    lines.append(f"|---|{'---|' * len(matrix.brokers)}")
    for clause in matrix.clauses:
        cells = [_outcome(matrix.outcome(clause.id, broker)) for broker in matrix.brokers]
        lines.append(f"| `{clause.id}` {_cell(clause.sentence)} | {' | '.join(cells)} |")
    if missing := unproven(matrix):
        lines += ["", "## Declared and not proven", "", *(f"- {_cell(each)}" for each in missing)]
    for broker, facts in matrix.facts.items():
        if facts.concerns:
            lines += ["", f"## What the settings of {_cell(broker)} do not uphold", ""]
            for concern in facts.concerns:
                change = f" To change it: {concern.change}." if concern.change else ""
                lines.append(f"- **{_cell(str(concern))}**. {_cell(concern.why)}.{_cell(change)}")
    for outcome, title in EXPLAINED.items():
        if notes := matrix.notes(outcome):
            lines += ["", f"## {title}", ""]
            lines += [f"- {', '.join(f'`{id}`' for id in ids)} on {broker}: {_cell(d)}" for (broker, d), ids in notes]
    return "\n".join(lines) + "\n"


def _heading(matrix: Matrix, broker: str) -> str:
    version = matrix.version(broker)
    return _cell(f"{broker} ({version})" if version else broker)


def _outcome(result: Result) -> str:
    return (
        result.outcome.value if result.outcome is Outcome.NOT_RUN else f"{result.outcome.value} {result.seconds:.1f} s"
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")

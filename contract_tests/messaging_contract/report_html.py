"""The report as one HTML file without scripts or anything from elsewhere: CI servers show it as it is."""

from __future__ import annotations

from datetime import UTC, datetime
from html import escape as escape_html
from itertools import groupby

from messaging_contract.clause import Clause
from messaging_contract.declarations import unproven
from messaging_contract.facts import Facts
from messaging_contract.matrix import EXPLAINED, Matrix, summary
from messaging_contract.report_text import displayable
from messaging_contract.runner import Outcome, Result

_FILTERS = (Outcome.FAILED, Outcome.EMULATED, Outcome.REFUSED, Outcome.NOT_RUN, Outcome.PASS)

_CLASS = {outcome: outcome.value.replace(" ", "-") for outcome in Outcome}

_COLOURS = """
:root{color-scheme:light dark;--page:#fff;--text:#1f2328;--quiet:#59636e;--line:#d1d9e0;--band:#f6f8fa;
--pass:#1a7f37;--emulated:#0969da;--refused:#9a6700;--failed:#cf222e;--not-run:#59636e}
@media(prefers-color-scheme:dark){:root{--page:#0d1117;--text:#e6edf3;--quiet:#9198a1;--line:#3d444d;--band:#151b23;
--pass:#3fb950;--emulated:#4493f8;--refused:#d29922;--failed:#f85149;--not-run:#9198a1}}
"""

_STYLE = """
*{box-sizing:border-box}
body{font:14px/1.45 system-ui,sans-serif;margin:0;padding:1.5em;background:var(--page);color:var(--text)}
h1{margin:0}.quiet,small{color:var(--quiet)}code{font-size:.95em}
pre{white-space:pre-wrap;overflow-wrap:anywhere;margin:.3em 0;font-size:.9em}
form{display:flex;flex-wrap:wrap;gap:.4em;margin:1em 0;border:0}
form label{border:1px solid var(--line);border-radius:1em;padding:.15em .8em;cursor:pointer}
form input{position:absolute;opacity:0}
form label:has(:checked){background:var(--text);color:var(--page)}
form label:has(:focus-visible){outline:2px solid var(--emulated)}
table{border-collapse:separate;border-spacing:0;width:100%}
td,th{padding:.3em .6em;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}
thead th{position:sticky;top:0;z-index:2;background:var(--page)}
tbody th{background:var(--band);text-transform:uppercase;font-size:.8em;letter-spacing:.05em}
td:first-child{max-width:40em}td code{font-weight:600}
summary{cursor:pointer}td details[open]{min-width:20em}
.mark{font-weight:600;white-space:nowrap}.mark::before{content:"\\25cf\\a0"}
.box{border:1px solid var(--line);border-left:4px solid var(--refused);border-radius:.3em;padding:.2em 1em;margin:1em 0}
.box.failed{border-left-color:var(--failed);color:inherit}
"""


def as_html(matrix: Matrix, made: str) -> str:
    brokers = "".join(f"<li><b>{_escape(b)}</b>: {_escape(summary(matrix, b))}</li>\n" for b in matrix.brokers)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Contract report</title>'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<style>{_COLOURS}{_STYLE}{_rules()}</style></head>\n<body><h1>Contract report</h1>"
        f'<p class="quiet">{_escape(made)}</p><ul>\n{brokers}</ul>\n{_unproven(matrix)}'
        f"{''.join(_concerns(broker, facts) for broker, facts in matrix.facts.items())}"
        f"{_filter(matrix)}{_table(matrix)}{_notes(matrix)}</body></html>\n"
    )


def _escape(text: str) -> str:
    return escape_html(displayable(text))


def _rules() -> str:
    """A colour an outcome; and with a filter chosen, only rows that have the outcome somewhere, and areas with rows."""
    rules = [f".{name}{{color:var(--{name})}}" for name in _CLASS.values()]
    for outcome in _FILTERS:
        name = _CLASS[outcome]
        chosen = f"body:has(#only-{name}:checked) tbody"
        rules.append(f"{chosen}:not(:has(td.{name})),{chosen} tr.clause:not(:has(td.{name})){{display:none}}")
    return "\n".join(rules)


def _filter(matrix: Matrix) -> str:
    found = [matrix.outcome(c.id, b).outcome for c in matrix.clauses for b in matrix.brokers]
    choices = [("all", "all", len(found))]
    choices += [(_CLASS[outcome], outcome.value, found.count(outcome)) for outcome in _FILTERS]
    labels = "".join(
        f'<label><input type="radio" name="only" id="only-{name}"{" checked" if name == "all" else ""}>'
        f"{words} <small>{count}</small></label>"
        for name, words, count in choices
    )
    return f'<form aria-label="Show clauses with">{labels}</form>\n'


def _table(matrix: Matrix) -> str:
    heads = "".join(
        f"<th>{_escape(broker)}<br><small>{_escape(matrix.version(broker) or 'version not told')}</small></th>"
        for broker in matrix.brokers
    )
    areas = []
    for area, clauses in groupby(matrix.clauses, key=lambda clause: clause.area):
        rows = "".join(_row(matrix, clause) for clause in clauses)
        areas.append(f'<tbody><tr><th colspan="{len(matrix.brokers) + 1}">{_escape(area)}</th></tr>\n{rows}</tbody>\n')
    return f"<table><thead><tr><th>clause</th>{heads}</tr></thead>\n{''.join(areas)}</table>\n"


def _row(matrix: Matrix, clause: Clause) -> str:
    cells = "".join(_cell(matrix.outcome(clause.id, broker)) for broker in matrix.brokers)
    name = f'<td><code>{_escape(clause.id)}</code><br><span class="quiet">{_escape(clause.sentence)}</span></td>'
    return f'<tr class="clause">{name}{cells}</tr>\n'


def _cell(result: Result) -> str:
    name = _CLASS[result.outcome]
    mark = f'<span class="mark {name}">{result.outcome.value}</span>'
    if result.at:
        began = datetime.fromtimestamp(result.at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        mark += f' <small title="{began}">{result.seconds:.1f} s</small>'
    if not result.detail:
        return f'<td class="{name}">{mark}</td>'
    opened = " open" if result.outcome is Outcome.FAILED else ""
    detail = f"<pre>{_escape(result.detail)}</pre>"
    return f'<td class="{name}"><details{opened}><summary>{mark}</summary>{detail}</details></td>'


def _unproven(matrix: Matrix) -> str:
    missing = "".join(f"<li>{_escape(each)}</li>" for each in unproven(matrix))
    return f'<div class="box failed"><h2>Declared and not proven</h2><ul>{missing}</ul></div>\n' if missing else ""


def _concerns(broker: str, facts: Facts) -> str:
    if not facts.concerns:
        return ""
    told = "".join(
        f"<dt><b>{_escape(str(concern))}</b></dt><dd>{_escape(concern.why)}."
        + (f"<br>To change it: <code>{_escape(concern.change)}</code>" if concern.change else "")
        + "</dd>\n"
        for concern in facts.concerns
    )
    title = f"What the settings of {_escape(broker)} do not uphold"
    return f'<div class="box"><h2>{title}</h2><dl>\n{told}</dl></div>\n'


def _notes(matrix: Matrix) -> str:
    parts = []
    for outcome, title in EXPLAINED.items():
        notes = matrix.notes(outcome)
        if not notes:
            continue
        told = ""
        for (broker, detail), ids in notes:
            clauses = ", ".join(f"<code>{_escape(id)}</code>" for id in ids)
            told += f"<li>{clauses} on {_escape(broker)}:<pre>{_escape(detail)}</pre></li>\n"
        parts.append(f"<h2>{title}</h2>\n<ul>\n{told}</ul>\n")
    return "".join(parts)

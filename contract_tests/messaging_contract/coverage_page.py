"""`docs/contract.md`: what the suite covers, by which clauses, and how each clause ends on which broker."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from messaging import adapters
from messaging.capabilities import Capabilities
from messaging_contract.anchors import coverage
from messaging_contract.brokers import memory_harness, offered
from messaging_contract.clause import Clause
from messaging_contract.clauses import all_clauses
from messaging_contract.runner import Outcome, expected

_BROKERS = {
    "memory": ("memory", "memory"),
    "rabbitmq:3.10": ("rabbitmq", "RabbitMQ 3.x"),
    "rabbitmq:4": ("rabbitmq", "RabbitMQ 4.x"),
    "kafka:4.1": ("kafka", "Kafka < 4.2"),
    "kafka:4.2": ("kafka", "Kafka >= 4.2"),
    "sqs:elasticmq": ("sqs", "SQS without SNS"),
    "sqs:ministack": ("sqs", "SQS + SNS"),
    "sqs:moto": ("sqs", "SQS + SNS"),
}
"""The columns: what is tested, with the adapter and the label of what that declares."""

_BEST = (Outcome.PASS, Outcome.EMULATED, Outcome.REFUSED, Outcome.NOT_RUN)
_SIGN = {Outcome.PASS: "pass", Outcome.EMULATED: "emulated", Outcome.REFUSED: "refused", Outcome.NOT_RUN: "–"}

_HEAD = """\
# What the suite covers

Made by `python -m messaging_contract --list --markdown > docs/contract.md`; a test fails when it is out of date. The
anchors are what 16 other suites test, the failures what their users' issues report from production and none of them
tests well. See [the contract suite](contract-suite.md) for what a clause is.

The columns are how a clause ends where nothing is wrong, from what each adapter declares and what can be done to each
container: `pass` natively, `emulated` (how: the [capabilities](../README.md)), `refused` (the refusal is proven), `–`
not run: the broker has no such thing, it cannot be done to that container, or the clause is about the database alone
and runs once, with memory. Where several clauses cover an entry the best of them counts; the [last table](#clauses)
has each.
"""


@dataclass(frozen=True)
class _Column:
    name: str
    able: Capabilities
    can: Callable[[str], bool]

    def outcome(self, clause: Clause) -> Outcome:
        return expected(clause, self.able, self.can)[0]


def coverage_page() -> str:
    """The whole page. Needs every adapter's client and testcontainers, no broker. Raises ConfigurationError."""
    clauses, columns = all_clauses(), _columns()
    known = {clause.id: clause for clause in clauses}
    tables = coverage(clauses)
    lines = [_HEAD]
    for title, rows in (("Anchors", tables["anchors"]), ("Failures", tables["failures"])):
        done = sum(bool(row["clauses"]) for row in rows)
        lines += [f"## {title}", "", f"{done} of {len(rows)} are covered{_others(len(rows) - done)}.", ""]
        lines += _head(["#", title[:-1].lower(), "clauses"], columns)
        lines += [_covered(row, known, columns) for row in rows if row["clauses"]]
        lines.append("")
        if done < len(rows):
            lines += ["### Refused", "", *_head(["#", "anchor", "why"], [])]
            lines += [_row([row["number"], row["text"], row["why not"]]) for row in rows if not row["clauses"]]
            lines.append("")
    lines += ["## Clauses", "", *_head(["clause", "what it proves"], columns)]
    for clause in clauses:
        lines.append(_row([f"`{clause.id}`", clause.sentence, *(_SIGN[c.outcome(clause)] for c in columns)]))
    return "\n".join(lines) + "\n"


def _columns() -> list[_Column]:
    found = []
    for name, (adapter, label) in _BROKERS.items():
        declared = dict(adapters.load(adapter).declared_capabilities())
        harness = memory_harness() if name == "memory" else offered(name)
        found.append(_Column(name, declared[label], harness.can))
    return found


def _covered(row: Mapping[str, object], known: Mapping[str, Clause], columns: Sequence[_Column]) -> str:
    ids = row["clauses"]
    assert isinstance(ids, list)
    best = [min((column.outcome(known[id]) for id in ids), key=_BEST.index) for column in columns]
    names = ", ".join(f"`{id}`" for id in ids)
    return _row([row["number"], row["text"], names, *(_SIGN[outcome] for outcome in best)])


def _others(count: int) -> str:
    return f", {count} refused" if count else ""


def _head(names: Sequence[str], columns: Sequence[_Column]) -> list[str]:
    cells = [*names, *(column.name for column in columns)]
    return [_row(cells), _row(["---"] * len(cells))]


def _row(cells: Sequence[object]) -> str:
    return f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in cells)} |"

"""The report as JUnit's XML, which CI servers show: a suite a broker, a test case a clause.

After the schema that most of them share (Jenkins' junit-10.xsd). It has no words for emulated and refused: both passed,
and say how or why in their output.
"""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from xml.etree import ElementTree as xml

from messaging_contract.clause import Clause
from messaging_contract.matrix import Matrix
from messaging_contract.report_text import displayable
from messaging_contract.runner import Outcome, Result


def as_junit(matrix: Matrix, made: str) -> str:
    root = xml.Element("testsuites", name="messaging_contract")
    for broker in matrix.brokers:
        _suite(root, matrix, broker, made)
    for total in ("tests", "failures", "errors", "skipped"):
        root.set(total, str(sum(int(suite.get(total, "0")) for suite in root)))
    root.set("time", f"{sum(matrix.seconds(broker) for broker in matrix.brokers):.3f}")
    xml.indent(root, " ")
    return '<?xml version="1.0" encoding="utf-8"?>\n' + xml.tostring(root, "unicode") + "\n"


def _suite(root: xml.Element, matrix: Matrix, broker: str, made: str) -> None:
    counts = matrix.counts(broker)
    began = min((r.at for r in matrix.results if r.broker == broker and r.at), default=0.0)
    suite = xml.SubElement(
        root,
        "testsuite",
        name=displayable(broker),
        tests=str(len(matrix.clauses)),
        failures=str(counts[Outcome.FAILED]),
        errors="0",
        skipped=str(counts[Outcome.NOT_RUN]),
        time=f"{matrix.seconds(broker):.3f}",
        timestamp=datetime.fromtimestamp(began, UTC).strftime("%Y-%m-%dT%H:%M:%S"),
        hostname=displayable(platform.node()),
    )
    properties = xml.SubElement(suite, "properties")
    told = {"made": made, "version": matrix.version(broker)}
    if (facts := matrix.facts.get(broker)) is not None:
        told |= {f"setting {number}": str(concern) for number, concern in enumerate(facts.concerns, 1)}
    for name, value in told.items():
        xml.SubElement(properties, "property", name=name, value=displayable(value))
    for clause in matrix.clauses:
        _case(suite, clause, matrix.outcome(clause.id, broker))


def _case(suite: xml.Element, clause: Clause, result: Result) -> None:
    classname = f"{suite.get('name')}.{clause.area}"
    case = xml.SubElement(suite, "testcase", classname=classname, name=clause.id, time=f"{result.seconds:.3f}")
    if result.outcome is Outcome.FAILED:
        first, _, _ = result.detail.partition("\n")
        failure = xml.SubElement(case, "failure", message=displayable(first), type=displayable(first.partition(":")[0]))
        failure.text = displayable(result.detail)
    elif result.outcome is Outcome.NOT_RUN:
        xml.SubElement(case, "skipped", message=displayable(result.detail or "not run"))
    told = result.detail if result.outcome in (Outcome.EMULATED, Outcome.REFUSED) else ""
    output = xml.SubElement(case, "system-out")
    output.text = displayable(f"{clause.sentence}\n{result.outcome.value}{f': {told}' if told else ''}")

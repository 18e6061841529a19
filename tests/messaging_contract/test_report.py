"""The matrix in every format: each outcome with its reason, also when a text has what the format gives a meaning."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from messaging.concerns import Concern, unseen
from messaging_contract.clause import QUEUE, Clause
from messaging_contract.facts import Facts
from messaging_contract.matrix import Matrix
from messaging_contract.report import FORMATS, write
from messaging_contract.report_html import as_html
from messaging_contract.report_json import as_json, of_json
from messaging_contract.report_junit import as_junit
from messaging_contract.report_markdown import as_markdown
from messaging_contract.runner import Outcome, Result

HURT = 'assert a | b <script>alert("x")</script> \x00\x1b[31m\nsecond line'
SHOWN = re.sub("[\x00\x1b]", "\ufffd", HURT)
AT = 1_700_000_000.0
WEAK = Concern("topic 'orders'", "min.insync.replicas", "1 | of 3", "<b>lost</b> with it", "kafka-configs.sh --alter")
UNSEEN = unseen("the nodes", "alarms", "nobody answers", "a blocked publish tells", "rabbitmqctl list_alarms")


def clause(id: str) -> Clause:
    return Clause(id, f"The sentence of {id}, with a | and a <b>.", lambda _bench: None, QUEUE)


CLAUSES = [clause("a.passes"), clause("a.fails"), clause("b.emulated"), clause("b.refused")]


def matrix() -> Matrix:
    return Matrix(
        CLAUSES,
        ["one", "two"],
        [
            Result("a.passes", "one", Outcome.PASS, 1.0, at=AT),
            Result("a.fails", "one", Outcome.FAILED, 2.0, HURT, AT + 1),
            Result("b.emulated", "one", Outcome.EMULATED, 0.5, "by a wait queue", AT + 3),
            Result("b.refused", "one", Outcome.REFUSED, 0.5, "it keeps no history", AT + 4),
        ],
        {"two": "nobody listens"},
        {"one": Facts("Kafka 4.2", {"queues": "native"}, ("Kafka >= 4.2",), True, (WEAK, UNSEEN))},
    )


def test_json() -> None:
    data = json.loads(as_json(matrix(), "made"))
    one, two = data["brokers"]
    assert one["counts"] == {"pass": 1, "failed": 1, "emulated": 1, "refused": 1}
    assert one["seconds"] == 4.0
    assert one["facts"]["version"] == "Kafka 4.2"
    assert two["unavailable"] == "nobody listens"
    fails = data["clauses"][1]
    assert fails["results"]["one"] == {"outcome": "failed", "seconds": 2.0, "at": AT + 1, "detail": HURT}
    assert fails["results"]["two"]["outcome"] == "not run"


def test_json_is_read_back_as_it_was() -> None:
    read = of_json(as_json(matrix(), "made"), CLAUSES)
    assert read.facts == matrix().facts
    assert read.unavailable == matrix().unavailable
    assert [r for r in read.results if r.broker == "one"] == matrix().results
    assert all(read.outcome(c.id, "two").outcome is Outcome.NOT_RUN for c in CLAUSES)


def test_markdown() -> None:
    lines = as_markdown(matrix(), "made").splitlines()
    rows = [line for line in lines if re.match(r"\| `[ab]\.", line)]
    assert [row.replace("\\|", "").count("|") for row in rows] == [4] * 4
    assert rows[1].endswith("| failed 2.0 s | not run |")
    assert any("| one (Kafka 4.2) | two |" in line for line in lines)
    assert any(line.startswith("- `a.fails` on one: assert a") for line in lines)
    assert "- `b.emulated` on one: by a wait queue" in lines
    assert "- `b.refused` on one: it keeps no history" in lines
    assert "- **two**: not run: nobody listens" in lines
    assert any(line.startswith("- **min.insync.replicas of topic 'orders': 1 \\| of 3**.") for line in lines)
    assert any("not looked at: alarms of the nodes: nobody answers" in line for line in lines)


class Page(HTMLParser):
    """Checks that what is opened is closed, and keeps the text, the tags and their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br", "input"):
            self.stack.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_html() -> None:
    page = Page(as_html(matrix(), "made"))
    assert page.stack == []
    assert [attributes["class"] for tag, attributes in page.tags if tag == "tr" and attributes] == ["clause"] * 4
    assert SHOWN in page.text
    assert "The sentence of a.passes, with a | and a <b>." in page.text
    for told in ("by a wait queue", "it keeps no history", "nobody listens", "Kafka 4.2", "<b>lost</b> with it"):
        assert told in page.text


def test_html_is_one_file_without_scripts() -> None:
    text = as_html(matrix(), "made")
    names = {tag for tag, _ in Page(text).tags}
    assert not names & {"script", "link", "img", "iframe"}
    assert "url(" not in text
    assert "@import" not in text


def test_html_can_be_filtered_by_each_outcome_there_is() -> None:
    text = as_html(matrix(), "made")
    choices = {attributes["id"] for tag, attributes in Page(text).tags if tag == "input"}
    assert choices == {"only-all", "only-pass", "only-emulated", "only-refused", "only-failed", "only-not-run"}
    for outcome in Outcome:
        name = outcome.value.replace(" ", "-")
        assert f'<td class="{name}">' in text
        assert f"body:has(#only-{name}:checked) tbody tr.clause:not(:has(td.{name})){{display:none}}" in text


def test_junit() -> None:
    root = ElementTree.fromstring(as_junit(matrix(), "made"))
    assert root.tag == "testsuites"
    assert [root.get(name) for name in ("tests", "failures", "errors", "skipped")] == ["8", "1", "0", "4"]
    one, two = root
    assert [one.get(name) for name in ("name", "tests", "failures", "skipped")] == ["one", "4", "1", "0"]
    assert one.get("time") == "4.000"
    assert one.get("timestamp") == "2023-11-14T22:13:20"
    told = {each.get("name"): each.get("value") for each in one.iter("property")}
    assert told["version"] == "Kafka 4.2"
    assert told["setting 1"] == str(WEAK)
    cases = {case.get("name"): case for case in one.iter("testcase")}
    assert list(cases) == [clause.id for clause in CLAUSES]
    assert cases["a.fails"].get("classname") == "one.a"
    failure = cases["a.fails"].find("failure")
    assert failure is not None
    assert failure.text == SHOWN
    assert "by a wait queue" in (cases["b.emulated"].findtext("system-out") or "")
    assert [case.find("failure") for name, case in cases.items() if name != "a.fails"] == [None] * 3
    assert len(list(two.iter("skipped"))) == 4


# The elements of Jenkins' junit-10.xsd that are used here: attributes it knows, and which of them it requires.
SCHEMA = {
    "testsuites": ({"name", "time", "tests", "failures", "disabled", "errors", "skipped"}, set(), {"testsuite"}),
    "testsuite": (
        {"name", "tests", "failures", "errors", "group", "time", "skipped", "timestamp", "hostname", "id", "package"},
        {"name", "tests", "failures", "errors"},
        {"testsuite", "properties", "testcase", "system-out", "system-err"},
    ),
    "properties": (set(), set(), {"property"}),
    "property": ({"name", "value"}, {"name", "value"}, set()),
    "testcase": (
        {"name", "time", "classname", "group", "assertions", "status"},
        {"name"},
        {"skipped", "error", "failure", "system-out", "system-err"},
    ),
    "failure": ({"type", "message"}, set(), set()),
    "skipped": ({"type", "message"}, set(), set()),
    "system-out": (set(), set(), set()),
}


def test_junit_keeps_to_the_common_schema() -> None:
    for element in ElementTree.fromstring(as_junit(matrix(), "made")).iter():
        known, required, children = SCHEMA[element.tag]
        assert required <= set(element.attrib) <= known
        assert {child.tag for child in element} <= children
        assert not (children and (element.text or "").strip())


@pytest.mark.parametrize("format", FORMATS)
def test_files(format: str, tmp_path: Path) -> None:
    path = tmp_path / "new" / f"report.{format}"
    write(matrix(), path)
    assert "a.fails" in path.read_text("utf-8")


def test_an_unknown_format() -> None:
    with pytest.raises(ValueError, match=r"\.md, \.json, \.html, \.xml"):
        write(matrix(), Path("report.pdf"))

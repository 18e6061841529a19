"""The matrix in every format: each outcome with its reason, also when a text has what the format gives a meaning."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

from messaging_contract.clause import QUEUE, Clause
from messaging_contract.report import FORMATS, Matrix, as_html, as_json, markdown, write
from messaging_contract.runner import Outcome, Result

HURT = 'assert a | b <script>alert("x")</script>\nsecond line'


def matrix() -> Matrix:
    def clause(id: str) -> Clause:
        return Clause(id, f"The sentence of {id}, with a | and a <b>.", lambda _bench: None, QUEUE)

    return Matrix(
        [clause("a.passes"), clause("a.fails"), clause("a.emulated"), clause("a.refused")],
        ["one", "two"],
        [
            Result("a.passes", "one", Outcome.PASS, 1.0),
            Result("a.fails", "one", Outcome.FAILED, 2.0, HURT),
            Result("a.emulated", "one", Outcome.EMULATED, 0.5, "by a wait queue"),
            Result("a.refused", "one", Outcome.REFUSED, 0.5, "it keeps no history"),
        ],
        {"two": "nobody listens"},
    )


def test_json() -> None:
    data = json.loads(as_json(matrix()))
    one, two = data["brokers"]
    assert one["counts"] == {"pass": 1, "failed": 1, "emulated": 1, "refused": 1}
    assert one["seconds"] == 4.0
    assert two["unavailable"] == "nobody listens"
    fails = data["clauses"][1]
    assert fails["results"]["one"] == {"outcome": "failed", "seconds": 2.0, "detail": HURT}
    assert fails["results"]["two"]["outcome"] == "not run"


def test_markdown() -> None:
    lines = markdown(matrix()).splitlines()
    rows = [line for line in lines if line.startswith("| `a.")]
    assert [row.replace("\\|", "").count("|") for row in rows] == [4] * 4
    assert rows[1].endswith("| failed | not run |")
    assert any(line.startswith("- `a.fails` on one: assert a") for line in lines)
    assert "- `a.emulated` on one: by a wait queue" in lines
    assert "- `a.refused` on one: it keeps no history" in lines
    assert "- **two**: not run: nobody listens" in lines


class Page(HTMLParser):
    """Checks that what is opened is closed, and keeps the text."""

    def __init__(self) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag != "meta":
            self.stack.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_html() -> None:
    page = Page()
    page.feed(as_html(matrix()))
    page.close()
    assert page.stack == []
    assert "script" not in page.tags
    assert page.tags.count("tr") == 5
    assert HURT in page.text
    assert "The sentence of a.passes, with a | and a <b>." in page.text
    for told in ("by a wait queue", "it keeps no history", "nobody listens"):
        assert told in page.text


@pytest.mark.parametrize("format", FORMATS)
def test_files(format: str, tmp_path: Path) -> None:
    path = tmp_path / "new" / f"report.{format}"
    write(matrix(), path)
    assert "a.fails" in path.read_text("utf-8")


def test_an_unknown_format() -> None:
    with pytest.raises(ValueError, match=r"\.md, \.json, \.html"):
        write(matrix(), Path("report.pdf"))

"""The lists of what others test and what fails in production: each entry is covered or says why not, and never both."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from messaging_contract.anchors import ANCHORS, ANCHORS_NOT_COVERED, FAILURES, coverage
from messaging_contract.clauses import all_clauses
from messaging_contract.coverage_page import coverage_page

CLAUSES = all_clauses()


def test_ids_are_unique() -> None:
    assert [id for id, n in Counter(clause.id for clause in CLAUSES).items() if n > 1] == []


@pytest.mark.parametrize("table", ["anchors", "failures"])
def test_everything_is_covered_or_explained(table: str) -> None:
    assert [row["number"] for row in coverage(CLAUSES)[table] if not row["clauses"] and not row["why not"]] == []


def test_what_is_explained_is_not_covered() -> None:
    anchors = {number for clause in CLAUSES for number in clause.anchors}
    failures = {number for clause in CLAUSES for number in clause.failures}
    assert anchors & set(ANCHORS_NOT_COVERED) == set()
    assert anchors <= set(ANCHORS)
    assert failures == set(FAILURES)


def test_explanations_name_clauses_that_exist() -> None:
    ids = {clause.id for clause in CLAUSES}
    areas = {clause.area for clause in CLAUSES}
    for text in ANCHORS_NOT_COVERED.values():
        words = [word.strip("(),.;:") for word in text.split()]
        named = {word for word in words if word.partition(".")[0] in areas and word.partition(".")[2]}
        assert named <= ids


def test_the_page_is_up_to_date() -> None:
    page = Path(__file__).parents[2] / "docs" / "contract.md"
    assert page.read_text("utf-8") == coverage_page(), (
        "run: python -m messaging_contract --list --markdown > docs/contract.md"
    )

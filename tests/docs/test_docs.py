"""The documentation against the code. That the README's example is the one in `examples` is tested there."""

from __future__ import annotations

import ast
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import messaging.adapters
from messaging import ConsumerOptions, ProducerOptions
from messaging.cli.capability_table import embedded, installed_capabilities
from messaging.driver import Driver
from messaging_contract.clauses import all_clauses
from messaging_contract.containers.catalogue import find, specs

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("examples/**/README.md"))]

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def prose(page: Path) -> str:
    """The page without its code blocks."""
    return re.sub(r"^ *```.*?^ *```$", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)


def heading_ids(page: Path) -> set[str]:
    """As GitHub makes them from headings."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@every_page
def test_links_resolve(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if "://" in link:
            continue
        name, _, heading = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        assert not heading or heading in heading_ids(target), link


@every_page
def test_python_blocks_compile(page: Path) -> None:
    for indent, code in re.findall(r"^( *)```python\n(.*?)^ *```$", page.read_text("utf-8"), re.DOTALL | re.MULTILINE):
        ast.parse(re.sub(f"^{indent}", "", code, flags=re.MULTILINE))


@every_page
def test_clauses_that_are_named_exist(page: Path) -> None:
    ids = {clause.id for clause in all_clauses()}
    areas = "|".join({clause.area for clause in all_clauses()})
    # Clause ids have a dash or stand in code as `area.words`; module paths such as `messaging.aio` have neither area.
    for named in re.findall(rf"(?<![\w./])(?:{areas})\.[a-z]+(?:-[a-z]+)*(?![\w(.])", page.read_text("utf-8")):
        assert named in ids or named.endswith((".md", ".sh"))  # a file may have the name of an area


def test_the_capability_table_is_up_to_date() -> None:
    table = installed_capabilities()
    assert not table.missing
    assert embedded((ROOT / "README.md").read_text("utf-8")) == table.markdown(), (
        "run: messaging capabilities --write README.md"
    )


@pytest.mark.parametrize(
    ("page", "options"),
    [
        *(
            (f"docs/{name}.md", messaging.adapters.load(name).Options)
            for name in ("rabbitmq", "kafka", "sqs", "memory")
        ),
        ("docs/interface.md", ConsumerOptions),
        ("docs/interface.md", ProducerOptions),
    ],
)
def test_every_option_is_in_a_table_of_its_page(page: str, options: Any) -> None:
    rows = re.findall(r"^\| (.*?) \|", (ROOT / page).read_text("utf-8"), re.MULTILINE)
    shown = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert {spec.name for spec in fields(options)} - shown == set()


def test_every_container_and_its_image_variable_is_named() -> None:
    text = (ROOT / "docs" / "contract-suite.md").read_text("utf-8")
    for spec in specs():
        assert f"`{spec}`" in text
        assert f"`{find(spec).variable}`" in text


def test_every_method_of_a_driver_is_named_for_who_writes_one() -> None:
    text = (ROOT / "docs" / "writing-an-adapter.md").read_text("utf-8")
    assert [name for name in sorted(Driver.__abstractmethods__) if f"`{name}`" not in text] == []

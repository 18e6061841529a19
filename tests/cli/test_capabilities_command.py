from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import messaging.adapters
from messaging.capabilities import Capabilities
from messaging.cli.capability_table import BEGIN, END, CapabilityTable, installed_capabilities
from messaging_memory.driver import CAPABILITIES

Run = Callable[..., tuple[int, str]]


@pytest.fixture(autouse=True)
def _memory_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messaging.adapters, "names", lambda: ["memory"])


def test_every_capability_has_a_row() -> None:
    table = installed_capabilities()
    assert list(table.labels) == ["memory"]
    assert [row[0] for row in table.rows()] == [
        *(name.replace("_", " ") for name in Capabilities.names()),
        "largest message",
        "longest delay",
    ]


def test_the_table_says_native_emulated_or_no() -> None:
    rows = dict(map(tuple, CapabilityTable(["memory"], [CAPABILITIES], []).rows()))  # type: ignore[arg-type]
    assert rows["lease"] == "native: lease clock"
    assert rows["transactions"] == "no: memory is lost with the process"
    assert rows["largest message"] == "no limit"


def test_terminal_and_markdown(run: Run) -> None:
    status, output = run("capabilities")
    assert status == 0
    assert "native: lease clock" in output
    status, output = run("capabilities", "--markdown")
    assert output.splitlines()[:2] == ["|  | memory |", "| --- | --- |"]


def test_check_and_write(run: Run, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"# Words\n\n{BEGIN}\n{END}\n\nMore.\n", "utf-8")
    status, output = run("capabilities", "--check", "README.md")
    assert status == 1
    assert "out of date: messaging capabilities --write README.md" in output
    assert run("capabilities", "--write", "README.md")[0] == 0
    assert run("capabilities", "--check", "README.md")[0] == 0
    text = readme.read_text("utf-8")
    assert text.startswith(f"# Words\n\n{BEGIN}\n|  | memory |\n")
    assert text.endswith(f"|\n{END}\n\nMore.\n")
    readme.write_text(text.replace("lease clock", "magic"), "utf-8")
    assert run("capabilities", "--check", "README.md")[0] == 1


def test_check_of_something_else(run: Run, tmp_path: Path) -> None:
    assert run("capabilities", "--check", "missing.md")[0] == 2
    (tmp_path / "plain.md").write_text("nothing here\n", "utf-8")
    status, output = run("capabilities", "--check", "plain.md")
    assert status == 2
    assert BEGIN in output
    assert run("capabilities", "--check", "plain.md", "--markdown")[0] == 2

"""The database of the clauses about the patterns on SQL: which one, and what is said when it is not there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect

from messaging import Closed, Queue
from messaging_contract.bench import Bench
from messaging_contract.brokers import memory_harness

SOME = "inbox.own-memory or meta.name"
WITHOUT_SQLALCHEMY = """
import sys
sys.modules["sqlalchemy"] = None
from messaging_contract.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def python(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MESSAGING_", "PYTEST_"))}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**kept, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def suite(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return python(folder, "-m", "messaging_contract", "--broker", "memory://", *arguments, **environment)


def outcome(report: Path) -> tuple[str, str]:
    """How the clause about the database ended, and why."""
    clauses = {row["id"]: row["results"]["memory"] for row in json.loads(report.read_text())["clauses"]}
    assert clauses["meta.name"]["outcome"] == "pass"
    found = clauses["inbox.own-memory"]
    return found["outcome"], found["detail"]


def test_without_sqlalchemy_the_others_are_run(tmp_path: Path) -> None:
    run = ("-c", WITHOUT_SQLALCHEMY, "--broker", "memory://", "-k", SOME)
    ended = python(tmp_path, *run, "--report", "r.json")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    result, why = outcome(tmp_path / "r.json")
    assert result == "not run"
    assert 'python -m pip install "anybroker[sql]"' in why
    ended = python(tmp_path, *run, "--require")
    assert ended.returncode == 1, ended.stdout
    assert "the database is required and not there: the patterns on SQL need sqlalchemy" in ended.stdout
    ended = python(tmp_path, "-c", WITHOUT_SQLALCHEMY, "--saboteurs", "-k", "calls-itself-otherwise")
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_a_database_that_is_not_there(tmp_path: Path) -> None:
    nowhere = ("--database", "postgresql+psycopg://me:secret@127.0.0.1:1/shop", "-k", SOME)
    ended = suite(tmp_path, *nowhere, "--report", "r.json")
    assert ended.returncode == 0, ended.stdout
    result, why = outcome(tmp_path / "r.json")
    assert result == "not run"
    assert why.startswith("the database cannot be reached: ")
    assert "secret" not in ended.stdout
    ended = suite(tmp_path, *nowhere, "--require")
    assert ended.returncode == 1, ended.stdout
    assert "the database is required and not there" in ended.stdout


@pytest.mark.parametrize("url", ["shop.db", "mysql://localhost/shop"])
def test_a_wrong_url_is_a_mistake_in_the_arguments(url: str, tmp_path: Path) -> None:
    ended = suite(tmp_path, "--database", url, "-k", SOME)
    assert ended.returncode == 2, ended.stdout
    assert "--database " in ended.stderr
    ended = python(
        tmp_path, "-m", "pytest", "--pyargs", "messaging_contract", "--broker", "memory://", "--database", url
    )
    assert ended.returncode == 4, ended.stdout
    assert "--database " in ended.stderr


@pytest.mark.parametrize("how", ["option", "variable", "processes", "plugin"])
def test_the_database_that_was_named_is_used_and_nothing_is_left_in_it(how: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    match how:
        case "option":
            ended = suite(tmp_path, "--database", url, "--require", "-k", SOME)
        case "variable":
            ended = suite(tmp_path, "--require", "-k", SOME, MESSAGING_DATABASE=url)
        case "processes":
            ended = suite(tmp_path, "--broker", "sqs+moto://", "--database", url, "-k", SOME)
        case "plugin":
            arguments = (
                "-m",
                "pytest",
                "--pyargs",
                "messaging_contract",
                "--broker",
                "memory://",
                "--require",
                "-k",
                SOME,
            )
            ended = python(tmp_path, *arguments, "--database", url)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ", with SQLite " in ended.stdout
    assert (tmp_path / "shop.db").stat().st_size > 0
    engine = create_engine(url)
    assert inspect(engine).get_table_names() == []
    engine.dispose()


def test_what_an_interrupted_clause_has_made_is_removed_with_the_database() -> None:
    harness = memory_harness()
    assert harness.database is not None
    scene = Bench(harness).scene()
    scene.add(Queue("q"), ("a", 1))
    folder = Path(str(scene.engine.url.database)).parent
    assert folder.exists()
    harness.database.close()
    assert not folder.exists()
    with pytest.raises(Closed):
        Bench(harness).scene()
    harness.close()

"""The clauses about the patterns on SQL, on PostgreSQL; the run of the whole suite has them on SQLite."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect

from messaging_contract.clauses import all_clauses
from messaging_contract.saboteurs.catalogue import HONEST
from messaging_contract.saboteurs.catalogue_sql import SQL_SABOTEURS
from messaging_contract.saboteurs.hunt import judge
from messaging_contract.saboteurs.saboteur import Saboteur

CLAUSES = {clause.id: clause for clause in all_clauses()}
AREAS = "outbox. or inbox. or event_store. or projection."


def suite(folder: Path, url: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "messaging_contract", "--broker", "memory://", "--require", *arguments]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MESSAGING_", "PYTEST_"))}
    return subprocess.Popen(
        command,
        cwd=folder,
        env={**kept, "MESSAGING_DATABASE": url},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def left(url: str) -> list[str]:
    """What the suite has made and not removed."""
    engine = create_engine(url)
    try:
        found = inspect(engine)
        return [name for name in (*found.get_table_names(), *found.get_sequence_names()) if name.startswith("mc_")]
    finally:
        engine.dispose()


def test_every_clause_holds_and_leaves_nothing(postgresql_url: str, tmp_path: Path) -> None:
    process = suite(tmp_path, postgresql_url, "-k", AREAS)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    assert ", with PostgreSQL " in output
    assert "not run" not in output
    assert left(postgresql_url) == []


@pytest.mark.parametrize(
    "saboteur", [each for each in SQL_SABOTEURS if each.several_writers], ids=lambda each: each.name
)
def test_what_only_shows_where_several_write_is_caught(saboteur: Saboteur, postgresql_url: str) -> None:
    for id in saboteur.clauses:
        assert judge(saboteur, CLAUSES[id], postgresql_url).found
        honest = judge(HONEST, CLAUSES[id], postgresql_url)
        assert not honest.found
        assert not honest.text
    assert left(postgresql_url) == []


def test_a_safe_run_that_is_interrupted_leaves_nothing(
    postgresql_url: str, tmp_path: Path, eventually: Callable[..., None]
) -> None:
    process = suite(tmp_path, postgresql_url, "--safe", "-k", AREAS)
    try:
        eventually(lambda: left(postgresql_url) or process.poll() is not None, 60)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 128 + signal.SIGTERM, output
    assert left(postgresql_url) == []

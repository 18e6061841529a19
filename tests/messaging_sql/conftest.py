"""Tests against SQLite, and against a real PostgreSQL, see tests/databases.py."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine
from sqlalchemy.schema import CreateSchema, DropSchema

from messaging_sql import Tables, create_tables


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'messaging.db'}?timeout=60"  # seconds for the write lock: the machine is busy
    found: str = request.getfixturevalue("postgresql_url")
    return found


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = create_engine(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def tables(engine: Engine) -> Iterator[Tables]:
    """Tables of this test's own, created. On PostgreSQL in a schema of their own, as the server is shared."""
    schema = f"test_{uuid.uuid4().hex[:12]}" if engine.dialect.name == "postgresql" else None
    tables = Tables(schema)
    if schema:
        with engine.begin() as connection:
            connection.execute(CreateSchema(schema))
    create_tables(engine, tables)
    yield tables
    if schema:
        with engine.begin() as connection:
            connection.execute(DropSchema(schema, cascade=True))

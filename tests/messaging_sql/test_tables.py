from __future__ import annotations

import socket
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, func, inspect, select

from messaging import ConfigurationError
from messaging_sql import DatabaseUnavailable, Inbox, Outbox, Tables, TablesMissing, create_tables
from messaging_sql.tables import LANES


def test_creating_them_again_changes_nothing(engine: Engine, tables: Tables) -> None:
    with engine.begin() as connection:
        Outbox(tables=tables).add(connection, "orders", 1)
    create_tables(engine, tables)
    with engine.connect() as connection:
        assert connection.scalar(select(func.count()).select_from(tables.outbox)) == 1
        assert connection.scalar(select(func.count()).select_from(tables.lanes)) == LANES


def test_prefix_and_schema_are_of_the_programs_choice(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'some.db'}")
    create_tables(engine, Tables(prefix="shop_"))
    assert {"shop_inbox", "shop_outbox", "shop_outbox_lanes"} <= set(inspect(engine).get_table_names())
    assert Tables("sales").outbox.fullname == "sales.messaging_outbox"
    engine.dispose()


def test_the_columns_are_those_that_debezium_looks_for(engine: Engine, tables: Tables) -> None:
    columns = {c["name"]: c["type"] for c in inspect(engine).get_columns("messaging_outbox", tables.schema)}
    assert {"id", "aggregatetype", "aggregateid", "type", "payload"} <= columns.keys()
    if engine.dialect.name == "postgresql":
        assert str(columns["id"]) == "UUID"
        assert str(columns["payload"]) == "BYTEA"


def test_a_missing_table_names_the_command_that_makes_it(engine: Engine) -> None:
    nowhere = Tables(prefix="nowhere_")
    command = "messaging tables create --database URL --prefix nowhere_"
    with pytest.raises(TablesMissing, match=command), engine.begin() as connection:
        Inbox("payment", tables=nowhere).first_time(connection, "1")
    with pytest.raises(TablesMissing), engine.begin() as connection:
        Outbox(tables=nowhere).add(connection, "orders", 1)


def test_a_database_that_is_down() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    engine = create_engine(f"postgresql+psycopg://nobody@127.0.0.1:{port}/none")
    with pytest.raises(DatabaseUnavailable) as caught:
        create_tables(engine)
    assert caught.value.retryable


def test_another_database_is_refused() -> None:
    from sqlalchemy.dialects import mysql

    class Bind:
        dialect = mysql.dialect()

    with pytest.raises(ConfigurationError, match="SQLite or PostgreSQL, not mysql"):
        Inbox("payment").first_time(Bind(), "1")  # type: ignore[arg-type]

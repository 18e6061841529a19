"""Which database a command means. The extra `sql` is needed from here on; without it says so in one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from messaging.errors import ConfigurationError

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from messaging_sql import Tables

Url = Annotated[
    str,
    typer.Option(
        "--database", envvar="MESSAGING_DATABASE", help="Its URL: postgresql://user:password@host/name, sqlite:///file."
    ),
]
Schema = Annotated[str | None, typer.Option("--schema", help="The database schema of the tables.")]
Prefix = Annotated[str, typer.Option("--prefix", help="What the names of the tables begin with.")]
PREFIX = "messaging_"


@contextmanager
def opened(url: str, schema: str | None, prefix: str) -> Iterator[tuple[Engine, Tables]]:
    """The database at `url` and its tables. Raises ConfigurationError for a URL that is none."""
    try:
        from sqlalchemy import create_engine
        from sqlalchemy.engine import make_url
        from sqlalchemy.exc import ArgumentError

        from messaging_sql import Tables
    except ImportError as error:
        raise ConfigurationError(
            f'this needs {error.name}, which is not installed: python -m pip install "anybroker[sql]"'
        ) from None
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise ConfigurationError(
            "--database is not the URL of a database: use for example sqlite:///shop.db or postgresql://host/shop"
        ) from None
    if parsed.drivername in ("postgresql", "postgres"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.get_backend_name() not in ("sqlite", "postgresql"):
        raise ConfigurationError(f"--database must be SQLite or PostgreSQL, not {parsed.get_backend_name()}")
    try:
        engine = create_engine(parsed)
    except ImportError as error:
        raise ConfigurationError(
            f'the database needs {error.name}, which is not installed: python -m pip install "anybroker[postgresql]"'
        ) from None
    try:
        yield engine, Tables(schema, prefix)
    finally:
        engine.dispose()

"""What the two databases do differently, and what their errors mean."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Double, Engine, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, ProgrammingError, SQLAlchemyError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from messaging.errors import ConfigurationError
from messaging_sql.errors import DatabaseUnavailable, TablesMissing

if TYPE_CHECKING:
    from messaging_sql.tables import Tables

_UNDEFINED_TABLE = "42P01"


class now(FunctionElement[float]):
    """Seconds since the epoch by the clock of the database: the only one that all relays share."""

    type = Double()
    inherit_cache = True


@compiles(now, "postgresql")
def _now_postgresql(element: Any, compiler: Any, **options: Any) -> str:
    return "extract(epoch from clock_timestamp())::double precision"


@compiles(now, "sqlite")
def _now_sqlite(element: Any, compiler: Any, **options: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


def insert_new(connection: Connection, table: Table) -> Any:
    """An insert that passes over rows whose primary key is there. Raises ConfigurationError for another database."""
    match connection.dialect.name:
        case "postgresql":
            return postgresql.insert(table).on_conflict_do_nothing()
        case "sqlite":
            return sqlite.insert(table).on_conflict_do_nothing()
    raise unsupported(connection.dialect.name)


def unsupported(dialect: str) -> ConfigurationError:
    return ConfigurationError(f"inbox, outbox and event store need SQLite or PostgreSQL, not {dialect}")


@contextmanager
def explained(tables: Tables, bind: Engine | Connection) -> Iterator[None]:
    """Turns what means "no table" and "no database" into TablesMissing and DatabaseUnavailable.

    Everything else passes through, for example a violated constraint or a serialization failure.
    """
    if bind.dialect.name not in ("sqlite", "postgresql"):
        raise unsupported(bind.dialect.name)
    try:
        yield
    except DBAPIError as error:
        if _is_missing_table(error):
            raise TablesMissing(
                f"the database has not all the tables this needs ({_first_line(error)}): "
                f"create them with: {tables.create_command}"
            ) from error
        if error.connection_invalidated or isinstance(error, OperationalError | InterfaceError):
            raise DatabaseUnavailable(f"the database did not answer as it should: {_first_line(error)}") from error
        raise


@contextmanager
def transaction(engine: Engine, tables: Tables) -> Iterator[Connection]:
    """`engine.begin()`, with the errors of `explained`, also when it cannot connect."""
    with explained(tables, engine), engine.begin() as connection:
        yield connection


def _is_missing_table(error: DBAPIError) -> bool:
    if isinstance(error, ProgrammingError):
        return getattr(error.orig, "sqlstate", None) == _UNDEFINED_TABLE
    return isinstance(error, OperationalError) and "no such table" in str(error.orig)


def _first_line(error: SQLAlchemyError) -> str:
    text = str(error.orig) if isinstance(error, DBAPIError) else str(error)
    return text.strip().splitlines()[0] if text.strip() else type(error).__name__

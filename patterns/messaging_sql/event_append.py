"""The statements behind an append: one event after the other, without gaps, in the order of the commits.

Whoever writes position n has seen n - 1 committed, and the primary key lets only one do so. So no reader can ever see
an event before one that is to come in front of it, at any isolation level. The lock only lets writers wait for each
other instead of failing.
"""

from __future__ import annotations

import zlib
from operator import itemgetter
from typing import Any

import msgspec
from sqlalchemy import (
    JSON,
    BigInteger,
    ColumnElement,
    Connection,
    Dialect,
    Double,
    Executable,
    FromClause,
    Insert,
    Integer,
    String,
    Subquery,
    Text,
    bindparam,
    cast,
    func,
    insert,
    literal_column,
    select,
)
from sqlalchemy.exc import IntegrityError

from messaging_sql.events import Appended, Expected
from messaging_sql.tables import Tables

_MOST = 2**62

_OF_EVENT = ("id", "type", "schema", "data", "metadata")
"""What each event of an append has of its own."""

_own = itemgetter(*_OF_EVENT)


class AppendStatements:
    """Built once for a store. Immutable; any thread may use it."""

    def __init__(self, tables: Tables, notify: bool, dialect: Dialect) -> None:
        key = zlib.crc32(tables.events.fullname.encode())
        hint = [func.pg_notify(channel(tables), "")] if notify else []
        self._lock = select(func.pg_advisory_xact_lock(key), *hint)
        self._postgresql = dialect.name == "postgresql"
        self._insert = _insert_postgresql(tables, key, hint) if self._postgresql else _insert_sqlite(tables)

    def lock(self, connection: Connection) -> None:
        """Waits until no other transaction is appending; until this one ends, none can begin to.

        SQLite does so itself: an insert takes its one write lock, also one that finds nothing to insert.
        """
        if self._postgresql:
            connection.execute(self._lock)

    def write(
        self, connection: Connection, stream: str, rows: list[dict[str, Any]], low: int, high: int
    ) -> Appended | None:
        """Checks the version, and inserts. None: nothing happened, as the stream's is not between low and high.

        On PostgreSQL also without `lock`, in autocommit. Then it does not wait, and somebody else who is appending is
        another reason for None, or for an IntegrityError, which cannot be once `lock` was called.
        """
        values = {name: rows[0][name] for name in ("stream", "category", "time")}
        # One JSON text, and not a parameter for each value, which costs driver and database several times as much.
        events = msgspec.json.encode([_own(row) for row in rows]).decode()
        written = connection.execute(self._insert, {**values, "low": low, "high": high, "events": events}).all()
        if not written:
            return None
        position, version = min(written)
        return Appended(version + len(rows) - 1, position + len(rows) - 1, rows[-1]["id"])


def _tip(tables: Tables) -> Subquery:
    """A row with the last position of the store and the last version of the stream; 0 where there is none.

    No WITH: Python's sqlite3 begins a transaction for what starts with INSERT, and for nothing else. Two scalar
    queries: joined, SQLite would find each `max` by reading a whole index.
    """
    events = tables.events
    position = select(func.max(events.c.position)).scalar_subquery()
    version = select(func.max(events.c.version)).where(events.c.stream == _STREAM).scalar_subquery()
    zero: ColumnElement[int] = literal_column("0")
    return select(
        func.coalesce(position, zero).label("position"), func.coalesce(version, zero).label("version")
    ).subquery("tip")


_STREAM = bindparam("stream", type_=String)
_EVENTS = bindparam("events", type_=Text)


def _insert(tables: Tables, new: FromClause, number: Any, of_event: list[Any], *conditions: Any) -> Insert:
    """new: a row for each event. number: which one it is, from 1. of_event: what it has for the names in _OF_EVENT."""
    tip = _tip(tables)
    columns = {
        "position": tip.c.position + number,
        "version": tip.c.version + number,
        "stream": _STREAM,
        "category": bindparam("category", type_=String),
        "time": bindparam("time", type_=Double),
        **dict(zip(_OF_EVENT, of_event, strict=True)),
    }
    expected = tip.c.version.between(bindparam("low", type_=BigInteger), bindparam("high", type_=BigInteger))
    chosen = select(*columns.values()).select_from(tip.join(new, literal_column("true"))).where(expected, *conditions)
    events = tables.events
    return insert(events).from_select(list(columns), chosen).returning(events.c.position, events.c.version)


def _insert_sqlite(tables: Tables) -> Executable:
    new = func.json_each(_EVENTS).table_valued("key", "value", name="new")
    of_event = [func.json_extract(new.c.value, literal_column(f"'$[{at}]'")) for at in range(len(_OF_EVENT))]
    return _insert(tables, new, new.c.key + literal_column("1"), of_event)


def _insert_postgresql(tables: Tables, key: int, hint: list[Any]) -> Executable:
    # Not waiting: this statement's view of the table is as old as itself, and after a wait it would be too old.
    guard = select(func.pg_try_advisory_xact_lock(key).label("held"), *hint).cte("guard")
    elements = func.json_array_elements(cast(_EVENTS, JSON))
    new = elements.table_valued("event", with_ordinality="number", name="new").render_derived()
    of_event: list[Any] = [new.c.event.op("->>")(literal_column(str(at))) for at in range(len(_OF_EVENT))]
    of_event[_OF_EVENT.index("schema")] = cast(of_event[_OF_EVENT.index("schema")], Integer)
    held = select(guard.c.held).scalar_subquery()
    written = _insert(tables, new, new.c.number, of_event, held).cte("written")
    # Only the first row: the others follow it.
    return select(written.c.position, written.c.version).order_by(written.c.position).limit(literal_column("1"))


def bounds(expected: Expected | int) -> tuple[int, int]:
    """Between which versions a stream has to be."""
    match expected:
        case Expected.NO_STREAM:
            return 0, 0
        case Expected.STREAM_EXISTS:
            return 1, _MOST
        case Expected.ANY:
            return 0, _MOST
    return expected, expected


def channel(tables: Tables) -> str:
    """What PostgreSQL notifies when there are new events. Identifiers have 63 bytes at most."""
    return tables.events.fullname.replace(".", "_")[:63]


def broken_rule(tables: Tables, error: IntegrityError) -> str | None:
    """Which rule the new rows broke: "id", "version" or "position"; None: one of another table."""
    name = getattr(getattr(error.orig, "diag", None), "constraint_name", None)
    text = str(error.orig)
    events = tables.events
    for column in ("id", "version", "position"):
        if name == (f"{events.name}_pkey" if column == "position" else f"{events.name}_{column}"):
            return column
        if name is None and text.endswith(f"{events.name}.{column}"):
            return column
    return None

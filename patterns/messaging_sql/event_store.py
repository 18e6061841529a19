"""Streams of events in a database: appended with a check of the version, read again in the order of their commits."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import Connection, Engine, Integer, Select, bindparam, func, select
from sqlalchemy.exc import IntegrityError

from messaging.errors import ConfigurationError, InvalidMessage
from messaging_sql.database import explained, transaction
from messaging_sql.event_append import AppendStatements, bounds, broken_rule
from messaging_sql.event_errors import DuplicateEvent, VersionConflict
from messaging_sql.event_ids import new_ids
from messaging_sql.event_turns import Append, Turns
from messaging_sql.event_types import EventTypes
from messaging_sql.events import Appended, Expected, NewEvent, Recorded, category_of
from messaging_sql.tables import Tables, default_tables

Publish = Callable[[Connection, Sequence[Recorded]], None]
"""Is given what was appended, and the connection whose transaction it is in."""

_PAGE = 1000

_PAGED = bindparam("page", type_=Integer)

_CROWDED = 20
"""After an append that met another one, so many wait for the lock from the start."""


class EventStore:
    """Appends to streams and reads them.

        store = EventStore(engine, types)
        store.append("account-42", [Opened("Ada")], Expected.NO_STREAM)
        store.append("account-42", [Deposited(100)], 1)
        for event in store.read_stream("account-42"):
            print(event.version, event.value)

    types: which class an event becomes. publish: runs in the transaction of each append, see `to_outbox`. notify: on
    PostgreSQL, tell subscriptions at once; without it they find out when they look next. Any thread may use it; a
    connection that is passed in is used by the calling thread only, and committed by the caller.
    """

    def __init__(
        self,
        engine: Engine,
        types: EventTypes,
        *,
        tables: Tables | None = None,
        publish: Publish | None = None,
        notify: bool = True,
    ) -> None:
        self.engine = engine
        self.types = types
        self.tables = tables or default_tables()
        self._publish = publish
        dialect = engine.dialect
        self._append = AppendStatements(self.tables, notify, dialect)
        self._postgresql = dialect.name == "postgresql"
        self._crowded = 0
        self._turns = Turns(self._write_alone, self._write_together)
        # One round trip instead of three. On SQLite it saves nothing, and ends a transaction on a shared connection.
        self._single = engine.execution_options(isolation_level="AUTOCOMMIT") if self._postgresql else engine
        # Whatever the engine's level is: a snapshot from before the wait for the lock would be too old to append.
        self._writing = engine.execution_options(isolation_level="READ COMMITTED") if self._postgresql else engine
        events = self.tables.events
        self._columns = [column for column in events.c if column.name != "category"]
        of_stream = select(*self._columns).where(
            events.c.stream == bindparam("of_stream"), events.c.version >= bindparam("low")
        )
        forwards = of_stream.where(events.c.version > bindparam("mark")).order_by(events.c.version)
        backwards = of_stream.where(events.c.version < bindparam("mark")).order_by(events.c.version.desc())
        self._forwards = forwards.limit(_PAGED)
        self._backwards = backwards.limit(_PAGED)
        self._all = select(*self._columns).where(events.c.position > bindparam("mark")).order_by(events.c.position)
        self._between = self._all.where(events.c.position <= bindparam("end"))
        self._last = select(func.coalesce(func.max(events.c.position), 0))
        self._version = select(func.coalesce(func.max(events.c.version), 0)).where(
            events.c.stream == bindparam("of_stream")
        )

    def append(
        self,
        stream: str,
        events: Iterable[object],
        expected: Expected | int,
        *,
        connection: Connection | None = None,
        correlation_id: str | None = None,
        causation_id: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Appended:
        """Writes events of registered types (or `NewEvent`s), all or none of them, and returns where the stream is.

        stream: `category-identity`, 1 to 255 characters. expected: the version that the caller has seen, 0 for none,
        or an `Expected`. connection: writes into the caller's transaction; until that ends, every other append waits,
        so append last and commit soon. Without one it is committed when this returns.
        Raises VersionConflict, DuplicateEvent, UnknownEventType, EncodeError, InvalidMessage for a wrong name or id,
        TablesMissing, DatabaseUnavailable: nothing was written then. But when the database is lost during a commit,
        the events may be there or not; with a version expected, it is harmless to try again.
        """
        _check_stream(stream)
        _check_expected(expected)
        told = dict(metadata or {})
        for name, value in (("correlation_id", correlation_id), ("causation_id", causation_id)):
            if value is not None:
                told[name] = value
        rows = self._rows(stream, events, told)
        if not rows:
            raise InvalidMessage(f"append to {stream!r}: there are no events; nothing was written")
        if connection is not None:
            return self._write(connection, stream, rows, expected)
        if self._publish is not None:
            with self.transaction() as own:
                return self._write(own, stream, rows, expected)
        return self._turns.append(Append(stream, rows, expected))

    def transaction(self) -> AbstractContextManager[Connection]:
        """A transaction for appends and what goes with them: `with store.transaction() as connection: ...`.

        As `engine.begin()`, with errors of this library, and at the isolation level that appends need.
        """
        return transaction(self._writing, self.tables)

    def read_stream(
        self,
        stream: str,
        *,
        from_version: int = 1,
        backwards: bool = False,
        limit: int | None = None,
        connection: Connection | None = None,
    ) -> Iterator[Recorded]:
        """The events of a stream; none when there is no such stream.

        from_version: the first one wanted; backwards, the events before it are left out just the same, and the newest
        comes first. Reads page by page, so that memory stays bounded. Raises TablesMissing, DatabaseUnavailable.
        """
        query, mark = (self._backwards, 2**62) if backwards else (self._forwards, from_version - 1)
        values: dict[str, Any] = {"of_stream": stream, "low": from_version}
        yield from self._pages(query, values, mark, lambda event: event.version, limit, connection)

    def read_all(
        self,
        *,
        after: int = 0,
        up_to: int | None = None,
        types: Iterable[type] | None = None,
        category: str | None = None,
        limit: int | None = None,
        connection: Connection | None = None,
    ) -> Iterator[Recorded]:
        """The events of the whole store, in the order in which they were committed, after the position given.

        types, category: only events of these classes, only of streams with this before the first dash. Whoever goes
        on later from the last position that was read misses nothing. Raises TablesMissing, DatabaseUnavailable.
        """
        if types is None and category is None:
            yield from self._ranges(after, up_to, limit, connection)
            return
        events = self.tables.events
        query = self._all.limit(_PAGED)
        values: dict[str, Any] = {}
        if up_to is not None:
            query = query.where(events.c.position <= bindparam("up_to"))
            values["up_to"] = up_to
        if types is not None:
            query = query.where(events.c.type.in_(bindparam("of_types", expanding=True)))
            values["of_types"] = [name for each in types for name in self.types.names(each)]
        if category is not None:
            query = query.where(events.c.category == bindparam("of_category"))
            values["of_category"] = category
        yield from self._pages(query, values, after, lambda event: event.position, limit, connection)

    def position(self, connection: Connection | None = None) -> int:
        """The position of the last event; 0 in an empty store."""
        with self.reading(connection) as reader:
            position: int = reader.execute(self._last).scalar_one()
            return position

    def version(self, stream: str, connection: Connection | None = None) -> int:
        """The version of the stream; 0 when there is none."""
        with self.reading(connection) as reader:
            version: int = reader.execute(self._version, {"of_stream": stream}).scalar_one()
            return version

    def _rows(self, stream: str, events: Iterable[object], told: Mapping[str, str]) -> list[dict[str, Any]]:
        given = list(events)
        category = category_of(stream)
        now = time.time()
        told_json = _metadata_json(told)
        rows = []
        for event, id in zip(given, new_ids(now, len(given)), strict=True):
            metadata = told_json
            if isinstance(event, NewEvent):
                id = _checked_id(event.id) if event.id else id
                metadata = _metadata_json({**told, **event.metadata})
                event = event.value
            name, schema, data = self.types.encode(event)
            rows.append(
                {
                    "stream": stream,
                    "category": category,
                    "id": id,
                    "type": name,
                    "schema": schema,
                    "data": data,
                    "metadata": metadata,
                    "time": now,
                }
            )
        return rows

    def _write_alone(self, append: Append) -> Appended:
        """In a transaction of its own; on PostgreSQL in one round trip, when nobody else is appending."""
        stream, rows, expected = append.stream, append.rows, append.expected
        if self._postgresql and not self._crowded:
            try:
                with explained(self.tables, self._single), self._single.connect() as single:
                    done = self._append.write(single, stream, rows, *bounds(expected))
            except IntegrityError:
                done = None  # said below what it is
            if done is not None:
                return done
            self._crowded = _CROWDED
        self._crowded = max(self._crowded - 1, 0)
        with self.transaction() as own:
            return self._write(own, stream, rows, expected)

    def _write_together(self, appends: Sequence[Append]) -> list[Appended | VersionConflict]:
        """In one transaction. Whatever it raises, nothing was written, or it is DatabaseUnavailable."""
        done: list[Appended | VersionConflict] = []
        with self.transaction() as own:
            self._append.lock(own)
            for append in appends:
                try:
                    done.append(self._insert(own, append.stream, append.rows, append.expected))
                except VersionConflict as conflict:
                    done.append(conflict)
        return done

    def _write(
        self, connection: Connection, stream: str, rows: list[dict[str, Any]], expected: Expected | int
    ) -> Appended:
        with explained(self.tables, connection):
            self._append.lock(connection)
            try:
                done = self._insert(connection, stream, rows, expected)
            except IntegrityError as error:
                match broken_rule(self.tables, error):
                    case "id":
                        raise DuplicateEvent(
                            f"append to {stream!r}: an event with one of these ids is in the store already; "
                            f"nothing was written"
                        ) from error
                    case "version" | "position":
                        raise self._conflict(stream, expected, None) from error
                raise
        if self._publish is not None:
            first = len(rows) - 1
            for number, row in enumerate(rows):
                row["position"] = done.position - first + number
                row["version"] = done.version - first + number
            self._publish(connection, [self._recorded(row) for row in rows])
        return done

    def _insert(
        self, connection: Connection, stream: str, rows: list[dict[str, Any]], expected: Expected | int
    ) -> Appended:
        """With the lock held."""
        done = self._append.write(connection, stream, rows, *bounds(expected))
        if done is None:
            raise self._conflict(stream, expected, self.version(stream, connection))
        return done

    def _conflict(self, stream: str, expected: Expected | int, actual: int | None) -> VersionConflict:
        wanted = expected.value if isinstance(expected, Expected) else f"version {expected}"
        found = (
            "and another event came first, which this transaction is too old to see (its isolation level)"
            if actual is None
            else f"and it is at version {actual}"
        )
        return VersionConflict(
            f"append to {stream!r}: {wanted} was expected, {found}; nothing was written. Read the stream again, decide "
            f"again and append again; `retry_conflicts` does that",
            stream,
            expected,
            actual,
        )

    @contextmanager
    def reading(self, connection: Connection | None = None) -> Iterator[Connection]:
        """The connection given, or one for a single statement."""
        if connection is not None:
            with explained(self.tables, connection):
                yield connection
        else:
            with explained(self.tables, self._single), self._single.connect() as own:
                yield own

    def _ranges(
        self, mark: int, up_to: int | None, limit: int | None, connection: Connection | None
    ) -> Iterator[Recorded]:
        """By ranges of positions: a database that has no statistics yet might sort the whole table for each page."""
        end = self.position(connection) if up_to is None else min(up_to, self.position(connection))
        left = end if limit is None else limit
        while mark < end and left > 0:
            upper = min(mark + min(_PAGE, left), end)
            events = self._read(self._between, {"mark": mark, "end": upper}, connection)
            yield from events
            mark = upper
            left -= len(events)

    def _pages(
        self,
        query: Select[Any],
        values: dict[str, Any],
        mark: int,
        mark_of: Callable[[Recorded], int],
        limit: int | None,
        connection: Connection | None,
    ) -> Iterator[Recorded]:
        """A statement a page, so that no transaction is open while the caller works."""
        left = limit
        while left is None or left > 0:
            page = _PAGE if left is None else min(left, _PAGE)
            events = self._read(query, {**values, "mark": mark, "page": page}, connection)
            yield from events
            if len(events) < page:
                return
            mark = mark_of(events[-1])
            left = None if left is None else left - page

    def _read(self, query: Select[Any], values: dict[str, Any], connection: Connection | None) -> list[Recorded]:
        decode = self.types.decode
        with self.reading(connection) as reader:
            rows = reader.execute(query, values).all()
        return [Recorded(*row, decode) for row in rows]  # type: ignore[call-arg]

    def _recorded(self, row: Mapping[str, Any]) -> Recorded:
        return Recorded(*(row[column.name] for column in self._columns), self.types.decode)  # type: ignore[call-arg]


def _metadata_json(metadata: Mapping[str, str]) -> str | None:
    for name, value in metadata.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise InvalidMessage(f"metadata {name!r}: names and values must be str; nothing was written")
    return msgspec.json.encode(metadata).decode() if metadata else None


def _checked_id(given: str) -> str:
    try:
        valid = str(UUID(given)) == given
    except (ValueError, AttributeError, TypeError):
        valid = False
    if not valid:
        raise InvalidMessage(f"the event id {given!r} is no UUID in its usual form; leave it out, or use one")
    return given


def _check_stream(stream: object) -> None:
    if not isinstance(stream, str) or not 0 < len(stream) <= 255 or "\0" in stream:
        raise InvalidMessage(f"the name of a stream is 1 to 255 characters without NUL, not {stream!r}")


def _check_expected(expected: object) -> None:
    if isinstance(expected, Expected):
        return
    if isinstance(expected, bool) or not isinstance(expected, int) or expected < 0:
        raise ConfigurationError(f"expected is a version (0: no stream) or an `Expected`, not {expected!r}")

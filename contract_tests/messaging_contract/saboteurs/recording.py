"""Saboteurs of event store, repository and projections. Needs SQLAlchemy."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, Dialect, Engine, func, insert, select
from sqlalchemy import Sequence as DatabaseSequence
from sqlalchemy.schema import CreateSequence

from messaging_contract.sql.accounts import Account
from messaging_sql import Appended, EventStore, Expected, Projection, Recorded, Repository, Tables
from messaging_sql.database import insert_new
from messaging_sql.event_append import AppendStatements


class ForgetsTheVersion(EventStore):
    """Appends whatever the version is."""

    def append(self, stream: str, events: Any, expected: Any, **options: Any) -> Appended:
        return super().append(stream, events, Expected.ANY, **options)


class ChecksBeforeTheTransaction(EventStore):
    """Compares the version before its transaction begins, when it may be old already."""

    def append(self, stream: str, events: Any, expected: Any, **options: Any) -> Appended:
        if isinstance(expected, int) and self.version(stream) != expected:
            raise self._conflict(stream, expected, self.version(stream))
        return super().append(stream, events, Expected.ANY, **options)


class CommitsRowByRow(EventStore):
    """Commits each event of an append on its own."""

    def append(self, stream: str, events: Any, expected: Any, **options: Any) -> Appended:
        if options.get("connection") is not None:
            return super().append(stream, events, expected, **options)
        for event in events:
            done = super().append(stream, [event], expected, **options)
            expected = done.version
        return done


class AppendsApart(EventStore):
    """Appends in a transaction of its own, whatever becomes of the caller's."""

    def append(self, *arguments: Any, connection: Connection | None = None, **options: Any) -> Appended:
        return super().append(*arguments, **options)


class ReadsTheLastAgain(EventStore):
    """Gives a reader that goes on from a position the event at it once more."""

    def read_all(self, *, after: int = 0, **options: Any) -> Iterator[Recorded]:
        return super().read_all(after=max(after - 1, 0), **options)


class OrdersByTheClock(EventStore):
    """Reads a stream in the order of the times of its events."""

    def read_stream(self, *arguments: Any, **options: Any) -> Iterator[Recorded]:
        return iter(sorted(super().read_stream(*arguments, **options), key=lambda event: event.time))


class PublishesOnItsOwn(EventStore):
    """Publishes whatever becomes of the event."""

    def append(self, stream: str, events: Any, expected: Any, **options: Any) -> Appended:
        publish = self._publish
        assert publish is not None
        held: list[Recorded] = []
        self._publish = lambda connection, recorded: held.extend(recorded)
        try:
            return super().append(stream, events, expected, **options)
        finally:
            self._publish = publish
            with self.engine.begin() as other:
                publish(other, held)


class PublishesAfterwards(EventStore):
    """Publishes after the commit, and crashes before, here every time."""

    def append(self, *arguments: Any, **options: Any) -> Appended:
        self._publish = lambda connection, events: None
        return super().append(*arguments, **options)


class _Sequenced(AppendStatements):
    """As most do it: a sequence hands out positions, long before they are committed."""

    def __init__(self, tables: Tables, sequence: DatabaseSequence, dialect: Dialect) -> None:
        super().__init__(tables, False, dialect)
        self._events = tables.events
        self._sequence = sequence

    def lock(self, connection: Connection) -> None:
        pass

    def write(
        self, connection: Connection, stream: str, rows: list[dict[str, Any]], low: int, high: int
    ) -> Appended | None:
        versions = select(func.max(self._events.c.version)).where(self._events.c.stream == stream)
        version = connection.scalar(versions) or 0
        if not low <= version <= high:
            return None
        for row in rows:
            version += 1
            position = connection.execute(select(self._sequence.next_value())).scalar_one()
            connection.execute(insert(self._events), {**row, "position": position, "version": version})
        return Appended(version, position, rows[-1]["id"])


class SkipsLateCommits(EventStore):
    """Takes positions from a sequence, long before they are committed: readers pass what commits late."""

    def __init__(self, engine: Engine, *arguments: Any, tables: Tables, **options: Any) -> None:
        super().__init__(engine, *arguments, tables=tables, **options)
        # Of the tables' metadata, so that it is dropped with them.
        sequence = DatabaseSequence(f"{tables.prefix}positions", metadata=tables.metadata)
        with engine.begin() as connection:
            connection.execute(CreateSequence(sequence, if_not_exists=True))
        self._append = _Sequenced(tables, sequence, engine.dialect)
        self._postgresql = False  # in a transaction


class BelievesTheSnapshot(Repository[Account]):
    """Believes the snapshot, whatever happened since."""

    def find(self, id: str, **options: Any) -> Account | None:
        account = Account(id)
        with self._store.engine.connect() as connection:
            found = self._snapshots.load(connection, account.stream, account.snapshot_type, schema=1)
        if found is None:
            return super().find(id, **options)
        account.restore(found.state)
        account.version = self._store.version(account.stream)
        return account


class AppliesTheSnapshotTwice(Repository[Account]):
    """Applies the last event that is in the snapshot again."""

    def find(self, id: str, **options: Any) -> Account | None:
        account = Account(id)
        with self._store.engine.connect() as connection:
            found = self._snapshots.load(connection, account.stream, account.snapshot_type, schema=1)
        if found is None:
            return super().find(id, **options)
        account.restore(found.state)
        for event in self._store.read_stream(account.stream, from_version=found.version):
            account.apply(event.value)
            account.version = event.version
        return account


class CommitsThePositionFirst(Projection):
    """Commits how far it is before the effects."""

    def _apply(self, size: int) -> int:
        with self.engine.begin() as connection:
            at = self._lock(connection)
            events = list(self._read(connection, at, self.store.position(connection), size))
            self._advance(connection, events[-1].position)
        with self.engine.begin() as connection:
            for number, event in enumerate(events):
                self._handle(connection, event, number)
        return len(events)


class CommitsThePositionLast(Projection):
    """Commits how far it is after the effects."""

    def _apply(self, size: int) -> int:
        at = self.position()
        with self.engine.connect() as connection:
            events = list(self._read(connection, at, self.store.position(connection), size))
        for number, event in enumerate(events):
            with self.engine.begin() as connection:
                self._handle(connection, event, number)
        with self.engine.begin() as connection:
            self._lock(connection)
            self._advance(connection, events[-1].position)
        return len(events)


class TakesNoTurns(Projection):
    """Does not wait for the other: both read the position before one of them has moved it."""

    both = threading.Barrier(2)

    def _lock(self, connection: Connection) -> int:
        at = self.position()
        try:
            self.both.wait(1.0)
        except threading.BrokenBarrierError:
            pass  # the other one has failed already
        if at == 0:
            with self.engine.begin() as other:
                other.execute(insert_new(other, self._tables.projections).values(name=self.name, position=0))
        return at


class PassesOverFailures(Projection):
    """Passes over an event whose handler raises."""

    def _handle(self, connection: Connection, event: Recorded, before: int) -> None:
        try:
            with connection.begin_nested():
                self._by_type[event.type](connection, event)
        except Exception:
            pass


class RebuildsOnTop(Projection):
    """Applies every event again without emptying the read model."""

    def rebuild(self) -> int:
        self._clear = lambda connection: None
        return super().rebuild()


class ForgetsToRewind(Projection):
    """Empties the read model and goes on where it was."""

    def rebuild(self) -> int:
        with self.engine.begin() as connection:
            assert self._clear is not None
            self._clear(connection)
        return self.catch_up()

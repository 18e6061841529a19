"""Loads aggregates from their events, and stores what they recorded."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection

from messaging.errors import ConfigurationError
from messaging_sql.aggregate import Aggregate, SnapshotAggregate
from messaging_sql.conflicts import retry_conflicts
from messaging_sql.event_errors import StreamNotFound
from messaging_sql.event_store import EventStore
from messaging_sql.snapshots import Snapshots

A = TypeVar("A", bound=Aggregate)
T = TypeVar("T")


class Repository(Generic[A]):
    """The aggregates of one class.

        accounts = Repository(store, Account, snapshot_every=100)
        accounts.update("42", lambda account: account.withdraw(50))

    snapshot_every: a snapshot when so many events were stored since the last; the class must be a `SnapshotAggregate`.
    Any thread may use it; an aggregate belongs to one thread at a time.
    """

    def __init__(self, store: EventStore, aggregate: Callable[[str], A], *, snapshot_every: int | None = None) -> None:
        with_snapshots = isinstance(aggregate, type) and issubclass(aggregate, SnapshotAggregate)
        if snapshot_every is not None and (snapshot_every < 1 or not with_snapshots):
            raise ConfigurationError(
                f"snapshot_every={snapshot_every!r} needs a positive number and a SnapshotAggregate, not {aggregate!r}"
            )
        self._store = store
        self._new = aggregate
        self._every = snapshot_every
        self._snapshots = Snapshots(store.tables)

    def load(self, id: str, *, connection: Connection | None = None) -> A:
        """The aggregate in its present state. Raises StreamNotFound when it has no events; UnknownEventType."""
        aggregate = self.find(id, connection=connection)
        if aggregate is None:
            raise StreamNotFound(f"stream {self._new(id).stream!r} has no events: there is no such aggregate")
        return aggregate

    def find(self, id: str, *, connection: Connection | None = None) -> A | None:
        """As `load`; None when it has no events."""
        aggregate = self._new(id)
        if self._every is not None and isinstance(aggregate, SnapshotAggregate):
            since = self._restore(aggregate, connection)
            if since is not None:
                return since
            aggregate = self._new(id)
        for event in self._store.read_stream(aggregate.stream, connection=connection):
            aggregate.apply(event.value)
            aggregate.version = event.version
        return aggregate if aggregate.version else None

    def save(
        self,
        aggregate: A,
        *,
        connection: Connection | None = None,
        correlation_id: str | None = None,
        causation_id: str | None = None,
    ) -> int:
        """Appends what is pending, and returns the version; nothing happens when nothing is pending.

        Raises VersionConflict when somebody else stored events since it was loaded: load it again and decide again,
        or use `update`. After an error, or when the caller's transaction is rolled back, load it again.
        """
        if not aggregate.pending:
            return aggregate.version
        before, count = aggregate.version, len(aggregate.pending)
        due = self._every is not None and before // self._every < (before + count) // self._every
        # With a snapshot it takes a transaction: what is appended without it would not be there to be saved.
        opened = nullcontext(connection) if connection is not None or not due else self._store.transaction()
        with opened as writer:
            done = self._store.append(
                aggregate.stream,
                aggregate.pending,
                before,
                connection=writer,
                correlation_id=correlation_id,
                causation_id=causation_id,
            )
            if due and writer is not None and isinstance(aggregate, SnapshotAggregate):
                self._snapshots.save(
                    writer,
                    aggregate.stream,
                    done.version,
                    done.event_id,
                    aggregate.snapshot(),
                    schema=aggregate.snapshot_schema,
                )
        aggregate.version = done.version
        aggregate.pending = []
        return done.version

    def update(self, id: str, change: Callable[[A], T], *, attempts: int = 10, **told: Any) -> T:
        """Loads, changes and saves; all of it again after a VersionConflict. Returns what `change` returned.

        change: called again on a newer state, so it must do nothing but change the aggregate. told: what `save` takes.
        """

        def once() -> T:
            aggregate = self.load(id)
            result = change(aggregate)
            self.save(aggregate, **told)
            return result

        return retry_conflicts(once, attempts=attempts)

    def _restore(self, aggregate: A, connection: Connection | None) -> A | None:
        """From its snapshot and the events after it. None: there is no snapshot that fits the stream."""
        assert isinstance(aggregate, SnapshotAggregate)
        with self._store.reading(connection) as reader:
            found = self._snapshots.load(
                reader, aggregate.stream, aggregate.snapshot_type, schema=aggregate.snapshot_schema
            )
        if found is None:
            return None
        # Read with the last event that is in it: a snapshot of a stream that was restored from a backup is no good.
        events = self._store.read_stream(aggregate.stream, from_version=found.version, connection=connection)
        first = next(events, None)
        if first is None or first.id != found.event_id:
            return None
        aggregate.restore(found.state)
        aggregate.version = found.version
        for event in events:
            aggregate.apply(event.value)
            aggregate.version = event.version
        return aggregate

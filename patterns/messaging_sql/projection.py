"""Read models: what events have come to, kept up to date event by event."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Connection, Engine, delete, insert, select, update
from sqlalchemy.exc import DBAPIError

from messaging.errors import ConfigurationError
from messaging.retry import RetryPolicy
from messaging_sql.database import explained, insert_new
from messaging_sql.errors import DatabaseUnavailable
from messaging_sql.event_errors import ProjectionFailed
from messaging_sql.event_signal import EventSignal
from messaging_sql.event_store import EventStore
from messaging_sql.events import Recorded

log = logging.getLogger("messaging.projection")

Handler = Callable[[Connection, Recorded], None]
"""Changes the read model, through the connection that it is given and nothing else."""

_NOT_ITS_FAULT = ("08", "40", "57")
"""PostgreSQL's classes of errors: no connection; deadlock, serialization failure; shutdown."""


@dataclass(frozen=True, slots=True)
class ParkedEvent:
    """An event that a projection passed over. error: the type and text of what its handler raised."""

    position: int
    error: str


class _HandlerFailed(Exception):
    """error: what the handler raised. before: how many events of the batch were applied before this one."""

    def __init__(self, event: Recorded, error: Exception, before: int) -> None:
        self.event = event
        self.error = error
        self.before = before


class Projection:
    """Keeps one read model up to date with the store. What it did is committed together with how far it is.

        balances = Projection("balances", store, {Opened: add_row, Deposited: add_money}, clear=delete_rows)
        balances.catch_up()      # or run(), for ever

    So every event has its effect once, whatever is killed when, also when several processes run the same projection
    (they take turns). name: of this read model; another one has another name and goes at its own pace.
    handlers: by the class of the event; other events are passed over. They write to tables in the database of
    `engine`, the store's when left out, through the connection that they are given. clear: empties these tables, for
    `rebuild`. category: only streams with this before the first dash. batch: events in one transaction.
    retry: of a handler that raises; the order is kept, so meanwhile nothing else happens. on_failure, when that did
    not help: "stop" raises ProjectionFailed, "park" passes over the event and remembers it, see `parked`.

    `run` and `catch_up` belong to one thread, everything else may be called by any.
    """

    def __init__(
        self,
        name: str,
        store: EventStore,
        handlers: Mapping[type, Handler],
        *,
        clear: Callable[[Connection], None] | None = None,
        engine: Engine | None = None,
        category: str | None = None,
        batch: int = 500,
        retry: RetryPolicy | None = None,
        on_failure: Literal["stop", "park"] = "stop",
    ) -> None:
        if not name or len(name) > 255:
            raise ConfigurationError(f"a projection needs a name of 1 to 255 characters, not {name!r}")
        if not handlers or batch < 1 or on_failure not in ("stop", "park"):
            raise ConfigurationError(
                f"projection {name!r} needs handlers, a positive batch and on_failure 'stop' or 'park'"
            )
        self.name = name
        self.store = store
        self.engine = engine or store.engine
        # Also what an unregistered class would only show when it runs.
        self._by_type = {each: handler for cls, handler in handlers.items() for each in store.types.names(cls)}
        self._classes = list(handlers)
        self._clear = clear
        self._category = category
        self._batch = batch
        self._retry = retry or RetryPolicy(attempts=3, delays=(0.1, 1.0))
        self._park_failures = on_failure == "park"
        self._tables = store.tables
        self._mine = self._tables.projections.c.name == name
        self._parked_mine = self._tables.parked_events.c.name == name
        self._shared = self.engine is store.engine

    def position(self) -> int:
        """Everything up to this position of the store is in the read model."""
        with explained(self._tables, self.engine), self.engine.connect() as connection:
            return connection.scalar(select(self._tables.projections.c.position).where(self._mine)) or 0

    def lag(self) -> int:
        """How many events the store has after `position`, those that are passed over included."""
        at = self.position()
        return max(self.store.position() - at, 0)

    def catch_up(self, stop: threading.Event | None = None) -> int:
        """Goes on until the end that the store has by then, or `stop` is set. Returns how many events it applied.

        Raises ProjectionFailed, TablesMissing, DatabaseUnavailable; what was applied before stays.
        """
        stop = stop or threading.Event()
        applied, size, attempts = 0, self._batch, 0
        while self.lag() and not stop.is_set():
            try:
                applied += self._apply(size)
                size, attempts = self._batch, 0
            except _HandlerFailed as failed:
                if failed.before:
                    size = failed.before  # what is good is committed first
                    continue
                attempts += 1
                delay = self._retry.delay_after(attempts, failed.error)
                if delay is not None:
                    size = 1
                    stop.wait(delay)
                elif self._park_failures:
                    self._park(failed.event, _text(failed.error))
                    size, attempts = self._batch, 0
                else:
                    raise self._stopped(failed.event, failed.error) from failed.error
        return applied

    def run(self, stop: threading.Event, *, poll: float = 0.2) -> None:
        """Keeps the read model up to date until `stop` is set. Waits while the database is down.

        poll: seconds between looks where nobody tells of new events. Raises ProjectionFailed, TablesMissing.
        """
        with EventSignal(self.store) as signal:
            while not stop.is_set():
                try:
                    self.catch_up(stop)
                except DatabaseUnavailable as error:
                    log.warning("projection %r waits for its database: %s", self.name, error)
                    stop.wait(1.0)
                if not stop.is_set():
                    signal.wait(poll)

    def wait_for(self, position: int, timeout: float = 10.0) -> bool:
        """Whether the event at `position` is in the read model within `timeout` seconds; somebody else runs it."""
        tick = threading.Event()
        waited = 0.0
        while self.position() < position:
            if waited >= timeout:
                return False
            tick.wait(0.01)
            waited += 0.01
        return True

    def rebuild(self) -> int:
        """Empties the read model and applies every event again. Returns how many.

        Readers see it incomplete meanwhile; where that must not be, build another one under a new name, and switch.
        Raises ConfigurationError without `clear`, and what `catch_up` raises.
        """
        if self._clear is None:
            raise ConfigurationError(f"projection {self.name!r} cannot be rebuilt: tell it how to `clear` its tables")
        with explained(self._tables, self.engine), self.engine.begin() as connection:
            self._lock(connection)
            self._clear(connection)
            connection.execute(delete(self._tables.parked_events).where(self._parked_mine))
            self._advance(connection, 0)
        return self.catch_up()

    def parked(self) -> list[ParkedEvent]:
        """The events that it passed over, in order."""
        table = self._tables.parked_events
        query = select(table.c.position, table.c.error).where(self._parked_mine).order_by(table.c.position)
        with explained(self._tables, self.engine), self.engine.connect() as connection:
            return [ParkedEvent(*row) for row in connection.execute(query)]

    def retry_parked(self) -> int:
        """Applies the parked events now, in order; returns how many. Raises ProjectionFailed at the first that fails.

        They come after events that were later: right for handlers that do not mind, else `rebuild`.
        """
        done = 0
        for parked in self.parked():
            with explained(self._tables, self.engine), self.engine.begin() as connection:
                self._lock(connection)
                row = (self._tables.parked_events.c.position == parked.position) & self._parked_mine
                if connection.execute(delete(self._tables.parked_events).where(row)).rowcount:
                    event = next(self._read(connection, parked.position - 1, parked.position, 1))
                    try:
                        self._handle(connection, event, 0)
                    except _HandlerFailed as failed:
                        raise self._stopped(event, failed.error) from failed.error
                    done += 1
        return done

    def _apply(self, size: int) -> int:
        """One transaction: at most `size` events, and the position after them."""
        with explained(self._tables, self.engine), self.engine.begin() as connection:
            at = self._lock(connection)
            end = self.store.position(connection if self._shared else None)
            events = list(self._read(connection, at, end, size))
            for number, event in enumerate(events):
                self._handle(connection, event, number)
            reached = events[-1].position if len(events) == size else max(end, at)
            self._advance(connection, reached)
            return len(events)

    def _read(self, connection: Connection, after: int, up_to: int, limit: int) -> Iterator[Recorded]:
        return self.store.read_all(
            after=after,
            up_to=up_to,
            types=self._classes,
            category=self._category,
            limit=limit,
            connection=connection if self._shared else None,
        )

    def _handle(self, connection: Connection, event: Recorded, before: int) -> None:
        try:
            self._by_type[event.type](connection, event)
        except Exception as error:
            if isinstance(error, DBAPIError) and _is_the_database(error):
                raise
            raise _HandlerFailed(event, error, before) from error

    def _lock(self, connection: Connection) -> int:
        """Waits until no other process is at this projection. Returns its position."""
        table = self._tables.projections
        # On SQLite it is this write that takes the lock.
        connection.execute(insert_new(connection, table).values(name=self.name, position=0))
        at: int = connection.execute(select(table.c.position).where(self._mine).with_for_update()).scalar_one()
        return at

    def _advance(self, connection: Connection, position: int) -> None:
        connection.execute(update(self._tables.projections).where(self._mine).values(position=position))

    def _park(self, event: Recorded, error: str) -> None:
        with explained(self._tables, self.engine), self.engine.begin() as connection:
            if self._lock(connection) < event.position:  # else another process has done it
                row = {"name": self.name, "position": event.position, "error": error}
                connection.execute(insert(self._tables.parked_events), row)
                self._advance(connection, event.position)
        log.warning("projection %r parked the event at position %s: %s", self.name, event.position, error)

    def _stopped(self, event: Recorded, error: Exception) -> ProjectionFailed:
        return ProjectionFailed(
            f"projection {self.name!r} stopped before position {event.position} ({event.type!r}, stream "
            f"{event.stream!r}, version {event.version}): {_text(error)}. Mend the handler and go on with it, or "
            f"pass over such events with on_failure='park'",
            self.name,
            event.position,
        )


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:1000]


def _is_the_database(error: DBAPIError) -> bool:
    state = getattr(error.orig, "sqlstate", None) or ""
    return error.connection_invalidated or state[:2] in _NOT_ITS_FAULT

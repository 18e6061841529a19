"""The relay: publishes what waits in the outbox. Any number of them may run, in any number of processes."""

from __future__ import annotations

import logging
import os
import random
import threading
import time
import uuid
from collections.abc import Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Self

from sqlalchemy import Connection, Engine

from messaging.broker import Broker
from messaging.errors import Closed, ConfigurationError, MessagingError
from messaging.stop_request import StopRequest, stop_signals
from messaging_sql.database import transaction
from messaging_sql.errors import DatabaseUnavailable, TablesMissing
from messaging_sql.hint import Listener
from messaging_sql.publishing import Outcome, Publishing
from messaging_sql.relay_stats import RelayStats
from messaging_sql.tables import LANES, Tables, default_tables
from messaging_sql.waiting import Waiting

log = logging.getLogger("messaging.outbox")

_SHORTEST, _LONGEST = 0.1, 30.0
"""Seconds to wait after the first failure in a row of broker or database, and at most."""

_LANES_AT_A_TIME = 16
"""Lanes in one round. A quarter of all, so that other relays find some."""


class Relay:
    """Publishes what waits in the outbox, each key in order, and takes it out once the broker has confirmed it.

        with Relay(engine, broker):
            ...                       # publishes meanwhile, on a thread of its own

        Relay(engine, broker).run()   # until SIGTERM or SIGINT

    The broker has to know the topics (`connect(topology=...)`). A crash or a lost connection between the confirmation
    and the commit makes a duplicate with the same id, never a loss.

    batch: rows in a round. lease: seconds that a lane is this relay's without a word; a relay that crashed holds its
    keys up for so long, and a message must be confirmed within a third of it. poll: seconds between two looks
    when nothing waited; PostgreSQL tells when something does (`listen`). park_after: attempts after which a row that
    the broker refuses is parked, so that those of its key go on; None: never, they wait until it is mended.
    retry_delay: seconds before its second attempt; each further wait is twice as long.

    `start`, `stop` and `run` belong to one thread; `request_stop` and `stats` may be used from any, though
    not in a signal handler: `run` has its own.
    """

    def __init__(
        self,
        engine: Engine,
        broker: Broker,
        *,
        tables: Tables | None = None,
        batch: int = 1000,
        lease: float = 30.0,
        poll: float = 1.0,
        park_after: int | None = 5,
        retry_delay: float = 1.0,
        listen: bool = True,
    ) -> None:
        for name, value in (("batch", batch), ("lease", lease), ("poll", poll), ("retry_delay", retry_delay)):
            if not 0 < value < 1e9:
                raise ConfigurationError(f"relay: {name} must be a positive number, not {value!r}")
        if park_after is not None and park_after < 1:
            raise ConfigurationError(f"relay: park_after must be at least 1, or None, not {park_after!r}")
        self._engine = engine
        self._tables = tables or default_tables()
        self._batch, self._lease, self._poll = batch, lease, poll
        self._park_after, self._retry_delay = park_after, retry_delay
        self.owner = f"{os.getpid()}-{uuid.uuid4().hex[:12]}"
        """What this relay is called in the table of lanes."""
        self.stats = RelayStats()
        self._waiting = Waiting(self._tables, self.owner)
        self._publishing = Publishing(broker, lease / 3)
        self._listener = (
            Listener(engine, self._tables, self.wake) if listen and engine.dialect.name == "postgresql" else None
        )
        self._held: dict[str, float] = {}
        """Topics that could not be published to, and when (monotonic) they are tried again."""
        self._held_before: dict[str, int] = {}
        """How often in a row that was so."""
        self._unsettled: Outcome | None = None
        """What the broker has and the database does not know yet, since it was not there: told before anything else."""
        self._asked = StopRequest()
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._error: MessagingError | None = None

    def start(self) -> None:
        """Begins to publish on a thread of its own. Raises TablesMissing, and DatabaseUnavailable at the start only."""
        if self._thread is not None:
            raise ConfigurationError("the relay was started before: make another")
        with self._database() as connection:
            if self._waiting.count_lanes(connection) != LANES:  # made by something else than `create_tables`
                raise TablesMissing(
                    f"{self._tables.lanes.fullname} has not its {LANES} rows, without which nothing is published: "
                    f"fill it with: {self._tables.create_command}"
                )
        if self._listener is not None:
            self._listener.start()
        self._thread = threading.Thread(target=self._loop, name="outbox-relay", daemon=True)
        self._thread.start()

    def run(self) -> None:
        """Starts, then blocks until SIGTERM, SIGINT or `request_stop`, then stops. Raises what ended the relay."""
        with stop_signals(lambda _number: self._asked.set()):
            try:
                self.start()
                while not self._asked.wait(0.2) and self._thread is not None and self._thread.is_alive():
                    pass
            finally:
                self.stop()

    def request_stop(self) -> None:
        """Makes the relay end after what it is publishing now. Returns at once."""
        self._asked.set()
        self._stop.set()
        self._wake.set()

    def wake(self) -> None:
        """Makes the relay look at once instead of at its next poll. Returns at once."""
        self._wake.set()

    def stop(self, timeout: float | None = None) -> bool:
        """Ends after what is being published now, which is confirmed and taken out; gives the lanes back.

        Waits up to `timeout` seconds, without one for about the length of the lease. Returns whether it ended. Raises
        what ended the relay before. Idempotent.
        """
        self.request_stop()
        ended = True
        if self._thread is not None:
            self._thread.join(self._lease + 5.0 if timeout is None else timeout)
            ended = not self._thread.is_alive()
        if self._listener is not None and self._thread is not None:
            self._listener.stop()
        error, self._error = self._error, None
        if error is not None:
            raise error
        return ended

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _loop(self) -> None:
        failures = 0
        try:
            while not self._stop.is_set():
                try:
                    did_something = self._round()
                except (TablesMissing, Closed) as error:  # waiting mends neither
                    self._error = error
                    log.error("outbox relay ends: %s", error)
                    return
                except DatabaseUnavailable as error:
                    self.stats.database_errors += 1
                    failures = self._back_off(failures, error)
                except MessagingError as error:
                    self.stats.broker_errors += 1
                    failures = self._back_off(failures, error)
                except Exception as error:
                    log.exception("outbox relay: a round failed")
                    failures = self._back_off(failures, error)
                else:
                    failures = 0
                    if not did_something:
                        self._wake.wait(self._next_look())
                    self._wake.clear()
        finally:
            try:
                self._publishing.close()
            except MessagingError as error:
                log.info("outbox relay: closing the producer: %s", error)

    def _round(self) -> bool:
        """Publishes one batch. False when there was nothing to do. Raises DatabaseUnavailable, or why no broker."""
        self.stats.rounds += 1
        if self._unsettled is not None:
            self._settle(self._unsettled)
        held = self._still_held()
        claimed = time.monotonic()
        with self._database() as connection:
            lanes = self._waiting.claim(connection, _LANES_AT_A_TIME, self._lease, held)
            rows = self._waiting.read(connection, lanes, self._batch, held) if lanes else []
        if not lanes:
            return False
        outcome = self._unsettled = Outcome()
        try:
            self._publish(lanes, rows, claimed, outcome)
        finally:
            self._settle(outcome)
        self._hold(rows, outcome)
        if outcome.broker is not None:
            raise outcome.broker
        return bool(outcome.confirmed or outcome.failed)

    def _publish(self, lanes: Sequence[int], rows: Sequence[Any], claimed: float, outcome: Outcome) -> None:
        kept_since = claimed

        def go_on() -> bool:
            """A third of the lease is for the next part, so it has to be young enough."""
            nonlocal kept_since
            if self._stop.is_set():
                return False
            asked = time.monotonic()
            if asked - kept_since < self._lease / 3:
                return True
            with self._database() as connection:
                kept = self._waiting.renew(connection, lanes, self._lease)
            kept_since = asked
            if not kept:
                self.stats.lost += 1
                log.warning("outbox relay: the lease ran out; another relay goes on with these rows")
            return kept

        self._publishing.publish(rows, go_on, outcome)

    def _settle(self, outcome: Outcome) -> None:
        """Takes out what is published, counts what failed, gives the lanes back: all of it or, at a crash, nothing."""
        failed = {position: f"{type(error).__name__}: {error}" for position, error in outcome.failed.items()}
        with self._database() as connection:
            self._waiting.remove(connection, outcome.confirmed)
            parked = self._waiting.fail(connection, failed, self._retry_delay, self._park_after)
            self._waiting.release(connection)
        self._unsettled = None
        self.stats.published += len(outcome.confirmed)
        self.stats.failed += len(failed)
        self.stats.parked += parked
        for position, text in failed.items():
            log.error("outbox relay: row %d could not be published: %s", position, text)
        if parked:
            log.error("outbox relay: %d rows parked; look at them with: messaging outbox parked", parked)

    def _hold(self, rows: Sequence[Any], outcome: Outcome) -> None:
        """Leaves the topics alone that cannot be published to, for longer each time."""
        if self._held_before:
            confirmed = set(outcome.confirmed)
            for topic in {row.aggregatetype for row in rows if row.position in confirmed}:
                self._held_before.pop(topic, None)
        for topic, error in outcome.held.items():
            times = self._held_before[topic] = self._held_before.get(topic, 0) + 1
            delay = min(max(self._retry_delay, self._poll) * 2 ** min(times - 1, 20), _LONGEST)
            self._held[topic] = time.monotonic() + delay
            self.stats.broker_errors += error.retryable
            log.error("outbox relay: nothing can be published to %r, again in %.1f s: %s", topic, delay, error)

    def _database(self) -> AbstractContextManager[Connection]:
        return transaction(self._engine, self._tables)

    def _still_held(self) -> list[str]:
        now = time.monotonic()
        self._held = {topic: until for topic, until in self._held.items() if until > now}
        return list(self._held)

    def _next_look(self) -> float:
        """Seconds. Not every relay at the same moment."""
        return self._poll * random.uniform(0.8, 1.2)

    def _back_off(self, failures: int, error: Exception) -> int:
        """Waits, longer each time, and returns how many failures in a row that makes."""
        delay = min(_SHORTEST * 2**failures, _LONGEST) * random.uniform(0.8, 1.2)
        log.warning("outbox relay: again in %.1f s: %s", delay, error)
        self._stop.wait(delay)
        return min(failures + 1, 20)

"""Waiting for new events: until PostgreSQL tells of some, or it is time to look."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

from messaging_sql.event_append import channel
from messaging_sql.event_store import EventStore
from messaging_sql.hint import Listener


class EventSignal:
    """Set when there may be new events. Entered and left by one thread; `wake` may be called by any."""

    def __init__(self, store: EventStore) -> None:
        self._event = threading.Event()
        self._listener = (
            Listener(store.engine, store.tables, self.wake, channel(store.tables))
            if store.engine.dialect.name == "postgresql"
            else None
        )

    def wait(self, seconds: float) -> None:
        """Returns after so many seconds at the latest."""
        if self._event.wait(seconds):
            self._event.clear()

    def wake(self) -> None:
        """Ends `wait`."""
        self._event.set()

    def __enter__(self) -> Self:
        if self._listener is not None:
            self._listener.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._listener is not None:
            self._listener.stop()

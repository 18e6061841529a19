"""Following the store: what is there, and then what comes."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable, Iterator

from messaging.errors import ConfigurationError
from messaging_sql.event_signal import EventSignal
from messaging_sql.event_store import EventStore
from messaging_sql.events import Recorded


class Subscription:
    """Iterates over the events after a position, in the order of their commits, and waits for more until it is closed.

        for event in Subscription(store, after=checkpoint):
            handle(event)

    types, category: as for `EventStore.read_all`. poll: seconds between looks where nobody tells of new events.
    It stores no position: whoever handles an event keeps its position with the effect, or uses a `Projection`.
    One thread iterates, once; any thread may close it. Iterating raises TablesMissing, DatabaseUnavailable; go on with
    a new one after `position`.
    """

    def __init__(
        self,
        store: EventStore,
        *,
        after: int = 0,
        types: Iterable[type] | None = None,
        category: str | None = None,
        poll: float = 0.2,
    ) -> None:
        if poll <= 0:
            raise ConfigurationError(f"poll must be a positive number of seconds, not {poll!r}")
        self.position = after
        """Of the last event that was looked at, also when the filter left it out."""
        self._store = store
        self._types = None if types is None else list(types)
        self._category = category
        self._poll = poll
        self._signal = EventSignal(store)
        self._closed = threading.Event()

    def __iter__(self) -> Iterator[Recorded]:
        with self._signal:
            while not self._closed.is_set():
                if not (yield from self._page()):
                    self._signal.wait(self._poll)

    def close(self) -> None:
        """Ends the iteration, after the event that is being handled."""
        self._closed.set()
        self._signal.wake()

    def _page(self) -> Generator[Recorded, None, bool]:
        """Up to the present end. Returns whether there was anything."""
        end = self._store.position()
        if end <= self.position:
            return False
        found = self._store.read_all(after=self.position, up_to=end, types=self._types, category=self._category)
        for event in found:
            self.position = event.position
            yield event
            if self._closed.is_set():
                return True
        self.position = end
        return True

"""What became of every order in one group, written down as it happens."""

from __future__ import annotations

import time
from collections import Counter
from threading import Lock


class GroupLedger:
    """One group's book. Handlers write from any thread, the display reads; `_lock` guards everything.

    An order is done when it was handled, or given up (the retry policy sends it to the dead-letter queue). A delivery
    of an order that is done is a duplicate: at-least-once delivery allows it, an idempotent handler skips it.
    """

    def __init__(self, group: str, known: frozenset[str]) -> None:
        self.group = group
        self._known = known
        self._lock = Lock()
        self._calls: Counter[str] = Counter()
        self._handled: set[str] = set()
        self._given_up: set[str] = set()
        self._foreign: set[str] = set()
        self._retried = 0
        self._duplicates = 0
        self._last = 0.0

    def received(self, order: str) -> int:
        """Which call this is for `order` (1-based); 0 for a duplicate, which is not to be handled again."""
        with self._lock:
            if order not in self._known:
                self._foreign.add(order)
                return 0
            if order in self._handled:
                self._duplicates += 1
                return 0
            if order in self._given_up:
                self._duplicates += 1
            self._calls[order] += 1
            return self._calls[order]

    def handled(self, order: str) -> None:
        with self._lock:
            self._handled.add(order)
            self._last = time.monotonic()

    def failed(self, order: str, given_up: bool) -> None:
        with self._lock:
            if given_up:
                self._given_up.add(order)
                self._last = time.monotonic()
            else:
                self._retried += 1

    @property
    def done(self) -> int:
        """Orders handled or given up."""
        with self._lock:
            return len(self._handled) + len(self._given_up - self._handled)

    @property
    def retried(self) -> int:
        return self._retried

    @property
    def duplicates(self) -> int:
        return self._duplicates

    @property
    def last(self) -> float:
        """When the last order was done: seconds of `time.monotonic`."""
        return self._last

    def sets(self) -> tuple[set[str], set[str], set[str], set[str]]:
        """Copies: the orders received, handled, given up, and ids nobody published here."""
        with self._lock:
            return set(self._calls), set(self._handled), set(self._given_up), set(self._foreign)

    def counts(self) -> tuple[int, int]:
        """How many were handled and given up so far."""
        with self._lock:
            return len(self._handled), len(self._given_up)

"""The time of a memory broker: leases, delays and redeliveries follow it. Injectable, so tests need not wait."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Lock


class Clock:
    """The monotonic clock of this machine."""

    def now(self) -> float:
        """Seconds; never goes back."""
        return time.monotonic()

    def on_advance(self, wake: Callable[[], None]) -> None:
        """`wake` is called after the clock was moved by hand; this one never is."""


class ManualClock(Clock):
    """Stands still until `advance`; with `running` it goes like the machine's between two of them.

    Thread-safe: `_lock` guards the time.
    """

    def __init__(self, *, running: bool = False) -> None:
        self._lock = Lock()
        self._running = running
        self._now = 0.0
        self._wake: list[Callable[[], None]] = []

    def now(self) -> float:
        return self._now + time.monotonic() if self._running else self._now

    def on_advance(self, wake: Callable[[], None]) -> None:
        self._wake.append(wake)

    def advance(self, seconds: float) -> None:
        """Moves the clock on by `seconds` and lets every waiting consumer look again."""
        with self._lock:
            self._now += seconds
        for wake in list(self._wake):
            wake()

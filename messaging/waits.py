"""That somebody waits, and for what: counted, and told when it begins and when it ends."""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Literal

log = logging.getLogger(__name__)

Reason = Literal["in-flight", "buffer", "blocked", "throttled", "lag", "pressure"]
"""What is waited for, in the same words on every broker.

in-flight: `max_in_flight` messages await confirmation. buffer: the client library's own buffer is full. blocked: the
broker takes no publishes just now. throttled: the broker answers that it is asked too often. lag: a `LagThrottle`
holds. pressure: a `PressureGate` has paused its consumer.
"""


@dataclass(frozen=True, slots=True)
class Wait:
    """seconds: how long it lasted; None when it begins. detail: what is known beside the reason."""

    reason: Reason
    seconds: float | None = None
    detail: str = ""

    @property
    def ended(self) -> bool:
        return self.seconds is not None


OnWait = Callable[[Wait], None]
"""Called when a wait begins and when it ends, on the thread that notices: it must not block.

One call at a time, a beginning always before its end. What it raises is logged.
"""


class Waits:
    """Waits by reason. A wait begins with the first who waits for that reason and ends with the last.

    Every method may be called from any thread. `_lock` guards all and is not held while `on_wait` is called: whoever
    comes while another thread is telling leaves the news to that thread.
    """

    def __init__(self, on_wait: OnWait | None = None) -> None:
        self._on_wait = on_wait
        self._lock = Lock()
        self._open: dict[Reason, _Open] = {}
        self._counts: Counter[str] = Counter()
        self._seconds: dict[str, float] = {}
        self._untold: deque[Wait] = deque()
        self._telling = False

    def begin(self, reason: Reason, detail: str = "") -> None:
        """Somebody waits from now on."""
        self.note(reason, True, detail)
        self.tell()

    def end(self, reason: Reason) -> None:
        """Undoes one `begin`; without one it does nothing."""
        self.note(reason, False)
        self.tell()

    def note(self, reason: Reason, waiting: bool, detail: str = "") -> None:
        """`begin` or `end` for who holds a lock: calls nobody. `tell` comes later, without it."""
        with self._lock:
            found = self._open.get(reason)
            if not waiting:
                if found is not None:
                    found.holders -= 1
                    if not found.holders:
                        self._end(reason)
            elif found is not None:
                found.holders += 1
            else:
                self._open[reason] = _Open(time.monotonic(), detail)
                self._counts[reason] += 1
                self._untold.append(Wait(reason, None, detail))

    def tell(self) -> None:
        """Calls `on_wait` with what was noted and not told yet."""
        on_wait = self._on_wait
        if on_wait is None:
            self._untold.clear()
            return
        with self._lock:
            if self._telling:
                return
            self._telling = True
        try:
            while (wait := self._next()) is not None:
                try:
                    on_wait(wait)
                except Exception:
                    log.exception("on_wait failed for %s", wait)
        except BaseException:
            self._telling = False
            raise

    @contextmanager
    def during(self, reason: Reason, detail: str = "") -> Iterator[None]:
        """`begin`, and `end` when the block is left."""
        try:
            self.begin(reason, detail)
            yield
        finally:
            self.end(reason)

    def close(self) -> None:
        """Ends what is open, since nobody waits any more."""
        with self._lock:
            for reason in list(self._open):
                self._end(reason)
        self.tell()

    @property
    def counts(self) -> Mapping[str, int]:
        """How many waits began, by reason."""
        with self._lock:
            return dict(self._counts)

    @property
    def seconds(self) -> Mapping[str, float]:
        """How long they lasted altogether, by reason, with those that have not ended."""
        with self._lock:
            now, seconds = time.monotonic(), dict(self._seconds)
            for reason, found in self._open.items():
                seconds[reason] = seconds.get(reason, 0.0) + now - found.since
            return seconds

    @property
    def open(self) -> frozenset[str]:
        """The reasons for which somebody waits now."""
        with self._lock:
            return frozenset(self._open)

    def _end(self, reason: Reason) -> None:
        found = self._open.pop(reason)
        seconds = time.monotonic() - found.since
        self._seconds[reason] = self._seconds.get(reason, 0.0) + seconds
        self._untold.append(Wait(reason, seconds, found.detail))

    def _next(self) -> Wait | None:
        with self._lock:
            if self._untold:
                return self._untold.popleft()
            self._telling = False
            return None


class _Open:
    __slots__ = ("detail", "holders", "since")

    def __init__(self, since: float, detail: str) -> None:
        self.since = since
        self.detail = detail
        self.holders = 1


class _Untold(Waits):
    """For who has nobody to tell."""

    def note(self, reason: Reason, waiting: bool, detail: str = "") -> None:
        pass


UNTOLD = _Untold()

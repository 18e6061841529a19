"""Where an adapter's I/O thread leaves deliveries and the consumer's thread takes them."""

from __future__ import annotations

import heapq
import time
from collections import deque
from collections.abc import Callable, Iterable
from threading import Condition

from messaging.delivery import Delivery
from messaging.errors import MessagingError


class DeliveryBuffer:
    """Deliveries that are ready, and deliveries that become ready later. Thread-safe.

    One condition guards everything in it. `clock` returns seconds and never goes back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._changed = Condition()
        self._clock = clock
        self._ready: deque[Delivery] = deque()
        self._later: list[tuple[float, int, Delivery]] = []
        self._sequence = 0
        self._errors: deque[MessagingError] = deque()
        self._closed = False

    def put(self, deliveries: Iterable[Delivery]) -> None:
        """Appends `deliveries` and wakes the thread in `take`. After `close` they are dropped."""
        with self._changed:
            if self._closed:
                return
            self._ready.extend(deliveries)
            self._changed.notify()

    def put_later(self, delivery: Delivery, delay: float) -> None:
        """Makes `delivery` ready in `delay` seconds: this is how a nack is carried out inside the consumer.

        After `close` it is dropped.
        """
        with self._changed:
            if self._closed:
                return
            self._sequence += 1
            heapq.heappush(self._later, (self._clock() + delay, self._sequence, delivery))
            self._changed.notify()

    def fail(self, error: MessagingError) -> None:
        """Makes a coming `take` raise `error`, once."""
        with self._changed:
            self._errors.append(error)
            self._changed.notify()

    def check(self) -> None:
        """Raises what `fail` got and nobody was told yet, once."""
        with self._changed:
            if self._errors:
                raise self._errors.popleft()

    def take(self, most: int, timeout: float) -> list[Delivery]:
        """Returns 1 to `most` ready deliveries, none at the deadline or once closed. Raises what `fail` got."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                if self._errors:
                    raise self._errors.popleft()
                if self._later:
                    self._promote()
                if self._ready:
                    ready = self._ready
                    return [ready.popleft() for _ in range(min(most, len(ready)))]
                remaining = deadline - time.monotonic()
                if self._closed or remaining <= 0:
                    return []
                if self._later:
                    remaining = min(remaining, max(self._later[0][0] - self._clock(), 0.0))
                self._changed.wait(remaining)

    def remove(self, unwanted: Callable[[Delivery], bool]) -> list[Delivery]:
        """Takes out and returns every delivery for which `unwanted` is true, ready or not (a revoked partition)."""
        with self._changed:
            # Asked once each: between two calls the answer may change, and a delivery be lost.
            gone: list[Delivery] = []
            ready: deque[Delivery] = deque()
            for delivery in self._ready:
                (gone if unwanted(delivery) else ready).append(delivery)
            self._ready = ready
            later, self._later = self._later, []
            for entry in later:
                if unwanted(entry[2]):
                    gone.append(entry[2])
                else:
                    self._later.append(entry)
            heapq.heapify(self._later)
            return gone

    def waiting(self) -> list[tuple[float, Delivery]]:
        """The deliveries that are not ready yet, each with the seconds until it is."""
        with self._changed:
            now = self._clock()
            return [(at - now, delivery) for at, _, delivery in self._later]

    def wake(self) -> None:
        """Makes `take` look again (the clock was moved)."""
        with self._changed:
            self._changed.notify_all()

    def close(self) -> list[Delivery]:
        """Ends `take` and returns what was still in here. Idempotent."""
        with self._changed:
            self._closed = True
            left = [*self._ready, *(d for _, _, d in self._later)]
            self._ready.clear()
            self._later.clear()
            self._changed.notify_all()
            return left

    def __len__(self) -> int:
        return len(self._ready) + len(self._later)

    @property
    def later(self) -> int:
        """How many are not ready yet."""
        return len(self._later)

    def _promote(self) -> None:
        now = self._clock()
        while self._later and self._later[0][0] <= now:
            self._ready.append(heapq.heappop(self._later)[2])

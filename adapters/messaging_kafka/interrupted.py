"""What waited for a retry when its partition was lost: read again by the same consumer, it goes on waiting."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence

from messaging.buffer import DeliveryBuffer
from messaging.delivery import Delivery

from .records import KafkaDelivery
from .tracker import OffsetTracker


class Interrupted:
    """The nacked deliveries of lost partitions: when each is due, and which attempt it was to be. Not thread-safe.

    A session that times out in an outage costs a consumer its partitions, which it mostly gets back. Without this
    their nacked messages would come early, and as the first attempt again. Another consumer knows nothing of it.
    """

    def __init__(self, buffer: DeliveryBuffer, clock: Callable[[], float] = time.monotonic) -> None:
        self._buffer = buffer
        self._clock = clock
        self._waits: dict[int, dict[int, tuple[float, int]]] = {}

    def __contains__(self, partition: int) -> bool:
        return partition in self._waits

    def remember(self, partitions: Collection[int]) -> None:
        """These are lost: notes what waits of them in the buffer."""
        now = self._clock()
        for left, delivery in self._buffer.waiting():
            if isinstance(delivery, KafkaDelivery) and isinstance(delivery.tracker, OffsetTracker):
                partition = delivery.tracker.partition
                if partition in partitions and delivery.tracker.alive:
                    self._waits.setdefault(partition, {})[delivery.offset] = (now + left, delivery.attempt)

    def go_on(self, tracker: OffsetTracker, fresh: Sequence[Delivery]) -> Sequence[Delivery]:
        """Takes from `fresh`, read last, those that are not due, and puts them into the buffer for later."""
        waits, now = self._waits[tracker.partition], self._clock()
        ready: list[Delivery] = []
        for delivery in fresh:
            assert isinstance(delivery, KafkaDelivery)
            due, attempt = waits.get(delivery.offset, (0.0, 0))
            delivery.attempt = max(delivery.attempt, attempt)
            if due > now:
                self._buffer.put_later(delivery, due - now)
            else:
                ready.append(delivery)
        self._waits[tracker.partition] = {offset: wait for offset, wait in waits.items() if offset > tracker.last}
        if not self._waits[tracker.partition]:
            self.forget(tracker.partition)
        return ready

    def forget(self, partition: int) -> None:
        """It is read anew on purpose."""
        self._waits.pop(partition, None)

"""A receiver on a consumer group: subscriptions, ordered queues, and every queue below Kafka 4.2."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from threading import Event, Lock
from typing import Any, ClassVar

from messaging.buffer import DeliveryBuffer
from messaging.delivery import Delivery
from messaging.driver import Receiver, Replay
from messaging.errors import (
    BrokerUnavailable,
    Closed,
    MessagingError,
    SettleFailed,
    TopologyError,
    UnsupportedCapability,
)
from messaging.options import ConsumerOptions
from messaging.rejection import Rejection
from messaging.topology import Source

from .admin import Admin
from .group_loop import AHEAD, READY, GroupLoop
from .groups import lag_of, replay_positions
from .records import dead_letter_headers, expired
from .sender import KafkaSender

log = logging.getLogger(__name__)

RETRY_COPY = 1.0
"""Seconds until a message whose dead-letter copy was not confirmed is delivered again."""


class GroupReceiver(Receiver):
    """Hands out what its GroupLoop reads. Threads: as `Receiver`; `_lock` guards `_closed` and the loop's `copying`.

    ack appends to the loop's deque. nack puts a new delivery of the same record into the buffer: it stays unsettled in
    the tracker, so nothing is committed past it and everything else goes on. reject publishes a copy and settles the
    record once that is confirmed; else it is delivered again.
    """

    Loop: ClassVar[type[GroupLoop]] = GroupLoop

    def __init__(
        self,
        source: Source,
        options: ConsumerOptions,
        config: dict[str, Any],
        group: str,
        admin: Admin,
        copies: KafkaSender,
        on_close: Callable[[Any], None],
    ) -> None:
        self.source = source
        self.group = group
        self._admin = admin
        self._copies = copies
        self._on_close = on_close
        self._topic = source.destination.name
        self._buffer = DeliveryBuffer()
        self._prefetch = options.prefetch
        self._enough = (options.prefetch + AHEAD) // 4
        self._lock = Lock()
        self._closed = False
        self._loop = self.Loop(config, self._topic, source, self, self._buffer, options.prefetch, admin)
        self._settled = self._loop.settled
        self._loops = {self._topic: self._loop}
        self._groups = {self._topic: group}
        """What is read beside the source's own topic, and by which group: retry topics."""
        self._loop.start()

    def receive(self, max_messages: int, timeout: float) -> list[Delivery]:
        loop = self._loop
        if self._closed:
            raise Closed(f"the consumer of {self.source} is closed")
        if loop.waiting and self._settled:
            loop.wake()
        room = self._room()
        if room <= 0:
            deadline = time.monotonic() + timeout
            room = self._wait_for_room(deadline)
            if room <= 0:
                return []
            timeout = max(deadline - time.monotonic(), 0.0)
        deliveries = self._buffer.take(min(max_messages, room), timeout)
        if loop.waiting and len(self._buffer) - self._buffer.later < READY // 2:
            loop.wake()
        if not deliveries:
            for each in self._loops.values():
                if each.failure is not None:
                    raise each.failure
        return deliveries

    def _room(self) -> int:
        # What waits in the buffer is not handed out; what is in `settled` is not drained yet.
        return self._prefetch - (self._loop.held - len(self._buffer) - len(self._settled))

    def _wait_for_room(self, deadline: float) -> int:
        """At the prefetch mark: waits for a settlement by another thread."""
        loop = self._loop
        loop.at_mark = True
        try:
            while (room := self._room()) <= 0 and not self._closed and (left := deadline - time.monotonic()) > 0:
                loop.progress.wait(min(left, 0.05))
                loop.progress.clear()
            return room
        finally:
            loop.at_mark = False

    def expired(self, deliveries: Sequence[Delivery], now: float) -> list[Delivery]:
        return expired(deliveries, now)

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        if self._closed:
            raise Closed(f"the consumer of {self.source} is closed: the message is delivered again")
        settled, loop = self._settled, self._loop
        settled.extend(deliveries)
        if loop.at_mark:
            loop.progress.set()
        if loop.waiting and (len(settled) >= self._enough or not len(self._buffer)):
            loop.wake()

    def check_delay(self, delay: float) -> None:
        self._admin.check_delay(delay, self._topic)

    def nack(self, deliveries: Sequence[Delivery], delay: float) -> None:
        if self._closed:
            raise Closed(f"the consumer of {self.source} is closed: the message is delivered again")
        self.check_delay(delay)
        for delivery in deliveries:
            if self.is_live(delivery):
                self._buffer.put_later(delivery.again(), delay)
        self._loop.progress.set()

    def reject(self, deliveries: Sequence[Delivery], why: Rejection) -> None:
        queue = self.source.dead_letter
        if queue is None:
            for delivery in deliveries:
                log.warning("%s has no dead-letter queue: %s is discarded (%s)", self.source, delivery.id, why.reason)
            self.ack(deliveries)
            return
        if self._closed:
            raise Closed(f"the consumer of {self.source} is closed: the message is delivered again")
        for delivery in deliveries:
            if not self.is_live(delivery):
                continue
            self._copying(self._loop_of(delivery), 1)
            headers = dead_letter_headers(delivery, why)
            self._copies.copy(delivery.native, headers, queue.name, None, partial(self._copied, delivery))

    def _copied(self, delivery: Delivery, _index: int, error: MessagingError | None) -> None:
        loop = self._loop_of(delivery)
        if error is None:
            loop.settled.append(delivery)
        else:
            failed = SettleFailed(f"{self.source}: {delivery.id} is not in the dead-letter queue and stays: {error}")
            failed.__cause__ = error
            self._buffer.fail(failed)
            self._buffer.put_later(delivery.again(), RETRY_COPY)
        self._copying(loop, -1)
        loop.wake()

    def _copying(self, loop: GroupLoop, change: int) -> None:
        with self._lock:
            loop.copying += change

    def _loop_of(self, delivery: Delivery) -> GroupLoop:
        """Where `delivery` was read."""
        return self._loop

    def extend(self, delivery: Delivery, seconds: float) -> None:
        raise UnsupportedCapability("kafka has no leases: a message stays with its consumer while that lives")

    def is_live(self, delivery: Delivery) -> bool:
        return bool(delivery.tracker.alive)  # type: ignore[attr-defined]

    def pause(self) -> None:
        for loop in self._loops.values():
            loop.call(partial(loop.set_paused, True), 5.0)

    def resume(self) -> None:
        for loop in self._loops.values():
            loop.call(partial(loop.set_paused, False), 5.0)

    def lag(self) -> int:
        try:
            self.flush(2.0)
        except MessagingError:
            pass  # then the answer is what the broker knows
        return sum(lag_of(self._admin, group, topic) for topic, group in self._groups.items())

    def replay(self, since: Replay) -> None:
        """Goes back in the partitions that this consumer holds; other members of the group keep their places.

        Raises TopologyError for a partition that does not exist or is held by another member.
        """
        positions = replay_positions(self._admin, self._topic, since)
        deadline = time.monotonic() + 30.0
        while not (held := self._loop.call(lambda: self._loop.rewind(positions), 20.0)):
            if self._closed:
                raise Closed(f"the consumer of {self.source} is closed")
            if time.monotonic() > deadline:
                raise BrokerUnavailable(f"replay of {self.source}: no partition was assigned to this consumer in 30 s")
            Event().wait(0.05)  # the group is still being joined
        if not isinstance(since, str | float | int) and (other := set(positions) - held):
            raise TopologyError(f"replay of {self.source}: partitions {sorted(other)} are held by another consumer")

    def skip_to(self, topic: str, ends: Mapping[int, int]) -> set[int]:
        """Drops what waits below `ends` in the partitions of `topic` that this consumer holds, and returns those."""
        loop = self._loops.get(topic)
        return set() if loop is None else loop.call(lambda: loop.rewind(ends), 20.0)

    def flush(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        for loop in self._loops.values():
            loop.flush(max(deadline - time.monotonic(), 0.1))

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._buffer.close()
        loops = list(self._loops.values())
        for loop in loops:
            loop.stop()
        deadline = time.monotonic() + 9.0
        ended = [loop.join(max(deadline - time.monotonic(), 0.0)) for loop in loops]
        if not all(ended):
            log.warning("the consumer of %s did not leave its group in time; the broker will notice", self.source)
        self._on_close(self)

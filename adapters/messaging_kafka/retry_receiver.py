"""A receiver on a consumer group with retry topics: a long nack becomes a copy there, and the original is settled."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from messaging.delivery import Delivery
from messaging.errors import Closed, MessagingError

from .delay_loop import DelayLoop
from .group_loop import GroupLoop
from .group_receiver import GroupReceiver
from .records import copy_headers
from .retry_topics import retry_topic

log = logging.getLogger(__name__)


class RetryReceiver(GroupReceiver):
    """Fills one buffer from the source's topic and, a DelayLoop each, from its retry topics.

    A nack that waits at least as long as the shortest retry topic is copied to the longest that is not too long. What
    then is left of its delay, it waits in the next one, and less than the shortest in the consumer: so it comes when
    it was asked for. A copy that is not confirmed waits in the consumer altogether.
    """

    def __init__(
        self, levels: Sequence[int], topics: Mapping[int, str], configs: Mapping[str, Any], *args: Any
    ) -> None:
        """topics: the retry topics to read, by delay. configs: the client's configuration for each of them.

        levels: delays of those that are written to.
        """
        self._delays: list[DelayLoop] = []
        self._levels = sorted(levels)
        super().__init__(*args)
        try:
            for seconds, topic in topics.items():
                loop = DelayLoop(
                    seconds,
                    self._move_on,
                    configs[topic],
                    topic,
                    self.source,
                    self,
                    self._buffer,
                    self._prefetch,
                    self._admin,
                )
                self._loops[topic] = loop  # before it starts: from then on it asks where deliveries belong
                self._groups[topic] = topic
                self._delays.append(loop)
                loop.start()
        except BaseException:
            self.close()
            raise

    def _room(self) -> int:
        room = super()._room()
        for loop in self._delays:
            room -= loop.held - loop.early - len(loop.settled)
        return room

    def receive(self, max_messages: int, timeout: float) -> list[Delivery]:
        for loop in self._delays:
            if loop.waiting and loop.settled:
                loop.wake()
        return super().receive(max_messages, timeout)

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        own: list[Delivery] = []
        for delivery in deliveries:
            loop = self._loop_of(delivery)
            if loop is self._loop:
                own.append(delivery)
                continue
            if self._closed:
                raise Closed(f"the consumer of {self.source} is closed: the message is delivered again")
            loop.settled.append(delivery)
            if loop.waiting:
                loop.wake()
        self._loop.progress.set()
        if own:
            super().ack(own)

    def _loop_of(self, delivery: Delivery) -> GroupLoop:
        return self._loops.get(delivery.native.topic(), self._loop)

    def check_delay(self, delay: float) -> None:
        level = self._level(delay)
        if level is None:
            super().check_delay(delay)
        else:
            self._check_level(level)

    def nack(self, deliveries: Sequence[Delivery], delay: float) -> None:
        level = self._level(delay)
        if level is None:
            super().nack(deliveries, delay)
            return
        if self._closed:
            raise Closed(f"the consumer of {self.source} is closed: the message is delivered again")
        self._check_level(level)
        due = time.time() + delay
        for delivery in deliveries:
            if self.is_live(delivery):
                self._copy(delivery, level, delivery.attempt, due, delivery.again())
        self._loop.progress.set()

    def _check_level(self, level: int) -> None:
        """A longer delay is waited for in copies, one after the other."""
        self._admin.check_delay(level, retry_topic(self.source.name, level))

    def _level(self, delay: float) -> int | None:
        """The longest retry topic that is not too long."""
        return max((level for level in self._levels if level <= delay), default=None)

    def _move_on(self, delivery: Delivery, due: float) -> bool:
        """See `delay_loop.MoveOn`. It was not delivered, so it keeps its attempt."""
        level = self._level(due - time.time())
        if level is not None:
            self._copy(delivery, level, delivery.attempt - 1, due, delivery)
        return level is not None

    def _copy(self, delivery: Delivery, level: int, attempts: int, due: float, otherwise: Delivery) -> None:
        loop, topic = self._loop_of(delivery), retry_topic(self.source.name, level)
        headers = copy_headers(delivery.native, attempts, due)
        self._copying(loop, 1)
        done = partial(self._waits, loop, delivery, due, otherwise)
        self._copies.copy(delivery.native, headers, topic, None, done)

    def _waits(
        self,
        loop: GroupLoop,
        delivery: Delivery,
        due: float,
        otherwise: Delivery,
        _index: int,
        error: MessagingError | None,
    ) -> None:
        if error is None:
            loop.settled.append(delivery)
        elif self.is_live(delivery):
            log.warning("%s: %s is not in its retry topic and waits in the consumer: %s", self.source, delivery, error)
            self._buffer.put_later(otherwise, max(due - time.time(), 0.0))
        self._copying(loop, -1)
        loop.wake()

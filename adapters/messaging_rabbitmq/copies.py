"""Settlements that put a copy of the message elsewhere first: nack with a delay, and reject."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from threading import Condition

from messaging.dead_letter import dead_letter_copy
from messaging.errors import InvalidMessage, MessagingError, SettleFailed
from messaging.message import Message
from messaging.rejection import Rejection
from messaging.topology import Source
from messaging_rabbitmq.delivery import RabbitMQDelivery
from messaging_rabbitmq.parts import WaitQueue, is_classic, round_delay
from messaging_rabbitmq.sender import RabbitMQSender

log = logging.getLogger(__name__)

Settled = Callable[[RabbitMQDelivery], None]
Failed = Callable[[RabbitMQDelivery, MessagingError], None]


class Copies:
    """Makes the copies of one receiver. Thread-safe; `_changed` guards the count of copies under way.

    The original is acked once the copy is confirmed, so a crash in between gives a duplicate and never a loss.
    """

    def __init__(self, source: Source, sender: RabbitMQSender) -> None:
        self._source = source
        self._sender = sender
        self._changed = Condition()
        self._under_way = 0
        self.settled: Settled = lambda _delivery: None
        self.failed: Failed = lambda _delivery, _error: None
        self.park: Settled = lambda _delivery: None
        self.even_without_delay = is_classic(source)
        """A classic queue counts no deliveries, so there every nack is a copy that carries the count."""

    def retry(self, deliveries: Sequence[RabbitMQDelivery], delay: float) -> None:
        """To a wait queue of this source only, and from there back into it."""
        where = WaitQueue(self._source.name, round_delay(delay), "retry") if delay > 0 else self._source.name
        self._send(deliveries, [d.message for d in deliveries], where, [d.attempt for d in deliveries])

    def dead_letter(self, deliveries: Sequence[RabbitMQDelivery], why: Rejection) -> None:
        """To the dead-letter queue."""
        parked = self._source.dead_letter
        assert parked is not None
        messages = [dead_letter_copy(d, why) for d in deliveries]
        self._send(deliveries, messages, parked.name, [0] * len(messages), may_park=True)

    def wait(self, timeout: float) -> bool:
        """Waits until no copy is under way. False at the deadline."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while self._under_way:
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    return False
                self._changed.wait(remaining)
        return True

    def _send(
        self,
        deliveries: Sequence[RabbitMQDelivery],
        messages: Sequence[Message],
        where: WaitQueue | str,
        attempts: Sequence[int],
        may_park: bool = False,
    ) -> None:
        if not deliveries:
            return

        def done(index: int, error: MessagingError | None) -> None:
            delivery = deliveries[index]
            if error is None:
                self.settled(delivery)
            elif may_park and isinstance(error, InvalidMessage):
                # Another program's, with names or headers that this library may not send. It must not come for ever.
                log.warning("%s: %s; RabbitMQ dead-letters it, without the reason", self._source, error)
                self.park(delivery)
            else:
                failure = SettleFailed(
                    f"{self._source}: message {delivery.id} could not be settled and is delivered again: {error}"
                )
                failure.__cause__ = error
                self.failed(delivery, failure)
            with self._changed:
                self._under_way -= 1
                self._changed.notify_all()

        with self._changed:
            self._under_way += len(deliveries)
        try:
            self._sender.send_copies(messages, where, attempts, done)
        except MessagingError:
            with self._changed:
                self._under_way -= len(deliveries)
            raise

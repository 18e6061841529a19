"""Consume, process and produce as one: received is settled and published is seen together, or neither."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from threading import Lock
from types import TracebackType
from typing import Any, Self, Unpack

from messaging.delivery import Delivery
from messaging.driver import TransactionalReceiver
from messaging.errors import (
    BrokerUnavailable,
    ConfigurationError,
    MessagingError,
    PublishTimeout,
    TransactionAborted,
)
from messaging.message import MessageFields
from messaging.producer import Producer
from messaging.topology import Destination

TIMEOUT = 30.0
"""Seconds for a commit."""


class Transaction:
    """One transaction of a consumer with `delivery="exactly-once"`.

        with consumer.transaction() as transaction:
            for delivery in transaction.receive(100):
                transaction.publish("totals", total_of(delivery.value), key=delivery.key)

    Leaving the block commits: everything received in it is settled and everything published in it becomes visible.
    When an exception leaves the block, neither happens: what was published is never seen by anybody, and what was
    received is delivered again, with attempt + 1. Deliveries are not acked one by one; `reject` puts the copy in the
    dead-letter queue as part of the transaction; `nack` raises UnsupportedCapability: raise instead.

    Belongs to the thread that began it, and is the only one of its consumer meanwhile. Only what is published through
    the transaction is part of it.
    """

    def __init__(
        self,
        receiver: TransactionalReceiver,
        producer: Producer,
        take: Callable[[int, float], list[Delivery]],
        put_back: Callable[[Sequence[Delivery]], None],
        alone: Lock,
    ) -> None:
        """alone: held from the transaction's beginning to its end."""
        self._receiver = receiver
        self._producer = producer
        self._take = take
        self._put_back = put_back
        self._alone = alone
        self._received: list[Delivery] = []
        self._published: list[Future[Any]] = []
        self._open = False

    def receive(self, max_messages: int = 100, timeout: float = 1.0) -> list[Delivery]:
        """As `Consumer.receive`. What it returns belongs to this transaction."""
        self._check("receive")
        taken = [delivery for delivery in self._take(max_messages, timeout) if self._receiver.is_live(delivery)]
        self._received += taken
        return taken

    def give_back(self, deliveries: Sequence[Delivery]) -> None:
        """The last ones that were received and are not handled after all: the next transaction receives them."""
        self._check("give_back")
        if deliveries:
            if list(deliveries) != self._received[-len(deliveries) :]:
                raise ConfigurationError("give_back takes the last deliveries that were received, in order")
            del self._received[-len(deliveries) :]
            self._put_back(deliveries)

    def publish(self, destination: str | Destination, value: Any, **fields: Unpack[MessageFields]) -> None:
        """Publishes as part of the transaction. Returns at once; a failure makes the transaction fail.

        Raises what `Producer.publish` raises with nothing sent.
        """
        self._check("publish")
        self._published.append(self._producer.publish_nowait(destination, value, **fields))

    def publish_many(self, destination: str | Destination, items: Iterable[Any]) -> None:
        """As `publish`, several values or Messages."""
        for item in items:
            self.publish(destination, item)

    def flush(self, timeout: float = TIMEOUT) -> None:
        """Waits until the broker has stored what was published; it is seen after the commit.

        Raises TransactionAborted when something was not, or not within `timeout` seconds: let it leave the block.
        """
        self._check("flush")
        self._check_published(time.monotonic() + timeout)

    def abort(self, failed: Delivery | None = None) -> None:
        """Takes everything back and ends the transaction, without an exception.

        failed: the delivery that is to blame; then it alone comes again with attempt + 1.
        """
        self._check("abort")
        try:
            left = self._receiver.abort(self._received)
            self._put_back([_again(delivery, counts=failed is None or delivery is failed) for delivery in left])
        finally:
            self._end()

    def __enter__(self) -> Self:
        """Raises ConfigurationError while another transaction of the consumer is open."""
        if not self._alone.acquire(blocking=False):
            raise ConfigurationError(
                "another transaction of this consumer is open: one ends before the next begins, and each thread has a "
                "consumer of its own"
            )
        try:
            self._receiver.begin()
        except BaseException:
            self._alone.release()
            raise
        self._received, self._published = [], []
        self._open = True
        return self

    def _end(self) -> None:
        self._open = False
        self._alone.release()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._open:
            return
        if error is not None:
            self.abort()
            return
        deadline = time.monotonic() + TIMEOUT
        try:
            self._check_published(deadline)
            self._receiver.commit(self._received, max(deadline - time.monotonic(), 1.0))
            for delivery in self._received:
                delivery._settled = True
        except BrokerUnavailable:
            raise
        except BaseException:
            self.abort()
            raise
        finally:
            if self._open:
                self._end()

    def _check_published(self, deadline: float) -> None:
        try:
            self._producer.flush(max(deadline - time.monotonic(), 0.0))
        except PublishTimeout as error:
            raise TransactionAborted(f"nothing of the transaction happened: {error}") from error
        for future in self._published:
            problem = future.exception(max(deadline - time.monotonic(), 0.0))
            if isinstance(problem, MessagingError):
                raise TransactionAborted(f"nothing of the transaction happened: {problem}") from problem
            if problem is not None:
                raise problem

    def _check(self, what: str) -> None:
        if not self._open:
            raise ConfigurationError(f"{what}: the transaction has ended, or its `with` block was never entered")


def _again(delivery: Delivery, counts: bool) -> Delivery:
    again = delivery.again()
    if not counts:
        again.attempt -= 1
    return again

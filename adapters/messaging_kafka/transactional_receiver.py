"""Exactly once: a consumer group whose position moves in the transactions that hold what was made of its messages."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any
from uuid import uuid4

from messaging.delivery import Delivery
from messaging.driver import TransactionalReceiver
from messaging.errors import Closed, MessagingError, TransactionAborted, UnsupportedCapability
from messaging.options import ConsumerOptions, ProducerOptions
from messaging.rejection import Rejection
from messaging.topology import Source

from .admin import Admin
from .group_receiver import GroupReceiver
from .options import KafkaOptions
from .records import dead_letter_headers
from .transactional_loop import OutOfStep, TransactionalLoop
from .transactional_sender import TransactionalSender

log = logging.getLogger(__name__)

_CALL = 10.0
"""Seconds for the owner thread to answer."""
_LEAST = 0.1
"""Seconds for a step of a commit, though the deadline is near."""


class KafkaTransactionalReceiver(GroupReceiver, TransactionalReceiver):
    """As GroupReceiver, but nothing is committed by itself: `commit` sends the positions into the transaction.

    The group's generation goes with them, so the broker refuses whoever lost a partition meanwhile (KIP-447), and the
    whole transaction with it. When the outcome of a commit is unknown, `begin` lets the coordinator decide it, looks at
    the group's position and goes on from there.
    """

    Loop = TransactionalLoop
    sender: TransactionalSender

    def __init__(
        self,
        source: Source,
        options: ConsumerOptions,
        config: dict[str, Any],
        group: str,
        admin: Admin,
        client: KafkaOptions,
        on_close: Callable[[Any], None],
    ) -> None:
        sender = TransactionalSender(
            client, admin, ProducerOptions().timeout, lambda _sender: None, f"{group}-{uuid4().hex}"
        )
        try:
            sender.ready(client.connect_timeout)
            if source.dead_letter is not None:
                sender.prepare(source.dead_letter.name)
            super().__init__(source, options, config, group, admin, sender, on_close)
        except BaseException:
            sender.close(0.0)
            raise
        self.sender = sender
        self._within = client.connect_timeout
        self._also: list[Delivery] = []
        """Settled by the coming commit although nobody was given them: expired ones."""
        self._copies_made: list[Future[None]] = []
        """Of dead letters, in this transaction."""
        self._lost_track = False
        """Whether it is not known what of that which was handed out is settled: the group's position tells."""
        self._committed = False

    def begin(self) -> None:
        if self._closed:
            raise Closed(f"the consumer of {self.source} is closed")
        if self.sender.ready(self._within):
            self._lost_track = True
        if self._lost_track:
            assert isinstance(self._loop, TransactionalLoop)
            self._loop.call(self._loop.go_back, _CALL)
            self._lost_track = False
        self._copies_made = []
        self._committed = False

    def expired(self, deliveries: Sequence[Delivery], now: float) -> list[Delivery]:
        expired = super().expired(deliveries, now)
        self._also += expired
        return expired

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        # Not here: one that was received in a transaction that failed must not be settled by the next.
        if self._closed:
            raise Closed(f"the consumer of {self.source} is closed: the message is delivered again")

    def nack(self, deliveries: Sequence[Delivery], delay: float) -> None:
        raise UnsupportedCapability(
            f"nack on {self.source}: with delivery='exactly-once' a single message is not given back; raise an "
            "exception in the transaction, and all of it comes again"
        )

    def reject(self, deliveries: Sequence[Delivery], why: Rejection) -> None:
        self.ack(deliveries)
        queue = self.source.dead_letter
        for delivery in deliveries:
            if queue is None:
                log.warning("%s has no dead-letter queue: %s is discarded (%s)", self.source, delivery.id, why.reason)
            else:
                copy: Future[None] = Future()
                self._copies_made.append(copy)
                headers = dead_letter_headers(delivery, why)
                self.sender.copy(delivery.native, headers, queue.name, None, partial(_copied, copy))

    def commit(self, deliveries: Sequence[Delivery], timeout: float) -> None:
        deadline = time.monotonic() + timeout
        self._lost_track = True  # until it is known, whatever is raised
        try:
            self._wait_for_copies(deadline)
            self._commit(deliveries, deadline)
        except OutOfStep:
            raise
        except TransactionAborted:
            self._lost_track = False
            raise
        self._committed = True
        self._lost_track = False

    def _commit(self, deliveries: Sequence[Delivery], deadline: float) -> None:
        loop = self._loop
        assert isinstance(loop, TransactionalLoop)
        self._also = [delivery for delivery in self._also if self.is_live(delivery)]
        settled = [*deliveries, *self._also]
        positions, offsets, group = loop.call(partial(loop.position_after, settled), _CALL)
        if offsets or self.sender.is_open:
            self.sender.commit(offsets, group, max(deadline - time.monotonic(), _LEAST))
            self._settled.extend(settled)
            loop.post(partial(loop.committed, positions))
        self._also = []

    def _wait_for_copies(self, deadline: float) -> None:
        """The client knows nothing of a message that it did not take, and would commit without it."""
        for copy in self._copies_made:
            try:
                error = copy.exception(max(deadline - time.monotonic(), _LEAST))
            except TimeoutError:
                raise TransactionAborted(f"{self.source}: a dead letter was not confirmed in time") from None
            if error is not None:
                raise TransactionAborted(f"{self.source}: not in the dead-letter queue: {error}") from error

    def abort(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        self.sender.abort(self._within)
        if self._committed or self._lost_track:
            return []  # done with; or read again
        return [delivery for delivery in deliveries if self.is_live(delivery)]

    def close(self) -> None:
        super().close()
        self.sender.close(5.0)


def _copied(copy: Future[None], _index: int, error: MessagingError | None) -> None:
    if error is None:
        copy.set_result(None)
    else:
        copy.set_exception(error)

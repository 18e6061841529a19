"""A receiver on a share group: a queue on Kafka 4.2 and later.

Two readers fill one buffer: the ShareLoop reads the queue, and a GroupLoop reads its retry topic, where the copies
are of messages that were nacked, that were held for long, or that came near the broker's delivery limit. What is
promised: a message that is being handled is not handed to anybody else while its consumer lives and owns a partition
of the retry topic (each of the first four consumers does; the others keep a message for 60 seconds); nothing is lost
at the delivery limit; a nacked message keeps its id, comes back in this queue only and never early.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from operator import attrgetter
from threading import Event, Lock
from typing import Any

from messaging.buffer import DeliveryBuffer
from messaging.delivery import Delivery
from messaging.driver import Receiver
from messaging.errors import BrokerUnavailable, Closed, MessagingError, SettleFailed, UnsupportedCapability
from messaging.options import ConsumerOptions
from messaging.rejection import Rejection
from messaging.topology import Source

from .admin import Admin
from .group_loop import READY, GroupLoop
from .records import GroupDelivery, attempts_of, copy_headers, dead_letter_headers, due_of, expired, token_of
from .sender import KafkaSender
from .share_batch import Hold, ShareDelivery
from .share_loop import ShareLoop
from .tracker import OffsetTracker

log = logging.getLogger(__name__)

_AGAIN = 1.0
"""Seconds until a message whose copy was not confirmed is delivered again."""
_PAUSED_WITHIN = 15.0
"""Seconds: what is asked of the owner thread while it closes a consumer has to wait until it is done."""
_SHARE_ONLY = {ShareDelivery}
_hold_of: Callable[[Any], Hold | None] = attrgetter("_hold")


class _Move:
    """A copy under way: of what, to which partition, and whether that was settled meanwhile."""

    __slots__ = ("hold", "partition", "settled")

    def __init__(self, hold: Hold, partition: int) -> None:
        self.hold = hold
        self.partition = partition
        self.settled = False


class RetryLoop(GroupLoop):
    """Reads the retry topic. A copy that this receiver made of a delivery it still holds is not delivered again."""

    def __init__(
        self, adopt: Callable[[str, OffsetTracker, int], bool], lose: Callable[[list[int]], None], *args: Any
    ) -> None:
        self._adopt = adopt
        self._lose = lose
        super().__init__(*args)

    def _deliveries(self, tracker: OffsetTracker, records: list[Any], offsets: list[int]) -> Sequence[Delivery]:
        due: list[Delivery] = []
        for record, offset in zip(records, offsets, strict=True):
            token = token_of(record)
            if token is not None and self._adopt(token, tracker, offset):
                continue
            delivery = GroupDelivery(self._settler, self._source, record, tracker, offset, attempts_of(record) + 1)
            wait = due_of(record) - time.time()
            if wait <= 0:
                due.append(delivery)
            else:
                self._buffer.put_later(delivery, wait)
        return due

    def _room_in_buffer(self) -> int:
        return READY  # whatever waits there of what another loop reads, and reads faster

    def _forget(self, partitions: list[int]) -> None:
        super()._forget(partitions)
        self._lose(partitions)

    @property
    def partitions(self) -> list[int]:
        """What is assigned, for any thread."""
        return list(self._trackers)


class ShareReceiver(Receiver):
    """Threads: as `Receiver`. `_lock` guards `_closed`, `_moves` and the loops' `copying`."""

    def __init__(
        self,
        source: Source,
        options: ConsumerOptions,
        share_config: dict[str, Any],
        retry_config: dict[str, Any],
        retry_topic: str,
        delivery_limit: int,
        lock: float,
        admin: Admin,
        copies: KafkaSender,
        lag: Callable[[], int],
        on_close: Callable[[Any], None],
    ) -> None:
        self.source = source
        self._admin = admin
        self._copies = copies
        self._lag = lag
        self._on_close = on_close
        self._retry_topic = retry_topic
        self._prefetch = options.prefetch
        self._buffer = DeliveryBuffer()
        self._lock = Lock()
        self._closed = False
        self._paused = False
        self._tokens = (f"{os.urandom(8).hex()}{n:x}" for n in count())
        self._moves: dict[str, _Move] = {}
        """The copies under way, by token."""
        self._returned = Event()
        """Set when a copy has come round."""
        self._retry = RetryLoop(
            self._adopt,
            self._lose,
            retry_config,
            retry_topic,
            source,
            self,
            self._buffer,
            options.prefetch,
            admin,
        )
        share_config["max.poll.records"] = min(options.prefetch, 500)
        self._share = ShareLoop(
            share_config,
            source,
            self,
            self._buffer,
            self._room,
            self._move,
            self._settled_while_moving,
            delivery_limit,
            lock,
        )
        self._share.start()
        self._retry.start()

    def receive(self, max_messages: int, timeout: float) -> list[Delivery]:
        share = self._share
        if self._closed:
            raise Closed(f"the consumer of {self.source} is closed")
        if share.waiting and share.settled:
            share.wake()
        deadline = time.monotonic() + timeout
        share.hungry = True
        try:
            while True:
                left = max(deadline - time.monotonic(), 0.0)
                room = self._unheld()
                if room > 0:
                    deliveries = self._buffer.take(min(max_messages, room), left)
                    if deliveries or share.failure is None:
                        return deliveries
                    raise share.failure
                if left <= 0 or self._closed:
                    return []
                self._share.progress.wait(min(left, 0.05))
                self._share.progress.clear()
        finally:
            share.hungry = False

    def _unheld(self) -> int:
        """How many more may be handed out: at most `prefetch` are handed out and unsettled."""
        return self._room() + len(self._buffer) - self._buffer.later + len(self._share.settled)

    def _room(self) -> int:
        """How many more may be taken from the broker. A nacked message that waits for its time takes no place."""
        retry = self._retry
        room = self._prefetch - self._share.held - retry.held + self._buffer.later + len(retry.settled)
        return room - self._under_way() if self._moves else room

    def _under_way(self) -> int:
        """Deliveries that are held here while their copy is on its way round; at first they are counted twice."""
        with self._lock:
            return sum(not move.settled for move in self._moves.values())

    def expired(self, deliveries: Sequence[Delivery], now: float) -> list[Delivery]:
        return expired(deliveries, now)

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        if self._closed:
            raise Closed(f"the consumer of {self.source} is closed: the message is delivered again")
        share, retry = self._share, self._retry
        self._settle(deliveries)
        if share.hungry:
            share.progress.set()
        if share.waiting and len(share.settled) >= share.held:
            share.wake()
        if retry.waiting and retry.settled:
            retry.wake()

    def _settle(self, deliveries: Sequence[Delivery]) -> None:
        share, retry = self._share.settled, self._retry.settled
        if set(map(type, deliveries)) == _SHARE_ONLY and not any(map(_hold_of, deliveries)):
            share.extend(deliveries)  # type: ignore[arg-type]
            return
        for delivery in deliveries:
            if isinstance(delivery, ShareDelivery) and (delivery._hold is None or delivery.tracker is delivery.batch):
                share.append(delivery)
            else:
                retry.append(delivery)

    def _settled_while_moving(self, delivery: ShareDelivery) -> None:
        """A delivery was settled of which a copy is under way, or is held by now. Called by the ShareLoop."""
        with self._lock:
            move = next((m for m in self._moves.values() if m.hold is delivery.hold), None)
            if move is not None:
                move.settled = True
        if move is None and isinstance(delivery.tracker, OffsetTracker):
            self._retry.settled.append(delivery)

    def check_delay(self, delay: float) -> None:
        self._admin.check_delay(delay, self.source.destination.name, self._retry_topic)

    def nack(self, deliveries: Sequence[Delivery], delay: float) -> None:
        if self._closed:
            raise Closed(f"the consumer of {self.source} is closed: the message is delivered again")
        self.check_delay(delay)
        due = time.time() + delay if delay else 0.0
        for delivery in deliveries:
            if not self.is_live(delivery):
                continue
            # In the retry topic already, it is copied once more all the same: so that whoever reads it next knows its
            # attempt and when it is due.
            self._copying(1)
            headers = copy_headers(delivery.native, delivery.attempt, due)
            partitions = self._retry.partitions
            self._copies.copy(
                delivery.native,
                headers,
                self._retry_topic,
                partitions[delivery.offset % len(partitions)] if partitions else None,  # type: ignore[attr-defined]
                partial(self._copied, delivery, "kept for later"),
            )

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
            self._copying(1)
            headers = dead_letter_headers(delivery, why)
            done = partial(self._copied, delivery, "dead-lettered")
            self._copies.copy(delivery.native, headers, queue.name, None, done)

    def _copied(self, delivery: Delivery, what: str, _index: int, error: MessagingError | None) -> None:
        if error is None:
            self._settle((delivery,))
        else:
            failed = SettleFailed(f"{self.source}: {delivery.id} could not be {what} and is delivered again: {error}")
            failed.__cause__ = error
            self._buffer.fail(failed)
            self._buffer.put_later(delivery.again(), _AGAIN)
        self._copying(-1)
        self._share.wake()
        self._retry.wake()

    def _copying(self, change: int) -> None:
        with self._lock:
            self._share.copying += change
            self._retry.copying += change

    # -- moving a delivery to the retry topic

    def _move(self, delivery: ShareDelivery, goes_on: bool) -> bool:
        """Copies a held record to the retry topic. Called by the ShareLoop, see there.

        A delivery that goes on needs a partition that is ours. Without a token the copy is delivered when it is read.
        """
        partitions = self._retry.partitions
        if goes_on and not partitions:
            return False
        token = None
        partition = partitions[delivery.offset % len(partitions)] if partitions else None
        if goes_on and partition is not None:
            token = next(self._tokens)
            with self._lock:
                self._moves[token] = _Move(delivery.hold, partition)
        self._copying(1)
        self._copies.copy(
            delivery.native,
            copy_headers(delivery.native, delivery.attempt, token=token),
            self._retry_topic,
            partition,
            partial(self._moved, token, delivery.tracker, delivery),
        )
        return True

    def _moved(
        self, token: str | None, batch: Any, delivery: ShareDelivery, _index: int, error: MessagingError | None
    ) -> None:
        if error is not None:
            log.info("%s: %s could not be copied to %s: %s", self.source, delivery.id, self._retry_topic, error)
        self._share.moved(batch, delivery, error is None)
        if error is not None and token is not None:
            with self._lock:
                self._moves.pop(token, None)
        self._copying(-1)

    def _adopt(self, token: str, tracker: OffsetTracker, offset: int) -> bool:
        """The copy of a delivery that is held here has come round: from now on it is settled there.

        Called by the RetryLoop just before it adds `offset`. Returns False for a copy that is not ours.
        """
        with self._lock:
            move = self._moves.pop(token, None)
            if move is None:
                return False
            if not move.settled:
                move.hold.offset = offset
                move.hold.tracker = tracker
        if move.settled:
            self._retry.settled.append(GroupDelivery(self, self.source, None, tracker, offset))
        self._returned.set()
        return True

    def _lose(self, partitions: list[int]) -> None:
        """Copies to these partitions are read by somebody else, and delivered there. Called by the RetryLoop."""
        with self._lock:
            for token in [t for t, move in self._moves.items() if move.partition in partitions]:
                del self._moves[token]
        self._returned.set()

    def _all_returned(self, timeout: float) -> bool:
        """Waits until no copy is under way of what is settled: until then it could be delivered to somebody.

        Not while paused, since then copies are not read: what is settled may come again, should this consumer close.
        """
        deadline = time.monotonic() + timeout
        while not self._paused:
            self._returned.clear()
            with self._lock:
                if not any(move.settled for move in self._moves.values()):
                    return True
            if (left := deadline - time.monotonic()) <= 0:
                return False
            self._returned.wait(left)
        return True

    # -- the rest

    def extend(self, delivery: Delivery, seconds: float) -> None:
        raise UnsupportedCapability("kafka has no leases: a message stays with its consumer while that lives")

    def is_live(self, delivery: Delivery) -> bool:
        return bool(delivery.tracker.alive)  # type: ignore[attr-defined]

    def pause(self) -> None:
        self._paused = True
        self._share.call(lambda: self._share.set_paused(True), _PAUSED_WITHIN)
        self._retry.call(lambda: self._retry.set_paused(True), _PAUSED_WITHIN)

    def resume(self) -> None:
        self._share.call(lambda: self._share.set_paused(False), _PAUSED_WITHIN)
        self._retry.call(lambda: self._retry.set_paused(False), _PAUSED_WITHIN)
        self._paused = False

    def lag(self) -> int:
        try:
            self.flush(2.0)
        except MessagingError:
            pass
        return self._lag()

    def flush(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        self._share.flush(timeout)
        if not self._all_returned(max(deadline - time.monotonic(), 0.0)):
            raise BrokerUnavailable(f"{self.source}: not done within {timeout:g} s")
        self._retry.flush(max(deadline - time.monotonic(), 0.0))

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._buffer.close()
        self._share.stop()
        if self._moves:  # what is settled of them is settled where their copies are
            self._share.join(5.0)
            self._all_returned(1.0)
        self._retry.stop()
        ended = self._share.join(9.0)
        if not (self._retry.join(4.0 if ended else 0.5) and ended):
            log.warning("the consumer of %s did not leave its group in time; the broker will notice", self.source)
        self._on_close(self)

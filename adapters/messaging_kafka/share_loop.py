"""The owner thread of one share consumer (KIP-932): every call of the client's consumer is made here.

The client wants every record of a poll acknowledged before the next poll, and the broker takes a record back when its
lock (`lock` seconds) runs out. Neither may be felt by whoever handles messages, so a record that is held up is moved:
a copy of it goes to the queue's retry topic, into a partition that this receiver owns, and once it is confirmed the
original is accepted. The delivery goes on as if nothing had happened; from then on it is settled in the retry topic,
whose consumer group knows no locks. See ShareReceiver for the other half.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Collection
from concurrent.futures import Future
from itertools import repeat
from operator import attrgetter
from threading import Event
from typing import Any, TypeVar

from confluent_kafka import AcknowledgeType, KafkaError, KafkaException, ShareConsumer
from confluent_kafka import Message as Record

from messaging.buffer import DeliveryBuffer
from messaging.delivery import Settler
from messaging.errors import (
    AuthenticationFailed,
    BrokerUnavailable,
    DestinationNotFound,
    MessagingError,
    SettleFailed,
)
from messaging.topology import Source

from .broker_watch import EVERY, BrokerWatch
from .errors import translate
from .owner_thread import OwnerThread
from .records import KafkaDelivery
from .share_batch import Batch, ShareDelivery
from .share_member import Membership

log = logging.getLogger(__name__)

T = TypeVar("T")
_attempt_of: Callable[[ShareDelivery], int] = attrgetter("attempt")
_POLL = 0.1
"""Seconds a poll waits for records, so also until a command is seen."""
_COMMIT_EVERY = 0.2
"""Seconds between two commits while the rest of a poll is still being handled."""
_HELD_UP = 0.2
"""Seconds after which handed-out records that keep an idle receiver from its next poll are moved."""
_JOINED_WITHIN = 5.0
"""Seconds that a consumer is given to join its group before it is closed."""
_REST_AFTER = 3.0
"""Seconds without a poll after which the consumer is closed, so that it keeps no record from others."""


class ShareLoop(OwnerThread):
    """Reads a queue through its share group into a buffer and acknowledges what is settled.

    Threads: as OwnerThread, and `settled`, `flush` and `moved` from any. `move(delivery, goes_on)` is the receiver's:
    it copies a record, calls `moved` when that is confirmed or failed, and returns False when it has nowhere to
    copy to. `goes_on`: the delivery is somebody's already.
    """

    def __init__(
        self,
        config: dict[str, Any],
        source: Source,
        settler: Settler,
        buffer: DeliveryBuffer,
        room: Callable[[], int],
        move: Callable[[ShareDelivery, bool], bool],
        settled_while_moving: Callable[[ShareDelivery], None],
        limit: int,
        lock: float,
    ) -> None:
        super().__init__(source, buffer, "kafka-share")
        self._config = config
        self._topic = source.destination.name
        self._settler = settler
        self._room = room
        self._move = move
        self._settled_while_moving = settled_while_moving
        self._last_chance = max(limit - 2, 2)
        self._lock = lock
        self._move_after = lock / 2
        """Seconds after which everything unsettled of a poll is moved, well before its lock runs out."""
        self.settled: deque[ShareDelivery] = deque()
        """Deliveries that are done with: appended by anybody, drained here."""
        self._moved: deque[tuple[Batch, ShareDelivery, bool]] = deque()
        self.progress = Event()
        """Set when there may be room for a receiver that is `hungry`."""
        self.held = 0
        """Records of the current poll that are not acknowledged."""
        self.hungry = False
        """Whether somebody waits for a message."""
        self.copying = 0
        self._flushes: list[Future[None]] = []
        self._batch = Batch()
        self._consumer: ShareConsumer | None = None
        self._member = Membership()
        self._polled = self._opened = self._next_look = time.monotonic()
        self._brokers = BrokerWatch()
        self._received = 0
        """Records polled from this consumer."""
        self._fetching = False
        """Whether the consumer has a fetch under way: it has when the last poll brought nothing."""
        self._unsent = False
        self._next_commit = 0.0
        self._paused = False

    # -- any thread

    def start(self) -> None:
        """Joins the group; raises what the client refuses at once."""
        self._consumer = self._open()
        super().start()

    def flush(self, timeout: float) -> None:
        """Waits until the broker has every settlement so far. Raises BrokerUnavailable, SettleFailed."""
        future: Future[None] = Future()
        self._commands.append(lambda: self._flushes.append(future))
        self._wake.set()
        self._answer(future, timeout)

    def moved(self, batch: Batch, delivery: ShareDelivery, confirmed: bool) -> None:
        """The copy that `move` was asked for is confirmed, or failed."""
        self._moved.append((batch, delivery, confirmed))
        self._wake.set()

    # -- owner thread

    def _open(self) -> ShareConsumer:
        try:
            self._member = Membership()
            consumer = ShareConsumer(self._config | self._member.config)
            consumer.set_acknowledgement_commit_callback(self._on_acknowledged)
            consumer.subscribe([self._topic])
        except KafkaException as error:
            raise translate(error, f"share consumer of {self._source}") from error
        self._polled = self._opened = time.monotonic()
        self._received, self._fetching = 0, False
        self._brokers, self._next_look = BrokerWatch(), self._opened + EVERY
        return consumer

    def _halt(self) -> None:
        """Before a close: no fetch may bring what nobody sees. What comes now goes back, or goes on as a copy."""
        if self._consumer is None or not self._fetching:
            return
        self._fetching = False
        try:
            records = self._member.halt(self._consumer, self._topic, self._received, self._opened + _JOINED_WITHIN)
        except KafkaException as error:
            log.info("last fetch of %s: %s", self._source, error)
            return
        for delivery in self._take(records):
            if not self._rescue(delivery):
                del self._batch.open[delivery.place]
                self._acknowledge([delivery], AcknowledgeType.RELEASE)
        self.held = len(self._batch)

    def _close(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is None:
            return
        try:
            self._member.leave(consumer, self._opened + _JOINED_WITHIN)
        except Exception as error:
            log.info("close of %s: %s", self._source, error)

    def _step(self) -> None:
        self._obey()
        if self.settled or self._moved:
            self._drain()
        if self._flushes and not self.copying:
            self._drain()  # the last copy may have been confirmed since
            self._flush_now()
        now = time.monotonic()
        if len(self._batch):
            self._tend(now)
        elif self._paused or self._room() <= 0:
            self._commit_async(now)
            self._rest(now)
        else:
            self._poll()

    def _poll(self) -> None:
        if self._consumer is None:
            self._consumer = self._open()
        self._fetching = True
        try:
            records = list(self._consumer.poll(_POLL))
        except KafkaException as error:
            self._on_client_error(error.args[0])
            return
        self._polled = time.monotonic()
        self._unsent = False
        self._fetching = not records
        if not records:
            self._look_for_brokers()
            return
        fresh = self._take(records)
        if max(map(_attempt_of, fresh), default=0) >= self._last_chance:
            fresh = [delivery for delivery in fresh if not self._rescue(delivery)]
        self._buffer.put(fresh)
        if self.hungry:
            self.progress.set()

    def _look_for_brokers(self) -> None:
        if self._polled < self._next_look or not self._member.statistics:  # a busy client has told nothing yet
            return
        self._next_look = self._polled + EVERY
        self._brokers.look(self._member.statistics)
        if self._brokers.is_lost:
            log.warning("%s: the Kafka client knows no broker any more and is replaced", self._source)
            self._consumer = None  # no close: it would wait a minute for an answer of nobody

    def _take(self, records: list[Any]) -> list[ShareDelivery]:
        """Makes them the batch that is to be acknowledged."""
        errors = list(map(Record.error, records))
        if any(errors):  # not `count(None)`: a KafkaError cannot be compared with None
            for problem in filter(None, errors):
                self._on_client_error(problem)
            records = [record for record, problem in zip(records, errors, strict=True) if problem is None]
        self._received += len(records)
        counts = [count or 1 for count in map(Record.delivery_count, records)]
        self._batch = batch = Batch()
        fresh = list(map(ShareDelivery, repeat(self._settler), repeat(self._source), records, repeat(batch), counts))
        batch.begin(fresh)
        self.held = len(fresh)
        return fresh

    def _rescue(self, delivery: ShareDelivery) -> bool:
        """The broker drops a record in silence after its delivery limit: it goes on as a copy, which has none."""
        if delivery.attempt < self._last_chance:
            return False
        delivery.attempt -= 1
        self._batch.moving.add(delivery.place)
        self._batch.unheard.add(delivery.place)
        self._move(delivery, False)
        return True

    def _tend(self, now: float) -> None:
        """Part of the last poll is unsettled: waits for it, and moves what takes too long."""
        batch = self._batch
        self.waiting = True
        try:
            if len(self.settled) < self.held and not (self._commands or self._moved or self._stop):
                self._wake.wait(0.05)
            self._wake.clear()
        finally:
            self.waiting = False
        self._commit_async(now)
        age = now - batch.since
        if age > self._lock:
            self._give_up(batch)
        elif age > self._move_after or (
            age > _HELD_UP and self.hungry and not self._paused and not len(self._buffer) and self._room() > 0
        ):
            for place, delivery in list(batch.open.items()):
                if place not in batch.moving:
                    batch.moving.add(place)
                    if not self._move(delivery, True):
                        batch.moving.discard(place)
                        break  # no partition of the retry topic is ours: what is held stays held

    def _give_up(self, batch: Batch) -> None:
        """The locks have run out: the broker gives these records to somebody, and settling them here is in vain."""
        self._acknowledge(batch.open.values(), AcknowledgeType.RELEASE)
        log.warning(
            "%s: %d messages were held for over %g s and are delivered again", self._source, self.held, self._lock
        )
        batch.end()
        self.held = 0
        self._buffer.remove(lambda d: isinstance(d, KafkaDelivery) and not d.tracker.alive)

    def _drain(self) -> None:
        batch = self._batch
        while self._moved:  # first: a copy that failed makes its original what is to be settled
            moved_from, delivery, confirmed = self._moved.popleft()
            if moved_from is not batch:
                continue
            if not confirmed:
                batch.moving.discard(delivery.place)
                if delivery.place in batch.unheard:
                    batch.unheard.discard(delivery.place)
                    delivery.attempt += 1
                    self._buffer.put([delivery])
                if delivery.place not in batch.done:
                    continue
            if batch.open.pop(delivery.place, None) is not None:
                self._acknowledge([delivery], AcknowledgeType.ACCEPT)
        take = self.settled.popleft
        settled = [take() for _ in range(len(self.settled))]
        accepted = settled if batch.settle_next(settled) else self._settle_each(settled)
        self._acknowledge(accepted, AcknowledgeType.ACCEPT)
        self.held = len(batch)
        if self.hungry:
            self.progress.set()

    def _settle_each(self, settled: list[ShareDelivery]) -> list[ShareDelivery]:
        """Takes them out of the batch and returns those to acknowledge; those that were moved are the receiver's."""
        batch, accepted = self._batch, []
        moving, opened = batch.moving, batch.open
        for delivery in settled:
            if delivery.place in moving or delivery.tracker is not batch:
                if delivery.batch is batch:
                    batch.done.add(delivery.place)
                self._settled_while_moving(delivery)
            elif opened.pop(delivery.place, None) is not None:
                accepted.append(delivery)
        return accepted

    def _acknowledge(self, deliveries: Collection[ShareDelivery], how: AcknowledgeType) -> None:
        if self._consumer is None or not deliveries:
            return
        acknowledge = self._consumer.acknowledge
        self._unsent = True
        for delivery in deliveries:
            try:
                acknowledge(delivery.native, how)
            except Exception as error:  # IllegalStateException: the lock is lost, so it is delivered again
                self._buffer.fail(SettleFailed(f"{self._source}: {delivery.id} could not be settled: {error}"))

    def _commit_async(self, now: float) -> None:
        if self._unsent and self._consumer is not None and now >= self._next_commit:
            self._next_commit = now + _COMMIT_EVERY
            self._unsent = False
            self._consumer.commit_async()

    def _flush_now(self) -> None:
        flushes, self._flushes = self._flushes, []
        problem: MessagingError | None = None
        try:
            if self._consumer is not None:
                for partition, error in self._consumer.commit_sync(5.0).items():
                    if error is not None:
                        problem = translate(error, f"{self._source}, {partition}", SettleFailed)
        except KafkaException as error:
            problem = translate(error, f"settle on {self._source}", SettleFailed)
        self._unsent = False
        if problem is not None and not flushes:
            self._buffer.fail(problem)
        for future in flushes:
            if problem is None:
                future.set_result(None)
            else:
                future.set_exception(problem)

    def _rest(self, now: float) -> None:
        """Nothing is wanted: waits, and after a while closes the consumer, which may have locked records already."""
        if self._consumer is not None and now - self._polled > (0.0 if self._paused else _REST_AFTER):
            self._halt()
            if len(self._batch):
                return  # of what came last, copies are on their way
            if self._unsent:
                self._flush_now()
            self._close()
        self.waiting = True
        try:
            if not (self._commands or self.settled or self._stop):
                self._wake.wait(0.02)
            self._wake.clear()
        finally:
            self.waiting = False

    def set_paused(self, paused: bool) -> None:
        """A command."""
        self._paused = paused

    def _on_acknowledged(self, offsets: Any, error: KafkaException | None) -> None:
        if error is not None:
            failed = SettleFailed(f"settle on {self._source}: {error.args[0].str()}; what it was is delivered again")
            failed.__cause__ = error  # whatever the reason: a lost connection too is the client's to regain
            self._buffer.fail(failed)

    def _on_client_error(self, error: KafkaError) -> None:
        translated = translate(error, f"share consumer of {self._source}")
        if error.fatal():
            self._die(translated)
        elif isinstance(translated, AuthenticationFailed | DestinationNotFound):
            self._buffer.fail(translated)
        else:
            log.info("share consumer of %s: %s", self._source, error.str())

    def _leave(self) -> None:
        """Acknowledges what is settled, releases the rest, leaves. The client bounds each step by a few seconds."""
        try:
            self._stop = True
            self._obey()
            self._drain()
            if self.failure is None:
                self._halt()
            deadline = time.monotonic() + 3.0
            while self.copying and self.failure is None and time.monotonic() < deadline:
                self._wake.wait(0.02)
                self._wake.clear()
            self._drain()
            if self.failure is None:
                self._flush_now()
            # Last, so that closing sends it: after a commit of its own a fetch could bring it back, one attempt on.
            self._acknowledge(self._batch.open.values(), AcknowledgeType.RELEASE)
        except Exception as error:
            log.info("last settlements of %s: %s", self._source, error)
        self._batch.end()
        self.settled.clear()
        for future in self._flushes:
            future.set_exception(BrokerUnavailable(f"{self._source}: the last settlements were not carried out"))
        self._close()

"""The owner thread of one consumer of a consumer group: every call of the client's consumer is made here."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from threading import Event, Thread
from typing import Any, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from messaging.buffer import DeliveryBuffer
from messaging.delivery import Delivery, Settler
from messaging.errors import (
    AuthenticationFailed,
    BrokerUnavailable,
    Closed,
    DestinationNotFound,
    MessagingError,
    SettleFailed,
)
from messaging.patterns import MATCH_ALL, matcher
from messaging.topology import Source

from .admin import Admin
from .answers import answer
from .errors import translate
from .groups import order_mark
from .records import KafkaDelivery, type_of
from .topic_watch import Change, TopicWatch
from .tracker import OffsetTracker

log = logging.getLogger(__name__)

T = TypeVar("T")
AHEAD = 1000
"""Records read ahead of what may be handed out (`prefetch`), as the client itself does: nobody else could have them."""
_AHEAD_BYTES = 64 * 1024 * 1024
"""Bytes of them, about: fewer records are read ahead when they are large."""
_CHUNK = 500
"""Messages taken from the client at a time."""
_COMMIT_EVERY = 0.5
"""Seconds between two commits of the watermarks: what a crash repeats at most, beside what was unsettled."""
_IDLE = 0.05
_BUSY = 0.01
"""Seconds the thread waits in the client for a message: with nothing unsettled, and with something to hear of."""
_PARK_AFTER = 1.0
"""Seconds without room after which the partitions are paused, so that polling can go on (max.poll.interval.ms)."""
_GAP = 10_000
"""Settled messages above an unsettled one at most, a partition; then it is paused until the watermark moves."""
_CLOSE_WITHIN = 4.0
"""Seconds for the last commit at close."""


class GroupLoop:
    """Reads one topic for one group into a buffer, and commits what is settled.

    Threads: `settled`, `call`, `stop` from any thread; everything with an underscore belongs to the owner thread,
    also the client's callbacks, which the client runs inside the calls made here. `settled` and `_commands` are
    deques, which need no lock; `_wake` ends a wait at the prefetch mark early. `join` joins the thread.
    """

    def __init__(
        self,
        config: dict[str, Any],
        topic: str,
        source: Source,
        settler: Settler,
        buffer: DeliveryBuffer,
        prefetch: int,
        admin: Admin,
    ) -> None:
        self._topic = topic
        self._source = source
        self._settler = settler
        self._buffer = buffer
        self._prefetch = prefetch
        self._ahead = AHEAD
        self._mark = order_mark(source)
        self._admin = admin
        self._matches = None if source.pattern == MATCH_ALL else matcher(source.pattern)
        self.settled: deque[Delivery] = deque()
        """Deliveries that are done with: appended by anybody, drained here."""
        self.held = 0
        """Records read and not yet settled, as far as drained: in the buffer, or handed out. The owner thread's."""
        self.copying = 0
        """Copies on their way to another topic; their originals are settled once they are confirmed (GroupReceiver)."""
        self.failure: MessagingError | None = None
        """Why this consumer is dead, if it is."""
        self.waiting = False
        """Whether the thread waits for a settlement."""
        self.at_mark = False
        """Whether the receiver waits for room; then `progress` is set whenever there may be some."""
        self.progress = Event()
        self._commands: deque[Callable[[], None]] = deque()
        self._flushes: list[tuple[dict[OffsetTracker, int] | None, Future[None]]] = []
        self._trackers: dict[int, OffsetTracker] = {}
        self._gapped: set[int] = set()
        self._paused = False
        self._parked = False
        self._full_since: float | None = None
        self._next_commit = 0.0
        self._watch = TopicWatch(admin, topic)
        self._missing = False
        self._stop = False
        self._wake = Event()
        try:
            self._consumer = Consumer(config | {"on_commit": self._on_commit, "error_cb": self._on_error})
        except KafkaException as error:
            raise translate(error, f"consumer of {source}") from error
        self._thread = Thread(target=self._run, name=f"kafka-consumer-{source.name}", daemon=True)

    # -- any thread ----------------------------------------------------------------------------------------------

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """There is something to do: a settlement, a command."""
        self._wake.set()

    def call(self, command: Callable[[], T], timeout: float) -> T:
        """Runs `command` in the owner thread and returns its result. Raises BrokerUnavailable after `timeout`."""
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(command())
            except BaseException as error:
                future.set_exception(error)

        self._commands.append(run)
        self._wake.set()
        return self._answer(future, timeout)

    def flush(self, timeout: float) -> None:
        """Waits until everything settled so far is committed. Raises BrokerUnavailable, SettleFailed."""
        future: Future[None] = Future()
        self._commands.append(lambda: self._flushes.append((None, future)))
        self._wake.set()
        self._answer(future, timeout)

    def _answer(self, future: Future[T], timeout: float) -> T:
        try:
            return answer(future, timeout, self._thread)
        except TimeoutError:
            if self._stop or not self._thread.is_alive():
                raise self.failure or Closed(f"the consumer of {self._source} was closed meanwhile") from None
            raise BrokerUnavailable(f"{self._source}: not done within {timeout:g} s") from None

    def stop(self) -> None:
        """Ends the thread soon: it commits what is settled and leaves the group."""
        self._stop = True
        self._wake.set()

    def join(self, timeout: float) -> bool:
        """Waits for the thread. Returns whether it ended."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    # -- owner thread --------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._consumer.subscribe(
                [self._topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
            )
            while not self._stop and self.failure is None:
                self._step()
        except Exception as error:
            log.exception("the consumer of %s failed", self._source)
            self._die(
                translate(error, f"consumer of {self._source}")
                if isinstance(error, KafkaException)
                else MessagingError(f"consumer of {self._source}: {error!r}")
            )
        finally:
            self._leave()

    def _step(self) -> None:
        while self._commands:
            self._commands.popleft()()
        if self.settled:
            self._drain()
        self._commit_when_due()
        self._look_at_topic()
        # What waits for its time must not keep others waiting; `_GAP` bounds it, like everything above the watermark.
        room = min(self._prefetch + self._ahead - self.held + min(self._buffer.later, _GAP), _CHUNK)
        if self._paused or room <= 0:
            self._hold()
            return
        self._full_since = None
        if self._parked:
            self._unpark()
        consume = self._consumer.consume
        records = consume(room, 0)
        if not records:
            record = self._consumer.poll(_BUSY if self.held or self._flushes else _IDLE)
            if record is None:
                return
            records = [record, *consume(room - 1, 0)] if room > 1 else [record]
        self._accept(records)

    def _hold(self) -> None:
        """No room, or paused: waits for a settlement, and keeps polling so that the group keeps this member."""
        now = time.monotonic()
        if self._full_since is None:
            self._full_since = now
        self.waiting = True
        try:
            if not (self.settled or self._commands or self._flushes):
                self._wake.wait(0.1)
            self._wake.clear()
        finally:
            self.waiting = False
        if self._paused or self._flushes or now - self._full_since > _PARK_AFTER:
            self._park()
            record = self._consumer.poll(_BUSY if self._flushes else 0)
            if record is not None:
                self._accept([record])

    def _park(self) -> None:
        if not self._parked:
            self._parked = True
            self._consumer.pause(self._partitions())

    def _unpark(self) -> None:
        self._parked = False
        self._consumer.resume([p for p in self._partitions() if p.partition not in self._gapped])

    def _partitions(self) -> list[TopicPartition]:
        return [TopicPartition(self._topic, p) for p in self._trackers]

    def _accept(self, records: list[Any]) -> None:
        """Puts records into the buffer."""
        fresh: list[Delivery] = []
        partition, tracker = -1, None
        settler, source, matches = self._settler, self._source, self._matches
        for record in records:
            error = record.error()
            if error is not None:
                self._on_record_error(error)
                continue
            if record.partition() != partition:
                partition = record.partition()
                tracker = self._trackers.get(partition)
            if tracker is None:
                continue  # revoked meanwhile: its new owner gets it
            offset = record.offset()
            if offset <= tracker.last:
                tracker = self._restart(tracker)
                fresh = [d for d in fresh if d.tracker.alive]  # type: ignore[attr-defined]
            if tracker.last < 0:
                tracker.begin(offset)
            if matches is not None and not matches(type_of(record)):
                tracker.skip(offset)
                continue
            delivery = self._deliver(settler, source, record, tracker, offset)
            tracker.add(offset)
            self.held += 1
            if delivery is not None:
                fresh.append(delivery)
        if fresh:
            self._missing = False
            self._buffer.put(fresh)
            if self.at_mark:
                self.progress.set()
        self._ahead = min(AHEAD, _AHEAD_BYTES * len(records) // max(sum(map(len, records)), 1))
        for tracker in self._trackers.values():
            if tracker.span > _GAP and tracker.partition not in self._gapped:
                self._gapped.add(tracker.partition)
                self._consumer.pause([TopicPartition(self._topic, tracker.partition)])

    _deliver: Callable[..., Delivery | None] = staticmethod(KafkaDelivery)

    def _restart(self, tracker: OffsetTracker) -> OffsetTracker:
        """The client went back by itself (a truncated log, an offset reset): from here on everything counts anew."""
        self._forget([tracker.partition])
        self._trackers[tracker.partition] = fresh = OffsetTracker(tracker.partition)
        return fresh

    def _drain(self) -> None:
        settled, freed = self.settled, 0
        of_tracker: dict[OffsetTracker, list[int]] = {}
        for _ in range(len(settled)):
            delivery: Any = settled.popleft()
            tracker = delivery.tracker
            if tracker in of_tracker:
                of_tracker[tracker].append(delivery.offset)
            else:
                of_tracker[tracker] = [delivery.offset]
        for tracker, offsets in of_tracker.items():
            freed += tracker.done_many(offsets)
        self.held -= freed
        if self._gapped:
            for partition in [p for p in self._gapped if self._trackers[p].span < _GAP // 2]:
                self._gapped.discard(partition)
                if not self._parked:
                    self._consumer.resume([TopicPartition(self._topic, partition)])

    # -- commits

    def _commit_when_due(self) -> None:
        now = time.monotonic()
        if self._flushes:
            self._flush_step()
        if now < self._next_commit and not self._flushes:
            return
        self._next_commit = now + _COMMIT_EVERY
        offsets = self._to_commit(self._trackers.values())
        if offsets:
            self._consumer.commit(offsets=offsets, asynchronous=True)

    def _to_commit(self, trackers: Any) -> list[TopicPartition]:
        offsets = []
        for tracker in trackers:
            watermark = tracker.watermark
            if watermark > tracker.requested:
                tracker.requested = watermark
                offsets.append(TopicPartition(self._topic, tracker.partition, watermark, self._mark))
        return offsets

    def _on_commit(self, error: KafkaError | None, offsets: list[TopicPartition]) -> None:
        for offset in offsets:
            tracker = self._trackers.get(offset.partition)
            if tracker is None or offset.offset > tracker.requested:
                continue
            problem = error or offset.error
            if problem is None:
                tracker.committed = max(tracker.committed, offset.offset)
            else:
                log.info("commit of %s, partition %d: %s", self._source, offset.partition, problem.str())
                tracker.requested = tracker.committed  # the next round tries again

    def _flush_step(self) -> None:
        if self.copying:
            return
        if self.settled:
            self._drain()
        waiting: list[tuple[dict[OffsetTracker, int] | None, Future[None]]] = []
        for targets, future in self._flushes:
            if targets is None:
                targets = {t: t.watermark for t in self._trackers.values()}
            if all(not t.alive or t.committed >= watermark for t, watermark in targets.items()):
                future.set_result(None)
            else:
                waiting.append((targets, future))
        self._flushes = waiting

    # -- group membership

    def _on_assign(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        consumer.incremental_assign(partitions)
        for partition in partitions:
            self._trackers[partition.partition] = OffsetTracker(partition.partition)
        # A pause outlives the assignment it was made in (librdkafka): say what is wanted for this one.
        (consumer.pause if self._parked else consumer.resume)(partitions)

    def _on_revoke(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        numbers = [p.partition for p in partitions if p.partition in self._trackers]
        try:
            self._drain()
            trackers = [self._trackers[n] for n in numbers]
            for tracker in trackers:
                tracker.requested = tracker.committed  # what is on its way may still be refused
            offsets = self._to_commit(trackers)
            if offsets:
                consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            log.info("last commit of %s before giving partitions away: %s", self._source, error)
        finally:
            self._forget(numbers)
            consumer.incremental_unassign(partitions)

    def _on_lost(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        # Somebody else may own them already: what is unsettled here is delivered there.
        self._forget([p.partition for p in partitions])
        consumer.incremental_unassign(partitions)

    def _forget(self, partitions: list[int]) -> None:
        """Drops trackers, so that no later settlement counts, then their waiting deliveries."""
        dropped = [self._trackers.pop(p) for p in partitions if p in self._trackers]
        self.held -= sum(tracker.drop() for tracker in dropped)
        self._gapped.difference_update(partitions)
        if dropped:
            self._buffer.remove(lambda d: isinstance(d, KafkaDelivery) and not d.tracker.alive)

    # -- commands

    def set_paused(self, paused: bool) -> None:
        """A command: take no further messages, or go on."""
        self._paused = paused
        if paused:
            self._park()

    def rewind(self, positions: Mapping[int, int]) -> set[int]:
        """A command: reads on from `positions`. Returns the partitions that this consumer holds."""
        held = set(self._trackers)
        wanted = [TopicPartition(self._topic, p, o, self._mark) for p, o in positions.items() if p in held]
        try:
            for partition in wanted:
                self._consumer.seek(partition)  # first: when it fails, what was read before stays as it is
                self._forget([partition.partition])
                self._trackers[partition.partition] = OffsetTracker(partition.partition)
                self._trackers[partition.partition].begin(partition.offset)
            if wanted:
                self._consumer.commit(offsets=wanted, asynchronous=False)
        except KafkaException as error:
            raise translate(error, f"replay of {self._source}", SettleFailed) from error
        if wanted:  # one that was paused because of a gap has none any more
            (self._consumer.pause if self._parked else self._consumer.resume)(wanted)
        return held

    # -- failures and the end

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._die(translate(error, f"consumer of {self._source}"))
        elif error.code() in (KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED):
            self._buffer.fail(translate(error, f"consumer of {self._source}"))

    def _on_record_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._die(translate(error, f"consumer of {self._source}"))
            return
        translated = translate(error, f"consumer of {self._source}")
        if isinstance(translated, AuthenticationFailed):
            self._buffer.fail(translated)
        elif isinstance(translated, DestinationNotFound):
            if self._is_gone():  # it is also reported for a topic that is still being made
                self._is_missing()
        elif error.code() != KafkaError._PARTITION_EOF:
            log.info("consumer of %s: %s", self._source, error.str())

    def _look_at_topic(self) -> None:
        change = self._watch.look()
        if change is Change.GONE:
            self._is_missing()
        elif change is Change.REMADE:
            log.warning(
                "%s: topic %r was deleted and made again; it is read from its beginning", self._source, self._topic
            )
            try:
                self.rewind(dict.fromkeys(self._trackers, 0))
            except MessagingError as error:
                log.info("%s; tried again", error)
            else:
                self._watch.accept()
                self._missing = False

    def _is_missing(self) -> None:
        if not self._missing:
            self._missing = True
            self._buffer.fail(DestinationNotFound(f"{self._source}: topic {self._topic!r} does not exist any more"))

    def _is_gone(self) -> bool:
        try:
            return self._admin.partitions([self._topic])[self._topic] is None
        except MessagingError:
            return False

    def _die(self, error: MessagingError) -> None:
        if self.failure is None:
            self.failure = error
            self._buffer.fail(error)

    def _leave(self) -> None:
        """Commits what is settled, bounded, then leaves the group, so that others get the rest at once."""
        last: Future[None] = Future()
        try:
            self._stop = True
            while self._commands:
                self._commands.popleft()()
            self._flushes.append((None, last))
            self._park()
            deadline = time.monotonic() + _CLOSE_WITHIN
            while self.failure is None and not last.done() and time.monotonic() < deadline:
                self._commit_when_due()
                if not last.done():
                    self._consumer.poll(_BUSY)  # a record is dropped: it is not committed, so somebody gets it
        except Exception as error:
            log.info("last commit of %s: %s", self._source, error)
        for _, future in self._flushes:
            if not future.done():
                future.set_exception(BrokerUnavailable(f"{self._source}: the last settlements were not committed"))
        self._forget(list(self._trackers))
        try:
            self._consumer.close()
        except Exception as error:
            log.info("close of %s: %s", self._source, error)

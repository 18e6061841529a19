"""The owner thread of one consumer of a consumer group: every call of the client's consumer is made here."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from itertools import compress, groupby, repeat
from operator import attrgetter, lt
from threading import Event
from typing import Any, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from messaging.buffer import DeliveryBuffer
from messaging.delivery import Delivery, Settler
from messaging.errors import (
    AuthenticationFailed,
    BrokerUnavailable,
    DestinationNotFound,
    MessagingError,
    SettleFailed,
)
from messaging.patterns import MATCH_ALL, matcher
from messaging.topology import Source

from .admin import Admin
from .broker_watch import BrokerWatch
from .errors import translate
from .groups import order_mark
from .interrupted import Interrupted
from .owner_thread import OwnerThread
from .records import GroupDelivery, KafkaDelivery, type_of
from .settled_ahead import ROOM, encode
from .topic_watch import Change, TopicWatch
from .tracker import OffsetTracker

log = logging.getLogger(__name__)

T = TypeVar("T")
AHEAD = 1000
"""Records read ahead of what may be handed out (`prefetch`), as the client itself does: nobody else could have them."""
_AHEAD_BYTES = 64 * 1024 * 1024
"""Bytes of them, about: fewer records are read ahead when they are large."""
READY = 500
"""Records at most that wait for somebody to take them; the client, which keeps the rest, is faster than anybody. More
would grow old here, and the collector look at each of them several times.
"""
_SAMPLE = 8
"""Of so many records one is measured."""
_COMMIT_EVERY = 0.5
"""Seconds between two commits of the watermarks: what a crash repeats at most, beside what was unsettled."""
_IDLE = 0.05
_BUSY = 0.01
"""Seconds the thread waits in the client for a message: with nothing unsettled, and with something to hear of."""
_PARK_AFTER = 1.0
"""Seconds without room after which the partitions are paused, so that polling can go on (max.poll.interval.ms)."""
_GAP = 10_000
"""Settled messages above an unsettled one at most, a partition; then it is paused until the watermark moves."""
POSITIONS_WITHIN = 5.0
"""Seconds for the coordinator to tell a group's positions."""
_CLOSE_WITHIN = 4.0
"""Seconds for the last commit at close."""

_partition: Callable[[Any], int] = Message.partition  # type: ignore[assignment]  # None is for messages made by hand
_offset: Callable[[Any], int] = Message.offset  # type: ignore[assignment]
_less: Callable[[int, int], bool] = lt
_tracker_of: Callable[[Delivery], OffsetTracker] = attrgetter("tracker")
_offset_of: Callable[[Delivery], int] = attrgetter("offset")


class GroupLoop(OwnerThread):
    """Reads one topic for one group into a buffer, and commits what is settled.

    Threads: as OwnerThread, and `settled` and `flush` from any; the client's callbacks are the owner thread's too, for
    the client runs them inside the calls made here. `settled` is a deque, which needs no lock.
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
        super().__init__(source, buffer, "kafka-consumer")
        self._topic = topic
        self._settler = settler
        self._prefetch = prefetch
        self._ahead = AHEAD
        self._mark = order_mark(source)
        self._room = ROOM
        self._admin = admin
        self._matches = None if source.pattern == MATCH_ALL else matcher(source.pattern)
        self.settled: deque[Delivery] = deque()
        """Deliveries that are done with: appended by anybody, drained here."""
        self.held = 0
        """Records read and not yet settled, as far as drained: in the buffer, or handed out. The owner thread's."""
        self.copying = 0
        """Copies on their way to another topic; their originals are settled once they are confirmed (GroupReceiver)."""
        self.at_mark = False
        """Whether the receiver waits for room; then `progress` is set whenever there may be some."""
        self.progress = Event()
        self._flushes: list[tuple[dict[OffsetTracker, int] | None, Future[None]]] = []
        self._trackers: dict[int, OffsetTracker] = {}
        self._gapped: set[int] = set()
        self._interrupted = Interrupted(buffer)
        self._paused = False
        self._parked = False
        self._full_since: float | None = None
        self._next_commit = 0.0
        self._watch = TopicWatch(admin, topic)
        self._missing = False
        self._config = config | {"on_commit": self._on_commit, "error_cb": self._on_error}
        try:
            self._consumer = self._new_client()
        except KafkaException as error:
            raise translate(error, f"consumer of {source}") from error

    def _new_client(self) -> Consumer:
        self._brokers = BrokerWatch()
        return Consumer(self._config | self._brokers.config)

    # -- any thread ----------------------------------------------------------------------------------------------

    def flush(self, timeout: float) -> None:
        """Waits until everything settled so far is committed. Raises BrokerUnavailable, SettleFailed."""
        future: Future[None] = Future()
        self._commands.append(lambda: self._flushes.append((None, future)))
        self._wake.set()
        self._answer(future, timeout)

    # -- owner thread --------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._consumer.subscribe(
            [self._topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def _step(self) -> None:
        self._obey()
        if self.settled:
            self._drain()
        if self._brokers.is_lost:
            self._begin_again()
        self._commit_when_due()
        self._look_at_topic()
        # What waits for its time must not keep others waiting; `_GAP` bounds it, like everything above the watermark.
        room = self._prefetch + self._ahead - self._active() + min(self._buffer.later, _GAP)
        room = min(room, self._room_in_buffer())
        if self._paused or room <= 0:
            self._hold()
            return
        self._full_since = None
        if self._parked:
            self._unpark()
        consume = self._consumer.consume
        records = consume(room, 0)
        if not records:
            record = self._consumer.poll(_BUSY if self._active() or self._flushes else _IDLE)
            if record is None:
                return
            records = [record, *consume(room - 1, 0)] if room > 1 else [record]
        self._accept(records)

    def _room_in_buffer(self) -> int:
        return READY - len(self._buffer) + self._buffer.later

    def _active(self) -> int:
        """How many records are handed out or may be."""
        return self.held

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
        """Puts records into the buffer, a run of one partition at a time: one by one they would cost twice as much."""
        some = records[::_SAMPLE]
        self._ahead = min(AHEAD, _AHEAD_BYTES * len(some) // max(sum(map(len, some)), 1))
        errors = list(map(Message.error, records))
        if any(errors):  # not errors.count(None): a KafkaError compared with None leaves an exception behind
            # In the order they came: an end of a partition tells nothing of the messages before and after it.
            for is_error, both in groupby(zip(records, errors, strict=True), lambda pair: pair[1] is not None):
                pairs = list(both)
                if is_error:
                    for record, error in pairs:
                        assert error is not None
                        self._on_record_error(error, record)
                else:
                    self._accept_messages([record for record, _ in pairs])
        else:
            self._accept_messages(records)
        for tracker in self._trackers.values():
            if tracker.partition not in self._gapped and self._is_full(tracker):
                self._gapped.add(tracker.partition)
                self._consumer.pause([TopicPartition(self._topic, tracker.partition)])

    def _accept_messages(self, records: list[Any]) -> None:
        for partition, group in groupby(records, _partition):
            run = list(group)
            offsets = list(map(_offset, run))
            if all(map(_less, offsets, offsets[1:])):
                self._accept_run(partition, run, offsets)
            else:  # the client went back in the midst of them
                for record, offset in zip(run, offsets, strict=True):
                    self._accept_run(partition, [record], [offset])

    def _is_full(self, tracker: OffsetTracker, part: int = 1) -> bool:
        """Whether its partition is to pause; with part=2, whether it is still too full to go on."""
        return tracker.span > _GAP // part

    def _accept_run(self, partition: int, records: list[Any], offsets: list[int]) -> None:
        """Records of one partition, at rising offsets."""
        tracker = self._trackers.get(partition)
        if tracker is None:
            return  # revoked meanwhile: its new owner gets them
        if offsets[0] <= tracker.last:
            tracker = self._restart(tracker)
        if tracker.last < 0:
            tracker.begin(offsets[0])
        tracker.add(offsets)
        self.held += len(offsets)
        before = set(tracker.settled_before(offsets))
        if before or self._matches is not None:
            wanted = [
                self._is_wanted(record) and offset not in before
                for record, offset in zip(records, offsets, strict=True)
            ]
            self.held -= tracker.done(
                [offset for offset, is_wanted in zip(offsets, wanted, strict=True) if not is_wanted]
            )
            records, offsets = list(compress(records, wanted)), list(compress(offsets, wanted))
        fresh = self._deliveries(tracker, records, offsets)
        if partition in self._interrupted:
            fresh = self._interrupted.go_on(tracker, fresh)
        if fresh:
            self._missing = False
            self._buffer.put(fresh)
            if self.at_mark:
                self.progress.set()

    def _is_wanted(self, record: Any) -> bool:
        return self._matches is None or self._matches(type_of(record))

    def _deliveries(self, tracker: OffsetTracker, records: list[Any], offsets: list[int]) -> Sequence[Delivery]:
        """What is to be handed out now of records that `tracker` has."""
        return list(map(GroupDelivery, repeat(self._settler), repeat(self._source), records, repeat(tracker), offsets))

    def _restart(self, tracker: OffsetTracker) -> OffsetTracker:
        """The client went back by itself (a truncated log, an offset reset): from here on everything counts anew."""
        self._forget([tracker.partition])
        self._trackers[tracker.partition] = fresh = OffsetTracker(tracker.partition)
        return fresh

    def _drain(self) -> None:
        take = self.settled.popleft
        settled = [take() for _ in range(len(self.settled))]
        for tracker, deliveries in groupby(settled, _tracker_of):
            self.held -= tracker.done(list(map(_offset_of, deliveries)))
        if self._gapped:
            self._resume_gapped()

    def _resume_gapped(self) -> None:
        for partition in [p for p in self._gapped if not self._is_full(self._trackers[p], 2)]:
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
            if tracker.changes > tracker.requested:
                offset = self._position(tracker, tracker.watermark)
                tracker.sent(offset)
                offsets.append(offset)
        return offsets

    def _position(self, tracker: OffsetTracker, watermark: int) -> TopicPartition:
        """What is to be committed when everything below `watermark` is settled, and more above it."""
        return TopicPartition(
            self._topic, tracker.partition, watermark, encode(self._mark, watermark, tracker.ahead, self._room)
        )

    def _on_commit(self, error: KafkaError | None, offsets: list[TopicPartition]) -> None:
        too_large = False
        for offset in offsets:
            tracker = self._trackers.get(offset.partition)
            if tracker is None:
                continue
            problem = error or offset.error
            tracker.answered(offset, problem is None)
            if problem is not None:  # the next round tries again
                log.info("commit of %s, partition %d: %s", self._source, offset.partition, problem.str())
                too_large = too_large or problem.code() == KafkaError.OFFSET_METADATA_TOO_LARGE
        if too_large:
            self._room //= 2

    def _flush_step(self) -> None:
        if self.copying:
            return
        if self.settled:
            self._drain()
        waiting: list[tuple[dict[OffsetTracker, int] | None, Future[None]]] = []
        for targets, future in self._flushes:
            if targets is None:
                targets = {t: t.changes for t in self._trackers.values()}
            if all(not t.alive or t.confirmed >= changes for t, changes in targets.items()):
                future.set_result(None)
            else:
                waiting.append((targets, future))
        self._flushes = waiting

    # -- group membership

    def _on_assign(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        before = self._settled_before(partitions)
        consumer.incremental_assign(partitions)
        for partition in partitions:
            number = partition.partition
            self._trackers[number] = before.get(number) or OffsetTracker(number)
        # A pause outlives the assignment it was made in (librdkafka): say what is wanted for this one.
        (consumer.pause if self._parked else consumer.resume)(partitions)

    def _settled_before(self, partitions: list[TopicPartition]) -> dict[int, OffsetTracker]:
        """Trackers that know what others have settled above the group's position: that is not handed out again."""
        try:
            found = self._consumer.committed(partitions, timeout=POSITIONS_WITHIN)
        except KafkaException as error:
            log.info("%s: what is settled above its positions is delivered again: %s", self._source, error)
            return {}
        return {p.partition: OffsetTracker.of(p) for p in found if p.error is None and p.offset >= 0}

    def _on_revoke(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        numbers = [p.partition for p in partitions if p.partition in self._trackers]
        try:
            self._drain()
            trackers = [self._trackers[n] for n in numbers]
            for tracker in trackers:
                tracker.requested = tracker.confirmed  # what is on its way may still be refused
            offsets = self._to_commit(trackers)
            if offsets:
                consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            log.warning("last commit of %s before giving partitions away: %s", self._source, error)
        finally:
            self._forget(numbers)
            consumer.incremental_unassign(partitions)

    def _on_lost(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        self._lost([p.partition for p in partitions])
        consumer.incremental_unassign(partitions)

    def _lost(self, partitions: list[int]) -> None:
        """Somebody else may own them already: what is unsettled here is delivered there."""
        log.warning("%s: partitions %s were lost to the group", self._source, partitions)
        self._interrupted.remember(partitions)
        self._forget(partitions)

    def _begin_again(self) -> None:
        """Joins the group anew, with another client."""
        log.warning("%s: the Kafka client knows no broker any more and is replaced", self._source)
        self._lost(list(self._trackers))
        self._parked = False
        self._consumer = self._new_client()  # no close of the other: it would wait a minute for an answer of nobody
        self._begin()

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
        """A command: reads on from `positions`, the group's from now on. Returns the partitions that it holds.

        None, as long as it reads nothing yet.
        """
        held = set(self._trackers)
        try:
            wanted = self._seek([TopicPartition(self._topic, p, o, self._mark) for p, o in positions.items()])
            if wanted:
                self._consumer.commit(offsets=wanted, asynchronous=False)
        except KafkaException as error:
            if error.args[0].code() == KafkaError._STATE:  # it has not begun to read what it was given
                return set()
            raise translate(error, f"replay of {self._source}", SettleFailed) from error
        return held

    def _seek(self, positions: list[TopicPartition]) -> list[TopicPartition]:
        """Reads on from those of `positions` that are in partitions of this consumer, and returns them.

        What their metadata say is settled is not handed out. Raises KafkaException.
        """
        wanted = [p for p in positions if p.partition in self._trackers]
        for partition in wanted:
            self._consumer.seek(partition)  # first: when it fails, what was read before stays as it is
            self._forget([partition.partition])
            self._interrupted.forget(partition.partition)
            self._trackers[partition.partition] = OffsetTracker.of(partition)
        if wanted:  # one that was paused because of a gap has none any more
            (self._consumer.pause if self._parked else self._consumer.resume)(wanted)
        return wanted

    # -- failures and the end

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._die(translate(error, f"consumer of {self._source}"))
        elif error.code() in (KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED):
            self._buffer.fail(translate(error, f"consumer of {self._source}"))

    def _on_record_error(self, error: KafkaError, record: Any) -> None:
        if error.code() == KafkaError._PARTITION_EOF:
            tracker = self._trackers.get(record.partition())
            if tracker is not None:
                tracker.reach(record.offset())
            return
        if error.fatal():
            self._die(translate(error, f"consumer of {self._source}"))
            return
        translated = translate(error, f"consumer of {self._source}")
        if isinstance(translated, AuthenticationFailed):
            self._buffer.fail(translated)
        elif isinstance(translated, DestinationNotFound):
            if self._is_gone():  # it is also reported for a topic that is still being made
                self._is_missing()
        else:
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

    def _leave(self) -> None:
        """Commits what is settled, bounded, then leaves the group, so that others get the rest at once."""
        last: Future[None] = Future()
        try:
            self._stop = True
            self._obey()
            self._flushes.append((None, last))
            self._park()
            deadline = time.monotonic() + _CLOSE_WITHIN
            while self.failure is None and not last.done() and time.monotonic() < deadline:
                self._commit_when_due()
                if not last.done():
                    self._consumer.poll(_BUSY)  # a record is dropped: it is not committed, so somebody gets it
        except Exception as error:
            log.warning("last commit of %s: %s", self._source, error)
        if not last.done():
            log.warning("%s: the last settlements were not committed within %g s", self._source, _CLOSE_WITHIN)
        for _, future in self._flushes:
            if not future.done():
                future.set_exception(BrokerUnavailable(f"{self._source}: the last settlements were not committed"))
        self._forget(list(self._trackers))
        self.settled.clear()
        try:
            self._consumer.close()
        except Exception as error:
            log.info("close of %s: %s", self._source, error)

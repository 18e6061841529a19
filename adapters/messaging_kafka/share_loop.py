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
from collections.abc import Callable
from concurrent.futures import Future
from threading import Event, Lock, Thread
from typing import Any, TypeVar

from confluent_kafka import AcknowledgeType, KafkaError, KafkaException, ShareConsumer

from messaging.buffer import DeliveryBuffer
from messaging.delivery import _UNSET, Delivery, Settler
from messaging.errors import (
    AuthenticationFailed,
    BrokerUnavailable,
    Closed,
    DestinationNotFound,
    MessagingError,
    SettleFailed,
)
from messaging.topology import Source

from .answers import answer
from .errors import translate
from .records import KafkaDelivery
from .share_member import Membership

log = logging.getLogger(__name__)

T = TypeVar("T")
_holds = Lock()
"""Guards the making of a Hold: no delivery has two."""
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


class Batch:
    """The records of one poll that are not acknowledged yet. Plays the tracker's part for its deliveries.

    moving: of which a copy is under way. unheard: those of them that nobody was given. done: those of them that were
    settled since; should the copy fail, so is the original.
    """

    __slots__ = ("alive", "done", "moving", "open", "since", "unheard")

    def __init__(self) -> None:
        self.alive = True
        self.since = time.monotonic()
        self.open: dict[tuple[int, int], ShareDelivery] = {}
        self.moving: set[tuple[int, int]] = set()
        self.unheard: set[tuple[int, int]] = set()
        self.done: set[tuple[int, int]] = set()


class Hold:
    """Where a record is settled: in its Batch, once it is moved in the tracker of its copy's partition, at `offset`.

    One for all deliveries of the record that this consumer makes, since any of them may be the one that is settled.
    """

    __slots__ = ("offset", "tracker")

    def __init__(self, tracker: Any, offset: int) -> None:
        self.tracker = tracker
        self.offset = offset


class ShareDelivery(KafkaDelivery):
    """A record that this consumer holds the lock of. place: its partition and offset."""

    __slots__ = ("_hold", "batch", "place")

    def __init__(
        self, settler: Settler, source: Source, native: Any, batch: Batch, place: tuple[int, int], attempt: int
    ) -> None:
        # Written out, as in KafkaDelivery: for every message.
        self.settler = settler
        self.source = source
        self.native = native
        self.attempt = attempt
        self.as_type = None
        self._message = None
        self._value = _UNSET
        self._settled = False
        self._hold: Hold | None = None
        self.batch = batch
        self.place = place

    @property
    def hold(self) -> Hold:
        """Made when it is asked for, by any thread: few records are moved or delivered again here."""
        if self._hold is None:
            with _holds:
                self._hold = self._hold or Hold(self.batch, self.place[1])
        return self._hold

    @property
    def tracker(self) -> Any:
        return self.batch if self._hold is None else self._hold.tracker

    @property
    def offset(self) -> int:  # type: ignore[override]
        return self.hold.offset

    def again(self) -> Delivery:
        assert self.hold  # shared with the next one
        return super().again()


class ShareLoop:
    """Reads a queue through its share group into a buffer and acknowledges what is settled.

    Threads: `settled`, `call`, `flush`, `wake`, `stop` from any thread; the rest belongs to the owner thread, which
    `join` joins. `move(delivery, goes_on)` is the receiver's: it copies a record, calls `moved` when that is confirmed
    or failed, and returns False when it has nowhere to copy to. `goes_on`: the delivery is somebody's already.
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
        self._config = config
        self._source = source
        self._topic = source.destination.name
        self._settler = settler
        self._buffer = buffer
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
        self.waiting = False
        self.copying = 0
        self.failure: MessagingError | None = None
        self._commands: deque[Callable[[], None]] = deque()
        self._flushes: list[Future[None]] = []
        self._batch = Batch()
        self._consumer: ShareConsumer | None = None
        self._member = Membership()
        self._polled = self._opened = time.monotonic()
        self._unsent = False
        self._next_commit = 0.0
        self._paused = False
        self._stop = False
        self._wake = Event()
        self._thread = Thread(target=self._run, name=f"kafka-share-{source.name}", daemon=True)

    # -- any thread

    def start(self) -> None:
        """Joins the group; raises what the client refuses at once."""
        self._consumer = self._open()
        self._thread.start()

    def wake(self) -> None:
        self._wake.set()

    def call(self, command: Callable[[], T], timeout: float) -> T:
        """Runs `command` in the owner thread. Raises BrokerUnavailable after `timeout` seconds."""
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
        """Waits until the broker has every settlement so far. Raises BrokerUnavailable, SettleFailed."""
        future: Future[None] = Future()
        self._commands.append(lambda: self._flushes.append(future))
        self._wake.set()
        self._answer(future, timeout)

    def _answer(self, future: Future[T], timeout: float) -> T:
        try:
            return answer(future, timeout, self._thread)
        except TimeoutError:
            if self._stop or not self._thread.is_alive():
                raise self.failure or Closed(f"the consumer of {self._source} was closed meanwhile") from None
            raise BrokerUnavailable(f"{self._source}: not done within {timeout:g} s") from None

    def moved(self, batch: Batch, delivery: ShareDelivery, confirmed: bool) -> None:
        """The copy that `move` was asked for is confirmed, or failed."""
        self._moved.append((batch, delivery, confirmed))
        self._wake.set()

    def stop(self) -> None:
        self._stop = True
        self._wake.set()

    def join(self, timeout: float) -> bool:
        self._thread.join(timeout)
        return not self._thread.is_alive()

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
        return consumer

    def _close(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is None:
            return
        try:
            self._member.wait(consumer, self._opened + _JOINED_WITHIN)
            consumer.close()
        except Exception as error:
            log.info("close of %s: %s", self._source, error)

    def _run(self) -> None:
        try:
            while not self._stop and self.failure is None:
                self._step()
        except Exception as error:
            log.exception("the share consumer of %s failed", self._source)
            self._die(
                translate(error, f"share consumer of {self._source}")
                if isinstance(error, KafkaException)
                else MessagingError(f"share consumer of {self._source}: {error!r}")
            )
        finally:
            self._leave()

    def _step(self) -> None:
        while self._commands:
            self._commands.popleft()()
        if self.settled or self._moved:
            self._drain()
        if self._flushes and not self.copying:
            self._drain()  # the last copy may have been confirmed since
            self._flush_now()
        now = time.monotonic()
        if self._batch.open:
            self._tend(now)
        elif self._paused or self._room() <= 0:
            self._commit_async(now)
            self._rest(now)
        else:
            self._poll()

    def _poll(self) -> None:
        if self._consumer is None:
            self._consumer = self._open()
        try:
            records = self._consumer.poll(_POLL)
        except KafkaException as error:
            self._on_client_error(error.args[0])
            return
        self._polled = time.monotonic()
        self._unsent = False
        if not records:
            return
        batch = Batch()
        opened, settler, source = batch.open, self._settler, self._source
        fresh = []
        for record in records:
            problem = record.error()
            if problem is not None:
                self._on_client_error(problem)
                continue
            count = record.delivery_count() or 1
            place: Any = (record.partition(), record.offset())
            delivery = ShareDelivery(settler, source, record, batch, place, count)
            opened[place] = delivery
            if count >= self._last_chance:
                # The broker drops a record in silence after its delivery limit: it goes on as a copy, which has none.
                delivery.attempt -= 1
                batch.moving.add(place)
                batch.unheard.add(place)
                self._move(delivery, False)
            else:
                fresh.append(delivery)
        self._batch = batch
        self.held = len(batch.open)
        self._buffer.put(fresh)
        if self.hungry:
            self.progress.set()

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
        for delivery in batch.open.values():
            self._acknowledge(delivery, AcknowledgeType.RELEASE)
        log.warning(
            "%s: %d messages were held for over %g s and are delivered again", self._source, self.held, self._lock
        )
        batch.alive = False
        batch.open.clear()
        self.held = 0
        self._buffer.remove(lambda d: isinstance(d, KafkaDelivery) and not d.tracker.alive)

    def _drain(self) -> None:
        settled, batch = self.settled, self._batch
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
                self._acknowledge(delivery, AcknowledgeType.ACCEPT)
        moving, opened = batch.moving, batch.open
        for _ in range(len(settled)):
            delivery = settled.popleft()
            if delivery.place in moving or delivery.tracker is not batch:
                if delivery.batch is batch:
                    batch.done.add(delivery.place)
                self._settled_while_moving(delivery)
            elif opened.pop(delivery.place, None) is not None:
                self._acknowledge(delivery, AcknowledgeType.ACCEPT)
        self.held = len(batch.open)
        if self.hungry:
            self.progress.set()

    def _acknowledge(self, delivery: ShareDelivery, how: AcknowledgeType) -> None:
        if self._consumer is None:
            return
        try:
            self._consumer.acknowledge(delivery.native, how)
            self._unsent = True
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

    def _die(self, error: MessagingError) -> None:
        if self.failure is None:
            self.failure = error
            self._buffer.fail(error)

    def _leave(self) -> None:
        """Acknowledges what is settled, releases the rest, leaves. The client bounds each step by a few seconds."""
        try:
            self._stop = True
            while self._commands:
                self._commands.popleft()()
            deadline = time.monotonic() + 3.0
            while self.copying and self.failure is None and time.monotonic() < deadline:
                self._wake.wait(0.02)
                self._wake.clear()
            self._drain()
            if self.failure is None:
                self._flush_now()
            # Last, so that closing sends it: after a commit of its own a fetch could bring it back, one attempt on.
            for delivery in self._batch.open.values():
                self._acknowledge(delivery, AcknowledgeType.RELEASE)
            self._batch.alive = False
        except Exception as error:
            log.info("last settlements of %s: %s", self._source, error)
        for future in self._flushes:
            future.set_exception(BrokerUnavailable(f"{self._source}: the last settlements were not carried out"))
        self._close()

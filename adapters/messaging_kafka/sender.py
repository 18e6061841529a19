"""Publishing: an idempotent producer, one delivery report a message."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer
from msgspec import Struct

from messaging.delivery import Delivery
from messaging.driver import Done, Outgoing, Sender
from messaging.errors import BrokerUnavailable, Closed, MessagingError, PublishTimeout
from messaging.message import Message, PlainValue

from .admin import Admin
from .broker_watch import BrokerWatch
from .errors import publish_error, translate
from .options import KafkaOptions
from .records import TIMESTAMP, Headers, alive_again_headers, check_size, only_header, plain_headers, to_headers

log = logging.getLogger(__name__)

_LONGEST_MS = 2_147_483_647
"""What the client takes at most: 24 days."""
_STUCK_AFTER = 10.0
"""Seconds in which a partition that has a leader takes nothing: ten times what the client needs to connect again."""

_Record = tuple[bytes, str | None, int, Headers]
"""Body, key, milliseconds since the epoch, headers."""


_NO_TOPIC = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION)


class _Report(Struct, gc=False, eq=False):
    """Called by the client with what became of one message. The collector does not look at it: a hundred thousand
    may be in flight, and would cost it more than sending them.
    """

    done: Done
    index: int
    topic: str
    sender: KafkaSender

    def __call__(self, error: KafkaError | None, record: Any) -> None:
        if error is None:
            if self.sender.suspects:
                self.sender.suspects.pop((self.topic, record.partition()), None)
            self.done(self.index, None)
            return
        self.done(self.index, publish_error(error, self.topic))
        self.sender.on_failure(error, self.topic, record)


class KafkaSender(Sender):
    """One producer: acks=all, idempotent, keys placed as Java clients place them (murmur2).

    `send` and `close` from any thread. Every report is made by the poll thread, which `close` joins, so the calls of
    one `Done` never overlap. `_refused` holds what the client refused at once, for that thread to report; deques
    need no lock. `_lock` guards `_closed`. The rest is the poll thread's.

    The client has states in which it never sends to a partition again though that has a leader, after a broker came
    back (librdkafka #5430, and see BrokerWatch). Only another client helps: `_replace`.
    """

    def __init__(
        self,
        options: KafkaOptions,
        admin: Admin,
        timeout: float,
        on_close: Callable[[Any], None],
        **properties: Any,
    ) -> None:
        """properties: further ones of the client, with underscores for dots."""
        self._admin = admin
        self._timeout = timeout
        self._lookup = min(timeout, options.connect_timeout)
        self._on_close = on_close
        self._config = options.client(
            acks="all",
            enable_idempotence=True,
            partitioner="murmur2_random",
            linger_ms=2,
            message_timeout_ms=min(max(int(timeout * 1000), 10), _LONGEST_MS),
            # The limit is the topic's, checked before sending; this one only has to be above every topic's.
            message_max_bytes=100_000_000,
            batch_size=900_000,
            queue_buffering_max_messages=1_000_000,
            allow_auto_create_topics=False,
            topic_metadata_propagation_max_ms=5000,
            **properties,
        )
        try:
            self._producer = self._new_client()
        except KafkaException as error:
            raise translate(error, "kafka producer") from error
        self._replaced: Producer | None = None
        self._usable = threading.Event()
        self._usable.set()
        self.suspects: dict[tuple[str, int], float] = {}
        """Partitions with a leader where messages timed out, none arrived since, and since when."""
        self._timed_out: set[tuple[str, int]] = set()
        self._missed: set[str] = set()
        """Topics that were not there when something was published."""
        self._next_look = 0.0
        self._refused: deque[tuple[_Report, KafkaError]] = deque()
        self._lock = threading.Lock()
        self._closed = False
        self._drain_for = 0.0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="kafka-producer-poll", daemon=True)
        self._thread.start()

    def send(self, messages: Sequence[Message], outgoing: Outgoing, done: Done) -> None:
        self._check_open()
        topic = outgoing.destination.name
        if not self._knows(topic):
            try:
                self.prepare(topic)
            except MessagingError as error:
                for index in range(len(messages)):
                    done(index, error)
                return
            for message in messages:
                check_size(message, topic, self._admin.limit(topic))
        now = time.time()
        oldest = now - self._admin.keeps(topic)
        records: list[_Record] = []
        for message in messages:
            timestamp, headers = message.timestamp, to_headers(message)
            if outgoing.only is not None:
                headers.insert(0, only_header(outgoing.only))
            if timestamp < oldest:  # Kafka would delete it
                headers.append((TIMESTAMP, str(round(timestamp * 1000)).encode()))
                timestamp = now
            records.append((message.body, message.key, round(timestamp * 1000), headers))
        self._produce(topic, records, done)

    def send_values(self, values: Sequence[PlainValue], timestamp: float, outgoing: Outgoing, done: Done) -> None:
        topic = outgoing.destination.name
        if not self._knows(topic) or outgoing.only or timestamp < time.time() - self._admin.keeps(topic):
            super().send_values(values, timestamp, outgoing, done)
            return
        self._check_open()
        milliseconds = round(timestamp * 1000)
        self._produce(topic, [(body, None, milliseconds, plain_headers(id, t)) for body, id, t in values], done)

    def _knows(self, topic: str) -> bool:
        # What another producer has learned of a topic that was made again, this one's client has not.
        return self._admin.knows(topic) and topic not in self._missed

    def _check_open(self) -> None:
        if self._closed:
            raise Closed("the Kafka producer is closed")

    def _produce(self, topic: str, records: Iterable[_Record], done: Done) -> None:
        if not self._usable.is_set():
            self._usable.wait(self._timeout)
        produce = self._producer.produce
        for index, (body, key, milliseconds, headers) in enumerate(records):
            report = _Report(done, index, topic, self)
            try:
                produce(topic, body, key, -1, report, None, milliseconds, headers)
            except BufferError:
                again = partial(produce, topic, body, key, -1, report, None, milliseconds, headers)
                with self.waits.during("buffer", "the Kafka client's queue is full"):
                    self._produce_when_there_is_room(again, report)
            except KafkaException as error:
                self._refused.append((report, error.args[0]))

    def copy(
        self, record: Any, headers: Headers, topic: str, partition: int | None, done: Done, index: int = 0
    ) -> None:
        """Publishes a record's key and value once more, with `headers`. `prepare(topic)` first. Threads: as `send`."""
        report = _Report(done, index, topic, self)
        if self._closed:
            done(index, Closed("the Kafka producer is closed"))
            return
        try:
            self._producer.produce(
                topic,
                record.value(),
                record.key(),
                partition=-1 if partition is None else partition,
                on_delivery=report,
                headers=headers,
            )
        except BufferError:
            self._refused.append((report, KafkaError(KafkaError._QUEUE_FULL)))
        except KafkaException as error:
            self._refused.append((report, error.args[0]))

    def send_again(self, letters: Sequence[Delivery], outgoing: Outgoing, done: Done) -> None:
        topic = outgoing.destination.name
        self.prepare(topic)
        for index, letter in enumerate(letters):
            headers = alive_again_headers(letter.native)
            if outgoing.only is not None:
                headers.insert(0, only_header(outgoing.only))
            self.copy(letter.native, headers, topic, None, done, index)

    def prepare(self, topic: str) -> None:
        """Checks that `topic` is there, and remembers it.

        Raises DestinationNotFound, AuthenticationFailed, PublishTimeout when no broker answers.
        """
        try:
            self._admin.learn(topic, self._lookup)
            if topic in self._missed:
                self._learn_again(topic)
        except BrokerUnavailable as error:
            raise PublishTimeout(f"publish to {topic!r}: nothing was sent: {error}") from error

    def _learn_again(self, topic: str) -> None:
        """Tells the client, which remembers for a while that there was no such topic, of the one made since."""
        try:
            found = self._producer.list_topics(topic, timeout=self._lookup).topics[topic]
        except KafkaException as error:
            raise translate(error, f"publish to {topic!r}") from error
        if found.error is None:
            self._missed.discard(topic)

    def _produce_when_there_is_room(self, record: Callable[[], None], report: _Report) -> None:
        # The client's own buffer is full: the one place where a publish waits (see Sender.send).
        deadline = time.monotonic() + self._timeout
        while not self._stopped.wait(0.005):
            try:
                record()
                return
            except BufferError:
                if time.monotonic() >= deadline:
                    break
            except KafkaException as error:
                self._refused.append((report, error.args[0]))
                return
        self._refused.append((report, KafkaError(KafkaError._MSG_TIMED_OUT)))

    # -- poll thread

    def on_failure(self, error: KafkaError, topic: str, record: Any) -> None:
        """A message was not stored. `record` is None when the client did not take it."""
        code = error.code()
        if code in _NO_TOPIC:
            self._missed.add(topic)
            self._admin.forget(topic)
        elif code == KafkaError._MSG_TIMED_OUT and record is not None:
            partition = record.partition()
            if partition is not None and partition >= 0:  # it had got one
                self._timed_out.add((topic, partition))

    def _poll(self) -> None:
        while not self._stopped.is_set():
            self._guarded(self._producer.poll, 0.1)
            if self._replaced is not None:
                self._guarded(self._replaced.poll, 0)
            self._report_refused()
            self._look_for_stuck()
        if self._guarded(self._producer.flush, self._drain_for):
            self._guarded(partial(self._producer.purge, in_queue=True, in_flight=True, blocking=True))
            self._guarded(self._producer.flush, 1.0)
        self._report_refused()

    def _new_client(self) -> Producer:
        self._watch = BrokerWatch()  # another for each: the one before is polled too
        return Producer(self._config | self._watch.config)

    def _look_for_stuck(self) -> None:
        if self._watch.is_lost:
            self._replace("the Kafka client knows no broker any more")
            return
        if not self._timed_out:
            return
        now = time.monotonic()
        timed_out, self._timed_out = self._timed_out, set()
        if any(now - self.suspects.get(place, now) >= _STUCK_AFTER for place in timed_out):
            self._replace(f"messages to {timed_out} are not sent though there is a leader")
            return
        if now < self._next_look:
            return
        self._next_look = now + 1.0
        for topic, partition in timed_out:
            if (topic, partition) not in self.suspects and partition in self._with_leader(topic):
                self.suspects[topic, partition] = now

    def _with_leader(self, topic: str) -> set[int]:
        """Partitions that have a leader: asked of another client, since this one may be what is wrong."""
        try:
            return self._admin.with_leader(topic, 3.0)
        except MessagingError:
            return set()

    def _replace(self, why: str) -> None:
        """Goes on with a new client. What the old one has not sent fails, so that nothing new gets before it."""
        log.warning("%s: the Kafka producer is replaced", why)
        self._usable.clear()
        try:
            old = self._producer
            self._guarded(partial(old.purge, in_queue=True, in_flight=False, blocking=True))
            if self._guarded(old.flush, 5.0):
                self._guarded(partial(old.purge, in_queue=True, in_flight=True, blocking=True))
                self._guarded(old.flush, 1.0)
            self._producer = self._new_client()
            self._replaced = old  # a `send` that began before may still use it
            self.suspects.clear()
            self._timed_out.clear()
        except KafkaException as error:
            log.warning("the Kafka producer could not be replaced: %s", error)
        finally:
            self._usable.set()

    def _report_refused(self) -> None:
        while self._refused:
            report, error = self._refused.popleft()
            self._guarded(report, error, None)

    def _guarded(self, call: Callable[..., Any], *args: Any) -> Any:
        try:
            return call(*args)
        except Exception:  # a callback of the caller's: one bad report must not stop the others
            log.exception("a delivery report failed")
            return 1

    def close(self, timeout: float) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._drain_for = max(timeout, 0.0)
        self._stopped.set()
        self._thread.join(self._drain_for + 5.0)
        self._on_close(self)

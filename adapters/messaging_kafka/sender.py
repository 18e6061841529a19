"""Publishing: an idempotent producer, one delivery report a message."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from messaging.driver import Done, Outgoing, Sender
from messaging.errors import BrokerUnavailable, Closed, MessagingError, PublishTimeout
from messaging.message import Message

from .admin import Admin
from .errors import publish_error, translate
from .options import KafkaOptions
from .records import TIMESTAMP, Headers, check_size, to_headers

log = logging.getLogger(__name__)

_LONGEST_MS = 2_147_483_647
"""What the client takes at most: 24 days."""

Report = Callable[[KafkaError | None, Any], None]


class KafkaSender(Sender):
    """One producer: acks=all, idempotent, keys placed as Java clients place them (murmur2).

    `send` and `close` from any thread. Every report is made by the poll thread, which `close` joins, so the calls of
    one `Done` never overlap. `_refused` holds what the client refused at once, for that thread to report; deques
    need no lock. `_lock` guards `_closed`.
    """

    def __init__(self, options: KafkaOptions, admin: Admin, timeout: float, on_close: Callable[[Any], None]) -> None:
        self._admin = admin
        self._timeout = timeout
        self._lookup = min(timeout, options.connect_timeout)
        self._on_close = on_close
        try:
            self._producer = Producer(
                options.client(
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
                )
            )
        except KafkaException as error:
            raise translate(error, "kafka producer") from error
        self._refused: deque[tuple[Report, KafkaError]] = deque()
        self._lock = threading.Lock()
        self._closed = False
        self._drain_for = 0.0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="kafka-producer-poll", daemon=True)
        self._thread.start()

    def send(self, messages: Sequence[Message], outgoing: Outgoing, done: Done) -> None:
        if self._closed:
            raise Closed("the Kafka producer is closed")
        topic = outgoing.destination.name
        if not self._admin.knows(topic):
            try:
                self.prepare(topic)
            except MessagingError as error:
                for index in range(len(messages)):
                    done(index, error)
                return
            for message in messages:
                check_size(message, topic, self._admin.limit(topic))
        produce, finished = self._producer.produce, self._finished
        now = time.time()
        oldest = now - self._admin.keeps(topic)
        last, milliseconds = -1.0, 0
        for index, message in enumerate(messages):
            report = partial(finished, done, index, topic)
            timestamp, headers = message.timestamp, to_headers(message)
            if timestamp < oldest:  # Kafka would delete it
                headers.append((TIMESTAMP, str(round(timestamp * 1000)).encode()))
                timestamp = now
            if timestamp != last:
                last, milliseconds = timestamp, round(timestamp * 1000)
            try:
                produce(topic, message.body, message.key, -1, report, None, milliseconds, headers)
            except BufferError:
                record = partial(produce, topic, message.body, message.key, -1, report, None, milliseconds, headers)
                self._produce_when_there_is_room(record, report)
            except KafkaException as error:
                self._refused.append((report, error.args[0]))

    def copy(self, record: Any, headers: Headers, topic: str, partition: int | None, done: Done) -> None:
        """Publishes a record's key and value once more, with `headers`. `prepare(topic)` first. Threads: as `send`."""
        report = partial(self._finished, done, 0, topic)
        if self._closed:
            done(0, Closed("the Kafka producer is closed"))
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

    def prepare(self, topic: str) -> None:
        """Checks that `topic` is there, and remembers it.

        Raises DestinationNotFound, AuthenticationFailed, PublishTimeout when no broker answers.
        """
        try:
            self._admin.learn(topic, self._lookup)
        except BrokerUnavailable as error:
            raise PublishTimeout(f"publish to {topic!r}: nothing was sent: {error}") from error

    def _finished(self, done: Done, index: int, topic: str, error: KafkaError | None, _record: Any) -> None:
        if error is None:
            done(index, None)
            return
        if error.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC):
            self._admin.forget(topic)
        done(index, publish_error(error, topic))

    def _produce_when_there_is_room(self, record: Callable[[], None], report: Report) -> None:
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

    def _poll(self) -> None:
        while not self._stopped.is_set():
            self._guarded(self._producer.poll, 0.1)
            self._report_refused()
        if self._guarded(self._producer.flush, self._drain_for):
            self._guarded(partial(self._producer.purge, in_queue=True, in_flight=True, blocking=True))
            self._guarded(self._producer.flush, 1.0)
        self._report_refused()

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

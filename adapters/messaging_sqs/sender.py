"""Publishing in batches of 10 from several threads."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from threading import Condition, Lock, Thread
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from messaging.driver import Done, Outgoing, Sender
from messaging.errors import (
    BrokerUnavailable,
    Closed,
    DestinationNotFound,
    InvalidMessage,
    MessageTooLarge,
    MessagingError,
    PublishFailed,
    PublishTimeout,
    UnsupportedCapability,
)
from messaging.message import Message
from messaging.options import ProducerOptions
from messaging.topology import Destination, Topic
from messaging_sqs.batch import Outcomes, call_batch, publish_failure
from messaging_sqs.encoding import Encoded, carries, encode
from messaging_sqs.errors import Throttled, whole_seconds
from messaging_sqs.lanes import Lane, Pending, Report
from messaging_sqs.naming import group_id
from messaging_sqs.options import MAX_DELAY, SNS_MESSAGE_BYTES

if TYPE_CHECKING:
    from messaging_sqs.driver import SQSDriver

_FIRST_BACKOFF = 0.05
_LONGEST_BACKOFF = 1.0

Reports = list[tuple[Pending, MessagingError | None]]


class SQSSender(Sender):
    """Sender threads take what waits, up to 10 at a time: one message when idle, full batches under load.

    `_lock` guards the lanes, the deadlines, `_unfinished` and every `Pending.finished`. Threads, joined by `close`:
    the senders (they wait for `_work`), and one that reports what is not confirmed at its deadline, whatever the
    senders are stuck in (it waits for `_late`). `close` waits for `_idle`.
    """

    def __init__(self, driver: SQSDriver, options: ProducerOptions) -> None:
        self._driver = driver
        self._timeout = options.timeout
        self._lock = Lock()
        self._work = Condition(self._lock)
        self._late = Condition(self._lock)
        self._idle = Condition(self._lock)
        self._lanes: dict[tuple[str, bool, bool], Lane] = {}
        self._active: deque[Lane] = deque()
        self._deadlines: deque[tuple[float, list[Pending]]] = deque()
        self._unfinished = 0
        self._closing = False
        self._stopped = False
        self._threads = [
            Thread(target=self._run, name=f"messaging-sqs-sender-{n}", daemon=True)
            for n in range(driver.options.senders)
        ]
        self._watch = Thread(target=self._expire, name="messaging-sqs-deadlines", daemon=True)
        for thread in (*self._threads, self._watch):
            thread.start()

    def send(self, messages: Sequence[Message], outgoing: Outgoing, done: Done) -> None:
        destination = outgoing.destination if outgoing.only is None else outgoing.only.queue
        delay = check_outgoing(outgoing)
        report = Report(destination.name, done)
        pending = [self._pending(message, destination, delay, report, i) for i, message in enumerate(messages)]
        if not pending:
            return
        with self._lock:
            if self._closing:
                raise Closed(f"publish to {destination.name!r}: the producer is closed; nothing was sent")
            lane = self._lane(destination)
            lane.put(pending)
            self._unfinished += len(pending)
            self._forget_finished()
            self._deadlines.append((time.monotonic() + self._timeout, pending))
            self._activate(lane, (len(pending) + 9) // 10)
            if len(self._deadlines) == 1:
                self._late.notify()

    def close(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        with self._lock:
            self._closing = True
            self._idle.wait_for(lambda: not self._unfinished, max(timeout, 0))
            left = [m for _, pending in self._deadlines for m in pending]
            self._deadlines.clear()
            self._stopped = True
            self._work.notify_all()
            self._late.notify_all()
            reports = self._finish([(m, self._timed_out(m, "the producer was closed")) for m in left if not m.finished])
        _tell(reports)
        for thread in (*self._threads, self._watch):
            # A thread can be inside a call that nobody answers; it ends with that call's own timeout.
            thread.join(max(deadline - time.monotonic(), 0.5))
        self._driver.forget(self)

    def _pending(self, message: Message, destination: Destination, delay: int, report: Report, index: int) -> Pending:
        encoded = encode_for(message, destination, self._driver.options.max_message_bytes)
        topic = isinstance(destination, Topic)
        fields = entry(message, encoded, destination.ordered, topic)
        if delay:
            fields["DelaySeconds"] = delay
        return Pending(fields, encoded.size, fields.get("MessageGroupId"), report, index)

    def _lane(self, destination: Destination) -> Lane:
        topic = isinstance(destination, Topic)
        key = (destination.name, topic, destination.ordered)
        lane = self._lanes.get(key)
        if lane is None:
            name = self._driver.aws_name(destination.name, destination.ordered)
            limit = size_limit(destination, self._driver.options.max_message_bytes)
            lane = self._lanes[key] = Lane(destination.name, name, topic, destination.ordered, limit)
        return lane

    def _activate(self, lane: Lane, threads: int) -> None:
        if lane.ready and not lane.queued:
            lane.queued = True
            self._active.append(lane)
        self._work.notify(threads)

    def _run(self) -> None:
        while (work := self._next()) is not None:
            lane, batch = work
            try:
                outcomes = self._transmit(lane, batch) if batch else []
            except Exception as error:
                failed = PublishFailed(f"publish to {lane.name!r}: {error!r}")
                failed.__cause__ = error
                outcomes = [failed] * len(batch)
            self._settle(lane, batch, outcomes)

    def _next(self) -> tuple[Lane, list[Pending]] | None:
        """Waits for a batch, which is empty when all that was throttled is over. None when the sender has stopped."""
        with self._lock:
            while not self._stopped:
                now = time.monotonic()
                earliest: float | None = None
                for _ in range(len(self._active)):
                    lane = self._active.popleft()
                    if lane.resume_at > now:
                        earliest = min(earliest or lane.resume_at, lane.resume_at)
                        self._active.append(lane)
                        continue
                    batch = lane.take()
                    if lane.ready:
                        self._active.append(lane)
                    else:
                        lane.queued = False
                    if batch or lane.throttled:
                        return lane, batch
                self._work.wait(None if earliest is None else earliest - now)
            return None

    def _transmit(self, lane: Lane, batch: list[Pending]) -> Outcomes:
        doing = f"publish to {lane.name!r}"
        directory = self._driver.directory
        sns: Any = self._driver.clients.sns
        sqs: Any = self._driver.clients.sqs
        call: Callable[[list[dict[str, Any]]], Any]
        try:
            if lane.topic:
                arn = directory.topic_arn(lane.aws_name)
                call = lambda entries: sns.publish_batch(TopicArn=arn, PublishBatchRequestEntries=entries)  # noqa: E731
            else:
                url = directory.queue_url(lane.aws_name)
                call = lambda entries: sqs.send_message_batch(QueueUrl=url, Entries=entries)  # noqa: E731
        except MessagingError as error:
            return [error] * len(batch)
        outcomes = call_batch(call, [message.fields for message in batch], doing, publish_failure)
        if any(isinstance(outcome, DestinationNotFound) for outcome in outcomes):
            directory.forget(lane.aws_name)
        return outcomes

    def _settle(self, lane: Lane, batch: list[Pending], outcomes: Outcomes) -> None:
        again: list[Pending] = []
        reports: Reports = []
        overtaken: set[str | None] = set()
        for message, outcome in zip(reversed(batch), reversed(outcomes), strict=True):
            if not isinstance(outcome, BrokerUnavailable):
                if outcome is None:
                    overtaken.add(message.group)
                reports.append((message, outcome))
            elif lane.ordered and message.group in overtaken:
                # A later message of its key is stored already: sending it again would break the order.
                reports.append((message, _not_stored(lane.name, outcome)))
            else:
                message.error = outcome
                again.append(message)
        again.reverse()
        reports.reverse()
        throttled = any(isinstance(outcome, Throttled) for outcome in outcomes)
        with self._lock:
            changed = lane.throttled != throttled
            if changed:
                lane.throttled = throttled
                self.waits.note("throttled", throttled, f"AWS takes no more for {lane.name!r} just now")
            if again:
                lane.failures += 1
                pause = min(_FIRST_BACKOFF * 2 ** min(lane.failures - 1, 10), _LONGEST_BACKOFF)
                lane.resume_at = time.monotonic() + pause * random.uniform(0.5, 1.0)
            else:
                lane.failures = 0
                lane.resume_at = 0.0
            lane.give_back(batch, [m for m in again if not m.finished])
            self._activate(lane, 1)
            reports = self._finish(reports)
        if changed:
            self.waits.tell()
        _tell(reports)

    def _finish(self, reports: Reports) -> Reports:
        """Marks what is over, under the lock; returns those that were not over before, to be told outside of it."""
        fresh = [(message, error) for message, error in reports if not message.finished]
        for message, _ in fresh:
            message.finished = True
            message.fields = {}
        self._unfinished -= len(fresh)
        if not self._unfinished:
            self._idle.notify_all()
        return fresh

    def _expire(self) -> None:
        while True:
            with self._lock:
                self._forget_finished()
                if self._stopped:
                    return
                now = time.monotonic()
                if not self._deadlines or self._deadlines[0][0] > now:
                    self._late.wait(self._deadlines[0][0] - now if self._deadlines else None)
                    continue
                why = f"no confirmation within {self._timeout:g} s"
                late = self._finish(
                    [(m, self._timed_out(m, why)) for m in self._deadlines.popleft()[1] if not m.finished]
                )
            _tell(late)

    def _forget_finished(self) -> None:
        """Lets go of what is over. Deadlines are in order, since every message has the same time."""
        while self._deadlines and self._deadlines[0][1][-1].finished and all(m.finished for m in self._deadlines[0][1]):
            self._deadlines.popleft()

    def _timed_out(self, message: Pending, why: str) -> PublishTimeout:
        last = f"; last error: {message.error}" if message.error else ""
        error = PublishTimeout(f"publish to {message.report.name!r}: {why}; the message may or may not be stored{last}")
        error.__cause__ = message.error
        return error


def check_outgoing(outgoing: Outgoing) -> int:
    """The delay in whole seconds. Raises UnsupportedCapability."""
    destination = outgoing.destination
    if outgoing.mandatory and isinstance(destination, Topic):
        raise UnsupportedCapability(
            f"publish to {destination.name!r}: SNS does not tell whether a subscription took it"
        )
    if not outgoing.delay:
        return 0
    if isinstance(destination, Topic):
        raise UnsupportedCapability(f"publish to {destination.name!r}: SNS has no delay; delay on a queue instead")
    if destination.ordered:
        raise UnsupportedCapability(
            f"publish to {destination.name!r}: a FIFO queue has no delay of single messages; use an unordered queue"
        )
    delay = whole_seconds(outgoing.delay)
    if delay > MAX_DELAY:
        raise UnsupportedCapability(
            f"publish to {destination.name!r}: SQS delays by at most {MAX_DELAY} s, not {outgoing.delay:g}"
        )
    return delay


def size_limit(destination: Destination, most: int) -> int:
    """Bytes that one message, and one batch, of `destination` may have."""
    return min(most, SNS_MESSAGE_BYTES) if isinstance(destination, Topic) else most


def encode_for(message: Message, destination: Destination, most: int) -> Encoded:
    """Encodes and checks. Raises MessageTooLarge, InvalidMessage."""
    if destination.ordered and not message.key:
        raise InvalidMessage(f"publish to {destination.name!r}: it is ordered, so each message needs a key")
    if isinstance(destination, Topic) and message.type and not carries(message.type):
        raise InvalidMessage(
            f"publish to {destination.name!r}: type {message.type!r} holds a character that SNS cannot carry or "
            f"filter on; nothing was sent"
        )
    encoded = encode(message)
    limit = size_limit(destination, most)
    if encoded.size > limit:
        kind = "SNS" if isinstance(destination, Topic) else "SQS"
        raise MessageTooLarge(
            f"publish to {destination.name!r}: body and attributes are {encoded.size} bytes as {kind} counts them, the "
            f"limit is {limit}; nothing was sent: split it, or send a reference to where it is stored"
        )
    return encoded


def entry(message: Message, encoded: Encoded, ordered: bool, topic: bool = False) -> dict[str, Any]:
    """The entry of a SendMessageBatch, or of a PublishBatch for a topic.

    Sent again, also after an unknown outcome, it is stored once (FIFO). Another entry of the same message is stored
    again, as on every broker: a redrive that AWS drops as a duplicate of the first publish would be a lost message.
    """
    fields: dict[str, Any] = {
        "Message" if topic else "MessageBody": encoded.body,
        "MessageAttributes": encoded.attributes,
    }
    if ordered:
        fields["MessageGroupId"] = group_id(message.key or "")
        fields["MessageDeduplicationId"] = uuid4().hex
    return fields


def _tell(reports: Reports) -> None:
    for message, error in reports:
        message.report(message.index, error)


def _not_stored(name: str, error: MessagingError) -> PublishFailed:
    failed = PublishFailed(
        f"{error}; not stored, and not sent again because a later message of its key is stored in {name!r} already"
    )
    failed.__cause__ = error
    return failed

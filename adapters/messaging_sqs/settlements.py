"""Carries out acks, nacks and rejects, in batches of 10, on threads of their own."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from threading import Condition, Thread
from typing import TYPE_CHECKING, Any

from messaging.dead_letter import dead_letter_copy, shorter_copies
from messaging.errors import BrokerUnavailable, LeaseLost, MessageTooLarge, MessagingError, SettleFailed
from messaging.message import Message
from messaging.rejection import Rejection
from messaging.topology import Queue, Source
from messaging_sqs.batch import BATCH, Outcomes, call_batch, publish_failure, settle_error
from messaging_sqs.errors import lease_lost, whole_seconds
from messaging_sqs.leases import Lease, Leases, SQSDelivery
from messaging_sqs.sender import encode_for, entry

if TYPE_CHECKING:
    from messaging_sqs.driver import SQSDriver

_log = logging.getLogger("messaging.sqs")

_LINGER = 0.01
"""Seconds that an ack waits for nine others. Nobody waits for it but `flush` and `close`, which end the wait."""

_BACKOFF = (0.1, 0.2, 0.5, 1.0)
_PATIENCE = 120.0
"""Seconds an ack is tried for, also past its lease: it still works as long as nobody else got the message."""


class Settlement:
    """One thing to carry out. `due`: for a release, when the message may be seen again, on the monotonic clock."""

    __slots__ = ("delivery", "due", "fields", "lease", "retry_at", "since", "tries", "why")

    def __init__(
        self, lease: Lease, due: float = 0.0, delivery: SQSDelivery | None = None, why: Rejection | None = None
    ) -> None:
        self.lease = lease
        self.due = due
        self.delivery = delivery
        self.why = why or Rejection()
        self.fields: dict[str, Any] | None = None
        self.since = time.monotonic()
        self.tries = 0
        self.retry_at = 0.0


Work = tuple[Callable[[list[Settlement]], Outcomes], list[Settlement]]


class Settlements:
    """The queues of settlements and their threads, which `close` joins.

    Guarded by `leases.lock`. `work` wakes the threads, `idle` wakes who waits for everything to be carried out.
    `failed` is called under the lock with what the consumer must be told: before `flush` can return as if all was well.
    """

    def __init__(
        self, driver: SQSDriver, source: Source, url: str, leases: Leases, failed: Callable[[MessagingError], None]
    ) -> None:
        self._driver = driver
        self._source = source
        self._url = url
        self._leases = leases
        self._lock = leases.lock
        self._work = Condition(self._lock)
        self._idle = Condition(self._lock)
        self._failed = failed
        self._deletes: deque[Settlement] = deque()
        self._releases: deque[Settlement] = deque()
        self._rejects: deque[Settlement] = deque()
        self._later: list[Settlement] = []
        self._rejecting: dict[str, Settlement] = {}
        """By FIFO group: whose copy is on its way or tried again later. Those behind it wait, and keep their order."""
        self._pending = 0
        self._urgent = 0
        self._ending = False
        self._end_at = float("inf")
        self._threads = [
            Thread(target=self._run, name=f"messaging-sqs-settle-{n}", daemon=True)
            for n in range(driver.options.receivers)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def pending(self) -> int:
        """Settlements not yet carried out."""
        return self._pending

    # The four below are called under the lock.

    def delete(self, leases: Sequence[Lease]) -> None:
        """Ack."""
        before = len(self._deletes)
        self._deletes.extend(map(Settlement, leases))
        self._pending += len(leases)
        if not before or before // BATCH != len(self._deletes) // BATCH:
            self._work.notify()

    def release(self, lease: Lease, delay: float) -> None:
        """Nack. Waits for a call that extends the lease, so that the extension never comes last."""
        self._pending += 1
        settlement = Settlement(lease, due=time.monotonic() + delay)
        if lease.extending:
            lease.after = lambda: self._release(settlement)
        else:
            self._release(settlement)

    def lose(self, lease: Lease) -> None:
        """The lease is gone. Gives back what is held of its group, which would overtake it."""
        for other in self._leases.lose(lease):
            self.release(other, 0.0)

    def reject(self, delivery: SQSDelivery, why: Rejection) -> None:
        """Copy to the dead-letter queue, then delete."""
        self._pending += 1
        self._rejects.append(Settlement(delivery.lease, delivery=delivery, why=why))
        self._work.notify()

    def flush(self, timeout: float) -> bool:
        """Waits until all of it is carried out. False at the deadline. Not under the lock."""
        with self._lock:
            self._urgent += 1
            self._work.notify_all()
            try:
                return self._idle.wait_for(lambda: not self._pending, timeout)
            finally:
                self._urgent -= 1

    def end(self) -> None:
        """Nothing more comes; the threads stop when all is carried out. Not under the lock."""
        with self._lock:
            self._ending = True
            self._work.notify_all()

    def hurry(self, deadline: float) -> None:
        """The receiver is closing: do not wait for full batches, do not try again after `deadline`."""
        with self._lock:
            self._urgent += 1
            self._end_at = deadline
            self._work.notify_all()

    def join(self, deadline: float) -> None:
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0.0))

    def _release(self, settlement: Settlement) -> None:
        self._releases.append(settlement)
        self._work.notify()

    def _run(self) -> None:
        while (work := self._next()) is not None:
            carry_out, batch = work
            try:
                outcomes = carry_out(batch)
            except Exception as error:
                failure = settle_error(BrokerUnavailable(f"settle on {self._source}: {error!r}"))
                failure.__cause__ = error
                outcomes = [failure] * len(batch)
            self._finish(batch, outcomes)

    def _next(self) -> Work | None:
        with self._lock:
            while True:
                now = time.monotonic()
                wait = self._retry(now)
                if self._releases:
                    return self._change_visibility, self._take(self._releases)
                if self._rejects and (rejects := self._take_rejects()):
                    return self._dead_letter, rejects
                if self._deletes:
                    linger = self._deletes[0].since + _LINGER - now
                    if linger <= 0 or self._urgent or len(self._deletes) >= BATCH:
                        return self._delete, self._take(self._deletes)
                    wait = min(wait, linger)
                if self._ending and not self._pending:
                    self._work.notify_all()
                    return None
                self._work.wait(None if wait == float("inf") else wait)

    def _take(self, queue: deque[Settlement]) -> list[Settlement]:
        batch = [queue.popleft() for _ in range(min(BATCH, len(queue)))]
        if queue:
            self._work.notify()
        return batch

    def _take_rejects(self) -> list[Settlement]:
        """One of each FIFO group: a second one could come first, in another call or when the first is sent again."""
        batch: list[Settlement] = []
        behind: deque[Settlement] = deque()
        while self._rejects and len(batch) < BATCH:
            settlement = self._rejects.popleft()
            group = settlement.lease.group
            free = group is None or self._rejecting.setdefault(group, settlement) is settlement
            (batch if free else behind).append(settlement)
        if batch and self._rejects:
            self._work.notify()
        self._rejects = behind + self._rejects
        return batch

    def _rejected(self, settlement: Settlement) -> None:
        """The next of its FIFO group may go."""
        group = settlement.lease.group
        if group is not None and self._rejecting.get(group) is settlement:
            del self._rejecting[group]
            self._work.notify()

    def _retry(self, now: float) -> float:
        """Puts what is to be tried again back in its queue; returns the seconds until the next."""
        if not self._later:
            return float("inf")
        due = [s for s in self._later if s.retry_at <= now]
        self._later = [s for s in self._later if s.retry_at > now]
        for settlement in due:
            self._queue_of(settlement).append(settlement)
        return min((s.retry_at for s in self._later), default=float("inf")) - now

    def _queue_of(self, settlement: Settlement) -> deque[Settlement]:
        if settlement.delivery is not None:
            return self._rejects
        return self._releases if settlement.due else self._deletes

    def _finish(self, batch: list[Settlement], outcomes: Outcomes) -> None:
        with self._lock:
            now = time.monotonic()
            for settlement, outcome in zip(batch, outcomes, strict=True):
                if outcome is None:
                    if settlement.delivery is not None:
                        # The copy is safe: what is left of a reject is an ack.
                        self._rejected(settlement)
                        settlement.delivery = None
                        settlement.due = 0.0
                        settlement.tries = 0
                        settlement.since = now - _LINGER
                        self._deletes.append(settlement)
                        self._work.notify()
                        continue
                elif isinstance(outcome, BrokerUnavailable) and now < self._give_up_at(settlement):
                    settlement.retry_at = now + _BACKOFF[min(settlement.tries, len(_BACKOFF) - 1)]
                    settlement.tries += 1
                    self._later.append(settlement)
                    self._work.notify()
                    continue
                elif not settlement.due or settlement.due > now:
                    # A message whose release for now failed with its lease comes again anyway.
                    self._failed(settle_error(outcome))
                self._rejected(settlement)
                self._pending -= 1
            if not self._pending:
                self._idle.notify_all()
                if self._ending:
                    self._work.notify_all()

    def _give_up_at(self, settlement: Settlement) -> float:
        lease = settlement.lease
        if settlement.delivery is not None or settlement.due:
            return min(lease.deadline, self._end_at)
        return min(max(lease.deadline, settlement.since + _PATIENCE), self._end_at)

    def _delete(self, batch: list[Settlement]) -> Outcomes:
        entries = [{"ReceiptHandle": s.lease.receipt} for s in batch]
        sqs: Any = self._driver.clients.sqs
        return call_batch(
            lambda es: sqs.delete_message_batch(QueueUrl=self._url, Entries=es),
            entries,
            f"ack on {self._source}",
            lease_lost,
        )

    def _change_visibility(self, batch: list[Settlement]) -> Outcomes:
        now = time.monotonic()
        entries = [{"ReceiptHandle": s.lease.receipt, "VisibilityTimeout": whole_seconds(s.due - now)} for s in batch]
        return self._driver.change_visibility(self._url, entries, f"nack on {self._source}")

    def _dead_letter(self, batch: list[Settlement]) -> Outcomes:
        queue = self._source.dead_letter
        if queue is None:
            for settlement in batch:
                _log.warning(
                    "%s has no dead-letter queue: message %s is discarded: %s",
                    self._source, settlement.delivery and settlement.delivery.id, settlement.why.reason,
                )  # fmt: skip
            return [None] * len(batch)
        doing = f"reject to {queue.name!r}"
        outcomes: Outcomes = [None] * len(batch)
        now = time.monotonic()
        for index, settlement in enumerate(batch):
            if settlement.lease.deadline <= now:
                outcomes[index] = LeaseLost(f"{doing}: the lease ran out; the message is delivered again")
            elif settlement.fields is None:
                try:
                    settlement.fields = self._copy(settlement, queue)
                except MessagingError as error:
                    outcomes[index] = SettleFailed(f"{doing}: {error}")
        send = [index for index, outcome in enumerate(outcomes) if outcome is None]
        for chunk in _fitting(batch, send, self._driver.options.max_message_bytes):
            for index, outcome in zip(chunk, self._send([batch[i] for i in chunk], queue, doing), strict=True):
                outcomes[index] = outcome
        return outcomes

    def _send(self, batch: list[Settlement], queue: Queue, doing: str) -> Outcomes:
        try:
            url = self._driver.directory.queue_url(self._driver.aws_name(queue.name, queue.ordered))
        except MessagingError as error:
            return [error] * len(batch)
        sqs: Any = self._driver.clients.sqs
        entries = [s.fields for s in batch if s.fields is not None]
        return call_batch(lambda es: sqs.send_message_batch(QueueUrl=url, Entries=es), entries, doing, publish_failure)

    def _copy(self, settlement: Settlement, queue: Queue) -> dict[str, Any]:
        delivery, why = settlement.delivery, settlement.why
        assert delivery is not None
        limit = self._driver.options.max_message_bytes
        message: Message = dead_letter_copy(delivery, why)
        if queue.ordered and not message.key:
            message.key = delivery.id
        try:
            return entry(message, encode_for(message, queue, limit), queue.ordered)
        except MessageTooLarge as error:
            too_large = error
        for shorter in shorter_copies(message):
            try:
                encoded = encode_for(shorter, queue, limit)
            except MessageTooLarge:
                continue
            left_out = ", ".join(sorted(message.headers.keys() - shorter.headers.keys()))
            _log.warning(
                "%s: message %s is dead-lettered without %s for lack of room: %s",
                queue.name,
                delivery.id,
                left_out,
                why.reason,
            )
            return entry(shorter, encoded, queue.ordered)
        raise too_large


def _fitting(batch: list[Settlement], indexes: list[int], most: int) -> list[list[int]]:
    """Splits `indexes` so that each part fits one call."""
    chunks: list[list[int]] = []
    room = 0
    for index in indexes:
        fields = batch[index].fields or {}
        size = _size(fields)
        if not chunks or size > room:
            chunks.append([])
            room = most
        chunks[-1].append(index)
        room -= size
    return chunks


def _size(fields: dict[str, Any]) -> int:
    attributes = fields.get("MessageAttributes", {})
    texts = [fields.get("MessageBody", ""), *attributes, *(a["StringValue"] for a in attributes.values())]
    return sum(len(text.encode()) for text in texts) + 6 * len(attributes)

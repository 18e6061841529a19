"""Receiving: long-poll threads fill a buffer, a heartbeat keeps what is held, settlements go out in batches."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from threading import Thread
from typing import TYPE_CHECKING, Any

from messaging.buffer import DeliveryBuffer
from messaging.delivery import Delivery
from messaging.driver import Receiver
from messaging.errors import (
    BrokerUnavailable,
    Closed,
    LeaseLost,
    MessagingError,
    UnsupportedCapability,
)
from messaging.options import ConsumerOptions
from messaging.patterns import MATCH_ALL, matcher
from messaging.rejection import Rejection
from messaging.topology import Source
from messaging_sqs.batch import BATCH
from messaging_sqs.errors import translate, whole_seconds
from messaging_sqs.heartbeat import Heartbeat
from messaging_sqs.leases import Lease, Leases, SQSDelivery
from messaging_sqs.options import MAX_VISIBILITY
from messaging_sqs.parts import native_visibility
from messaging_sqs.settlements import Settlements

if TYPE_CHECKING:
    from messaging_sqs.driver import SQSDriver

_log = logging.getLogger("messaging.sqs")

_CLOSE = 9.0
"""Seconds `close` may take. A long poll that lasts longer ends by itself and gives back what it brought."""

_HAND_OVER = 2.0
"""Seconds of these for giving back what is held."""

_BACKOFF = (0.1, 0.2, 0.5, 1.0, 2.0)
_MOST_PENDING = 1000
"""Settlements under way at which polling waits: the broker must not be asked for more than it takes back."""


class SQSReceiver(Receiver):
    """`_leases.lock` guards `_closing`, `_paused`, `_parked`, `_polling` and the leases.

    Threads, joined by `close`: `options.receivers` that poll (one when ordered), `options.receivers` that settle
    (`Settlements`), one heartbeat.
    """

    def __init__(self, driver: SQSDriver, source: Source, options: ConsumerOptions) -> None:
        self._driver = driver
        self._source = source
        self._url = driver.directory.queue_url(driver.aws_name(source.name, source.ordered))
        seconds = options.lease or native_visibility(source) or driver.options.visibility
        self._visibility = min(max(whole_seconds(seconds), 1), MAX_VISIBILITY)
        self._wanted = None if source.pattern == MATCH_ALL else matcher(source.pattern)
        self._buffer = DeliveryBuffer()
        self._leases = Leases(options.prefetch)
        self._closing = False
        self._paused = False
        self._parked: list[Delivery] = []
        self._unheard: type[MessagingError] | None = None
        self._settlements = Settlements(driver, source, self._url, self._leases, self._tell)
        self._heartbeat = Heartbeat(
            driver, source, self._url, self._leases, self._settlements, self._visibility, options.heartbeat
        )
        # Groups are handed out to one call at a time on AWS, but moto mixes up concurrent calls of one consumer.
        self._polling = 1 if source.ordered else driver.options.receivers
        self._threads = [
            Thread(target=self._poll, name=f"messaging-sqs-poll-{n}", daemon=True) for n in range(self._polling)
        ]
        for thread in self._threads:
            thread.start()

    def receive(self, max_messages: int, timeout: float) -> list[Delivery]:
        if self._closing:
            raise Closed(f"receive from {self._source}: the consumer is closed")
        deadline = time.monotonic() + timeout
        while True:
            try:
                taken = self._buffer.take(max_messages, max(deadline - time.monotonic(), 0))
            except MessagingError:
                self._unheard = None
                raise
            if not taken:
                return []
            live = [delivery for delivery in taken if self.is_live(delivery)]
            if len(live) < len(taken):
                with self._leases.lock:
                    for delivery in taken:
                        if delivery not in live:
                            self._settlements.lose(_lease(delivery))
            if live:
                return live

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        with self._leases.lock:
            self._check_open("ack")
            mine = [_lease(delivery) for delivery in deliveries]
            good = [lease for lease in mine if self._settle(lease)]
            self._settlements.delete(good)
        self._report_lost("ack", [lease for lease in mine if lease.lost])

    def check_delay(self, delay: float) -> None:
        if delay > MAX_VISIBILITY:
            raise UnsupportedCapability(
                f"nack on {self._source}: SQS delays by at most {MAX_VISIBILITY} s (12 hours), not {delay:g}"
            )

    def nack(self, deliveries: Sequence[Delivery], delay: float) -> None:
        self.check_delay(delay)
        with self._leases.lock:
            self._check_open("nack")
            mine = [_lease(delivery) for delivery in deliveries]
            for lease in mine:
                if self._settle(lease):
                    self._settlements.release(lease, delay)
        if delay:
            self._report_lost("nack", [lease for lease in mine if lease.lost])

    def reject(self, deliveries: Sequence[Delivery], why: Rejection) -> None:
        with self._leases.lock:
            self._check_open("reject")
            for delivery in deliveries:
                assert isinstance(delivery, SQSDelivery)
                if self._settle(delivery.lease):
                    self._settlements.reject(delivery, why)
        self._report_lost("reject", [lease for lease in map(_lease, deliveries) if lease.lost])

    def extend(self, delivery: Delivery, seconds: float) -> None:
        self._heartbeat.extend(_lease(delivery), seconds)

    def is_live(self, delivery: Delivery) -> bool:
        return self._leases.live(_lease(delivery))

    def pause(self) -> None:
        with self._leases.lock:
            self._paused = True

    def resume(self) -> None:
        with self._leases.lock:
            self._paused = False
            self._buffer.put(self._parked)
            self._parked = []
            self._leases.room.notify_all()

    def lag(self) -> int:
        return self._driver.count(self._url, in_flight=True, doing=f"lag of {self._source}")

    def flush(self, timeout: float) -> None:
        if not self._settlements.flush(timeout):
            raise BrokerUnavailable(
                f"flush of {self._source}: {self._settlements.pending} settlements not carried out in {timeout:g} s"
            )
        self._buffer.take(0, 0)

    def close(self) -> None:
        deadline = time.monotonic() + _CLOSE
        with self._leases.lock:
            if self._closing:
                return
            self._closing = True
            self._leases.room.notify_all()
        self._buffer.close()
        self._settlements.hurry(deadline)
        for thread in self._threads:
            thread.join(max(deadline - _HAND_OVER - time.monotonic(), 0))
        with self._leases.lock:
            if self._polling:  # a long poll takes longer; its thread gives back what it brings
                self._give_back_all()
        self._heartbeat.stop(deadline)
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0))
        self._settlements.join(deadline)
        self._driver.forget(self)

    def _poll(self) -> None:
        failures = 0
        try:
            while most := self._reserve():
                try:
                    messages = self._receive(most)
                    failures = 0
                except Exception as error:
                    self._unreserve(most)
                    self._failed(translate(error, f"receive from {self._source}"))
                    with self._leases.lock:
                        pause = _BACKOFF[min(failures, len(_BACKOFF) - 1)]
                        self._leases.room.wait_for(lambda: self._closing, pause)
                    failures += 1
                else:
                    self._arrived(messages, most)
        finally:
            with self._leases.lock:
                self._polling -= 1
                last = not self._polling
                if last:
                    # Only now: a poll under way would be handed what is given back, and count one more attempt.
                    self._give_back_all()
            if last:
                self._settlements.end()

    def _reserve(self) -> int:
        """Waits until messages may be asked for; returns how many, 0 when closing."""
        leases = self._leases

        def may_ask() -> bool:
            return self._closing or (
                not self._paused and leases.available > 0 and self._settlements.pending < _MOST_PENDING
            )

        with leases.lock:
            while not may_ask():
                # Settlements that are carried out do not wake this thread one by one: look again now and then.
                leases.room.wait(0.05 if self._settlements.pending >= _MOST_PENDING else None)
            if self._closing:
                return 0
            most = min(BATCH, leases.available)
            leases.asked += most
            return most

    def _receive(self, most: int) -> list[Any]:
        answer = self._driver.clients.polls.receive_message(
            QueueUrl=self._url,
            MaxNumberOfMessages=most,
            WaitTimeSeconds=self._driver.options.wait_time,
            VisibilityTimeout=self._visibility,
            MessageAttributeNames=["All"],
            MessageSystemAttributeNames=["ApproximateReceiveCount", "SentTimestamp", "MessageGroupId"],
        )
        return list(answer.get("Messages", ()))

    def _arrived(self, messages: list[Any], reserved: int) -> None:
        now = time.monotonic()
        deadline = now + self._visibility
        ordered = self._source.ordered
        deliveries: list[Delivery] = []
        unwanted: list[Lease] = []
        for raw in messages:
            group = raw.get("Attributes", {}).get("MessageGroupId") if ordered else None
            lease = Lease(raw["ReceiptHandle"], group, deadline, now)
            delivery = SQSDelivery(self, self._source, raw, lease)
            if self._wanted is None or self._wanted(delivery.type):
                deliveries.append(delivery)
            else:
                unwanted.append(lease)
        leases = self._leases
        with leases.lock:
            leases.asked -= reserved
            leases.room.notify()
            if unwanted:
                self._settlements.delete(unwanted)
            mine = [_lease(delivery) for delivery in deliveries]
            leases.held.update(dict.fromkeys(mine))
            if self._paused:
                self._parked.extend(deliveries)
            elif deliveries:
                self._buffer.put(deliveries)  # closed, it takes none: they are given back when the last poll ends

    def _unreserve(self, count: int) -> None:
        with self._leases.lock:
            self._leases.asked -= count
            self._leases.room.notify()

    def _failed(self, error: MessagingError) -> None:
        """What cannot heal is told to the consumer once, until it has heard it."""
        # By type: the text may hold a time or a request id, and nobody may be listening.
        if not isinstance(error, BrokerUnavailable) and self._unheard is not type(error) and not self._closing:
            self._unheard = type(error)
            self._buffer.fail(error)

    def _tell(self, error: MessagingError) -> None:
        """Of a settlement that failed: the next call that receives, or the log when there will be none."""
        if self._closing:
            _log.warning("%s", error)
        else:
            self._buffer.fail(error)

    def _settle(self, lease: Lease) -> bool:
        if self._leases.settle(lease):
            return True
        if not lease.settled and not lease.lost:  # lapsed
            self._settlements.lose(lease)
        return False

    def _give_back_all(self) -> None:
        for lease in list(self._leases.held):
            if self._settle(lease):
                self._settlements.release(lease, 0.0)

    def _report_lost(self, what: str, lost: Sequence[Lease]) -> None:
        for _ in lost:
            self._buffer.fail(
                LeaseLost(f"{what} on {self._source}: the lease had run out; the message is delivered again")
            )

    def _check_open(self, what: str) -> None:
        if self._closing:
            raise Closed(f"{what} on {self._source}: the consumer is closed; the message is delivered again")


def _lease(delivery: Delivery) -> Lease:
    assert isinstance(delivery, SQSDelivery)
    return delivery.lease

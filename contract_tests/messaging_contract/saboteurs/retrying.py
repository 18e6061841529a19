"""Saboteurs of retries, delays and dead letters."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

from messaging.dead_letter import ATTEMPTS, dead_letter_copy
from messaging.delivery import Delivery
from messaging.driver import Done, Outgoing, Receiver
from messaging.errors import UnsupportedCapability
from messaging.message import Message
from messaging.rejection import Rejection
from messaging.topology import Queue, Source
from messaging_contract.saboteurs.wrap import HonestReceiver, HonestSender
from messaging_memory import MemoryServer


class Copying(HonestReceiver):
    """Retries by a copy: it goes where `copy_to` says, then the original is acked."""

    def copy_to(self, delivery: Delivery, delay: float) -> None:
        with self.server.changed:
            self.server.store(self.source).add(delivery.message, delay)

    def nack(self, deliveries: Sequence[Delivery], delay: float) -> None:
        if not delay:
            super().nack(deliveries, delay)
            return
        for delivery in deliveries:
            self.copy_to(delivery, delay)
        self.inner.ack(deliveries)


class LosesDelayedRetries(Copying):
    """Settles what is nacked with a delay, and makes no copy."""

    def copy_to(self, delivery: Delivery, delay: float) -> None:
        pass


class BeginsAttemptsAnew(Copying):
    """Retries by a copy without the attempts so far."""


class RetriesToAllGroups(Copying):
    """Publishes what is nacked with a delay to its topic again."""

    def copy_to(self, delivery: Delivery, delay: float) -> None:
        self.server.publish(self.source.destination, delivery.message, delay)


class SharesAWaitQueue(Copying):
    """Has one wait queue for all, from which everything goes to whoever used it first."""

    _first: ClassVar[WeakKeyDictionary[MemoryServer, Source]] = WeakKeyDictionary()

    def nack(self, deliveries: Sequence[Delivery], delay: float) -> None:
        if self._first.setdefault(self.server, self.source).name == self.source.name:
            HonestReceiver.nack(self, deliveries, delay)
        else:
            super().nack(deliveries, delay)

    def copy_to(self, delivery: Delivery, delay: float) -> None:
        source = self._first[self.server]
        if source.name in self.server._stores:  # else its wait queue has nowhere to go
            with self.server.changed:
                self.server.store(source).add(delivery.message, delay)


class RetriesInTurn(HonestReceiver):
    """Lets no retry come before one that began to wait earlier, as a queue does whose messages expire at its head."""

    _longest = 0.0

    def nack(self, deliveries: Sequence[Delivery], delay: float) -> None:
        self._longest = max(self._longest, delay)
        super().nack(deliveries, self._longest)


class KeepsTheFirstDelay(HonestReceiver):
    """Waits before each retry as long as before the first."""

    _first: float | None = None

    def nack(self, deliveries: Sequence[Delivery], delay: float) -> None:
        if self._first is None:
            self._first = delay
        super().nack(deliveries, self._first)


class DropsAtADeliveryLimit(HonestReceiver):
    """Has a delivery limit: a message that was delayed ten times goes round in a cycle and is dropped."""

    def nack(self, deliveries: Sequence[Delivery], delay: float) -> None:
        over = [delivery for delivery in deliveries if delay and delivery.attempt > 10]
        if over:
            self.inner.ack(over)
        self.inner.nack([delivery for delivery in deliveries if delivery not in over], delay)


class DeadLettersAtADeliveryLimit(HonestReceiver):
    """Dead-letters by itself what was nacked ten times."""

    def nack(self, deliveries: Sequence[Delivery], delay: float) -> None:
        over = [delivery for delivery in deliveries if delivery.attempt > 10]
        if over:
            self.inner.reject(over, Rejection("delivery limit"))
        self.inner.nack([delivery for delivery in deliveries if delivery not in over], delay)


class GivesUpTheUnhandled(HonestReceiver):
    """Dead-letters what was delivered twenty times, whatever became of it."""

    def receive(self, max_messages: int, timeout: float) -> list[Delivery]:
        found = super().receive(max_messages, timeout)
        over = [delivery for delivery in found if delivery.attempt > 20]
        if over:
            self.inner.reject(over, Rejection("delivery limit"))
        return [delivery for delivery in found if delivery not in over]


class NeverDeadLetters(HonestReceiver):
    """Tries once more, a little later, instead of giving up."""

    def reject(self, deliveries: Sequence[Delivery], why: Rejection) -> None:
        self.inner.nack(deliveries, 0.01)


class DeadLettersNeighbours(HonestReceiver):
    """Dead-letters everything that was received with what is rejected."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._together: list[Delivery] = []

    def receive(self, max_messages: int, timeout: float) -> list[Delivery]:
        found = super().receive(max_messages, timeout)
        self._together = found or self._together
        return found

    def reject(self, deliveries: Sequence[Delivery], why: Rejection) -> None:
        others = [d for d in self._together if d not in deliveries and not d.settled]
        self.inner.reject([*deliveries, *others], why)


class DropsEverySecondDeadLetter(HonestReceiver):
    """Settles every second rejected message without its dead letter."""

    _count = 0

    def reject(self, deliveries: Sequence[Delivery], why: Rejection) -> None:
        for delivery in deliveries:
            self._count += 1
            if self._count % 2:
                self.inner.reject([delivery], why)
            else:
                self.inner.ack([delivery])


class DropsTheUndecodable(HonestReceiver):
    """Drops what cannot be decoded instead of dead-lettering it."""

    def reject(self, deliveries: Sequence[Delivery], why: Rejection) -> None:
        if why.error == "DecodeError":
            self.inner.ack(deliveries)
        else:
            self.inner.reject(deliveries, why)


class StopsForADelay(HonestReceiver):
    """Delivers nothing while a message waits that was nacked with a delay."""

    _until = 0.0

    def nack(self, deliveries: Sequence[Delivery], delay: float) -> None:
        self._until = time.monotonic() + delay
        super().nack(deliveries, delay)

    def receive(self, max_messages: int, timeout: float) -> list[Delivery]:
        if (left := self._until - time.monotonic()) > 0:
            time.sleep(min(left, timeout))
            timeout = max(timeout - left, 0.0)
            if left > timeout:
                return []
        return super().receive(max_messages, timeout)


class CopiesDeadLetters(HonestReceiver):
    """Makes its own dead letters."""

    def copy(self, delivery: Delivery, why: Rejection) -> Message:
        return dead_letter_copy(delivery, why)

    def queue(self) -> Queue | None:
        return self.source.dead_letter

    def reject(self, deliveries: Sequence[Delivery], why: Rejection) -> None:
        queue = self.queue()
        if queue is None:
            self.inner.reject(deliveries, why)
            return
        for delivery in deliveries:
            self.server.publish(queue, self.copy(delivery, why), 0.0)
        self.inner.ack(deliveries)


class ForgetsHowOften(CopiesDeadLetters):
    """Writes dead letters that tell of one attempt."""

    def copy(self, delivery: Delivery, why: Rejection) -> Message:
        copy = super().copy(delivery, why)
        return replace(copy, headers={**copy.headers, ATTEMPTS: "1"})


class LetsDeadLettersExpire(CopiesDeadLetters):
    """Leaves dead letters the time to live that the message had."""

    def copy(self, delivery: Delivery, why: Rejection) -> Message:
        return replace(super().copy(delivery, why), expires_at=delivery.expires_at)


class KeepsTheOldStory(CopiesDeadLetters):
    """Does not replace what an earlier dead-lettering said of the message."""

    def copy(self, delivery: Delivery, why: Rejection) -> Message:
        copy = super().copy(delivery, why)
        return replace(copy, headers={**copy.headers, **delivery.headers})


class SharesADeadLetterQueue(CopiesDeadLetters):
    """Has one dead-letter queue for all groups of a topic: that of the first."""

    _first: ClassVar[WeakKeyDictionary[MemoryServer, dict[str, Queue | None]]] = WeakKeyDictionary()

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        topic = self.source.destination.name
        self._first.setdefault(self.server, {}).setdefault(topic, super().queue())

    def queue(self) -> Queue | None:
        return self._first[self.server][self.source.destination.name]


class ChokesOnALongReason(HonestReceiver):
    """Cannot store a dead letter with a long reason, and keeps the message going round."""

    def reject(self, deliveries: Sequence[Delivery], why: Rejection) -> None:
        if len(why.reason) > 255:
            self.inner.nack(deliveries, 0.01)
        else:
            self.inner.reject(deliveries, why)


class RefusesADelayTooLate(HonestReceiver):
    """Learns with its first message that it cannot hold one for a day."""

    _knows = False

    def receive(self, max_messages: int, timeout: float) -> list[Delivery]:
        received = super().receive(max_messages, timeout)
        self._knows = self._knows or bool(received)
        return received

    def check_delay(self, delay: float) -> None:
        if self._knows and delay > 86_400:
            raise UnsupportedCapability(f"delays by at most a day, not {delay:g} s")

    def nack(self, deliveries: Sequence[Delivery], delay: float) -> None:
        self.check_delay(delay)
        super().nack(deliveries, delay)


class NeedsItsDeadLetters(HonestReceiver):
    """Does not consume while there is no dead-letter queue, though nothing was rejected."""

    def __init__(self, inner: Receiver, source: Source, server: MemoryServer) -> None:
        super().__init__(inner, source, server)
        if source.dead_letter is not None:
            server.store(Source(source.dead_letter))  # raises DestinationNotFound


class LosesLargeDeadLetters(HonestReceiver):
    """Has no room in the dead-letter queue for a large message and what is said of it, and drops it."""

    def reject(self, deliveries: Sequence[Delivery], why: Rejection) -> None:
        large = [delivery for delivery in deliveries if len(delivery.body) > 500_000]
        if large:
            self.inner.ack(large)
        self.inner.reject([delivery for delivery in deliveries if delivery not in large], why)


class CutsTheDelayShort(HonestSender):
    """Delivers a delayed message after half its delay."""

    def send(self, messages: Sequence[Message], outgoing: Outgoing, done: Done) -> None:
        super().send(messages, replace(outgoing, delay=outgoing.delay / 2), done)


class DelaysTheFirst(HonestSender):
    """Of a batch with a delay only the first message waits."""

    def send(self, messages: Sequence[Message], outgoing: Outgoing, done: Done) -> None:
        super().send(messages[:1], outgoing, done)
        if messages[1:]:
            super().send(messages[1:], replace(outgoing, delay=0.0), lambda index, error: done(index + 1, error))


class DelaysInTurn(HonestSender):
    """Lets no delayed message come before one that was published earlier."""

    _longest = 0.0

    def send(self, messages: Sequence[Message], outgoing: Outgoing, done: Done) -> None:
        self._longest = max(self._longest, outgoing.delay) if outgoing.delay else self._longest
        delay = self._longest if outgoing.delay else 0.0
        super().send(messages, replace(outgoing, delay=delay), done)

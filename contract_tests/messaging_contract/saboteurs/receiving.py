"""Saboteurs of the receiving side."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from threading import Thread, current_thread
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

from messaging.delivery import Delivery
from messaging.driver import Replay
from messaging.errors import DestinationNotFound
from messaging.message import Message
from messaging.rejection import Rejection
from messaging.topology import Queue, Source
from messaging_contract.saboteurs.wrap import HonestReceiver
from messaging_memory import MemoryServer
from messaging_memory.driver import MemoryDelivery


class AcksEarly(HonestReceiver):
    """Acks a message when it is received, not when it is settled."""

    def receive(self, max_messages: int, timeout: float) -> list[Delivery]:
        deliveries = super().receive(max_messages, timeout)
        self.inner.ack(deliveries)
        return deliveries

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        pass


class DropsOnNack(HonestReceiver):
    """Acks what is nacked."""

    def nack(self, deliveries: Sequence[Delivery], delay: float) -> None:
        self.inner.ack(deliveries)


class NacksToAllGroups(HonestReceiver):
    """Publishes a nacked message to its topic again, so that every group gets it."""

    def nack(self, deliveries: Sequence[Delivery], delay: float) -> None:
        if isinstance(self.source.destination, Queue):
            super().nack(deliveries, delay)
            return
        for delivery in deliveries:
            self.server.publish(self.source.destination, delivery.message, delay)
        self.inner.ack(deliveries)


class NacksEarly(HonestReceiver):
    """Brings a nacked message back after half its delay."""

    def nack(self, deliveries: Sequence[Delivery], delay: float) -> None:
        super().nack(deliveries, delay / 2)


class ChangesHeaders(HonestReceiver):
    """Does something to the headers of what it delivers."""

    def change(self, headers: dict[str, str]) -> None:
        raise NotImplementedError

    def receive(self, max_messages: int, timeout: float) -> list[Delivery]:
        deliveries = super().receive(max_messages, timeout)
        for delivery in deliveries:
            headers = dict(delivery.headers)
            self.change(headers)
            delivery._message = replace(delivery.message, headers=headers)
        return deliveries


class LosesAHeader(ChangesHeaders):
    """Loses headers whose value is empty."""

    def change(self, headers: dict[str, str]) -> None:
        for name in [name for name, value in headers.items() if not value]:
            del headers[name]


class LeaksInternalHeaders(ChangesHeaders):
    """Hands the adapter's own headers to the receiver."""

    def change(self, headers: dict[str, str]) -> None:
        headers["x-messaging-attempt"] = "1"


class LowersHeaderNames(ChangesHeaders):
    """Treats header names as if case did not matter."""

    def change(self, headers: dict[str, str]) -> None:
        lowered = {name.lower(): value for name, value in headers.items()}
        headers.clear()
        headers.update(lowered)


class WrongAttempt(HonestReceiver):
    """Counts attempts from 2."""

    def receive(self, max_messages: int, timeout: float) -> list[Delivery]:
        deliveries = super().receive(max_messages, timeout)
        for delivery in deliveries:
            delivery.attempt += 1
        return deliveries


class ForgetsAttempts(HonestReceiver):
    """Says attempt 1 each time."""

    def receive(self, max_messages: int, timeout: float) -> list[Delivery]:
        deliveries = super().receive(max_messages, timeout)
        for delivery in deliveries:
            delivery.attempt = 1
        return deliveries


class ForgetsTheTime(HonestReceiver):
    """Says a message was published when it was received."""

    def receive(self, max_messages: int, timeout: float) -> list[Delivery]:
        deliveries = super().receive(max_messages, timeout)
        for delivery in deliveries:
            delivery._message = replace(delivery.message, timestamp=time.time())
        return deliveries


class ReordersAKey(HonestReceiver):
    """Delivers a batch back to front."""

    def receive(self, max_messages: int, timeout: float) -> list[Delivery]:
        return super().receive(max_messages, timeout)[::-1]


class OvertakesWhatFailed(HonestReceiver):
    """Gives a message that failed back to its queue when its delay is over, so that later ones of its key are first."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._given_back: set[str] = set()

    def is_live(self, delivery: Delivery) -> bool:
        if self.source.ordered and delivery.attempt > 1 and delivery.id not in self._given_back:
            self._given_back.add(delivery.id)
            self.inner.nack([delivery], 0.1)
            return False
        return super().is_live(delivery)


class RejectDiscards(HonestReceiver):
    """Acks what is rejected, without a dead letter."""

    def reject(self, deliveries: Sequence[Delivery], why: Rejection) -> None:
        self.inner.ack(deliveries)


class RejectForgetsWhy(HonestReceiver):
    """Dead-letters without the reason."""

    def reject(self, deliveries: Sequence[Delivery], why: Rejection) -> None:
        self.inner.reject(deliveries, Rejection())


class RejectRequeues(HonestReceiver):
    """Nacks what is rejected, for ever."""

    def reject(self, deliveries: Sequence[Delivery], why: Rejection) -> None:
        self.inner.nack(deliveries, 0)


class NeverResumes(HonestReceiver):
    """Stays paused."""

    def resume(self) -> None:
        pass


class PausesTheGroup(HonestReceiver):
    """Pausing one consumer stops all of its source."""

    _paused: ClassVar[WeakKeyDictionary[MemoryServer, set[str]]] = WeakKeyDictionary()

    def receive(self, max_messages: int, timeout: float) -> list[Delivery]:
        if self.source.name in self._paused.get(self.server, ()):
            time.sleep(timeout)
            return []
        return super().receive(max_messages, timeout)

    def pause(self) -> None:
        self._paused.setdefault(self.server, set()).add(self.source.name)
        super().pause()

    def resume(self) -> None:
        self._paused.setdefault(self.server, set()).discard(self.source.name)
        super().resume()


class LagIsZero(HonestReceiver):
    """Says there is no lag."""

    def lag(self) -> int:
        return 0


class LateAtTheDeadline(HonestReceiver):
    """Returns four seconds after the deadline."""

    def receive(self, max_messages: int, timeout: float) -> list[Delivery]:
        return super().receive(max_messages, timeout + 4.0)


class WaitsForAFullBatch(HonestReceiver):
    """Waits for a full batch."""

    def receive(self, max_messages: int, timeout: float) -> list[Delivery]:
        deadline = time.monotonic() + 11 if timeout else 0.0
        found = super().receive(max_messages, timeout)
        while found and len(found) < max_messages and time.monotonic() < deadline:
            found += super().receive(max_messages - len(found), 0.5)
        return found


class IgnoresReplay(HonestReceiver):
    """Claims replay and stays where it is."""

    def replay(self, since: Replay) -> None:
        pass


class ExtendsSilently(HonestReceiver):
    """Has no leases, and does nothing when asked to extend one."""

    def extend(self, delivery: Delivery, seconds: float) -> None:
        pass


class DeadLettersUnconfirmed(HonestReceiver):
    """Acks what is rejected though the dead letter could not be stored."""

    def reject(self, deliveries: Sequence[Delivery], why: Rejection) -> None:
        queue = self.source.dead_letter
        try:
            if queue is not None:
                self.server.store(Source(queue))
        except DestinationNotFound:
            self.inner.ack(deliveries)
        else:
            self.inner.reject(deliveries, why)


class NacksAtOnce(HonestReceiver):
    """Brings a nacked message back without its delay."""

    def nack(self, deliveries: Sequence[Delivery], delay: float) -> None:
        super().nack(deliveries, 0.0)


class SkipsAttempts(HonestReceiver):
    """Counts attempts 1, 3, 5."""

    def receive(self, max_messages: int, timeout: float) -> list[Delivery]:
        deliveries = super().receive(max_messages, timeout)
        for delivery in deliveries:
            delivery.attempt = 2 * delivery.attempt - 1
        return deliveries


class BelongsToOneThread(HonestReceiver):
    """Settles only in the thread that received, as a client does that is not thread-safe."""

    _thread: Thread | None = None

    def receive(self, max_messages: int, timeout: float) -> list[Delivery]:
        self._thread = current_thread()
        return super().receive(max_messages, timeout)

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        if self._thread is current_thread():
            super().ack(deliveries)


class SleepsBetweenPolls(HonestReceiver):
    """Looks for messages only once in the time that it is given, and sleeps for the rest of it."""

    def receive(self, max_messages: int, timeout: float) -> list[Delivery]:
        found = super().receive(max_messages, 0.0)
        if not found:
            time.sleep(min(timeout * 40, 12.0))
        return found


class DropsTheForeign(HonestReceiver):
    """Drops what it does not recognise as its own."""

    def receive(self, max_messages: int, timeout: float) -> list[Delivery]:
        found = super().receive(max_messages, timeout)
        foreign = [delivery for delivery in found if delivery.content_type is None]
        if foreign:
            self.inner.ack(foreign)
        return [delivery for delivery in found if delivery not in foreign]


class IgnoresTheMost(HonestReceiver):
    """Returns as many messages as there are."""

    def receive(self, max_messages: int, timeout: float) -> list[Delivery]:
        return super().receive(max_messages * 100, timeout)


class SharesWhatItDelivers(HonestReceiver):
    """Hands out the same headers again when it delivers a message again."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._messages: dict[str, Message] = {}

    def receive(self, max_messages: int, timeout: float) -> list[Delivery]:
        found = super().receive(max_messages, timeout)
        for delivery in found:
            delivery._message = self._messages.setdefault(delivery.id, delivery.message)
        return found


class GivesBackLongLeases(HonestReceiver):
    """Gives a message back whose lease is to be longer than the broker keeps one."""

    def extend(self, delivery: Delivery, seconds: float) -> None:
        if seconds > 1_000_000:
            self.inner.nack([delivery], 0.0)
        else:
            self.inner.extend(delivery, seconds)


class IdlesWhenItIsDeleted(HonestReceiver):
    """Receives nothing ever more once its source was gone, and says nothing."""

    _gone = False

    def receive(self, max_messages: int, timeout: float) -> list[Delivery]:
        try:
            if not self._gone:
                return super().receive(max_messages, timeout)
        except DestinationNotFound:
            self._gone = True
        time.sleep(timeout)
        return []


class _Careless(MemoryDelivery):
    __slots__ = ()

    def nack(self, delay: float = 0.0) -> None:
        super().nack(max(delay, 0.0))


class TakesAnyDelay(HonestReceiver):
    """Has deliveries that take a negative delay for none."""

    def receive(self, max_messages: int, timeout: float) -> list[Delivery]:
        found = super().receive(max_messages, timeout)
        for delivery in found:
            delivery.__class__ = _Careless
        return found

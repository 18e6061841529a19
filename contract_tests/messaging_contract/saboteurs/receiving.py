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
from messaging.topology import Queue, Source
from messaging_contract.saboteurs.wrap import HonestReceiver
from messaging_memory import MemoryServer


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


class CommitsPastAGap(HonestReceiver):
    """Acking a message acks everything delivered before it."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._delivered: list[Delivery] = []

    def receive(self, max_messages: int, timeout: float) -> list[Delivery]:
        deliveries = super().receive(max_messages, timeout)
        self._delivered += deliveries
        return deliveries

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        last = max(self._delivered.index(d) for d in deliveries if d in self._delivered)
        self.inner.ack(self._delivered[: last + 1])


class KeepsOnClose(HonestReceiver):
    """Does not give unsettled messages back when it closes."""

    def close(self) -> None:
        pass


class AcksOnClose(HonestReceiver):
    """Acks everything it holds when it closes."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._delivered: list[Delivery] = []

    def receive(self, max_messages: int, timeout: float) -> list[Delivery]:
        deliveries = super().receive(max_messages, timeout)
        self._delivered += deliveries
        return deliveries

    def close(self) -> None:
        try:
            self.inner.ack(self._delivered)
        finally:
            self.inner.close()


class RejectDiscards(HonestReceiver):
    """Acks what is rejected, without a dead letter."""

    def reject(self, deliveries: Sequence[Delivery], reason: str) -> None:
        self.inner.ack(deliveries)


class RejectForgetsWhy(HonestReceiver):
    """Dead-letters without the reason."""

    def reject(self, deliveries: Sequence[Delivery], reason: str) -> None:
        self.inner.reject(deliveries, "rejected")


class RejectRequeues(HonestReceiver):
    """Nacks what is rejected, for ever."""

    def reject(self, deliveries: Sequence[Delivery], reason: str) -> None:
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


class HangsOnClose(HonestReceiver):
    """Does not notice that it was closed while it waits."""

    def receive(self, max_messages: int, timeout: float) -> list[Delivery]:
        self._wait_until = time.monotonic() + timeout * 40
        return super().receive(max_messages, timeout)

    def close(self) -> None:
        time.sleep(max(getattr(self, "_wait_until", 0.0) - time.monotonic(), 0.0))
        super().close()


class IgnoresReplay(HonestReceiver):
    """Claims replay and stays where it is."""

    def replay(self, since: Replay) -> None:
        pass


class ExtendsSilently(HonestReceiver):
    """Has no leases, and does nothing when asked to extend one."""

    def extend(self, delivery: Delivery, seconds: float) -> None:
        pass


class LosesUnreadOnClose(HonestReceiver):
    """Takes twice what was asked for, and loses the rest when it closes."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._spare: list[Delivery] = []

    def receive(self, max_messages: int, timeout: float) -> list[Delivery]:
        found = self._spare or super().receive(max_messages * 2, timeout)
        self._spare = found[max_messages:]
        return found[:max_messages]

    def close(self) -> None:
        try:
            self.inner.ack(self._spare)
        finally:
            self.inner.close()


class DeadLettersUnconfirmed(HonestReceiver):
    """Acks what is rejected though the dead letter could not be stored."""

    def reject(self, deliveries: Sequence[Delivery], reason: str) -> None:
        queue = self.source.dead_letter
        try:
            if queue is not None:
                self.server.store(Source(queue))
        except DestinationNotFound:
            self.inner.ack(deliveries)
        else:
            self.inner.reject(deliveries, reason)


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


class AcksWhenItCloses(HonestReceiver):
    """Keeps acks to itself until it is closed, and has nothing to flush."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._acked: list[Delivery] = []

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        self.inner.extend(deliveries[0], 30.0)  # which a closed one refuses
        self._acked += deliveries

    def close(self) -> None:
        try:
            self.inner.ack(self._acked)
        finally:
            self.inner.close()

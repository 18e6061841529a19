"""A memory broker behind a line that can be cut: an honest one, and saboteurs that do not come back from it right."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from threading import Condition, Thread
from typing import Any, ClassVar

from messaging.delivery import Delivery
from messaging.driver import Done, Outgoing, Receiver
from messaging.errors import BrokerUnavailable, MessagingError, PublishTimeout, SettleFailed
from messaging.message import Message
from messaging.options import ConsumerOptions, ProducerOptions
from messaging.rejection import Rejection
from messaging.topology import Source
from messaging_contract.saboteurs.wrap import HonestDriver, HonestReceiver, HonestSender
from messaging_memory import MemoryServer


class Line:
    """Up or down, how often it went down, and how late it is. Thread-safe; `changed` guards all."""

    def __init__(self) -> None:
        self.changed = Condition()
        self.up = True
        self.cuts = 0
        self.late = 0.0
        """Seconds."""

    def cut(self) -> None:
        with self.changed:
            self.up = False
            self.cuts += 1
            self.changed.notify_all()

    def delay(self, seconds: float) -> None:
        with self.changed:
            self.late = seconds

    def resume(self) -> None:
        with self.changed:
            self.up = True
            self.late = 0.0
            self.changed.notify_all()

    def wait_up(self, timeout: float) -> bool:
        """Whether it is up within `timeout` seconds."""
        with self.changed:
            return self.changed.wait_for(lambda: self.up, max(timeout, 0.0))

    def need(self) -> None:
        """Raises BrokerUnavailable while it is down."""
        if not self.up:
            raise BrokerUnavailable("the line is down")


class LineSender(HonestSender):
    """Sends when the line is up, by the deadline."""

    line: Line

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._later: list[Thread] = []

    def send(self, messages: Sequence[Message], outgoing: Outgoing, done: Done) -> None:
        if self.line.up:
            time.sleep(self.line.late)
            super().send(messages, outgoing, done)
            return
        deadline = time.monotonic() + self.options.timeout
        later = Thread(target=self._send_later, args=(messages, outgoing, done, deadline), daemon=True)
        self._later = [*(thread for thread in self._later if thread.is_alive()), later]
        later.start()

    def close(self, timeout: float) -> None:
        for thread in self._later:
            thread.join(timeout + 5.0)  # it gives up at its own deadline, and needs a moment to say so
        super().close(timeout)

    def _send_later(self, messages: Sequence[Message], outgoing: Outgoing, done: Done, deadline: float) -> None:
        error: MessagingError = PublishTimeout("the line was down")
        if self.line.wait_up(deadline - time.monotonic()):
            try:
                self.inner.send(messages, outgoing, done)
                return
            except MessagingError as failed:
                error = failed
        for index in range(len(messages)):
            done(index, error)


class LineReceiver(HonestReceiver):
    """Opens a new inner receiver after the line was cut; what was unsettled then is delivered again."""

    line: Line

    def __init__(self, inner: Receiver, source: Source, driver: LineDriver, options: ConsumerOptions) -> None:
        super().__init__(inner, source, driver.server)
        self.line = driver.line
        self.driver = driver
        self.options = options
        self._cuts = self.line.cuts
        self._paused = False

    def receive(self, max_messages: int, timeout: float) -> list[Delivery]:
        started = time.monotonic()
        self._reconnect()
        if not self.line.wait_up(timeout):
            return []
        self._reconnect()
        time.sleep(min(self.line.late, timeout))
        found = super().receive(max_messages, min(max(timeout - (time.monotonic() - started), 0.0), 0.1))
        return found if self._cuts == self.line.cuts else []

    def reopened(self) -> Receiver:
        """The inner receiver after a reconnect."""
        return self.driver.inner.receiver(self.source, self.options)

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        self._reconnect()
        self.inner.ack(self._live(deliveries))

    def nack(self, deliveries: Sequence[Delivery], delay: float) -> None:
        self._reconnect()
        self.inner.nack(self._live(deliveries), delay)

    def reject(self, deliveries: Sequence[Delivery], why: Rejection) -> None:
        self._reconnect()
        self.inner.reject(self._live(deliveries), why)

    def pause(self) -> None:
        self._paused = True
        super().pause()

    def resume(self) -> None:
        self._paused = False
        super().resume()

    def flush(self, timeout: float) -> None:
        self.line.need()
        super().flush(timeout)

    def _live(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        return [delivery for delivery in deliveries if self.inner.is_live(delivery)] if self.line.up else []

    def _reconnect(self) -> None:
        with self.line.changed:
            if self._cuts == self.line.cuts:
                return
            self._cuts = self.line.cuts
            self.inner.close()
            self.inner = self.reopened()
            if self._paused:
                self.inner.pause()


class LineDriver(HonestDriver):
    """The honest one."""

    Sender = LineSender
    LineReceiver: ClassVar[type[LineReceiver]] = LineReceiver
    line: Line

    @classmethod
    def restarted(cls, server: MemoryServer) -> None:
        """What a restart of the broker does to what it holds: nothing."""

    def open(self) -> None:
        if not self.line.wait_up(self.options.connect_timeout):
            raise BrokerUnavailable("the line is down")
        super().open()

    def sender(self, options: ProducerOptions) -> HonestSender:
        sender = super().sender(options)
        assert isinstance(sender, LineSender)
        sender.line = self.line
        return sender

    def receiver(self, source: Source, options: ConsumerOptions) -> HonestReceiver:
        return self.LineReceiver(self.inner.receiver(source, options), source, self, options)

    def ping(self) -> None:
        self.line.need()

    def depth(self, source: Source) -> int:
        self.line.need()
        return super().depth(source)


class ForgetsToResubscribe(LineReceiver):
    """Comes back without consuming."""

    def reopened(self) -> Receiver:
        receiver = super().reopened()
        receiver.pause()
        return receiver


class ForgetsPrefetch(LineReceiver):
    """Comes back without its prefetch."""

    def reopened(self) -> Receiver:
        return self.driver.inner.receiver(self.source, replace(self.options, prefetch=1_000_000))


class ChokesOnStaleAcks(LineReceiver):
    """Raises when a delivery from before a cut is settled."""

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        self._reconnect()
        if any(not self.inner.is_live(delivery) for delivery in deliveries):
            raise SettleFailed("unknown delivery tag")
        super().ack(deliveries)


class LosesWhatItHeld(LineReceiver):
    """Acks what it holds when the line is cut."""

    def reopened(self) -> Receiver:
        self.driver.inner.purge(self.source)
        return super().reopened()


class HangsWhileDown(LineReceiver):
    """Cannot be closed while the line is down."""

    def close(self) -> None:
        self.line.wait_up(600)
        super().close()


class ConfirmsWhileDown(LineSender):
    """Confirms what is published while the line is down, and loses it."""

    def send(self, messages: Sequence[Message], outgoing: Outgoing, done: Done) -> None:
        if self.line.up:
            super().send(messages, outgoing, done)
            return
        for index in range(len(messages)):
            done(index, None)


class RepeatsWhenSlow(LineSender):
    """Publishes again what is not confirmed at once."""

    def send(self, messages: Sequence[Message], outgoing: Outgoing, done: Done) -> None:
        super().send(messages, outgoing, done)
        if self.line.late:
            super().send(messages, outgoing, lambda _index, _error: None)


class WaitsForEver(LineSender):
    """Does not give up at the deadline."""

    def __init__(self, inner: Any, options: ProducerOptions, server: Any) -> None:
        super().__init__(inner, replace(options, timeout=600.0), server)


class PingsAnyway(LineDriver):
    """Is always well."""

    def ping(self) -> None:
        pass


class AcksWaitForTheBroker(LineReceiver):
    """Does not return from ack before the broker can be reached."""

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        self.line.wait_up(600)
        super().ack(deliveries)


class FlushesWhileDown(LineReceiver):
    """Says that acks are carried out which were lost with the line."""

    def flush(self, timeout: float) -> None:
        pass


class ConfirmsInVain(LineSender):
    """Confirms the first message after a cut, which went into the dead connection."""

    _cuts = 0

    def send(self, messages: Sequence[Message], outgoing: Outgoing, done: Done) -> None:
        if self._cuts == self.line.cuts:
            super().send(messages, outgoing, done)
            return
        self._cuts = self.line.cuts
        for index in range(len(messages)):
            done(index, None)


class ConnectsLater(LineDriver):
    """Does not look, when it connects, whether the broker is there."""

    def open(self) -> None:
        HonestDriver.open(self)


class KeepsNacksToItself(LineReceiver):
    """Keeps what is nacked in its own memory, which a lost connection empties."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._nacked: set[str] = set()

    def nack(self, deliveries: Sequence[Delivery], delay: float) -> None:
        self._nacked |= {delivery.id for delivery in deliveries}
        super().nack(deliveries, delay)

    def reopened(self) -> Receiver:
        store = self.server.store(self.source)
        with self.server.changed:
            store._ready = type(store._ready)(e for e in store._ready if e.message.id not in self._nacked)
        return super().reopened()


class StoresInMemory(LineDriver):
    """Publishes messages that do not survive a restart."""

    @classmethod
    def restarted(cls, server: MemoryServer) -> None:
        for store in server._stores.values():
            store.clear()


class DelaysInMemory(LineDriver):
    """Delays by timers, which a restart ends: everything is delivered at once."""

    @classmethod
    def restarted(cls, server: MemoryServer) -> None:
        with server.changed:
            for store in server._stores.values():
                store._delayed = [(0.0, position, entry) for _due, position, entry in store._delayed]

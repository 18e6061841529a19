"""A driver, sender and receiver that pass everything on to the memory broker's. A saboteur overrides one thing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from inspect import isfunction
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

from messaging.capabilities import Capabilities
from messaging.delivery import Delivery
from messaging.driver import Done, Driver, Outgoing, Receiver, Replay, Sender
from messaging.errors import MessagingError
from messaging.message import Message
from messaging.options import ConsumerOptions, ProducerOptions
from messaging.plan import Finding, Part
from messaging.rejection import Rejection
from messaging.topology import Destination, Source, Topology
from messaging.waits import Waits
from messaging_memory import MemoryDriver, MemoryServer

CRASHES: WeakKeyDictionary[MemoryServer, list[Exception]] = WeakKeyDictionary()
"""What saboteurs raised, by their broker, that is none of the interface's errors: bugs, also where nobody saw them."""


class Noted:
    """Has what overrides a method here note its crashes, whichever thread it is that they end."""

    server: Any

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for name, method in list(vars(cls).items()):
            if isfunction(method) and not name.startswith("__"):
                setattr(cls, name, _noting(method))


def _noting(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def call(self: Any, *arguments: Any, **keywords: Any) -> Any:
        try:
            return method(self, *arguments, **keywords)
        except (MessagingError, TimeoutError):
            raise
        except Exception as crash:
            CRASHES.setdefault(self.server, []).append(crash)
            raise

    return call


class HonestSender(Noted, Sender):
    """Passes on to `inner`."""

    def __init__(self, inner: Sender, options: ProducerOptions, server: MemoryServer) -> None:
        self.inner = inner
        self.options = options
        self.server = server

    def send(self, messages: Sequence[Message], outgoing: Outgoing, done: Done) -> None:
        self.inner.send(messages, outgoing, done)

    def report_waits(self, waits: Waits) -> None:
        self.inner.report_waits(waits)

    def close(self, timeout: float) -> None:
        self.inner.close(timeout)


class HonestReceiver(Noted, Receiver):
    """Passes on to `inner`, and has itself asked to settle."""

    def __init__(self, inner: Receiver, source: Source, server: MemoryServer) -> None:
        self.inner = inner
        self.source = source
        self.server = server

    def receive(self, max_messages: int, timeout: float) -> list[Delivery]:
        deliveries = self.inner.receive(max_messages, timeout)
        for delivery in deliveries:
            delivery.settler = self
        return deliveries

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        self.inner.ack(deliveries)

    def check_delay(self, delay: float) -> None:
        self.inner.check_delay(delay)

    def nack(self, deliveries: Sequence[Delivery], delay: float) -> None:
        self.inner.nack(deliveries, delay)

    def reject(self, deliveries: Sequence[Delivery], why: Rejection) -> None:
        self.inner.reject(deliveries, why)

    def extend(self, delivery: Delivery, seconds: float) -> None:
        self.inner.extend(delivery, seconds)

    def pause(self) -> None:
        self.inner.pause()

    def resume(self) -> None:
        self.inner.resume()

    def lag(self) -> int:
        return self.inner.lag()

    def expired(self, deliveries: Sequence[Delivery], now: float) -> list[Delivery]:
        return self.inner.expired(deliveries, now)

    def now(self) -> float:
        return self.inner.now()

    def is_live(self, delivery: Delivery) -> bool:
        return self.inner.is_live(delivery)

    def replay(self, since: Replay) -> None:
        self.inner.replay(since)

    def flush(self, timeout: float) -> None:
        self.inner.flush(timeout)

    def close(self) -> None:
        self.inner.close()


class HonestDriver(Noted, Driver):
    """Passes on to a MemoryDriver."""

    name: ClassVar[str] = "memory"
    Options: ClassVar[type[Any]] = MemoryDriver.Options
    Sender: ClassVar[type[HonestSender]] = HonestSender
    Receiver: ClassVar[type[HonestReceiver]] = HonestReceiver
    capabilities: Capabilities = MemoryDriver.capabilities

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        self.inner = MemoryDriver(options)

    @classmethod
    def declared_capabilities(cls) -> Sequence[tuple[str, Capabilities]]:
        return [("saboteur", cls.capabilities)]

    @property
    def server(self) -> MemoryServer:
        return self.inner.native

    def open(self) -> None:
        self.inner.open()

    def declare(self, topology: Topology, create: bool) -> None:
        self.inner.declare(topology, create)

    def assume(self, version: str | None) -> str:
        return self.inner.assume(version)

    def plan(self, topology: Topology, delays: Sequence[float] = ()) -> list[Part]:
        return self.inner.plan(topology, delays)

    def inspect(self, parts: Sequence[Part]) -> list[Finding]:
        return self.inner.inspect(parts)

    def check(self, message: Message, destination: Destination) -> None:
        self.inner.check(message, destination)

    def sender(self, options: ProducerOptions) -> HonestSender:
        return self.Sender(self.inner.sender(options), options, self.server)

    def receiver(self, source: Source, options: ConsumerOptions) -> HonestReceiver:
        return self.Receiver(self.inner.receiver(source, options), source, self.server)

    def depth(self, source: Source) -> int:
        return self.inner.depth(source)

    def purge(self, source: Source) -> None:
        self.inner.purge(source)

    def delete(self, topology: Topology) -> None:
        self.inner.delete(topology)

    def ping(self) -> None:
        self.inner.ping()

    @property
    def native(self) -> MemoryServer:
        return self.inner.native

    def close(self) -> None:
        self.inner.close()

"""The driver and receiver of the memory broker."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any, ClassVar
from weakref import WeakSet

from messaging.capabilities import Capabilities, native, unsupported
from messaging.dead_letter import dead_letter_copy
from messaging.delivery import Delivery, PlainDelivery
from messaging.driver import Driver, Receiver, Replay
from messaging.errors import (
    Closed,
    ConfigurationError,
    LeaseLost,
    MessagingError,
    PublishFailed,
    SettleFailed,
)
from messaging.message import Message
from messaging.options import ConsumerOptions, ProducerOptions
from messaging.plan import Finding, Part
from messaging.rejection import Rejection
from messaging.topology import Source, Topic, Topology
from messaging_memory.parts import inspect, parts_of
from messaging_memory.sender import MemorySender
from messaging_memory.server import RETAIN, MemoryServer
from messaging_memory.store import Entry, Store

log = logging.getLogger(__name__)

_RETRY_REJECT = 1.0
"""Seconds until a message that could not be dead-lettered is delivered again."""

CAPABILITIES = Capabilities(
    queues=native("queue"),
    topics=native("log and a queue a subscription"),
    patterns=native("matched at publish"),
    ordering=native("key locked to one consumer"),
    nack_delay=native("timer"),
    dead_letter=native("queue"),
    delayed_queue=native("heap"),
    delayed_topic=native("heap"),
    ttl=native("checked at delivery"),
    mandatory=native("routing known at publish"),
    lease=native("lease clock"),
    replay=native("topic log"),
    lag=native("exact"),
    transactions=unsupported("memory is lost with the process"),
)


@dataclass(frozen=True)
class MemoryOptions:
    """server: a broker to share, with its own capacity and retain. capacity: messages a queue holds at most.

    retain: messages a topic keeps for replay. lease: default lease in seconds.
    """

    server: Any = None
    capacity: int | None = None
    retain: int = RETAIN
    lease: float = 30.0
    connect_timeout: float = 5.0

    def __post_init__(self) -> None:
        if self.server is not None and (self.capacity is not None or self.retain != RETAIN):
            raise ConfigurationError("memory: capacity and retain are the server's: give them to MemoryServer")
        if self.capacity is not None and self.capacity < 1:
            raise ConfigurationError(f"memory: capacity must be at least 1, not {self.capacity!r}")
        if self.retain < 0:
            raise ConfigurationError(f"memory: retain must be from 0 on, not {self.retain!r}")
        if not 0 < self.lease < float("inf"):
            raise ConfigurationError(f"memory: lease must be a positive number of seconds, not {self.lease!r}")


class MemoryDelivery(PlainDelivery):
    __slots__ = ("lease", "store")

    def __init__(self, settler: MemoryReceiver, source: Source, store: Store, lease: int, entry: Entry) -> None:
        super().__init__(settler, source, entry, entry.attempts)
        self.store = store
        self.lease = lease

    def _load(self) -> Message:
        # A copy, so that what one group does to headers is not seen by another, nor by a redelivery.
        message: Message = self.native.message
        return replace(message, headers=dict(message.headers))


class MemoryReceiver(Receiver):
    """Leases messages to one consumer. A lease is renewed while the consumer is open unless `heartbeat` is off.

    The server's `changed` guards everything in it.
    """

    def __init__(self, server: MemoryServer, source: Source, options: ConsumerOptions, lease: float) -> None:
        self._server = server
        self._source = source
        self._options = options
        # With a heartbeat the lease cannot lapse while this process lives, and with it the memory broker does.
        self._lease = None if options.heartbeat else (options.lease or lease)
        self._held: dict[int, MemoryDelivery] = {}
        self._errors: deque[MessagingError] = deque()
        self._paused = False
        self._closed = False
        self._store = server.store(source)

    def receive(self, max_messages: int, timeout: float) -> list[Delivery]:
        self._check_open()
        deadline = time.monotonic() + timeout
        changed = self._server.changed
        with changed:
            while True:
                if self._closed:
                    return []
                if self._errors:
                    raise self._errors.popleft()
                store = self._current_store()
                change = store.next_change()  # asked before `take`, which then has what became ready in between
                room = min(max_messages, self._options.prefetch - self._unsettled())
                taken = [] if self._paused or room <= 0 else store.take(self, room, self._lease)
                if taken:
                    deliveries = [MemoryDelivery(self, self._source, store, lease, entry) for lease, entry in taken]
                    self._held.update((d.lease, d) for d in deliveries)
                    return list(deliveries)
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    return []
                changed.wait(remaining if change is None else min(remaining, change + 0.001))

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        with self._settling():
            for delivery in self._mine(deliveries):
                delivery.store.remove(delivery.lease)

    def nack(self, deliveries: Sequence[Delivery], delay: float) -> None:
        with self._settling():
            for delivery in self._mine(deliveries):
                delivery.store.give_back(delivery.lease, delay)

    def reject(self, deliveries: Sequence[Delivery], why: Rejection) -> None:
        with self._settling():
            for delivery in self._mine(deliveries):
                if not delivery.store.is_leased(delivery.lease):
                    continue
                try:
                    self._dead_letter(delivery, why)
                except MessagingError as error:
                    delivery.store.give_back(delivery.lease, 0.0 if self._source.ordered else _RETRY_REJECT)
                    self._errors.append(
                        SettleFailed(f"{delivery!r} cannot be dead-lettered: {error}; it is delivered again")
                    )
                else:
                    delivery.store.remove(delivery.lease)

    def extend(self, delivery: Delivery, seconds: float) -> None:
        with self._settling():
            if not isinstance(delivery, MemoryDelivery) or not delivery.store.is_leased(delivery.lease):
                raise LeaseLost(f"{delivery!r}: its lease had run out; it is delivered again")
            if self._lease is not None:  # else the heartbeat keeps it for longer than asked
                delivery.store.extend(delivery.lease, seconds)

    def pause(self) -> None:
        with self._server.changed:
            self._paused = True

    def resume(self) -> None:
        with self._server.changed:
            self._paused = False
            self._server.changed.notify_all()

    def lag(self) -> int:
        return self._server.store(self._source).depth().total

    def now(self) -> float:
        return self._server.clock.now()

    def is_live(self, delivery: Delivery) -> bool:
        with self._server.changed:
            return isinstance(delivery, MemoryDelivery) and delivery.store.is_leased(delivery.lease)

    def replay(self, since: Replay) -> None:
        if isinstance(since, Mapping):
            if set(since) - {0}:
                raise ConfigurationError("replay: a memory topic has one partition, 0")
            if any(not isinstance(offset, int) or offset < 0 for offset in since.values()):
                raise ConfigurationError(f"replay: offsets are whole numbers from 0 on, not {dict(since)!r}")
        self._server.replay(self._source, dict(since) if isinstance(since, Mapping) else since)

    def flush(self, timeout: float) -> None:
        with self._server.changed:
            if self._errors:
                raise self._errors.popleft()

    def close(self) -> None:
        with self._server.changed:
            self._closed = True
            for delivery in self._held.values():
                delivery.store.give_back(delivery.lease, 0.0)
            self._held.clear()
            self._server.changed.notify_all()

    def _current_store(self) -> Store:
        store = self._server.store(self._source)
        if store is not self._store:  # replayed, or deleted and declared again: what is held of the old one is stale
            self._held = {lease: held for lease, held in self._held.items() if held.store is store}
            self._store = store
        return store

    def _unsettled(self) -> int:
        if self._lease is not None:
            for lease in [n for n, held in self._held.items() if not held.store.is_leased(n)]:
                del self._held[lease]
        return len(self._held)

    def _dead_letter(self, delivery: MemoryDelivery, why: Rejection) -> None:
        queue = self._source.dead_letter
        if queue is None:
            log.warning("%r is discarded, because %s has no dead-letter queue: %s", delivery, self._source, why.reason)
        elif self._server.publish(queue, dead_letter_copy(delivery, why), 0.0) is None:
            raise PublishFailed(f"queue {queue.name!r} is full (capacity {self._server.capacity})")

    @contextmanager
    def _settling(self) -> Iterator[None]:
        """A settlement and a close by another thread happen one after the other."""
        with self._server.changed:
            self._check_open()
            yield
            self._server.changed.notify_all()

    def _mine(self, deliveries: Sequence[Delivery]) -> Iterator[MemoryDelivery]:
        """Those of this adapter; each is held no longer once it is settled."""
        for delivery in deliveries:
            if isinstance(delivery, MemoryDelivery):
                yield delivery
                self._held.pop(delivery.lease, None)

    def _check_open(self) -> None:
        if self._closed:
            raise Closed(f"{self._source}: the consumer is closed; what was not settled is delivered again")


class MemoryDriver(Driver):
    name: ClassVar[str] = "memory"
    Options: ClassVar[type[Any]] = MemoryOptions
    capabilities = CAPABILITIES
    in_process: ClassVar[bool] = True

    def __init__(self, options: MemoryOptions) -> None:
        super().__init__(options)
        self._server: MemoryServer = options.server or MemoryServer(capacity=options.capacity, retain=options.retain)
        self._open: WeakSet[MemorySender | MemoryReceiver] = WeakSet()

    @classmethod
    def declared_capabilities(cls) -> Sequence[tuple[str, Capabilities]]:
        return [("memory", CAPABILITIES)]

    @property
    def version(self) -> str:
        return f"anybroker {version('anybroker')}"

    def open(self) -> None:
        if not isinstance(self._server, MemoryServer):
            raise ConfigurationError(f"memory: option 'server' must be a MemoryServer, not {self._server!r}")

    def declare(self, topology: Topology, create: bool) -> None:
        _check_native(topology)
        for destination in topology:
            self._server.declare(destination, create)

    def assume(self, version: str | None) -> str:
        if version is not None:
            raise ConfigurationError(f"the memory broker has no versions, so it cannot be {version!r}")
        return "memory"

    def plan(self, topology: Topology, delays: Sequence[float] = ()) -> list[Part]:
        _check_native(topology)
        return parts_of(topology)

    def inspect(self, parts: Sequence[Part]) -> list[Finding]:
        return inspect(self._server, parts)

    def sender(self, options: ProducerOptions) -> MemorySender:
        sender = MemorySender(self._server, options)
        self._open.add(sender)
        return sender

    def receiver(self, source: Source, options: ConsumerOptions) -> MemoryReceiver:
        receiver = MemoryReceiver(self._server, source, options, self.options.lease)
        self._open.add(receiver)
        return receiver

    def depth(self, source: Source) -> int:
        depth = self._server.store(source).depth()
        return depth.ready + depth.delayed

    def purge(self, source: Source) -> None:
        self._server.store(source).purge()

    def delete(self, topology: Topology) -> None:
        for destination in topology:
            self._server.delete(destination)

    def ping(self) -> None:
        """It lives as long as the process."""

    @property
    def native(self) -> MemoryServer:
        return self._server

    def close(self) -> None:
        for part in list(self._open):
            if isinstance(part, MemoryReceiver):
                part.close()
            else:
                part.close(0.0)


def _check_native(topology: Topology) -> None:
    for destination in topology:
        for holder in (destination, *(destination.subscriptions if isinstance(destination, Topic) else ())):
            if holder.native.get("memory"):
                raise ConfigurationError(f"{destination.name!r}: the memory adapter has no native options")

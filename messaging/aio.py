"""The same interface for asyncio, over the same drivers.

    async with await messaging.aio.connect("rabbitmq://localhost", topology=[orders]) as broker:
        await broker.publish("orders", {"id": 7})
        async with await broker.subscribe("orders", "inventory") as consumer:
            async for delivery in consumer:
                delivery.ack()

Settling is the same plain call as elsewhere: it never blocks. Each broker and consumer belongs to the event loop it
was made on; using it on another raises ConfigurationError. One thread a consumer receives, a batch at a time.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack
from weakref import WeakSet

from messaging import broker as sync
from messaging.capabilities import Capabilities
from messaging.consumer import Consumer
from messaging.delivery import Delivery
from messaging.driver import Replay
from messaging.errors import Closed, ConfigurationError
from messaging.message import MessageFields
from messaging.options import ProducerOptions
from messaging.topology import Destination, Topology

T = TypeVar("T")

_TURN = 0.5
"""Seconds a receiving thread waits in one go."""


async def connect(
    target: str | None = None,
    *,
    topology: Topology | Destination | Iterable[Destination] | None = None,
    create: bool = True,
    config_file: str | Path | None = None,
    **options: Any,
) -> AsyncBroker:
    """As `messaging.connect`, without blocking the event loop."""
    broker = await asyncio.to_thread(
        lambda: sync.connect(target, topology=topology, create=create, config_file=config_file, **options)
    )
    return AsyncBroker(broker)


class _OfOneLoop:
    """Knows the event loop it was made on."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    def _check_loop(self) -> None:
        if asyncio.get_running_loop() is not self._loop:
            raise ConfigurationError("this belongs to another event loop: connect again on this one")

    async def _call(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        self._check_loop()
        return await asyncio.to_thread(function, *args, **kwargs)


class AsyncBroker(_OfOneLoop):
    """As `messaging.Broker`. Publishing waits, instead of blocking, while `max_in_flight` messages are unconfirmed."""

    def __init__(self, broker: sync.Broker, options: ProducerOptions | None = None) -> None:
        super().__init__()
        self.sync = broker
        """The broker underneath, for what is not mirrored here."""
        chosen = options or ProducerOptions()
        self._producer = broker.producer(timeout=chosen.timeout, max_in_flight=chosen.max_in_flight, on_full="raise")
        self._slots = asyncio.Semaphore(chosen.max_in_flight)
        self._consumers: WeakSet[AsyncConsumer] = WeakSet()

    @property
    def name(self) -> str:
        return self.sync.name

    @property
    def capabilities(self) -> Capabilities:
        return self.sync.capabilities

    async def declare(self, topology: Topology | Destination | Iterable[Destination]) -> None:
        """As `Broker.declare`."""
        await self._call(self.sync.declare, topology)

    async def publish(
        self,
        destination: str | Destination,
        value: Any,
        *,
        delay: float = 0.0,
        mandatory: bool = False,
        timeout: float | None = None,
        **fields: Unpack[MessageFields],
    ) -> str:
        """As `Producer.publish`: returns the id once the broker confirmed. Cancelling does not unpublish."""
        self._check_loop()
        if timeout is not None:
            return await self._call(
                self.sync.publish, destination, value, delay=delay, mandatory=mandatory, timeout=timeout, **fields
            )
        if not isinstance(destination, str):
            if self.sync.topology.get(destination.name) != destination:
                await self.declare(destination)
            destination = destination.name
        await self._slots.acquire()
        try:
            future = self._producer.publish_nowait(destination, value, delay=delay, mandatory=mandatory, **fields)
        except BaseException:
            self._slots.release()
            raise
        confirmed = asyncio.wrap_future(future)
        # Released by the outcome and not by this task, which may be cancelled while the message is in flight.
        confirmed.add_done_callback(lambda _confirmed: self._slots.release())
        return await asyncio.shield(confirmed)

    async def publish_many(
        self, destination: str | Destination, items: Iterable[Any], *, delay: float = 0.0, timeout: float | None = None
    ) -> list[str]:
        """As `Producer.publish_many`."""
        return await self._call(self.sync.publish_many, destination, items, delay=delay, timeout=timeout)

    async def subscribe(
        self, destination: str | Destination, group: str | None = None, *, pattern: str | None = None, **options: Any
    ) -> AsyncConsumer:
        """As `Broker.subscribe`."""
        return self._own(await self._call(self.sync.subscribe, destination, group, pattern=pattern, **options))

    async def dead_letters(
        self, destination: str | Destination, group: str | None = None, **options: Any
    ) -> AsyncConsumer:
        """As `Broker.dead_letters`."""
        return self._own(await self._call(self.sync.dead_letters, destination, group, **options))

    def _own(self, consumer: Consumer) -> AsyncConsumer:
        owned = AsyncConsumer(consumer)
        self._consumers.add(owned)
        return owned

    async def depth(self, destination: str | Destination, group: str | None = None) -> int:
        """As `Broker.depth`."""
        return await self._call(self.sync.depth, destination, group)

    async def flush(self, timeout: float | None = None) -> None:
        """As `Broker.flush`."""
        await self._call(self.sync.flush, timeout)

    async def delete(self, topology: Topology | Destination | Iterable[Destination]) -> None:
        """As `Broker.delete`."""
        await self._call(self.sync.delete, topology)

    async def ping(self) -> None:
        """As `Broker.ping`."""
        await self._call(self.sync.ping)

    async def close(self) -> None:
        """As `Broker.close`."""
        await self._call(self.sync.close)
        for consumer in list(self._consumers):
            consumer.end()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class AsyncConsumer(_OfOneLoop):
    """As `messaging.Consumer`; one task at a time receives.

    `_pending` is the receive that the thread is in. A cancelled task leaves it there for the next one, so nothing
    that was delivered is forgotten.
    """

    def __init__(self, consumer: Consumer) -> None:
        super().__init__()
        self.sync = consumer
        """The consumer underneath, for what is not mirrored here."""
        self._executor = ThreadPoolExecutor(1, "messaging-receive")
        self._pending: asyncio.Future[list[Delivery]] | None = None
        self._left: deque[Delivery] = deque()
        self._turn = asyncio.Lock()

    async def receive(self, max_messages: int = 100, timeout: float = 1.0) -> list[Delivery]:
        """As `Consumer.receive`."""
        self._check_loop()
        deadline = self._loop.time() + timeout
        async with self._turn:
            while not self._left or self.sync.paused:
                remaining = deadline - self._loop.time()
                if remaining <= 0 and self._pending is None and timeout > 0:
                    return []
                await self._wait(max_messages, max(remaining, 0.0))
                if remaining <= 0:
                    break
            if self.sync.closed:  # what is left was given back to the broker
                self._left.clear()
                raise Closed(f"receive from {self.sync.source}: the consumer is closed")
            if self.sync.paused:
                return []
            return [self._left.popleft() for _ in range(min(max_messages, len(self._left)))]

    async def _wait(self, max_messages: int, timeout: float) -> None:
        if self._pending is None:
            if self.sync.closed:
                raise Closed(f"receive from {self.sync.source}: the consumer is closed")
            self._pending = self._loop.run_in_executor(
                self._executor, self.sync.receive, max_messages, min(timeout, _TURN)
            )
        pending = self._pending
        try:
            self._left.extend(await asyncio.shield(pending))
        except asyncio.CancelledError:
            raise
        except BaseException:
            self._pending = None
            raise
        self._pending = None

    async def __aiter__(self) -> AsyncIterator[Delivery]:
        """Yields deliveries until the consumer is closed."""
        while True:
            try:
                deliveries = await self.receive(self.sync.batch, _TURN)
            except Closed:
                return
            # Kept for whoever receives next: a loop that is left early does not end this generator at once.
            self._left.extendleft(reversed(deliveries))
            while self._left and not (self.sync.closed or self.sync.paused):
                yield self._left.popleft()

    def pause(self) -> None:
        """As `Consumer.pause`."""
        self.sync.pause()

    def resume(self) -> None:
        """As `Consumer.resume`."""
        self.sync.resume()

    async def lag(self) -> int:
        """As `Consumer.lag`."""
        return await self._call(self.sync.lag)

    async def replay(self, since: Replay | datetime) -> None:
        """As `Consumer.replay`."""
        self._check_loop()
        if self._pending is not None:  # of a receive that was cancelled: what it brings is from before
            await asyncio.wait([self._pending])
            self._pending = None
        self._left.clear()
        await self._call(self.sync.replay, since)

    async def flush(self, timeout: float = 10.0) -> None:
        """As `Consumer.flush`."""
        await self._call(self.sync.flush, timeout)

    async def close(self) -> None:
        """As `Consumer.close`; ends a receive that waits."""
        await self._call(self.sync.close)
        self.end()

    def end(self) -> None:
        """Lets the thread that receives end. Called when the consumer is closed."""
        self._executor.shutdown(wait=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

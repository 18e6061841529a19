"""FastStream's work, whichever broker: one event loop a run, publishes gathered by the thousand."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from benchmarks.contender import PAUSE, PAYLOAD, Contender, Meter, Role, Run

BODY = PAYLOAD
_WAIT = 60.0


class FastStreamRuns(Contender, ABC):
    """`apply_types=False` and no logger: its fastest settings."""

    role = Role.PEER
    carries = "correlation id, content type"

    @abstractmethod
    def broker(self) -> Any:
        """A new FastStream broker, not started."""

    @abstractmethod
    def subscriber(self, broker: Any, name: str) -> Callable[[Any], Any]:
        """The decorator for a handler that acks after it returned."""

    @abstractmethod
    async def publish(self, broker: Any, name: str) -> None:
        """One message, confirmed when this returns."""

    def publish_many(self, name: str, count: int) -> Run:
        async def work() -> Run:
            async with self._started() as broker:
                await self.publish(broker, name)  # warms up: connection, metadata
                start = time.perf_counter()
                for first in range(0, count, self.settings.window):
                    batch = range(min(self.settings.window, count - first))
                    await asyncio.gather(*(self.publish(broker, name) for _ in batch))
                return Run(count, time.perf_counter() - start)

        return asyncio.run(work())

    def publish_each(self, name: str, count: int) -> Run:
        async def work() -> Run:
            async with self._started() as broker:
                await self.publish(broker, name)  # warms up: connection, metadata
                start = time.perf_counter()
                for _ in range(count):
                    await self.publish(broker, name)
                return Run(count, time.perf_counter() - start)

        return asyncio.run(work())

    def consume(self, name: str, count: int) -> Run:
        meter, runs = Meter(count), []

        async def work() -> Run:
            done = asyncio.Event()

            def received(messages: int) -> None:
                meter.add(messages)
                if meter.done and not runs:
                    runs.append(meter.run())
                    done.set()

            broker = self.broker()
            self.subscriber(broker, name)(self.handler(received))
            async with _running(broker):
                await asyncio.wait_for(done.wait(), _WAIT)
            return runs[0]

        return asyncio.run(work())

    def handler(self, received: Callable[[int], None]) -> Callable[[Any], Awaitable[None]]:
        """A handler that looks at the body and tells how many messages it got."""

        async def handle(body: Any) -> None:
            len(body)
            received(1)

        return handle

    def latencies(self, name: str, count: int) -> list[float]:
        async def work() -> list[float]:
            arrived = asyncio.Event()
            at = 0.0

            async def handle(_body: Any) -> None:
                nonlocal at
                at = time.perf_counter()
                arrived.set()

            broker = self.broker()
            self.subscriber(broker, name)(handle)
            times = []
            warm_up = max(count // 10, 1)
            async with _running(broker):
                for number in range(count + warm_up):
                    arrived.clear()
                    await asyncio.sleep(PAUSE)
                    start = time.perf_counter()
                    await self.publish(broker, name)
                    await asyncio.wait_for(arrived.wait(), _WAIT)
                    if number >= warm_up:
                        times.append(at - start)
            return times

        return asyncio.run(work())

    @asynccontextmanager
    async def _started(self) -> AsyncIterator[Any]:
        broker = self.broker()
        async with _running(broker):
            yield broker


@asynccontextmanager
async def _running(broker: Any) -> AsyncIterator[None]:
    await broker.start()
    try:
        yield
    finally:
        await broker.stop()

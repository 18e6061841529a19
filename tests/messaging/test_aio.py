"""The asyncio side's own bookkeeping: what was taken and not handed out, loops, and generators that are left."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from messaging import Closed, ConfigurationError, Queue, Topic, aio


@asynccontextmanager
async def consumer_of(*values: object) -> AsyncIterator[aio.AsyncConsumer]:
    async with await aio.connect("memory://", topology=Queue("q")) as broker:
        consumer = await broker.subscribe("q")
        await broker.publish_many("q", values)
        yield consumer


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(coroutine, 30))


async def first(consumer: aio.AsyncConsumer) -> Any:
    async for delivery in consumer:
        delivery.ack()
        return delivery.value
    return None


def test_a_loop_left_early_keeps_the_rest_in_order() -> None:
    async def check() -> None:
        async with consumer_of(1, 2, 3) as consumer:
            assert await first(consumer) == 1
            assert [delivery.value for delivery in await consumer.receive(10, 1)] == [2, 3]

    run(check())


def test_two_loops_after_each_other_share_what_is_left() -> None:
    async def check() -> None:
        async with consumer_of(1, 2, 3) as consumer:
            assert [await first(consumer) for _ in range(3)] == [1, 2, 3]
            gc.collect()
            assert await consumer.receive(10, 0) == []

    run(check())


def test_after_close_nothing_left_is_handed_out() -> None:
    async def check() -> None:
        async with consumer_of(1, 2, 3) as consumer:
            assert await first(consumer) == 1
            await consumer.close()
            with pytest.raises(Closed):
                await consumer.receive(10, 0)
            assert [delivery async for delivery in consumer] == []

    run(check())


def test_while_paused_nothing_left_is_handed_out() -> None:
    async def check() -> None:
        async with consumer_of(1, 2) as consumer:
            assert await first(consumer) == 1
            consumer.pause()
            assert await consumer.receive(10, 0.05) == []
            assert await consumer.receive(10, 0) == []
            consumer.resume()
            assert [delivery.value for delivery in await consumer.receive(10, 5)] == [2]

    run(check())


def test_another_loop_is_refused_everywhere() -> None:
    async def make() -> tuple[aio.AsyncBroker, aio.AsyncConsumer]:
        broker = await aio.connect("memory://", topology=Queue("q"))
        return broker, await broker.subscribe("q")

    broker, consumer = asyncio.run(make())

    async def use() -> None:
        for call in (
            broker.publish("q", 1),
            broker.publish_many("q", [1]),
            broker.subscribe("q"),
            broker.ping(),
            consumer.receive(1, 0),
            consumer.flush(),
        ):
            with pytest.raises(ConfigurationError, match="another event loop"):
                await call

    run(use())
    broker.sync.close()


def test_replay_forgets_what_a_cancelled_receive_brings() -> None:
    async def check() -> None:
        async with await aio.connect("memory://", topology=Topic("t", "g")) as broker:
            consumer = await broker.subscribe("t", "g")
            waiting = asyncio.create_task(consumer.receive(10, 10))
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            await broker.publish_many("t", [1, 2, 3])
            await consumer.replay("beginning")
            values = []
            while batch := await consumer.receive(10, 0.2):
                values += [delivery.value for delivery in batch]
                await asyncio.to_thread(consumer.sync.ack, batch)
            assert values == [1, 2, 3]

    run(check())

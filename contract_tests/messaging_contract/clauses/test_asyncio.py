"""The interface for asyncio: the same behaviour on an event loop, which is never blocked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

import pytest

from messaging import Closed, MessagingError
from messaging.aio import AsyncBroker
from messaging_contract.bench import Bench
from messaging_contract.clause import QUEUE, clause


@clause(
    "asyncio.round-trip",
    "Publishing, receiving and settling on an event loop: the same messages, the same results.",
    anchors=[1, 2],
)
def test_round_trip(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    group = source.subscription.group if source.subscription else None

    async def run() -> None:
        async with AsyncBroker(bench.connect(topology=source.destination)) as broker:
            consumer = await broker.subscribe(source.destination, group)
            message = ledger.message()
            assert await broker.publish(source.destination, message) == message.id
            ledger.confirm(message.id)
            more = ledger.messages(5)
            ledger.confirm(await broker.publish_many(source.destination, more))
            while ledger.missing:
                batch = ledger.receive(await consumer.receive(10, 30))
                assert batch
                for delivery in batch:
                    delivery.ack()
            await consumer.flush()
            assert await consumer.receive(10, 0.05) == []
            await consumer.close()
            with pytest.raises(Closed):
                await consumer.receive(1, 0)

    _run(run())
    bench.quiet(bench.consume(source), ledger)
    ledger.check()


@clause(
    "asyncio.many-at-once",
    "Many coroutines publishing at once lose nothing; the loop keeps turning meanwhile.",
    anchors=[4],
    on=QUEUE,
)
def test_many_at_once(bench: Bench) -> None:
    queue, ledger = bench.queue(), bench.ledger()

    async def run() -> float:
        async with AsyncBroker(bench.connect(topology=queue)) as broker:
            longest = 0.0
            done = asyncio.Event()

            async def watch() -> None:
                nonlocal longest
                while not done.is_set():
                    before = time.monotonic()
                    await asyncio.sleep(0.01)
                    longest = max(longest, time.monotonic() - before)

            watching = asyncio.create_task(watch())
            messages = ledger.messages(bench.volume(100))
            ledger.confirm(await asyncio.gather(*(broker.publish(queue, message) for message in messages)))
            done.set()
            await watching
            return longest

    assert _run(run()) < 2.0
    bench.take(bench.consume(queue), ledger, ack=True)
    ledger.check()


@clause(
    "asyncio.cancel-receive",
    "Cancelling a waiting receive returns promptly and loses no message.",
    anchors=[32],
    on=QUEUE,
)
def test_cancel_receive(bench: Bench) -> None:
    queue, ledger = bench.queue(), bench.ledger()

    async def run() -> None:
        async with AsyncBroker(bench.connect(topology=queue)) as broker:
            consumer = await broker.subscribe(queue)
            waiting = asyncio.create_task(consumer.receive(1, 60))
            await asyncio.sleep(0.2)
            started = time.monotonic()
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert time.monotonic() - started < 5
            ledger.confirm(await broker.publish_many(queue, ledger.messages(3)))
            while ledger.missing:
                batch = ledger.receive(await consumer.receive(10, 30))
                assert batch
                await asyncio.sleep(0)
                for delivery in batch:
                    delivery.ack()

    _run(run())
    bench.quiet(bench.consume(queue), ledger)
    ledger.check()


@clause(
    "asyncio.iteration", "async for yields messages and ends when the consumer is closed.", anchors=[26, 127], on=QUEUE
)
def test_iteration(bench: Bench) -> None:
    queue, ledger = bench.queue(), bench.ledger()

    async def run() -> None:
        async with AsyncBroker(bench.connect(topology=queue)) as broker:
            consumer = await broker.subscribe(queue)
            ledger.confirm(await broker.publish_many(queue, ledger.messages(4)))

            async def close_when_done() -> None:
                while ledger.missing:
                    await asyncio.sleep(0.02)
                await consumer.flush()
                await consumer.close()

            closing = asyncio.create_task(close_when_done())
            async for delivery in consumer:
                ledger.receive([delivery])
                delivery.ack()
            await closing

    _run(run())
    ledger.check()


@clause("asyncio.two-loops", "A broker used from another event loop than its own says so instead of hanging.", on=QUEUE)
def test_two_loops(bench: Bench) -> None:
    queue = bench.queue()

    async def make() -> AsyncBroker:
        return AsyncBroker(bench.connect(topology=queue))

    broker = _run(make())

    async def use() -> None:
        with pytest.raises((MessagingError, RuntimeError), match="loop"):
            await broker.publish(queue, 1)

    _run(use())


def _run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    async def bounded() -> Any:
        return await asyncio.wait_for(coroutine, 80)

    return asyncio.run(bounded())

"""The interface for asyncio: the same behaviour on an event loop, which is never blocked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

import pytest

from messaging import Closed, MessagingError
from messaging.aio import AsyncBroker, AsyncConsumer
from messaging.options import ProducerOptions
from messaging_contract.bench import Bench
from messaging_contract.clause import QUEUE, clause


@clause(
    "asyncio.round-trip",
    "Publishing, receiving and settling on an event loop: the same messages, the same results.",
    anchors=[1, 2],
)
def test_round_trip(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    group = source.group

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
    "Many coroutines publishing at once lose nothing.",
    anchors=[4],
    on=QUEUE,
)
def test_many_at_once(bench: Bench) -> None:
    queue, ledger = bench.queue(), bench.ledger()

    async def run() -> None:
        async with AsyncBroker(bench.connect(topology=queue)) as broker:
            messages = ledger.messages(bench.volume(100))
            ledger.confirm(await asyncio.gather(*(broker.publish(queue, message) for message in messages)))

    _run(run())
    bench.take(bench.consume(queue), ledger, ack=True)
    ledger.check()


@clause(
    "asyncio.loop-goes-on",
    "The event loop goes on while a receive waits: what another task publishes meanwhile ends the wait.",
    anchors=[38],
    on=QUEUE,
)
def test_loop_goes_on(bench: Bench) -> None:
    queue, ledger = bench.queue(), bench.ledger()

    async def run() -> None:
        async with AsyncBroker(bench.connect(topology=queue)) as broker:
            consumer = await broker.subscribe(queue)
            waiting = asyncio.create_task(consumer.receive(1, 60))
            await asyncio.sleep(0.1)
            assert not waiting.done()
            started = time.monotonic()
            ledger.confirm(await broker.publish(queue, ledger.message()))
            for delivery in ledger.receive(await waiting):
                delivery.ack()
            assert time.monotonic() - started < 10

    _run(run())
    ledger.check()


@clause(
    "asyncio.cancel-publish",
    "Cancelling a publish neither unpublishes the message nor takes its place in the producer's window for ever.",
    anchors=[9, 147],
    on=QUEUE,
)
def test_cancel_publish(bench: Bench) -> None:
    queue, ledger = bench.queue(), bench.ledger()

    async def run() -> None:
        sync = bench.connect(topology=queue)
        async with AsyncBroker(sync, ProducerOptions(max_in_flight=2)) as broker:
            for message in ledger.messages(6):
                publishing = asyncio.create_task(broker.publish(queue, message))
                await asyncio.sleep(0)
                publishing.cancel()
                with suppress(asyncio.CancelledError):
                    await publishing
            ledger.confirm(await asyncio.gather(*(broker.publish(queue, m) for m in ledger.messages(6))))

    _run(run())
    bench.take(bench.consume(queue), ledger, ack=True)
    ledger.check(recovered=True)


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


@clause(
    "asyncio.loop-left-early",
    "async for may be left early: what it did not hand out is kept for the next receive, and held back by pause.",
    anchors=[26, 30],
    on=QUEUE,
)
def test_loop_left_early(bench: Bench) -> None:
    queue, ledger = bench.queue(), bench.ledger()

    async def run() -> None:
        async with AsyncBroker(bench.connect(topology=queue)) as broker:
            consumer = await broker.subscribe(queue)
            ledger.confirm(await broker.publish_many(queue, ledger.messages(5)))
            async for delivery in consumer:
                ledger.receive([delivery])
                delivery.ack()
                break
            consumer.pause()
            assert await consumer.receive(10, bench.harness.quiet) == []
            consumer.resume()
            while ledger.missing:
                batch = ledger.receive(await consumer.receive(10, 30))
                assert batch, f"{len(ledger.missing)} messages were lost with the loop"
                for delivery in batch:
                    delivery.ack()

    _run(run())
    bench.quiet(bench.consume(queue), ledger)
    ledger.check()


@clause(
    "asyncio.close-ends-receive",
    "Closing a consumer ends a receive that waits in another task, and what it held is delivered again.",
    anchors=[32, 46, 127],
    on=QUEUE,
)
def test_close_ends_receive(bench: Bench) -> None:
    queue, ledger = bench.queue(), bench.ledger()

    async def run() -> None:
        async with AsyncBroker(bench.connect(topology=queue)) as broker:
            consumer = await broker.subscribe(queue)
            ledger.confirm(await broker.publish_many(queue, ledger.messages(4)))
            held = await consumer.receive(1, 30)
            assert held
            waiting = asyncio.create_task(_receive_until_closed(consumer))
            await asyncio.sleep(0.1)
            await consumer.close()
            await waiting
            with pytest.raises(Closed):
                held[0].ack()

    _run(run())
    bench.take(bench.consume(queue), ledger, ack=True)
    ledger.check()


async def _receive_until_closed(consumer: AsyncConsumer) -> None:
    with pytest.raises(Closed):
        while True:
            await consumer.receive(10, 60)


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

"""How a worker ends: when it is told to, by its handler, and with what it still holds."""

from __future__ import annotations

import asyncio
from threading import Event, Timer

import pytest

from messaging import Delivery, RetryPolicy
from messaging_contract.bench import Bench
from messaging_contract.clause import QUEUE, clause
from messaging_contract.clauses.handlers import AT_ONCE, worker_for


@clause(
    "retry.stop-waits",
    "stop waits for handlers that are running; what was received and not started is left for others, undamaged.",
    anchors=[51, 125, 130],
    failures=[7],
)
def test_stop_waits(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    started, go_on = Event(), Event()

    def handle(delivery: Delivery) -> None:
        started.set()
        go_on.wait(20)
        ledger.receive([delivery])

    worker = worker_for(bench, source, handle)
    worker.start()
    ledger.publish(bench.broker, source.destination, ledger.messages(6))
    assert started.wait(30)
    timer = Timer(bench.seconds(0.5), go_on.set)
    timer.start()
    assert worker.stop(20)
    assert go_on.is_set(), "stop did not wait for the handler"
    timer.join()
    assert ledger.received
    consumer = bench.consume(source)
    bench.take(consumer, ledger, ack=True)
    ledger.check()
    if bench.able.dead_letter:
        assert bench.dead_letter_depth(source) == 0


@clause(
    "retry.stop-deadline",
    "A handler that does not end by the deadline of stop settles nothing: its message is delivered again.",
    anchors=[51, 126],
    failures=[7],
    on=QUEUE,
)
def test_stop_deadline(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    started, go_on = Event(), Event()

    def handle(_delivery: Delivery) -> None:
        started.set()
        go_on.wait(60)

    worker = worker_for(bench, source, handle)
    worker.start()
    ledger.publish_one(bench.broker, source.destination, ledger.message())
    assert started.wait(30)
    assert not worker.stop(0.3)
    go_on.set()
    bench.take(bench.consume(source), ledger, ack=True)
    ledger.check()


@clause(
    "retry.async-stop-deadline",
    "A coroutine handler that does not end by the deadline of stop is cancelled; its message is delivered again.",
    anchors=[51, 126],
    failures=[7],
    on=QUEUE,
)
def test_async_stop_deadline(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    started, cancelled = Event(), Event()

    async def handle(_delivery: Delivery) -> None:
        started.set()
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    worker = worker_for(bench, source, handle, retry=RetryPolicy(attempts=1))
    worker.start()
    ledger.publish_one(bench.broker, source.destination, ledger.message())
    assert started.wait(30)
    assert not worker.stop(0.1)
    assert cancelled.is_set()
    bench.take(bench.consume(source), ledger, ack=True)
    ledger.check()
    if bench.able.dead_letter:
        assert bench.dead_letter_depth(source) == 0


@clause(
    "retry.cancelled-inside",
    "What a coroutine handler awaits being cancelled is a failure of the handler like any other.",
    anchors=[50],
    on=QUEUE,
)
def test_cancelled_inside(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()

    async def handle(delivery: Delivery) -> None:
        if delivery.attempt == 1:
            inner = asyncio.ensure_future(asyncio.sleep(600))
            inner.cancel()
            await inner
        ledger.receive([delivery])

    with worker_for(bench, source, handle, retry=AT_ONCE):
        ledger.publish_one(bench.broker, source.destination, ledger.message())
        bench.eventually(lambda: not ledger.missing, "the message to be handled again")
    bench.quiet(bench.consume(source), ledger)
    ledger.check()


@clause(
    "retry.no-failure",
    "What is no Exception, such as SystemExit, ends the worker and settles nothing: the message is delivered again.",
    anchors=[50, 51],
    failures=[6],
    on=QUEUE,
)
def test_no_failure(bench: Bench) -> None:
    for asynchronous in (False, True):
        for concurrency in (1, 4):
            _ends_the_worker(bench, asynchronous, concurrency)


def _ends_the_worker(bench: Bench, asynchronous: bool, concurrency: int) -> None:
    source, ledger = bench.source(), bench.ledger(f"m{concurrency}{asynchronous}")
    handled: list[str] = []

    def handle(delivery: Delivery) -> None:
        handled.append(delivery.id)
        raise SystemExit(3)

    async def handle_async(delivery: Delivery) -> None:
        handle(delivery)

    worker = worker_for(
        bench,
        source,
        handle_async if asynchronous else handle,
        retry=RetryPolicy(attempts=1),
        concurrency=concurrency,
    )
    ledger.publish(bench.broker, source.destination, ledger.messages(2, keys=1))
    with pytest.raises(SystemExit) as raised:
        worker.run()
    assert raised.value.code == 3
    assert len(handled) == 1, "the next message of the key was handled though nothing became of the one before"
    bench.take(bench.consume(source), ledger, ack=True)
    ledger.check()
    if bench.able.dead_letter:
        assert bench.dead_letter_depth(source) == 0


@clause(
    "retry.handler-stops-the-worker",
    "A handler may ask its worker to stop: run returns, that message is done and the others are left for others.",
    anchors=[26, 130],
    on=QUEUE,
)
def test_handler_stops_the_worker(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    handled: list[str] = []

    def handle(delivery: Delivery) -> None:
        handled.append(delivery.id)
        ledger.receive([delivery])
        worker.request_stop()

    worker = worker_for(bench, source, handle)
    ledger.publish(bench.broker, source.destination, ledger.messages(3))
    worker.run()
    assert handled
    bench.take(bench.consume(source), ledger, ack=True)
    ledger.check()


@clause(
    "retry.start-again",
    "A worker that was stopped can be started again; stop before start does nothing.",
    anchors=[122, 129],
    on=QUEUE,
)
def test_start_again(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    worker = worker_for(bench, source, lambda delivery: ledger.receive([delivery]))
    assert worker.stop(1)
    for _ in range(2):
        worker.start()
        ledger.publish(bench.broker, source.destination, ledger.messages(3))
        bench.eventually(lambda: not ledger.missing, "all to be handled")
        assert worker.stop(20)
    assert worker.stop(1)
    ledger.check()

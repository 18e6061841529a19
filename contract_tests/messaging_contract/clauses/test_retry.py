"""The worker: retries under a policy, dead letters at the end of it, and an orderly stop."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from threading import Event, Lock, Timer
from typing import Any

import pytest

from messaging import Delivery, RetryPolicy, Worker
from messaging.dead_letter import ATTEMPTS, REASON
from messaging.topology import Source
from messaging_contract.bench import Bench
from messaging_contract.clause import QUEUE, clause
from messaging_contract.ledger import Ledger

AT_ONCE = RetryPolicy(attempts=4, delays=(0.0,))


class Failing:
    """A handler that notes its calls and fails as told. `_lock` guards the notes."""

    def __init__(self, ledger: Ledger, fails: Callable[[Delivery], bool]) -> None:
        self._ledger = ledger
        self._fails = fails
        self._lock = Lock()
        self.attempts: dict[str, list[int]] = {}
        self.times: dict[str, list[float]] = {}
        self.done: Counter[str] = Counter()

    def __call__(self, delivery: Delivery) -> None:
        with self._lock:
            self.attempts.setdefault(delivery.id, []).append(delivery.attempt)
            self.times.setdefault(delivery.id, []).append(time.monotonic())
            if self._fails(delivery):
                raise RuntimeError("told to fail")
            self.done[delivery.id] += 1
            self._ledger.receive([delivery])


def _worker(bench: Bench, source: Source, handler: Any, **options: Any) -> Worker:
    worker = Worker(bench.broker)
    group = source.subscription.group if source.subscription else None
    worker.on(source.destination, group, **options)(handler)
    return worker


@clause(
    "retry.succeeds-later",
    "A handler that fails twice and then succeeds is called for attempts 1, 2 and 3, and the message is done.",
    anchors=[50, 79],
)
def test_succeeds_later(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    handler = Failing(ledger, lambda delivery: delivery.attempt < 3)
    message = ledger.message()
    with _worker(bench, source, handler, retry=AT_ONCE):
        ledger.publish_one(bench.broker, source.destination, message)
        bench.eventually(lambda: bool(handler.done), "the handler to succeed")
    assert handler.attempts == {message.id: [1, 2, 3]}
    bench.quiet(bench.consume(source), ledger)
    ledger.check()


@clause(
    "retry.exhausted",
    "A message that fails as often as the policy allows is in the dead-letter queue, and gone from its source.",
    anchors=[80, 82],
    failures=[23],
    needs="dead_letter",
)
def test_exhausted(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    handler = Failing(ledger, lambda _delivery: True)
    message = ledger.message({"poison": True}, headers={"h": "v"})
    with _worker(bench, source, handler, retry=RetryPolicy(attempts=3, delays=(0.0,))):
        ledger.publish_one(bench.broker, source.destination, message)
        dead = bench.one(bench.dead_letters(source), ledger)
    assert handler.attempts == {message.id: [1, 2, 3]}
    assert (dead.id, dead.value, dead.headers["h"]) == (message.id, {"poison": True}, "v")
    assert dead.headers[ATTEMPTS] == "3"
    assert "RuntimeError" in dead.headers[REASON]
    dead.ack()
    bench.quiet(bench.consume(source), ledger)
    bench.eventually(lambda: bench.depth(source) == 0, "a depth of 0")


@clause(
    "retry.never",
    "An error type that is not to be retried, and a body that cannot be decoded, are dead-lettered at attempt 1.",
    anchors=[81, 85, 109],
    failures=[24],
    needs="dead_letter",
)
def test_never(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    handled = []

    def handle(delivery: Delivery) -> None:
        handled.append(delivery.id)
        if delivery.value == "forbidden":
            raise PermissionError("never allowed")

    policy = RetryPolicy(attempts=5, delays=(0.0,), never=(*RetryPolicy().never, PermissionError))
    wrong = [ledger.message("forbidden"), ledger.message(b"{broken", content_type="application/json")]
    fine = ledger.message("fine")
    with _worker(bench, source, handle, retry=policy):
        ledger.publish(bench.broker, source.destination, [*wrong, fine])
        dead = bench.take(bench.dead_letters(source), ledger, 2, ack=True)
        bench.eventually(lambda: fine.id in handled, "the good message to be handled")
    assert {delivery.id for delivery in dead} == {message.id for message in wrong}
    assert {delivery.headers[ATTEMPTS] for delivery in dead} == {"1"}
    assert sorted(handled) == sorted([*(message.id for message in wrong), fine.id])


@clause(
    "retry.back-off",
    "Retries follow the delays of the policy, never earlier.",
    anchors=[87, 93],
    on=QUEUE,
    needs="nack_delay",
)
def test_back_off(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    handler = Failing(ledger, lambda delivery: delivery.attempt < 3)
    message = ledger.message()
    delays = (bench.seconds(0.3), bench.seconds(1.0))
    with _worker(bench, source, handler, retry=RetryPolicy(attempts=5, delays=delays)):
        ledger.publish_one(bench.broker, source.destination, message)
        bench.eventually(lambda: bool(handler.done), "the handler to succeed")
    first, second, third = handler.times[message.id]
    assert second - first >= delays[0] * 0.99
    assert third - second >= delays[1] * 0.99


@clause(
    "retry.others-go-on",
    "A message that fails and waits for its retry does not stop the others.",
    anchors=[88],
    failures=[24],
    needs="nack_delay",
)
def test_others_go_on(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    poison, *others = ledger.messages(8)
    handler = Failing(ledger, lambda delivery: delivery.id == poison.id)
    longer_than_anybody_waits = RetryPolicy(attempts=3, delays=(4 * bench.patience,))
    with _worker(bench, source, handler, retry=longer_than_anybody_waits):
        ledger.publish_one(bench.broker, source.destination, poison)
        bench.eventually(lambda: poison.id in handler.attempts, "the first message to fail")
        ledger.publish(bench.broker, source.destination, others)
        bench.eventually(lambda: ledger.missing == {poison.id}, "all the others to be handled")
    assert handler.attempts[poison.id] == [1]
    ledger.check(only=[message.id for message in others])


@clause(
    "retry.periodic-errors",
    "With a handler that fails every third call nothing is lost and nothing done twice.",
    anchors=[150, 58],
)
def test_periodic_errors(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    calls = iter(range(1, 10_000))
    handler = Failing(ledger, lambda _delivery: next(calls) % 3 == 0)
    with _worker(bench, source, handler, retry=RetryPolicy(attempts=30, delays=(0.0,)), concurrency=4):
        ledger.publish(bench.broker, source.destination, ledger.messages(30, keys=10))
        bench.eventually(lambda: not ledger.missing, "all to be handled")
    bench.quiet(bench.consume(source), ledger)
    ledger.check()


@clause(
    "retry.one-settlement",
    "A handler that settles the message itself has the last word, also when it then fails.",
    anchors=[44, 50],
    on=QUEUE,
)
def test_one_settlement(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    acked, nacked = ledger.message("ack"), ledger.message("nack")
    calls: Counter[str] = Counter()

    def handle(delivery: Delivery) -> None:
        calls[delivery.id] += 1
        if delivery.value == "ack":
            delivery.ack()
            raise RuntimeError("after the ack")
        if delivery.attempt == 1:
            delivery.nack()
        ledger.receive([delivery])

    with _worker(bench, source, handle, retry=AT_ONCE):
        ledger.publish(bench.broker, source.destination, [acked, nacked])
        bench.eventually(lambda: calls[nacked.id] == 2, "the nacked message to be handled again")
    bench.quiet(bench.consume(source), ledger)
    assert calls == {acked.id: 1, nacked.id: 2}


@clause(
    "retry.concurrency",
    "A worker handles as many messages at a time as it was told, and never more.",
    anchors=[27],
)
def test_concurrency(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    running, most = 0, 0
    lock, three = Lock(), Event()

    def handle(delivery: Delivery) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
            if running == 3:
                three.set()
        three.wait(20)
        with lock:
            running -= 1
        ledger.receive([delivery])

    with _worker(bench, source, handle, concurrency=3):
        ledger.publish(bench.broker, source.destination, ledger.messages(9, keys=9))
        bench.eventually(lambda: not ledger.missing, "all to be handled")
    assert most == 3
    ledger.check()


@clause(
    "retry.keys-in-order",
    "With many handlers at a time the messages of a key are still handled one after the other, in order.",
    anchors=[48, 62],
    failures=[22],
    needs="ordering",
)
def test_keys_in_order(bench: Bench) -> None:
    source, ledger = bench.source(ordered=True), bench.ledger()
    running: set[str | None] = set()
    overlaps: list[str] = []
    calls = iter(range(1, 10_000))

    def handle(delivery: Delivery) -> None:
        if delivery.key in running:
            overlaps.append(delivery.id)
        running.add(delivery.key)
        try:
            time.sleep(0.003)  # long enough for another handler of the key to be seen, if there were one
            if next(calls) % 5 == 0:
                raise RuntimeError("now and then")
            ledger.receive([delivery])
        finally:
            running.discard(delivery.key)

    with _worker(bench, source, handle, retry=RetryPolicy(attempts=30, delays=(0.0,)), concurrency=4):
        ledger.publish(bench.broker, source.destination, ledger.messages(30, keys=5))
        bench.eventually(lambda: not ledger.missing, "all to be handled")
    assert not overlaps
    ledger.check(ordered=True)


@clause(
    "retry.async-handler", "Coroutine handlers run concurrently and are retried like others.", anchors=[79], on=QUEUE
)
def test_async_handler(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    together = 0

    async def handle(delivery: Delivery) -> None:
        nonlocal together
        together += 1
        while together < 3:
            await asyncio.sleep(0.01)
        if delivery.attempt == 1:
            raise RuntimeError("once")
        ledger.receive([delivery])

    with _worker(bench, source, handle, retry=AT_ONCE, concurrency=3):
        ledger.publish(bench.broker, source.destination, ledger.messages(3, keys=3))
        bench.eventually(lambda: not ledger.missing, "all to be handled")
    ledger.check()


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

    worker = _worker(bench, source, handle)
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

    worker = _worker(bench, source, handle)
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

    worker = _worker(bench, source, handle, retry=RetryPolicy(attempts=1))
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

    with _worker(bench, source, handle, retry=AT_ONCE):
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

    worker = _worker(
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

    worker = _worker(bench, source, handle)
    ledger.publish(bench.broker, source.destination, ledger.messages(3))
    worker.run()
    assert handled
    bench.take(bench.consume(source), ledger, ack=True)
    ledger.check()


@clause(
    "retry.at-most-once",
    "With at_most_once a worker settles each message before its handler runs: one that fails is not tried again.",
    anchors=[50, 61],
    on=QUEUE,
)
def test_at_most_once(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    handler = Failing(ledger, lambda _delivery: True)
    messages = ledger.messages(3)
    with _worker(bench, source, handler, retry=AT_ONCE, at_most_once=True):
        ledger.publish(bench.broker, source.destination, messages)
        bench.eventually(lambda: len(handler.attempts) == 3, "every message to be handled")
        bench.eventually(lambda: bench.depth(source) == 0, "a depth of 0")
    bench.quiet(bench.consume(source), ledger)
    assert handler.attempts == {message.id: [1] for message in messages}


@clause(
    "retry.start-again",
    "A worker that was stopped can be started again; stop before start does nothing.",
    anchors=[122, 129],
    on=QUEUE,
)
def test_start_again(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    worker = _worker(bench, source, lambda delivery: ledger.receive([delivery]))
    assert worker.stop(1)
    for _ in range(2):
        worker.start()
        ledger.publish(bench.broker, source.destination, ledger.messages(3))
        bench.eventually(lambda: not ledger.missing, "all to be handled")
        assert worker.stop(20)
    assert worker.stop(1)
    ledger.check()

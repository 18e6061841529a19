"""Opening and closing: bounded, repeatable, from any thread, leaving nothing behind and nothing lost."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Thread
from typing import Any

import pytest

import messaging
from messaging import AuthenticationFailed, BrokerUnavailable, Closed, Queue
from messaging_contract.bench import Bench
from messaging_contract.clause import QUEUE, clause
from messaging_contract.faults.proxy import HOST

BOUND = 25.0
"""Seconds within which opening and closing must be done, also on a busy machine."""


@clause(
    "lifecycle.connect-close-connect",
    "Connecting, closing and connecting again works, and loses nothing.",
    anchors=[121, 134],
    on=QUEUE,
)
def test_connect_close_connect(bench: Bench) -> None:
    queue, ledger = bench.queue(), bench.ledger()
    for _ in range(3):
        started = time.monotonic()
        with bench.connect(topology=queue) as broker:
            ledger.publish_one(broker, queue, ledger.message())
        assert broker.closed
        assert time.monotonic() - started < BOUND
    bench.take(bench.consume(queue), ledger, ack=True)
    ledger.check()


@clause(
    "lifecycle.close-twice", "Closing a consumer, producer or broker twice does nothing the second time.", anchors=[123]
)
def test_close_twice(bench: Bench) -> None:
    source = bench.source()
    broker = bench.connect()
    consumer = bench.consume(source, broker=broker)
    producer = broker.producer()
    for closable in (consumer, producer, broker):
        closable.close()
        closable.close()
    assert broker.closed
    assert consumer.closed
    consumer.close()
    producer.close()


@clause(
    "lifecycle.close-by-many",
    "Several threads closing one broker at once all return, and it is closed.",
    anchors=[123],
    failures=[17, 28],
    on=QUEUE,
)
def test_close_by_many(bench: Bench) -> None:
    queue = bench.queue()
    broker = bench.connect()
    consumer = bench.consume(queue, broker=broker)
    with ThreadPoolExecutor(4) as pool:
        closing = [pool.submit(part.close) for part in (broker, consumer, broker, consumer)]
        for future in closing:
            future.result(BOUND)
    with pytest.raises(Closed):
        broker.ping()


@clause(
    "lifecycle.context-managers",
    "Broker, producer and consumer are context managers that close at the end.",
    anchors=[136],
    on=QUEUE,
)
def test_context_managers(bench: Bench) -> None:
    queue, ledger = bench.queue(), bench.ledger()
    with bench.connect(topology=queue) as broker, broker.producer() as producer, broker.subscribe(queue) as consumer:
        ledger.publish_one(producer, queue, ledger.message())
        bench.take(consumer, ledger, ack=True)
    for use in (broker.ping, lambda: producer.publish(queue, 1), lambda: consumer.receive(1, 0)):
        with pytest.raises(Closed):
            use()
    ledger.check()


@clause(
    "lifecycle.closed-broker", "Every call on a closed broker raises Closed, and says which call.", anchors=[10, 128]
)
def test_closed_broker(bench: Bench) -> None:
    source = bench.source()
    broker = bench.connect(topology=source.destination)
    consumer = bench.consume(source, broker=broker)
    group = source.group
    broker.close()
    calls: dict[str, Callable[[], Any]] = {
        "publish": lambda: broker.publish(source.destination, 1),
        "subscribe": lambda: broker.subscribe(source.destination, group),
        "declare": lambda: broker.declare(Queue("x")),
        "producer": broker.producer,
        "depth": lambda: broker.depth(source.destination, group),
        "purge": lambda: broker.purge(source.destination, group),
        "delete": lambda: broker.delete(Queue("x")),
        "ping": broker.ping,
        "receive": lambda: consumer.receive(1, 0),
        "lag": consumer.lag,
    }
    for name, call in calls.items():
        with pytest.raises(Closed, match=name):
            call()


@clause(
    "lifecycle.broker-closes-consumers",
    "Closing the broker closes its consumers and gives back what they held.",
    anchors=[46, 127],
    failures=[6],
)
def test_broker_closes_consumers(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    broker = bench.connect()
    consumer = bench.consume(source, broker=broker)
    ledger.publish(bench.broker, source.destination, ledger.messages(4))
    held = bench.take(consumer, ledger)
    held[0].ack()
    broker.close()
    assert consumer.closed
    with pytest.raises(Closed):
        held[1].ack()
    view = ledger.view("second")
    second = bench.consume(source)
    bench.take(second, view, ack=True, only=[d.id for d in held[1:]])
    assert {d.id for d in held[1:]} <= set(view.received)
    bench.quiet(second, view)
    assert held[0].id not in view.received


@clause(
    "lifecycle.ten-at-once",
    "Ten consumers opened and closed at the same time leave the system usable.",
    anchors=[124, 131],
    deadline=240,
)
def test_ten_at_once(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()

    def open_and_close(_number: int) -> None:
        with bench.consume(source, prefetch=1) as consumer:
            for delivery in consumer.receive(1, 0.05):
                delivery.nack()

    ledger.publish(bench.broker, source.destination, ledger.messages(5, keys=5))
    with ThreadPoolExecutor(10) as pool:
        list(pool.map(open_and_close, range(10)))
    # A member that left while it was joining is waited for until its session ends, as one that crashed; a share member
    # that could not leave in time keeps its record until the lock runs out, a minute after it was fetched.
    bench.take(bench.consume(source), ledger, ack=True, timeout=4 * bench.patience)
    ledger.check(duplicates=True)


@clause(
    "lifecycle.closed-while-waiting",
    "What is published while waiting consumers are being closed is not lost: who comes next gets each message.",
    anchors=[124],
    on=QUEUE,
    deadline=240,
)
def test_closed_while_waiting(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    waiting = [bench.consume(source, prefetch=1) for _ in range(6)]
    for consumer in waiting:
        assert consumer.receive(1, 0.1) == []
    with ThreadPoolExecutor(len(waiting)) as pool:
        closing = [pool.submit(consumer.close) for consumer in waiting]
        ledger.publish(bench.broker, source.destination, ledger.messages(5, keys=5))
        for closed in closing:
            closed.result()
    bench.take(bench.consume(source), ledger, ack=True, timeout=4 * bench.patience)
    ledger.check()


@clause(
    "lifecycle.shared-connection",
    "Consumers and publishers share one connection without getting in each other's way.",
    anchors=[131],
    failures=[16],
    on=QUEUE,
)
def test_shared_connection(bench: Bench) -> None:
    broker = bench.connect()
    queues = [bench.queue(broker) for _ in range(3)]
    ledgers = [bench.ledger(f"m{number}") for number in range(3)]

    def serve(number: int) -> None:
        consumer = bench.consume(queues[number], broker=broker)
        for _ in range(4):
            ledgers[number].publish(broker, queues[number], ledgers[number].messages(5))
            bench.take(consumer, ledgers[number], ack=True)
        consumer.close()

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(serve, range(3)))
    for ledger in ledgers:
        ledger.check()


@clause(
    "lifecycle.independent",
    "Two connections in one process share no state: closing one leaves the other alone.",
    anchors=[137],
    on=QUEUE,
)
def test_independent(bench: Bench) -> None:
    queue, ledger = bench.queue(), bench.ledger()
    one, two = bench.connect(topology=queue), bench.connect()
    assert two.topology.get(queue.name) is None
    consumer = bench.consume(queue, broker=two)
    ledger.publish_one(one, queue, ledger.message())
    one.close()
    assert not two.closed
    ledger.publish_one(two, queue, ledger.message())
    bench.take(consumer, ledger, ack=True)
    ledger.check()


@clause(
    "lifecycle.nothing-left-running", "After close none of the broker's threads is left.", anchors=[159], failures=[28]
)
def test_nothing_left_running(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    before = set(threading.enumerate())
    broker = bench.connect()
    consumer = bench.consume(source, broker=broker)
    ledger.publish_one(broker, source.destination, ledger.message())
    bench.take(consumer, ledger, ack=True)
    broker.close()

    def left() -> list[str]:
        # The suite's own proxies carry connections of other brokers, too.
        return [t.name for t in threading.enumerate() if t not in before and not t.name.startswith("proxy-")]

    bench.eventually(lambda: not left(), lambda: f"the threads of a closed broker to end; left are {left()}")
    ledger.check()


@clause(
    "lifecycle.close-with-unread",
    "Closing while messages are buffered and a receive is blocked is bounded, and loses nothing.",
    anchors=[32, 127, 134],
    failures=[17],
)
def test_close_with_unread(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    broker = bench.connect()
    consumer = bench.consume(source, broker=broker, prefetch=5)
    ledger.publish(bench.broker, source.destination, ledger.messages(20))
    seen: list[str] = []

    def loop() -> None:
        try:
            while True:
                seen.extend(delivery.id for delivery in consumer.receive(5, 30))
        except Closed:
            pass

    thread = Thread(target=loop, daemon=True)
    thread.start()
    bench.eventually(lambda: len(seen) == 5, "a full prefetch")
    started = time.monotonic()
    broker.close()
    thread.join(BOUND)
    assert not thread.is_alive()
    assert time.monotonic() - started < BOUND
    bench.take(bench.consume(source), ledger, ack=True)
    ledger.check()


@clause(
    "lifecycle.close-costs-one-attempt",
    "Closing a consumer costs what it held one attempt at most: a restart is no reason to dead-letter.",
    anchors=[41, 46, 130],
    failures=[7],
)
def test_close_costs_one_attempt(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    first = bench.consume(source)
    ledger.publish(bench.broker, source.destination, ledger.messages(5))
    assert bench.one(first, ledger).attempt == 1
    first.close()
    view = ledger.view("second")
    again = bench.take(bench.consume(source), view, 5, ack=True)
    assert max(delivery.attempt for delivery in again) <= 2
    view.check()


@clause(
    "lifecycle.closed-consumer",
    "A closed consumer raises Closed, whatever it is asked for, and a loop over it ends.",
    anchors=[127, 128],
)
def test_closed_consumer(bench: Bench) -> None:
    consumer = bench.consume(bench.source())
    consumer.close()
    for call in (consumer.pause, consumer.resume, consumer.lag, consumer.flush, consumer.receive):
        with pytest.raises(Closed):
            call()
    assert list(consumer) == []


@clause("lifecycle.ping", "ping returns while the broker is there.", anchors=[133], on=())
def test_ping(bench: Bench) -> None:
    started = time.monotonic()
    bench.broker.ping()
    assert time.monotonic() - started < BOUND


@clause(
    "lifecycle.unreachable",
    "Connecting where nothing listens, or nothing answers, raises BrokerUnavailable within the connect timeout.",
    anchors=[132, 148],
    on=(),
    controls="at",
)
def test_unreachable(bench: Bench) -> None:
    at = bench.harness.at
    assert at is not None
    with socket.socket() as silent:
        silent.bind((HOST, 0))
        for listens in (False, True):
            if listens:
                silent.listen(16)
            started = time.monotonic()
            with pytest.raises(BrokerUnavailable) as raised:
                messaging.connect(at(HOST, silent.getsockname()[1]), connect_timeout=2.0).close()
            assert raised.value.retryable
            assert time.monotonic() - started < 8


@clause(
    "lifecycle.wrong-credentials",
    "Wrong credentials raise AuthenticationFailed, promptly and without the password in the text.",
    anchors=[132, 148],
    on=(),
    controls="wrong_credentials",
)
def test_wrong_credentials(bench: Bench) -> None:
    url = bench.harness.wrong_credentials
    assert url is not None
    started = time.monotonic()
    with pytest.raises(AuthenticationFailed) as raised:
        messaging.connect(url, connect_timeout=10).close()
    assert not raised.value.retryable
    assert "wrong" not in str(raised.value)
    assert time.monotonic() - started < BOUND


@clause(
    "lifecycle.dead-host-skipped",
    "Of several hosts the dead ones are skipped.",
    anchors=[135],
    on=QUEUE,
    controls="several_hosts",
)
def test_dead_host_skipped(bench: Bench) -> None:
    url = bench.harness.several_hosts
    assert url is not None
    queue, ledger = bench.queue(), bench.ledger()
    broker = bench.adopt(messaging.connect(url, topology=queue))
    ledger.publish_one(broker, queue, ledger.message())
    bench.take(bench.consume(queue, broker=broker), ledger, ack=True)
    ledger.check()


@clause(
    "lifecycle.future-callback",
    "The callback of a publish_nowait future is called with the id.",
    anchors=[5],
    on=QUEUE,
)
def test_future_callback(bench: Bench) -> None:
    queue = bench.queue()
    results: list[object] = []
    future = bench.broker.publish_nowait(queue, 1)
    future.add_done_callback(lambda done: results.append(done.result()))
    bench.eventually(lambda: bool(results), "the callback to be called")
    assert results == [future.result(0)]

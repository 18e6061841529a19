"""Lost connections, silent networks, restarted brokers, killed processes: what was confirmed is still delivered."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any

import pytest

from messaging import (
    Broker,
    BrokerUnavailable,
    Consumer,
    Delivery,
    DestinationNotFound,
    MessagingError,
    ProducerFull,
    PublishTimeout,
    Worker,
)
from messaging.topology import Source
from messaging_contract.bench import Bench
from messaging_contract.clause import QUEUE, clause
from messaging_contract.ledger import Ledger


def _recovery(bench: Bench) -> float:
    """Seconds within which a client has to have recovered once the broker is there again."""
    return 2 * bench.patience


def _short_leases(bench: Bench) -> dict[str, Any]:
    """Consumer options with which what a lost connection held comes back soon."""
    return {"lease": 2.0} if bench.able.lease else {}


CONNECT_TIMEOUT = 5.0


class Publishing:
    """A thread that publishes one message after another, whatever happens, until `stop`; the ledger keeps account."""

    def __init__(self, broker: Broker, source: Source, ledger: Ledger) -> None:
        self._broker, self._source, self._ledger = broker, source, ledger
        self._ending = Event()
        self.unexpected: list[BaseException] = []
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        number = 0
        while not self._ending.wait(0.01):
            number += 1
            try:
                message = self._ledger.message(key=f"k{number % 7}")
                self._ledger.publish_one(self._broker, self._source.destination, message, timeout=10)
            except (PublishTimeout, BrokerUnavailable):
                continue
            except BaseException as error:
                self.unexpected.append(error)
                return

    def stop(self) -> None:
        """Ends it; asserts that nothing was raised but what an outage explains."""
        self._ending.set()
        self._thread.join(60)
        assert not self._thread.is_alive(), "a publish hangs"
        assert not self.unexpected, f"a publish during an outage raised {self.unexpected[0]!r}"


@contextmanager
def _publishing(broker: Broker, source: Source, ledger: Ledger) -> Iterator[None]:
    publishing = Publishing(broker, source, ledger)
    try:
        yield
    finally:
        publishing.stop()


def _progress(bench: Bench, ledger: Ledger, more: int, timeout: float | None = None) -> None:
    """Waits until that many more messages are confirmed."""
    goal = len(ledger.confirmed) + more
    bench.eventually(
        lambda: len(ledger.confirmed) >= goal, f"{more} more messages to be confirmed", timeout or _recovery(bench)
    )


@clause(
    "faults.consumer-resumes",
    "A consumer whose connection was cut goes on by itself once the broker can be reached again.",
    anchors=[142],
    failures=[1],
    controls="link",
    deadline=150,
)
def test_consumer_resumes(bench: Bench) -> None:
    source, ledger, link = bench.source(), bench.ledger(), bench.link()
    broker = bench.adopt(link.connect())
    consumer = bench.consume(source, broker=broker, **_short_leases(bench))
    for _ in range(2):
        ledger.publish(bench.broker, source.destination, ledger.messages(3))
        bench.take(consumer, ledger, ack=True)
        link.cut()
        assert bench.receive(consumer, 1, 0.5) == []
        link.resume()
    ledger.publish(bench.broker, source.destination, ledger.messages(3))
    bench.take(consumer, ledger, ack=True, timeout=_recovery(bench))
    ledger.check(duplicates=True)


@clause(
    "faults.producer-resumes",
    "After a cut the same producer goes on; a publish that returned is stored, one that failed says so.",
    anchors=[19, 138, 142, 147],
    failures=[2],
    controls="link",
    deadline=150,
)
def test_producer_resumes(bench: Bench) -> None:
    source, ledger, link = bench.source(), bench.ledger(), bench.link()
    broker = bench.adopt(link.connect(topology=source.destination))
    with _publishing(broker, source, ledger):
        _progress(bench, ledger, 5)
        for _ in range(2):
            link.cut()
            link.resume()
            _progress(bench, ledger, 5)
    bench.take(bench.consume(source), ledger, ack=True)
    ledger.check(duplicates=True, recovered=True)


@clause(
    "faults.outage",
    "Publishing and consuming through an outage of some seconds loses nothing that was confirmed.",
    anchors=[19, 142, 143, 147],
    failures=[1, 2],
    controls="link",
    deadline=180,
)
def test_outage(bench: Bench) -> None:
    source, ledger, link = bench.source(), bench.ledger(), bench.link()
    broker = bench.adopt(link.connect(topology=source.destination))
    consumer = bench.consume(source, broker=broker, **_short_leases(bench))
    with _publishing(broker, source, ledger):
        _progress(bench, ledger, 5)
        for kind in (link.cut, link.blackhole):
            kind()
            until = time.monotonic() + 2.0
            while time.monotonic() < until:
                consumer.ack(ledger.receive(bench.receive(consumer, 10, 0.2)))
            link.resume()
            _progress(bench, ledger, 5)
    bench.take(consumer, ledger, ack=True, timeout=_recovery(bench))
    ledger.check(duplicates=True, recovered=True)


@clause(
    "faults.silent-broker",
    "A publish to a broker that does not answer raises within its deadline, and the producer recovers.",
    anchors=[9, 19, 143],
    failures=[13],
    controls="link",
    deadline=150,
)
def test_silent_broker(bench: Bench) -> None:
    source, ledger, link = bench.source(), bench.ledger(), bench.link()
    broker = bench.adopt(link.connect(topology=source.destination))
    ledger.publish_one(broker, source.destination, ledger.message())
    link.blackhole()
    for call in ("publish", "publish_many"):
        started = time.monotonic()
        with pytest.raises((PublishTimeout, BrokerUnavailable)):
            if call == "publish":
                ledger.publish_one(broker, source.destination, ledger.message(), timeout=1.5)
            else:
                broker.publish_many(source.destination, ledger.messages(3), timeout=1.5)
        assert time.monotonic() - started < 10
    link.resume()
    with _publishing(broker, source, ledger):
        _progress(bench, ledger, 2)
    bench.take(bench.consume(source), ledger, ack=True)
    ledger.check(duplicates=True, recovered=True)


@clause(
    "faults.slow-network",
    "Where everything arrives 0.2 s later, each way, nothing is lost, and nothing comes twice.",
    anchors=[1, 39],
    on=QUEUE,
    controls="link",
    deadline=150,
)
def test_slow_network(bench: Bench) -> None:
    source, ledger, link = bench.source(), bench.ledger(), bench.link()
    late = 0.2
    link.delay(late)
    broker = bench.adopt(link.connect(topology=source.destination))
    consumer = bench.consume(source, broker=broker)
    ledger.publish_one(broker, source.destination, ledger.message())
    ledger.publish(broker, source.destination, ledger.messages(20, keys=5))
    bench.take(consumer, ledger, ack=True, timeout=_recovery(bench))
    consumer.flush()
    bench.quiet(consumer, ledger, bench.harness.quiet + 4 * late)
    bench.settled(consumer)
    ledger.check()


@clause(
    "faults.futures-end",
    "Every publish_nowait future is done by the producer's deadline, also while the broker is silent or gone.",
    anchors=[13, 19],
    failures=[4, 13],
    on=QUEUE,
    controls="link",
    deadline=120,
)
def test_futures_end(bench: Bench) -> None:
    source, ledger, link = bench.source(), bench.ledger(), bench.link()
    broker = bench.adopt(link.connect(topology=source.destination))
    producer = broker.producer(timeout=3)
    ledger.publish_one(producer, source.destination, ledger.message())
    for kind in (link.blackhole, link.cut):
        kind()
        futures = {m.id: producer.publish_nowait(source.destination, m) for m in ledger.messages(10)}
        for id, future in futures.items():
            error = future.exception(3 + bench.patience)
            assert error is None or isinstance(error, PublishTimeout | BrokerUnavailable)
            if error is None:
                ledger.confirm(id)
        link.resume()
        bench.eventually(lambda: _pings(broker), "the broker to answer again", _recovery(bench))
    producer.close()
    bench.take(bench.consume(source), ledger, ack=True)
    ledger.check(duplicates=True, recovered=True)


@clause(
    "faults.producer-full",
    "With on_full='raise' a producer whose window is full raises ProducerFull at once; nothing of that is sent.",
    anchors=[11],
    failures=[4],
    on=QUEUE,
    controls="link",
    deadline=120,
)
def test_producer_full(bench: Bench) -> None:
    source, ledger, link = bench.source(), bench.ledger(), bench.link()
    broker = bench.adopt(link.connect(topology=source.destination))
    producer = broker.producer(max_in_flight=2, on_full="raise", timeout=20)
    link.blackhole()
    messages = ledger.messages(2)
    futures = [producer.publish_nowait(source.destination, message) for message in messages]
    started = time.monotonic()
    refused = ledger.message()
    with pytest.raises(ProducerFull):
        producer.publish_nowait(source.destination, refused)
    ledger.refused.add(refused.id)
    assert time.monotonic() - started < 2
    link.resume()
    for message, future in zip(messages, futures, strict=True):
        if future.exception(30) is None:
            ledger.confirm(message.id)
    bench.take(bench.consume(source), ledger, ack=True)
    ledger.check(duplicates=True, recovered=True)


@clause(
    "faults.held-across-a-cut",
    "Settling what was received before a cut is harmless: nothing breaks, and every message is done in the end.",
    anchors=[39, 46, 142],
    failures=[1, 11],
    controls="link",
    deadline=150,
)
def test_held_across_a_cut(bench: Bench) -> None:
    source, ledger, link = bench.source(), bench.ledger(), bench.link()
    broker = bench.adopt(link.connect())
    consumer = bench.consume(source, broker=broker, **_short_leases(bench))
    ledger.publish(bench.broker, source.destination, ledger.messages(6))
    held = bench.take(consumer, ledger, 6)
    link.cut()
    held[0].ack()
    held[1].nack()
    early = ledger.receive(bench.receive(consumer, 1, 0.3))  # a nack that is carried out inside the consumer
    link.resume()
    bench.eventually(lambda: _pings(broker), "the broker to answer again", _recovery(bench))
    consumer.ack([*held[2:], *early])
    ledger.publish(bench.broker, source.destination, ledger.messages(3))
    bench.take(consumer, ledger, ack=True, timeout=_recovery(bench))

    def done() -> bool:
        consumer.ack(ledger.receive(bench.receive(consumer, 10, 0.2)))
        return ledger.received.count(held[1].id) > 1 and bench.depth(source) == 0

    bench.eventually(done, "the nacked message to come again, and every message to be done", _recovery(bench))
    ledger.check(duplicates=True)


@clause(
    "faults.stale-settlements",
    "Settling deliveries from before a cut settles nothing that was delivered after it.",
    anchors=[39, 142],
    failures=[11],
    controls="link",
    deadline=180,
)
def test_stale_settlements(bench: Bench) -> None:
    source, ledger, link = bench.source(), bench.ledger(), bench.link()
    broker = bench.adopt(link.connect())
    consumer = bench.consume(source, broker=broker, **_short_leases(bench))
    ledger.publish(bench.broker, source.destination, ledger.messages(3))
    bench.take(consumer, ledger, ack=True)
    consumer.flush()
    ledger.publish(bench.broker, source.destination, ledger.messages(3))
    old = bench.take(consumer, ledger, 3)
    link.cut()
    bench.receive(consumer, 1, 0.3)
    link.resume()
    # Those of a client that kept them through the cut do not come again, and are settled below.
    bench.take(consumer, ledger.view("again"), ack=True, only=[d.id for d in old], timeout=5)
    fresh = bench.ledger("fresh")
    fresh.publish(bench.broker, source.destination, fresh.messages(3))
    bench.take(consumer, fresh.view("held"), 3, timeout=_recovery(bench))
    consumer.ack(old)
    consumer.close()
    bench.take(bench.consume(source), fresh, ack=True, timeout=_recovery(bench))
    fresh.check(duplicates=True)


@clause(
    "faults.prefetch-after-a-cut",
    "After a reconnect the prefetch still holds.",
    anchors=[27, 142],
    failures=[27],
    controls="link",
    deadline=150,
)
def test_prefetch_after_a_cut(bench: Bench) -> None:
    source, ledger, link = bench.source(), bench.ledger(), bench.link()
    broker = bench.adopt(link.connect())
    consumer = bench.consume(source, broker=broker, prefetch=3, **_short_leases(bench))
    ledger.publish_one(bench.broker, source.destination, ledger.message())
    bench.take(consumer, ledger, ack=True)
    consumer.flush()
    link.cut()
    bench.receive(consumer, 1, 0.3)
    link.resume()
    bench.eventually(lambda: _pings(broker), "the broker to answer again", _recovery(bench))
    ledger.publish(bench.broker, source.destination, ledger.messages(10))
    held = bench.take(consumer, ledger, 3, timeout=_recovery(bench))
    bench.quiet(consumer, ledger)
    consumer.ack(held)
    bench.take(consumer, ledger, ack=True)
    ledger.check(duplicates=True)


@clause(
    "faults.pause-after-a-cut",
    "A consumer that was paused before a cut is still paused after it, and resumes.",
    anchors=[78, 149],
    controls="link",
    deadline=150,
)
def test_pause_after_a_cut(bench: Bench) -> None:
    source, ledger, link = bench.source(), bench.ledger(), bench.link()
    other, seen = bench.source(), bench.ledger("other")
    broker = bench.adopt(link.connect())
    consumer = bench.consume(source, broker=broker, **_short_leases(bench))
    unpaused = bench.consume(other, broker=broker, **_short_leases(bench))
    consumer.pause()
    link.cut()
    for each in (consumer, unpaused):
        bench.receive(each, 1, 0.3)
    link.resume()
    bench.eventually(lambda: _pings(broker), "the broker to answer again", _recovery(bench))
    ledger.publish(bench.broker, source.destination, ledger.messages(3))
    # A consumer that has not come back yet is silent too: one that was cut with it has to be back first.
    seen.publish(bench.broker, other.destination, seen.messages(1))
    bench.take(unpaused, seen, 1, ack=True, timeout=_recovery(bench))
    bench.quiet(consumer, ledger)
    consumer.resume()
    bench.take(consumer, ledger, ack=True, timeout=_recovery(bench))
    ledger.check(duplicates=True)


@clause(
    "faults.ping",
    "ping raises BrokerUnavailable while the broker cannot be reached, and returns again afterwards.",
    anchors=[133],
    on=(),
    controls="link",
    deadline=120,
)
def test_ping(bench: Bench) -> None:
    link = bench.link()
    broker = bench.adopt(link.connect(connect_timeout=CONNECT_TIMEOUT))
    broker.ping()
    for kind in (link.cut, link.blackhole):
        kind()
        started = time.monotonic()
        with pytest.raises(BrokerUnavailable):
            broker.ping()
        assert time.monotonic() - started < CONNECT_TIMEOUT + 10
        link.resume()
        bench.eventually(lambda: _pings(broker), "the broker to answer again", _recovery(bench))


@clause(
    "faults.close-during-an-outage",
    "Closing while the broker is gone or silent is bounded; what was not settled is delivered to others.",
    anchors=[46, 134],
    failures=[13, 17, 28],
    controls="link",
    deadline=240,
)
def test_close_during_an_outage(bench: Bench) -> None:
    for kind in ("cut", "blackhole"):
        source, ledger, link = bench.source(), bench.ledger(kind), bench.link()
        broker = link.connect(topology=source.destination)
        consumer = bench.consume(source, broker=broker, **_short_leases(bench))
        ledger.publish(bench.broker, source.destination, ledger.messages(4))
        held = bench.take(consumer, ledger)
        getattr(link, kind)()
        held[0].ack()
        unknown = broker.producer(timeout=3).publish_nowait(source.destination, ledger.message())
        started = time.monotonic()
        broker.close()
        assert time.monotonic() - started < 40, f"close took {time.monotonic() - started:.0f} s"
        assert unknown.done()
        link.resume()
        view = ledger.view("second")
        due = [delivery.id for delivery in held[1:]]
        second = bench.consume(source)
        bench.take(second, view, ack=True, only=due, timeout=3 * bench.patience)
        assert set(due) <= set(view.received), "unsettled messages of a lost consumer are gone"
        second.close()


@clause(
    "faults.reject-during-an-outage",
    "A message rejected while the broker is silent is in the dead-letter queue or still in its source, or in both.",
    anchors=[83, 142],
    failures=[23],
    needs="dead_letter",
    controls="link",
    deadline=240,
)
def test_reject_during_an_outage(bench: Bench) -> None:
    source, ledger, link = bench.source(), bench.ledger(), bench.link()
    broker = bench.adopt(link.connect(topology=source.destination))
    consumer = bench.consume(source, broker=broker, **_short_leases(bench))
    ledger.publish(bench.broker, source.destination, ledger.messages(3))
    held = bench.take(consumer, ledger)
    link.blackhole()
    for delivery in held:
        delivery.reject("out")
    broker.close()
    link.resume()
    second, graveyard = bench.consume(source), bench.dead_letters(source)
    left, dead = ledger.view("left"), ledger.view("dead")

    def found() -> bool:
        for reading, view in ((second, left), (graveyard, dead)):
            reading.ack(view.receive(bench.receive(reading, 10, 0.2)))
        return {delivery.id for delivery in held} <= {*left.received, *dead.received}

    bench.eventually(found, "every rejected message to be somewhere", 3 * bench.patience)


@clause(
    "faults.down-at-start",
    "Connecting while the broker is down raises BrokerUnavailable; once it is up the same call works.",
    anchors=[132, 141],
    failures=[26],
    on=QUEUE,
    controls="link",
    deadline=120,
)
def test_down_at_start(bench: Bench) -> None:
    queue, ledger, link = bench.queue(), bench.ledger(), bench.link()
    link.cut()
    started = time.monotonic()
    with pytest.raises(BrokerUnavailable):
        link.connect(connect_timeout=3.0).close()
    assert time.monotonic() - started < 12
    link.resume()
    broker = bench.adopt(link.connect(topology=queue))
    ledger.publish_one(broker, queue, ledger.message())
    bench.take(bench.consume(queue, broker=broker), ledger, ack=True)
    ledger.check()


@clause(
    "faults.worker-stops-during-an-outage",
    "A worker told to stop while the broker is gone waits for its handlers, and ends; no message is lost by it.",
    anchors=[125, 134],
    failures=[7, 17],
    on=QUEUE,
    controls="link",
    deadline=240,
)
def test_worker_stops_during_an_outage(bench: Bench) -> None:
    source, ledger, link = bench.source(), bench.ledger(), bench.link()
    broker = link.connect(topology=source.destination)
    worker = Worker(broker)
    started, go_on, handled = Event(), Event(), Event()

    @worker.on(source.destination, concurrency=2, **_short_leases(bench))
    def handle(_delivery: Delivery) -> None:
        started.set()
        go_on.wait(60)
        handled.set()

    worker.start()
    ledger.publish(bench.broker, source.destination, ledger.messages(5))
    assert started.wait(bench.patience)
    link.cut()
    go_on.set()
    assert worker.stop(30), "its handlers had all ended"
    assert handled.is_set()
    broker.close()
    link.resume()
    consumer = bench.consume(source)
    bench.eventually(lambda: _drained(bench, source, consumer, ledger), "every message to be done", 3 * bench.patience)
    # What was handled may have been acked before the cut or come again; what no handler saw must come.
    assert len(ledger.missing) <= 2


@clause(
    "faults.periodic-errors-through-cuts",
    "Nacks, consumers that come and go and lost connections at once: the set is complete.",
    anchors=[146, 150],
    failures=[1, 11],
    controls="link",
    deadline=240,
)
def test_periodic_errors_through_cuts(bench: Bench) -> None:
    source, ledger, link = bench.source(), bench.ledger(), bench.link()
    broker = bench.adopt(link.connect(topology=source.destination))
    ledger.publish(bench.broker, source.destination, ledger.messages(30, keys=6))
    seen = 0
    for turn in range(4):
        consumer = bench.consume(source, broker=broker, prefetch=5, **_short_leases(bench))
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            for delivery in bench.receive(consumer, 5, 0.2):
                seen += 1
                if seen % 3:
                    ledger.receive([delivery])
                    delivery.ack()
                else:
                    delivery.nack()
        if turn % 2:
            link.cut()
            link.resume()
            bench.eventually(lambda: _pings(broker), "the broker to answer again", _recovery(bench))
        consumer.close()
    bench.take(bench.consume(source), ledger, ack=True, timeout=_recovery(bench))
    ledger.check(duplicates=True)


@clause(
    "faults.settled-before-flush-returns",
    "ack does not wait for the broker; flush does, and does not return as if the acks were carried out when not.",
    anchors=[39, 52],
    failures=[6, 18],
    on=QUEUE,
    controls="link",
    deadline=150,
)
def test_settled_before_flush_returns(bench: Bench) -> None:
    source, ledger, link = bench.source(), bench.ledger(), bench.link()
    broker = bench.adopt(link.connect())
    consumer = bench.consume(source, broker=broker, **_short_leases(bench))
    ledger.publish(bench.broker, source.destination, ledger.messages(4))
    held = bench.take(consumer, ledger)
    link.blackhole()
    started = time.monotonic()
    for delivery in held:
        delivery.ack()
    try:
        consumer.flush(2.0)
        flushed = True
    except MessagingError:
        flushed = False
    assert time.monotonic() - started < 20
    link.resume()
    consumer.close()
    second = bench.consume(source)
    if flushed:
        bench.quiet(second, ledger)
    bench.eventually(lambda: _drained(bench, source, second, ledger), "every message to be done", _recovery(bench))


@clause(
    "faults.restart",
    "The broker restarts twice while messages are published and consumed: every confirmed one is received.",
    anchors=[140, 144, 147],
    failures=[1, 2],
    controls="restart",
    deadline=400,
)
def test_restart(bench: Bench) -> None:
    restart = bench.harness.restart
    assert restart is not None
    bench.settlements_may_fail = True
    source, ledger = bench.source(), bench.ledger()
    broker = bench.connect(topology=source.destination)
    consumer = bench.consume(source, broker=broker, **_short_leases(bench))
    ending = Event()

    def consume() -> None:
        while not ending.is_set():
            consumer.ack(ledger.receive(bench.receive(consumer, 50, 0.3)))

    consuming = Thread(target=consume, daemon=True)
    consuming.start()
    try:
        with _publishing(broker, source, ledger):
            for _ in range(2):
                _progress(bench, ledger, 20, 120)
                restart()
                _progress(bench, ledger, 20, 120)
        bench.eventually(lambda: not ledger.missing, "every confirmed message to be received", 3 * bench.patience)
    finally:
        ending.set()
        consuming.join(20)
    assert not consuming.is_alive()
    ledger.check(duplicates=True, recovered=True)


@clause(
    "faults.restart-keeps-stored",
    "Messages that wait, are delayed or dead-lettered survive a restart of the broker.",
    anchors=[3, 71, 140],
    failures=[29],
    needs="dead_letter",
    controls="restart",
    deadline=240,
)
def test_restart_keeps_stored(bench: Bench) -> None:
    restart = bench.harness.restart
    assert restart is not None
    bench.settlements_may_fail = True
    source, ledger = bench.source(), bench.ledger()
    dead = bench.ledger("dead")
    with bench.consume(source) as consumer:
        dead.publish_one(bench.broker, source.destination, dead.message())
        bench.one(consumer, dead.view("alive")).reject("no")
        consumer.flush()
    ledger.publish(bench.broker, source.destination, ledger.messages(5))
    delays = bench.able.delayed_queue if bench.kind == "queue" else bench.able.delayed_topic
    if delays:
        ledger.publish_one(bench.broker, source.destination, ledger.message(), delay=3.0)
    restart()
    broker = bench.connect()
    bench.take(bench.consume(source, broker=broker), ledger, ack=True, timeout=_recovery(bench))
    ledger.check(duplicates=True)
    graveyard = broker.dead_letters(source.destination, source.subscription.group if source.subscription else None)
    bench.take(graveyard, dead, ack=True)
    dead.check(duplicates=True)


@clause(
    "faults.frozen-broker",
    "A broker frozen for some seconds and thawed: publishers and consumers go on, nothing confirmed is lost.",
    anchors=[143],
    failures=[13],
    controls=["pause", "unpause"],
    deadline=240,
)
def test_frozen_broker(bench: Bench) -> None:
    freeze, thaw = bench.harness.pause, bench.harness.unpause
    assert freeze is not None
    assert thaw is not None
    bench.settlements_may_fail = True
    source, ledger = bench.source(), bench.ledger()
    broker = bench.connect(topology=source.destination)
    consumer = bench.consume(source, broker=broker, **_short_leases(bench))
    with _publishing(broker, source, ledger):
        _progress(bench, ledger, 5)
        freeze()
        try:
            consumer.ack(ledger.receive(bench.receive(consumer, 10, 2.0)))
        finally:
            thaw()
        _progress(bench, ledger, 5)
    bench.take(consumer, ledger, ack=True, timeout=_recovery(bench))
    ledger.check(duplicates=True, recovered=True)


_HOLDER = """
import sys, time
import messaging
url, name, group = sys.argv[1:4]
broker = messaging.connect(url)
options = {"lease": 2.0} if broker.capabilities.lease else {}
consumer = broker.subscribe(name, group or None, **options)
held = []
while len(held) < 4:
    held += consumer.receive(4, 1.0)
held[0].ack()
consumer.flush()
print("holding", flush=True)
time.sleep(600)
"""


@clause(
    "faults.killed-consumer",
    "A consumer process that is killed loses nothing: what it had not acked is delivered to another.",
    anchors=[46, 73],
    failures=[5, 6],
    controls="remote",
    deadline=180,
)
def test_killed_consumer(bench: Bench) -> None:
    remote = bench.harness.remote
    assert remote is not None
    source, ledger = bench.source(), bench.ledger()
    group = source.subscription.group if source.subscription else ""
    ledger.publish(bench.broker, source.destination, ledger.messages(8, keys=1))
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, remote, source.destination.name, group],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "holding\n"
    finally:
        process.kill()
        process.communicate()
    consumer = bench.consume(source)
    deadline = time.monotonic() + 120
    while len(ledger.missing) > 1 and time.monotonic() < deadline:
        consumer.ack(ledger.receive(bench.receive(consumer, 10, 0.5)))
    assert len(ledger.missing) <= 1, f"{len(ledger.missing)} of 8 missing, though the killed consumer acked only one"


_PUBLISHER = """
import os, sys
import messaging
url, kind, name, id, test_id = sys.argv[1:]
destination = messaging.Queue(name) if kind == "queue" else messaging.Topic(name)
broker = messaging.connect(url, topology=destination)
for number in range(3):
    broker.publish(name, number, key="k", id=f"{id}-{number}", headers={"test-id": test_id})
os._exit(0)
"""


@clause(
    "faults.killed-publisher",
    "What publish returned for is stored, though its process ends right then without closing anything.",
    anchors=[5],
    failures=[2, 4],
    controls="remote",
    deadline=120,
)
def test_killed_publisher(bench: Bench) -> None:
    remote = bench.harness.remote
    assert remote is not None
    source, ledger = bench.source(), bench.ledger()
    messages = [ledger.message(number, key="k", id=f"{bench.test_id}-killed-{number}") for number in range(3)]
    arguments = (remote, bench.kind, source.destination.name, f"{bench.test_id}-killed", bench.test_id)
    subprocess.run([sys.executable, "-c", _PUBLISHER, *arguments], check=True, timeout=90)
    ledger.confirm(message.id for message in messages)
    bench.take(bench.consume(source), ledger, ack=True)
    ledger.check()


@clause(
    "faults.source-deleted",
    "A consumer whose source was deleted says so, or goes on once it is there again; it never just idles.",
    anchors=[145],
    failures=[12],
    on=QUEUE,
    deadline=150,
)
def test_source_deleted(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    other = bench.connect()
    consumer = bench.consume(source, broker=other)
    ledger.publish_one(bench.broker, source.destination, ledger.message())
    bench.take(consumer, ledger, ack=True)
    consumer.flush()
    bench.broker.delete(source.destination)
    said = False
    try:
        assert bench.receive(consumer, 1, 3.0) == []
    except DestinationNotFound:
        said = True
    bench.broker.declare(source.destination)
    ledger.publish(bench.broker, source.destination, ledger.messages(2))
    if said:
        consumer = bench.consume(source)
    try:
        bench.take(consumer, ledger, ack=True, timeout=_recovery(bench))
    except DestinationNotFound:
        said = True
    assert said or not ledger.missing, "the consumer of a deleted queue idles for ever"


def _pings(broker: Broker) -> bool:
    try:
        broker.ping()
    except BrokerUnavailable:
        return False
    return True


def _drained(bench: Bench, source: Source, consumer: Consumer, ledger: Ledger) -> bool:
    consumer.ack(ledger.receive(bench.receive(consumer, 10, 0.2)))
    return bench.depth(source) == 0

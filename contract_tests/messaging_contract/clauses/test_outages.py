"""A broker that is away for a while: what was confirmed is delivered, and nothing waits for ever."""

from __future__ import annotations

import time
from threading import Event

import pytest

from messaging import (
    BrokerUnavailable,
    Delivery,
    ProducerFull,
    PublishTimeout,
    Worker,
)
from messaging_contract.bench import Bench
from messaging_contract.clause import QUEUE, clause
from messaging_contract.clauses.outage import (
    drained,
    pings,
    progress,
    publishing,
    recovery,
    short_leases,
)


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
    consumer = bench.consume(source, broker=broker, **short_leases(bench))
    with publishing(broker, source, ledger):
        progress(bench, ledger, 5)
        for kind in (link.cut, link.blackhole):
            kind()
            until = time.monotonic() + 2.0
            while time.monotonic() < until:
                consumer.ack(ledger.receive(bench.receive(consumer, 10, 0.2)))
            link.resume()
            progress(bench, ledger, 5)
    bench.take(consumer, ledger, ack=True, timeout=recovery(bench))
    ledger.check(duplicates=True, recovered=True)


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
        bench.eventually(lambda: pings(broker), "the broker to answer again", recovery(bench))
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
        consumer = bench.consume(source, broker=broker, **short_leases(bench))
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
    consumer = bench.consume(source, broker=broker, **short_leases(bench))
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

    @worker.on(source.destination, concurrency=2, **short_leases(bench))
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
    bench.eventually(lambda: drained(bench, source, consumer, ledger), "every message to be done", 3 * bench.patience)
    # What was handled may have been acked before the cut or come again; what no handler saw must come.
    assert len(ledger.missing) <= 2

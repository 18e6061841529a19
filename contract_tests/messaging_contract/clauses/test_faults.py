"""Lost connections and silent networks: what was confirmed is still delivered."""

from __future__ import annotations

import time

import pytest

from messaging import (
    BrokerUnavailable,
    Consumer,
    DestinationNotFound,
    MessagingError,
    PublishTimeout,
)
from messaging_contract.bench import Bench
from messaging_contract.clause import QUEUE, clause
from messaging_contract.clauses.outage import (
    CONNECT_TIMEOUT,
    drained,
    pings,
    progress,
    publishing,
    recovery,
    short_leases,
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
    consumer = bench.consume(source, broker=broker, **short_leases(bench))
    for _ in range(2):
        ledger.publish(bench.broker, source.destination, ledger.messages(3))
        bench.take(consumer, ledger, ack=True)
        link.cut()
        assert bench.receive(consumer, 1, 0.5) == []
        link.resume()
    ledger.publish(bench.broker, source.destination, ledger.messages(3))
    bench.take(consumer, ledger, ack=True, timeout=recovery(bench))
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
    with publishing(broker, source, ledger):
        progress(bench, ledger, 5)
        for _ in range(2):
            link.cut()
            link.resume()
            progress(bench, ledger, 5)
    bench.take(bench.consume(source), ledger, ack=True)
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
    with publishing(broker, source, ledger):
        progress(bench, ledger, 2)
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
    bench.take(consumer, ledger, ack=True, timeout=recovery(bench))
    consumer.flush()
    bench.quiet(consumer, ledger, bench.harness.quiet + 4 * late)
    bench.settled(consumer)
    ledger.check()


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
    consumer = bench.consume(source, broker=broker, **short_leases(bench))
    ledger.publish(bench.broker, source.destination, ledger.messages(6))
    held = bench.take(consumer, ledger, 6)
    link.cut()
    held[0].ack()
    held[1].nack()
    early = ledger.receive(bench.receive(consumer, 1, 0.3))  # a nack that is carried out inside the consumer
    link.resume()
    bench.eventually(lambda: pings(broker), "the broker to answer again", recovery(bench))
    consumer.ack([*held[2:], *early])
    ledger.publish(bench.broker, source.destination, ledger.messages(3))
    bench.take(consumer, ledger, ack=True, timeout=recovery(bench))

    def done() -> bool:
        consumer.ack(ledger.receive(bench.receive(consumer, 10, 0.2)))
        return ledger.received.count(held[1].id) > 1 and bench.depth(source) == 0

    bench.eventually(done, "the nacked message to come again, and every message to be done", recovery(bench))
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
    consumer = bench.consume(source, broker=broker, **short_leases(bench))
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
    bench.take(consumer, fresh.view("held"), 3, timeout=recovery(bench))
    consumer.ack(old)
    consumer.close()
    bench.take(bench.consume(source), fresh, ack=True, timeout=recovery(bench))
    assert not fresh.missing, f"{len(fresh.missing)} of 3 were settled by settling what was delivered before them"


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
    consumer = bench.consume(source, broker=broker, prefetch=3, **short_leases(bench))
    ledger.publish_one(bench.broker, source.destination, ledger.message())
    bench.take(consumer, ledger, ack=True)
    consumer.flush()
    link.cut()
    bench.receive(consumer, 1, 0.3)
    link.resume()
    bench.eventually(lambda: pings(broker), "the broker to answer again", recovery(bench))
    ledger.publish(bench.broker, source.destination, ledger.messages(10))
    held = bench.take(consumer, ledger, 3, timeout=recovery(bench))
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
    consumer = bench.consume(source, broker=broker, **short_leases(bench))
    unpaused = bench.consume(other, broker=broker, **short_leases(bench))
    consumer.pause()
    link.cut()
    for each in (consumer, unpaused):
        bench.receive(each, 1, 0.3)
    link.resume()
    bench.eventually(lambda: pings(broker), "the broker to answer again", recovery(bench))
    ledger.publish(bench.broker, source.destination, ledger.messages(3))
    # A consumer that has not come back yet is silent too: one that was cut with it has to be back first.
    seen.publish(bench.broker, other.destination, seen.messages(1))
    bench.take(unpaused, seen, 1, ack=True, timeout=recovery(bench))
    bench.quiet(consumer, ledger)
    consumer.resume()
    bench.take(consumer, ledger, ack=True, timeout=recovery(bench))
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
        bench.eventually(lambda: pings(broker), "the broker to answer again", recovery(bench))


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
    seen = 0

    def handle(consumer: Consumer, most: int) -> None:
        """A bounded number, so that also with a fast broker some are left, nacked ones among them, at each cut."""
        nonlocal seen
        until, last = time.monotonic() + 1.5, seen + most
        while seen < last and time.monotonic() < until:
            for delivery in bench.receive(consumer, 5, 0.2):
                seen += 1
                if seen % 3:
                    ledger.receive([delivery])
                    delivery.ack()
                else:
                    delivery.nack()

    for turn in range(4):
        ledger.publish(bench.broker, source.destination, ledger.messages(12, keys=6))
        consumer = bench.consume(source, broker=broker, prefetch=5, **short_leases(bench))
        handle(consumer, 15)
        if turn % 2:
            link.cut()
            link.resume()
            bench.eventually(lambda: pings(broker), "the broker to answer again", recovery(bench))
            handle(consumer, 5)
        consumer.close()
    bench.take(bench.consume(source), ledger, ack=True, timeout=recovery(bench))
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
    consumer = bench.consume(source, broker=broker, **short_leases(bench))
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
    bench.eventually(lambda: drained(bench, source, second, ledger), "every message to be done", recovery(bench))


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
        bench.take(consumer, ledger, ack=True, timeout=recovery(bench))
    except DestinationNotFound:
        said = True
    assert said or not ledger.missing, "the consumer of a deleted queue idles for ever"

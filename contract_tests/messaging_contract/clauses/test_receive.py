"""Receiving: batches, deadlines, bounds, and nothing that belongs to somebody else."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Thread

import pytest

from messaging import Closed, Consumer, Delivery, DestinationNotFound, Queue, Subscription, Topic, Worker
from messaging.topology import Source
from messaging_contract.bench import Bench
from messaging_contract.clause import QUEUE, TOPIC, clause


@clause(
    "receive.empty-deadline",
    "Receiving from an empty source returns nothing, close to the deadline.",
    anchors=[20],
)
def test_empty_deadline(bench: Bench) -> None:
    consumer = bench.consume(bench.source())
    consumer.receive(1, 0.1)
    for timeout in (0.0, 0.6):
        started = time.monotonic()
        assert consumer.receive(10, timeout) == []
        took = time.monotonic() - started
        assert timeout * 0.8 <= took < timeout + 3.0, f"a timeout of {timeout} s took {took:.2f} s"


@clause(
    "receive.partial-batch",
    "A partial batch is returned at once, without waiting for a full one.",
    anchors=[21, 117],
)
def test_partial_batch(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    consumer = bench.consume(source)
    ledger.publish(bench.broker, source.destination, ledger.messages(3))
    started = time.monotonic()
    received: list[Delivery] = []
    while len(received) < 3:
        batch = ledger.receive(consumer.receive(100, 60))
        assert batch, "an empty batch before the deadline"
        received += batch
    assert time.monotonic() - started < 10
    consumer.ack(received)
    ledger.check()


@clause("receive.at-most", "receive never returns more than max_messages.", anchors=[117])
def test_at_most(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    consumer = bench.consume(source)
    ledger.publish(bench.broker, source.destination, ledger.messages(12))
    while ledger.missing:
        batch = consumer.receive(5, 30)
        assert 1 <= len(batch) <= 5
        ledger.receive(batch)
        consumer.ack(batch)
    ledger.check()


@clause(
    "receive.no-leak-between-queues",
    "What is published to one queue is never seen by the consumer of another.",
    anchors=[22, 37],
    on=QUEUE,
)
def test_no_leak_between_queues(bench: Bench) -> None:
    _no_leak(bench, [Source(bench.queue()), Source(bench.queue())])


@clause(
    "receive.no-leak-between-topics",
    "What is published to one topic is never seen by a subscriber of another, also in a group of the same name.",
    anchors=[22, 37],
    on=TOPIC,
)
def test_no_leak_between_topics(bench: Bench) -> None:
    _no_leak(bench, [bench.source(), bench.source()])


def _no_leak(bench: Bench, sources: list[Source]) -> None:
    ledgers = [bench.ledger(f"m{number}") for number in range(len(sources))]
    consumers = [bench.consume(source) for source in sources]
    for source, ledger in zip(sources, ledgers, strict=True):
        ledger.publish(bench.broker, source.destination, ledger.messages(10))
    for consumer, ledger in zip(consumers, ledgers, strict=True):
        bench.take(consumer, ledger, ack=True)
    for consumer, ledger in zip(consumers, ledgers, strict=True):
        bench.quiet(consumer, ledger)
        ledger.check()


@clause(
    "receive.many-topics-at-once",
    "Several destinations served at the same time over one connection all complete.",
    anchors=[24, 131],
)
def test_many_topics_at_once(bench: Bench) -> None:
    sources = [bench.source() for _ in range(5)]

    def serve(number: int) -> None:
        source, ledger = sources[number], bench.ledger(f"m{number}")
        consumer = bench.consume(source)
        ledger.publish(bench.broker, source.destination, ledger.messages(bench.volume(100) // 5))
        bench.take(consumer, ledger, ack=True)
        consumer.flush()
        bench.settled(consumer)
        ledger.check()

    with ThreadPoolExecutor(5) as pool:
        list(pool.map(serve, range(5)))


@clause(
    "receive.competing-consumers",
    "Consumers of one source share its messages: together they get each exactly once.",
    anchors=[25, 69],
    controls="exclusive",
)
def test_competing_consumers(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    consumers = bench.consumers(source, 4, prefetch=5)
    ledger.publish(bench.broker, source.destination, ledger.messages(bench.volume(200)))

    def work(number: int) -> None:
        bench.take(consumers[number], ledger, ack=True, batch=5)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    ledger.check()


@clause(
    "receive.iteration",
    "Iterating yields messages; a loop left early keeps what it did not hand out for the next one.",
    anchors=[26],
)
def test_iteration(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    consumer = bench.consume(source)
    ledger.publish(bench.broker, source.destination, ledger.messages(5))
    for seen, delivery in enumerate(consumer, 1):
        ledger.receive([delivery])
        assert delivery.attempt == 1
        delivery.ack()
        if seen == 2:
            break
    assert len(ledger.missing) == 3
    for delivery in consumer.iterate(timeout=bench.harness.quiet * 3):
        ledger.receive([delivery])
        delivery.ack()
    ledger.check()


@clause(
    "receive.prefetch-bound",
    "Unsettled messages of a consumer never exceed its prefetch; settling one lets the next through.",
    anchors=[27, 29],
    failures=[20],
)
def test_prefetch_bound(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    consumer = bench.consume(source, prefetch=3)
    ledger.publish(bench.broker, source.destination, ledger.messages(10))
    held = bench.take(consumer, ledger, 3)
    bench.quiet(consumer, ledger)
    while ledger.missing:
        held.pop(0).ack()
        more = ledger.receive(consumer.receive(10, 20))
        assert more, "settling a message made no room for the next"
        held += more
        assert len(held) <= 3
    consumer.ack(held)
    ledger.check()


@clause(
    "receive.prefetch-freed-by-nack-and-reject",
    "A nacked or rejected message frees its place in the prefetch, like an acked one.",
    anchors=[27, 30],
    failures=[20],
    needs="dead_letter",
)
def test_prefetch_freed(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    consumer = bench.consume(source, prefetch=2)
    ledger.publish(bench.broker, source.destination, ledger.messages(8))
    nacked = bench.take(consumer, ledger, 2)
    for delivery in nacked:
        delivery.nack()
    while ledger.missing:
        batch = ledger.receive(consumer.receive(2, bench.patience))
        assert batch, "a nacked or rejected message still takes a place"
        for delivery in batch:
            delivery.reject("out")
    ledger.check(duplicates=True)


@clause(
    "receive.missing-source",
    "Subscribing to what does not exist, with creation switched off, raises DestinationNotFound within a bound.",
    anchors=[31, 153],
)
def test_missing_source(bench: Bench) -> None:
    broker = bench.connect(create=False)
    started = time.monotonic()
    with pytest.raises(DestinationNotFound):
        if bench.kind == "queue":
            broker.subscribe(Queue(bench.name()))
        else:
            broker.subscribe(Topic(bench.name()), "g")
    assert time.monotonic() - started < 30


@clause(
    "receive.missing-subscription",
    "A group that an existing topic does not have is not made up when creation is switched off.",
    anchors=[31],
    on=TOPIC,
)
def test_missing_subscription(bench: Bench) -> None:
    topic = bench.topic("present")
    broker = bench.connect(create=False)
    with pytest.raises(DestinationNotFound):
        broker.subscribe(topic.name, "absent")
    broker.subscribe(topic, "present").close()


@clause(
    "receive.close-ends-blocked-receive",
    "Closing a consumer from another thread ends every blocked receive promptly, with Closed or nothing.",
    anchors=[32, 127],
)
def test_close_ends_blocked_receive(bench: Bench) -> None:
    consumer = bench.consume(bench.source())
    outcome: list[object] = []

    def wait() -> None:
        try:
            outcome.append(consumer.receive(1, 60))
        except Closed:
            outcome.append(Closed)

    threads = [Thread(target=wait, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    threads[0].join(0.3)
    assert all(thread.is_alive() for thread in threads)
    closing = Thread(target=consumer.close, daemon=True)
    closing.start()
    for thread in (*threads, closing):
        thread.join(bench.patience)
        assert not thread.is_alive()
    assert all(each in (Closed, []) for each in outcome)


@clause(
    "receive.close-ends-iteration",
    "Closing a consumer from another thread ends a loop over it, without an error.",
    anchors=[26, 127],
    on=QUEUE,
)
def test_close_ends_iteration(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    consumer = bench.consume(source)
    ended: list[int] = []

    def loop() -> None:
        for delivery in consumer:
            ledger.receive([delivery])
            delivery.ack()
        ended.append(1)

    thread = Thread(target=loop, daemon=True)
    thread.start()
    ledger.publish(bench.broker, source.destination, ledger.messages(3))
    bench.eventually(lambda: not ledger.missing, "the messages to be handled")
    consumer.close()
    thread.join(15)
    assert ended == [1]


@clause(
    "receive.exposes",
    "A delivery tells its source, id, attempt and time, and has the client library's own object.",
    anchors=[33, 163],
)
def test_exposes(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    consumer = bench.consume(source)
    before = time.time()
    ledger.publish_one(bench.broker, source.destination, ledger.message())
    delivery = bench.one(consumer, ledger)
    assert delivery.source.name == source.name
    assert delivery.native is not None
    assert delivery.attempt == 1
    assert not delivery.settled
    assert before - 0.01 <= delivery.timestamp <= time.time() + 0.01
    assert delivery.id in repr(delivery)
    delivery.ack()
    assert delivery.settled


@clause(
    "receive.patterns",
    "A subscription with a routing pattern gets every message whose type matches it, and no other.",
    anchors=[34],
    on=TOPIC,
    needs="patterns",
)
def test_patterns(bench: Bench) -> None:
    patterns = {
        "exact": "order.placed",
        "one": "order.*",
        "rest": "order.#",
        "middle": "*.placed.*",
        "last": "#.eu",
        "all": "#",
    }
    wanted = {
        "exact": {"order.placed"},
        "one": {"order.placed", "order.eu"},
        "rest": {"order", "order.placed", "order.placed.eu", "order.eu"},
        "middle": {"order.placed.eu"},
        "last": {"order.placed.eu", "order.eu"},
    }
    types = ["", "order", "orders.placed", "order.placed", "order.placed.eu", "order.eu", "Order.placed", "invoice"]
    topic = bench.topic(*(Subscription(group, pattern) for group, pattern in patterns.items()))
    ledger = bench.ledger()
    consumers = {group: bench.consume(topic, group) for group in patterns}
    messages = {type: ledger.message(type=type) for type in types}
    ledger.publish(bench.broker, topic, list(messages.values()))
    for group, consumer in consumers.items():
        view = ledger.view(group)
        due = [messages[type].id for type in wanted.get(group, set(types))]
        bench.take(consumer, view, ack=True, only=due)
        bench.quiet(consumer, view, bench.harness.quiet / 2)
        view.check(only=due)


@clause(
    "receive.wakes-up",
    "A receive that is already waiting returns soon after a message is published.",
    anchors=[38],
)
def test_wakes_up(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    consumer = bench.consume(source)
    message = ledger.message()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(consumer.receive, 10, 60)
        with pytest.raises(TimeoutError):
            waiting.result(0.3)
        started = time.monotonic()
        ledger.publish_one(bench.broker, source.destination, message)
        received = waiting.result(30)
    assert time.monotonic() - started < 10
    ledger.receive(received)
    consumer.ack(received)
    ledger.check()


@clause(
    "receive.subscription-added-later",
    "A subscription added while messages flow gets what is published from then on; closing it leaves the others alone.",
    anchors=[36],
    on=TOPIC,
)
def test_subscription_added_later(bench: Bench) -> None:
    topic = bench.topic("old")
    early, late = bench.ledger("early"), bench.ledger("late")
    old = bench.consume(topic, "old")
    early.publish(bench.broker, topic, early.messages(3))
    new = bench.consume(topic, "new")
    late.publish(bench.broker, topic, late.messages(3))
    for ledger in (early, late):
        while ledger.missing:
            batch = old.receive(100, 30)
            assert batch, f"{len(ledger.missing)} messages missing from the old subscription"
            for each in (early, late):
                each.receive(d for d in batch if d.id in each.attempted)
            old.ack(batch)
    view = late.view("new")
    bench.take(new, view, ack=True)
    bench.quiet(new, view)
    view.check()
    new.close()
    more = bench.ledger("more")
    more.publish(bench.broker, topic, more.messages(2))
    bench.take(old, more, ack=True)
    more.check()


@clause(
    "receive.one-handler-many-sources",
    "One handler registered for several sources gets the messages of all of them.",
    anchors=[23],
)
def test_one_handler_many_sources(bench: Bench) -> None:
    sources, ledger = [bench.source(), bench.source()], bench.ledger()
    worker = Worker(bench.broker)

    def handle(delivery: Delivery) -> None:
        ledger.receive([delivery])

    for source in sources:
        worker.on(source.destination, source.group)(handle)
    worker.start()
    try:
        for source in sources:
            ledger.publish(bench.broker, source.destination, ledger.messages(3))
        bench.eventually(lambda: not ledger.missing, "every message to be handled")
    finally:
        worker.stop(20)
    ledger.check()


@clause(
    "receive.typed",
    "With as_type the value is decoded to that type.",
    anchors=[102],
    on=QUEUE,
)
def test_typed(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    consumer = bench.consume(source, as_type=dict[str, int])
    ledger.publish_one(bench.broker, source.destination, ledger.message({"a": 1}))
    delivery = bench.one(consumer, ledger)
    assert delivery.value == {"a": 1}
    delivery.ack()


@clause(
    "receive.foreign",
    "A message that another program put into the queue arrives as it is, and the consumer goes on.",
    anchors=[35],
    failures=[24],
    on=QUEUE,
    controls="foreign",
)
def test_foreign(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    put = bench.harness.foreign
    assert put is not None
    consumer = bench.consume(source)
    put(source, b"not json {", {})
    put(source, b'{"n": 1}', {"test-id": bench.test_id, "colour": "blue"})
    received = _foreign(bench, consumer, [b"not json {", b'{"n": 1}'])
    bare = next(d for d in received if not d.headers)
    other = next(d for d in received if d.headers)
    assert bare.body == b"not json {"
    assert bare.value == b"not json {"
    assert bare.id
    assert (bare.key, bare.type, bare.content_type, bare.correlation_id, bare.reply_to) == (None, "", None, None, None)
    assert bare.attempt == 1
    assert dict(other.headers) == {"test-id": bench.test_id, "colour": "blue"}
    bare.nack()
    [again] = consumer.receive(1, 30)
    assert again.body == b"not json {"
    again.ack()
    other.ack()
    consumer.flush()
    ledger.publish_one(bench.broker, source.destination, ledger.message())
    bench.take(consumer, ledger, ack=True)
    ledger.check()


@clause(
    "receive.foreign-bodies",
    "Whatever another program's body is, nothing at all or null included, it is delivered, retried, dead-lettered and "
    "redriven as it is.",
    anchors=[35, 91],
    failures=[24],
    on=QUEUE,
    needs="dead_letter",
    controls="foreign",
)
def test_foreign_bodies(bench: Bench) -> None:
    source, put = bench.source(), bench.harness.foreign
    assert put is not None
    bodies = [b"null", b"0", b'""', b" ", b"{}"]
    for body in bodies:
        put(source, body, {})
    try:
        put(source, b"", {})
        bodies.append(b"")
    except ValueError:
        pass  # this broker has no such message
    consumer = bench.consume(source)
    first = _foreign(bench, consumer, bodies)
    for delivery in first:
        delivery.nack(delay=bench.seconds(0.2) if bench.able.nack_delay else 0)
    for delivery in _foreign(bench, consumer, bodies):
        assert delivery.value == delivery.body
        delivery.reject("no")
    consumer.flush()
    bench.eventually(lambda: bench.dead_letter_depth(source) == len(bodies), "all to be dead letters")
    bench.redrive(source, len(bodies))
    consumer.ack(_foreign(bench, consumer, bodies))
    bench.settled(consumer)


def _foreign(bench: Bench, consumer: Consumer, bodies: list[bytes]) -> list[Delivery]:
    """What another program put there: no ledger knows it."""
    found: list[Delivery] = []
    deadline = time.monotonic() + bench.patience
    while len(found) < len(bodies) and time.monotonic() < deadline:
        found += consumer.receive(10, 0.5)
    assert sorted(delivery.body for delivery in found) == sorted(bodies)
    return found

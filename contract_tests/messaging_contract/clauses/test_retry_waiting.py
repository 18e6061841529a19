"""What waits for its retry: by itself, as long as told and no longer, as often as told, and given up one by one."""

from __future__ import annotations

import time
from collections import Counter
from itertools import pairwise
from threading import Lock
from typing import Any

from messaging import Delivery, RetryPolicy, Worker
from messaging.dead_letter import ATTEMPTS, REASON, SOURCE
from messaging.topology import Source
from messaging_contract.bench import Bench
from messaging_contract.clause import QUEUE, TOPIC, clause


@clause(
    "retry.short-overtakes-long",
    "A message nacked with a short delay comes back before one nacked earlier with a longer delay.",
    anchors=[88, 93, 94],
    needs="nack_delay",
)
def test_short_overtakes_long(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    consumer = bench.consume(source)
    ledger.publish(bench.broker, source.destination, ledger.messages(2))
    long, short = bench.take(consumer, ledger.view("first"), 2)
    started = time.monotonic()
    long.nack(delay=bench.seconds(6.0))
    short.nack(delay=bench.seconds(1.0))
    consumer.flush()
    first = bench.one(consumer, ledger)
    assert first.id == short.id, "a longer delay that began earlier held it up"
    first.ack()
    second = bench.one(consumer, ledger)
    assert time.monotonic() - started >= bench.seconds(6.0) * 0.99
    second.ack()
    ledger.check()


@clause(
    "retry.many-rounds",
    "No hidden limit on retries with a delay: after 24 the message is still there, and each counted one attempt.",
    anchors=[79, 93],
    on=QUEUE,
    needs="nack_delay",
    deadline=180,
)
def test_many_rounds(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    consumer = bench.consume(source)
    ledger.publish_one(bench.broker, source.destination, ledger.message())
    for attempt in range(1, 25):
        delivery = bench.one(consumer, ledger)
        assert delivery.attempt == attempt
        delivery.nack(delay=bench.seconds(0.1))
    bench.one(consumer, ledger).ack()
    bench.quiet(consumer, ledger)
    if bench.able.dead_letter:
        assert bench.dead_letter_depth(source) == 0


@clause(
    "retry.unhandled-is-kept",
    "No hidden limit on deliveries that come to nothing: what 22 consumers got and left is there for the next one.",
    anchors=[46, 130],
    failures=[7],
    on=QUEUE,
    deadline=240,
)
def test_unhandled_is_kept(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    ledger.publish(bench.broker, source.destination, ledger.messages(3))
    for _ in range(22):
        with bench.consume(source, prefetch=3) as consumer:  # the others are prefetched, and never seen
            bench.one(consumer, ledger.view("left"))
    consumer = bench.consume(source)
    bench.take(consumer, ledger, ack=True)
    bench.quiet(consumer, ledger)
    ledger.check()
    if bench.able.dead_letter:
        assert bench.dead_letter_depth(source) == 0


@clause(
    "retry.own-group",
    "Retries with a delay, and the dead letter at their end, are the failing group's alone: others get it once.",
    anchors=[68, 80, 93],
    on=TOPIC,
    needs=["nack_delay", "dead_letter"],
)
def test_own_group(bench: Bench) -> None:
    topic, ledger = bench.topic("good", "bad"), bench.ledger()
    good = bench.consume(topic, "good")
    attempts: list[int] = []
    worker = Worker(bench.broker)

    def fail(delivery: Delivery) -> None:
        attempts.append(delivery.attempt)
        raise RuntimeError("told to fail")

    worker.on(topic, "bad", retry=RetryPolicy(attempts=3, delays=(bench.seconds(0.3),)))(fail)
    with worker:
        ledger.publish_one(bench.broker, topic, ledger.message())
        dead = bench.one(bench.dead_letters(topic, "bad"), ledger.view("dead"))
    assert attempts == [1, 2, 3]
    assert dead.headers[SOURCE] == f"{topic.name}--bad"
    dead.ack()
    view = ledger.view("good")
    bench.take(good, view, ack=True)
    bench.quiet(good, ledger)
    view.check()


@clause(
    "retry.deleted-neighbour",
    "Messages wait by themselves: deleting another queue whose messages wait as long neither loses nor stalls these.",
    anchors=[88, 93],
    failures=[24],
    on=QUEUE,
    needs="nack_delay",
)
def test_deleted_neighbour(bench: Bench) -> None:
    delay = bench.seconds(3.0)
    mine, ledger = Source(bench.queue()), bench.ledger("mine")
    other, others = Source(bench.queue()), bench.ledger("other")
    consumer, neighbour = bench.consume(mine), bench.consume(other)
    # RabbitMQ moves at most 32 of a queue whose messages cannot leave it.
    others.publish(bench.broker, other.destination, others.messages(40))
    ledger.publish(bench.broker, mine.destination, ledger.messages(3))
    for delivery in bench.take(neighbour, others.view("first"), 40):
        delivery.nack(delay=delay)
    neighbour.flush()
    neighbour.close()
    for delivery in bench.take(consumer, ledger.view("first"), 3):
        delivery.nack(delay=delay)
    consumer.flush()
    bench.broker.delete(other.destination)
    again = bench.take(consumer, ledger, 3, ack=True)
    assert {delivery.attempt for delivery in again} == {2}
    bench.quiet(consumer, others)
    ledger.check()


@clause(
    "retry.last-delay-repeats",
    "A growing delay is kept to, and so is the last one for every further retry.",
    anchors=[87],
    on=QUEUE,
    needs="nack_delay",
)
def test_last_delay_repeats(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    times: list[float] = []
    worker = Worker(bench.broker)

    def handle(delivery: Delivery) -> None:
        times.append(time.monotonic())
        if delivery.attempt < 5:
            raise RuntimeError("told to fail")
        ledger.receive([delivery])

    first, cap = bench.seconds(0.4), bench.seconds(1.4)
    worker.on(source.destination, retry=RetryPolicy(attempts=9, delays=(first,), factor=2.0, cap=cap))(handle)
    with worker:
        ledger.publish_one(bench.broker, source.destination, ledger.message())
        bench.eventually(lambda: not ledger.missing, "the handler to succeed")
    waited = [later - earlier for earlier, later in pairwise(times)]
    for real, wanted in zip(waited, (first, 2 * first, cap, cap), strict=True):
        assert real >= wanted * 0.99, f"a retry after {real:.2f} s of {wanted:g} s"
    ledger.check()


@clause(
    "dead_letter.only-the-failed",
    "Of many messages received at a time only those that fail are dead-lettered, each with its own reason.",
    anchors=[80, 82, 89],
    failures=[24],
    needs="dead_letter",
)
def test_only_the_failed(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    handled, lock = ledger.view("handled"), Lock()
    messages = ledger.messages(20, keys=10)
    wrong = {message.id for message in messages[3::5]}
    worker = Worker(bench.broker)

    def handle(delivery: Delivery) -> None:
        if delivery.id in wrong:
            raise ValueError(f"no good: {delivery.id}")
        with lock:
            handled.receive([delivery])

    group = source.group
    worker.on(source.destination, group, retry=RetryPolicy(attempts=1), concurrency=4)(handle)
    ledger.publish(bench.broker, source.destination, messages)
    with worker:
        dead = bench.take(bench.dead_letters(source), ledger.view("dead"), len(wrong), ack=True)
        bench.eventually(lambda: handled.missing == wrong, "the others to be handled")
        bench.eventually(lambda: bench.depth(source) == 0, "a depth of 0")
    assert {delivery.id for delivery in dead} == wrong
    assert all(delivery.headers[REASON] == f"ValueError: no good: {delivery.id}" for delivery in dead)
    assert max(Counter(handled.received).values()) == 1
    assert bench.dead_letter_depth(source) == 0


@clause(
    "dead_letter.undecodable",
    "A body that cannot be decoded is dead-lettered by a worker byte for byte, with DecodeError as the reason.",
    anchors=[82, 85, 109],
    failures=[24],
    needs="dead_letter",
)
def test_undecodable(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    values: list[Any] = []
    broken = {b"{broken": "application/json", b'{"cut": "of': "application/json", b"\xff\xfe": "text/plain"}
    messages = [ledger.message(body, content_type=kind) for body, kind in broken.items()]
    worker = Worker(bench.broker)
    group = source.group
    worker.on(source.destination, group, retry=RetryPolicy(attempts=5))(lambda d: values.append(d.value))
    ledger.publish(bench.broker, source.destination, [*messages, ledger.message("fine")])
    with worker:
        dead = bench.take(bench.dead_letters(source), ledger, len(broken), ack=True)
        bench.eventually(lambda: values == ["fine"], "the good one to be handled, and no other")
    assert {delivery.body: delivery.content_type for delivery in dead} == broken
    for delivery in dead:
        assert delivery.headers[REASON].startswith("DecodeError")
        assert delivery.headers[ATTEMPTS] == "1"

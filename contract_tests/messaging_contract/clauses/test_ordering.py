"""Ordering by key: one message of a key at a time, in publish order, whatever happens to it."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

import pytest

from messaging import Consumer, Delivery, InvalidMessage
from messaging_contract.bench import Bench
from messaging_contract.clause import TOPIC, clause
from messaging_contract.ledger import Ledger


@clause(
    "ordering.publish-order",
    "The messages of a key arrive in the order they were published, many keys side by side.",
    anchors=[62],
    needs="ordering",
)
def test_publish_order(bench: Bench) -> None:
    source, ledger = bench.source(ordered=True), bench.ledger()
    consumer = bench.consume(source)
    messages = ledger.messages(bench.volume(120), keys=6)
    half = len(messages) // 2
    ledger.publish(bench.broker, source.destination, messages[:half])
    for message in messages[half:]:
        ledger.publish_one(bench.broker, source.destination, message)
    bench.take(consumer, ledger, ack=True)
    ledger.check(ordered=True)


@clause(
    "ordering.one-at-a-time",
    "No second message of a key is delivered before the first is settled; other keys are.",
    anchors=[48],
    needs="ordering",
)
def test_one_at_a_time(bench: Bench) -> None:
    source, ledger = bench.source(ordered=True), bench.ledger()
    consumer = bench.consume(source)
    ledger.publish(bench.broker, source.destination, ledger.messages(6, keys=2))
    held = bench.take(consumer, ledger, 2)
    assert {delivery.key for delivery in held} == {"k0", "k1"}
    bench.quiet(consumer, ledger)
    while held:
        held.pop(0).ack()
        if ledger.missing:
            held += bench.take(consumer, ledger, 1)
            assert len({delivery.key for delivery in held}) == len(held)
    ledger.check(ordered=True)


@clause(
    "ordering.nack-keeps-order",
    "A nacked message comes again before any later one of its key, also with a delay.",
    anchors=[48, 93],
    failures=[22],
    needs="ordering",
)
def test_nack_keeps_order(bench: Bench) -> None:
    source, ledger = bench.source(ordered=True), bench.ledger()
    consumer = bench.consume(source)
    messages = ledger.messages(4, keys=1)
    ledger.publish(bench.broker, source.destination, messages)
    order = []
    for attempt in (1, 2, 3):
        delivery = bench.one(consumer, ledger)
        assert delivery.attempt == attempt
        order.append(delivery.id)
        delivery.nack(delay=0.3 if attempt == 2 and bench.able.nack_delay else 0)
    for _ in messages:
        delivery = bench.one(consumer, ledger)
        order.append(delivery.id)
        delivery.ack()
    ids = [message.id for message in messages]
    assert order == [ids[0]] * 3 + ids


@clause(
    "ordering.other-keys-go-on",
    "A key whose message is held or waits for a retry does not hold up the other keys.",
    anchors=[88],
    failures=[24],
    needs=["ordering", "nack_delay"],
)
def test_other_keys_go_on(bench: Bench) -> None:
    source, ledger = bench.source(ordered=True), bench.ledger()
    consumer = bench.consume(source)
    ledger.publish_one(bench.broker, source.destination, ledger.message(key="stuck"))
    bench.one(consumer, ledger).nack(delay=4 * bench.patience)  # longer than anybody here waits
    ledger.publish(bench.broker, source.destination, [ledger.message(key=f"free{n}") for n in range(6)])
    bench.take(consumer, ledger, ack=True)
    ledger.check()


@clause(
    "ordering.competing-consumers",
    "Several consumers of one ordered source keep the order of each key, and never hold two messages of a key.",
    anchors=[62, 65, 69],
    needs="ordering",
    controls="exclusive",
    deadline=120,
)
def test_competing_consumers(bench: Bench) -> None:
    source, ledger = bench.source(ordered=True), bench.ledger()
    consumers = bench.consumers(source, 3, prefetch=5)  # few, so that none of them takes all there is
    # Not a multiple of the consumers: a broker that deals messages out in turn must not seem to keep the keys apart.
    ledger.publish(bench.broker, source.destination, ledger.messages(bench.volume(90), keys=7))
    holding: set[str | None] = set()
    overlaps: list[str] = []
    lock = Lock()

    def work(consumer: Consumer) -> None:
        deadline = time.monotonic() + bench.patience
        held: list[Delivery] = []
        while held or (ledger.missing and time.monotonic() < deadline):
            batch = consumer.receive(5, 0.1)
            with lock:
                for delivery in batch:
                    if delivery.key in holding:
                        overlaps.append(delivery.id)
                    holding.add(delivery.key)
                ledger.receive(batch)
                # Held for as long as a receive takes, so that another consumer could be seen to get the next one.
                holding.difference_update(delivery.key for delivery in held)
            consumer.ack(held)
            held = batch

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(work, consumers))
    assert not overlaps
    ledger.check(ordered=True)


@clause(
    "ordering.takeover",
    "When a consumer leaves, another takes over its unsettled messages and goes on in the original order.",
    anchors=[46, 65, 73],
    failures=[15],
    needs="ordering",
)
def test_takeover(bench: Bench) -> None:
    source, ledger = bench.source(ordered=True), bench.ledger()
    first = bench.consume(source)
    messages = ledger.messages(12, keys=2)
    ledger.publish(bench.broker, source.destination, messages)
    for delivery in bench.take(first, ledger, 2):
        delivery.ack()
    unsettled = bench.take(first, ledger, 2)
    first.close()
    acked = set(ledger.received) - {delivery.id for delivery in unsettled}
    due = [message.id for message in messages if message.id not in acked]
    view = ledger.view("second")
    second = bench.consume(source)
    bench.take(second, view, ack=True, only=due)
    bench.quiet(second, view)
    assert sorted(set(view.received)) == sorted(due)
    assert not view.account().reordered, view.account()


@clause(
    "ordering.reject-frees-the-key",
    "Rejecting a message lets the next one of its key through, in order.",
    anchors=[48, 88],
    failures=[24],
    needs=["ordering", "dead_letter"],
)
def test_reject_frees_the_key(bench: Bench) -> None:
    source, ledger = bench.source(ordered=True), bench.ledger()
    consumer = bench.consume(source)
    ledger.publish(bench.broker, source.destination, ledger.messages(4, keys=1))
    for number in range(4):
        delivery = bench.one(consumer, ledger)
        if number % 2:
            delivery.ack()
        else:
            delivery.reject("odd")
    ledger.check(ordered=True)
    consumer.flush()
    bench.eventually(lambda: bench.dead_letter_depth(source) == 2, "two dead letters")


@clause(
    "ordering.key-required",
    "Publishing to an ordered destination without a key raises InvalidMessage, and nothing is sent.",
    anchors=[66],
    needs="ordering",
)
def test_key_required(bench: Bench) -> None:
    source, ledger = bench.source(ordered=True), bench.ledger()
    consumer = bench.consume(source)
    with pytest.raises(InvalidMessage, match="key"):
        ledger.publish_one(bench.broker, source.destination, ledger.message())
    with pytest.raises(InvalidMessage, match="key"):
        ledger.publish(bench.broker, source.destination, [ledger.message(key="k"), ledger.message()])
    bench.quiet(consumer, ledger)


@clause(
    "ordering.same-id-again",
    "A message published again under its id (a redrive) is stored again, also where the broker has deduplication.",
    anchors=[91, 104],
    needs="ordering",
)
def test_same_id_again(bench: Bench) -> None:
    source, ledger = bench.source(ordered=True), bench.ledger()
    message = ledger.message(key="k")
    for _ in range(2):
        ledger.publish_one(bench.broker, source.destination, message)
    consumer = bench.consume(source)
    for _ in range(2):
        delivery = bench.one(consumer, ledger)
        assert (delivery.id, delivery.attempt) == (message.id, 1)
        delivery.ack()


@clause(
    "ordering.each-group",
    "Every group of an ordered topic gets the messages of a key in order, at its own pace.",
    anchors=[63],
    on=TOPIC,
    needs="ordering",
)
def test_each_group(bench: Bench) -> None:
    topic, ledger = bench.topic("fast", "slow", ordered=True), bench.ledger()
    fast, slow = bench.consume(topic, "fast"), bench.consume(topic, "slow")
    views = {"fast": ledger.view("fast"), "slow": ledger.view("slow")}
    ledger.publish(bench.broker, topic, ledger.messages(20, keys=2))
    held = bench.take(slow, views["slow"], 2)
    bench.take(fast, views["fast"], ack=True)
    views["fast"].check(ordered=True)
    slow.ack(held)
    bench.take(slow, views["slow"], ack=True)
    views["slow"].check(ordered=True)


@clause(
    "ordering.several-publishers",
    "Each publisher's messages of a key stay in its order, though several publish at once.",
    anchors=[63],
    needs="ordering",
)
def test_several_publishers(bench: Bench) -> None:
    source = bench.source(ordered=True)
    ledgers = [bench.ledger(f"p{number}") for number in range(3)]
    consumer = bench.consume(source)

    def publish(ledger: Ledger) -> None:
        for message in [ledger.message(key=ledger.name) for _ in range(10)]:
            ledger.publish_one(bench.broker, source.destination, message)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(publish, ledgers))
    received: list[Delivery] = []
    while len(received) < 30:
        batch = consumer.receive(100, 30)
        assert batch, f"{len(received)} of 30 messages"
        received += batch
        consumer.ack(batch)
    for ledger in ledgers:
        ledger.receive(delivery for delivery in received if delivery.key == ledger.name)
        ledger.check(ordered=True)


@clause(
    "ordering.given-back-twice",
    "What a consumer, and then one with less prefetch, took and gave back comes in order to a third.",
    anchors=[48],
    failures=[20],
    needs="ordering",
)
def test_given_back_twice(bench: Bench) -> None:
    source, ledger = bench.source(ordered=True), bench.ledger()
    ledger.publish(bench.broker, source.destination, ledger.messages(8, keys=1))
    unsettled = bench.ledger("unsettled")
    for prefetch in (50, 3):
        consumer = bench.consume(source, prefetch=prefetch)
        bench.one(consumer, unsettled)
        consumer.close()
    bench.take(bench.consume(source, prefetch=3), ledger, ack=True)
    ledger.check(ordered=True)

"""Ack, nack and reject: what is done with a message, and that it is done once."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Thread

import pytest

from messaging import Closed, Delivery
from messaging_contract.bench import Bench
from messaging_contract.clause import TOPIC, clause


@clause(
    "settle.acked-never-returns",
    "An acked message never comes again: not to the same consumer, nor to a new one, and it no longer waits.",
    anchors=[39],
)
def test_acked_never_returns(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    with bench.consume(source) as consumer:
        ledger.publish(bench.broker, source.destination, ledger.messages(5))
        for delivery in bench.take(consumer, ledger):
            delivery.ack()
        bench.quiet(consumer, ledger)
        bench.settled(consumer)
    bench.eventually(lambda: bench.depth(source) == 0, "a depth of 0")
    bench.quiet(bench.consume(source), ledger)
    ledger.check()


@clause(
    "settle.nack-redelivers",
    "A nacked message is delivered again, with identical content.",
    anchors=[40],
)
def test_nack_redelivers(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    consumer = bench.consume(source)
    message = ledger.message({"a": 1}, key="k", type="t.u", headers={"h": "v"}, correlation_id="c", reply_to="r")
    ledger.publish_one(bench.broker, source.destination, message)
    first = bench.one(consumer, ledger)
    before = (first.message, first.value)
    first.nack()
    second = bench.one(consumer, ledger)
    assert (second.message, second.value) == before
    assert not second.settled
    second.ack()
    bench.quiet(consumer, ledger)


@clause(
    "settle.attempt-counts",
    "attempt is 1 on the first delivery and one more on each redelivery after a nack.",
    anchors=[41],
)
def test_attempt_counts(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    consumer = bench.consume(source)
    ledger.publish_one(bench.broker, source.destination, ledger.message())
    for attempt in range(1, 5):
        delivery = bench.one(consumer, ledger)
        assert delivery.attempt == attempt
        delivery.nack()
    bench.one(consumer, ledger).ack()
    ledger.publish_one(bench.broker, source.destination, ledger.message())
    fresh = bench.one(consumer, ledger)
    assert fresh.attempt == 1
    fresh.ack()


@clause(
    "settle.attempt-counts-mixed",
    "Nacks with and without a delay count alike, in any order; a consumer that closes in between takes none back.",
    anchors=[41, 87],
    needs="nack_delay",
)
def test_attempt_counts_mixed(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    consumer, delay = bench.consume(source), bench.seconds(0.2)
    ledger.publish_one(bench.broker, source.destination, ledger.message())
    for attempt, wait in enumerate((0.0, delay, 0.0, 0.0, delay, delay, 0.0), 1):
        delivery = bench.one(consumer, ledger)
        assert delivery.attempt == attempt
        delivery.nack(delay=wait)
    if bench.harness.attempts_kept(bench.kind):
        attempt = 8
        for nacked in (False, True, True, False):
            delivery = bench.one(consumer, ledger)
            # A broker may count what came to a consumer that closed before it looked.
            assert delivery.attempt >= attempt
            attempt = delivery.attempt + nacked
            if nacked:
                delivery.nack()
                consumer.flush()
            consumer.close()
            consumer = bench.consume(source)
    bench.one(consumer, ledger).ack()
    bench.quiet(consumer, ledger)


@clause(
    "settle.nack-without-end",
    "No hidden delivery limit: a message nacked 120 times (25 where that takes long) is still there, not lost.",
    anchors=[40, 57],
    failures=[7],
    deadline=180,
)
def test_nack_without_end(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    consumer = bench.consume(source)
    ledger.publish_one(bench.broker, source.destination, ledger.message())
    for attempt in range(1, 121 if bench.harness.volume > 300 else 26):  # more than any default of a broker
        delivery = bench.one(consumer, ledger)
        assert delivery.attempt == attempt
        delivery.nack()
    bench.one(consumer, ledger).ack()
    bench.quiet(consumer, ledger)
    if bench.able.dead_letter:
        assert bench.dead_letter_depth(source) == 0


@clause(
    "settle.nack-own-group-only",
    "A nack concerns its own group: the other groups of the topic do not see the message again.",
    anchors=[40, 68],
    on=TOPIC,
)
def test_nack_own_group_only(bench: Bench) -> None:
    topic, ledger = bench.topic("one", "two"), bench.ledger()
    one, two = bench.consume(topic, "one"), bench.consume(topic, "two")
    ledger.publish_one(bench.broker, topic, ledger.message())
    seen = ledger.view("two")
    bench.take(two, seen, ack=True)
    bench.one(one, ledger).nack()
    if bench.able.nack_delay:
        bench.one(one, ledger).nack(delay=bench.seconds(0.2))
    bench.one(one, ledger).ack()
    bench.quiet(two, seen)
    bench.quiet(one, ledger)
    seen.check()


@clause(
    "settle.nack-delay",
    "nack(delay=) brings the message back after the delay and never before, to this group only.",
    anchors=[93, 87],
    needs="nack_delay",
)
def test_nack_delay(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    consumer = bench.consume(source)
    ledger.publish_one(bench.broker, source.destination, ledger.message())
    first = bench.one(consumer, ledger)
    delay = bench.seconds(1.19)
    started = time.monotonic()
    first.nack(delay=delay)
    second = bench.one(consumer, ledger)
    waited = time.monotonic() - started
    assert waited >= delay * 0.99, f"came back after {waited:.2f} s of {delay:g} s"
    assert second.attempt == 2
    second.ack()


@clause(
    "settle.nack-delay-unchanged",
    "A message that was nacked with a delay comes again with every field as it was, and its attempts go on counting.",
    anchors=[87, 93],
    needs="nack_delay",
)
def test_nack_delay_unchanged(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    consumer = bench.consume(source)
    fields = {"key": "k", "type": "a.b", "correlation_id": "c", "reply_to": "r", "timestamp": 1700000000.125}
    sent = ledger.message("text", headers={"h": "v"}, ttl=1e9, **fields)
    ledger.publish_one(bench.broker, source.destination, sent)
    for attempt in (1, 2, 3):
        delivery = bench.one(consumer, ledger)
        assert delivery.message == sent
        assert delivery.attempt == attempt
        delivery.nack(delay=bench.seconds(0.1))
    bench.one(consumer, ledger).ack()


@clause(
    "settle.nack-delay-blocks-nobody",
    "While as many nacked messages as a consumer holds wait for their delays, the messages behind them are delivered.",
    anchors=[88],
    failures=[24],
    needs="nack_delay",
)
def test_nack_delay_blocks_nobody(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    consumer = bench.consume(source, prefetch=2)
    ledger.publish(bench.broker, source.destination, ledger.messages(2))
    for _ in range(2):  # as many as there is room for
        bench.one(consumer, ledger).nack(delay=4 * bench.patience)  # longer than anybody here waits
    ledger.publish(bench.broker, source.destination, ledger.messages(6))
    bench.take(consumer, ledger, ack=True, batch=1)
    ledger.check()


@clause(
    "settle.nack-negative",
    "A negative delay and a lease extension that is not positive are refused with ValueError, and settle nothing.",
    anchors=[93],
)
def test_nack_negative(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    consumer = bench.consume(source)
    ledger.publish_one(bench.broker, source.destination, ledger.message())
    delivery = bench.one(consumer, ledger)
    with pytest.raises(ValueError, match="delay"):
        delivery.nack(delay=-1)
    with pytest.raises(ValueError, match="seconds"):
        delivery.extend(0)
    assert not delivery.settled
    delivery.ack()
    bench.quiet(consumer, ledger)


@clause(
    "settle.twice-is-harmless",
    "Only the first settlement counts: whatever comes second is ignored.",
    anchors=[44, 50],
    failures=[11],
    needs="dead_letter",
)
def test_twice_is_harmless(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    consumer = bench.consume(source)
    ledger.publish_one(bench.broker, source.destination, ledger.message())
    delivery = bench.one(consumer, ledger)
    delivery.nack()
    delivery.ack()
    delivery.reject("too late")
    again = bench.one(consumer, ledger)
    assert again.attempt == 2
    again.ack()
    again.ack()
    again.nack()
    again.reject("too late")
    consumer.ack([again, delivery])
    consumer.flush()
    bench.quiet(consumer, ledger)
    assert bench.dead_letter_depth(source) == 0


@clause(
    "settle.batch-ack",
    "ack of a list with some already settled settles the rest; the nacked one among them still comes again.",
    anchors=[45, 58, 119],
    failures=[18],
)
def test_batch_ack(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    consumer = bench.consume(source)
    ledger.publish(bench.broker, source.destination, ledger.messages(6))
    batch = bench.take(consumer, ledger)
    assert len(batch) == 6
    batch[0].ack()
    batch[3].nack()
    consumer.ack(batch)
    assert all(delivery.settled for delivery in batch)
    again = bench.one(consumer, ledger)
    assert again.id == batch[3].id
    again.ack()
    consumer.flush()
    bench.quiet(consumer, ledger)
    bench.settled(consumer)


@clause(
    "settle.unsettled-returns-on-close",
    "What a consumer had received and not settled when it closed is delivered to another one, promptly.",
    anchors=[46, 130],
    failures=[6, 7],
)
def test_unsettled_returns_on_close(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    first = bench.consume(source)
    ledger.publish(bench.broker, source.destination, ledger.messages(6))
    held = bench.take(first, ledger)
    first.ack(held[:2])
    first.close()
    second = bench.consume(source)
    view = ledger.view("second")
    started = time.monotonic()
    bench.take(second, view, ack=True, only=[d.id for d in held[2:]])
    assert time.monotonic() - started < 20
    missing = {d.id for d in held[2:]} - set(view.received)
    assert not missing, f"unsettled and never delivered again: {missing}"
    bench.quiet(second, view)
    assert not {d.id for d in held[:2]} & set(view.received)
    if bench.able.dead_letter:
        assert bench.dead_letter_depth(source) == 0


@clause(
    "settle.out-of-order-acks",
    "Acking later messages does not ack an earlier one: after a close that comes again, and they do not.",
    anchors=[49],
    failures=[5],
)
def test_out_of_order_acks(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    first = bench.consume(source)
    ledger.publish(bench.broker, source.destination, ledger.messages(10, keys=1))
    batch = bench.take(first, ledger)
    left = [batch[0], batch[4]]
    first.ack([delivery for delivery in batch if delivery not in left])
    first.flush()
    first.close()
    second = bench.consume(source)
    view = ledger.view("second")
    bench.take(second, view, ack=True, only=[d.id for d in left])
    assert {d.id for d in left} == set(view.received)
    bench.quiet(second, view)


@clause(
    "settle.from-other-threads",
    "Deliveries may be settled from any thread, several at a time.",
    anchors=[52],
    failures=[9, 16],
)
def test_from_other_threads(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    consumer = bench.consume(source)
    ledger.publish(bench.broker, source.destination, ledger.messages(40))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(Delivery.ack, bench.take(consumer, ledger)))
    consumer.flush()
    bench.settled(consumer)
    bench.quiet(consumer, ledger)
    ledger.check()


@clause(
    "settle.flush",
    "flush returns when the broker has carried out every ack so far.",
    anchors=[52],
)
def test_flush(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    consumer = bench.consume(source)
    ledger.publish(bench.broker, source.destination, ledger.messages(50))
    for delivery in bench.take(consumer, ledger):
        delivery.ack()
    consumer.flush(20)
    bench.settled(consumer)
    consumer.close()
    bench.quiet(bench.consume(source), ledger)
    ledger.check()


@clause(
    "settle.many-nacks",
    "Consumers that nack and go away lose nothing: a good one still gets every message.",
    anchors=[57, 146],
    failures=[7],
    deadline=180,
)
def test_many_nacks(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    ledger.publish(bench.broker, source.destination, ledger.messages(20))
    for _ in range(3):
        bad = bench.consume(source, prefetch=10)
        nacked = 0
        while nacked < 15:
            batch = bad.receive(5, 20)
            assert batch, "a nacked message did not come again"
            for delivery in batch:
                delivery.nack()
            nacked += len(batch)
        bad.close()
    bench.take(bench.consume(source), ledger, ack=True)
    ledger.check()


@clause(
    "settle.failed-attempt-leaves-no-trace",
    "What a failed attempt did to the headers or the value is not visible to the next one, nor to other groups.",
    anchors=[59],
)
def test_failed_attempt_leaves_no_trace(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    consumer = bench.consume(source)
    others = [bench.consume(source.destination, "other")] if bench.kind == "topic" else []
    ledger.publish_one(bench.broker, source.destination, ledger.message({"list": [1]}, headers={"h": "v"}))
    first = bench.one(consumer, ledger)
    first.value["list"].append(2)
    if isinstance(first.headers, dict):
        first.headers["h"] = "changed"
    first.nack()
    for reader in (consumer, *others):
        second = bench.one(reader, ledger)
        assert second.value == {"list": [1]}
        assert second.headers["h"] == "v"
        second.ack()


@clause(
    "settle.after-close",
    "Settling after the consumer closed raises Closed, and the message is delivered again.",
    anchors=[46],
    failures=[6],
    needs="dead_letter",
)
def test_after_close(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    consumer = bench.consume(source)
    ledger.publish(bench.broker, source.destination, ledger.messages(4))
    batch = bench.take(consumer, ledger)
    batch[3].ack()
    consumer.close()
    with pytest.raises(Closed):
        batch[0].ack()
    with pytest.raises(Closed):
        batch[1].nack()
    with pytest.raises(Closed):
        batch[2].reject("late")
    with pytest.raises(Closed):
        consumer.ack(batch[:3])
    batch[3].ack()
    view = ledger.view("second")
    second = bench.consume(source)
    bench.take(second, view, ack=True, only=[d.id for d in batch[:3]])
    assert {d.id for d in batch[:3]} <= set(view.received)
    bench.quiet(second, view)


@clause(
    "settle.at-most-once",
    "With at-most-once a message is settled before it is handed over: it never comes twice, acked or not.",
    anchors=[61],
)
def test_at_most_once(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    consumer = bench.consume(source, delivery="at-most-once")
    ledger.publish(bench.broker, source.destination, ledger.messages(4))
    batch = bench.take(consumer, ledger)
    assert all(delivery.settled for delivery in batch)
    batch[0].ack()
    batch[1].nack()
    consumer.close()
    bench.quiet(bench.consume(source), ledger)
    ledger.check()


@clause(
    "settle.blocked-receive-sees-room",
    "A receive that waits because the prefetch is full goes on as soon as another thread settles.",
    anchors=[27, 30],
)
def test_blocked_receive_sees_room(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    consumer = bench.consume(source, prefetch=1)
    ledger.publish(bench.broker, source.destination, ledger.messages(2))
    first = bench.one(consumer, ledger)
    received: list[Delivery] = []
    thread = Thread(target=lambda: received.extend(consumer.receive(1, 30)), daemon=True)
    thread.start()
    thread.join(0.3)
    assert not received
    first.ack()
    thread.join(bench.patience)
    assert len(received) == 1
    ledger.receive(received)
    consumer.ack(received)
    ledger.check()

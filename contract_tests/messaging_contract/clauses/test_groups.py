"""Subscriptions and their groups: a copy each, shared inside, nothing lost when members come and go."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from messaging import Consumer, Delivery
from messaging_contract.bench import Bench
from messaging_contract.clause import TOPIC, clause
from messaging_contract.ledger import Ledger


@clause("groups.each-gets-all", "Every group gets every message of its topic.", anchors=[68], on=TOPIC)
def test_each_gets_all(bench: Bench) -> None:
    topic, ledger = bench.topic("one", "two", "three"), bench.ledger()
    consumers = {group: bench.consume(topic, group) for group in ("one", "two", "three")}
    ledger.publish(bench.broker, topic, ledger.messages(15, keys=3))
    for group, consumer in consumers.items():
        view = ledger.view(group)
        bench.take(consumer, view, ack=True)
        bench.quiet(consumer, view, bench.harness.quiet / 2)
        view.check()


@clause(
    "groups.own-progress",
    "What one group has acked or rejected is still delivered to the others.",
    anchors=[68],
    on=TOPIC,
    needs="dead_letter",
)
def test_own_progress(bench: Bench) -> None:
    topic, ledger = bench.topic("one", "two"), bench.ledger()
    ledger.publish(bench.broker, topic, ledger.messages(4))
    one, first = bench.consume(topic, "one"), ledger.view("one")
    for number, delivery in enumerate(bench.take(one, first)):
        delivery.reject("no") if number % 2 else delivery.ack()
    one.close()
    second = ledger.view("two")
    bench.take(bench.consume(topic, "two"), second, ack=True)
    second.check()
    bench.eventually(lambda: bench.broker.dead_letter_depth(topic, "one") == 2, "two dead letters of the first group")
    assert bench.broker.dead_letter_depth(topic, "two") == 0


@clause(
    "groups.retain",
    "A declared subscription keeps its messages while nobody is attached.",
    anchors=[71],
    on=TOPIC,
)
def test_retain(bench: Bench) -> None:
    topic, ledger = bench.topic("one", "two"), bench.ledger()
    ledger.publish(bench.broker, topic, ledger.messages(5))
    for group in ("one", "two"):
        view = ledger.view(group)
        bench.take(bench.consume(topic, group), view, ack=True)
        view.check()


@clause(
    "groups.start-at-declaration",
    "A subscription begins where it is declared: what was published before is not delivered, what comes after is.",
    anchors=[75],
    failures=[25],
    on=TOPIC,
)
def test_start_at_declaration(bench: Bench) -> None:
    topic = bench.topic("early")
    before, after = bench.ledger("before"), bench.ledger("after")
    before.publish(bench.broker, topic, before.messages(4))
    bench.broker.declare(type(topic)(topic.name, "late"))
    after.publish(bench.broker, topic, after.messages(4))
    late = bench.consume(topic.name, "late")
    bench.take(late, after, ack=True)
    bench.quiet(late, after)
    after.check()


@clause(
    "groups.declare-again-keeps-position",
    "Declaring a subscription again, from another connection, neither loses nor repeats messages.",
    anchors=[71, 75, 151],
    on=TOPIC,
)
def test_declare_again_keeps_position(bench: Bench) -> None:
    topic, ledger = bench.topic("g"), bench.ledger()
    with bench.consume(topic, "g") as consumer:
        ledger.publish(bench.broker, topic, ledger.messages(3))
        bench.take(consumer, ledger, ack=True)
    ledger.publish(bench.broker, topic, ledger.messages(3))
    other = bench.connect(topology=topic)
    consumer = bench.consume(topic, "g", broker=other)
    bench.take(consumer, ledger, ack=True)
    bench.quiet(consumer, ledger)
    ledger.check()


@clause(
    "groups.member-joins",
    "A consumer that joins a group while messages flow gets its share, and nothing is lost.",
    anchors=[72],
    failures=[14],
    deadline=120,
)
def test_member_joins(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    first = bench.consume(source, prefetch=5)
    ledger.publish(bench.broker, source.destination, ledger.messages(10, keys=10))
    ledger.settle(first_batch := ledger.receive(first.receive(3, 30)))
    first.ack(first_batch)
    second = bench.consume(source, prefetch=5)
    got = {id(first): 0, id(second): 0}
    deadline = time.monotonic() + 2 * bench.patience
    while not all(got.values()):
        assert time.monotonic() < deadline, "one of two members never got a message"
        ledger.publish(bench.broker, source.destination, ledger.messages(10, keys=10))
        for consumer in (first, second):
            batch = ledger.receive(consumer.receive(5, 0.2))
            got[id(consumer)] += len(batch)
            consumer.ack(batch)
    _drain(bench, ledger, [first, second])
    ledger.check(duplicates=True)


@clause(
    "groups.member-leaves",
    "When a consumer leaves a group, the others take over its work and nothing is lost.",
    anchors=[73, 46],
    failures=[14, 15],
    deadline=120,
)
def test_member_leaves(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    stays, leaves = bench.consume(source, prefetch=10), bench.consume(source, prefetch=10)
    ledger.publish(bench.broker, source.destination, ledger.messages(40, keys=10))
    for consumer in (stays, leaves):
        batch = [delivery for delivery in consumer.receive(10, 1.0) if ledger.owns(delivery)]
        consumer.ack(ledger.receive(batch if consumer is stays else batch[: len(batch) // 2]))
    leaves.close()
    ledger.publish(bench.broker, source.destination, ledger.messages(10, keys=10))
    _drain(bench, ledger, [stays])
    ledger.check(duplicates=True)


@clause(
    "groups.rebalance-keeps-acks",
    "What a member acked does not come again when others join or leave, although nobody flushed.",
    anchors=[39, 72, 77],
    failures=[14, 15],
    deadline=120,
)
def test_rebalance_keeps_acks(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    first = bench.consume(source)
    ledger.publish(bench.broker, source.destination, ledger.messages(20, keys=10))
    bench.take(first, ledger, ack=True)
    second = bench.consume(source)
    for consumer in (first, second):
        bench.quiet(consumer, ledger)
    first.close()
    bench.quiet(second, ledger)
    ledger.publish(bench.broker, source.destination, ledger.messages(10, keys=10))
    bench.take(second, ledger, ack=True)
    ledger.check()


@clause(
    "groups.more-members-than-work",
    "More consumers than there are partitions, or messages: the extra ones idle without error.",
    anchors=[74],
    deadline=120,
)
def test_more_members_than_work(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    consumers = [bench.consume(source, prefetch=5) for _ in range(8)]
    ledger.publish(bench.broker, source.destination, ledger.messages(24, keys=12))
    _drain(bench, ledger, consumers)
    ledger.check(duplicates=True)


@clause(
    "groups.restart-resumes",
    "A consumer that comes back goes on where its group was: nothing acked comes again, nothing else is missing.",
    anchors=[76, 39],
)
def test_restart_resumes(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    for _ in range(3):
        ledger.publish(bench.broker, source.destination, ledger.messages(4, keys=1))
        with bench.consume(source) as consumer:
            bench.take(consumer, ledger, ack=True)
    bench.quiet(bench.consume(source), ledger)
    ledger.check()


@clause(
    "groups.pause-one-member",
    "While one member is paused the group keeps working, and the paused one goes on after resume.",
    anchors=[78],
    deadline=120,
)
def test_pause_one_member(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    consumer = bench.consume(source)
    consumer.pause()
    joined = bench.consume(source)
    deadline = time.monotonic() + 2 * bench.patience
    batch: list[Delivery] = []
    while not batch:
        assert time.monotonic() < deadline, "while one of two members was paused, the other never got a message"
        ledger.publish(bench.broker, source.destination, ledger.messages(10, keys=10))
        joined.ack(batch := ledger.receive(joined.receive(5, 0.2)))
        bench.quiet(consumer, ledger, 0.2)
    bench.quiet(consumer, ledger)
    consumer.resume()
    _drain(bench, ledger, [consumer, joined])
    ledger.check(duplicates=True)


@clause(
    "groups.replay-beginning",
    "replay('beginning') delivers the topic's messages again to this group, and to no other.",
    anchors=[76],
    on=TOPIC,
    needs="replay",
)
def test_replay_beginning(bench: Bench) -> None:
    topic, ledger = bench.topic("again", "once"), bench.ledger()
    again, once = bench.consume(topic, "again"), bench.consume(topic, "once")
    other = ledger.view("once")
    ledger.publish(bench.broker, topic, ledger.messages(6, keys=3))
    bench.take(again, ledger, ack=True)
    bench.take(once, other, ack=True)
    again.replay("beginning")
    view = ledger.view("replayed")
    bench.take(again, view, ack=True)
    view.check()
    bench.quiet(once, other)


@clause(
    "groups.replay-time",
    "replay(time) delivers again what was published from that time on.",
    anchors=[76],
    on=TOPIC,
    needs="replay",
)
def test_replay_time(bench: Bench) -> None:
    topic = bench.topic("g")
    consumer = bench.consume(topic, "g")
    before, after = bench.ledger("before"), bench.ledger("after")
    old, new = time.time() - 3600, time.time() - 60
    before.publish(bench.broker, topic, [before.message(timestamp=old, key="k") for _ in range(3)])
    bench.take(consumer, before, ack=True)
    after.publish(bench.broker, topic, [after.message(timestamp=new, key="k") for _ in range(3)])
    bench.take(consumer, after, ack=True)
    for since in (new - 1, datetime.fromtimestamp(new - 1, UTC)):
        consumer.replay(since)
        view = after.view("replayed")
        bench.take(consumer, view, ack=True)
        view.check()


@clause(
    "groups.lag",
    "lag is the number of messages published and not yet acked: it grows with publishes and falls with acks.",
    anchors=[156],
    needs="lag",
)
def test_lag(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    consumer = bench.consume(source)
    bench.eventually(lambda: consumer.lag() == 0, "a lag of 0 on a fresh source")
    ledger.publish(bench.broker, source.destination, ledger.messages(5))
    bench.eventually(lambda: consumer.lag() == 5, "a lag of 5")
    held = bench.take(consumer, ledger)
    bench.eventually(lambda: consumer.lag() == 5, "a lag of 5 while nothing is acked")
    consumer.ack(held)
    consumer.flush()
    bench.eventually(lambda: consumer.lag() == 0, "a lag of 0 after all was acked")


def _drain(bench: Bench, ledger: Ledger, consumers: list[Consumer]) -> None:
    """Each consumer in a thread of its own, until nothing is missing."""

    def work(consumer: Consumer) -> None:
        deadline = time.monotonic() + bench.patience
        while ledger.missing and time.monotonic() < deadline:
            batch = ledger.receive(consumer.receive(5, 0.3))
            consumer.ack(batch)

    with ThreadPoolExecutor(len(consumers)) as pool:
        list(pool.map(work, consumers))

"""Partitions and offsets, where the broker has them; what they promise where it has not, is elsewhere."""

from __future__ import annotations

from collections import defaultdict

from messaging import Delivery, Topic
from messaging_contract.bench import Bench
from messaging_contract.clause import TOPIC, clause
from messaging_contract.conditions import Place
from messaging_contract.ledger import Ledger


def _place(bench: Bench) -> Place:
    assert bench.harness.place is not None
    return bench.harness.place


@clause(
    "ordering.key-has-one-partition",
    "All messages of a key are in one partition, whoever published them; many keys are spread over all of them.",
    anchors=[64],
    on=TOPIC,
    controls="place",
)
def test_key_has_one_partition(bench: Bench) -> None:
    place = _place(bench)
    topic = bench.topic("g", native={"kafka": {"partitions": 3}})
    ledger = bench.ledger()
    for broker in (bench.broker, bench.connect()):
        ledger.publish(broker, topic, ledger.messages(60, keys=20))
    where: dict[str | None, set[int]] = defaultdict(set)
    for delivery in bench.take(bench.consume(topic, "g"), ledger, ack=True):
        where[delivery.key].add(place(delivery)[0])
    assert all(len(partitions) == 1 for partitions in where.values()), where
    assert set().union(*where.values()) == {0, 1, 2}
    ledger.check(ordered=True)


@clause(
    "ordering.offsets-agree",
    "Every group sees the same message at the same offset; within a partition none is skipped, and none goes back.",
    anchors=[67],
    on=TOPIC,
    controls="place",
)
def test_offsets_agree(bench: Bench) -> None:
    place = _place(bench)
    topic = bench.topic("one", "two", native={"kafka": {"partitions": 3}})
    ledger = bench.ledger()
    seen: list[dict[tuple[int, int], str]] = []
    first = bench.consume(topic, "one")
    ledger.publish(bench.broker, topic, ledger.messages(40, keys=9))
    early = bench.take(first, ledger.view("one"), 40, ack=True)
    ledger.publish(bench.broker, topic, ledger.messages(40, keys=9))
    seen.append(_walk(place, [*early, *bench.take(first, ledger.view("one, later"), 40, ack=True)]))
    seen.append(_walk(place, bench.take(bench.consume(topic, "two"), ledger.view("two"), 80, ack=True)))
    assert seen[0] == seen[1]
    assert sorted(seen[0].values()) == sorted(ledger.attempted)


@clause(
    "topology.partitions-grow",
    "Partitions can be added: what is published to new ones is not skipped. Declaring fewer takes none away.",
    anchors=[154],
    failures=[25],
    on=TOPIC,
    controls="place",
    deadline=150,
)
def test_partitions_grow(bench: Bench) -> None:
    place = _place(bench)
    few, many = ("kafka", {"partitions": 1}), ("kafka", {"partitions": 4})
    topic = bench.topic("g", native=dict([few]))
    ledger = bench.ledger()
    consumer = bench.consume(topic, "g")  # it is there before the partitions are
    ledger.publish(bench.broker, topic, ledger.messages(10, keys=10))
    bench.take(consumer, ledger, ack=True)
    other = bench.connect()
    other.declare(Topic(topic.name, "g", native=dict([many])))
    found: set[int] = set()

    def all_used() -> bool:
        """Published by somebody who knows of them, and by somebody who does not yet."""
        for broker in (other, bench.broker):
            ledger.publish(broker, topic.name, ledger.messages(20, keys=20))
        found.update(place(d)[0] for d in _take_some(bench, consumer, ledger))
        return found == {0, 1, 2, 3}

    bench.eventually(all_used, lambda: f"messages from every partition, not {found} only", 2 * bench.patience)
    bench.take(consumer, ledger, ack=True)
    bench.connect(topology=Topic(topic.name, "g", native=dict([few])))
    ledger.publish(other, topic.name, ledger.messages(40, keys=20))
    assert {place(d)[0] for d in bench.take(consumer, ledger, ack=True)} == {0, 1, 2, 3}
    ledger.check()


def _take_some(bench: Bench, consumer: object, ledger: Ledger) -> list[Delivery]:
    return bench.take(consumer, ledger, ack=True, timeout=5)  # type: ignore[arg-type]


def _walk(place: Place, deliveries: list[Delivery]) -> dict[tuple[int, int], str]:
    """What is where. Asserts that each partition was read in order and without a gap."""
    last: dict[int, int] = {}
    found = {}
    for delivery in deliveries:
        partition, offset = place(delivery)
        assert offset == last.get(partition, -1) + 1, f"partition {partition}: {offset} after {last.get(partition)}"
        last[partition] = offset
        found[partition, offset] = delivery.id
    return found

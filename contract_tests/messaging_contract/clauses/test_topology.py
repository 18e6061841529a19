"""Declaring, checking and deleting queues and topics."""

from __future__ import annotations

import pytest

from messaging import ConfigurationError, DestinationNotFound, Queue, Subscription, Topic, TopologyError
from messaging_contract.bench import Bench
from messaging_contract.clause import QUEUE, TOPIC, clause


@clause(
    "topology.idempotent",
    "Declaring the same again changes nothing, from the same connection or another.",
    anchors=[151],
)
def test_idempotent(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    ledger.publish(bench.broker, source.destination, ledger.messages(3))
    bench.broker.declare(source.destination)
    bench.connect(topology=source.destination)
    bench.connect(topology=source.destination, create=False)
    bench.take(bench.consume(source), ledger, ack=True)
    ledger.check()


@clause(
    "topology.contradiction",
    "Declaring what contradicts what is there raises TopologyError, and leaves it as it was.",
    anchors=[151],
    needs="ordering",
)
def test_contradiction(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    ledger.publish_one(bench.broker, source.destination, ledger.message())
    name = source.destination.name
    other: Queue | Topic = Queue(name, ordered=True) if bench.kind == "queue" else Topic(name, "g", ordered=True)
    with pytest.raises(TopologyError, match=name):
        bench.broker.declare(other)
    with pytest.raises(TopologyError, match=name):
        bench.connect(topology=other)
    bench.take(bench.consume(source), ledger, ack=True)
    ledger.check()


@clause(
    "topology.another-pattern",
    "Declaring a subscription with another pattern is refused, or from then on only the new pattern counts.",
    anchors=[34, 151],
    on=TOPIC,
    needs="patterns",
)
def test_another_pattern(bench: Bench) -> None:
    topic = bench.topic(Subscription("g", "order.*"))
    changed = Topic(topic.name, Subscription("g", "payment.*"))
    other = bench.connect()
    kind = "payment"
    try:
        other.declare(changed)
    except TopologyError:
        kind, changed = "order", topic
        other = bench.broker
    ledger = bench.ledger()
    due, out = ledger.message(type=f"{kind}.x"), ledger.message(type="order.x" if kind == "payment" else "payment.x")
    consumer = bench.consume(changed, "g", broker=other)
    ledger.publish(other, changed, [out, due])
    bench.take(consumer, ledger, ack=True, only=[due.id])
    bench.quiet(consumer, ledger)
    ledger.check(only=[due.id])


@clause(
    "topology.queue-or-topic",
    "A name that is a queue cannot be used as a topic on the same connection, nor the other way round.",
    anchors=[151],
    on=(),
)
def test_queue_or_topic(bench: Bench) -> None:
    if bench.able.queues:
        queue = bench.queue()
        with pytest.raises(TopologyError, match=queue.name):
            bench.broker.subscribe(queue.name, "g")
    if bench.able.topics:
        topic = bench.topic("g")
        with pytest.raises(TopologyError, match=topic.name):
            bench.broker.subscribe(topic.name)
        with pytest.raises(TopologyError):
            bench.broker.depth(topic.name)


@clause(
    "topology.check-creates-nothing",
    "With create=False nothing is created: what is missing raises DestinationNotFound and is still missing.",
    anchors=[152, 153],
)
def test_check_creates_nothing(bench: Bench) -> None:
    name = bench.name()
    missing = Queue(name) if bench.kind == "queue" else Topic(name, "g")
    for _ in range(2):
        with pytest.raises(DestinationNotFound, match=name):
            bench.connect(topology=missing, create=False)
    bench.broker.declare(missing)
    bench.connect(topology=missing, create=False)


@clause(
    "topology.check-subscription",
    "With create=False a missing subscription of an existing topic raises DestinationNotFound.",
    anchors=[152],
    on=TOPIC,
)
def test_check_subscription(bench: Bench) -> None:
    topic = bench.topic("here")
    with pytest.raises(DestinationNotFound):
        bench.connect(topology=Topic(topic.name, "here", "missing"), create=False)


@clause(
    "topology.fresh-is-empty",
    "A fresh queue or subscription has a depth of 0, and so has its dead-letter queue.",
    anchors=[156],
)
def test_fresh_is_empty(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    assert bench.depth(source) == 0
    if bench.able.dead_letter:
        assert bench.dead_letter_depth(source) == 0
    bench.quiet(bench.consume(source), ledger)


@clause("topology.depth", "depth tells how many messages wait.", anchors=[156])
def test_depth(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    ledger.publish(bench.broker, source.destination, ledger.messages(7))
    bench.eventually(lambda: bench.depth(source) == 7, "a depth of 7")
    with bench.consume(source) as consumer:
        consumer.ack(bench.take(consumer, ledger)[:3])
        consumer.flush()
    bench.eventually(lambda: bench.depth(source) == 4, "a depth of 4 after three of seven were acked")


@clause(
    "topology.purge",
    "purge drops what waits in one source and nothing else; what comes later is delivered.",
    anchors=[157],
)
def test_purge(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    group = source.group
    other = bench.source()
    kept = bench.ledger("kept")
    kept.publish(bench.broker, other.destination, kept.messages(2))
    dead = bench.ledger("dead")
    if bench.able.dead_letter:
        dead.publish_one(bench.broker, source.destination, dead.message())
        with bench.consume(source) as consumer:
            bench.one(consumer, dead).reject("kept")
            consumer.flush()
    bench.broker.publish_many(source.destination, ledger.messages(5))
    bench.eventually(lambda: bench.depth(source) == 5, "a depth of 5")
    bench.broker.purge(source.destination, group)
    bench.eventually(lambda: bench.depth(source) == 0, "a depth of 0")
    consumer = bench.consume(source)
    bench.quiet(consumer, ledger)
    ledger.publish_one(bench.broker, source.destination, ledger.message())
    bench.take(consumer, ledger, ack=True)
    bench.take(bench.consume(other), kept, ack=True)
    if bench.able.dead_letter:
        bench.take(bench.dead_letters(source), dead.view("left"), 1, ack=True)
    ledger.check()
    kept.check()


@clause(
    "topology.purge-own-group",
    "purge of one subscription leaves the other groups their messages.",
    anchors=[157],
    on=TOPIC,
)
def test_purge_own_group(bench: Bench) -> None:
    topic, ledger = bench.topic("purged", "kept"), bench.ledger()
    ledger.publish(bench.broker, topic, ledger.messages(3))
    bench.eventually(lambda: bench.broker.depth(topic, "purged") == 3, "a depth of 3")
    bench.broker.purge(topic, "purged")
    bench.take(bench.consume(topic, "kept"), ledger, ack=True)
    bench.quiet(bench.consume(topic, "purged"), ledger)
    ledger.check()


@clause(
    "topology.delete",
    "What was deleted is gone with its messages; deleting what is not there is no error.",
    anchors=[151],
)
def test_delete(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    bench.broker.publish_many(source.destination, ledger.messages(3))
    bench.broker.delete(source.destination)
    bench.broker.delete(source.destination)
    bench.broker.delete(Queue(bench.name()) if bench.kind == "queue" else Topic(bench.name()))
    assert bench.broker.topology.get(source.destination.name) is None

    def gone() -> bool:
        try:
            bench.connect(topology=source.destination, create=False).close()
        except DestinationNotFound:
            return True
        return False

    bench.eventually(gone, "the destination to be gone")


@clause(
    "topology.delete-leaves-dead-letters",
    "Deleting a queue that is told to have no dead letters leaves those of a queue of its name.",
    anchors=[151],
    on=QUEUE,
    needs="dead_letter",
)
def test_delete_leaves_dead_letters(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    ledger.publish_one(bench.broker, source.destination, ledger.message())
    with bench.consume(source) as consumer:
        bench.one(consumer, ledger).reject("kept")
        consumer.flush()
    letters = bench.broker.dead_letter_queue(source.destination)
    bench.eventually(lambda: letters.depth() == 1, "a dead letter")
    bench.broker.delete(Queue(source.name, dead_letter=False))
    bench.take(bench.dead_letters(source), ledger.view("left"), 1, ack=True)


@clause(
    "topology.delete-and-declare-again",
    "A destination that was deleted and declared again is empty and works.",
    anchors=[145, 151],
    failures=[12],
)
def test_delete_and_declare_again(bench: Bench) -> None:
    source, ledger = bench.source(), bench.ledger()
    bench.broker.publish_many(source.destination, ledger.messages(3))
    bench.broker.delete(source.destination)
    bench.broker.declare(source.destination)
    consumer = bench.consume(source)
    bench.quiet(consumer, ledger)
    ledger.publish(bench.broker, source.destination, ledger.messages(3))
    bench.take(consumer, ledger, ack=True)
    ledger.check()


@clause(
    "topology.names",
    "Names that some broker could not carry are refused on every one, with what is allowed.",
    anchors=[158],
    on=(),
)
def test_names(bench: Bench) -> None:
    for name in ("", "-a", "a--b", "a b", "ü", "a/b", "a" * 81, "dlq", "a.", "a..b", "x\n"):
        with pytest.raises(TopologyError, match=r"name|reserved"):
            bench.broker.declare(Queue(name))
        with pytest.raises(TopologyError, match=r"name|reserved"):
            bench.broker.declare(Topic(name, "g"))
        with pytest.raises(TopologyError, match=r"name|reserved"):
            Subscription(name)


@clause(
    "topology.names-with-dots",
    "Names with dots, dashes and underscores, and of 80 characters, are queues of their own, or a declaration that "
    "the broker would mix up with another is refused.",
    anchors=[158],
    on=QUEUE,
)
def test_names_with_dots(bench: Bench) -> None:
    base = bench.name()
    names = [f"{base}.a", f"{base}-a", f"{base}_a", f"{base}.A", (f"{base}-" + "x" * 80)[:60]]
    ledgers = {}
    for name in names:
        try:
            bench.broker.declare(Queue(name))
        except TopologyError:  # Kafka: a dot and an underscore are one
            continue
        ledger = ledgers[name] = bench.ledger(name[-4:])
        ledger.publish_one(bench.broker, name, ledger.message())
    assert len(ledgers) >= 4
    for name, ledger in ledgers.items():
        consumer = bench.consume(name)
        bench.take(consumer, ledger, ack=True)
        bench.quiet(consumer, ledger, bench.harness.quiet / 4)
        ledger.check()


@clause(
    "topology.patterns-checked",
    "A routing pattern that means nothing is refused when it is declared.",
    anchors=[34, 158],
    on=TOPIC,
)
def test_patterns_checked(bench: Bench) -> None:
    for pattern in ("", "a*", "a.#b", "x" * 256):
        with pytest.raises(TopologyError, match=r"pattern|whole words"):
            Subscription("g", pattern)
    topic = bench.topic(Subscription("g", "order.*")) if bench.able.patterns else bench.topic("g")
    with pytest.raises(TopologyError, match="pattern"):
        bench.broker.subscribe(topic.name, "g", pattern="other.*")


@clause(
    "topology.options-of-other-brokers",
    "Native options for another broker are ignored; for one that does not exist they are refused.",
    anchors=[152],
    on=QUEUE,
)
def test_options_of_other_brokers(bench: Bench) -> None:
    others = {name: {"anything": 1} for name in ("kafka", "rabbitmq", "sqs") if name != bench.broker.name}
    queue = Queue(bench.name(), native=others)
    ledger = bench.ledger()
    bench.broker.declare(queue)
    ledger.publish_one(bench.broker, queue, ledger.message())
    bench.take(bench.consume(queue), ledger, ack=True)
    ledger.check()
    with pytest.raises(ConfigurationError, match="kafak"):
        bench.broker.declare(Queue(bench.name(), native={"kafak": {}}))
    wrong = Queue(bench.name(), native={bench.broker.name: {"partitoins": 3}})
    with pytest.raises(ConfigurationError, match=f"partitoins|{wrong.name}"):
        bench.broker.declare(wrong)

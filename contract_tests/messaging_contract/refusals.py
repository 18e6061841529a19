"""How each capability is refused: the call that needs it raises UnsupportedCapability and nothing is sent."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from messaging import DestinationNotFound, Queue, Subscription, Topic, UnsupportedCapability
from messaging_contract.bench import Bench


def refuse(capability: str, bench: Bench) -> None:
    """Asserts that `bench`'s broker refuses `capability`. Raises KeyError for one that cannot be asked for."""
    kind = _OF_A_KIND.get(capability)
    REFUSALS[capability if kind is None or getattr(bench.able, kind) else kind](bench)


_OF_A_KIND = {"patterns": "topics", "delayed_topic": "topics", "mandatory": "topics", "delayed_queue": "queues"}
"""What cannot even be asked for where there are no topics (queues): then they are what is refused."""


def _queues(bench: Bench) -> None:
    with pytest.raises(UnsupportedCapability):
        bench.broker.declare(Queue(bench.name()))


def _topics(bench: Bench) -> None:
    with pytest.raises(UnsupportedCapability):
        bench.broker.declare(Topic(bench.name(), "g"))


def _patterns(bench: Bench) -> None:
    topic = Topic(bench.name(), Subscription("g", "order.*"))
    with pytest.raises(UnsupportedCapability):
        bench.broker.declare(topic)
    _is_not_there(bench, Topic(topic.name, "g"))


def _ordering(bench: Bench) -> None:
    for destination in _destinations(bench, ordered=True):
        name = destination.name
        with pytest.raises(UnsupportedCapability):
            bench.broker.declare(destination)
        _is_not_there(bench, Queue(name) if isinstance(destination, Queue) else Topic(name, "g"))


def _nack_delay(bench: Bench) -> None:
    source, group = _source(bench)
    ledger = bench.ledger()
    consumer = bench.consume(source, group)
    ledger.publish(bench.broker, source, ledger.message())
    delivery = bench.one(consumer, ledger)
    with pytest.raises(UnsupportedCapability):
        delivery.nack(delay=0.2)
    assert not delivery.settled
    delivery.ack()


def _dead_letter(bench: Bench) -> None:
    source, group = _source(bench)
    ledger = bench.ledger()
    consumer = bench.consume(source, group)
    ledger.publish(bench.broker, source, ledger.message())
    delivery = bench.one(consumer, ledger)
    with pytest.raises(UnsupportedCapability):
        delivery.reject("no")
    assert not delivery.settled
    delivery.ack()


def _delayed_queue(bench: Bench) -> None:
    queue = bench.queue()
    ledger = bench.ledger()
    consumer = bench.consume(queue)
    _delays(bench, queue)
    bench.quiet(consumer, ledger)


def _delayed_topic(bench: Bench) -> None:
    topic = bench.topic("g")
    ledger = bench.ledger()
    consumer = bench.consume(topic, "g")
    _delays(bench, topic)
    bench.quiet(consumer, ledger)


def _delays(bench: Bench, destination: Queue | Topic) -> None:
    ledger = bench.ledger()
    with pytest.raises(UnsupportedCapability):
        bench.broker.publish(destination, ledger.message(), delay=1.0)
    with pytest.raises(UnsupportedCapability):
        bench.broker.publish_many(destination, ledger.messages(2), delay=1.0)
    with pytest.raises(UnsupportedCapability):
        bench.broker.publish_nowait(destination, ledger.message(), delay=1.0)


def _ttl(bench: Bench) -> None:
    source, group = _source(bench)
    ledger = bench.ledger()
    consumer = bench.consume(source, group)
    with pytest.raises(UnsupportedCapability):
        bench.broker.publish(source, ledger.message(ttl=1.0))
    with pytest.raises(UnsupportedCapability):
        bench.broker.publish_many(source, [ledger.message(), ledger.message(ttl=1.0)])
    bench.quiet(consumer, ledger)


def _mandatory(bench: Bench) -> None:
    topic = bench.topic("g")
    ledger = bench.ledger()
    consumer = bench.consume(topic, "g")
    with pytest.raises(UnsupportedCapability):
        bench.broker.publish(topic, ledger.message(), mandatory=True)
    with pytest.raises(UnsupportedCapability):
        bench.broker.publish_nowait(topic, ledger.message(), mandatory=True)
    bench.quiet(consumer, ledger)


def _lease(bench: Bench) -> None:
    source, group = _source(bench)
    with pytest.raises(UnsupportedCapability):
        bench.consume(source, group, lease=5.0)
    with pytest.raises(UnsupportedCapability):
        bench.consume(source, group, heartbeat=False)
    ledger = bench.ledger()
    consumer = bench.consume(source, group)
    ledger.publish(bench.broker, source, ledger.message())
    delivery = bench.one(consumer, ledger)
    with pytest.raises(UnsupportedCapability):
        delivery.extend(5.0)
    delivery.ack()


def _replay(bench: Bench) -> None:
    source, group = _source(bench)
    consumer = bench.consume(source, group)
    with pytest.raises(UnsupportedCapability):
        consumer.replay("beginning")


def _lag(bench: Bench) -> None:
    source, group = _source(bench)
    consumer = bench.consume(source, group)
    with pytest.raises(UnsupportedCapability):
        consumer.lag()


def _transactions(bench: Bench) -> None:
    source, group = _source(bench)
    with pytest.raises(UnsupportedCapability, match="at-least-once"):
        bench.consume(source, group, delivery="exactly-once")


def _destinations(bench: Bench, ordered: bool) -> list[Queue | Topic]:
    found: list[Queue | Topic] = []
    if bench.able.queues:
        found.append(Queue(bench.name(), ordered=ordered))
    if bench.able.topics:
        found.append(Topic(bench.name(), "g", ordered=ordered))
    return found


def _is_not_there(bench: Bench, destination: Queue | Topic) -> None:
    with pytest.raises(DestinationNotFound):
        bench.connect(topology=destination, create=False)


def _source(bench: Bench) -> tuple[Queue | Topic, str | None]:
    """Something to consume, on a broker that may lack queues or topics."""
    if bench.able.queues:
        return bench.queue(), None
    return bench.topic("g"), "g"


REFUSALS: dict[str, Callable[[Bench], None]] = {
    "queues": _queues,
    "topics": _topics,
    "patterns": _patterns,
    "ordering": _ordering,
    "nack_delay": _nack_delay,
    "dead_letter": _dead_letter,
    "delayed_queue": _delayed_queue,
    "delayed_topic": _delayed_topic,
    "ttl": _ttl,
    "mandatory": _mandatory,
    "lease": _lease,
    "replay": _replay,
    "lag": _lag,
    "transactions": _transactions,
}

"""Clients that know no broker any more: librdkafka never connects them again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import pytest

from messaging import Broker, Consumer, Queue, Topic
from messaging.errors import PublishTimeout
from messaging_kafka.broker_watch import BrokerWatch

from .brokerless import BrokerlessProxy
from .cluster import Cluster, one_partition, take

Connect = Callable[..., Broker]

_LOST = json.dumps({"brokers": {"GroupCoordinator": {"source": "logical"}, ":0/internal": {"source": "internal"}}})
_FOUND = json.dumps({"brokers": {"127.0.0.1:9092/bootstrap": {"source": "configured", "nodeid": -1}}})
_SAYS = "knows no broker any more"


def test_it_is_lost_when_no_broker_is_known_twice_in_a_row() -> None:
    watch = BrokerWatch()
    assert not watch.is_lost
    for statistics, is_lost in ((_LOST, False), (_FOUND, False), (_LOST, False), (_LOST, True), (_FOUND, False)):
        watch.look(statistics)
        assert watch.is_lost == is_lost


def _lose(look: Callable[[str], None]) -> None:
    look(_LOST)
    look(_LOST)


def _until(condition: Callable[[], bool], consumer: Consumer) -> None:
    """Nothing is received meanwhile."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        assert consumer.receive(1, 0.2) == []


def test_a_consumer_goes_on_with_another_client(
    connect: Connect, cluster: Cluster, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What was settled stays settled, what was not comes again, and what was nacked keeps its attempt."""
    broker = connect(one_partition(name))
    with broker.subscribe(name, "g") as consumer:
        broker.publish_many(name, [b"settled", b"held", b"nacked", b"next"])
        settled, held, nacked, _ = take(consumer, 4)
        settled.ack()
        consumer.flush()
        nacked.nack(delay=1.0)
        loop = consumer._receiver._loop  # type: ignore[attr-defined]
        _lose(loop._brokers.look)
        again = take(consumer, 3, 60)
        assert {d.body: d.attempt for d in again} == {b"held": 1, b"next": 1, b"nacked": 2}
        assert _SAYS in caplog.text
        held.ack()  # in vain: it was delivered again
        for delivery in again:
            delivery.ack()
        consumer.flush()
    assert cluster.committed(f"{name}--g", name) == {0: 4}


def test_a_paused_consumer_stays_paused(connect: Connect, name: str, caplog: pytest.LogCaptureFixture) -> None:
    broker = connect(Topic(name, "g"))
    with broker.subscribe(name, "g") as consumer:
        broker.publish(name, b"1")
        take(consumer, 1)[0].ack()
        consumer.flush()
        consumer.pause()
        _lose(consumer._receiver._loop._brokers.look)  # type: ignore[attr-defined]
        broker.publish(name, b"2")
        _until(lambda: _SAYS in caplog.text, consumer)
        assert consumer.receive(1, 3.0) == []
        consumer.resume()
        assert [d.body for d in take(consumer, 1, 60)] == [b"2"]


def test_a_producer_goes_on_with_another_client(
    connect: Connect, cluster: Cluster, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    broker = connect(Queue(name))
    with broker.producer(timeout=20.0) as producer:
        producer.publish(name, b"1")
        sender: Any = producer._sender
        before = sender._producer
        _lose(sender._watch.look)
        deadline = time.monotonic() + 30
        while sender._producer is before and time.monotonic() < deadline:
            with suppress(PublishTimeout):  # what the client before had not sent
                producer.publish(name, b"meanwhile")
        producer.publish(name, b"2")
    assert _SAYS in caplog.text
    bodies = [record.value() for record in cluster.records(name)]
    assert (bodies.count(b"1"), bodies.count(b"2")) == (1, 1)


@pytest.fixture
def proxy(url: str) -> Iterator[BrokerlessProxy]:
    port = urlsplit(url).port
    assert port is not None
    proxy = BrokerlessProxy(port)
    yield proxy
    proxy.close()


_SURE = {"topic.metadata.refresh.interval.ms": "1000", "metadata.recovery.strategy": "none"}
"""With the default strategy it is a matter of microseconds whether a client is lost."""


def test_a_cluster_that_names_no_broker_for_a_moment(
    connect: Connect, name: str, proxy: BrokerlessProxy, caplog: pytest.LogCaptureFixture
) -> None:
    broker = connect(Topic(name, "g"), target=f"kafka://127.0.0.1:{proxy.port}", config=_SURE)
    with broker.subscribe(name, "g") as consumer:
        broker.publish(name, b"before")
        take(consumer, 1, 60)[0].ack()
        consumer.flush()
        proxy.brokerless.set()
        _until(lambda: f"{_SAYS} and is" in caplog.text and f"{_SAYS}: the Kafka producer" in caplog.text, consumer)
        proxy.brokerless.clear()
        _goes_on(broker, name, consumer)


def test_a_cluster_that_names_no_broker_to_a_share_consumer_for_a_moment(
    shares: Connect, name: str, proxy: BrokerlessProxy, caplog: pytest.LogCaptureFixture
) -> None:
    broker = shares(Queue(name), target=f"kafka://127.0.0.1:{proxy.port}", config=_SURE)
    with broker.subscribe(name) as consumer:
        broker.publish(name, b"before")
        take(consumer, 1, 60)[0].ack()
        consumer.flush()
        share: Any = consumer._receiver._share  # type: ignore[attr-defined]
        before = share._consumer
        proxy.brokerless.set()
        _until(lambda: share._consumer is not before and _SAYS in caplog.text, consumer)
        proxy.brokerless.clear()
        _goes_on(broker, name, consumer)


def _goes_on(broker: Broker, name: str, consumer: Consumer) -> None:
    broker.ping()
    while True:
        try:
            broker.publish(name, b"after")
            break
        except PublishTimeout:  # by a producer that is being replaced
            pass
    assert [delivery.body for delivery in take(consumer, 1, 90)] == [b"after"]

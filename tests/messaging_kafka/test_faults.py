"""Brokers that are not there, do not answer, or go away."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator

import pytest

import messaging
from messaging import Broker, Queue
from messaging.errors import BrokerUnavailable, PublishTimeout, SettleFailed
from messaging_contract.harness import Harness, Link

from .cluster import Cluster, one_partition, take

Connect = Callable[..., Broker]


def test_nobody_listens() -> None:
    start = time.monotonic()
    with pytest.raises(BrokerUnavailable, match=r"127\.0\.0\.1:1 "):
        messaging.connect("kafka://127.0.0.1:1?connect_timeout=1")
    assert time.monotonic() - start < 8  # the default is 10


def test_nobody_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        start = time.monotonic()
        with pytest.raises(BrokerUnavailable, match="within 1 s"):
            messaging.connect(f"kafka://127.0.0.1:{silent.getsockname()[1]}?connect_timeout=1")
        assert time.monotonic() - start < 8  # the default is 10


def test_dead_hosts_are_skipped(cluster: Cluster) -> None:
    with messaging.connect(f"kafka://127.0.0.1:1,{cluster.bootstrap}") as broker:
        broker.ping()


@pytest.fixture
def link(kafka: Harness) -> Iterator[Link]:
    if kafka.link is None:
        pytest.skip("Kafka tells clients where to go, so its connections are cut only where it runs in a container")
    link = kafka.link()
    yield link
    link.resume()


def test_a_cut_while_publishing_stores_each_message_once_and_in_order(
    connect: Connect, cluster: Cluster, name: str, link: Link
) -> None:
    broker = connect(one_partition(name))
    futures = [broker.publish_nowait(name, b"%d" % n) for n in range(300)]
    link.cut()
    futures += [broker.publish_nowait(name, b"%d" % n) for n in range(300, 400)]
    link.resume()
    broker.flush(30)
    assert [future.exception() for future in futures] == [None] * 400
    assert [int(record.value()) for record in cluster.records(name)] == list(range(400))


def test_a_cut_while_consuming_loses_nothing(connect: Connect, cluster: Cluster, name: str, link: Link) -> None:
    broker = connect(one_partition(name))
    sent = broker.publish_many(name, [b"%d" % n for n in range(200)])
    handled: dict[str, None] = {}
    with broker.subscribe(name, "g", prefetch=20) as consumer:
        cuts = 0
        deadline = time.monotonic() + 40
        while len(handled) < len(sent) and time.monotonic() < deadline:
            try:
                for delivery in consumer.receive(10, 0.5):
                    handled[delivery.id] = None
                    delivery.ack()
            except SettleFailed:
                continue
            if len(handled) > 60 * (cuts + 1) and cuts < 2:
                cuts += 1
                link.cut()
                link.resume()
        assert cuts == 2
        assert list(handled) == sent
        consumer.flush(20)
    assert cluster.committed(f"{name}--g", name) == {0: 200}


def test_a_publish_has_its_deadline_while_the_broker_is_away(
    connect: Connect, cluster: Cluster, name: str, link: Link
) -> None:
    broker = connect(one_partition(name))
    broker.publish(name, b"before")
    with broker.producer(timeout=3.0) as producer:
        producer.publish(name, b"first")
        link.cut()
        start = time.monotonic()
        with pytest.raises(PublishTimeout):
            producer.publish(name, b"lost")
        assert time.monotonic() - start < 20  # the default is 30
        link.resume()
        broker.publish(name, b"after")
    assert [r.value() for r in cluster.records(name) if r.value() != b"lost"] == [b"before", b"first", b"after"]


@pytest.mark.only("kafka:4.2")
def test_close_is_bounded_and_settlements_that_did_not_arrive_are_undone(
    connect: Connect, cluster: Cluster, name: str, link: Link
) -> None:
    broker = connect(one_partition(name))
    broker.publish_many(name, [b"0", b"1"])
    consumer = broker.subscribe(name, "g")
    first, second = take(consumer, 2)
    first.ack()
    consumer.flush()
    link.cut()
    second.ack()
    start = time.monotonic()
    consumer.close()
    assert time.monotonic() - start < 15
    link.resume()
    assert cluster.committed(f"{name}--g", name) == {0: 1}


@pytest.mark.only("kafka:4.2")
def test_share_members_that_hardly_joined_leave_none_behind(
    shares: Connect, cluster: Cluster, name: str, link: Link
) -> None:
    broker = shares(Queue(name))
    link.delay(0.15)  # what they are answered comes long after they asked, so they could be gone by then
    for _ in range(3):
        broker.subscribe(name).close()
    link.resume()
    # A member that is left behind would keep its partitions for 45 seconds, and what is in them.
    for partition in range(4):
        cluster.produce(name, *(b"%d.%d" % (partition, n) for n in range(3)), partition=partition)
    with broker.subscribe(name) as consumer:
        assert len(take(consumer, 12, 20)) == 12

"""Brokers that are not there, do not answer, or go away."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Iterator
from threading import Event
from typing import Any

import pytest
from confluent_kafka import KafkaError, Message

import messaging
from messaging import Broker, Queue
from messaging.errors import AuthenticationFailed, BrokerUnavailable, PublishTimeout, SettleFailed
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


@pytest.mark.only("kafka:4.2")
def test_share_prefetch_holds_while_a_held_message_is_moved(
    shares: Connect, cluster: Cluster, name: str, link: Link
) -> None:
    broker = shares(Queue(name))
    broker.publish(name, b"first")
    with broker.subscribe(name, prefetch=2) as consumer:
        (first,) = take(consumer, 1)
        broker.publish_many(name, [b"%d" % n for n in range(6)])
        link.delay(0.2)  # so that the copy of the first takes a while to come round
        (second,) = take(consumer, 1, 30)
        assert consumer.receive(6, 3) == []
        link.resume()
        first.ack()
        second.ack()
        for delivery in take(consumer, 2):
            delivery.ack()


class ProduceGate:
    """Lets a proxy carry everything but what the clients that are there now produce, once it is `shut`.

    This is how librdkafka #5430 looks from outside: the broker is reached and has a leader, and nothing is sent.
    """

    PRODUCE = 0

    def __init__(self, proxy: Any) -> None:
        self.proxy = proxy
        self.carry = proxy._pass
        self.shut = Event()
        self.begun: dict[Any, bytearray] = {}
        """Of each connection the request that has not come as a whole."""
        self.new: dict[Any, bool] = {}
        """Whether it is of a client that was made since."""

    def __call__(self, pair: Any, way: Any, target: socket.socket, data: bytes) -> None:
        if way is not self.proxy._up:
            self.carry(pair, way, target, data)
            return
        begun = self.begun.setdefault(pair, bytearray())
        begun += data
        while len(begun) >= 12:
            length, key, _version, correlation = struct.unpack(">ihhi", begun[:12])
            if len(begun) < length + 4:
                return
            request = bytes(begun[: length + 4])
            del begun[: length + 4]
            # Each client counts its requests to a broker from 1, also over reconnects.
            new = self.new.setdefault(pair, self.shut.is_set() and correlation <= 1)
            if new or key != self.PRODUCE or not self.shut.is_set():
                self.carry(pair, way, target, request)


@pytest.mark.only("kafka:4.2")
def test_a_client_that_sends_nothing_though_there_is_a_leader_is_replaced(
    connect: Connect, cluster: Cluster, name: str, link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("messaging_kafka.sender._STUCK_AFTER", 1.0)
    proxy = link.cut.__self__  # type: ignore[attr-defined]
    gate = ProduceGate(proxy)
    monkeypatch.setattr(proxy, "_pass", gate)
    broker = connect(one_partition(name))
    with broker.producer(timeout=2.0) as producer:
        producer.publish(name, b"before")
        gate.shut.set()
        with pytest.raises(PublishTimeout):
            producer.publish(name, b"lost")
        deadline = time.monotonic() + 60
        while True:
            assert time.monotonic() < deadline
            try:
                producer.publish(name, b"after")
                break
            except PublishTimeout:
                continue
    assert [record.value() for record in cluster.records(name)] == [b"before", b"after"]


def test_an_error_in_place_of_a_record_is_told_and_consuming_goes_on(connect: Connect, name: str) -> None:
    broker = connect(one_partition(name))
    with broker.subscribe(name, "g") as consumer:
        loop = consumer._receiver._loop  # type: ignore[attr-defined]
        refused = Message(topic=name, partition=0, error=KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))
        loop.call(lambda: loop._accept([refused]), 10.0)
        with pytest.raises(AuthenticationFailed):
            consumer.receive(1, 5.0)
        broker.publish(name, b"x")
        take(consumer, 1)[0].ack()

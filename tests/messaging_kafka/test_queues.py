"""Queues: share groups on Kafka 4.2, consumer groups below, and never one after the other."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from confluent_kafka import ShareConsumer
from confluent_kafka.admin import ResourceType

from messaging import Broker, Consumer, Queue
from messaging.errors import SettleFailed, TopologyError, UnsupportedCapability

from .cluster import Cluster, take, uses_share_groups

Connect = Callable[..., Broker]


def what_the_group_still_has(cluster: Cluster, queue: str, count: int) -> dict[bytes, int]:
    """Body and delivery count of everything the share group of `queue` delivers now, without any of ours."""
    consumer: Any = ShareConsumer({"bootstrap.servers": cluster.bootstrap, "group.id": f"{queue}--share"})
    found: dict[bytes, int] = {}
    try:
        consumer.subscribe([queue])
        silent = 0
        for _ in range(200):
            records = consumer.poll(0.1)
            found |= {record.value(): record.delivery_count() for record in records}
            silent = 0 if records else silent + 1
            if len(found) >= count and silent >= 5:
                break
        return found
    finally:
        consumer.close()


@pytest.mark.only("kafka:4.2")
def test_what_is_nacked_again_waits_on_and_counts_when_its_consumer_closes(shares: Connect, name: str) -> None:
    broker = shares(Queue(name))
    broker.publish(name, b"1")
    with broker.subscribe(name) as consumer:
        take(consumer, 1)[0].nack(delay=0.1)
        (again,) = take(consumer, 1)
        assert again.attempt == 2
        nacked = time.time()
        again.nack(delay=6.0)
        consumer.flush()
    with broker.subscribe(name) as consumer:
        (third,) = take(consumer, 1, 60)
        assert (third.attempt, time.time() - nacked >= 6.0) == (3, True)
        third.ack()


@pytest.mark.only("kafka:4.2")
@pytest.mark.parametrize("how", ["nack", "reject"])
def test_what_finds_no_room_for_its_copy_is_there_for_the_next_consumer(
    shares: Connect, cluster: Cluster, name: str, how: str
) -> None:
    """A topic that takes no copies, and a consumer that closes at once: the original is not settled before its copy."""
    broker = shares(Queue(name))
    broker.publish(name, b"x" * 5000)
    for topic in (f"{name}--retry", f"{name}--dlq"):
        cluster.configure(topic, **{"max.message.bytes": "1000"})
    with suppress(SettleFailed), broker.subscribe(name) as consumer:
        (delivery,) = take(consumer, 1)
        delivery.nack(delay=0.5) if how == "nack" else delivery.reject("no")
    assert [cluster.records(f"{name}--{end}") for end in ("retry", "dlq")] == [[], []]
    with broker.subscribe(name) as consumer:
        (again,) = take(consumer, 1, 60)
        assert again.body == b"x" * 5000
        again.ack()


@pytest.mark.only("kafka:4.2")
def test_a_share_group_keeps_what_was_not_acked(shares: Connect, cluster: Cluster, name: str) -> None:
    broker = shares(Queue(name, native={"kafka": {"partitions": 1}}))
    # One batch, so that one poll brings all: what keeps a waiting receive from the next poll is moved (see below).
    cluster.produce(name, *(b"%d" % n for n in range(10)), at_once=True)
    with broker.subscribe(name) as consumer:
        taken = take(consumer, 10)
        left = {d.body for d in taken if int(d.body) % 3 == 0}
        consumer.ack([d for d in taken if d.body not in left])
        consumer.flush()
        assert broker.depth(name) == len(left)
    assert broker.depth(name) == len(left)
    assert cluster.committed(f"{name}--queue", name) == {}
    assert what_the_group_still_has(cluster, name, len(left)) == dict.fromkeys(left, 2)
    assert cluster.records(f"{name}--retry") == []


@pytest.mark.only("kafka:4.2")
def test_what_keeps_a_receive_waiting_is_moved_to_the_retry_topic(
    shares: Connect, cluster: Cluster, name: str, eventually: Callable[..., None]
) -> None:
    broker = shares(Queue(name, native={"kafka": {"partitions": 1}}))
    cluster.produce(name, b"0", b"1", at_once=True)
    with broker.subscribe(name) as consumer:
        first, second = take(consumer, 2)

        def moved() -> bool:
            assert consumer.receive(1, 0.5) == []
            return sorted(record.value() for record in cluster.records(f"{name}--retry")) == [b"0", b"1"]

        eventually(moved, 20)
        assert broker.depth(name) == 2
        first.ack()
        consumer.flush()
        assert broker.depth(name) == 1
    assert what_the_group_still_has(cluster, name, 0) == {}
    with broker.subscribe(name) as consumer:
        (again,) = take(consumer, 1)
        assert (again.body, again.attempt) == (second.body, 2)
        again.ack()
        consumer.flush()
        assert broker.depth(name) == 0


@pytest.mark.only("kafka:4.2")
def test_a_share_group_begins_at_the_beginning_and_locks_long(shares: Connect, cluster: Cluster, name: str) -> None:
    broker = shares(Queue(name))
    config = cluster.config(f"{name}--share", ResourceType.GROUP)
    assert config["share.auto.offset.reset"] == "earliest"
    assert config["share.record.lock.duration.ms"] == "60000"
    broker.delete(Queue(name))
    assert cluster.config(f"{name}--share", ResourceType.GROUP)["share.auto.offset.reset"] == "latest"


@pytest.mark.only("kafka:4.2")
def test_members_that_leave_at_once_use_up_no_deliveries(shares: Connect, name: str) -> None:
    queue = Queue(name, native={"kafka": {"partitions": 1}})
    first = shares(queue)
    consumers = [shares(queue).subscribe(name, prefetch=1) for _ in range(8)]
    joined: set[Consumer] = set()
    deadline = time.monotonic() + 60
    while len(joined) < len(consumers) or first.depth(name) > 0:
        assert time.monotonic() < deadline, f"{len(joined)} have joined"
        if len(joined) < len(consumers):
            first.publish_many(name, [b"who has joined?"] * len(consumers))
        for consumer in consumers:
            for delivery in consumer.receive(1, 0.2):
                delivery.ack()
                joined.add(consumer)
    for consumer in consumers:
        assert consumer.receive(1, 0.2) == []  # from now on a fetch is under way
    with ThreadPoolExecutor(len(consumers)) as pool:
        closing = [pool.submit(consumer.close) for consumer in consumers]
        first.publish(name, b"x")
        for closed in closing:
            closed.result()
    with first.subscribe(name) as last:
        (delivery,) = take(last, 1, 30)
        assert delivery.body == b"x"
        assert delivery.attempt <= 3, "it goes on as a copy before the broker's limit, 5, is near"
        delivery.ack()


@pytest.mark.only("kafka:4.2")
def test_a_nacked_message_of_a_share_group_waits_in_the_retry_topic(
    shares: Connect, cluster: Cluster, name: str
) -> None:
    broker = shares(Queue(name))
    broker.publish(name, b"x", key="k", headers={"h": "v"})
    with broker.subscribe(name) as consumer:
        (first,) = take(consumer, 1)
        first.nack(0.5)
        (second,) = take(consumer, 1)
        assert (second.id, second.key, second.headers, second.attempt) == (first.id, "k", {"h": "v"}, 2)
        (copy,) = cluster.records(f"{name}--retry")
        assert dict(copy.headers())["x-messaging-attempt"] == b"1"
        assert sum(cluster.committed(f"{name}--retry", f"{name}--retry").values()) == 0
        second.ack()
        consumer.flush()
        assert consumer.lag() == 0
        assert sum(cluster.committed(f"{name}--retry", f"{name}--retry").values()) == 1
    assert what_the_group_still_has(cluster, name, 0) == {}


@pytest.mark.only("kafka:4.2")
def test_a_rejected_message_of_a_share_group_is_in_the_dead_letter_topic(
    shares: Connect, cluster: Cluster, name: str
) -> None:
    broker = shares(Queue(name))
    broker.publish_many(name, [b"good", b"bad"])
    with broker.subscribe(name) as consumer:
        for delivery in take(consumer, 2):
            delivery.ack() if delivery.body == b"good" else delivery.reject("no good")
        consumer.flush()
        assert broker.depth(name) == 0
    (dead,) = cluster.records(f"{name}--dlq")
    assert (dead.value(), dict(dead.headers())["dead-letter-reason"]) == (b"bad", b"no good")
    assert what_the_group_still_has(cluster, name, 0) == {}


@pytest.mark.only("kafka:4.2")
def test_nothing_is_lost_past_the_brokers_delivery_limit(shares: Connect, cluster: Cluster, name: str) -> None:
    broker = shares(Queue(name))
    id_ = broker.publish(name, b"x")
    attempts = []
    for _ in range(7):  # the broker's limit is five
        with broker.subscribe(name) as consumer:
            (delivery,) = take(consumer, 1)
            attempts.append(delivery.attempt)
            assert delivery.id == id_
    assert attempts == sorted(attempts)
    with broker.subscribe(name) as consumer:
        take(consumer, 1)[0].ack()
        consumer.flush()
        assert consumer.lag() == 0


def test_without_share_groups_a_queue_is_a_consumer_group(connect: Connect, cluster: Cluster, name: str) -> None:
    queue = Queue(name, native={"kafka": {"partitions": 1}})
    broker = connect(queue, queues="group")
    assert not uses_share_groups(broker)
    broker.publish_many(name, [b"0", b"1", b"2"])
    with broker.subscribe(name) as consumer:
        first, second, third = take(consumer, 3)
        consumer.ack([first, third])
        consumer.flush()
        assert cluster.committed(f"{name}--queue", name) == {0: 1}
        second.ack()
        consumer.flush()
        assert broker.depth(name) == 0
    assert cluster.committed(f"{name}--queue", name) == {0: 3}
    assert f"{name}--retry" not in cluster.topics()


def test_an_ordered_queue_is_a_consumer_group_everywhere(connect: Connect, cluster: Cluster, name: str) -> None:
    broker = connect(Queue(name, ordered=True, native={"kafka": {"partitions": 1}}))
    broker.publish(name, b"x", key="k")
    with broker.subscribe(name) as consumer:
        take(consumer, 1)[0].ack()
        consumer.flush()
    assert cluster.committed(f"{name}--queue", name) == {0: 1}


@pytest.mark.only("kafka:4.1")
def test_share_groups_that_the_cluster_lacks_are_refused(connect: Connect, cluster: Cluster, name: str) -> None:
    broker = connect(Queue(name, native={"kafka": {"partitions": 1}}))
    if uses_share_groups(broker):
        pytest.skip("this Kafka has share groups")
    with pytest.raises(UnsupportedCapability, match=r"4\.2"):
        connect(queues="share")
    broker.publish(name, b"x")
    with broker.subscribe(name) as consumer:
        take(consumer, 1)[0].ack()
        consumer.flush()
    assert cluster.committed(f"{name}--queue", name) == {0: 1}


@pytest.mark.only("kafka:4.2")
def test_a_queue_never_changes_its_kind_of_group(shares: Connect, name: str) -> None:
    shares(Queue(name), queues="share")
    with pytest.raises(TopologyError, match="share group"):
        shares(Queue(name), queues="group")
    with pytest.raises(TopologyError, match="share group"):
        shares(Queue(name, ordered=True))
    shares(Queue(name + "-g"), queues="group")
    with pytest.raises(TopologyError, match="consumer group"):
        shares(Queue(name + "-g"), queues="share")
